"""streaQ: a worker that runs two tasks, and tasks of two priorities waiting and delayed."""

# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

from __future__ import annotations

import asyncio
from datetime import timedelta

from streaq import Worker

from report import oldest, queue, tell, url

worker = Worker(
    redis_url=url(), queue_name="mail", priorities=["low", "high"], concurrency=2, prefetch=0, handle_signals=False
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
        for _ in range(2):
            await work.enqueue().start(priority="high")
        running = asyncio.create_task(worker.run_async())
        for _ in range(2):
            await started.acquire()
        with oldest():
            await work.enqueue().start(priority="low")
        await work.enqueue().start(priority="low")
        await work.enqueue().start(priority="high")
        for priority in ("low", "low", "low", "high"):
            await work.enqueue().start(delay=timedelta(minutes=1), priority=priority)
        await asyncio.to_thread(tell, queue("mail", 3, 2, 4, aged=True))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


asyncio.run(main())
