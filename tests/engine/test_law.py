"""The throttle law of both engines, held against golden vectors, an oracle in exact fractions and its own promises."""

from __future__ import annotations

import json
import runpy
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpressure._engine.laws.three_zone import ThreeZoneLaw
from backpressure._engine.sample import Sample
from backpressure._model.config.three_zone import BacklogThresholds, BacklogWindow, CurveConfig
from backpressure._model.stats import MAX_BACKLOG
from backpressure._model.vocabulary import Reason, Zone

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent.parent
VECTORS = ROOT / "tests" / "vectors" / "law.json"
MAKER = runpy.run_path(str(ROOT / "scripts" / "make_law_vectors.py"))
oracle = MAKER["advise"]

GREEN, YELLOW, RED = 0, 1, 2
LOW, MEDIUM, HIGH = 0, 1, 2
MS = 1_000_000
HOUR = 3_600_000 * MS
DEFAULT = ThreeZoneLaw.of(BacklogThresholds(), CurveConfig())

Advice = tuple[int, int, bool]


def ask(engine: Any, law: ThreeZoneLaw, priority: int, backlog: int, memory_permille: int | None = None) -> Advice:
    if engine.__name__ == "backpressure._native":
        zone, delay_ns, shed = engine.ThreeZoneLaw(law).advise(priority, backlog, memory_permille)
        return zone, delay_ns, shed
    advice = law.advise(Sample(backlog, 0, None, memory_permille), priority, None)
    shed_by = Reason.BACKLOG_RED_SHED if memory_permille is None else Reason.MEMORY
    assert advice.reason is (shed_by if advice.shed else Reason(f"backlog_{advice.zone}"))
    return tuple(Zone).index(advice.zone), advice.delay_ns, advice.shed


def settings_of(law: Mapping[str, Any]) -> ThreeZoneLaw:
    triples = {name: tuple(tuple(row) for row in law[name]) for name in ("windows", "scales")}
    return ThreeZoneLaw(**{**law, **triples})


def plain(law: ThreeZoneLaw) -> dict[str, Any]:
    return {name: getattr(law, name) for name in MAKER["DEFAULT"]}


def test_vectors_are_what_the_script_writes() -> None:
    assert VECTORS.read_text("utf-8") == MAKER["text"](), "run scripts/make_law_vectors.py"


def test_vectors_are_many() -> None:
    assert sum(len(entry["cases"]) for entry in json.loads(VECTORS.read_text("utf-8"))) >= 2_000


def test_golden_vectors(engine_module: Any) -> None:
    for entry in json.loads(VECTORS.read_text("utf-8")):
        law = settings_of(entry["law"])
        for priority, backlog, *expected in entry["cases"]:
            assert [*ask(engine_module, law, priority, backlog)] == expected, (entry["law"], priority, backlog)


@pytest.mark.parametrize(
    ("priority", "backlog", "advice"),
    [
        (LOW, 100, (GREEN, 0, False)),
        (LOW, 101, (YELLOW, 16_837_500, False)),
        (LOW, 500, (YELLOW, 750 * MS, False)),
        (LOW, 900, (RED, 6_150 * MS, False)),
        (LOW, 901, (RED, 6_163_500_000, True)),
        (LOW, 1_000, (RED, 7_500 * MS, True)),
        (LOW, MAX_BACKLOG, (RED, 7_500 * MS, True)),
        (MEDIUM, 500, (GREEN, 0, False)),
        (MEDIUM, 2_000, (YELLOW, 500 * MS, False)),
        (MEDIUM, 5_000, (RED, 5_000 * MS, False)),
        (MEDIUM, MAX_BACKLOG, (RED, 5_000 * MS, False)),
        (HIGH, 1_000, (GREEN, 0, False)),
        (HIGH, 5_000, (YELLOW, 250 * MS, False)),
        (HIGH, 5_001, (RED, 250_450_000, False)),
        (HIGH, MAX_BACKLOG, (RED, 2_500 * MS, False)),
    ],
)
def test_documented_maxima(engine_module: Any, priority: int, backlog: int, advice: Advice) -> None:
    assert ask(engine_module, DEFAULT, priority, backlog) == advice


