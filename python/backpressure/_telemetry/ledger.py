"""What controllers have counted since a process began: added up, kept when they stop, not counted twice by a fork.

Every number that only grows lies in `Counts`, a table of integer vectors.
"""

from __future__ import annotations

import bisect
import itertools
import operator
import os
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from backpressure._engine.totals import DELAY_BUCKETS_NS, REASONS, Totals
from backpressure._model.vocabulary import OTHER_QUEUES, Priority
from backpressure._runtime.pauses import paced
from backpressure._telemetry.families import POLL_BUCKETS_NS

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from backpressure._telemetry.ages import HeldAge

__all__ = ["Bounds", "Counts", "Details", "Durations", "FleetNow", "Ledger", "MetricsSource", "since", "totals_of"]

# Keys: ("decisions", queue, priority), ("advice", queue), ("passed", queue, why), ("errors", error type),
# ("calls", result), ("polls",), ("candidate", queue, priority).
Counts = dict[tuple[str, ...], tuple[int, ...]]
_BY_QUEUE = frozenset({"decisions", "advice", "passed", "candidate"})


class Durations(NamedTuple):
    """How long polls took: counts by bucket of `POLL_BUCKETS_NS`, not cumulated, and the sum of all."""

    counts: tuple[int, ...] = (0,) * (len(POLL_BUCKETS_NS) + 1)
    sum_ns: int = 0

    def plus(self, duration_ns: int) -> Durations:
        """Return these with one more."""
        counts = list(self.counts)
        counts[bisect.bisect_left(POLL_BUCKETS_NS, duration_ns)] += 1
        return Durations(tuple(counts), self.sum_ns + duration_ns)


#: Waiting jobs by priority and name of the bound.
Bounds = Mapping[tuple[str, str], int]


class Details(NamedTuple):
    """What a sample may tell beside the backlog."""

    running: int | None
    delayed: int | None
    oldest_age: float | None
    memory_used: float | None


class FleetNow(NamedTuple):
    """What a process knows of its fleet: about how many members, its configuration's revision, switches by kind."""

    members: int | None
    config_revision: int
    switched: Mapping[str, int]


class MetricsSource(Protocol):
    """What a controller tells about itself. Asked from the threads that scrape and flush; must not raise.

    Counts never fall, with one exception: a queue may lose its counts, which are then found under ``__other__``.
    """

    def totals(self) -> Mapping[tuple[str, int], Totals]:
        """Return what was counted of every (queue, value of the priority)."""
        ...

    def circuits(self) -> Mapping[str, tuple[int, bool]]:
        """Return the value of the `CircuitState` of every queue, and whether it is forced open."""
        ...

    def backlogs(self) -> Mapping[str, tuple[int, float]]:
        """Return waiting jobs and age in seconds of the sample of every queue that has one."""
        ...

    def details(self) -> Mapping[str, Details]:
        """Return what else the latest sample of a queue tells."""
        ...

    def thresholds(self) -> Mapping[str, Bounds]:
        """Return the bounds of every queue that has a sample."""
        ...

    def errors(self) -> Mapping[str, int]:
        """Return failed reads by type."""
        ...

    def held_ages(self) -> Mapping[str, HeldAge]:
        """Return how the budget of every queue stands whose age is held."""
        ...

    def calls(self) -> Mapping[str, int]:
        """Return calls of the budgets' store by how they ended."""
        ...

    def polls(self) -> Durations:
        """Return how long polls took."""
        ...

    def passed(self) -> Mapping[tuple[str, str], int]:
        """Return how many jobs hooks let pass, by queue and why."""
        ...

    def compliance(self) -> Mapping[str, tuple[int, int]]:
        """Return by queue how much throttled advice was honoured, and of how much the outcome was reported."""
        ...

    def max_queues(self) -> int:
        """Return of how many queues it tells at most."""
        ...

    def fleet(self) -> FleetNow | None:
        """Return how the fleet stands that the process belongs to; ``None`` if it belongs to none."""
        ...

    def compared(self) -> Mapping[tuple[str, int], tuple[int, ...]]:
        """Return what a candidate judged by (queue, value of the priority).

        That is how many offers, those that it would delay and shed, and those that the real law delayed and shed.
        """
        ...

    def enforces(self) -> bool:
        """Tell whether this process enforces what it decides for queues without a mode of their own."""
        ...

    def switches(self) -> tuple[bool, bool, bool]:
        """Tell whether the manual override, emergency mode and observe mode are on."""
        ...


class _Entry:
    """A source, what it had counted before this process began, and what it last told."""

    __slots__ = ("base", "last", "most", "ref")

    def __init__(self, source: MetricsSource, base: Counts) -> None:
        self.ref = weakref.ref(source)
        self.base = base
        self.last = base
        #: Of how many queues it told at most.
        self.most = 0

    def ask(self, source: MetricsSource) -> None:
        self.last = _counts_of(source)
        self.most = source.max_queues()


