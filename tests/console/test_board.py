"""Viewers wait for the latest frame, and who missed one gets all of it."""

from __future__ import annotations

import asyncio
import threading

from backpressure.console.board import Board


def publish(board: Board, number: int) -> None:
    board.publish(lambda: {"all": number}, {"new": number})


def test_a_frame_is_whole_and_a_change() -> None:
    board = Board()
    assert board.frame() is None
    publish(board, 1)
    frame = board.frame()
    assert frame is not None
    assert frame.number == 1
    assert frame.whole == b'event: all\ndata: {"all":1}\n\n'
    assert frame.change == b'event: look\ndata: {"new":1}\n\n'


def test_the_whole_is_made_once_and_only_for_who_needs_it() -> None:
    board = Board()
    made: list[int] = []
    board.publish(lambda: made.append(1), {})
    assert made == []
    board.frame()
    board.frame()
    assert made == [1]


def test_viewers_on_several_loops_are_woken() -> None:
    board = Board()
    woken: list[bool] = []

    def wait() -> None:
        woken.append(asyncio.run(board.wait(0, 20)))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    publish(board, 1)
    for thread in threads:
        thread.join(20)
    assert woken == [True] * 3
    assert board._waiting == {}


def test_who_gives_up_is_forgotten() -> None:
    board = Board()
    assert asyncio.run(board.wait(0, 0.01)) is False

    async def cancelled() -> None:
        task = asyncio.ensure_future(board.wait(0, 20))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancelled())
    assert board._waiting == {}


def test_the_end_wakes_all() -> None:
    board = Board()

    async def wait() -> bool:
        task = asyncio.ensure_future(board.wait(0, 20))
        await asyncio.sleep(0)
        board.close()
        return await task

    assert asyncio.run(wait()) is True
    assert board.closed
