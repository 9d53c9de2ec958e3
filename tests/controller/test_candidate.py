"""A candidate policy beside the real one: what it would have done with what was offered, on both engines."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    ConfigurationError,
    InMemoryStatsProvider,
    PollingConfig,
)
from backpressure._controller.candidate import Candidate, Compared, candidate_law
from backpressure._engine.sample import Sample
from backpressure._engine.totals import REASONS, Totals
from backpressure._model.vocabulary import Priority, Reason
from support.controller_fixtures import at_rest, eventually

if TYPE_CHECKING:
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

POLLING = PollingConfig(interval=5, busy_interval=5, jitter=0)
#: LOW is shed above 18 100 instead of 900; MEDIUM is green up to 1 500 instead of 500.
WIDER = {
    "thresholds": {"low_priority": {"red_max": 22_500}, "medium_priority": {"green_max": 1_500}},
}
CONFIG = BackpressureConfig(polling=POLLING, candidate=WIDER)


def poll(controller: BackpressureController, clock: ManualClock) -> None:
    """Let one more poll end."""
    polls = sum(controller._poller.samples.durations.counts)
    eventually(lambda: at_rest(controller, clock, polls))
    clock.advance(5)
    eventually(lambda: at_rest(controller, clock, polls + 1))


def told(controller: BackpressureController, queue_name: str) -> dict[str, Compared]:
    found = controller.health()["queues"][queue_name]["candidate"]
    return {
        priority: Compared._make(of[name] for name in Compared._fields)
        for priority, of in found.items()
        if of["offers"]
    }


def test_what_was_offered_is_judged_at_the_backlog_that_was_in_force(
    make_controller: MakeController, provider: InMemoryStatsProvider, clock: ManualClock
) -> None:
    registry = CollectorRegistry()
    controller = make_controller(config=CONFIG, registry=registry)
    provider.set("mail", 1_250)
    for _ in range(7):
        controller.suggest_throttle("low", "mail")
        controller.suggest_throttle("medium", "mail")
    provider.set("mail", 100_000)  # what is offered from the next poll on is judged by this
    poll(controller, clock)
    assert told(controller, "mail") == {"low": Compared(7, 7, 0, 0, 7), "medium": Compared(7, 0, 0, 7, 0)}
    for _ in range(3):
        controller.suggest_throttle("low", "mail")
    poll(controller, clock)
    assert told(controller, "mail")["low"] == Compared(10, 7, 3, 0, 10)

    def value(name: str, **labels: str) -> float | None:
        family = f"backpressure_candidate_{name}_total"
        return registry.get_sample_value(family, {"queue": "mail", "priority": "low", **labels})

    assert value("offers") == 10
    assert (value("delays", policy="candidate"), value("delays", policy="real")) == (7, 0)
    assert (value("sheds", policy="candidate"), value("sheds", policy="real")) == (3, 10)
    now = controller.health()["queues"]["mail"]["candidate"]
    assert now["low"]["advice"] == {"zone": "red", "delay": None, "should_shed": True, "reason": "backlog_red_shed"}
    assert now["medium"]["advice"]["delay"] == 5.0


def test_what_is_offered_last_is_judged_when_it_stops(make_controller: MakeController) -> None:
    controller = make_controller(config=CONFIG)
    controller.suggest_throttle("low", "full")
    controller.stop()
    assert controller._candidate.counts()["full", 0] == Compared(1, 0, 1, 0, 1)


def test_in_observe_mode_both_are_what_enforcing_would_do(make_controller: MakeController, clock: ManualClock) -> None:
    controller = make_controller(config=CONFIG.evolve({"mode": "observe"}))
    for _ in range(4):
        controller.suggest_throttle("medium", "yellow")
    poll(controller, clock)
    assert told(controller, "yellow") == {"medium": Compared(4, 0, 0, 4, 0)}


def test_what_no_law_decided_is_not_judged(make_controller: MakeController, clock: ManualClock) -> None:
    controller = make_controller(config=CONFIG)
    controller.circuit("red").force_open()
    controller.suggest_throttle("low", "red")
    controller.set_manual_override(True)
    controller.suggest_throttle("low", "yellow")
    poll(controller, clock)
    assert told(controller, "yellow") == {}
    assert told(controller, "red") == {}


def test_another_candidate_begins_anew_and_counters_never_fall(make_controller: MakeController) -> None:
    controller = make_controller(config=CONFIG)
    controller.suggest_throttle("low", "red")
    controller.reconfigure(CONFIG.evolve({"candidate.thresholds.low_priority.red_max": 3_600}))
    assert told(controller, "red") == {}
    assert controller._candidate.counts()["red", 0] == Compared(1, 1, 0, 0, 1)
    controller.suggest_throttle("low", "red")
    controller._candidate.settle()
    assert told(controller, "red") == {"low": Compared(1, 0, 1, 0, 1)}
    assert controller._candidate.counts()["red", 0] == Compared(2, 1, 1, 0, 2)
    controller.reconfigure(CONFIG.evolve({"candidate": "none"}))
    assert controller.health()["queues"]["red"]["candidate"] is None
    controller.suggest_throttle("low", "red")  # judged by none
    controller.reconfigure(CONFIG)
    controller._candidate.settle()
    assert told(controller, "red") == {}
    assert controller._candidate.counts()["red", 0] == Compared(2, 1, 1, 0, 2)


def test_by_queue(make_controller: MakeController, clock: ManualClock) -> None:
    tables = {"queues": {"r*": {"curve": {"shed_permille": 1_000}}}}
    controller = make_controller(config=BackpressureConfig(polling=POLLING, candidate=tables))
    controller.suggest_throttle("low", "red")
    controller.suggest_throttle("low", "full")
    poll(controller, clock)
    assert told(controller, "red")["low"] == Compared(1, 1, 0, 0, 1)
    assert told(controller, "full")["low"] == Compared(1, 0, 1, 0, 1)


def test_a_queue_whose_age_it_would_hold_is_not_judged() -> None:
    config = BackpressureConfig.from_mapping(
        {"candidate": {"queues": {"b": {"age": {"target": "none"}}}}, "age": {"target": 5}}
    )
    candidate = config.with_candidate()
    assert candidate is not None
    assert candidate_law(candidate, "a") is None
    assert candidate_law(candidate, "b") is not None


class Counting:
    """An engine that only counts, as the test sets it."""

    def __init__(self) -> None:
        self.offered: dict[tuple[str, int], dict[Reason, int]] = {}
        self.backlogs: dict[str, int] = {}

    def totals(self) -> dict[tuple[str, int], Totals]:
        return {
            key: Totals(reasons=tuple(counts.get(reason, 0) for reason in REASONS))
            for key, counts in self.offered.items()
        }

    def sample(self, name: str) -> tuple[int, int, None, int, None] | None:
        return (self.backlogs[name], 0, None, 0, None) if name in self.backlogs else None


def test_an_evicted_queue_counts_among_the_others_and_begins_anew() -> None:
    engine: Any = Counting()
    candidate = Candidate(engine, CONFIG)
    engine.backlogs["a"] = 1_250
    for _ in range(2):
        engine.offered["a", 0] = {Reason.BACKLOG_RED_SHED: 5}
        candidate.settle()
        assert candidate.counts()["a", 0] == Compared(5, 5, 0, 0, 5)
        del engine.offered["a", 0]
        candidate.forget("a")
    candidate.settle()
    assert candidate.counts() == {("__other__", 0): Compared(10, 10, 0, 0, 10)}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(Priority), st.integers(0, 30_000), st.integers(0, 9))))
def test_it_says_what_its_law_says_of_each_offer(steps: list[tuple[str, Priority, int, int]]) -> None:
    engine: Any = Counting()
    candidate = Candidate(engine, CONFIG)
    second = CONFIG.with_candidate()
    assert second is not None
    expected: dict[tuple[str, int], Compared] = {}
    for name, priority, backlog, offers in steps:
        engine.backlogs[name] = backlog
        key = name, priority.value
        counts = engine.offered.setdefault(key, {})
        counts[Reason.BACKLOG_GREEN] = counts.get(Reason.BACKLOG_GREEN, 0) + offers
        candidate.settle()
        law = candidate_law(second, name)
        assert law is not None
        advice = law.advise(Sample(backlog, 0, None), priority.value, None)
        delays = 0 if advice.shed or not advice.delay_ns else offers
        more = Compared(offers, delays, offers if advice.shed else 0)
        if offers:
            expected[key] = expected.get(key, Compared()).plus(more)
    assert candidate.counts() == expected


def test_a_forked_child_leaves_to_its_parent_what_was_offered_before(make_controller: MakeController) -> None:
    controller = make_controller(config=CONFIG)
    controller.suggest_throttle("low", "red")
    controller._poller.after_fork(in_child=True)
    controller._candidate.settle()
    assert controller._candidate.counts() == {}


def test_in_asyncio(engine_name: str) -> None:
    async def main() -> dict[tuple[str, int], Compared]:
        provider = InMemoryStatsProvider({"mail": 1_250})
        controller = AsyncBackpressureController(CONFIG, provider, registry=CollectorRegistry(), _engine=engine_name)
        async with controller:
            await controller.suggest_throttle("low", "mail")
        return controller._candidate.counts()

    assert asyncio.run(main()) == {("mail", 0): Compared(1, 1, 0, 0, 1)}


def test_it_is_refused_where_nothing_reads_in_the_background() -> None:
    class Bound:
        loop_bound = True

        async def get_queue_stats(self, queue_name: str) -> Any: ...
        async def get_all_queue_stats(self) -> Any: ...

    with pytest.raises(ConfigurationError, match="candidate needs a provider that is read in the background"):
        AsyncBackpressureController(CONFIG, Bound())
