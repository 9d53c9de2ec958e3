"""A law that is written here alone: with its section, its list entry and nothing else it decides for a controller."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import pytest

from backpressure import (
    BacklogThresholds,
    BacklogWindow,
    BackpressureConfig,
    BackpressureController,
    InMemoryStatsProvider,
    QueueConfig,
    Reason,
    Zone,
)
from backpressure._engine import choice
from backpressure._engine.laws import registry
from backpressure._engine.laws.law import Advice
from backpressure._engine.sample import Sample
from backpressure._engine.settings import EngineSettings
from backpressure._model import units
from backpressure._model.config.fields import Section, duration, optional
from backpressure._model.config.root import queue_table
from backpressure._watch.advice import adviser
from backpressure._watch.why import why
from backpressure.cli._delay_table import delay_table
from backpressure.cli.check import _queues_to_show
from backpressure.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure._engine.laws.law import Law

SECOND = 1_000_000_000


@attrs.frozen(kw_only=True)
class OldestConfig(Section):
    """The law's section. `limit` is the longest that jobs may wait, in seconds."""

    _path = "oldest"

    limit: float = duration(10.0)


@attrs.frozen(kw_only=True)
class ToyQueueConfig(QueueConfig):
    oldest: OldestConfig | None = optional(OldestConfig)


@attrs.frozen(kw_only=True)
class ToyConfig(BackpressureConfig):
    oldest: OldestConfig | None = optional(OldestConfig)
    queues: Mapping[str, ToyQueueConfig] = queue_table(ToyQueueConfig)


@attrs.define
class Ages:
    """What the law keeps of a queue: how old its oldest job is, and was in the sample before."""

    sample: Sample | None = None
    now_ns: int = 0
    before_ns: int = 0

    def look(self, sample: Sample) -> tuple[int, int]:
        if sample is not self.sample:
            self.sample, self.before_ns, self.now_ns = sample, self.now_ns, sample.oldest_age_ns or 0
        return self.now_ns, self.before_ns


@attrs.frozen
class OldestLaw:
    """Sheds LOW while the oldest job waits too long; others wait for as long as it grew older since the last sample."""

    sections: ClassVar[tuple[str, ...]] = ("oldest",)

    limit_ns: int

    @classmethod
    def of(cls, oldest: OldestConfig, **_: Any) -> OldestLaw:
        return cls(units.nanoseconds(oldest.limit))

    def new_state(self) -> Ages:
        return Ages()

    def advise(self, sample: Sample, priority: int, state: Ages) -> Advice:
        now_ns, before_ns = state.look(sample)
        if now_ns <= self.limit_ns:
            return Advice(Zone.GREEN, 0, False, Reason.BACKLOG_GREEN)
        delay_ns = max(0, now_ns - before_ns)
        if priority == 0:
            return Advice(Zone.RED, delay_ns, True, Reason.BACKLOG_RED_SHED)
        return Advice(Zone.YELLOW, delay_ns, False, Reason.BACKLOG_YELLOW)

    def foresee(self, sample: Sample, priority: int, state: Ages) -> Advice:
        return self.advise(sample, priority, attrs.evolve(state))

    def explain(self, sample: Sample, priority: int, state: Ages) -> str:
        advice = self.foresee(sample, priority, state)
        told = f"the oldest job waits {units.duration((sample.oldest_age_ns or 0) / 1e9)}"
        limit = f"the limit of {units.duration(self.limit_ns / 1e9)}"
        if advice.zone is Zone.GREEN:
            return f"{told}, within {limit}: nothing to wait for"
        ending = "low jobs are shed" if advice.shed else f"wait {units.duration(advice.delay_ns / 1e9)}"
        return f"{told}, above {limit}: {ending}"

    def turning_points(self) -> list[Sample]:
        return [Sample(0, 0, age_ns) for age_ns in (0, self.limit_ns, self.limit_ns + SECOND)]


@pytest.fixture(autouse=True)
def _listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LAWS", (OldestLaw, *registry.LAWS))
    monkeypatch.setattr(choice, "ENGINE", "pure")  # it has no half in Rust


CONFIG = ToyConfig.from_mapping({"polling": {"enabled": False}, "queues": {"mail": {"oldest": {"limit": "10s"}}}})


