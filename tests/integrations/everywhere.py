"""Sends from wherever a job, or a web request, may: its task, callbacks, threads and pools of threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WAYS = ("task", "callback", "thread", "executor", "to_thread")
#: Where no event loop runs.
BLOCKING_WAYS = ("here", "thread", "pool")


async def from_everywhere(send: Callable[[str], Awaitable[object]]) -> list[type[Exception] | None]:
    """Send once in each way, and return what each of `WAYS` raised."""
    loop = asyncio.get_running_loop()
    raised: dict[str, type[Exception] | None] = {}

    async def attempt(way: str) -> None:
        raised[way] = None
        try:
            await send(way)
        except Exception as error:  # noqa: BLE001 - it is told
            raised[way] = type(error)

    def attempt_on_the_loop(way: str) -> None:
        asyncio.run_coroutine_threadsafe(attempt(way), loop).result(20)

    await attempt("task")
    called: asyncio.Future[asyncio.Task[None]] = loop.create_future()
    loop.call_soon(lambda: called.set_result(loop.create_task(attempt("callback"))))
    await (await called)
    thread = threading.Thread(target=attempt_on_the_loop, args=("thread",))
    thread.start()
    await asyncio.to_thread(thread.join)
    await loop.run_in_executor(None, attempt_on_the_loop, "executor")
    await asyncio.to_thread(attempt_on_the_loop, "to_thread")
    return [raised[way] for way in WAYS]


def from_everywhere_blocking(send: Callable[[], object]) -> dict[str, type[BaseException] | None]:
    """Send once in each of `BLOCKING_WAYS`, and return what each raised."""
    raised: dict[str, type[BaseException] | None] = {}

    def attempt(way: str) -> None:
        raised[way] = None
        try:
            send()
        except Exception as error:  # noqa: BLE001 - it is told
            raised[way] = type(error)

    attempt("here")
    thread = threading.Thread(target=attempt, args=("thread",))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(attempt, "pool").result()
    return raised
