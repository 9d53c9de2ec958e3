"""The metrics of controllers for OpenTelemetry: the families of the Prometheus page, read when they are collected.

`export_to` makes observable instruments of any ``MeterProvider``. Decisions do not touch them.
"""

from __future__ import annotations

import itertools
import os
import socket
import weakref
from typing import TYPE_CHECKING

from backpressure._engine.sync import ForkLock
from backpressure._runtime.extras import extra
from backpressure._runtime.pauses import paced
from backpressure._runtime.version import version
from backpressure._telemetry.families import FAMILIES
from backpressure._telemetry.metrics import MetricsCollector

with extra("otel", "opentelemetry", what="export_to"):
    from opentelemetry.metrics import Observation, get_meter_provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.metrics import CallbackOptions, MeterProvider
    from prometheus_client import CollectorRegistry

    from backpressure._telemetry.series import Series

__all__ = ["export_to"]

#: Attribute of every number: in which process it was counted, so that processes with one resource do not mix.
_INSTANCE = "service.instance.id"


def export_to(meter_provider: MeterProvider | None = None, *, registry: CollectorRegistry | None = None) -> None:
    """Export the metrics of this process's controllers to OpenTelemetry, beside Prometheus.

    Call it once, before or after controllers start. A second call with the same arguments does nothing.

    Args:
        meter_provider: of the SDK; default the global one, which is to be set before.
        registry: controllers are meant that were given this registry; default those that were given none, which is
            ``prometheus_client.REGISTRY``.

    Names, labels (as attributes) and units are those of the Prometheus metrics; times are in seconds. The API has no
    observable histogram: a histogram is three counters, ``…_bucket`` with the attribute ``le``, ``…_sum`` and
    ``…_count``. Each number has the attribute ``service.instance.id``, which is host and process: workers of one host
    often have a resource in common. A forked process counts from zero; make its provider after the fork.

    Raises:
        ModuleNotFoundError: the extra ``otel`` is not installed.

    Thread-safe.

    Example:
        >>> from opentelemetry.sdk.metrics import MeterProvider
        >>> from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        >>> from prometheus_client import CollectorRegistry
        >>> from backpressure.otel import export_to
        >>> registry = CollectorRegistry()
        >>> reader = InMemoryMetricReader()
        >>> export_to(MeterProvider([reader]), registry=registry)
        >>> with BackpressureController(None, InMemoryStatsProvider({"q": 0}), registry=registry) as controller:
        ...     decision = controller.suggest_throttle("low", "q")
        ...     (resource,) = reader.get_metrics_data().resource_metrics
        >>> metrics = {metric.name: metric.data for metric in resource.scope_metrics[0].metrics}
        >>> (point,) = metrics["backpressure_decisions_total"].data_points
        >>> point.value, point.attributes["queue"], point.attributes["reason"]
        (1, 'q', 'backlog_green')
    """
    provider = get_meter_provider() if meter_provider is None else meter_provider
    collector = MetricsCollector(registry)
    with _making():
        exported = _exported.setdefault(provider, weakref.WeakSet())
        if collector in exported:
            return
        exported.add(collector)
    rounds = _Rounds(collector)
    meter = provider.get_meter("backpressure", version())
    for name, (kind, unit, description) in _INSTRUMENTS.items():
        make = meter.create_observable_counter if kind == "counter" else meter.create_observable_gauge
        make(name, [rounds.callback(name)], unit, description)


def _instruments() -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Yield the name of each instrument with its kind, unit and description."""
    for name, kind, description, *_ in FAMILIES.values():
        unit = "s" if name.endswith("_seconds") else ""
        if kind != "histogram":
            yield name, (kind, unit, description)
        else:
            yield f"{name}_bucket", ("counter", "", f"{description} How many were at most `le` seconds.")
            yield f"{name}_sum", ("counter", unit, f"{description} Their sum.")
            yield f"{name}_count", ("counter", "", f"{description} How many.")


_INSTRUMENTS = dict(_instruments())


def _observations(series: Series) -> Iterator[tuple[str, Observation]]:
    """Yield what the instruments show of a series."""
    family = FAMILIES[series.family]
    attributes = {**dict(zip(family.labels, series.labels, strict=True)), _INSTANCE: f"{_HOST}-{os.getpid()}"}
    if not series.buckets:
        yield family.name, Observation(series.value, attributes)
        return
    bounds = (*(repr(bound / 1e9) for bound in family.buckets_ns), "+Inf")
    for bound, count in zip(bounds, itertools.accumulate(series.buckets), strict=True):
        yield f"{family.name}_bucket", Observation(count, {**attributes, "le": bound})
    yield f"{family.name}_sum", Observation(series.value, attributes)
    yield f"{family.name}_count", Observation(sum(series.buckets), attributes)


class _Rounds:
    """One look at the controllers for all instruments of a collection, although the SDK asks each by itself.

    A look is shown once to each instrument. Whoever asks again, begins the next round. Thread-safe.
    """

    def __init__(self, collector: MetricsCollector) -> None:
        self._collector = collector
        self._lock = ForkLock()
        self._pid = 0
        self._unseen: dict[str, list[Observation]] = {}

    def callback(self, name: str) -> Callable[[CallbackOptions], list[Observation]]:
        """Return what the SDK asks for one instrument."""

        def observe(_: CallbackOptions) -> list[Observation]:
            with self._lock():
                if name not in self._unseen or self._pid != os.getpid():  # a forked child has counts of its own
                    self._unseen = {each: [] for each in _INSTRUMENTS}
                    self._pid = os.getpid()
                    for series in paced(self._collector.series()):
                        for instrument, observation in _observations(series):
                            self._unseen[instrument].append(observation)
                return self._unseen.pop(name)

        return observe


_HOST = socket.gethostname()
_making = ForkLock()
_exported: weakref.WeakKeyDictionary[MeterProvider, weakref.WeakSet[MetricsCollector]] = weakref.WeakKeyDictionary()
