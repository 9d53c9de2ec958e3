"""The files of prometheus-client's multiprocess mode: what is new is added to them, to be merged by another process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._model.clock import own_time
from backpressure._runtime.pauses import paced
from backpressure._telemetry.families import FAMILIES
from backpressure._telemetry.labels import Labels
from backpressure._telemetry.ledger import merged, queue_of, since
from backpressure._telemetry.series import Series, count_series, ratio_series

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

    from backpressure._telemetry.ledger import Counts
    from backpressure._telemetry.series import Now

__all__ = ["Files"]

# Seconds by which two readings of the age of one sample may differ.
_JITTER = 0.01


class Files:
    """Ordinary metrics of prometheus-client, which stores them in this process's files in multiprocess mode."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram  # noqa: PLC0415 - see `metrics`

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
        self._labels = Labels()
        self._flushed: Counts = {}
        self._shown: set[tuple[str, tuple[str, ...]]] = set()
        self._said: dict[tuple[str, tuple[str, ...]], float] = {}
        self._sampled: dict[str, float] = {}

    def write(self, counts: Counts, now: Now, most: int) -> None:
        """Add what `counts` has beyond the last time, and set the gauges; name no more than `most` queues, ever.

        The others are counted together, and have no gauges.
        """
        named = self._labels.admit([name for key in counts if (name := queue_of(key)) is not None], most)
        named |= self._labels.admit([*now.backlogs, *now.circuits, *now.ages, *now.held], most)
        counts = merged(counts, named)
        now = now.of_queues(named)
        news, _ = since(counts, self._flushed)
        self._flushed = counts
        for series in paced(count_series(news)):
            self._increase(series)
        # Of two processes the one with new counts or settings is right, not the one that wrote last.
        for series in (*ratio_series(counts), *paced(now.threshold_series())):
            if self._said.get(series[:2]) != series.value:
                self._said[series[:2]] = series.value
                self._set(series)
        clock = own_time.monotonic()
        for queue, (_, age) in paced(now.backlogs.items()):
            taken = clock - age
            if taken > self._sampled.get(queue, -1e18) + _JITTER:
                self._sampled[queue] = taken
                for series in now.sample_series(queue):
                    self._set(series)
        shown = set()
        for series in paced(now.worst_series()):
            shown.add(series[:2])
            self._set(series)
        # A file keeps a series for ever: one that no source has any longer must not be the maximum.
        for name, labels in self._shown - shown:
            self._set(Series(name, labels, 0))
        self._shown = shown

    def _child(self, series: Series) -> Counter | Gauge | Histogram:
        metric = self._metrics[series.family]
        return metric.labels(*series.labels) if series.labels else metric

    def _set(self, series: Series) -> None:
        self._child(series).set(series.value)  # type: ignore[union-attr]  # only gauges come here

    def _increase(self, series: Series) -> None:
        child = self._child(series)
        if not series.buckets:
            child.inc(series.value)  # type: ignore[union-attr]  # a counter
            return
        # There is no public way to add many observations at once, and one by one they would cost 2 µs each. These two
        # attributes are as old as the library, and a test of ours fails if they go.
        for value, count in zip(child._buckets, series.buckets, strict=True):  # type: ignore[union-attr]  # noqa: SLF001
            if count:
                value.inc(count)
        child._sum.inc(series.value)  # type: ignore[union-attr]  # noqa: SLF001
