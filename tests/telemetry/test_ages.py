"""What metrics and health tell of queues whose age is held: made-up budgets, and a real one in a real store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from backpressure import AgeConfig, BackpressureConfig, PollingConfig, RedisStatsProvider
from backpressure._age.lease import Lease
from backpressure._age.protocol import MILLION, Answer, BacklogSeen, Terms
from backpressure._controller.age.budget import Budget
from backpressure._controller.age.standing import as_dict, standing
from backpressure._engine.laws.age import AgeLaw
from backpressure._model.clock import SystemClock
from backpressure._telemetry.ages import LEASE_STATES, HeldAge, worse
from support.controller_fixtures import eventually
from telemetry.test_metrics import HELD, busy, collector_of, python, samples_of, value

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from support.controller_fixtures import MakeController

QUEUE = {"queue": "email-queue"}
NUMBERS = ("target_age_seconds", "age_seconds", "drain_rate", "granted_rate", "processes", "lease_age_seconds")


def by_priority(registry: CollectorRegistry, name: str) -> list[float | None]:
    return [value(registry, name, **QUEUE, priority=priority) for priority in ("high", "medium", "low")]


def state_of(registry: CollectorRegistry) -> str:
    """Return the one state that is 1."""
    told = {state: value(registry, "lease_state", **QUEUE, state=state) for state in LEASE_STATES}
    assert set(told.values()) == {0, 1}
    (state,) = (state for state, is_it in told.items() if is_it)
    return state


def page_of(*held: HeldAge) -> CollectorRegistry:
    sources = [busy() for _ in held]
    for source, one in zip(sources, held, strict=True):
        source.held = {"email-queue": one}
    _, registry = collector_of(*sources)
    registry.sources = sources  # type: ignore[attr-defined]  # else they would be dropped
    return registry


def test_every_number_of_a_held_age() -> None:
    registry = page_of(HELD)
    assert [value(registry, name, **QUEUE) for name in NUMBERS] == [5.0, 4.5, 200.0, 199.5, 12, 0.5]
    assert by_priority(registry, "demand_rate") == [60, 180, 360]
    assert by_priority(registry, "share") == [1.0, 0.776, 0.005]
    assert by_priority(registry, "waiting") == [0, 3, 1]
    assert state_of(registry) == "coordinated"
    assert value(registry, "lease_calls_total", result="ok") == 5
    assert value(registry, "lease_calls_total", result="error") == 1


def test_where_no_age_is_held_there_are_no_series() -> None:
    source = busy()
    source.held, source.called = {}, {"ok": 0, "error": 0}
    _, registry = collector_of(source)
    names = {*NUMBERS, "demand_rate", "share", "waiting", "lease_state", "lease_calls_total"}
    assert not {name for name, _ in samples_of(generate_latest(registry))} & {f"backpressure_{it}" for it in names}


def test_before_the_first_answer_nothing_is_known_of_others() -> None:
    registry = page_of(HELD._replace(state="new", fleet=None, lease_age=None))
    assert [value(registry, name, **QUEUE) for name in NUMBERS] == [5.0, None, None, None, None, None]
    assert by_priority(registry, "demand_rate") == [None, None, None]
    assert state_of(registry) == "new"


def test_a_process_that_enqueues_nothing_asks_for_nothing_and_knows_nothing() -> None:
    registry = page_of(HELD._replace(idle=True))
    assert [value(registry, name, **QUEUE) for name in NUMBERS] == [5.0, None, None, None, None, None]
    assert by_priority(registry, "demand_rate") == [0, 0, 0]
    assert by_priority(registry, "share") == [None, None, None]


def test_two_controllers_show_the_latest_answer_the_worst_state_and_all_who_wait() -> None:
    assert HELD.fleet is not None
    later = HELD._replace(lease_age=0.25, fleet=HELD.fleet._replace(age=4.0))
    idle = later._replace(lease_age=0.0, fleet=HELD.fleet._replace(age=9.0), idle=True, state="safe")
    for held in ((HELD, later, idle), (idle, later, HELD)):
        registry = page_of(*held)
        assert value(registry, "age_seconds", **QUEUE) == 4.0
        assert by_priority(registry, "waiting") == [0, 9, 3]
        assert state_of(registry) == "safe"
    assert worse(HELD._replace(fleet=None, lease_age=None, state="new"), HELD).fleet == HELD.fleet


FILES = """
import json
from telemetry.test_ages import HELD, SCRAPED
from telemetry.test_metrics import busy
from backpressure._telemetry.metrics import MetricsCollector
one, two = busy(), busy()
collector = MetricsCollector()
collector.add(one)
collector.add(two)
collector.flush()
before = SCRAPED()
one.held = {"email-queue": HELD._replace(idle=True)}
collector.remove(two)
collector.flush()
print(json.dumps([before, SCRAPED()]))
"""


def SCRAPED() -> dict[str, float]:  # noqa: N802 - the program's name for it
    """Return the page of multiprocess mode: what it says of the queue, in words for JSON."""
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    words = ("waiting", "demand_rate", "age_seconds", "lease_state", "lease_calls_total")
    return {
        " ".join([name.removeprefix("backpressure_"), *(text for _, text in sorted(labels))]): number
        for (name, labels), number in samples_of(generate_latest(registry)).items()
        if name.removeprefix("backpressure_") in words
    }


def test_files_of_several_processes_tell_no_demand_that_nobody_has_any_more(tmp_path: Path) -> None:
    before, after = json.loads(python(FILES, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)))
    assert before["waiting medium email-queue"] == 6
    assert before["demand_rate low email-queue"] == 360
    assert before["lease_state email-queue coordinated"] == 1
    assert before["lease_calls_total ok"] == 10
    assert after["waiting medium email-queue"] == 3
    assert after["demand_rate low email-queue"] == 0
    assert after["age_seconds email-queue"] == 0  # a file keeps a series for ever
    assert after["lease_calls_total ok"] == 10


SECOND_US = 1_000_000
ANSWER = Answer(
    now_ms=1,
    ticks=9,
    drain_mjobs_per_s=200_000,
    budget_mjobs_per_s=199_500,
    age_ms=4_500,
    backlog_jobs=900,
    processes=12,
    spare_mjobs_per_s=0,
    is_sampler=False,
    wait_ms=1_000,
    terms=(Terms(MILLION, 5, 0, MILLION, 0, 0, 0),) * 3,
    demand_mjobs_per_s=(60_000, 180_000, 360_000),
    shares_ppm=(MILLION, 776_000, 5_000),
)


class Standing:
    """A budget on a clock that a test moves."""

    def __init__(self) -> None:
        self.now_us = 0
        law = AgeLaw.of(AgeConfig(target=5.0))
        unknown: Any = None
        self.budget = Budget(
            law, "a1", Lease, lambda: self.now_us, bool, unknown, lambda: False, lambda: SECOND_US, lambda *_: 1.0
        )

    def told(self) -> dict[str, Any]:
        return as_dict(standing(self.budget, self.now_us))

    def call(self, answer: Answer | None, seen: BacklogSeen | None = None) -> None:
        self.budget.report(None)
        if answer is None:
            self.budget.fail(seen)
        else:
            self.budget.renew(answer)


def test_health_tells_of_the_last_answer() -> None:
    it = Standing()
    assert it.told() == {
        "state": "new",
        "idle": False,
        "target_age": 5.0,
        **dict.fromkeys(("age", "drain_rate", "granted_rate", "demand_rate", "share", "processes", "lease_age")),
        "waiting": {"high": 0, "medium": 0, "low": 0},
    }
    it.call(ANSWER)
    it.now_us = SECOND_US // 2
    assert it.told() == {
        "state": "coordinated",
        "idle": False,
        "target_age": 5.0,
        "age": 4.5,
        "drain_rate": 200.0,
        "granted_rate": 199.5,
        "demand_rate": {"high": 60.0, "medium": 180.0, "low": 360.0},
        "share": {"high": 1.0, "medium": 0.776, "low": 0.005},
        "processes": 12,
        "waiting": {"high": 0, "medium": 0, "low": 0},
        "lease_age": 0.5,
    }


def test_a_process_is_idle_once_it_has_nothing_to_tell() -> None:
    it = Standing()
    it.call(ANSWER)
    it.now_us = 2 * SECOND_US
    assert not it.budget.is_due()
    assert it.told()["idle"]
    it.budget.arrive(1, None, patient=True, holds=True, delays=False)
    assert not it.told()["idle"]


@pytest.mark.parametrize(("seen", "state"), [(None, "safe"), (BacklogSeen(900, None, 0), "local")])
def test_while_the_store_is_lost_the_last_demand_holds(seen: BacklogSeen | None, state: str) -> None:
    it = Standing()
    it.call(ANSWER)
    for _ in range(6):
        it.now_us += SECOND_US
        it.call(None, seen)
    told = it.told()
    assert state in LEASE_STATES
    assert (told["state"], told["idle"], told["lease_age"]) == (state, False, 6.0)
    assert told["demand_rate"] == {"high": 60.0, "medium": 180.0, "low": 360.0}


def test_a_real_controller_and_a_real_store(
    make_controller: MakeController, redis_client: redis.Redis, redis_url: str
) -> None:
    registry = CollectorRegistry()
    config = BackpressureConfig(
        age=AgeConfig(target=5.0), polling=PollingConfig(busy_interval=0.4, timeout=0.5, interval=0.5, jitter=0)
    )
    provider = RedisStatsProvider(redis_url, ["email-queue"])
    controller = make_controller(provider, config, registry=registry, clock=SystemClock())
    controller.run("high", "email-queue", redis_client.rpush, "email-queue", b"{}")

    def budget() -> dict[str, Any]:
        told: dict[str, Any] = controller.health()["queues"]["email-queue"]["budget"]
        return told

    eventually(lambda: budget()["state"] == "coordinated")
    assert (budget()["target_age"], budget()["processes"]) == (5.0, 1)
    eventually(lambda: (by_priority(registry, "demand_rate")[0] or 0) > 0)
    assert state_of(registry) == "coordinated"
    assert (value(registry, "lease_calls_total", result="ok") or 0) >= 1
    controller.stop()
    assert value(registry, "target_age_seconds", **QUEUE) is None
