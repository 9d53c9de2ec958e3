"""Prometheus metrics, read out of controllers when scraped: no decision ever touches prometheus-client.

Every number that only grows lies in `Counts`, a table of integer vectors, so that controllers add up, stopped ones
keep counting, and a forked process subtracts what its parent had counted. Two ways out: `MetricsCollector.collect`
builds the page of a registry; with PROMETHEUS_MULTIPROC_DIR set, `MetricsCollector.flush` adds what is new to ordinary
metrics, whose files `prometheus_client.multiprocess` merges.
"""

from __future__ import annotations

import atexit
import bisect
import contextlib
import itertools
import operator
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, Self, TypeVar, final

from backpressure._engine.sync import ForkLock
from backpressure._engine.totals import DELAY_BUCKETS_NS, REASONS, Totals
from backpressure._model.vocabulary import OTHER_QUEUES, Priority, Reason
from backpressure._runtime.pauses import Pauses

# prometheus-client chooses for good how it stores values when it is first imported: it is imported by the first
# collector that is made, so that servers may set PROMETHEUS_MULTIPROC_DIR after they import this package.
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.metrics_core import Metric

__all__ = ["FAMILIES", "POLL_BUCKETS_NS", "Durations", "Family", "MetricsCollector", "MetricsSource"]

#: Upper bounds of the poll histogram's buckets, in nanoseconds; the last bucket is unbounded.
POLL_BUCKETS_NS = tuple(ms * 1_000_000 for ms in (1, 5, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000))

T = TypeVar("T")

# Seconds that a fork waits for a flush under way, and by which the age of one sample may seem to jitter.
_FORK_WAIT = 1.0
_JITTER = 0.01


class Family(NamedTuple):
    """A metric: its name on the page, type, help, labels, and how multiprocess mode merges the gauges of processes."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    # A process that died is left out of "livemax" once `mark_process_dead` was told of it.
    merged: Literal["", "livemax", "mostrecent"] = ""
    buckets_ns: tuple[int, ...] = ()


def _counter(name: str, help_: str, *labels: str) -> Family:
    return Family(name, "counter", help_, labels)


def _gauge(name: str, help_: str, merged: Literal["livemax", "mostrecent"], *labels: str) -> Family:
    return Family(name, "gauge", help_, labels, merged)


def _histogram(name: str, help_: str, buckets_ns: tuple[int, ...], *labels: str) -> Family:
    return Family(name, "histogram", help_, labels, buckets_ns=buckets_ns)


_ALL = (
    _counter("backpressure_throttle_events_total", "Decisions that advised a delay.", "priority", "queue"),
    _counter("backpressure_shed_events_total", "Jobs shed because of the backlog.", "priority", "queue"),
    _histogram(
        "backpressure_throttle_delay_seconds", "Delays advised, above zero.", DELAY_BUCKETS_NS, "priority", "queue"
    ),
    _gauge("backpressure_circuit_breaker_state", "Circuit: 0 closed, 1 open, 2 half-open.", "livemax", "queue"),
    _gauge("backpressure_circuit_forced", "Whether the circuit is forced open by hand.", "livemax", "queue"),
    _gauge("backpressure_queue_backlog_size", "Waiting jobs in the latest sample.", "mostrecent", "queue"),
    _gauge(
        "backpressure_producer_compliance_ratio",
        "Share of the throttled advice with a reported outcome that was honoured.",
        "mostrecent",
        "queue",
    ),
    _counter("backpressure_polling_errors_total", "Failed reads of queue statistics.", "error_type"),
    _gauge("backpressure_cache_hit_rate", "Share of the decisions by backlog that the cache answered.", "mostrecent"),
    _counter("backpressure_cache_requests_total", "Decisions by backlog: hit if the cache answered.", "result"),
    _counter(
        "backpressure_decisions_total", "Decisions, in observe mode the advised ones.", "priority", "queue", "reason"
    ),
    _counter(
        "backpressure_refusals_total",
        "Jobs refused: shed, by the circuit, or because they would wait longer than max_wait.",
        "queue",
        "priority",
        "result",
    ),
    _counter("backpressure_passed_total", "Jobs that hooks let pass without asking.", "queue", "why"),
    _counter(
        "backpressure_producer_advice_total",
        "Throttled advice with a reported outcome: honoured if its delay was waited out, else violated.",
        "queue",
        "result",
    ),
    _histogram("backpressure_poll_duration_seconds", "Time that polls of queue statistics took.", POLL_BUCKETS_NS),
    _gauge("backpressure_sample_age_seconds", "Age of the oldest sample that is decided by.", "livemax", "queue"),
    _gauge("backpressure_manual_override", "1 while the manual override is on.", "livemax"),
    _gauge("backpressure_emergency_mode", "1 while emergency mode is on.", "livemax"),
    _gauge("backpressure_observe_mode", "1 while decisions are only observed.", "livemax"),
)
#: All that is exported, by name.
FAMILIES = {family.name: family for family in _ALL}


class Durations(NamedTuple):
    """How long polls took: counts by bucket of `POLL_BUCKETS_NS`, not cumulated, and the sum of all."""

    counts: tuple[int, ...] = (0,) * (len(POLL_BUCKETS_NS) + 1)
    sum_ns: int = 0

    def plus(self, duration_ns: int) -> Durations:
        """Return these with one more."""
        counts = list(self.counts)
        counts[bisect.bisect_left(POLL_BUCKETS_NS, duration_ns)] += 1
        return Durations(tuple(counts), self.sum_ns + duration_ns)


class MetricsSource(Protocol):
    """What a controller tells about itself. Asked from the threads that scrape and flush; must not raise.

    Counts never fall, with one exception: a queue may lose its own, which are then found under ``__other__``.
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

    def errors(self) -> Mapping[str, int]:
        """Return failed reads by type."""
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

    def switches(self) -> tuple[bool, bool, bool]:
        """Tell whether the manual override, emergency mode and observe mode are on."""
        ...


