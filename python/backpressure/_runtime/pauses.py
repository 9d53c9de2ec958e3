"""Long work in the background, cut into slices, so that decisions of producers do not wait for the GIL."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from backpressure._model.clock import own_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Pauses", "paced"]

T = TypeVar("T")

# Seconds of work between two pauses. A pause lasts as long as it takes another thread to wake up.
_SLICE = 170e-6
# Pieces of work between two looks at the clock.
_PIECES = 8


class Pauses:
    """One stretch of work by one thread."""

    def __init__(self) -> None:
        self._left = _PIECES
        self._since = own_time.perf_counter()

    def tick(self) -> None:
        """Note that a piece of some microseconds is done; offer the GIL to other threads now and then."""
        self._left -= 1
        if not self._left:
            self._left = _PIECES
            if own_time.perf_counter() - self._since >= _SLICE:
                time.sleep(0)
                self._since = own_time.perf_counter()


def paced(items: Iterable[T]) -> Iterator[T]:
    """Yield `items`, and let producers run in between: scrapes and flushes must not hold them up."""
    tick = Pauses().tick
    for item in items:
        tick()
        yield item
