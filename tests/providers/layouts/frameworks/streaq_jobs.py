"""streaQ: a worker that runs two tasks and has taken a third, and tasks of two priorities waiting and delayed."""

# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

from streaq import Worker

from report import oldest, queue, tell, url

worker = Worker(
    redis_url=url(), queue_name="mail", priorities=["low", "high"], concurrency=2, prefetch=1, handle_signals=False
)
started = asyncio.Semaphore(0)


@worker.task
async def work() -> None:
    """Run for longer than the test."""
    started.release()
    await asyncio.sleep(60)


async def main() -> None:
    """Fill the queue and hold it so."""
    async with worker:
        for _ in range(3):
            await work.enqueue().start(priority="high")
    running = asyncio.create_task(worker.run_async())  # enters the worker anew
    for _ in range(2):
        await started.acquire()
    while worker._count < 3:  # what it has taken: one more than it runs, at the least
        await asyncio.sleep(0.01)
    with oldest():
        await work.enqueue().start(priority="low")
    await work.enqueue().start(priority="low")
    await work.enqueue().start(priority="high")
    for priority in ("low", "low", "low", "high"):
        await work.enqueue().start(delay=timedelta(minutes=1), priority=priority)
    await asyncio.to_thread(tell, queue("mail", 3, 3, 4, aged=True))
    assert not running.done()
    os._exit(0)  # it would wait for its tasks


asyncio.run(main())