# --------------------------------------------------------------------------------------------------------------- counts

# Keys: ("decisions", queue, priority), ("advice", queue), ("passed", queue, why), ("errors", error type), ("polls",).
Counts = dict[tuple[str, ...], tuple[int, ...]]

_SHED = REASONS.index(Reason.BACKLOG_RED_SHED)
_REFUSED = ("shed", "circuit", "max_wait")  # in the order of `Totals.refused`
_NO_POLLS = (*Durations().counts, 0)


def _paced(items: Iterable[T]) -> Iterator[T]:
    """Yield `items`, letting producers run in between: who scrapes or flushes must not hold them up."""
    tick = Pauses().tick
    for item in items:
        tick()
        yield item


def _counts_of(source: MetricsSource) -> Counts:
    counts: Counts = {
        ("decisions", queue, str(Priority(priority))): (
            *total.reasons,
            total.computed,
            *total.delays,
            total.delay_sum_ns,
            *total.refused(),
        )
        for (queue, priority), total in _paced(source.totals().items())
        if any(total.reasons)
    }
    for queue, (honoured, reported) in source.compliance().items():
        if reported:
            counts["advice", queue] = (honoured, reported - honoured)
    for (queue, why), count in source.passed().items():
        counts["passed", queue, why] = (count,)
    for error_type, count in source.errors().items():
        counts["errors", error_type] = (count,)
    durations = source.polls()
    counts["polls",] = (*durations.counts, durations.sum_ns)
    return counts


def _totals_of(numbers: tuple[int, ...]) -> Totals:
    computed, delay_sum_ns = len(REASONS), len(REASONS) + len(DELAY_BUCKETS_NS) + 2
    return Totals(numbers[:computed], numbers[computed], numbers[computed + 1 : delay_sum_ns], numbers[delay_sum_ns])


def _add(counts: Counts, more: Counts) -> None:
    for key, numbers in more.items():
        old = counts.get(key)
        counts[key] = numbers if old is None else tuple(map(operator.add, old, numbers))


