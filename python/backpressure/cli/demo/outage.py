"""The outage: takes the server away during a part of the run and brings it back, on a thread of its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from backpressure.cli.demo.server import DemoServer

__all__ = ["Outage"]

# As shares of the run, so that opening and recovery fit into runs of any length; the limit is in seconds.
_FROM, _FOR, _LIMIT = 0.3, 0.25, 10.0


class Outage:
    """Acts while its ``with`` body runs; `span` then tells from when to when, by `elapsed`, the server was away."""

    def __init__(
        self, server: DemoServer, seconds: float, elapsed: Callable[[], float], tell: Callable[[str], None]
    ) -> None:
        self._server = server
        self._elapsed = elapsed
        self._tell = tell
        self._from, self._for = _FROM * seconds, min(_FOR * seconds, _LIMIT)
        self._over = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._act, name="demo-outage", daemon=True)
        self.span: tuple[float, float] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Bring the server back if it is still away; raise what went wrong on the thread."""
        self._over.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def _act(self) -> None:
        try:
            if self._over.wait(max(0.0, self._from - self._elapsed())):
                return
            self._tell("the server is taken away")
            began = self._elapsed()
            self._server.take_away()
            self._over.wait(self._for)
            self._server.bring_back()
            self.span = began, self._elapsed()
            self._tell("the server is back")
        except Exception as error:  # noqa: BLE001 - raised where the thread is waited for
            self._failure = error