def test_without_scaled_yellow_high_waits_less_just_above_the_limit_than_just_below(engine_module: Any) -> None:
    law = ThreeZoneLaw.of(BacklogThresholds(), CurveConfig(scale_yellow=False))
    assert ask(engine_module, law, HIGH, 5_000) == (YELLOW, 500 * MS, False)
    assert ask(engine_module, law, HIGH, 5_001) == (RED, 250_450_000, False)
    assert ask(engine_module, law, LOW, 500) == (YELLOW, 500 * MS, False)


EXPLAINED = ThreeZoneLaw(
    windows=((10, 20, 120), (1_000, 2_000, 4_000), (1_000, 9_000, 10_000)),
    yellow_min_ns=10 * MS,
    yellow_max_ns=510 * MS,
    red_max_ns=5_510 * MS,
    scales=((3, 2), (1, 1), (1, 2)),
    shed_permille=805,
    scale_yellow=True,
)
UNSCALED = attrs.evolve(EXPLAINED, scale_yellow=False)


@pytest.mark.parametrize(
    ("law", "priority", "backlog", "sentence"),
    [
        (EXPLAINED, MEDIUM, 1_000, "1,000 is not above green_max (1,000): nothing to wait for"),
        (
            EXPLAINED,
            HIGH,
            3_000,
            (
                "3,000 lies 25 % of the way from green_max (1,000) to yellow_max (9,000): "
                "(10 ms + 500 ms × 2,000/8,000) × 1/2 = 67.5 ms"
            ),
        ),
        (
            UNSCALED,
            HIGH,
            3_000,
            (
                "3,000 lies 25 % of the way from green_max (1,000) to yellow_max (9,000): "
                "10 ms + 500 ms × 2,000/8,000 = 135 ms, not scaled"
            ),
        ),
        (
            EXPLAINED,
            MEDIUM,
            2_333,
            (
                "2,333 lies 16.6 % of the way from yellow_max (2,000) to red_max (4,000): "
                "(510 ms + 5 s × 333/2,000) × 1 = 1.343 s"
            ),
        ),
        (EXPLAINED, HIGH, 10_000, "10,000 has reached red_max (10,000), where delays end: 5.51 s × 1/2 = 2.755 s"),
        (
            EXPLAINED,
            LOW,
            1_101,
            (
                "1,101 is above 100, which is 80.5 % of the way from yellow_max (20) to red_max (120): "
                "low jobs are shed (else it would wait 8.265 s)"
            ),
        ),
    ],
)
def test_it_explains_itself(law: ThreeZoneLaw, priority: int, backlog: int, sentence: str) -> None:
    assert law.explain(Sample(backlog, 0, None), priority, None) == sentence


def test_its_turning_points_are_its_bounds_and_what_lies_between() -> None:
    samples = attrs.evolve(EXPLAINED, windows=((10, 21, 120), *EXPLAINED.windows[1:])).turning_points()
    assert [sample.backlog for sample in samples] == [
        *(0, 10, 15, 21, 70, 100, 101, 120),
        *(1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 9_000, 9_500, 10_000),
    ]
    assert {(sample.as_of_ns, sample.oldest_age_ns) for sample in samples} == {(0, None)}


# Small numbers crowd the bounds together, large ones reach for overflow.
_backlogs = st.one_of(st.integers(0, 50), st.integers(0, 20_000), st.integers(0, MAX_BACKLOG))
_windows = (
    st.lists(_backlogs, min_size=3, max_size=3, unique=True)
    .map(sorted)
    .map(lambda bounds: BacklogWindow(green_max=bounds[0], yellow_max=bounds[1], red_max=bounds[2]))
)
_delays = st.one_of(st.integers(0, 20), st.integers(0, 5_000 * MS), st.integers(0, HOUR))
_scales = st.fractions(Fraction(1, 1_000_000), 1_000, max_denominator=1_000_000)


def test_without_memory_low_is_shed_then_medium_and_never_high(engine_module: Any) -> None:
    law = attrs.evolve(DEFAULT, memory_permille=(850, 900))
    told = {
        used: [ask(engine_module, law, priority, 7, used) for priority in (LOW, MEDIUM, HIGH)]
        for used in (None, 0, 849, 850, 899, 900, 1_000)
    }
    goes = (GREEN, 0, False)
    low, medium = (RED, 7_500 * MS, True), (RED, 5_000 * MS, True)
    assert all(told[used] == [goes] * 3 for used in (None, 0, 849))
    assert all(told[used] == [low, goes, goes] for used in (850, 899))
    assert all(told[used] == [low, medium, goes] for used in (900, 1_000))
    assert ask(engine_module, DEFAULT, LOW, 7, 1_000) == goes, "no bounds, no refusal"