def _since(now: Counts, base: Counts) -> tuple[Counts, Counts]:
    """Return what `now` has beyond `base`, and `base` as it stands after queues moved to ``__other__`` since."""
    if not base:
        return now, base
    kept: Counts = {}
    moved: Counts = {}
    for key, old in _paced(base.items()):
        new = now.get(key, (0,) * len(old))
        kept[key] = old if new == old else tuple(map(min, old, new))
        if kept[key] != old and key[0] in {"decisions", "advice"}:
            _add(moved, {(key[0], OTHER_QUEUES, *key[2:]): tuple(map(operator.sub, old, kept[key]))})
    _add(kept, moved)
    news: Counts = {}
    for key, new in _paced(now.items()):
        known = kept.get(key, (0,) * len(new))
        if new != known:
            # Counters refuse to fall, so a source that breaks its word costs its own accuracy, not the page.
            news[key] = tuple(max(0, a - b) for a, b in zip(new, known, strict=True))
    return news, {key: numbers for key, numbers in kept.items() if any(numbers)}


class _Series(NamedTuple):
    family: str
    labels: tuple[str, ...]
    value: float
    buckets: tuple[int, ...] = ()  # of a histogram, whose sum is the value


def _counted(counts: Counts) -> Iterator[_Series]:
    """Yield counters and histograms."""
    hits = misses = 0
    for (kind, *labels), numbers in counts.items():
        if kind == "decisions":
            queue, priority = labels
            total = _totals_of(numbers)
            throttled = sum(total.delays)
            yield _Series("backpressure_throttle_events_total", (priority, queue), throttled)
            yield _Series("backpressure_shed_events_total", (priority, queue), total.reasons[_SHED])
            if throttled:
                yield _Series(
                    "backpressure_throttle_delay_seconds", (priority, queue), total.delay_sum_ns / 1e9, total.delays
                )
            for reason, count in zip(REASONS, total.reasons, strict=True):
                if count:
                    yield _Series("backpressure_decisions_total", (priority, queue, str(reason)), count)
            for result, count in zip(_REFUSED, numbers[-len(_REFUSED) :], strict=True):
                if count:
                    yield _Series("backpressure_refusals_total", (queue, priority, result), count)
            hit, miss = total.cache_requests()
            hits, misses = hits + hit, misses + miss
        elif kind == "passed":
            yield _Series("backpressure_passed_total", (labels[0], labels[1]), numbers[0])
        elif kind == "advice":
            for result, count in zip(("honoured", "violated"), numbers, strict=True):
                yield _Series("backpressure_producer_advice_total", (labels[0], result), count)
        elif kind == "errors":
            yield _Series("backpressure_polling_errors_total", (labels[0],), numbers[0])
    yield _Series("backpressure_cache_requests_total", ("hit",), hits)
    yield _Series("backpressure_cache_requests_total", ("miss",), misses)
    *polls, polls_ns = counts.get(("polls",), _NO_POLLS)
    yield _Series("backpressure_poll_duration_seconds", (), polls_ns / 1e9, tuple(polls))


_HIT_RATE = ("backpressure_cache_hit_rate", ())


def _ratios(counts: Counts) -> Iterator[_Series]:
    """Yield what is derived from counts of the whole life of a process; nothing for what never happened."""
    hits = misses = 0
    for (kind, *labels), numbers in counts.items():
        if kind == "decisions":
            hit, miss = _totals_of(numbers).cache_requests()
            hits, misses = hits + hit, misses + miss
        elif kind == "advice" and any(numbers):
            yield _Series("backpressure_producer_compliance_ratio", (labels[0],), numbers[0] / sum(numbers))
    if hits + misses:
        yield _Series(*_HIT_RATE, hits / (hits + misses))


class _Now(NamedTuple):
    """The present condition of all sources: the worst state, the newest backlog, the oldest age."""

    circuits: dict[str, tuple[int, bool]]
    backlogs: dict[str, tuple[int, float]]
    ages: dict[str, float]
    switches: tuple[bool, ...]

    @classmethod
    def of(cls, sources: Iterable[MetricsSource]) -> Self:
        now = cls({}, {}, {}, (False, False, False))
        for source in sources:
            for queue, (state, forced) in source.circuits().items():
                worst, also_forced = now.circuits.get(queue, (0, False))
                now.circuits[queue] = max(state, worst), forced or also_forced
            for queue, (backlog, age) in source.backlogs().items():
                if queue not in now.backlogs or age < now.backlogs[queue][1]:
                    now.backlogs[queue] = backlog, age
                now.ages[queue] = max(age, now.ages.get(queue, 0.0))
            now = now._replace(switches=tuple(map(operator.or_, now.switches, source.switches())))
        return now

    def backlog_series(self) -> Iterator[_Series]:
        for queue, (backlog, _) in self.backlogs.items():
            yield _Series("backpressure_queue_backlog_size", (queue,), backlog)

    def worst_series(self) -> Iterator[_Series]:
        for queue, (state, forced) in self.circuits.items():
            yield _Series("backpressure_circuit_breaker_state", (queue,), state)
            yield _Series("backpressure_circuit_forced", (queue,), forced)
        for queue, age in self.ages.items():
            yield _Series("backpressure_sample_age_seconds", (queue,), age)
        for name, on in zip(("manual_override", "emergency_mode", "observe_mode"), self.switches, strict=True):
            yield _Series(f"backpressure_{name}", (), float(on))


