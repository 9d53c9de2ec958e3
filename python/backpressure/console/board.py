"""The latest frame, and the viewers on any event loop who wait for the next one: one is made for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import attrs

from backpressure._engine.sync import ForkLock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Board", "Frame"]


@attrs.frozen
class Frame:
    """What was published last.

    Attributes:
        number: frames before it, and itself.
        whole: everything, for who has nothing.
        change: what is new since the frame before, for who has that one.
    """

    number: int
    whole: bytes
    change: bytes


class Board:
    """Thread-safe. A viewer that is slow misses frames and gets a whole one: nothing is queued for anybody."""

    def __init__(self) -> None:
        self._lock = ForkLock()
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._number = 0
        self._parts: tuple[Callable[[], Any], bytes] | None = None
        self._whole: bytes | None = None
        self.closed = False

    def publish(self, whole: Callable[[], Any], change: Any) -> None:
        """Show a new frame; `whole` is made when somebody needs it, from what does not change any more."""
        text = _event("look", change)
        with self._lock():
            self._number += 1
            self._parts, self._whole = (whole, text), None
        self._wake()

    def open(self) -> None:
        """Let viewers wait."""
        self.closed = False

    def close(self) -> None:
        """Send all viewers away."""
        self.closed = True
        self._wake()

    def frame(self) -> Frame | None:
        """Return the latest frame; ``None`` before the first."""
        with self._lock():
            if self._parts is None:
                return None
            whole, change = self._parts
            if self._whole is None:
                self._whole = _event("all", whole())
            return Frame(self._number, self._whole, change)

    async def wait(self, seen: int, seconds: float) -> bool:
        """Wait for a frame after number `seen` or for the end; tell whether that came within so many seconds."""
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        with self._lock():
            if self.closed or self._number > seen:
                return True
            self._waiting[event] = loop
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return False
        else:
            return True
        finally:
            with self._lock():
                self._waiting.pop(event, None)

    def _wake(self) -> None:
        with self._lock():
            waiting, self._waiting = self._waiting, {}
        for event, loop in waiting.items():
            with contextlib.suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(event.set)


def _event(name: str, value: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(value, separators=(',', ':'), allow_nan=False)}\n\n".encode()
