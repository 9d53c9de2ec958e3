"""The circuit breaker: its word, stepped by pure functions, and who may step it when."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from backpressure._engine.sync import ForkLock
from backpressure._engine.word import (
    CLOSED,
    DUE,
    HALF_OPEN,
    LAST,
    MS,
    OPEN,
    UNENDING,
    Word,
    floor_ms,
    generation_of,
    is_forced,
    is_pristine,
    stamp_ms,
    state_of,
)
from backpressure._model.clock import SystemClock
from backpressure._runtime.uncopied import Uncopied

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._engine.settings import CircuitSettings


class Ticket(Uncopied):
    """Permission to do one piece of work, to be handed back with its result.

    A probe's ticket settles once. A closed circuit's may be shared: it stands for the generation alone.
    `issued_ns` is when it was given out, which is when the work began if nobody knows better.
    """

    __slots__ = ("_settle", "generation", "issued_ns", "probe")
    _instead = "report the outcome in the process that got it"

    def __init__(self, generation: int, issued_ns: int, *, probe: bool) -> None:
        self.generation = generation
        self.issued_ns = issued_ns
        self.probe = probe
        if probe:
            self._settle = itertools.count().__next__  # atomic, unlike a test and a store

    def settle(self) -> bool:
        """Tell whether the result that comes with this ticket may count; true once for a probe."""
        return not self.probe or self._settle() == 0

    def __repr__(self) -> str:
        return f"Ticket(generation={self.generation}, probe={self.probe})"


def wait_ms(word: Word, circuit: CircuitSettings) -> int:
    """Return how long after its stamp the word admits a probe."""
    return circuit.recovery_timeout_ms if word.state == OPEN else circuit.probe_interval_ms


def admits(word: Word, now_ms: int, circuit: CircuitSettings) -> bool:
    """Tell whether a caller may go, or may try for the probe's lease."""
    if word.state == CLOSED:
        return True
    if word.forced:
        return False
    return word.stamp_ms == DUE or now_ms - word.stamp_ms >= wait_ms(word, circuit)


def is_over(word: Word, now_ms: int) -> bool:
    """Tell whether the word was forced open for a time that is up."""
    return word.forced and word.stamp_ms != UNENDING and now_ms >= word.stamp_ms


def leased(word: Word, elapsed_ns: int) -> Word:
    """Return the word with a probe's lease taken; only for a word that admits and is not closed."""
    if word.state == OPEN:
        return word.to(HALF_OPEN, leased=True, stamp_ms=stamp_ms(elapsed_ns))
    return word._replace(leased=True, stamp_ms=stamp_ms(elapsed_ns))


def succeeded(word: Word, circuit: CircuitSettings) -> Word:
    """Return the word after a success that counts."""
    if word.state == CLOSED:
        return word._replace(count=0, stamp_ms=0)
    if word.count + 1 >= circuit.recovery_threshold:
        return word.to(CLOSED)
    return word._replace(count=word.count + 1, leased=False)


def failed(word: Word, began_ns: int, elapsed_ns: int, circuit: CircuitSettings) -> Word:
    """Return the word after a failure that counts, of an attempt that began at `began_ns` since the origin.

    Idle time ends a run of failures, failing time does not: attempts may take longer than the window to fail.
    """
    if word.state == CLOSED:
        idle_ms = min(floor_ms(began_ns), LAST) - word.stamp_ms  # stands still where the stamps do
        count = word.count + 1 if word.count > 0 and idle_ms <= circuit.trip_window_ms else 1
        if count < circuit.failure_threshold:
            return word._replace(count=count, stamp_ms=stamp_ms(elapsed_ns))
    return word.to(OPEN, stamp_ms=stamp_ms(elapsed_ns))