def test_it_explains_a_lack_of_memory() -> None:
    law = attrs.evolve(DEFAULT, memory_permille=(850, 905))
    sentences = [law.explain(Sample(7, 0, None, 912), priority, None) for priority in (LOW, MEDIUM, HIGH)]
    assert sentences == [
        "the queue's server uses 91.2 % of its memory, and from 85 % on low jobs are shed, whatever the backlog",
        "the queue's server uses 91.2 % of its memory, and from 90.5 % on medium jobs are shed, whatever the backlog",
        "7 is not above green_max (1,000): nothing to wait for",
    ]


@st.composite
def laws(draw: st.DrawFn, *, scaled: bool = False, one_window: bool = False) -> ThreeZoneLaw:
    windows = [draw(_windows)] * 3 if one_window else [draw(_windows) for _ in range(3)]
    delays = sorted(draw(st.lists(_delays, min_size=3, max_size=3)))
    high, medium, low = sorted(draw(st.lists(_scales, min_size=3, max_size=3)))
    return ThreeZoneLaw(
        windows=tuple((window.green_max, window.yellow_max, window.red_max) for window in windows),
        yellow_min_ns=delays[0],
        yellow_max_ns=delays[1],
        red_max_ns=delays[2],
        scales=tuple(scale.as_integer_ratio() for scale in (low, medium, high)),
        shed_permille=draw(st.integers(0, 1_000)),
        scale_yellow=scaled or draw(st.booleans()),
    )


@st.composite
def questions(draw: st.DrawFn, law: ThreeZoneLaw, priority: int) -> int:
    """Any backlog, or one close to a bound of the law's own."""
    green_max, yellow_max, red_max = law.windows[priority]
    shed_above = yellow_max + law.shed_permille * (red_max - yellow_max) // 1_000
    near = draw(st.sampled_from([green_max, yellow_max, shed_above, red_max])) + draw(st.integers(-2, 2))
    return draw(st.one_of(_backlogs, st.just(min(max(near, 0), MAX_BACKLOG))))


_priorities = st.sampled_from([LOW, MEDIUM, HIGH])


@given(st.data(), laws(), _priorities)
def test_equals_the_oracle(engine_module: Any, data: st.DataObject, law: ThreeZoneLaw, priority: int) -> None:
    backlog = data.draw(questions(law, priority))
    assert ask(engine_module, law, priority, backlog) == oracle(plain(law), priority, backlog)


@given(st.data(), laws(), _priorities)
def test_engines_agree(
    engine_modules: Mapping[str, Any], data: st.DataObject, law: ThreeZoneLaw, priority: int
) -> None:
    backlog = data.draw(questions(law, priority))
    assert len({ask(engine, law, priority, backlog) for engine in engine_modules.values()}) == 1


@given(st.data(), laws(scaled=True), _priorities)
def test_delay_and_shedding_never_fall_as_the_backlog_grows(
    engine_module: Any, data: st.DataObject, law: ThreeZoneLaw, priority: int
) -> None:
    less, more = sorted(data.draw(questions(law, priority)) for _ in range(2))
    before, after = (ask(engine_module, law, priority, backlog) for backlog in (less, more))
    assert before[0] <= after[0]
    assert before[1] <= after[1]
    assert before[2] <= after[2]


@given(st.data(), laws(one_window=True))
def test_a_higher_priority_never_waits_longer_on_the_same_window(
    engine_module: Any, data: st.DataObject, law: ThreeZoneLaw
) -> None:
    backlog = data.draw(questions(law, LOW))
    low, medium, high = (ask(engine_module, law, priority, backlog) for priority in (LOW, MEDIUM, HIGH))
    assert low[0] == medium[0] == high[0]
    assert high[1] <= medium[1] <= low[1]


@given(st.data(), laws(), st.sampled_from([MEDIUM, HIGH]))
def test_only_low_is_ever_shed(engine_module: Any, data: st.DataObject, law: ThreeZoneLaw, priority: int) -> None:
    assert not ask(engine_module, law, priority, data.draw(questions(law, priority)))[2]