@attrs.frozen
class Shop:
    controller: BackpressureController
    provider: InMemoryStatsProvider
    clock: ManualClock

    def put(self, queue_name: str, age: float | None, backlog: int = 0) -> None:
        """Let the controller read a queue whose oldest job has this age."""
        self.provider.set(queue_name, backlog, oldest_age=age)
        self.controller.refresh(queue_name)

    def told(self, priority: str, queue_name: str) -> tuple[str, float | None, str | None]:
        decision = self.controller.suggest_throttle(priority, queue_name)
        return decision.reason, None if decision.should_shed else decision.delay, decision.zone


@pytest.fixture
def shop() -> Iterator[Shop]:
    clock, provider = ManualClock(), InMemoryStatsProvider()
    with BackpressureController(CONFIG, provider, clock=clock, _engine="pure") as controller:
        yield Shop(controller, provider, clock)


def test_the_law_decides_by_the_age_and_others_by_theirs(shop: Shop) -> None:
    for name in ("mail", "other"):
        shop.put(name, age=12, backlog=501)
    assert shop.told("low", "mail") == ("backlog_red_shed", None, "red")
    assert shop.told("medium", "mail") == ("backlog_yellow", 12.0, "yellow")
    assert shop.told("medium", "other")[0] == "backlog_yellow"
    assert shop.told("low", "other") == ("backlog_red", 0.7635, "red")
    shop.put("mail", age=10, backlog=100_000)
    assert shop.told("low", "mail") == ("backlog_green", 0, "green")


def test_its_answers_lie_ready_and_are_counted(shop: Shop) -> None:
    shop.put("mail", age=1)
    decisions = {id(shop.controller.suggest_throttle("low", "mail")) for _ in range(3)}
    assert len(decisions) == 1
    assert shop.controller.health()["cache_hit_rate"] == pytest.approx(2 / 3)


def test_its_last_advice_moves_to_the_fallback(shop: Shop) -> None:
    shop.put("mail", age=12)
    shop.provider.fail_with(TimeoutError("an outage"))
    shop.clock.advance(CONFIG.polling.cache_ttl + 150)  # half of graceful_degrade
    assert shop.told("medium", "mail") == ("stats_stale", (12 + 0.5) / 2, "yellow")


def test_state_is_kept_for_each_queue(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Ages] = []

    def make(_: OldestLaw) -> Ages:
        made.append(Ages())
        return made[-1]

    monkeypatch.setattr(OldestLaw, "new_state", make)
    own = {name: ToyQueueConfig(oldest=OldestConfig()) for name in ("mail", "news")}
    shop.controller.reconfigure(attrs.evolve(CONFIG, queues=own))
    shop.put("mail", age=11)
    assert shop.told("high", "mail")[1] == 11.0
    shop.put("mail", age=13)
    shop.put("news", age=13)
    assert shop.told("high", "mail")[1] == 2.0
    assert shop.told("medium", "mail")[1] == 2.0, "a sample is one, whoever asks"
    assert shop.told("high", "news")[1] == 13.0
    assert len(made) == 2


def test_a_new_limit_leaves_the_state_and_another_law_ends_it(shop: Shop) -> None:
    shop.put("mail", age=11)
    shop.told("high", "mail")
    stricter = {"mail": ToyQueueConfig(oldest=OldestConfig(limit=5))}
    shop.controller.reconfigure(attrs.evolve(CONFIG, queues=stricter))
    shop.put("mail", age=14)
    assert shop.told("high", "mail")[1] == 3.0
    shop.controller.reconfigure(attrs.evolve(CONFIG, queues={}))
    assert shop.told("high", "mail") == ("backlog_green", 0, "green")
    shop.controller.reconfigure(CONFIG)
    assert shop.told("high", "mail")[1] == 14.0, "it is new and has seen no sample before"


def test_threads_that_come_first_share_one_state(shop: Shop) -> None:
    barrier = Barrier(8)
    shop.put("mail", age=1)
    queue, law = shop.controller._engine._queues["mail"], registry.law_of(CONFIG, "mail")  # type: ignore[attr-defined]

    def make(_: int) -> Any:
        barrier.wait(10)
        return queue.state_of(law)

    with ThreadPoolExecutor(8) as pool:
        assert len({id(state) for state in pool.map(make, range(8))}) == 1


def test_an_engine_without_the_law_refuses_it(engine_modules: Mapping[str, object]) -> None:
    if "native" not in engine_modules:
        pytest.skip("the native engine is not wanted in this run")
    with pytest.raises(NotImplementedError, match="the native engine has no OldestLaw: set BACKPRESSURE_ENGINE=pure"):
        BackpressureController(CONFIG, InMemoryStatsProvider(), _engine="native")


