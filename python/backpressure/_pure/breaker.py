"""The circuit breaker: everything its transitions read is one 64-bit word, stepped by pure functions.

Word, from the highest bit: state 2, forced 1, lease outstanding 1, count 10, generation 10, milliseconds 40.
The count is that of consecutive failures when closed, of successful probes when half-open. The milliseconds count
from the engine's first clock reading: start of the failure run, opening, or issue of the last probe's lease. Stamps
and durations round up, `now` rounds down, so nothing happens early and everything at most 2 ms late.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, NamedTuple

from backpressure._pure.lock import ForkLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure.settings import CircuitSettings

CLOSED, OPEN, HALF_OPEN = 0, 1, 2

_MS = 1_000_000
_MAX_MS = 2**40 - 1
_MAX_COUNT = 2**10 - 1
_MAX_GENERATION = 2**10 - 1
# The word of a circuit that is closed and has no failures to forget, but for its generation.
_PRISTINE = ~(_MAX_GENERATION << 40)


class Word(NamedTuple):
    """The breaker's word, unpacked."""

    state: int
    forced: bool
    leased: bool
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    generation: int
    stamp_ms: int

    def pack(self) -> int:
        """Return the 64-bit integer."""
        return (
            self.state << 62
            | self.forced << 61
            | self.leased << 60
            | self.count << 50
            | self.generation << 40
            | self.stamp_ms
        )

    @classmethod
    def unpack(cls, word: int) -> Word:
        """Read a 64-bit integer."""
        return cls(
            word >> 62,
            bool(word >> 61 & 1),
            bool(word >> 60 & 1),
            word >> 50 & _MAX_COUNT,
            word >> 40 & _MAX_GENERATION,
            word & _MAX_MS,
        )

    def to(self, state: int, *, forced: bool = False, leased: bool = False, stamp_ms: int = 0) -> Word:
        """Return the word after a transition: a new generation, counting from zero."""
        return Word(state, forced, leased, 0, (self.generation + 1) & _MAX_GENERATION, stamp_ms)


def is_pristine(word: int) -> bool:
    """Tell whether a packed word is closed and has no failures to forget."""
    return word & _PRISTINE == 0


class Ticket:
    """Permission to do one piece of work, to be handed back with its result.

    A probe's ticket settles once. A closed circuit's may be shared: it stands for the generation alone.
    """

    __slots__ = ("_settle", "generation", "probe")

    def __init__(self, generation: int, *, probe: bool) -> None:
        self.generation = generation
        self.probe = probe
        self._settle = itertools.count().__next__  # atomic, unlike a test and a store

    def settle(self) -> bool:
        """Tell whether the result that comes with this ticket may count; true once for a probe."""
        return not self.probe or self._settle() == 0

    def __repr__(self) -> str:
        return f"Ticket(generation={self.generation}, probe={self.probe})"


