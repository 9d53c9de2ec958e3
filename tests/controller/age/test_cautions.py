"""What stands in the law's way is logged, once for each queue, when it lasts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import BackpressureConfig, BackpressureController, InMemoryStatsProvider
from backpressure._age.protocol import Answer, BacklogSeen, Terms
from backpressure._controller.age import cautions
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

TERMS = Terms(0, 1_000, 0, 0, 0, 0, 0)
TARGET_MS = 5_000


def answer(*, drain: int, demand: tuple[int, int, int], budget: int | None = None) -> Answer:
    return Answer(
        now_ms=1,
        ticks=9,
        drain_mjobs_per_s=drain,
        budget_mjobs_per_s=drain if budget is None else budget,
        age_ms=400,
        backlog_jobs=80,
        processes=1,
        spare_mjobs_per_s=0,
        is_sampler=True,
        wait_ms=50,
        demand_mjobs_per_s=demand,
        terms=(TERMS, TERMS, TERMS),
    )


FITS = answer(drain=200_000, demand=(1_000, 100_000, 0))
FEW = answer(drain=900, demand=(100, 0, 2_000))
FEW_AND_IDLE = answer(drain=900, demand=(100, 0, 200))
HIGH = answer(drain=200_000, demand=(250_000, 0, 0))
NEW, OLD = BacklogSeen(80, None, TARGET_MS), BacklogSeen(80, None, TARGET_MS + 1)


class Said(list[str]):
    """Notes answers of one queue until told otherwise, and keeps what is said of it."""

    def __init__(self) -> None:
        super().__init__()
        self.cautions = cautions.Cautions(self.say)

    def say(self, sentence: str, queue_name: str) -> None:
        assert repr(queue_name) in sentence
        self.append(sentence)

    def note(self, *answers: Answer, seen: BacklogSeen | None = None, queue_name: str = "mail") -> Said:
        for it in answers:
            self.cautions.note(queue_name, TARGET_MS, it, seen)
        return self


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        ((FEW, None), "age.target of queue 'mail' is the time of 4.5 jobs"),
        ((HIGH, None), "HIGH alone asks queue 'mail' for 250 jobs a second, where 200 fit"),
        ((FITS, OLD), "statistics of queue 'mail' are 5.001 s old, more than its age.target of 5 s"),
    ],
)
class TestEach:
    def test_it_is_said_when_it_lasts_and_then_no_more(
        self, shown: tuple[Answer, BacklogSeen | None], sentence: str
    ) -> None:
        given, seen = shown
        said = Said().note(*[given] * 9, seen=seen)
        assert said == []
        said.note(*[given] * 40, seen=seen)
        assert len(said) == 1
        assert said[0].startswith(sentence)

    def test_what_is_over_soon_is_not_said(self, shown: tuple[Answer, BacklogSeen | None], sentence: str) -> None:
        del sentence
        said = Said()
        for _ in range(5):
            said.note(*[shown[0]] * 9, seen=shown[1]).note(FITS, seen=NEW)
        assert said == []

    def test_each_queue_has_its_own(self, shown: tuple[Answer, BacklogSeen | None], sentence: str) -> None:
        del sentence
        said = Said().note(*[shown[0]] * 10, seen=shown[1]).note(*[shown[0]] * 10, seen=shown[1], queue_name="other")
        assert ["'mail'" in it for it in said] == [True, False]

    def test_a_queue_that_comes_anew_is_told_of_anew(
        self, shown: tuple[Answer, BacklogSeen | None], sentence: str
    ) -> None:
        del sentence
        said = Said().note(*[shown[0]] * 10, seen=shown[1])
        said.cautions.forget("mail")
        assert len(said.note(*[shown[0]] * 10, seen=shown[1])) == 2


def test_nothing_is_said_where_all_is_well() -> None:
    said = (
        Said().note(*[FITS] * 20, seen=NEW).note(*[FEW_AND_IDLE] * 20).note(*[answer(drain=0, demand=(0, 0, 1))] * 20)
    )
    assert said == []


def test_answers_between_samples_say_nothing_of_their_age() -> None:
    said = Said()
    for _ in range(10):
        said.note(FITS, seen=OLD).note(FITS, FITS)
    assert len(said) == 1


class Store:
    """Always answers that HIGH alone is too much."""

    def exchange(self, calls: Mapping[str, Any]) -> dict[str, Answer]:
        return dict.fromkeys(calls, HIGH)

    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class Provider(InMemoryStatsProvider):
    """One that keeps budgets."""

    def budget_store(self, queue_name: str) -> Store:
        del queue_name
        return Store()


def test_a_controller_logs_it(
    engine_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("backpressure._controller.age.stores._store", lambda where: where)
    monkeypatch.setattr(cautions, "_LASTS", 2)
    config = BackpressureConfig().evolve(
        {"polling.busy_interval": "100ms", "polling.timeout": "500ms", "age.target": "500ms"}
    )
    with BackpressureController(config, Provider({"mail": 80}), _engine=engine_name) as controller:
        controller.suggest_throttle("high", "mail")
        eventually(lambda: any("HIGH alone" in record.message for record in caplog.records))
    (record,) = (record for record in caplog.records if "HIGH alone" in record.message)
    assert record.levelno == logging.WARNING
    assert record.__dict__["queue_name"] == "mail"