def test_an_engine_that_refuses_a_law_leaves_all_as_it_was(engine_modules: Mapping[str, object]) -> None:
    if "native" not in engine_modules:
        pytest.skip("the native engine is not wanted in this run")
    with BackpressureController(None, InMemoryStatsProvider({"mail": 0}), _engine="native") as controller:
        with pytest.raises(NotImplementedError):
            controller.reconfigure(attrs.evolve(CONFIG, mode="observe"))
        assert controller.health()["mode"] == "enforce"
        assert controller.suggest_throttle("low", "mail").reason is Reason.BACKLOG_GREEN


def test_threads_decide_by_one_law_or_the_other_while_it_changes(shop: Shop) -> None:
    shop.put("mail", age=12, backlog=501)
    other, ended = attrs.evolve(CONFIG, queues={}), Event()

    def decide() -> set[tuple[str, float | None, str | None]]:
        told = set()
        while not ended.is_set():
            told |= {shop.told("low", "mail"), shop.told("medium", "mail")}
        return told

    with ThreadPoolExecutor(4) as pool:
        deciders = [pool.submit(decide) for _ in range(4)]
        for _ in range(200):
            shop.controller.reconfigure(other)
            shop.controller.reconfigure(CONFIG)
        ended.set()
        told = set().union(*(decider.result() for decider in deciders))
    assert told <= {
        ("backlog_red_shed", None, "red"),
        ("backlog_yellow", 12.0, "yellow"),
        ("backlog_yellow", 0.0, "yellow"),  # so many jobs came that it was read again, as old as before
        ("backlog_red", 0.7635, "red"),
        ("backlog_yellow", 0.010326666, "yellow"),
    }


WINDOW = BacklogWindow(green_max=1, yellow_max=2, red_max=3)


@pytest.mark.parametrize(
    ("shared", "own", "law"),
    [
        (None, None, "ThreeZoneLaw"),
        (None, ToyQueueConfig(oldest=OldestConfig(limit=3)), OldestLaw(3 * SECOND)),
        (OldestConfig(limit=4), None, OldestLaw(4 * SECOND)),
        (OldestConfig(limit=4), ToyQueueConfig(), OldestLaw(4 * SECOND)),
        (OldestConfig(limit=4), ToyQueueConfig(oldest=OldestConfig(limit=3)), OldestLaw(3 * SECOND)),
        (OldestConfig(limit=4), ToyQueueConfig(thresholds=BacklogThresholds(low_priority=WINDOW)), "ThreeZoneLaw"),
    ],
)
def test_a_queues_own_sections_choose_its_law_before_shared_ones(
    shared: OldestConfig | None, own: ToyQueueConfig | None, law: Law | str
) -> None:
    config = ToyConfig(oldest=shared, queues={} if own is None else {"mail": own})
    found = EngineSettings.of(config).law_of("mail")
    assert type(found).__name__ == law if isinstance(law, str) else found == law


@pytest.mark.parametrize(
    ("age", "priority", "sentence"),
    [
        (10, 0, "the oldest job waits 10 s, within the limit of 10 s: nothing to wait for"),
        (12, 0, "the oldest job waits 12 s, above the limit of 10 s: low jobs are shed"),
        (12, 2, "the oldest job waits 12 s, above the limit of 10 s: wait 12 s"),
    ],
)
def test_the_command_line_says_what_the_law_says(age: int, priority: int, sentence: str) -> None:
    sample = Sample(7, 0, age * SECOND)
    with adviser(CONFIG, "mail") as advise:
        told = {one.value: why(decision, CONFIG, sample) for one, decision in advise(sample).items()}
    assert told[priority] == sentence


def test_the_delay_table_has_the_laws_own_rows() -> None:
    assert _queues_to_show(CONFIG, None) == [None, "mail"]
    table = delay_table(CONFIG, "mail")
    rows = table.to_dict()["rows"]
    assert [(row["backlog"], row["oldest_age"]) for row in rows] == [(0, 0.0), (0, 10.0), (0, 11.0)]
    assert [row["low"]["reason"] for row in rows] == ["backlog_green", "backlog_green", "backlog_red_shed"]
    assert [str(column.header) for column in table.render().columns][:2] == ["backlog", "oldest"]
