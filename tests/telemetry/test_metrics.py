"""The metrics page: names, arithmetic, several controllers, forks, processes, and what promtool says of it."""

from __future__ import annotations

import gc
import math
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from backpressure import BackpressureConfig, PollingConfig
from backpressure._engine.pure.counters import Counters
from backpressure._engine.totals import Totals
from backpressure._model.vocabulary import OTHER_QUEUES, Priority, Reason
from backpressure._telemetry.ages import Fleet, HeldAge
from backpressure._telemetry.families import FAMILIES, POLL_BUCKETS_NS
from backpressure._telemetry.ledger import Details, Durations, FleetNow, since
from backpressure._telemetry.metrics import MetricsCollector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backpressure import BackpressureController
    from backpressure._telemetry.ledger import Bounds, Counts, MetricsSource
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

MS = 1_000_000

# The lines of the description's code block, without its comments.
DESCRIBED = """
backpressure_throttle_events_total{priority="medium",queue="email-queue"}
backpressure_shed_events_total{priority="low",queue="analytics-queue"}
backpressure_throttle_delay_seconds{priority="high",queue="payments-queue"}
backpressure_circuit_breaker_state{queue="email-queue"}
backpressure_queue_backlog_size{queue="email-queue"}
backpressure_producer_compliance_ratio{queue="email-queue"}
backpressure_polling_errors_total{error_type="timeout"}
backpressure_cache_hit_rate
"""


HELD = HeldAge(
    target=5.0,
    state="coordinated",
    waiting=(0, 3, 1),
    lease_age=0.5,
    fleet=Fleet(4.5, 200.0, 199.5, (60.0, 180.0, 360.0), (1.0, 0.776, 0.005), 12),
    idle=False,
)


class FakeSource:
    """A controller whose numbers the test sets."""

    def __init__(self, *decisions: tuple[str, Priority, Reason, int], computed: bool = False) -> None:
        self.counters: dict[tuple[str, int], Counters] = {}
        self.moved: dict[tuple[str, int], Totals] = {}
        self.states: dict[str, int] = {}
        self.forced: set[str] = set()
        self.samples: dict[str, tuple[int, float]] = {}
        self.told: dict[str, Details] = {}
        self.bounds: dict[str, dict[tuple[str, str], int]] = {}
        self.failures: dict[str, int] = {}
        self.durations = Durations()
        self.advice: dict[str, tuple[int, int]] = {}
        self.let_pass: dict[tuple[str, str], int] = {}
        self.held: dict[str, HeldAge] = {}
        self.called: dict[str, int] = {}
        self.judged: dict[tuple[str, int], tuple[int, ...]] = {}
        self.switched = (False, False, False)
        for decision in decisions:
            self.decide(*decision, computed=computed)

    def decide(
        self, queue: str, priority: Priority, reason: Reason, delay_ns: int = 0, *, computed: bool = False
    ) -> None:
        key = queue, priority.value
        counters = self.counters.setdefault(key, Counters())
        counters.count(reason, goes=self.switched[2], delay_ns=delay_ns, computed=computed)

    def evict(self, queue: str) -> None:
        for key in [key for key in self.counters if key[0] == queue]:
            other = OTHER_QUEUES, key[1]
            self.moved[other] = self.moved.get(other, Totals()).plus(self.counters.pop(key).totals())

    def totals(self) -> dict[tuple[str, int], Totals]:
        return {**self.moved, **{key: counters.totals() for key, counters in self.counters.items()}}

    def circuits(self) -> dict[str, tuple[int, bool]]:
        return {name: (state, name in self.forced) for name, state in self.states.items()}

    def backlogs(self) -> dict[str, tuple[int, float]]:
        return self.samples

    def details(self) -> dict[str, Details]:
        return self.told

    def thresholds(self) -> dict[str, dict[tuple[str, str], int]]:
        return self.bounds

    def errors(self) -> dict[str, int]:
        return self.failures

    def held_ages(self) -> dict[str, HeldAge]:
        return self.held

    def calls(self) -> dict[str, int]:
        return self.called

    def polls(self) -> Durations:
        return self.durations

    def passed(self) -> dict[tuple[str, str], int]:
        return self.let_pass

    def compliance(self) -> dict[str, tuple[int, int]]:
        return self.advice

    def max_queues(self) -> int:
        return 1_000

    def fleet(self) -> FleetNow | None:
        return FleetNow(3, 7, {"override": 1})

    def compared(self) -> dict[tuple[str, int], tuple[int, ...]]:
        return self.judged

    def enforces(self) -> bool:
        return True

    def switches(self) -> tuple[bool, bool, bool]:
        return self.switched


