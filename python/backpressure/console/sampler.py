"""The threads that look at the queues and at the fleet, for all viewers of this process."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from backpressure._engine.sync import ForkLock
from backpressure._runtime.threads import spawn

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from backpressure._watch.watch import Watch
    from backpressure.console.board import Board

__all__ = ["Sampler"]

_logger = logging.getLogger(__package__)
_JOIN = 5.0


class Sampler:
    """Looks from its first `ensure` until `close`, in each process that asks; thread-safe.

    Args:
        opened: gives what is looked at.
        show: is called with it for each look.
        board: is open while the sampler runs.
        every: seconds between two looks.
        beside: is called as often on a thread of its own, because it may hang by itself.
    """

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[Watch]],
        show: Callable[[Watch, float], None],
        board: Board,
        every: float,
        beside: Callable[[], object] | None = None,
    ) -> None:
        self._opened = opened
        self._show = show
        self._board = board
        self._every = every
        self._beside = beside
        self._lock = ForkLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid: int | None = None

    def ensure(self) -> None:
        """Look from now on, if nobody does in this process."""
        if self._pid == os.getpid():
            return
        with self._lock():
            if self._pid != os.getpid():
                self._stop, self._pid = threading.Event(), os.getpid()
                self._board.open()
                stop = self._stop
                if self._beside is not None:
                    beside = self._beside
                    spawn(lambda: self._repeat(beside, stop), "console-fleet")
                self._thread = spawn(lambda: self._run(stop), "console")

    def close(self) -> None:
        """Look no more, and send all viewers away. Idempotent."""
        with self._lock():
            thread, self._thread, self._pid = self._thread, None, None
            self._stop.set()
            self._board.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN)

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                with self._opened() as watch:
                    while True:
                        began = time.monotonic()
                        self._show(watch, began)
                        if stop.wait(max(self._every / 10, self._every - (time.monotonic() - began))):
                            return
            except Exception:
                # A page that stands still says so; the next look may go well.
                _logger.exception("a look at the queues failed; the next one comes in %g s", self._every)
                stop.wait(self._every)

    def _repeat(self, work: Callable[[], object], stop: threading.Event) -> None:
        work()
        while not stop.wait(self._every):
            work()
