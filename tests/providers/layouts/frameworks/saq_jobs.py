"""SAQ: jobs waiting, taken, scheduled, and a retried one that had been scheduled long ago."""

# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

from __future__ import annotations

import asyncio
import time

from saq import Queue

from report import oldest, queue, tell, url


async def main() -> None:
    """Fill the queue and hold it so."""
    mail = Queue.from_url(url(), name="mail")
    await mail.enqueue("work", scheduled=int(time.time()) - 5, retries=5)
    await mail.schedule()
    retried = await mail.dequeue()
    await mail.retry(retried, error="once more")
    for _ in range(2):
        await mail.enqueue("work")
    for _ in range(3):
        await mail.dequeue()
    with oldest():
        await mail.enqueue("work")
    for _ in range(2):
        await mail.enqueue("work")
    for _ in range(4):
        await mail.enqueue("work", scheduled=int(time.time()) + 60)
    await asyncio.to_thread(tell, queue("mail", 3, 3, 4, aged=True))
    await mail.disconnect()


asyncio.run(main())
