"""Workers on event loops: what belongs to one that shares its loop with a producer, and one that has it for itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from backpressure.integrations._shared.workers import in_worker, running, serving, worker
from integrations.everywhere import WAYS, from_everywhere

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class NotInAWorkerError(Exception):
    """What a producer would be shed by."""


async def send(_: str) -> None:
    if not in_worker():
        raise NotInAWorkerError


@pytest.fixture(autouse=True)
def nothing_stays_marked() -> Iterator[None]:
    yield
    assert not in_worker()


def test_all_that_a_worker_starts_and_submits_is_its_own_and_nothing_of_the_producers() -> None:
    async def work() -> None:
        with running():
            assert await from_everywhere(send) == [None] * len(WAYS)
            done.set()
            await go.wait()
            assert await from_everywhere(send) == [None] * len(WAYS)

    async def main() -> None:
        working = asyncio.create_task(work())
        await done.wait()
        # Through the threads that the worker has started in the loop's pool, too.
        assert await from_everywhere(send) == [NotInAWorkerError] * len(WAYS)
        go.set()
        await working
        assert await from_everywhere(send) == [NotInAWorkerError] * len(WAYS)

    done, go = asyncio.Event(), asyncio.Event()
    asyncio.run(main())


def test_a_pool_that_a_workers_thread_shares_with_a_producer_serves_both() -> None:
    with ThreadPoolExecutor(1) as pool:

        def work() -> None:
            with worker():
                assert pool.submit(in_worker).result()
                assert pool.submit(lambda: pool.submit(in_worker)).result().result()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert not pool.submit(in_worker).result()


def test_a_loop_that_runs_for_a_worker_alone_has_the_process() -> None:
    async def main() -> bool:
        with serving():
            return await asyncio.to_thread(seen_by_a_stranger)

    def seen_by_a_stranger() -> bool:
        ask.release()
        told.acquire()
        return answers.pop()

    def stranger() -> None:
        for _ in range(3):
            ask.acquire()
            answers.append(in_worker())
            told.release()

    ask, told, answers = threading.Semaphore(0), threading.Semaphore(0), list[bool]()
    thread = threading.Thread(target=stranger)
    thread.start()
    assert asyncio.run(main())

    async def beside_a_producer() -> bool:
        produces = asyncio.create_task(asyncio.Event().wait())
        try:
            return await main()
        finally:
            produces.cancel()

    assert not asyncio.run(beside_a_producer())

    loop = asyncio.new_event_loop()  # for ever, as a server's, to which requests have not come yet
    serves = loop.create_task(main())
    serves.add_done_callback(lambda _: loop.stop())
    loop.run_forever()
    loop.close()
    assert not serves.result()
    thread.join()


def test_a_worker_with_a_loop_of_its_own_on_a_thread_is_that_thread() -> None:
    async def main() -> list[bool]:
        with serving():
            entered.set()
            await asyncio.to_thread(leave.wait)
            return [in_worker()]

    entered, leave, told = threading.Event(), threading.Event(), list[bool]()
    thread = threading.Thread(target=lambda: told.extend(asyncio.run(main())))
    thread.start()
    entered.wait()
    assert not in_worker()
    leave.set()
    thread.join()
    assert told == [True]


def test_a_command_that_imports_what_it_runs_has_the_process(tmp_path: Path) -> None:
    hook = "from backpressure.integrations._shared.workers import in_worker, recognise\nrecognise('command:main')\n"
    (tmp_path / "hook.py").write_text(hook)
    (tmp_path / "command.py").write_text(
        "import threading\ndef main(late):\n    seen = []\n"
        "    def job():\n        import hook; seen.append(hook.in_worker())\n"
        "    if late:\n        thread = threading.Thread(target=job); thread.start(); thread.join()\n"
        "    else:\n        job()\n"
        "    print(*seen, end=' ')\n"
    )
    for code in ("import command; command.main(late=False)", "import command; command.main(late=True)"):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.stdout == "True ", done.stderr
    code = "import hook, command; command.main(late=False)"  # as a producer that has such a function does
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "False ", done.stderr
