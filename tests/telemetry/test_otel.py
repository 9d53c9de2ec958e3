"""OpenTelemetry shows what the Prometheus page shows: to a reader, over OTLP, to several readers, and after a fork."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from backpressure import (
    BackpressureConfig,
    BackpressureController,
    InMemoryStatsProvider,
    JobShedError,
    PollingConfig,
    ThrottledError,
)
from backpressure._telemetry.families import FAMILIES
from backpressure.otel import export_to
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.controller_fixtures import MakeController

Numbers = dict[tuple[str, frozenset[tuple[str, Any]]], float]
INSTANCE = "service.instance.id"


class Shown(NamedTuple):
    """What a reader was given: the numbers by name and attributes, the processes they are of, and the instruments."""

    numbers: Numbers
    instances: set[str]
    instruments: dict[str, Any]


def shown(reader: InMemoryMetricReader) -> Shown:
    data = reader.get_metrics_data()
    assert data is not None
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "backpressure"
    told = Shown({}, set(), {metric.name: metric for metric in scope.metrics})
    for metric in scope.metrics:
        for point in metric.data.data_points:
            attributes = dict(point.attributes or {})
            told.instances.add(str(attributes.pop(INSTANCE)))
            key = metric.name, frozenset(attributes.items())
            assert key not in told.numbers
            told.numbers[key] = point.value  # type: ignore[union-attr]  # none is a histogram of the SDK's
    return told


def page(registry: CollectorRegistry) -> Numbers:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value for each in families for sample in each.samples
    }


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def controller(
    make_controller: MakeController, provider: InMemoryStatsProvider, registry: CollectorRegistry
) -> BackpressureController:
    config = BackpressureConfig(polling=PollingConfig(jitter=0, busy_interval=5))
    controller = make_controller(config=config, registry=registry)
    provider.set("mail", 700, processing_count=2, delayed_count=3, oldest_age=4.5)
    provider.set("sms", 5_000)
    return controller


def produce(controller: BackpressureController) -> None:
    controller.refresh("mail")
    controller.refresh("sms")
    controller.run("high", "mail", int)
    with pytest.raises(ThrottledError):
        controller.run("medium", "mail", int, max_wait=0)
    with pytest.raises(JobShedError):
        controller.run("low", "sms", int)
    controller.circuit("sms").force_open()


def test_it_is_what_prometheus_shows(controller: BackpressureController, registry: CollectorRegistry) -> None:
    reader = InMemoryMetricReader()
    export_to(MeterProvider([reader]), registry=registry)
    produce(controller)
    first = shown(reader)
    assert first.numbers == page(registry)
    assert first.numbers[
        "backpressure_throttle_delay_seconds_count", frozenset({("priority", "medium"), ("queue", "mail")})
    ]
    assert {key[1] for key in first.numbers if key[0] == "backpressure_circuit_forced"} >= {
        frozenset({("queue", "sms")})
    }
    produce(controller)
    second = shown(reader)
    assert second.numbers == page(registry) != first.numbers


def test_every_family_has_its_instruments(controller: BackpressureController, registry: CollectorRegistry) -> None:
    reader = InMemoryMetricReader()
    export_to(MeterProvider([reader]), registry=registry)
    produce(controller)
    instruments = shown(reader).instruments
    for name, metric in instruments.items():
        base = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        family = FAMILIES.get(name) or FAMILIES[base]
        assert metric.description.startswith(family.help)
        grows = family.kind != "gauge"
        assert getattr(metric.data, "is_monotonic", False) is grows
        counted_in_seconds = base.endswith("_seconds") and not name.endswith(("_bucket", "_count"))
        assert metric.unit == ("s" if counted_in_seconds else "")
    assert len(instruments) > 20


def test_to_ask_again_changes_nothing(
    controller: BackpressureController, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    export_to(meters, registry=registry)
    export_to(meters, registry=registry)
    produce(controller)
    assert shown(reader).numbers == page(registry)
    assert {record.name for record in caplog.records} == {"backpressure"}, "the SDK finds no instrument twice"


def test_each_reader_has_all(controller: BackpressureController, registry: CollectorRegistry) -> None:
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    export_to(MeterProvider(readers), registry=registry)
    for _ in range(3):
        produce(controller)
        for reader in (*readers, readers[0]):
            assert shown(reader).numbers == page(registry)


def test_what_a_stopped_controller_counted_stays(
    controller: BackpressureController, registry: CollectorRegistry
) -> None:
    reader = InMemoryMetricReader()
    export_to(MeterProvider([reader]), registry=registry)
    produce(controller)
    controller.stop()
    numbers = shown(reader).numbers
    labels = frozenset({("priority", "low"), ("queue", "sms")})
    assert numbers["backpressure_shed_events_total", labels] == 1
    assert not [name for name, _ in numbers if name == "backpressure_queue_backlog_size"]


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes what is exported, as an OpenTelemetry Collector does."""

    server: CollectorServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((self.path, ExportMetricsServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is that of the base
        pass


class CollectorServer(http.server.ThreadingHTTPServer):
    """One that remembers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Collector)
        self.received: list[tuple[str, ExportMetricsServiceRequest]] = []


@pytest.fixture
def collector() -> Iterator[CollectorServer]:
    with CollectorServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_collector_gets_it_over_otlp(
    controller: BackpressureController, registry: CollectorRegistry, collector: CollectorServer
) -> None:
    exporter = OTLPMetricExporter(f"http://127.0.0.1:{collector.server_port}/v1/metrics")
    meters = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)])
    export_to(meters, registry=registry)
    produce(controller)
    assert meters.force_flush()
    meters.shutdown()
    path, request = collector.received[0]
    assert path == "/v1/metrics"
    (resource,) = request.resource_metrics
    (scope,) = resource.scope_metrics
    numbers: Numbers = {}
    for metric in scope.metrics:
        for point in (metric.sum if metric.HasField("sum") else metric.gauge).data_points:
            attributes = {each.key: each.value.string_value for each in point.attributes}
            assert attributes.pop(INSTANCE).endswith(f"-{os.getpid()}")
            value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
            numbers[metric.name, frozenset(attributes.items())] = value
    assert numbers == page(registry)


FORKED = """
import os, sys, warnings
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from backpressure import BackpressureController, InMemoryStatsProvider
from backpressure.otel import export_to

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
export_to()
controller = BackpressureController(None, InMemoryStatsProvider({"jobs": 0}))

def told():
    (resource,) = reader.get_metrics_data().resource_metrics
    points = [
        point for metric in resource.scope_metrics[0].metrics if metric.name == "backpressure_decisions_total"
        for point in metric.data.data_points
    ]
    return {int(point.attributes["service.instance.id"].rpartition("-")[2]): point.value for point in points}

controller.start()
for _ in range(3):
    controller.suggest_throttle("low", "jobs")
assert told() == {os.getpid(): 3}, told()
warnings.simplefilter("ignore")  # the controller's thread is no reason not to fork
child = os.fork()
for _ in range(2 if child == 0 else 4):
    controller.suggest_throttle("low", "jobs")
counted = told()[os.getpid()]
if child == 0:
    os._exit(counted)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), counted, set(told()) == {os.getpid()})
