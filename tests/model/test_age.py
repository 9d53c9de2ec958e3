"""The section of ages to be held: what follows from it, how it is loaded, and which pairs are refused or doubted."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from backpressure import (
    AgeConfig,
    BackpressureConfig,
    BackpressureController,
    ConfigurationError,
    CurveConfig,
    InMemoryStatsProvider,
    PollingConfig,
    QueueConfig,
)
from backpressure._model.budget import BudgetSettings, budget_of
from backpressure._model.config.doubts import doubts
from backpressure.testing import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

FIVE = AgeConfig(target=5)


def load(tables: dict[str, Any]) -> BackpressureConfig:
    return BackpressureConfig.from_mapping(tables)


def test_without_a_target_nothing_follows() -> None:
    assert AgeConfig() == AgeConfig(target=None, medium="wait", low_floor=0.005, store=None, safe_rate=0, calls=2_000)
    assert budget_of(AgeConfig()) is None


def test_all_that_follows_comes_from_one_place() -> None:
    age = AgeConfig(target=20, low_floor=0.25, calls=40)
    budget = budget_of(age)
    assert budget == BudgetSettings.of(20.0, low_floor=0.25, calls=40)
    assert (budget.target_ms, budget.low_floor_permille, budget.calls_per_second) == (20_000, 250, 40)
    assert (budget.oldest_sample_ms, budget.patient_ms) == (600_000, 2_000)


@pytest.mark.parametrize("milliseconds", [500, 501, 999, 4_999, 5_000, 3_600_000])
def test_a_target_in_text_is_whole_milliseconds(milliseconds: int) -> None:
    budget = budget_of(AgeConfig(target=f"{milliseconds}ms"))  # type: ignore[arg-type]
    assert budget is not None
    assert budget.target_ms == milliseconds
    assert 100 <= budget.tick_ms <= 1_000


@pytest.mark.parametrize("bad", ["", "None", "no", "5"])
def test_only_one_text_stands_for_none(bad: str) -> None:
    assert AgeConfig(target="none", store="none") == AgeConfig()  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"age\.target is .*: give seconds, a timedelta or a string"):
        AgeConfig(target=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["medium", "low_floor", "safe_rate", "calls", "tenant_weights"])
def test_no_other_setting_can_be_none(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"age\.{name} is None: give "):
        AgeConfig(**{name: None})  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["redis://:hunter2@host/0", "redis://u:hunter2@host", "redis://host?password=hunter2"])
def test_a_password_has_no_place_in_it(url: str) -> None:
    for build in (lambda: AgeConfig(store=url), lambda: load({"queues": {"mail": {"age": {"store": url}}}})):
        with pytest.raises(ConfigurationError, match="without a password") as caught:
            build()
        assert "hunter2" not in str(caught.value)


IN_FILES: dict[str, Callable[[Path], BackpressureConfig]] = {
    "mapping": lambda _: load({"age": {"target": "5s", "medium": "shed"}}),
    "environment": lambda _: BackpressureConfig.from_env(
        {"BACKPRESSURE_AGE__TARGET": "5s", "BACKPRESSURE_AGE__MEDIUM": "shed"}
    ),
    "django": lambda _: BackpressureConfig.from_django({"AGE": {"TARGET": "5s", "MEDIUM": "shed"}}),
    "toml": lambda folder: written(folder / "a.toml", '[age]\ntarget = "5s"\nmedium = "shed"'),
    "json": lambda folder: written(folder / "a.json", '{"age": {"target": 5, "medium": "shed"}}'),
    "evolve": lambda _: BackpressureConfig().evolve({"age.target": 5, "age.medium": "shed"}),
}


def written(file: Path, text: str) -> BackpressureConfig:
    file.write_text(text, "utf-8")
    return BackpressureConfig.from_file(file)


@pytest.mark.parametrize("way", IN_FILES)
def test_every_way_to_load_it(way: str, tmp_path: Path) -> None:
    assert IN_FILES[way](tmp_path) == BackpressureConfig(age=AgeConfig(target=5, medium="shed"))


def test_the_most_specific_section_holds() -> None:
    config = load(
        {
            "age": {"target": "5s", "calls": 100},
            "queues": {
                "mail-*": {"age": {"target": "10s"}},
                "mail-eu-*": {"age": {"low_floor": 0.01}},
                "mail-eu-1": {"age": {"target": "none"}},
            },
        }
    )
    told = {name: config.age_of(name) for name in ("other", "mail-us", "mail-eu-2", "mail-eu-1")}
    assert {name: age.target for name, age in told.items()} == {
        "other": 5,
        "mail-us": 10,
        "mail-eu-2": 10,
        "mail-eu-1": None,
    }
    assert {age.calls for age in told.values()} == {100}
    assert [age.low_floor for age in told.values()] == [0.005, 0.005, 0.01, 0.01]


@pytest.mark.parametrize(
    "config",
    [
        BackpressureConfig(age=AgeConfig(target=5, store="redis://one"), queues={"mail": QueueConfig(age=AgeConfig())}),
        BackpressureConfig(queues={"mail": QueueConfig(age=AgeConfig(target="90s"))}),  # type: ignore[arg-type]
        BackpressureConfig(age=attrs.evolve(FIVE, safe_rate=2.5)),
        BackpressureConfig(age=attrs.evolve(FIVE, tenant_weights={"gold": 4})),
    ],
)
def test_it_survives_a_round_trip(config: BackpressureConfig) -> None:
    again = load(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.age_of("mail") == config.age_of("mail")
    config.validate()


@pytest.mark.parametrize(
    "weights",
    [
        {f"class-{index}": 4 for index in range(17)},
        {"": 4},
        {"g" * 65: 4},
        {"ä" * 33: 4},
        {4: 4},
        {"gold": 0},
        {"gold": 101},
        {"gold": 4.0},
        {"gold": True},
        {"gold": "4"},
        [("gold", 4)],
    ],
)
def test_impossible_weights_of_tenants_are_refused(weights: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^age\.tenant_weights is .*: give at most 16 names of classes, each of "
    ):
        AgeConfig(tenant_weights=weights)


@pytest.mark.parametrize("weights", [{"g": 1, "g" * 64: 100}, {f"class-{index}": 4 for index in range(16)}])
def test_weights_of_tenants_just_inside_of_their_bounds(weights: dict[str, int]) -> None:
    assert load({"age": {"tenant_weights": weights}}).age == AgeConfig(tenant_weights=weights)


def test_weights_of_tenants_are_laid_over_one_another_and_read_from_everywhere() -> None:
    given = {"gold": 4}
    config = BackpressureConfig(age=AgeConfig(tenant_weights=given))
    given["gold"] = 9
    assert config.age.tenant_weights == {"gold": 4}
    over = config.evolve({"age.tenant_weights.silver": 2})
    assert over.age.tenant_weights == {"gold": 4, "silver": 2}
    for name, text in (("TENANT_WEIGHTS__GOLD", "4"), ("TENANT_WEIGHTS", '{"gold": 4}')):
        assert BackpressureConfig.from_env({f"BACKPRESSURE_AGE__{name}": text}).age == config.age
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config.age) == hash(AgeConfig(tenant_weights={"gold": 4}))


def test_an_evolved_copy_may_have_no_target() -> None:
    for nothing in (None, "none"):
        assert BackpressureConfig(age=FIVE).evolve({"age.target": nothing}).age == AgeConfig()


@pytest.mark.parametrize(("target", "busy_interval", "timeout"), [(0.5, 590, 10), (5, 599, 1), (3_600, 599, 1)])
def test_statistics_have_to_show_what_workers_do(target: float, busy_interval: float, timeout: float) -> None:
    polling = {"interval": 3_000, "busy_interval": busy_interval, "timeout": timeout}
    assert load({"age": {"target": f"{target}s"}, "polling": polling}).age.target == target
    late = polling | {"timeout": timeout + 0.008}
    exact = AgeConfig(target=timedelta(seconds=target))  # type: ignore[arg-type]
    rule = (
        "needs statistics of at most 600 s, which may be 600.008 s old: lower polling.busy_interval and polling.timeout"
    )
    for tables, path in (
        ({"age": {"target": f"{target}s"}}, "age.target"),
        ({"queues": {"mail-*": {"age": {"target": f"{target}s"}}}}, 'queues."mail-*".age.target'),
    ):
        with pytest.raises(ConfigurationError) as caught:
            load(tables | {"polling": late})
        assert caught.value.field == path.partition(".")[0]
        assert str(caught.value) == f"{path} is {float(target)}: {rule}"
    with pytest.raises(ConfigurationError, match=r"^age\.target is "):
        BackpressureConfig(age=exact, polling=PollingConfig(**late))  # type: ignore[arg-type]


def test_every_queue_that_cannot_be_held_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        BackpressureConfig(
            polling=PollingConfig(interval=700, busy_interval=700),
            queues={"mail": QueueConfig(age=AgeConfig(target=1))},
        )
    assert str(caught.value).startswith('queues."mail".age.target is 1.0: needs statistics of at most 600 s')


def test_it_needs_the_background() -> None:
    polling = PollingConfig(enabled=False)
    assert BackpressureConfig(polling=polling).age == AgeConfig()
    with pytest.raises(ConfigurationError, match=r"^age\.target is 5\.0: needs polling\.enabled, for its "):
        BackpressureConfig(polling=polling, age=FIVE)


DOUBTS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"age": {"target": "5s"}}, []),
    ({"age": {"target": "4s"}}, []),
    (
        {"age": {"target": "3s"}},
        ["age.target is 3 s, and statistics may be 4 s old: the budget follows slowly: lower "],
    ),
    ({"age": {"target": "20s"}, "polling": {"busy_interval": "4s", "timeout": "1s"}}, []),
    ({"age": {"target": "20s"}, "polling": {"interval": "15s", "busy_interval": "15s", "timeout": "1s"}}, []),
    (
        {"age": {"target": "5s"}, "polling": {"interval": "15s", "busy_interval": "15s", "timeout": "1s"}},
        ["age.target is 5 s, and statistics may be 16 s old: the budget follows slowly: lower "],
    ),
    ({"age": {"target": "5s", "calls": 1}}, []),
    (
        {"age": {"target": "4s", "calls": 1}},
        ["age.calls is 1, fewer than one for each tick of 800 ms: the budget changes more often than "],
    ),
    ({"age": {"target": "5s", "low_floor": 0.1}}, []),
    (
        {"queues": {"m": {"age": {"target": "5s", "low_floor": 0.25}}}},
        ['queues."m".age.low_floor is 0.25: 25 % of LOW\'s jobs pass however long others wait: lower '],
    ),
    ({"age": {"calls": 5}}, ["age has no target, so nothing of it is used: set age.target, or leave it out"]),
    ({"age": {"calls": 5}, "queues": {"m": {"age": {"target": "5s"}}}}, []),
    (
        {"age": {"target": "5s"}, "queues": {"m": {"thresholds": {}, "curve": {}}}},
        ['queues."m" has thresholds and curve, which are not used, because an age is to be held: leave '],
    ),
    ({"age": {"target": "5s"}, "queues": {"m": {"curve": {}, "age": {"target": "none"}}}}, []),
    (
        {"queues": {"*": {"age": {"target": "5s"}}, "m": {"curve": {}}}},
        ['queues."m" has curve, which are not used'],
    ),
]


@pytest.mark.parametrize(("tables", "said"), DOUBTS)
def test_doubtful_pairs(tables: dict[str, Any], said: list[str]) -> None:
    found = list(doubts(load(tables)))
    assert len(found) == len(said)
    assert [sentence[: len(begin)] for sentence, begin in zip(found, said, strict=True)] == said


def test_shared_thresholds_may_wait_for_queues_without_a_target() -> None:
    assert list(doubts(BackpressureConfig(age=FIVE, curve=CurveConfig(red_max_delay=1)))) == []


def test_no_controller_is_made_that_could_not_hold_the_age(engine_name: str) -> None:
    with pytest.raises(ConfigurationError, match="InMemoryStatsProvider keeps no budgets") as caught:
        BackpressureController(BackpressureConfig(age=FIVE), InMemoryStatsProvider(), _engine=engine_name)
    assert caught.value.field == "age.store"


def test_a_running_controller_keeps_what_it_has() -> None:
    with BackpressureController(None, InMemoryStatsProvider({"mail": 5_000}), clock=ManualClock()) as controller:
        with pytest.raises(ConfigurationError, match="keeps no budgets"):
            controller.reconfigure(BackpressureConfig(age=FIVE))
        assert controller.suggest_throttle("low", "mail").should_shed