class Ledger:
    """What the sources of one process have counted since it began."""

    def __init__(self, inherited: Iterable[MetricsSource] = ()) -> None:
        self.pid = os.getpid()
        self._retired: Counts = {}
        self._entries = {id(source): _Entry(source, _counts_of(source)) for source in inherited}
        #: Of how many queues any source told at most.
        self.most = 0

    def sources(self) -> list[MetricsSource]:
        return [source for entry in list(self._entries.values()) if (source := entry.ref()) is not None]

    def add(self, source: MetricsSource) -> None:
        self._retire_dead()
        self._entries.setdefault(id(source), _Entry(source, {}))

    def remove(self, source: MetricsSource) -> None:
        self._retire_dead()
        entry = self._entries.pop(id(source), None)
        if entry is not None:
            entry.ask(source)
            self._retire(entry)

    def settle(self, source: MetricsSource) -> None:
        entry = self._entries.get(id(source))
        if entry is not None:
            entry.ask(source)

    def counts(self) -> Counts:
        self._retire_dead()
        counts: Counts = {}
        entries = list(self._entries.values())
        for entry in entries:
            source = entry.ref()
            if source is not None:
                entry.ask(source)
            news, entry.base = since(entry.last, entry.base)
            _add(counts, news)
        # Those that were retired give way to those that count, for good: a label that came back would count twice.
        self.most = max([self.most, *(entry.most for entry in entries)])
        most = max(self.most, sum(entry.most for entry in entries))
        names = dict.fromkeys(name for key in (*counts, *self._retired) if (name := queue_of(key)) is not None)
        names.pop(OTHER_QUEUES, None)
        if len(names) > most:
            self._retired = merged(self._retired, frozenset(itertools.islice(names, most)))
        _add(counts, self._retired)
        return counts

    def _retire_dead(self) -> None:
        for key, entry in list(self._entries.items()):
            if entry.ref() is None:
                del self._entries[key]
                self._retire(entry)

    def _retire(self, entry: _Entry) -> None:
        self.most = max(self.most, entry.most)
        newest = since(entry.last, entry.base)[0]
        old, self._retired = self._retired, newest  # the newest names come first
        _add(self._retired, old)


def _counts_of(source: MetricsSource) -> Counts:
    counts: Counts = {
        ("decisions", queue, str(Priority(priority))): (
            *total.reasons,
            total.computed,
            *total.delays,
            total.delay_sum_ns,
            *total.refused(),
        )
        for (queue, priority), total in paced(source.totals().items())
        if any(total.reasons)
    }
    for queue, (honoured, reported) in source.compliance().items():
        if reported:
            counts["advice", queue] = (honoured, reported - honoured)
    for (queue, why), count in source.passed().items():
        counts["passed", queue, why] = (count,)
    for (queue, priority), compared in source.compared().items():
        counts["candidate", queue, str(Priority(priority))] = tuple(compared)
    for error_type, count in source.errors().items():
        counts["errors", error_type] = (count,)
    for result, count in source.calls().items():
        if count:
            counts["calls", result] = (count,)
    durations = source.polls()
    counts["polls",] = (*durations.counts, durations.sum_ns)
    return counts


def totals_of(numbers: tuple[int, ...]) -> Totals:
    computed, delay_sum_ns = len(REASONS), len(REASONS) + len(DELAY_BUCKETS_NS) + 2
    return Totals(numbers[:computed], numbers[computed], numbers[computed + 1 : delay_sum_ns], numbers[delay_sum_ns])


def queue_of(key: tuple[str, ...]) -> str | None:
    """Return the queue that a key of `Counts` is about."""
    return key[1] if key[0] in _BY_QUEUE else None


def merged(counts: Counts, names: Container[str]) -> Counts:
    """Return `counts` with those of all queues but `names` under ``__other__``."""
    result: Counts = {}
    for key, numbers in counts.items():
        queue = queue_of(key)
        _add(result, {key if queue is None or queue in names else (key[0], OTHER_QUEUES, *key[2:]): numbers})
    return result


def _add(counts: Counts, more: Counts) -> None:
    for key, numbers in more.items():
        old = counts.get(key)
        counts[key] = numbers if old is None else tuple(map(operator.add, old, numbers))


def since(now: Counts, base: Counts) -> tuple[Counts, Counts]:
    """Return what `now` has beyond `base`, and `base` as it stands after queues moved to ``__other__`` since."""
    if not base:
        return now, base
    kept: Counts = {}
    moved: Counts = {}
    for key, old in paced(base.items()):
        new = now.get(key, (0,) * len(old))
        kept[key] = old if new == old else tuple(map(min, old, new))
        if kept[key] != old and key[0] in _BY_QUEUE:
            _add(moved, {(key[0], OTHER_QUEUES, *key[2:]): tuple(map(operator.sub, old, kept[key]))})
    _add(kept, moved)
    news: Counts = {}
    for key, new in paced(now.items()):
        known = kept.get(key, (0,) * len(new))
        if new != known:
            # Counters refuse to fall. If a source breaks its promise, only its own numbers are wrong.
            news[key] = tuple(max(0, a - b) for a, b in zip(new, known, strict=True))
    return news, {key: numbers for key, numbers in kept.items() if any(numbers)}