def floor_ms(elapsed_ns: int) -> int:
    """Round a reading down to whole milliseconds, saturating."""
    return min(max(elapsed_ns, 0) // _MS, _MAX_MS)


def ceil_ms(elapsed_ns: int) -> int:
    """Round a stamp up to whole milliseconds, saturating."""
    return min(-(-max(elapsed_ns, 0) // _MS), _MAX_MS)


def wait_ms(word: Word, circuit: CircuitSettings) -> int:
    """Return how long after its stamp the word admits a probe."""
    return circuit.recovery_timeout_ms if word.state == OPEN else circuit.probe_interval_ms


def admits(word: Word, now_ms: int, circuit: CircuitSettings) -> bool:
    """Tell whether a caller may go, or may try for the probe's lease."""
    if word.state == CLOSED:
        return True
    return not word.forced and now_ms - word.stamp_ms >= wait_ms(word, circuit)


def leased(word: Word, elapsed_ns: int) -> Word:
    """Return the word with a probe's lease taken; only for a word that admits and is not closed."""
    stamp_ms = ceil_ms(elapsed_ns)
    if word.state == OPEN:
        return word.to(HALF_OPEN, leased=True, stamp_ms=stamp_ms)
    return word._replace(leased=True, stamp_ms=stamp_ms)


def succeeded(word: Word, circuit: CircuitSettings) -> Word:
    """Return the word after a success that counts."""
    if word.state == CLOSED:
        return word._replace(count=0, stamp_ms=0)
    if word.count + 1 >= circuit.recovery_threshold:
        return word.to(CLOSED)
    return word._replace(count=word.count + 1, leased=False)


def failed(word: Word, elapsed_ns: int, circuit: CircuitSettings) -> Word:
    """Return the word after a failure that counts."""
    if word.state == CLOSED:
        same_run = word.count > 0 and floor_ms(elapsed_ns) - word.stamp_ms <= circuit.trip_window_ms
        count, stamp_ms = (word.count + 1, word.stamp_ms) if same_run else (1, ceil_ms(elapsed_ns))
        if count < circuit.failure_threshold:
            return word._replace(count=count, stamp_ms=stamp_ms)
    return word.to(OPEN, stamp_ms=ceil_ms(elapsed_ns))


def counts(word: Word, ticket: Ticket | None) -> bool:
    """Tell whether a result may change the word.

    A ticket's must be of the word's generation. One without a ticket counts when closed, and settles an outstanding
    lease when half-open.
    """
    if word.state == OPEN:
        return False
    if ticket is not None:
        return ticket.generation == word.generation
    return word.state == CLOSED or word.leased


class Breaker:
    """One queue's breaker. Thread-safe.

    `on_change(old, new)` is told of every change of state, after it, in the thread that caused it.
    """

    __slots__ = ("_lock", "_now_ns", "_on_change", "_origin_ns", "circuit", "last_failure_ns", "last_probe_ns", "word")

    def __init__(
        self,
        circuit: CircuitSettings,
        now_ns: Callable[[], int] | None = None,
        *,
        origin_ns: int | None = None,
        on_change: Callable[[int, int], None] | None = None,
    ) -> None:
        self.circuit = circuit
        self._on_change = on_change
        self.word = 0
        # For display only; no transition reads them.
        self.last_failure_ns: int | None = None
        self.last_probe_ns: int | None = None
        self._now_ns = now_ns or time.monotonic_ns
        self._origin_ns = self._now_ns() if origin_ns is None else origin_ns
        self._lock = ForkLock()

    def state(self) -> int:
        """Return 0 closed, 1 open, 2 half-open. An open circuit is so until its first probe, however long ago."""
        return self.word >> 62

    def admits(self, word: int, now_ns: int) -> bool:
        """Look, without taking anything: would an admission now stand a chance, if `word` still holds?"""
        return admits(Word.unpack(word), floor_ms(now_ns - self._origin_ns), self.circuit)

    def retry_at_ns(self, word: int) -> int | None:
        """Return when `word`, which must not be closed, admits its next probe; ``None`` while forced open."""
        unpacked = Word.unpack(word)
        if unpacked.forced:
            return None
        return self._origin_ns + (unpacked.stamp_ms + wait_ms(unpacked, self.circuit)) * _MS

    def try_acquire(self) -> Ticket | None:
        """Admit a caller: a ticket, or ``None`` when it must not go."""
        word = Word.unpack(self.word)
        if word.state == CLOSED:
            return Ticket(word.generation, probe=False)
        now_ns = self._now_ns()
        elapsed_ns = now_ns - self._origin_ns

        def take(word: Word) -> Word | None:
            if not admits(word, floor_ms(elapsed_ns), self.circuit):
                return None
            return word if word.state == CLOSED else leased(word, elapsed_ns)

        stepped = self._step(take)
        if stepped is None:
            return None
        old, new = stepped
        probe = old.state != CLOSED
        if probe:
            self.last_probe_ns = now_ns
        self._notify(old.state, new.state)
        return Ticket(new.generation, probe=probe)

    def record(self, ok: bool, ticket: Ticket | None = None) -> None:
        """Take a result into account, or drop it when it is stale."""
        if ticket is not None and not ticket.settle():
            return
        if ok and is_pristine(self.word):
            return  # whether or not it counts, nothing changes
        now_ns = self._now_ns()
        elapsed_ns = now_ns - self._origin_ns

        def settle(word: Word) -> Word | None:
            if not counts(word, ticket):
                return None
            return succeeded(word, self.circuit) if ok else failed(word, elapsed_ns, self.circuit)

        stepped = self._step(settle)
        if stepped is None:
            return
        if not ok:
            self.last_failure_ns = now_ns
        old, new = stepped
        self._notify(old.state, new.state)

    def force_open(self) -> None:
        """Reject everything until `force_close` or `reset`."""
        self._force(OPEN, forced=True)

    def force_close(self) -> None:
        """Close now; later failures open it again."""
        self._force(CLOSED, forced=False)

    def reset(self) -> None:
        """Close now and forget the times of past failures and probes."""
        self._force(CLOSED, forced=False)
        self.last_failure_ns = self.last_probe_ns = None

    def _force(self, state: int, *, forced: bool) -> None:
        stamp_ms = ceil_ms(self._now_ns() - self._origin_ns) if forced else 0
        stepped = self._step(lambda word: word.to(state, forced=forced, stamp_ms=stamp_ms))
        assert stepped is not None  # noqa: S101 - only a step that declines gives None
        self._notify(stepped[0].state, state)

    def _step(self, step: Callable[[Word], Word | None]) -> tuple[Word, Word] | None:
        """Drive a pure step until it is applied to an unchanged word; return the words before and after, or ``None``
        where the step declines.
        """
        while True:
            seen = self.word
            old = Word.unpack(seen)
            new = step(old)
            if new is None:
                return None
            if self._swap(seen, new.pack()):
                return old, new

    def _swap(self, old: int, new: int) -> bool:
        """Put `new` in the place of `old`, if that is still there."""
        with self._lock():  # against other threads; signal handlers run between calls, never between these two lines
            if self.word != old:
                return False
            self.word = new
        return True

    def _notify(self, old: int, new: int) -> None:
        if self._on_change is not None and old != new:
            self._on_change(old, new)
