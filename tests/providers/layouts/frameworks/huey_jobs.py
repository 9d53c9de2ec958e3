"""Huey, plain and by priority: tasks waiting, one taken, and two that a consumer has moved to the schedule."""

# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

from __future__ import annotations

from huey import PriorityRedisHuey, RedisHuey

from report import oldest, queue, tell, url


def fill(huey: RedisHuey, *, priority: bool) -> None:
    """Put ten tasks into a queue: two are taken, two are scheduled, one is delayed but not yet moved."""

    def level(number: int | None) -> dict[str, int | None]:
        return {"priority": number} if priority else {}

    @huey.task()
    def work() -> None:
        pass

    for _ in range(2):
        work.schedule(delay=60, **level(9))
    for _ in range(2):
        huey.execute(huey.dequeue())
    work(**level(9))
    huey.dequeue()
    work(**level(5))
    huey.dequeue()
    with oldest():
        work(**level(1))
    for number in (1, 5, 5, 3, None):
        work(**level(number))
    work.schedule(delay=60, **level(5))


fill(RedisHuey("my-mail.q", url=url()), priority=False)
plain = queue("my-mail.q", 7, None, 2)
fill(PriorityRedisHuey("urgent", url=url()), priority=True)
tell(plain, queue("urgent", 7, None, 2, aged=True, priority=True))
