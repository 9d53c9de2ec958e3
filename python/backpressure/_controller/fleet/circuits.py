"""Circuits that a fleet's operators hold open in this process, beside those that it holds open by itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backpressure._engine.word import is_forced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backpressure._controller.fleet.wanted import Wish
    from backpressure._engine.border import Breaker

__all__ = ["Circuits"]

# Breakers round their instants up to milliseconds.
_ROUNDED_NS = 2_000_000


class _Held(NamedTuple):
    """A circuit that is held open until an instant, and until when it was before, by this process itself."""

    until_ns: int
    here_ns: float | None


class Circuits:
    """Forces breakers open and lets them go again; called by one thread at a time.

    Args:
        breaker: returns the breaker of a queue, or ``None``; its second argument tells whether to make it.
        now_ns: the clock, in monotonic nanoseconds.
    """

    def __init__(self, breaker: Callable[[str, bool], Breaker | None], now_ns: Callable[[], int]) -> None:
        self._breaker = breaker
        self._now_ns = now_ns
        self._held: dict[str, _Held] = {}
        self._done: dict[str, int] = {}
        #: Queues that are to be held open, and for which there is no room.
        self.without_room: set[str] = set()

    def follow(self, wishes: Mapping[str, Wish]) -> None:
        """Do what is wanted, by queue. Closing and resetting are done once; what is held open is held again and again.

        For others may close it meanwhile: by *or*, it is open as long as one of the two wants it.
        """
        self.without_room = set()
        for queue_name in self._held.keys() - wishes.keys():
            self._let_go(queue_name)
        for queue_name, (switch, until_ns) in wishes.items():
            if switch.action == "open":
                self._hold(queue_name, until_ns)
            elif self._done.get(queue_name) != switch.n:
                self._held.pop(queue_name, None)
                self._do(queue_name, switch.action)
                self._done[queue_name] = switch.n
        self._done = {queue_name: n for queue_name, n in self._done.items() if queue_name in wishes}

    def count(self) -> int:
        """Return how many are held open."""
        return len(self._held)

    def _do(self, queue_name: str, action: str) -> None:
        breaker = self._breaker(queue_name, False)
        if breaker is not None:
            if action == "close":
                breaker.force_close()
            else:
                breaker.reset()

    def _hold(self, queue_name: str, until_ns: int) -> None:
        breaker = self._breaker(queue_name, True)
        if breaker is None:
            self.without_room.add(queue_name)
            return
        held, ends_ns = self._held.get(queue_name), _forced_until(breaker)
        if ends_ns is not None and held is not None and abs(ends_ns - held.until_ns) <= _ROUNDED_NS:
            if held.until_ns == until_ns:
                return
            here_ns = held.here_ns
        else:
            here_ns = ends_ns  # whatever holds it now, it was not this
        if here_ns is not None and here_ns >= until_ns:
            self._held[queue_name] = _Held(until_ns, here_ns)
            if ends_ns != here_ns:
                self._force(breaker, here_ns)
            return
        self._held[queue_name] = _Held(until_ns, here_ns)
        breaker.force_open(until_ns)

    def _let_go(self, queue_name: str) -> None:
        """End what is held open, unless this process, too, wants it open."""
        held = self._held.pop(queue_name)
        breaker = self._breaker(queue_name, False)
        ends_ns = None if breaker is None else _forced_until(breaker)
        if breaker is None or ends_ns is None or abs(ends_ns - held.until_ns) > _ROUNDED_NS:
            return
        if held.here_ns is not None and held.here_ns > self._now_ns():
            self._force(breaker, held.here_ns)
        else:
            breaker.force_close()

    @staticmethod
    def _force(breaker: Breaker, until_ns: float) -> None:
        breaker.force_open(None if until_ns == math.inf else int(until_ns))


def _forced_until(breaker: Breaker) -> float | None:
    """Return until when a breaker is forced open, infinite without an end; ``None`` if it is not."""
    breaker.state()  # reading the state ends a forced opening whose time is up
    word = breaker.word
    if not is_forced(word):
        return None
    ends_ns = breaker.retry_at_ns(word)
    return math.inf if ends_ns is None else ends_ns
