"""Huey, plain and by priority: tasks waiting, one taken, and two that a consumer has moved to the schedule."""

# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

from __future__ import annotations

from huey import PriorityRedisHuey, RedisHuey

from report import oldest, queue, tell, url


def fill(huey: RedisHuey) -> None:
    """Put ten tasks into a queue: one is taken, two are scheduled, one is delayed but not yet moved."""

    @huey.task()
    def work() -> None:
        pass

    for _ in range(2):
        work.schedule(delay=60, priority=9)
    for _ in range(2):
        huey.execute(huey.dequeue())
    work(priority=9)
    huey.dequeue()
    work(priority=5)
    huey.dequeue()
    with oldest():
        work(priority=1)
    for priority in (1, 5, 5, 3, None):
        work(priority=priority)
    work.schedule(delay=60, priority=5)


fill(RedisHuey("my-mail.q", url=url()))
plain = queue("my-mail.q", 7, None, 2)
fill(PriorityRedisHuey("urgent", url=url()))
tell(plain, queue("urgent", 7, None, 2, aged=True, priority=True))