class ControllerSource:
    """A real controller: what its health tells, and the counts of its engine."""

    def __init__(self, controller: BackpressureController) -> None:
        self._controller = controller

    def totals(self) -> dict[tuple[str, int], Totals]:
        return self._controller._engine.totals()

    def circuits(self) -> dict[str, tuple[int, bool]]:
        health = self._controller.health()
        names = health["circuit_states"]
        return {name: (self._controller.get_circuit_state(name).value, name in health["forced"]) for name in names}

    def backlogs(self) -> dict[str, tuple[int, float]]:
        queues = self._controller.health()["queues"].items()
        return {name: (queue["backlog"], queue["sample_age"]) for name, queue in queues if queue["backlog"] is not None}

    def details(self) -> Mapping[str, Details]:
        return self._controller._health.details()

    def thresholds(self) -> Mapping[str, Bounds]:
        return self._controller._health.thresholds()

    def errors(self) -> dict[str, int]:
        errors: dict[str, int] = self._controller.health()["polling_errors"]
        return errors

    def held_ages(self) -> Mapping[str, HeldAge]:
        return self._controller._health.held_ages()

    def calls(self) -> Mapping[str, int]:
        return self._controller._health.calls()

    def passed(self) -> dict[tuple[str, str], int]:
        passed = self._controller.health()["passed"]
        return {(queue, why): count for queue, counts in passed.items() for why, count in counts.items()}

    def polls(self) -> Durations:
        return Durations().plus(round(self._controller.health()["last_poll_seconds"] * 1e9))

    def compliance(self) -> dict[str, tuple[int, int]]:
        return {}

    def max_queues(self) -> int:
        return 1_000

    def fleet(self) -> FleetNow | None:
        return None

    def compared(self) -> dict[tuple[str, int], tuple[int, ...]]:
        return {}

    def enforces(self) -> bool:
        return bool(self._controller.health()["enforces"])

    def switches(self) -> tuple[bool, bool, bool]:
        health = self._controller.health()
        return health["manual_override"], health["emergency_mode"], health["mode"] == "observe"


def busy() -> FakeSource:
    """Return a source with something to say in every family."""
    source = FakeSource(
        ("email-queue", Priority.MEDIUM, Reason.BACKLOG_YELLOW, 100 * MS),
        ("email-queue", Priority.MEDIUM, Reason.BACKLOG_GREEN, 0),
        ("analytics-queue", Priority.LOW, Reason.BACKLOG_RED_SHED, 0),
        ("payments-queue", Priority.HIGH, Reason.CIRCUIT_OPEN, 0),
        ("payments-queue", Priority.HIGH, Reason.BACKLOG_RED, 2_400 * MS),
        ("payments-queue", Priority.HIGH, Reason.COLD_START, 0),
        ('a "strange"\\name', Priority.HIGH, Reason.OBSERVE_ONLY, 0),
    )
    source.decide("payments-queue", Priority.HIGH, Reason.BACKLOG_RED, 11_000 * MS, computed=True)
    source.states = {"email-queue": 0, "payments-queue": 2}
    source.samples = {"email-queue": (1_234, 0.5)}
    source.told = {"email-queue": Details(2, 3, 4.5, 0.875)}
    source.bounds = {"email-queue": {("low", "red_max"): 1_000, ("low", "shed_at"): 900}}
    source.failures = {"timeout": 3}
    source.durations = Durations().plus(2 * MS).plus(20_000 * MS)
    source.advice = {"email-queue": (3, 4)}
    source.let_pass = {("email-queue", "worker"): 2}
    source.held = {"email-queue": HELD}
    source.called = {"ok": 5, "error": 1}
    source.judged = {("email-queue", Priority.LOW.value): (9, 4, 3, 2, 1)}
    source.switched = (True, False, True)
    return source


def collector_of(*sources: MetricsSource) -> tuple[MetricsCollector, CollectorRegistry]:
    registry = CollectorRegistry(auto_describe=True)
    collector = MetricsCollector(registry)
    for source in sources:
        collector.add(source)
    return collector, registry