def given_back(word: Word, issued_ns: int) -> Word | None:
    """Return the word after the lease taken at `issued_ns` since the origin was given back, if it is that one's."""
    if word.state == HALF_OPEN and word.leased and word.stamp_ms == stamp_ms(issued_ns):
        return word._replace(leased=False, stamp_ms=DUE)
    return None


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

    `on_change(old, new)` is told the words before and after every change of state, and every forcing, after it, in the
    thread that caused it.
    """

    __slots__ = (
        "_lock",
        "_now_ns",
        "_on_change",
        "_origin_ns",
        "circuit",
        "last_failure",
        "last_failure_ns",
        "last_probe_ns",
        "word",
    )

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
        self.last_failure: str | None = None
        self.last_failure_ns: int | None = None
        self.last_probe_ns: int | None = None
        self._now_ns = now_ns or SystemClock.monotonic_ns
        self._origin_ns = self._now_ns() if origin_ns is None else origin_ns
        self._lock = ForkLock()

    def state(self) -> int:
        """Return 0 closed, 1 open, 2 half-open. An open circuit is so until its first probe, however long ago.

        Unless it was forced open for a time: then looking is enough to end that.
        """
        if is_forced(self.word):
            self.lapse(self._now_ns())
        return state_of(self.word)

    def word_at(self, now_ns: int) -> int:
        """Return the word as a look at `now_ns` would leave it; changes nothing."""
        seen = self.word
        if not is_forced(seen):
            return seen
        word = Word.unpack(seen)
        return word.to(CLOSED).pack() if is_over(word, floor_ms(now_ns - self._origin_ns)) else seen

    def admits(self, word: int, now_ns: int) -> bool:
        """Look, without taking anything: would an admission now stand a chance, if `word` still holds?"""
        return admits(Word.unpack(word), floor_ms(now_ns - self._origin_ns), self.circuit)

    def retry_at_ns(self, word: int) -> int | None:
        """Return when `word`, which must not be closed, admits again; ``None`` where it is forced open without end."""
        unpacked = Word.unpack(word)
        if unpacked.forced:
            return None if unpacked.stamp_ms == UNENDING else self._origin_ns + unpacked.stamp_ms * MS
        if unpacked.stamp_ms == DUE:
            return self._origin_ns
        return self._origin_ns + (unpacked.stamp_ms + wait_ms(unpacked, self.circuit)) * MS

    def honours(self, word: int, ticket: Ticket | None, now_ns: int) -> bool:
        """Tell whether a ticket given out before still lets its holder go: a probe's while its lease runs."""
        if ticket is None or ticket.generation != generation_of(word):
            return False
        unpacked = Word.unpack(word)
        if not ticket.probe:
            return unpacked.state == CLOSED
        own = unpacked.leased and unpacked.stamp_ms == stamp_ms(ticket.issued_ns - self._origin_ns)
        return own and not self.admits(word, now_ns)

    def try_acquire(self) -> Ticket | None:
        """Admit a caller: a ticket, or ``None`` when it must not go."""
        now_ns = self._now_ns()
        if is_forced(self.word):
            self.lapse(now_ns)
        elapsed_ns = now_ns - self._origin_ns

        def take(word: Word) -> Word | None:
            if not admits(word, floor_ms(elapsed_ns), self.circuit):
                return None
            return word if word.state == CLOSED else leased(word, elapsed_ns)

        seen = self.word
        if state_of(seen) == CLOSED:
            return Ticket(generation_of(seen), now_ns, probe=False)
        stepped = self._step(take)
        if stepped is None:
            return None
        old, new = stepped
        probe = old.state != CLOSED
        if probe:
            self.last_probe_ns = now_ns
        self._notify(old, new)
        return Ticket(new.generation, now_ns, probe=probe)

    def record(
        self, ok: bool | None, ticket: Ticket | None = None, began_ns: int | None = None, failure: str | None = None
    ) -> None:
        """Take a result into account, or drop it when it is stale.

        ``None`` is the outcome that says nothing: it gives a probe's lease back. `began_ns` is when the attempt began,
        else when its ticket was issued, else now; `failure` names what failed, for display.
        """
        if is_forced(self.word):
            self.lapse(self._now_ns())
        if ok is None and (ticket is None or not ticket.probe):
            return  # nothing was taken
        if ticket is not None and not ticket.settle():
            return
        if ok and is_pristine(self.word):
            return  # whether or not it counts, nothing changes
        now_ns = self._now_ns()
        if began_ns is None:
            began_ns = now_ns if ticket is None else ticket.issued_ns
        began_ns -= self._origin_ns
        elapsed_ns = now_ns - self._origin_ns

        def settle(word: Word) -> Word | None:
            if not counts(word, ticket):
                return None
            if ok is None:
                assert ticket is not None  # noqa: S101 - see above
                return given_back(word, ticket.issued_ns - self._origin_ns)
            return succeeded(word, self.circuit) if ok else failed(word, began_ns, elapsed_ns, self.circuit)

        stepped = self._step(settle)
        if stepped is None:
            return
        if ok is False:
            self.last_failure_ns = now_ns
            self.last_failure = failure
        self._notify(*stepped)

    def hasten(self) -> None:
        """Let the next admission of an open circuit be its first probe, unless it is forced open."""
        self._step(lambda word: word._replace(stamp_ms=DUE) if word.state == OPEN and not word.forced else None)

    def force_open(self, until_ns: int | None = None) -> None:
        """Reject everything until `force_close`, `reset` or the instant `until_ns`."""
        end_ms = UNENDING if until_ns is None else stamp_ms(until_ns - self._origin_ns)
        self._notify(*self._force(OPEN, forced=True, stamp_ms=end_ms))

    def force_close(self) -> None:
        """Close now; later failures open it again."""
        self._notify(*self._force(CLOSED))

    def reset(self) -> None:
        """Close now and forget past failures and probes."""
        stepped = self._force(CLOSED)
        self.last_failure = self.last_failure_ns = self.last_probe_ns = None
        self._notify(*stepped)

    def lapse(self, now_ns: int) -> None:
        """Close a circuit that was forced open for a time that is up."""
        now_ms = floor_ms(now_ns - self._origin_ns)
        stepped = self._step(lambda word: word.to(CLOSED) if is_over(word, now_ms) else None)
        if stepped is not None:
            self._notify(*stepped)

    def _force(self, state: int, *, forced: bool = False, stamp_ms: int = 0) -> tuple[Word, Word]:
        stepped = self._step(lambda word: word.to(state, forced=forced, stamp_ms=stamp_ms))
        assert stepped is not None  # noqa: S101 - only a step that declines gives None
        return stepped

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

    def _notify(self, old: Word, new: Word) -> None:
        if self._on_change is not None and (old.state != new.state or old.forced or new.forced):
            self._on_change(old.pack(), new.pack())