# --------------------------------------------------------------------------------------------------------------- ledger


class _Entry:
    """A source, what it had counted before this process began, and what it last said."""

    __slots__ = ("base", "last", "ref")

    def __init__(self, source: MetricsSource, base: Counts) -> None:
        self.ref = weakref.ref(source)
        self.base = base
        self.last = base


class _Ledger:
    """What the sources of one process have counted since it began."""

    def __init__(self, inherited: Iterable[MetricsSource] = ()) -> None:
        self.pid = os.getpid()
        self._retired: Counts = {}
        self._entries = {id(source): _Entry(source, _counts_of(source)) for source in inherited}

    def sources(self) -> list[MetricsSource]:
        return [source for entry in list(self._entries.values()) if (source := entry.ref()) is not None]

    def add(self, source: MetricsSource) -> None:
        self._retire_dead()
        self._entries.setdefault(id(source), _Entry(source, {}))

    def remove(self, source: MetricsSource) -> None:
        self._retire_dead()
        entry = self._entries.pop(id(source), None)
        if entry is not None:
            entry.last = _counts_of(source)
            self._retire(entry)

    def counts(self) -> Counts:
        self._retire_dead()
        counts = self._retired.copy()
        for entry in list(self._entries.values()):
            source = entry.ref()
            if source is not None:
                entry.last = _counts_of(source)
            news, entry.base = _since(entry.last, entry.base)
            _add(counts, news)
        return counts

    def _retire_dead(self) -> None:
        for key, entry in list(self._entries.items()):
            if entry.ref() is None:
                del self._entries[key]
                self._retire(entry)

    def _retire(self, entry: _Entry) -> None:
        _add(self._retired, _since(entry.last, entry.base)[0])


# ---------------------------------------------------------------------------------------------------- multiprocess mode


