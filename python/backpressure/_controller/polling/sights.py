"""Reads that callers share: queues that are asked for while a read is under way are gathered for the next one.

A caller never reads itself, so that others lose nothing when it dies, is cancelled or is interrupted.
"""

from __future__ import annotations

import abc
import os
import threading
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from backpressure._engine.sync import ForkLock
from backpressure._model.clock import TaskWake, Wake, limit, wait_async
from backpressure._runtime.threads import spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._model.clock import Clock

__all__ = ["GRACE", "Field", "Landing", "Sight", "Sights", "ThreadSights"]

P = TypeVar("P")  # where reads are done: in a process, or on an event loop
F = TypeVar("F")  # what does them: a thread, or a task

# Reads at a time where the provider takes one queue a read.
_FLIERS = 8
# And if these seem to hang. Each costs threads.
_MOST_FLIERS = 32
# The part of its time that a caller waits for a read to begin; then another one is begun for it.
_PATIENCE = 1 / 8
#: Seconds after the timeout within which a read that took too long is reported as failed.
GRACE = 0.03


class _Settable(Protocol):
    def set(self) -> None: ...


class Landing:
    """The end of something under way, for which anybody may wait."""

    def __init__(self) -> None:
        self.over = False
        self.waiting: list[_Settable] = []

    def land(self) -> None:
        """Wake all who wait, and let later ones not wait at all."""
        self.over = True
        for wake in self.waiting.copy():
            wake.set()

    def wait(self, clock: Clock, seconds: float) -> None:
        """Block until it is over, for `seconds` at most."""
        wake = Wake()
        self.waiting.append(wake)  # before the look at `over`, so that no end is missed
        if not self.over:
            limit(clock, wake, seconds)

    async def wait_async(self, clock: Clock, seconds: float) -> None:
        """As `wait`, suspending the calling task instead."""
        wake = TaskWake()
        self.waiting.append(wake)
        if not self.over:
            await wake.wait(wait_async(clock, seconds))


class Sight(Landing):
    """One queue that is to be read, or is being read."""

    def __init__(self, queue_name: str) -> None:
        super().__init__()
        self.queue_name = queue_name
        self.flier: object = None  # the thread or task that reads it


class Field(Generic[F]):
    """The reads of one process or event loop: what is to be read, what is being read, and by whom."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.pending: dict[str, Sight] = {}
        self.flying: dict[str, Sight] = {}
        self.fliers: set[F] = set()


class Sights(abc.ABC, Generic[P, F]):
    """Has queues read for callers. Thread-safe.

    Args:
        fail: called with queues that cannot be read, because no thread can be started.
        together: whether several queues take one read.
    """

    def __init__(self, fail: Callable[[str], object], *, together: bool) -> None:
        self._fail = fail
        self._share = None if together else 1
        self._most = 1 if together else _FLIERS
        self._fields: dict[P, Field[F]] = {}
        self._lock = ForkLock()

    @abc.abstractmethod
    def _here(self) -> P:
        """Return where the caller is."""

    @abc.abstractmethod
    def _launch(self, field: Field[F]) -> F:
        """Start a thread or task that reads what is pending; raise `RuntimeError` if none can be started."""

    @abc.abstractmethod
    def _lives(self, flier: F) -> bool:
        """Tell whether a thread or task still runs."""

    def ask(self, queue_name: str) -> tuple[Sight, bool]:
        """Ask for a read of a queue; tell whether this caller is the first to ask. Waits for nothing."""
        here = self._here()
        field = self._fields.get(here) or self._fields.setdefault(here, Field())
        with self._lock():
            sight = field.pending.get(queue_name) or self._flying(field, queue_name)
            first = sight is None
            if sight is None:
                sight = field.pending[queue_name] = Sight(queue_name)
            field.fliers = {flier for flier in field.fliers if self._lives(flier)}
            if field.pending and len(field.fliers) < self._most:
                self._send(field)
        return sight, first

    def _flying(self, field: Field[F], queue_name: str) -> Sight | None:
        """Return the read of a queue that is under way. If what did it has died, another is to do it.

        A task dies by what a signal handler raises.
        """
        sight = field.flying.get(queue_name)
        flier: Any = None if sight is None else sight.flier
        if sight is not None and not self._lives(flier):
            field.pending[queue_name] = sight
            field.flying.pop(queue_name, None)
        return sight

    def wait(self, sight: Sight, clock: Clock, timeout: float) -> None:
        """Block until the queue was read, for about `timeout` seconds at most."""
        sight.wait(clock, timeout * _PATIENCE)
        if not sight.over:
            self._hurry(sight)
            sight.wait(clock, timeout * (1 - _PATIENCE) + GRACE)

    async def wait_async(self, sight: Sight, clock: Clock, timeout: float) -> None:  # noqa: ASYNC109 - it ends nothing
        """As `wait`, suspending the calling task instead."""
        await sight.wait_async(clock, timeout * _PATIENCE)
        if not sight.over:
            self._hurry(sight)
            await sight.wait_async(clock, timeout * (1 - _PATIENCE) + GRACE)

    def release(self) -> None:
        """Wake all who wait: the controller decides nothing more."""
        for field in list(self._fields.values()):
            if field.pid == os.getpid():
                for sight in (*field.pending.copy().values(), *field.flying.copy().values()):
                    sight.land()

    def _hurry(self, sight: Sight) -> None:
        """Start one more read for a queue: one of those under way seems to hang."""
        field = self._fields[self._here()]
        with self._lock():
            self._flying(field, sight.queue_name)
            if field.pending.get(sight.queue_name) is sight and len(field.fliers) < _MOST_FLIERS:
                self._send(field)

    def _send(self, field: Field[F]) -> None:
        # Under the lock, and nothing is taken before: if a caller dies here, the next one does it all again.
        try:
            field.fliers.add(self._launch(field))
        except RuntimeError:  # no more threads can be started
            for name, sight in list(field.pending.items()):
                self._fail(name)
                sight.land()
                field.pending.pop(name, None)

    def _take(self, field: Field[F], flier: F) -> list[Sight]:
        """Return what the thread or task `flier` is to read next; nothing if it may end."""
        with self._lock():
            sights = list(field.pending.values())[: self._share]
            for sight in sights:
                sight.flier = flier
                field.flying[sight.queue_name] = sight
                field.pending.pop(sight.queue_name, None)
            if not sights:
                field.fliers.discard(flier)
        return sights

    @staticmethod
    def _land(field: Field[F], sights: list[Sight]) -> None:
        for sight in sights:
            try:
                # First, so that released callers find no claim.
                if field.flying.get(sight.queue_name) is sight:
                    field.flying.pop(sight.queue_name, None)
            finally:
                sight.land()


class ThreadSights(Sights[int, threading.Thread]):
    """`read` is called on threads of our own, which end when nothing is left to read."""

    def __init__(self, read: Callable[[list[str]], object], fail: Callable[[str], object], *, together: bool) -> None:
        super().__init__(fail, together=together)
        self._read = read

    def _here(self) -> int:
        return os.getpid()  # a forked child has none of the threads of its parent

    def _launch(self, field: Field[threading.Thread]) -> threading.Thread:
        return spawn(lambda: self._fly(field), "read")

    def _lives(self, flier: threading.Thread) -> bool:
        return flier.is_alive()

    def _fly(self, field: Field[threading.Thread]) -> None:
        while sights := self._take(field, threading.current_thread()):
            try:
                self._read([sight.queue_name for sight in sights])
            finally:
                self._land(field, sights)
