"""taskiq-redis: a list; streams with a group from the start, made after the first task, and not made yet."""

# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

from __future__ import annotations

import asyncio

from taskiq import AsyncBroker  # noqa: TC002 - in an environment of its own nothing is saved by that
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from report import oldest, queue, tell, url


async def send(broker: AsyncBroker, count: int) -> None:
    """Send tasks."""
    task = broker.register_task(lambda: None, task_name="work")
    for _ in range(count):
        await task.kiq()


async def main() -> None:
    """Fill the queues and hold them so."""
    plain = ListQueueBroker(url(), queue_name="plain")
    await send(plain, 5)
    taken = plain.listen()
    for _ in range(2):
        await anext(taken)

    acked = RedisStreamBroker(url(), queue_name="acked", xread_count=3)
    await acked.startup()
    await send(acked, 3)
    read = acked.listen()
    first = await anext(read)
    await first.ack()
    with oldest():
        await send(acked, 1)
    await send(acked, 3)
    stream = queue("acked", 4, 2, None, aged=True, group="taskiq")

    late = RedisStreamBroker(url(), queue_name="late", consumer_group_name="shop")
    await send(late, 3)
    await late.startup()
    with oldest():
        await send(late, 1)
    await send(late, 1)
    in_the_middle = queue("late", 2, 0, None, aged=True, group="shop")

    new = RedisStreamBroker(url(), queue_name="new")
    with oldest():
        await send(new, 1)
    await send(new, 1)
    await asyncio.to_thread(
        tell,
        queue("plain", 3, None, None),
        stream,
        in_the_middle,
        queue("new", 2, 0, None, aged=True, group="taskiq"),
    )


asyncio.run(main())