class _Files:
    """Ordinary metrics of prometheus-client, which stores them in this process's files in multiprocess mode."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram  # noqa: PLC0415 - see above

        self._metrics: dict[str, Counter | Gauge | Histogram] = {}
        # In no registry: the page is made from the files, and a registered metric would be on it twice.
        for family in FAMILIES.values():
            metric: Counter | Gauge | Histogram
            if family.kind == "counter":
                metric = Counter(family.name, family.help, family.labels, registry=None)
            elif family.kind == "gauge":
                assert family.merged  # noqa: S101 - every gauge of the table says how
                metric = Gauge(family.name, family.help, family.labels, registry=None, multiprocess_mode=family.merged)
            else:
                bounds = [bound / 1e9 for bound in family.buckets_ns]
                metric = Histogram(family.name, family.help, family.labels, registry=None, buckets=bounds)
            self._metrics[family.name] = metric
        self.forget()

    def forget(self) -> None:
        """Start as a new process: nothing was written yet."""
        self._flushed: Counts = {}
        self._shown: set[tuple[str, tuple[str, ...]]] = set()
        self._said: dict[tuple[str, tuple[str, ...]], float] = {}
        self._sampled: dict[str, float] = {}

    def write(self, counts: Counts, now: _Now) -> None:
        """Add what `counts` has beyond the last time, and set the gauges."""
        news, _ = _since(counts, self._flushed)
        self._flushed = counts
        for series in _paced(_counted(news)):
            self._increase(series)
        # Of two processes the one with news is right, not the one that wrote last.
        for series in _ratios(counts):
            if self._said.get(series[:2]) != series.value:
                self._said[series[:2]] = series.value
                self._set(series)
        clock = time.monotonic()
        for series in _paced(now.backlog_series()):
            queue = series.labels[0]
            taken = clock - now.backlogs[queue][1]
            if taken > self._sampled.get(queue, -1e18) + _JITTER:
                self._sampled[queue] = taken
                self._set(series)
        shown = set()
        for series in _paced(now.worst_series()):
            shown.add(series[:2])
            self._set(series)
        # A file keeps a series for ever: one that no source has any more must not be the maximum.
        for name, labels in self._shown - shown:
            self._set(_Series(name, labels, 0))
        self._shown = shown

    def _child(self, series: _Series) -> Counter | Gauge | Histogram:
        metric = self._metrics[series.family]
        return metric.labels(*series.labels) if series.labels else metric

    def _set(self, series: _Series) -> None:
        self._child(series).set(series.value)  # type: ignore[union-attr]  # only gauges come here

    def _increase(self, series: _Series) -> None:
        child = self._child(series)
        if not series.buckets:
            child.inc(series.value)  # type: ignore[union-attr]  # a counter
            return
        # There is no public way to add many observations at once, and to observe them one by one would cost 2 µs
        # each. These two attributes are as old as the library, and a test of ours sees them go.
        for value, count in zip(child._buckets, series.buckets, strict=True):  # type: ignore[union-attr]  # noqa: SLF001
            if count:
                value.inc(count)
        child._sum.inc(series.value)  # type: ignore[union-attr]  # noqa: SLF001


# ------------------------------------------------------------------------------------------------------------ collector


@final
class MetricsCollector:
    """The metrics of all controllers that share a registry; one a registry, so making it again gives the same one.

    Args:
        registry: default ``prometheus_client.REGISTRY``. Registered there at once, without asking any controller.

    Counters of several controllers add up, a circuit shows its highest state, a backlog its latest sample. What a
    controller counted stays on the page after `remove`; one that was garbage-collected without it keeps what was last
    seen. A forked process starts from zero.

    With PROMETHEUS_MULTIPROC_DIR set when prometheus-client is first imported there is one collector a process and
    nothing is registered: `flush` adds what is new to the process's files, for a ``MultiProcessCollector`` to serve.
    Counters and histograms are then exact over all processes. Circuit states, ages and switches are the maximum of the
    live processes (tell ``mark_process_dead`` of the others), backlogs those of the latest sample of any. Ratios
    cannot be merged: the gauges show the process whose ratio changed last, and the ratio of all is that of the
    ``result`` labels of ``backpressure_producer_advice_total`` and ``backpressure_cache_requests_total``.

    Thread-safe, also beside forks.

    Raises:
        ValueError: the registry holds foreign metrics of these names.

    Example:
        >>> from prometheus_client import CollectorRegistry
        >>> registry = CollectorRegistry()
        >>> collector = MetricsCollector(registry)  # optional: a controller makes it when it starts
        >>> with BackpressureController(None, InMemoryStatsProvider({"q": 0}), registry=registry) as controller:
        ...     decision = controller.suggest_throttle("low", "q")
        >>> labels = {"priority": "low", "queue": "q", "reason": "backlog_green"}
        >>> registry.get_sample_value("backpressure_decisions_total", labels)
        1
    """

    _ledger: _Ledger
    _files: _Files | None
    _locks: dict[int, threading.RLock]

    def __new__(cls, registry: CollectorRegistry | None = None) -> MetricsCollector:
        """Find or make the collector of a registry."""
        from prometheus_client import REGISTRY, values  # noqa: PLC0415 - see above

        shared = values.ValueClass is not values.MutexValue
        target = REGISTRY if registry is None else registry
        key: object = values if shared else target  # the files are those of the process, whatever the registry
        with _making():
            found = _collectors.get(key)
            self = found or super().__new__(cls)
            if found is None:
                self._ledger = _Ledger()
                self._files = _Files() if shared else None
                self._locks = {}
                if shared:
                    atexit.register(self.flush)
            _collectors[key] = self  # before it is registered: who is interrupted may try again
            try:
                if not shared:
                    target.register(self)
            except ValueError:
                # One that is found may have been unregistered since; if not, it clashes with itself alone.
                if not found:
                    del _collectors[key]
                    raise
        return self

    def add(self, source: MetricsSource) -> None:
        """Export `source` from now on, without keeping it alive. Idempotent."""
        with self._current() as ledger:
            ledger.add(source)

    def remove(self, source: MetricsSource) -> None:
        """Take the last counts of `source`, which stay on the page; its gauges go. Idempotent.

        A source that was removed must not be added again: its counts would count twice.
        """
        with self._current() as ledger:
            ledger.remove(source)

    def describe(self) -> Iterable[Metric]:
        """Return all families, empty: registering asks for names only."""
        return _page(())

    def collect(self) -> Iterable[Metric]:
        """Return all families with what this process counted; empty ones in multiprocess mode."""
        if self._files is not None:
            return self.describe()
        with self._current() as ledger:
            counts, sources = ledger.counts(), ledger.sources()
        now = _Now.of(sources)  # not under the lock: looking at a circuit may tell listeners of it
        ratios = {series[:2]: series for series in _ratios(counts)}
        ratios.setdefault(_HIT_RATE, _Series(*_HIT_RATE, 0.0))
        return _page((*_counted(counts), *ratios.values(), *now.backlog_series(), *now.worst_series()))

    def flush(self) -> None:
        """In multiprocess mode write what is new to this process's files; else do nothing.

        To be called after every poll and when a controller stops; done when the process ends: what was not flushed is
        not served.
        """
        while self._files is not None:
            with self._current() as ledger:
                sources = ledger.sources()
            now = _Now.of(sources)  # as in `collect`
            with self._current() as ledger:
                if ledger.sources() == sources:  # of one that has gone meanwhile no gauge may stay
                    self._files.write(ledger.counts(), now)
                    return

    def _lock(self) -> threading.RLock:
        # A child must not find it held, and a signal handler that stops a controller may come while it is.
        return self._locks.get(os.getpid()) or self._locks.setdefault(os.getpid(), threading.RLock())

    @contextlib.contextmanager
    def _current(self) -> Iterator[_Ledger]:
        """Hold the lock, and what this process counts in: a child begins where it first gets here."""
        with self._lock():
            if self._ledger.pid != os.getpid():
                self._ledger = _Ledger(self._ledger.sources())
                if self._files is not None:
                    self._files.forget()
            yield self._ledger


def _page(all_series: Iterable[_Series]) -> list[Metric]:
    """Return every family with its series."""
    from prometheus_client.metrics_core import (  # noqa: PLC0415 - see above
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    makers = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    page = {
        family.name: makers[family.kind](family.name, family.help, labels=family.labels) for family in FAMILIES.values()
    }
    bounds = {
        family.name: [*(repr(bound / 1e9) for bound in family.buckets_ns), "+Inf"] for family in FAMILIES.values()
    }
    for name, labels, value, buckets in _paced(all_series):
        metric = page[name]
        if isinstance(metric, HistogramMetricFamily):
            cumulated = zip(bounds[name], itertools.accumulate(buckets), strict=True)
            metric.add_metric(labels, list(cumulated), value)
        else:
            metric.add_metric(labels, value)
    return list(page.values())


# ---------------------------------------------------------------------------------------------------------------- forks

# Where Python forks, these make it exact: the child's base is what was counted at the fork, and no flush is under way
# that holds a lock of prometheus-client's, which the child would wait for in vain. Servers that fork in C do without:
# there a child begins at its first scrape or flush.


def _before_fork() -> None:
    for collector in list(_collectors.values()):
        collector._lock().acquire(timeout=_FORK_WAIT)  # noqa: SLF001


def _after_fork_in_parent() -> None:
    for collector in list(_collectors.values()):
        with contextlib.suppress(RuntimeError):  # it was not to be had in time
            collector._lock().release()  # noqa: SLF001


def _after_fork_in_child() -> None:
    for collector in list(_collectors.values()):
        with collector._current():  # noqa: SLF001
            pass


_making = ForkLock()
_collectors: weakref.WeakKeyDictionary[object, MetricsCollector] = weakref.WeakKeyDictionary()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