def samples_of(page: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def value(registry: CollectorRegistry, name: str, /, **labels: str) -> float | None:
    return registry.get_sample_value(f"backpressure_{name}", labels)


@pytest.mark.parametrize("line", DESCRIBED.split())
def test_the_described_metrics_have_their_names_and_labels(line: str) -> None:
    name, _, rest = line.partition("{")
    labels = dict(pair.split("=") for pair in rest.removesuffix("}").split(",") if pair)
    family = FAMILIES[name]
    assert family.labels == tuple(labels)
    source = busy()
    _, registry = collector_of(source)
    wanted = {label: text.strip('"') for label, text in labels.items()}
    assert registry.get_sample_value(name + ("_count" if family.kind == "histogram" else ""), wanted) is not None


def test_registering_asks_no_source_and_shows_every_family() -> None:
    class Mute:
        def __getattr__(self, name: str) -> Any:
            pytest.fail(f"{name} was asked for")

    registry = CollectorRegistry(auto_describe=True)
    collector = MetricsCollector(registry)
    mute: Any = Mute()
    collector.add(mute)
    registry.unregister(collector)
    assert b"backpressure" not in generate_latest(registry)
    assert MetricsCollector(registry) is collector  # which registers it again
    del mute
    gc.collect()
    page = generate_latest(registry).decode()
    assert all(f"# TYPE {name} " in page for name in FAMILIES)
    assert value(registry, "cache_hit_rate") == 0
    assert value(registry, "poll_duration_seconds_count") == 0
    assert value(registry, "manual_override") == 0


def test_there_is_one_collector_a_registry() -> None:
    registry, other = CollectorRegistry(auto_describe=True), CollectorRegistry()
    assert MetricsCollector(registry) is MetricsCollector(registry)
    assert MetricsCollector(other) is not MetricsCollector(registry)


def test_the_default_is_the_global_registry() -> None:
    done = python(
        "from prometheus_client import REGISTRY, generate_latest\n"
        "from backpressure._telemetry.metrics import MetricsCollector\n"
        "assert MetricsCollector() is MetricsCollector(REGISTRY)\n"
        "print(generate_latest().decode())"
    )
    assert "\nbackpressure_cache_hit_rate 0.0\n" in done


def test_foreign_metrics_of_the_same_name_are_an_error() -> None:
    registry = CollectorRegistry()
    Counter("backpressure_decisions", "Something else.", registry=registry)
    for _ in range(2):
        with pytest.raises(ValueError, match="backpressure_decisions"):
            MetricsCollector(registry)


def test_a_registry_takes_its_collector_with_it() -> None:
    import weakref

    collector, registry = collector_of()
    gone = weakref.ref(collector)
    del collector, registry
    gc.collect()
    assert gone() is None


def test_prometheus_client_is_imported_by_the_first_collector() -> None:
    assert python("import sys, backpressure._telemetry.metrics; print('prometheus_client' in sys.modules)") == "False\n"


def test_every_number_of_a_page() -> None:
    source = busy()
    _, registry = collector_of(source)
    high = {"priority": "high", "queue": "payments-queue"}
    medium = {"priority": "medium", "queue": "email-queue"}
    low = {"priority": "low", "queue": "analytics-queue"}
    assert value(registry, "throttle_events_total", **high) == 2
    assert value(registry, "throttle_events_total", **medium) == 1
    assert (
        value(registry, "throttle_events_total", **low) == 0
    )  # there from the first decision on, so rates see the rise
    assert value(registry, "shed_events_total", **low) == 1
    assert value(registry, "shed_events_total", **high) == 0  # a rejection by the circuit is no shed
    assert value(registry, "decisions_total", **high, reason="circuit_open") == 1
    assert value(registry, "decisions_total", **high, reason="backlog_red") == 2
    assert value(registry, "decisions_total", **high, reason="manual_override") is None
    assert value(registry, "throttle_delay_seconds_sum", **high) == 13.4
    assert value(registry, "throttle_delay_seconds_count", **low) is None
    assert [
        value(registry, "throttle_delay_seconds_bucket", **high, le=le)
        for le in ("0.001", "0.01", "0.1", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf")
    ] == [0, 0, 0, 0, 0, 1, 1, 1, 2]
    assert value(registry, "circuit_breaker_state", queue="payments-queue") == 2
    assert value(registry, "queue_backlog_size", queue="email-queue") == 1_234
    assert value(registry, "sample_age_seconds", queue="email-queue") == 0.5
    assert value(registry, "producer_compliance_ratio", queue="email-queue") == 0.75
    assert value(registry, "producer_advice_total", queue="email-queue", result="honoured") == 3
    assert value(registry, "producer_advice_total", queue="email-queue", result="violated") == 1
    assert value(registry, "refusals_total", queue="analytics-queue", priority="low", result="shed") == 1
    assert value(registry, "refusals_total", queue="payments-queue", priority="high", result="circuit") == 1
    assert value(registry, "refusals_total", queue="payments-queue", priority="high", result="max_wait") is None
    assert value(registry, "passed_total", queue="email-queue", why="worker") == 2
    assert value(registry, "polling_errors_total", error_type="timeout") == 3
    # Answers of the law: yellow, green, shed and one red from the cache, one red computed; cold start is a miss.
    assert value(registry, "cache_requests_total", result="hit") == 4
    assert value(registry, "cache_requests_total", result="miss") == 2
    assert value(registry, "cache_hit_rate") == 4 / 6
    assert value(registry, "poll_duration_seconds_count") == 2
    assert value(registry, "poll_duration_seconds_sum") == 20.002
    assert value(registry, "poll_duration_seconds_bucket", le="0.001") == 0
    assert value(registry, "poll_duration_seconds_bucket", le="0.005") == 1
    assert value(registry, "poll_duration_seconds_bucket", le="10.0") == 1
    assert [value(registry, name) for name in ("manual_override", "emergency_mode", "observe_mode")] == [1, 0, 1]


def test_durations_fall_into_the_bucket_whose_bound_they_do_not_exceed() -> None:
    for index, bound in enumerate(POLL_BUCKETS_NS):
        assert Durations().plus(bound).counts[index] == 1
        assert Durations().plus(bound + 1).counts[index + 1] == 1
    assert sum(Durations().plus(1).plus(2).counts) == 2


def test_controllers_of_one_registry_share_its_families() -> None:
    one, two = busy(), busy()
    two.states = {"email-queue": 1, "payments-queue": 1}
    two.samples = {"email-queue": (99, 0.25)}
    two.switched = (False, True, False)
    two.advice = {"email-queue": (0, 2)}
    _, registry = collector_of(one, two, one)
    assert value(registry, "throttle_events_total", priority="high", queue="payments-queue") == 4
    assert value(registry, "throttle_delay_seconds_bucket", priority="high", queue="payments-queue", le="2.5") == 2
    assert value(registry, "circuit_breaker_state", queue="email-queue") == 1
    assert value(registry, "circuit_breaker_state", queue="payments-queue") == 2
    assert value(registry, "queue_backlog_size", queue="email-queue") == 99  # the younger sample's
    assert value(registry, "sample_age_seconds", queue="email-queue") == 0.5  # the older one's
    assert value(registry, "producer_compliance_ratio", queue="email-queue") == 0.5
    assert value(registry, "polling_errors_total", error_type="timeout") == 6
    assert [value(registry, name) for name in ("manual_override", "emergency_mode", "observe_mode")] == [1, 1, 1]


def test_counts_outlive_their_source_and_gauges_do_not() -> None:
    stopped, dropped = busy(), busy()
    collector, registry = collector_of(stopped, dropped)
    assert value(registry, "shed_events_total", priority="low", queue="analytics-queue") == 2
    stopped.decide("analytics-queue", Priority.LOW, Reason.BACKLOG_RED_SHED)
    collector.remove(stopped)
    collector.remove(stopped)
    del dropped
    gc.collect()
    for _ in range(2):
        assert value(registry, "shed_events_total", priority="low", queue="analytics-queue") == 3
        assert value(registry, "polling_errors_total", error_type="timeout") == 6
        assert value(registry, "producer_compliance_ratio", queue="email-queue") == 0.75
        assert value(registry, "circuit_breaker_state", queue="email-queue") is None
        assert value(registry, "queue_backlog_size", queue="email-queue") is None
        assert value(registry, "manual_override") == 0


def test_eight_threads_scrape_while_controllers_come_and_go() -> None:
    collector, registry = collector_of()
    failures: list[BaseException] = []
    seen: list[float] = []

    def come_and_go() -> None:
        for _ in range(20):
            source = busy()
            collector.add(source)
            collector.remove(source)

    def scrape() -> None:
        last = 0.0
        for _ in range(20):
            now = value(registry, "shed_events_total", priority="low", queue="analytics-queue") or 0
            if now < last:
                failures.append(AssertionError(f"fell from {last} to {now}"))
            last = now
        seen.append(last)

    threads = [threading.Thread(target=target) for target in (come_and_go, scrape) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(seen) == 4
    assert value(registry, "shed_events_total", priority="low", queue="analytics-queue") == 80


numbers = st.tuples(st.integers(0, 50), st.integers(0, 50))
queues = st.dictionaries(st.sampled_from(["a", "b", "c", OTHER_QUEUES]), numbers)


@given(queues, queues, st.sets(st.sampled_from(["a", "b", "c"])))
def test_a_difference_neither_loses_nor_invents_a_count(
    before: Mapping[str, tuple[int, int]], rise: Mapping[str, tuple[int, int]], evicted: set[str]
) -> None:
    base: Counts = {("advice", queue): counts for queue, counts in before.items()}
    now = dict(base)
    for queue in evicted & before.keys():
        gone, other = now.pop(("advice", queue)), now.get(("advice", OTHER_QUEUES), (0, 0))
        now["advice", OTHER_QUEUES] = (gone[0] + other[0], gone[1] + other[1])
    for queue, (first, second) in rise.items():
        old = now.get(("advice", queue), (0, 0))
        now["advice", queue] = (old[0] + first, old[1] + second)
    news, carried = since(now, base)
    for column in range(2):
        assert sum(counts[column] for counts in news.values()) == sum(counts[column] for counts in rise.values())
        assert sum(counts[column] for counts in carried.values()) == sum(counts[column] for counts in base.values())
    assert all(count >= 0 for counts in news.values() for count in counts)
    if not evicted:
        risen = {("advice", queue): counts for queue, counts in rise.items() if any(counts)}
        assert {key: counts for key, counts in news.items() if any(counts)} == risen


def test_a_controller_and_its_page_agree(make_controller: MakeController, clock: ManualClock, engine_name: str) -> None:
    controller = make_controller(None, BackpressureConfig(polling=PollingConfig(busy_interval=5)))
    source = ControllerSource(controller)
    collector, registry = collector_of(source)
    decisions = [
        controller.suggest_throttle(priority, queue)
        for queue in ("green", "yellow", "red", "full")
        for priority in Priority
        for _ in range(3)
    ]
    controller.circuit("yellow").force_open()
    decisions.append(controller.suggest_throttle("low", "yellow"))
    clock.advance(2)
    for queue in ("green", "yellow", "red", "full"):
        for priority in Priority:
            labels = {"priority": str(priority), "queue": queue}
            mine = [d for d in decisions if (d.priority, d.queue_name) == (priority, queue)]
            delays = [d.delay for d in mine if 0 < d.delay < math.inf]
            assert value(registry, "throttle_events_total", **labels) == len(delays)
            assert value(registry, "throttle_delay_seconds_count", **labels) == (len(delays) or None)
            assert (value(registry, "throttle_delay_seconds_sum", **labels) or 0) == pytest.approx(sum(delays))
            shed = [d for d in mine if d.reason is Reason.BACKLOG_RED_SHED]
            assert value(registry, "shed_events_total", **labels) == len(shed)
            for reason in Reason:
                count = sum(d.reason is reason for d in mine)
                assert value(registry, "decisions_total", **labels, reason=str(reason)) == (count or None)
    assert value(registry, "cache_hit_rate") == controller.health()["cache_hit_rate"] == 24 / 36
    assert value(registry, "circuit_breaker_state", queue="yellow") == 1
    assert value(registry, "queue_backlog_size", queue="full") == 100_000
    assert value(registry, "sample_age_seconds", queue="full") == 2
    assert value(registry, "manual_override") == 0
    controller.set_manual_override(True)
    assert value(registry, "manual_override") == 1
    controller.stop()
    collector.remove(source)
    assert value(registry, "shed_events_total", priority="low", queue="full") == 3


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CI", "").lower() in {"1", "true"} and _ci_installs_promtool():
            pytest.fail("promtool is missing, though CI installs it: run scripts/install_tools.sh")
        pytest.skip("promtool is missing: run scripts/install_tools.sh as root")
    return found


def _ci_installs_promtool() -> bool:
    root = Path(__file__).parent.parent.parent
    files = [root / "Makefile", root / ".ci" / "run"]
    return any("install_tools.sh" in file.read_text() for file in files if file.exists())


@pytest.mark.parametrize("sources", [(), (busy,), (busy, busy)], ids=["none", "one", "two"])
def test_promtool_accepts_the_page(promtool: str, sources: tuple[Any, ...]) -> None:
    made = [make() for make in sources]
    _, registry = collector_of(*made)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=generate_latest(registry), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def python(code: str, *args: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *args],
        env={**environment(), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FORKING = """
import gc, os, sys
if sys.argv[1] == "in C":
    os.register_at_fork = lambda **hooks: None
from prometheus_client import CollectorRegistry
from backpressure import Priority, Reason
from backpressure._telemetry.metrics import MetricsCollector
from telemetry.test_metrics import busy, value

registry = CollectorRegistry()
collector = MetricsCollector(registry)
kept, stopped = busy(), busy()
collector.add(kept)
collector.add(stopped)
collector.remove(stopped)
shed = {"priority": "low", "queue": "analytics-queue"}
print(value(registry, "shed_events_total", **shed))
kept.decide("analytics-queue", Priority.LOW, Reason.BACKLOG_RED_SHED)  # not scraped yet: the child must not take it
sys.stdout.flush()
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    if sys.argv[1] == "in C":
        registry.get_sample_value("any")  # its first scrape, or flush, is where it begins
    kept.decide("analytics-queue", Priority.LOW, Reason.BACKLOG_RED_SHED)
    kept.decide("email-queue", Priority.LOW, Reason.BACKLOG_GREEN)
    kept.evict("email-queue")
    kept.failures["timeout"] += 5
print(value(registry, "shed_events_total", **shed), value(registry, "polling_errors_total", error_type="timeout"))
print(value(registry, "decisions_total", priority="medium", queue="email-queue", reason="backlog_yellow"))
print(value(registry, "decisions_total", priority="low", queue="__other__", reason="backlog_green"))
sys.stdout.flush()
if not child:
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["by Python", "in C"])
def test_a_forked_process_starts_from_zero(how: str) -> None:
    parent_before, *lines = python(FORKING, how).splitlines()
    assert parent_before == "2"
    assert lines[:3] == ["1 5", "None", "1"]  # the child
    assert lines[3:] == ["3 6", "2", "None"]  # the parent


WORKER = """
import os, sys, time
from backpressure import Priority, Reason
from backpressure._telemetry.ledger import Durations
from backpressure._telemetry.metrics import MetricsCollector
number = int(sys.argv[1])
os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[2]  # late, as servers set it: nothing may have imported it before
from prometheus_client import CollectorRegistry, REGISTRY
from telemetry.test_metrics import MS, busy

def step():
    print("done", flush=True)
    sys.stdin.readline()

source = busy()
source.samples.clear()
collector = MetricsCollector(CollectorRegistry())
assert collector is MetricsCollector()
assert not [metric for metric in REGISTRY.collect() if metric.name.startswith("backpressure")]
collector.add(source)
collector.flush()
source.decide("email-queue", Priority.MEDIUM, Reason.BACKLOG_RED, number * 7_000 * MS)
source.durations = source.durations.plus(number * MS)
source.failures["timeout"] += number
source.advice = {"email-queue": (4, 5 + number)}
source.states["email-queue"] = number
taken = time.monotonic() - number
source.backlogs = lambda: {"email-queue": (number, time.monotonic() - taken)}
collector.flush()
step()
collector.flush()  # with nothing new
step()
source.decide("email-queue", Priority.MEDIUM, Reason.BACKLOG_GREEN)
source.evict("analytics-queue")  # its shed moves to __other__, but what is written cannot be taken back
source.decide("analytics-queue", Priority.LOW, Reason.BACKLOG_RED_SHED)
collector.remove(source)
collector.flush()
step()
"""

SCRAPE = """
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


class Worker:
    """A process that does one step when it is told to."""

    def __init__(self, number: int, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WORKER, str(number), str(directory)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answered()

    def step(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._answered()

    def _answered(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "done\n"

    def end(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


class Scrape:
    """The page of all processes, accepted by promtool."""

    def __init__(self, directory: Path, promtool: str) -> None:
        page = python(SCRAPE, PROMETHEUS_MULTIPROC_DIR=str(directory))
        done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        self.samples = samples_of(page.encode())

    def __call__(self, name: str, /, **labels: str) -> float:
        return self.samples[f"backpressure_{name}", frozenset(labels.items())]


def test_two_processes_make_one_page(tmp_path: Path, promtool: str) -> None:
    workers = [Worker(1, tmp_path), Worker(2, tmp_path)]
    email = {"queue": "email-queue"}
    medium = {"priority": "medium", **email}

    workers[0].step()
    living = Scrape(tmp_path, promtool)
    names = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name, _ in living.samples}
    assert names == set(FAMILIES)
    assert living("circuit_breaker_state", **email) == 2
    assert living("circuit_breaker_state", queue="payments-queue") == 2
    assert 2 <= living("sample_age_seconds", **email) < 60
    assert living("queue_backlog_size", **email) == 2  # the first worker wrote later, but had no newer sample
    gauges = [living(name, **email) for name in ("running_jobs", "delayed_jobs", "oldest_age_seconds")]
    assert gauges == [2, 3, 4.5]
    assert living("threshold_jobs", **email, priority="low", bound="shed_at") == 900
    assert living("producer_compliance_ratio", **email) == 4 / 7
    assert [living(name) for name in ("manual_override", "emergency_mode", "observe_mode")] == [1, 0, 1]
    assert [living(name) for name in ("fleet_members", "fleet_config_revision")] == [3, 7]
    assert living("fleet_switch", switch="override") == 1
    assert sum(count for (name, _), count in living.samples.items() if name == "backpressure_shed_events_total") == 2

    for worker in (workers[1], *workers):
        worker.step()
    stopped = Scrape(tmp_path, promtool)
    assert stopped("throttle_events_total", **medium) == 4
    assert stopped("decisions_total", **medium, reason="backlog_red") == 2
    assert stopped("decisions_total", **medium, reason="backlog_green") == 4
    assert stopped("throttle_delay_seconds_sum", **medium) == pytest.approx(0.1 + 0.1 + 7 + 14)
    assert [
        stopped("throttle_delay_seconds_bucket", **medium, le=le)
        for le in ("0.001", "0.01", "0.1", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf")
    ] == [0, 0, 2, 2, 2, 2, 2, 3, 4]
    assert stopped("throttle_delay_seconds_count", **medium) == 4
    assert sum(count for (name, _), count in stopped.samples.items() if name == "backpressure_shed_events_total") == 4
    assert stopped("polling_errors_total", error_type="timeout") == 3 + 1 + 3 + 2
    assert stopped("poll_duration_seconds_count") == 6
    assert stopped("poll_duration_seconds_sum") == pytest.approx(2 * 20.002 + 0.003)
    assert stopped("producer_advice_total", **email, result="honoured") == 8
    assert stopped("producer_advice_total", **email, result="violated") == 2 + 3
    assert stopped("cache_requests_total", result="miss") == 4
    # A series that no process has any longer is not the maximum.
    assert stopped("circuit_breaker_state", **email) == 0
    assert stopped("sample_age_seconds", **email) == 0
    assert stopped("manual_override") == 0
    for worker in workers:
        worker.end()


FORKING_FILES = """
import os, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons on a fork beside threads: it is what is tested
from backpressure import Priority, Reason
from backpressure._telemetry.metrics import MetricsCollector
from telemetry.test_metrics import busy

source = busy()
collector = MetricsCollector()
collector.add(source)
going = True
def flush():
    while going:
        collector.flush()
flusher = threading.Thread(target=flush)
flusher.start()
for _ in range(10):  # while a flush is under way, whose locks no child may find held
    child = os.fork()
    if not child:
        source.decide("analytics-queue", Priority.LOW, Reason.BACKLOG_RED_SHED)
        collector.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
going = False
flusher.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_add_up(tmp_path: Path, promtool: str) -> None:
    python(FORKING_FILES, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    page = Scrape(tmp_path, promtool)
    assert page("shed_events_total", priority="low", queue="analytics-queue") == 1 + 10
    assert page("throttle_events_total", priority="high", queue="payments-queue") == 2
    assert page("producer_advice_total", queue="email-queue", result="honoured") == 3
    assert page("producer_compliance_ratio", queue="email-queue") == 0.75
