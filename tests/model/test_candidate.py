"""A candidate's settings: written as they would be to enforce it, and refused where nothing can be judged by them."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from backpressure import AgeConfig, BacklogWindow, BackpressureConfig, ConfigurationError, CurveConfig
from backpressure._fleet.pushed import laid_over

LOW = {"low_priority": {"red_max": 20_000}}
MAIL = {"candidate": {"thresholds": LOW, "queues": {"Mail": {"curve": {"scale_low": 3}}}}}


def second(config: BackpressureConfig) -> BackpressureConfig:
    found = config.with_candidate()
    assert found is not None
    return found


@pytest.mark.parametrize("none", [None, {}, "none"])
def test_without_one_there_is_none(none: Any) -> None:
    config = BackpressureConfig(candidate=none)
    assert config.candidate is None
    assert config.with_candidate() is None
    assert config == BackpressureConfig()


def test_its_settings_lie_over_the_real_ones_as_if_they_were_enforced() -> None:
    tables = {"curve": {"shed_permille": 300}, "queues": {"Mail": {"thresholds": {"low_priority": {"green_max": 7}}}}}
    config = BackpressureConfig.from_mapping({**tables, **MAIL})
    candidate = second(config)
    assert candidate == BackpressureConfig.from_mapping(MAIL["candidate"], BackpressureConfig.from_mapping(tables))
    assert (candidate.curve.shed_permille, candidate.thresholds.low_priority.red_max) == (300, 20_000)
    own = BacklogWindow(green_max=7, yellow_max=500, red_max=1_000)
    assert candidate.thresholds_of("Mail").low_priority == own  # that of the queue's own section
    assert config.thresholds.low_priority.red_max == 1_000


def test_by_every_way_in_it_is_the_same(tmp_path: Any) -> None:
    config = BackpressureConfig.from_mapping(MAIL)
    file = tmp_path / "candidate.toml"
    file.write_text(
        '[candidate.thresholds.low_priority]\nred_max = 20_000\n[candidate.queues."Mail".curve]\nscale_low = 3\n'
    )
    assert BackpressureConfig.from_file(file) == config
    assert (
        BackpressureConfig.from_env(
            {
                "BACKPRESSURE_CANDIDATE__THRESHOLDS__LOW_PRIORITY__RED_MAX": "20000",
                "BACKPRESSURE_CANDIDATE__QUEUES": '{"Mail": {"curve": {"scale_low": 3}}}',
            }
        )
        == config
    )
    upper = {"THRESHOLDS": {"LOW_PRIORITY": {"RED_MAX": 20_000}}, "QUEUES": {"Mail": {"CURVE": {"SCALE_LOW": 3}}}}
    assert BackpressureConfig.from_django({"CANDIDATE": upper}) == config
    paths = {"candidate.thresholds.low_priority.red_max": 20_000, 'candidate.queues."Mail".curve.scale_low': 3}
    assert BackpressureConfig().evolve(paths) == config
    assert laid_over(MAIL, BackpressureConfig()) == config
    assert BackpressureConfig.from_mapping(json.loads(json.dumps(config.to_dict()))) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(BackpressureConfig.from_mapping(MAIL))


def test_what_code_gives_is_copied_and_may_be_objects() -> None:
    given: dict[str, Any] = {"curve": {"shed_permille": 300}}
    config = BackpressureConfig(candidate=given)
    given["curve"]["shed_permille"] = 9
    assert second(config).curve.shed_permille == 300
    objects = BackpressureConfig(candidate={"curve": CurveConfig(shed_permille=300)})
    assert second(objects) == second(config)
    assert json.loads(json.dumps(objects.to_dict()))["candidate"]["curve"]["shed_permille"] == 300


def test_it_can_be_pushed_over_and_pushed_away() -> None:
    config = BackpressureConfig.from_mapping(MAIL)
    assert (
        second(laid_over({"candidate": {"curve": {"shed_permille": 1}}}, config)).thresholds.low_priority.red_max
        == 20_000
    )
    assert laid_over({"candidate": "none"}, config).candidate is None


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (3, 'candidate is 3: give a table of settings, or "none"'),
        (
            {"mode": "observe"},
            "candidate.mode is 'observe': a candidate has no such part: give thresholds, curve, age or queues",
        ),
        (
            {"queues": {"a": {"layout": "rq"}}},
            """candidate.queues."a".layout is 'rq': a candidate has no such part: give thresholds, curve or age""",
        ),
        ({"curve": {"shed_permille": 2_000}}, "candidate.curve.shed_permille is 2000: give an integer from 0 to 1000"),
        ({"curve": {"shed_permile": 1}}, "candidate.curve.shed_permile is unknown: did you mean shed_permille?"),
        (
            {"thresholds": {"low_priority": {"red_max": 400}}},
            "candidate.thresholds.low_priority.red_max is 400: must be above yellow_max (500)",
        ),
        (
            {"curve": {"shed_at": 5}},
            "candidate.curve.shed_at is 5: must be from yellow_max (500) to red_max (1000) of low_priority",
        ),
        ({"queues": 3}, "candidate.queues is 3: give a table of queue names"),
        (
            {"age": {"target": "5s"}},
            (
                "candidate.age.target is '5s': how long jobs would wait depends on which of them go, so no candidate "
                "can be judged by it beside the real policy: replay a recording"
            ),
        ),
        (
            {"queues": {"a": {"age": {"target": 5}}}},
            """candidate.queues."a".age.target is 5: how long jobs would wait""",
        ),
        ({"age": AgeConfig(target=5)}, "candidate.age.target is 5.0: how long jobs would wait"),
        ({"age": {"calls": 5}}, 'candidate.age.calls is 5: it decides nothing here: give memory, or "none" as target'),
    ],
)
def test_what_cannot_be_judged_is_refused(candidate: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BackpressureConfig.from_mapping({"candidate": candidate})
    assert str(caught.value).startswith(message)
    assert caught.value.field == "candidate"
    if isinstance(candidate, dict):
        with pytest.raises(ConfigurationError) as built:
            BackpressureConfig(candidate=candidate)
        assert str(built.value) == str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        BackpressureConfig(candidate={"curve": {"shed_permille": 2_000, "delay_jitter": 2}})
    assert [line.partition(" is ")[0] for line in str(caught.value).splitlines()] == [
        "candidate.curve.shed_permille",
        "candidate.curve.delay_jitter",
    ]


def test_a_fault_of_the_real_settings_is_told_once() -> None:
    with pytest.raises(ConfigurationError, match=r"\Acurve\.shed_at is 5: [^\n]*\Z"):
        BackpressureConfig.from_mapping({"curve": {"shed_at": 5}, "candidate": {"curve": {"scale_low": 2}}})


def test_it_needs_polls() -> None:
    with pytest.raises(ConfigurationError, match=r"candidate is .*: needs polling\.enabled"):
        BackpressureConfig.from_mapping({"candidate": {"curve": {"scale_low": 2}}, "polling": {"enabled": False}})


@pytest.mark.parametrize("name", ["BACKPRESSURE_CANDIDATE__QUEUES__MAIL__CURVE__SCALE_LOW", "BACKPRESSURE_QUEUES__A"])
def test_names_of_queues_are_no_names_of_variables(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"set queues in a file, or unset .* and give BACKPRESSURE_\w*QUEUES as"
    ):
        BackpressureConfig.from_env({name: "3"})
