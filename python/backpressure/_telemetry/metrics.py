"""Prometheus metrics, read from controllers when they are scraped: no decision ever calls prometheus-client.

Two ways out: `MetricsCollector.collect` builds the page of a registry; with PROMETHEUS_MULTIPROC_DIR set,
`MetricsCollector.flush` adds what is new to ordinary metrics, whose files `prometheus_client.multiprocess` merges.
"""

import atexit
import contextlib
import itertools
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Self, final

from backpressure._engine.sync import ForkLock
from backpressure._runtime.pauses import paced
from backpressure._telemetry.families import FAMILIES
from backpressure._telemetry.ledger import Ledger, MetricsSource
from backpressure._telemetry.multiprocess import Files
from backpressure._telemetry.series import HIT_RATE, Now, Series, count_series, ratio_series

# prometheus-client chooses how it stores values when it is first imported, once and for all. So the first collector
# that is made imports it: servers may set PROMETHEUS_MULTIPROC_DIR after they import this package.
if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

__all__ = ["MetricsCollector"]

# Seconds that a fork waits for a flush under way.
_FORK_WAIT = 1.0


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
    live processes (call ``mark_process_dead`` for the others), backlogs those of the latest sample of any. Ratios
    cannot be merged: the gauges show the process whose ratio changed last, and the ratio of all is that of the
    ``result`` labels of ``backpressure_producer_advice_total`` and ``backpressure_cache_requests_total``. A file keeps
    a label for ever, so all processes together name the first ``max_queues`` queues, and count the others under
    ``__other__``, until the directory is emptied.

    Thread-safe, also with forks.

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

    __module__ = "backpressure"

    _ledger: Ledger
    _files: Files | None
    _locks: dict[int, threading.RLock]

    def __new__(cls, registry: "CollectorRegistry | None" = None) -> Self:
        """Find or make the collector of a registry."""
        from prometheus_client import REGISTRY, values  # noqa: PLC0415 - see above

        shared = values.ValueClass is not values.MutexValue
        target = REGISTRY if registry is None else registry
        key: object = values if shared else target  # the files belong to the process, with any registry
        with _making():
            found = _collectors.get(key)
            self = found or super().__new__(cls)
            if found is None:
                self._ledger = Ledger()
                self._files = Files() if shared else None
                self._locks = {}
                if shared:
                    atexit.register(self.flush)
            _collectors[key] = self  # before it is registered, so that a caller that is interrupted may try again
            try:
                if not shared:
                    target.register(self)
            except ValueError:
                # One that was found may have been unregistered since; if it was not, it clashes with itself alone.
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

    def settle(self, source: MetricsSource) -> None:
        """Take the last counts of a source that is about to be garbage-collected, without waiting for any lock."""
        ledger = self._ledger
        if ledger.pid == os.getpid():
            ledger.settle(source)

    def describe(self) -> "Iterable[Metric]":
        """Return all families, empty: registering asks for names only."""
        return _page(())

    def collect(self) -> "Iterable[Metric]":
        """Return all families with what this process counted; empty ones in multiprocess mode."""
        return self.describe() if self._files is not None else _page(self.series())

    def series(self) -> "tuple[Series, ...]":
        """Return what this process counted, and the present state of its controllers."""
        with self._current() as ledger:
            counts, sources = ledger.counts(), ledger.sources()
        now = Now.of(sources)  # not under the lock: reading a circuit may change it, and so call listeners
        ratios = {series[:2]: series for series in ratio_series(counts)}
        ratios.setdefault(HIT_RATE, Series(*HIT_RATE, 0.0))
        gauges = (*now.backlog_series(), *now.threshold_series(), *now.worst_series())
        return (*count_series(counts), *ratios.values(), *gauges)

    def flush(self) -> None:
        """In multiprocess mode write what is new to this process's files; else do nothing.

        To be called after every poll and when a controller stops, for what was not flushed is not served. When the
        process ends, it is done for you.
        """
        while self._files is not None:
            with self._current() as ledger:
                sources = ledger.sources()
            now = Now.of(sources)  # as in `collect`
            with self._current() as ledger:
                if ledger.sources() == sources:  # no gauge may stay of a source that has gone meanwhile
                    self._files.write(ledger.counts(), now, ledger.most)
                    return

    def _lock(self) -> threading.RLock:
        # By process, so that a child never finds it held; reentrant, for a signal handler may stop a controller.
        return self._locks.get(os.getpid()) or self._locks.setdefault(os.getpid(), threading.RLock())

    @contextlib.contextmanager
    def _current(self) -> Iterator[Ledger]:
        """Hold the lock, and yield the ledger of this process; a forked child begins a new one here."""
        with self._lock():
            if self._ledger.pid != os.getpid():
                self._ledger = Ledger(self._ledger.sources())
                if self._files is not None:
                    self._files.forget()
            yield self._ledger


def _page(all_series: Iterable[Series]) -> "list[Metric]":
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
    for name, labels, value, buckets in paced(all_series):
        metric = page[name]
        if isinstance(metric, HistogramMetricFamily):
            cumulated = zip(bounds[name], itertools.accumulate(buckets), strict=True)
            metric.add_metric(labels, list(cumulated), value)
        else:
            metric.add_metric(labels, value)
    return list(page.values())


# If Python forks, these make the counts exact: a child begins with what was counted at the fork. And no flush is under
# way that holds a lock of prometheus-client, for which the child would wait for ever. Servers that fork in C do not
# call these: there a child begins at its first scrape or flush.


def _before_fork() -> None:
    for collector in list(_collectors.values()):
        collector._lock().acquire(timeout=_FORK_WAIT)  # noqa: SLF001


def _after_fork_in_parent() -> None:
    for collector in list(_collectors.values()):
        with contextlib.suppress(RuntimeError):  # it could not be acquired in time
            collector._lock().release()  # noqa: SLF001


def _after_fork_in_child() -> None:
    for collector in list(_collectors.values()):
        with collector._current():  # noqa: SLF001
            pass


_making = ForkLock()
_collectors: weakref.WeakKeyDictionary[object, MetricsCollector] = weakref.WeakKeyDictionary()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
