"""arq: a worker that runs two jobs, jobs waiting and deferred."""

# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

from __future__ import annotations

import asyncio

from arq import Worker, create_pool, func
from arq.connections import RedisSettings

from report import oldest, queue, tell, url


async def main() -> None:
    """Fill the queue and hold it so."""
    started = asyncio.Semaphore(0)

    async def work(_: object) -> None:
        started.release()
        await asyncio.sleep(60)

    settings = RedisSettings.from_dsn(url())
    pool = await create_pool(settings)
    for _ in range(2):
        await pool.enqueue_job("work")
    jobs = [func(work, name="work")]
    worker = Worker(jobs, redis_settings=settings, max_jobs=2, poll_delay=0.01, handle_signals=False)
    running = asyncio.create_task(worker.async_run())
    for _ in range(2):
        await started.acquire()
    with oldest():
        await pool.enqueue_job("work")
    for _ in range(2):
        await pool.enqueue_job("work")
    for _ in range(4):
        await pool.enqueue_job("work", _defer_by=60)
    await asyncio.to_thread(tell, queue("arq:queue", 3, 2, 4, aged=True))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


asyncio.run(main())
