"""What samples tell the engine: how long jobs waited; and, when they return, that a circuit may be probed."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, tzinfo
from types import SimpleNamespace
from typing import Any

import pytest

from backpressure import InMemoryStatsProvider, QueueStats, StatsUnavailableError
from backpressure._controller.polling.samples import Samples
from backpressure._model.clock import SystemClock
from backpressure._runtime.foreign import Foreign
from backpressure._telemetry.events import Announcer
from backpressure.providers.kafka.provider import KafkaStatsProvider
from backpressure.providers.postgres.provider import PostgresStatsProvider
from backpressure.providers.prometheus.provider import PrometheusStatsProvider
from backpressure.providers.rabbitmq.provider import RabbitMQStatsProvider
from backpressure.providers.redis.async_provider import AsyncRedisStatsProvider
from backpressure.providers.redis.provider import RedisStatsProvider
from backpressure.providers.sqs.provider import SQSStatsProvider

OUTAGE = StatsUnavailableError("no server", error_type="connect")


class FakeEngine:
    """Keeps the state of circuits, and notes whose were hastened."""

    def __init__(self) -> None:
        self.states = {"jobs": 1, "mail": 0}
        self.hastened: list[str] = []
        self.memory: dict[str, int | None] = {}
        self.oldest_ages_ns: dict[str, int | None] = {}
        self.as_of_ns: dict[str, int] = {}

    def queue_names(self) -> list[str]:
        return list(self.states)

    def breaker(self, queue_name: str, create: bool) -> Any:
        assert not create
        return SimpleNamespace(state=lambda: self.states[queue_name]) if queue_name in self.states else None

    def put_sample(
        self, queue_name: str, backlog: int, as_of_ns: int, oldest_age_ns: int | None, memory_permille: int | None
    ) -> bool:
        self.memory[queue_name] = memory_permille
        self.oldest_ages_ns[queue_name] = oldest_age_ns
        self.as_of_ns[queue_name] = as_of_ns
        return True

    def read_failed(self, queue_name: str) -> None: ...

    def hasten(self, queue_name: str) -> None:
        self.hastened.append(queue_name)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


def make(engine: Any, hastens: bool = True) -> Samples:
    clock = SystemClock()
    return Samples(engine, clock, Announcer(Foreign(), clock), hastens=lambda name: hastens)


def good(*names: str) -> dict[str, QueueStats]:
    return {name: QueueStats(name, 1) for name in names}


@pytest.mark.parametrize("how", ["poll", "queue", "first sight", "first sights"])
def test_the_first_good_read_after_a_failed_one_hastens_an_open_circuit(engine: FakeEngine, how: str) -> None:
    samples = make(engine)
    samples.finish(good("jobs", "mail"), None, 0)
    assert engine.hastened == []
    if how == "poll":
        samples.finish({}, OUTAGE, 0)
    elif how == "queue":
        samples.finish({"jobs": OUTAGE, **good("mail")}, None, 0)
    else:
        names = ["jobs"] if how == "first sight" else ["jobs", "mail"]
        samples.sighted(names, {}, OUTAGE, polled=True)
    for _ in range(2):
        samples.finish(good("jobs", "mail"), None, 0)
    assert engine.hastened == ["jobs"]


def test_what_failed_while_the_circuit_was_closed_says_nothing(engine: FakeEngine) -> None:
    samples = make(engine)
    samples.finish({}, OUTAGE, 0)
    engine.states["mail"] = 1
    samples.finish(good("mail"), None, 0)
    assert engine.hastened == []


def test_nothing_is_hastened_where_that_is_off(engine: FakeEngine) -> None:
    samples = make(engine, hastens=False)
    samples.finish({}, OUTAGE, 0)
    samples.finish(good("jobs"), None, 0)
    assert engine.hastened == []


@pytest.mark.parametrize(
    ("seconds", "nanoseconds"),
    [
        (None, None),
        (0, 0),
        (4.5, 4_500_000_000),
        (10**400, 2**63 - 1),
        (-0.5, None),
        (math.nan, None),
        (math.inf, None),
        ("4.5", None),
    ],
)
def test_the_engine_is_told_how_long_the_oldest_job_waited(
    engine: FakeEngine, seconds: Any, nanoseconds: int | None
) -> None:
    make(engine).finish({"jobs": QueueStats("jobs", 1, oldest_age=seconds)}, None, 0)
    assert engine.oldest_ages_ns == {"jobs": nanoseconds}


class NoTime(tzinfo):
    """Raises when it is asked."""

    def utcoffset(self, _: datetime | None) -> timedelta:
        raise OSError

    def dst(self, _: datetime | None) -> None: ...

    def tzname(self, _: datetime | None) -> None: ...


def test_every_sample_has_its_own_instant(engine: FakeEngine) -> None:
    new = datetime.now(UTC) - timedelta(seconds=1)
    old = new - timedelta(seconds=10)
    instants = {"a": new, "b": new, "c": old, "bad": new.replace(tzinfo=NoTime()), "d": new, "e": old}
    samples = make(engine)
    for _ in range(2):
        samples.finish({name: QueueStats(name, 1, last_updated=at) for name, at in instants.items()}, None, 0)
        known = engine.as_of_ns
        assert known["a"] == known["b"] == known["d"] == known["c"] + 10**10
        assert (known["c"], list(known)) == (known["e"], ["a", "b", "c", "d", "e"])


def test_a_known_queue_is_asked_again_whether_its_sample_is_whole(engine: FakeEngine) -> None:
    samples = make(engine)
    samples.finish(good("jobs", "mail"), None, 0)
    engine.as_of_ns.clear()
    later: dict[str, QueueStats] = {
        "jobs": QueueStats("jobs", -1),
        "mail": QueueStats("mail", 1, delayed_count=-1),
        "new": QueueStats("new", 1, processing_count=7, delayed_count=0),
    }
    samples.finish(later, None, 0)
    assert list(engine.as_of_ns) == ["new"]
    assert samples.errors() == {"invalid_sample": 2}


def test_names_that_a_provider_invents_are_no_matter(engine: FakeEngine) -> None:
    samples = make(engine)
    names: Any = {3: OUTAGE, "\ud800": OUTAGE, "unknown": OUTAGE}
    samples.finish(names, None, 0)
    assert samples._lost == set()


def test_a_child_forgets_what_its_parent_read(engine: FakeEngine) -> None:
    samples = make(engine)
    samples.finish(good("jobs"), None, 0)
    samples.finish({}, OUTAGE, 0)
    samples.forget_all()
    assert (samples.stats, samples.health(), samples.answered_ns, samples._lost) == ({}, "unknown", None, set())


@pytest.mark.parametrize(
    ("provider", "shares"),
    [
        (RedisStatsProvider, True),
        (AsyncRedisStatsProvider, True),
        (RabbitMQStatsProvider, True),
        (PostgresStatsProvider, True),
        (SQSStatsProvider, True),
        (KafkaStatsProvider, True),
        (PrometheusStatsProvider, False),
        (InMemoryStatsProvider, False),
    ],
)
def test_which_providers_read_the_server_that_jobs_are_sent_to(provider: type[Any], shares: bool) -> None:
    assert getattr(provider, "shares_server", False) is shares