controller.stop()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_counts_for_itself(engine_name: str, engine_module: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED],
        env={**os.environ, "BACKPRESSURE_ENGINE": engine_name},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout.split(), done.returncode) == (["2", "7", "True"], 0), done.stderr


def test_it_goes_beside_multiprocess_mode(tmp_path: Path) -> None:
    code = FORKED.partition("warnings.simplefilter")[0] + "controller.stop()"
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=60)
    assert list(tmp_path.glob("counter_*.db")), "the files are written as ever"


WORKERS = """
import os, sys, warnings
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from backpressure import BackpressureController, InMemoryStatsProvider
from backpressure.otel import export_to

warnings.simplefilter("ignore")
controller = BackpressureController(None, InMemoryStatsProvider({"jobs": 0}))
workers = []
for jobs in (1, 2):
    workers.append(os.fork())
    if workers[-1] == 0:
        exporter = OTLPMetricExporter(sys.argv[1])
        meters = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=50)])
        export_to(meters)
        with controller:
            for _ in range(jobs):
                controller.run("high", "jobs", int)
            sys.stdin.read()
        meters.shutdown()
        os._exit(0)
print(*workers, flush=True)
for worker in workers:
    os.waitpid(worker, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_each_worker_exports_by_a_provider_of_its_own(collector: CollectorServer) -> None:
    url = f"http://127.0.0.1:{collector.server_port}/v1/metrics"

    def counted() -> dict[str, int]:
        points = [
            point
            for _, request in list(collector.received)
            for metric in request.resource_metrics[0].scope_metrics[0].metrics
            if metric.name == "backpressure_decisions_total"
            for point in metric.sum.data_points
        ]
        told = ({each.key: each.value.string_value for each in point.attributes} for point in points)
        return {
            attributes[INSTANCE].rpartition("-")[2]: point.as_int
            for attributes, point in zip(told, points, strict=True)
        }

    with subprocess.Popen([sys.executable, "-c", WORKERS, url], stdin=-1, stdout=-1, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        one, two = server.stdout.readline().split()
        try:
            eventually(lambda: counted() == {one: 1, two: 2}, 30)
        finally:
            server.stdin.close()
    assert server.returncode == 0


def test_it_goes_on_while_jobs_are_enqueued(controller: BackpressureController, registry: CollectorRegistry) -> None:
    reader = InMemoryMetricReader()
    export_to(MeterProvider([reader]), registry=registry)
    ended = threading.Event()
    labels = frozenset({("queue", "mail"), ("priority", "high"), ("reason", "backlog_green")})
    seen: list[float] = []

    def look() -> None:
        while not ended.is_set():
            seen.append(shown(reader).numbers.get(("backpressure_decisions_total", labels), 0))

    controller.refresh("mail")
    thread = threading.Thread(target=look)
    thread.start()
    try:
        for count in range(1, 6):
            for _ in range(100):
                controller.run("high", "mail", int)
            eventually(lambda: seen and seen[-1] == count * 100)  # noqa: B023 - it is called at once
    finally:
        ended.set()
        thread.join()
    assert seen == sorted(seen)
