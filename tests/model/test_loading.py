"""Every way to load a configuration: the same rules as in code, all faults at once, nothing that a file can break."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backpressure import BackpressureConfig, ConfigurationError, QueueConfig
from backpressure._model.config.age import AgeConfig
from backpressure._model.config.circuit import CircuitConfig
from backpressure._model.config.polling import PollingConfig
from backpressure._model.config.recovery import FallbackMode, RecoveryStrategy
from backpressure._model.config.three_zone import BacklogThresholds, BacklogWindow, CurveConfig
from model.test_config import FULL, INSIDE, OUTSIDE, Build, polling, window

Flat = Mapping[str, Any]
Load = Callable[[Flat, Path], BackpressureConfig]

# Where in the tree a class of test_config lies, and the settings that its other tests take for granted.
SECTIONS: dict[Build, tuple[str, dict[str, Any]]] = {
    window: ("thresholds.low_priority.", {"green_max": 10, "yellow_max": 20, "red_max": 30}),
    CurveConfig: ("curve.", {}),
    CircuitConfig: ("circuit.", {}),
    polling: ("polling.", {"interval": 10.0, "jitter": 1.0, "timeout": 2.0, "max_backoff": 60.0, "cache_ttl": 100.0}),
    RecoveryStrategy: ("recovery.", {}),
    AgeConfig: ("age.", {}),
    BackpressureConfig: ("", {}),
}


def flat(build: Build, values: Flat) -> dict[str, Any]:
    prefix, roomy = SECTIONS[build]
    return {prefix + name: value for name, value in (roomy | dict(values)).items()}


def nested(settings: Flat) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for path, value in settings.items():
        *parents, name = path.split(".")
        table = tables
        for parent in parents:
            table = table.setdefault(parent, {})
        table[name] = value
    return tables


def text(value: object) -> str:
    """Write a value so that JSON, TOML and the environment all mean the same by it."""
    return json.dumps(str(value) if isinstance(value, Fraction) else value)


def file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def from_mapping(settings: Flat, _: Path) -> BackpressureConfig:
    return BackpressureConfig.from_mapping(nested(settings))


def from_json(settings: Flat, folder: Path) -> BackpressureConfig:
    content = json.dumps(nested({path: json.loads(text(value)) for path, value in settings.items()}))
    return BackpressureConfig.from_file(file(folder, "config.json", content))


def from_toml(settings: Flat, folder: Path) -> BackpressureConfig:
    content = "".join(f"{path} = {text(value)}\n" for path, value in settings.items())
    return BackpressureConfig.from_file(file(folder, "config.toml", content))


def from_env(settings: Flat, _: Path) -> BackpressureConfig:
    return BackpressureConfig.from_env(
        {f"BACKPRESSURE_{path.replace('.', '__').upper()}": text(value) for path, value in settings.items()}
    )


def evolve(settings: Flat, _: Path) -> BackpressureConfig:
    return BackpressureConfig().evolve(settings)


LOADERS = [from_mapping, from_json, from_toml, from_env, evolve]


def setting(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = getattr(config, name)
    return config


def refused(load: Callable[..., Any], *args: Any, **options: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(*args, **options)
    return caught.value


def fields(error: ConfigurationError) -> list[str]:
    return [fault.field for fault in error.faults]


IN_CODE = {"excluded_exceptions", "is_failure"}
LOADABLE_INSIDE = [case for case in INSIDE if IN_CODE.isdisjoint(case[1])]
LOADABLE_OUTSIDE = [
    case
    for case in OUTSIDE
    if case[0] in SECTIONS and IN_CODE.isdisjoint(case[3]) and not re.match("give an? [A-Z]", case[2])
]


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(("build", "values"), LOADABLE_INSIDE)
def test_just_inside(load: Load, build: Build, values: Flat, tmp_path: Path) -> None:
    settings = flat(build, values)
    config = load(settings, tmp_path)
    for path, value in settings.items():
        assert setting(config, path) == (Fraction(str(value)) if ".scale_" in path else value)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(("build", "path", "rule", "values"), [c for c in LOADABLE_OUTSIDE if c[1] != "queues"])
def test_just_outside(load: Load, build: Build, path: str, rule: str, values: Flat, tmp_path: Path) -> None:
    error = refused(load, flat(build, values), tmp_path)
    path = f"thresholds.low_priority.{path}" if build is window else path
    (fault,) = (fault for fault in error.faults if fault.field == path)
    assert str(fault) == f"{path} is {fault.value!r}: {rule}"
    assert str(fault) in str(error).replace("\n  ", "\n").split("\n")


@pytest.mark.parametrize(
    ("build", "path", "rule", "values"), [c for c in LOADABLE_OUTSIDE if c[0] in (window, CurveConfig, CircuitConfig)]
)
def test_just_outside_for_one_queue(build: Build, path: str, rule: str, values: Flat) -> None:
    error = refused(BackpressureConfig.from_mapping, {"queues": {"e.mail": nested(flat(build, values))}})
    path = f"thresholds.low_priority.{path}" if build is window else path
    assert fields(error) == [f'queues."e.mail".{path}']
    assert str(error) == f'queues."e.mail".{path} is {error.value!r}: {rule}'


@pytest.mark.parametrize("load", LOADERS)
def test_what_is_not_set_follows(load: Load, tmp_path: Path) -> None:
    config = load({"circuit.recovery_timeout": "2s", "polling.interval": "100ms"}, tmp_path)
    assert config.circuit == CircuitConfig(recovery_timeout=2, probe_interval=2)
    assert config.polling == PollingConfig(interval=0.1, jitter=0.05, timeout=0.1)


@pytest.mark.parametrize("load", LOADERS)
def test_what_was_set_is_to_blame(load: Load, tmp_path: Path) -> None:
    settings = {
        "thresholds.low_priority.green_max": 600,
        "curve.yellow_max_delay": "6s",
        "curve.scale_medium": 2,
        "circuit.probe_interval": "2m",
        "polling.timeout": "6s",
    }
    assert sorted(fields(refused(load, settings, tmp_path))) == sorted(settings)


def test_later_layers_go_on_following() -> None:
    base = BackpressureConfig.from_env({"BACKPRESSURE_CIRCUIT__RECOVERY_TIMEOUT": "1s"})
    assert base.evolve({"circuit.recovery_timeout": "30s"}).circuit == CircuitConfig(recovery_timeout=30)
    own = base.evolve({"queues.mail.circuit.recovery_timeout": "100ms"}).circuit_of("mail")
    assert own == CircuitConfig(recovery_timeout=0.1, probe_interval=0.1)
    fixed = BackpressureConfig.from_mapping({"circuit": {"probe_interval": "5s"}})
    error = refused(fixed.evolve, {"queues.mail.circuit.recovery_timeout": "1s"})
    assert fields(error) == ['queues."mail".circuit.probe_interval']


def test_a_fault_is_told_without_those_that_would_follow_from_it() -> None:
    mapping = {"polling": {"interval": "1s", "jitter": "soon"}, "circuit": {"recovery_timeout": -5}}
    assert fields(refused(BackpressureConfig.from_mapping, mapping)) == ["circuit.recovery_timeout", "polling.jitter"]


def test_every_rule_is_tried() -> None:
    tried = {(build, path.rpartition(".")[2]) for build, path, *_ in LOADABLE_OUTSIDE}
    ruled = {
        (build, name)
        for build, cls in {polling: PollingConfig, window: BacklogWindow}.items() | {(c, c) for c in SECTIONS}
        for name, _ in (*getattr(cls, "_own_rules", ()), *getattr(cls, "_rules", ()))
    }
    between_sections = {(BackpressureConfig, name) for name in ("curve", "queues", "age", "fleet", "candidate")}
    assert ruled - between_sections
    assert ruled - between_sections <= tried


def test_shed_at_lies_in_the_red_zone_of_low_priority() -> None:
    for jobs in (500, 1_000):
        assert BackpressureConfig.from_mapping({"curve": {"shed_at": jobs}}).curve.shed_at == jobs
    for jobs in (499, 1_001):
        error = refused(BackpressureConfig.from_mapping, {"curve": {"shed_at": jobs}})
        assert str(error) == (
            f"curve.shed_at is {jobs}: must be from yellow_max (500) to red_max (1000) of low_priority"
        )
        with pytest.raises(ConfigurationError, match=r"curve\.shed_at is"):
            BackpressureConfig(curve=CurveConfig(shed_at=jobs))
    other_window = {"m*": {"thresholds": {"low_priority": {"red_max": 800}}}}
    error = refused(BackpressureConfig.from_mapping, {"curve": {"shed_at": 900}, "queues": other_window})
    assert str(error).startswith('queues."m*".curve.shed_at is 900: must be from yellow_max (500) to red_max (800)')


@pytest.mark.parametrize("load", LOADERS)
def test_what_says_the_same_in_another_way_counts_in_the_upper_layer(load: Load, tmp_path: Path) -> None:
    in_jobs = load({"curve.shed_at": 900}, tmp_path)
    assert BackpressureConfig.from_mapping(in_jobs.to_dict()) == in_jobs
    in_thousandths = in_jobs.evolve({"curve.shed_permille": 700})
    assert (in_thousandths.curve.shed_at, in_thousandths.curve.shed_permille) == (None, 700)
    again = in_thousandths.evolve({"curve.shed_at": 600, "queues.mail.curve.shed_at": 950})
    assert (again.curve.shed_at, again.curve_of("mail").shed_at) == (600, 950)
    own = in_thousandths.evolve({"queues.mail.curve.shed_at": 950}).curve_of("mail")
    assert (own.shed_at, own.permille(again.thresholds.low_priority)) == (950, 900)


def test_nothing_gives_the_defaults(tmp_path: Path) -> None:
    default = BackpressureConfig()
    assert BackpressureConfig.from_mapping({}) == BackpressureConfig.from_env({}) == default.evolve({}) == default
    assert BackpressureConfig.from_file(file(tmp_path, "a.toml", "")) == default
    assert BackpressureConfig.from_file(file(tmp_path, "a.JSON", "\ufeff{}")) == default


def test_a_part_goes_over_the_defaults() -> None:
    config = BackpressureConfig.from_mapping({"thresholds": {"low_priority": {"red_max": 2_000}}})
    assert config.thresholds == BacklogThresholds(
        low_priority=BacklogWindow(green_max=100, yellow_max=500, red_max=2_000)
    )


def test_a_queue_goes_over_the_shared_part_of_the_same_file(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        "config.toml",
        """
        queues."email-queue".thresholds.low_priority.red_max = 2000
        queues."email-queue".circuit.failure_threshold = 7
        thresholds.low_priority.green_max = 50
        circuit.probe_interval = "1s"
        """,
    )
    own = BackpressureConfig.from_file(path).queues["email-queue"]
    assert own == QueueConfig(
        thresholds=BacklogThresholds(low_priority=BacklogWindow(green_max=50, yellow_max=500, red_max=2_000)),
        circuit=CircuitConfig(failure_threshold=7, probe_interval=1),
    )


def test_sources_go_over_one_another(tmp_path: Path) -> None:
    base = BackpressureConfig.from_file(file(tmp_path, "a.json", '{"queues": {"a": {"curve": {"shed_permille": 1}}}}'))
    environ = {
        "BACKPRESSURE_POLLING__INTERVAL": "6s",
        "backpressure_curve__scale_low": "7/4",
        "BACKPRESSURE_RECOVERY__MANUAL_OVERRIDE": "true",
        "BACKPRESSURE_RECOVERY__FALLBACK_MODE": "false",
        "BACKPRESSURE_MODE": "observe",
        "BACKPRESSURE_QUEUES": '{"a": {"curve": {"red_max_delay": "9s"}}, "b": {"curve": {}}}',
        "BACKPRESSURE_ENGINE": "pure",
        "BACKPRESSURE_CONSOLE_TOKEN": "not a setting",
        "BACKPRESSURE_TEST_REDIS_URL": "redis://localhost",
        "PATH": "/bin",
    }
    config = BackpressureConfig.from_env(environ, base)
    assert (config.polling.interval, config.mode, config.recovery.manual_override) == (6.0, "observe", True)
    assert config.recovery.fallback_mode is FallbackMode.PERMISSIVE
    assert config.queues["a"].curve == CurveConfig(shed_permille=1, red_max_delay=9)
    assert config.queues["b"].curve == config.curve == CurveConfig(scale_low=Fraction(7, 4))


def test_the_processs_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPRESSURE_MAX_QUEUES", "7")
    assert BackpressureConfig.from_env().max_queues == 7


def test_code_may_give_objects_and_exceptions() -> None:
    changes = {
        "curve": CurveConfig(shed_permille=1),
        "curve.red_max_delay": "9s",
        "circuit.excluded_exceptions": (KeyError,),
        'queues."a.b\\"c"': QueueConfig(curve=CurveConfig(shed_permille=2)),
        "queues.mail.circuit.failure_threshold": 7,
    }
    config = BackpressureConfig().evolve(changes)
    assert config.curve == CurveConfig(shed_permille=1, red_max_delay=9)
    assert config.circuit_of("mail") == CircuitConfig(failure_threshold=7, excluded_exceptions=(KeyError,))
    assert config.queues['a.b"c'] == QueueConfig(curve=CurveConfig(shed_permille=2))
    assert BackpressureConfig.from_mapping({}, config) == config.evolve({}) == config


def test_evolving_changes_a_copy() -> None:
    changed = FULL.evolve({'queues."mail".curve.red_max_delay': 9, "max_queues": 5})
    assert changed.queues["mail"].curve == CurveConfig(scale_low=Fraction(7, 3), red_max_delay=9)
    assert (changed.queues["mail"].circuit, changed.queues["队列"]) == (
        FULL.queues["mail"].circuit,
        FULL.queues["队列"],
    )
    assert (FULL.max_queues, FULL.queues["mail"].curve) == (1_000, None)
    assert changed.evolve({"queues.mail.curve": None, "max_queues": 1_000}) == FULL


def test_a_predicate_is_code() -> None:
    config = BackpressureConfig().evolve({"circuit.is_failure": callable, "queues.mail.circuit.is_failure": bool})
    assert (config.circuit.is_failure, config.circuit_of("mail").is_failure) == (callable, bool)
    assert config.evolve({"circuit.failure_threshold": 7}).circuit == CircuitConfig(
        failure_threshold=7, is_failure=callable
    )
    assert all("is_failure" not in part["circuit"] for part in (config.to_dict(), config.to_dict()["queues"]["mail"]))


def test_a_dict_tells_no_marks() -> None:
    tables = BackpressureConfig().to_dict()
    kinds = {type(value) for part in ("curve", "polling", "circuit") for value in tables[part].values()}
    assert kinds | {type(value) for value in tables["thresholds"]["low_priority"].values()} == {str, float, int, bool}


def test_a_dict_is_ready_for_json_and_comes_back() -> None:
    tables = FULL.to_dict()
    again = BackpressureConfig.from_mapping(json.loads(json.dumps(tables)))
    assert json.loads(json.dumps(tables)) == tables
    assert again.evolve({"circuit.excluded_exceptions": FULL.circuit.excluded_exceptions}) == FULL
    assert tables["polling"]["interval"] == 5.0
    assert tables["curve"]["scale_low"] == "7/3"
    assert type(tables["recovery"]["fallback_mode"]) is str
    assert list(tables["queues"]["队列"]) == ["curve"]
    assert BackpressureConfig().to_dict()["thresholds"]["low_priority"] == {
        "green_max": 100,
        "yellow_max": 500,
        "red_max": 1_000,
    }


def test_validating_finds_what_was_forced_in() -> None:
    config = BackpressureConfig.from_mapping({"polling": {"interval": 6}})
    config.validate()
    object.__setattr__(config.polling, "jitter", -1.0)
    object.__setattr__(config, "max_queues", 0)
    assert fields(refused(config.validate)) == ["polling.jitter", "max_queues"]


def test_five_mistakes_are_five_faults(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        "config.toml",
        """
        mode = "dry-run"
        [polling]
        intervall = "5s"
        jitter = "5 parsecs"
        timeout = "6s"
        [queues."email-queue".thresholds.low_priority]
        red_max = 500
        """,
    )
    error = refused(BackpressureConfig.from_file, path)
    assert str(error) == (
        f"correct in {path}:\n"
        '  polling.jitter is \'5 parsecs\': give seconds, a timedelta or a string such as "250ms", "5s" or "1m"\n'
        "  polling.timeout is 6.0: must be from 10 ms to the interval (5.0 s)\n"
        "  polling.intervall is unknown: did you mean interval?\n"
        '  mode is \'dry-run\': give "enforce" or "observe"\n'
        '  queues."email-queue".thresholds.low_priority.red_max is 500: must be above yellow_max (500)'
    )
    assert (error.field, error.value) == ("polling.jitter", "5 parsecs")
    assert [fault.faults for fault in error.faults] == [()] * 5


def test_faults_survive_pickle_and_copy() -> None:
    error = refused(BackpressureConfig.from_mapping, {"mode": 1, "max_queues": 0})
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (str(twin), twin.field, twin.value) == (str(error), "mode", 1)
        assert [str(fault) for fault in twin.faults] == [str(fault) for fault in error.faults]
        assert fields(twin) == ["mode", "max_queues"]


def test_a_queue_does_not_repeat_the_faults_it_inherits() -> None:
    mapping = {
        "thresholds": {"low_priority": {"red_max": -1}, "high_priority": 3},
        "queues": {
            "inherits": {"thresholds": {"low_priority": {"green_max": 1}, "high_priority": {"red_max": 10**6}}},
            "repeats": {"thresholds": {"low_priority": {"red_max": -1}}},
        },
    }
    assert fields(refused(BackpressureConfig.from_mapping, mapping)) == [
        "thresholds.high_priority",
        "thresholds.low_priority.red_max",
        'queues."repeats".thresholds.low_priority.red_max',
    ]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"poling": {}}, "poling is unknown: did you mean polling?"),
        ({"polling": {"Interval": 5}}, "polling.Interval is unknown: did you mean interval?"),
        ({"thresholds": {"low_prio": {}}}, "thresholds.low_prio is unknown: did you mean low_priority?"),
        ({"recovery": {7: 1}}, "recovery.7 is unknown: give fallback_mode, graceful_degrade, manual_override or "),
        (
            {"queues": {"a": {"polling": {}}}},
            'queues."a".polling is unknown: give thresholds, curve, circuit, age, mode, enforce_share, url, layout, ',
        ),
        ({"a b": 1}, '"a b" is unknown: give thresholds, '),
        ({"curve": None}, "curve is None: give a table of settings"),
        ({"thresholds": {"low_priority": [1, 2, 3]}}, "thresholds.low_priority is [1, 2, 3]: give a table of settings"),
        ({"queues": ["a"]}, "queues is ['a']: give a table of queue names"),
        ({"queues": {"a": True}}, 'queues."a" is True: give a table of settings'),
        ({"queues": {"a\nb": {}}}, "queues.\"a\\nb\" is 'a\\nb': invalid queue name 'a\\nb': remove control"),
        ({"queues": {"": {}}}, "queues.\"\" is '': invalid queue name '': give 1 to 255 UTF-8 bytes"),
        ({"queues": {3: {}}}, 'queues."3" is 3: invalid queue name 3: give a str'),
        (
            {"circuit": {"excluded_exceptions": ["KeyError"]}},
            "circuit.excluded_exceptions is ['KeyError']: settable in code only, as a tuple of exception classes",
        ),
        (
            {"circuit": {"is_failure": "throttled"}},
            "circuit.is_failure is 'throttled': settable in code only, as a function of an exception",
        ),
        (
            {"circuit": {"excluded_exceptions": (int,)}},
            "circuit.excluded_exceptions is (<class 'int'>,): give a tuple of exception classes",
        ),
        ({"max_queues": -(16**10_000)}, "max_queues is <int too large to show>: give an integer of at least 1"),
    ],
)
def test_what_a_fault_says(mapping: dict[Any, Any], message: str) -> None:
    error = refused(BackpressureConfig.from_mapping, mapping)
    assert str(error).startswith(message)
    assert len(error.faults) == 1


@pytest.mark.parametrize("mapping", [None, [], "mode", [("mode", "observe")], 3])
def test_what_is_no_mapping(mapping: Any) -> None:
    assert "a configuration is a mapping" in str(refused(BackpressureConfig.from_mapping, mapping))


def test_endless_and_huge_values_make_short_messages() -> None:
    endless: dict[str, Any] = {}
    endless["thresholds"] = endless
    for mapping in (endless, {"mode": "x" * 10**6}, {"x" * 10**6: 1}, {"curve": [[0] * 10**5]}):
        assert len(str(refused(BackpressureConfig.from_mapping, mapping))) < 1_000


@pytest.mark.parametrize(
    "path", ["", ".", "a.", '"a', 'queues."a.curve', "polling..jitter", 'a"b"', 3, "a." * 20 + "a"]
)
def test_what_is_no_path(path: Any) -> None:
    error = refused(BackpressureConfig().evolve, {path: 1, "mode": "x"})
    assert len(error.faults) == 2
    assert re.search("is no path: write it as|no setting is 21 levels deep", str(error.faults[0]))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.yaml", "mode: observe", "has no suffix that tells its format: write TOML or JSON"),
        ("config", "", "has no suffix"),
        ("config.toml", "mode = ", "is no TOML: "),
        ("config.toml", "mode = 'observe'\nmode = 'enforce'", "is no TOML: "),
        ("config.toml", b"mode = '\xff'", "is no TOML: "),
        ("config.json", "", "is no JSON: "),
        ("config.json", "{'mode': 1}", "is no JSON: "),
        ("config.json", '{"max_queues": ' + "9" * 5_000 + "}", "is no JSON: "),
        ("config.json", "[]", "holds no table of settings"),
        ("config.json", " " * 2**20 + "{}", "is larger than 1 MiB"),
        ("config.json", '{"mode":' * 100_000, "is nested more deeply than any setting"),
        ("config.toml", "mode = " + "[" * 100_000, "is nested more deeply than any setting"),
        ("config.toml", "a." * 500_000 + "a = 1", "is nested more deeply than any setting"),
        ("config.toml", "a = {" + "'a' . " * 50_000 + "a = 1}", "is nested more deeply than any setting"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_files(name: str, content: str | bytes, reason: str, tmp_path: Path) -> None:
    path = file(tmp_path, name, content)
    started = time.perf_counter()
    error = refused(BackpressureConfig.from_file, path)
    assert str(error).startswith(f"configuration file {str(path)!r} {reason}")
    assert error.value == str(path)
    assert time.perf_counter() - started < 5


def test_a_file_of_just_one_mebibyte(tmp_path: Path) -> None:
    path = file(tmp_path, "config.json", '{"max_queues": 7}'.ljust(2**20))
    assert BackpressureConfig.from_file(str(path)).max_queues == 7


def test_unreadable_files(tmp_path: Path) -> None:
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    for path in (tmp_path / "none.toml", folder, "nul\0.toml"):
        error = refused(BackpressureConfig.from_file, path)
        assert str(error).startswith(f"configuration file {str(path)!r} cannot be read: ")
        assert len(str(error)) > len(f"configuration file {str(path)!r} cannot be read: ")
        assert error.__cause__ is not None


def test_json_keys_given_twice(tmp_path: Path) -> None:
    content = '{"polling": {"jitter": 1, "jitter": 2}, "mode": "x", "queues": {"a": {}, "a": {}}}'
    error = refused(BackpressureConfig.from_file, file(tmp_path, "a.json", content))
    assert [str(fault).partition(":")[2] for fault in error.faults[:2]] == [" given twice in one table; remove one"] * 2
    assert fields(error) == ["jitter", "a", "mode"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "null", "true"])
def test_no_number_in_json(value: str, tmp_path: Path) -> None:
    error = refused(BackpressureConfig.from_file, file(tmp_path, "a.json", f'{{"polling": {{"jitter": {value}}}}}'))
    assert fields(error) == ["polling.jitter"]


def test_exceptions_are_not_named_in_files(tmp_path: Path) -> None:
    error = refused(
        BackpressureConfig.from_file, file(tmp_path, "a.toml", "[queues.a.circuit]\nexcluded_exceptions = []")
    )
    assert fields(error) == ['queues."a".circuit.excluded_exceptions']
    assert "settable in code only" in str(error)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"BACKPRESSURE_POLLING__INTERVAL": ""}, "polling.interval is '': give a value or unset BACKPRESSURE_POLLING"),
        ({"BACKPRESSURE_MODE": " "}, "mode is ' ': give a value or unset BACKPRESSURE_MODE"),
        ({"BACKPRESSURE_POLLING": '{"interval": 5}'}, "polling is '{\"interval\": 5}': give a table of settings"),
        ({"BACKPRESSURE_POLLING__ENABLED": "yes"}, "polling.enabled is 'yes': give true or false"),
        ({"BACKPRESSURE_POLLING__JITTER": "NaN"}, "polling.jitter is nan: give seconds"),
        ({"BACKPRESSURE_MAX_QUEUES": "9" * 5_000}, "max_queues is '9999"),
        ({"BACKPRESSURE_MAX_QUEUES": "[" * 100_000}, "max_queues is '[["),
        ({"BACKPRESSURE_POLING__JITTER": "1"}, "poling is unknown: did you mean polling?"),
        ({"BACKPRESSURE_": "1"}, '"" is unknown: give thresholds'),
        ({"BACKPRESSURE_TESTS": "1"}, "tests is unknown: give thresholds"),
        ({"BACKPRESSURE_MODE__" + "__".join("A" * 10**4): "1"}, "mode is '1': unset BACKPRESSURE_MODE__A__A"),
        (
            {"BACKPRESSURE_QUEUES__MAIL__CURVE__SHED_PERMILLE": "1"},
            "queues.\"mail\".curve.shed_permille is '1': set queues in a file, or unset BACKPRESSURE_QUEUES__MAIL",
        ),
        ({"BACKPRESSURE_QUEUES": "mail"}, "queues is 'mail': give a JSON object"),
        ({"BACKPRESSURE_QUEUES": "[" * 100_000}, "queues is '[["),
        ({"BACKPRESSURE_QUEUES": "[]"}, "queues is []: give a table of queue names"),
        ({"BACKPRESSURE_QUEUES": '{"a": {}, "a": {}}'}, "a is {}: given twice in one table; remove one"),
        (
            {"BACKPRESSURE_MODE": "observe", "backpressure_mode": "observe"},
            "mode is 'observe': BACKPRESSURE_MODE and backpressure_mode name the same setting; unset one",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_variables(environ: dict[str, str], message: str) -> None:
    error = refused(BackpressureConfig.from_env, environ)
    header, fault = str(error).split("\n")
    assert header == "correct in the environment (polling.interval is BACKPRESSURE_POLLING__INTERVAL):"
    assert fault.startswith(f"  {message}")
    assert len(error.faults) == 1


def test_only_loading_loads_cattrs() -> None:
    code = (
        "import sys, backpressure\n"
        "config = backpressure.BackpressureConfig()\n"
        "assert 'cattrs' not in sys.modules\n"
        "config.evolve({})\n"
        "assert 'cattrs' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=True)


# How Django users write their settings.
UPPER = {
    "POLLING": {"INTERVAL": "2s", "TIMEOUT": timedelta(seconds=1)},
    "THRESHOLDS": {"LOW_PRIORITY": {"RED_MAX": 2_000}},
    "CIRCUIT": {"EXCLUDED_EXCEPTIONS": (KeyError,)},
    "MODE": "observe",
    "QUEUES": {"MAIL": {"CIRCUIT": {"FAILURE_THRESHOLD": 9}}, "mail-slow": {"curve": {"red_max_delay": "9s"}}},
}


def lower(table: Any, *, queues: bool = False) -> Any:
    if not isinstance(table, dict):
        return table
    return {name if queues else name.lower(): lower(part, queues=name == "QUEUES") for name, part in table.items()}


def test_djangos_settings_may_be_upper_case() -> None:
    config = BackpressureConfig.from_django(UPPER)
    assert config == BackpressureConfig.from_django(lower(UPPER)) == BackpressureConfig.from_mapping(lower(UPPER))
    assert config.circuit_of("MAIL").failure_threshold == 9
    assert config.circuit_of("mail").failure_threshold == 5
    assert config.curve_of("mail-slow").red_max_delay == 9.0
    assert config.polling.timeout == 1.0
    assert BackpressureConfig.from_django({}, base=config) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"POLING": {}}, "poling is unknown: did you mean polling?"),
        ({"Polling": {"interval": 2}}, "Polling is unknown: did you mean polling?"),
        ({"POLLING": {"INTERVALL": 2}}, "polling.intervall is unknown: did you mean interval?"),
        ({"POLLING": {"INTERVAL": 2}, "polling": {"jitter": 1}}, "polling is {'jitter': 1}: given in upper case and"),
        ({"QUEUES": {"MAIL": {"CIRCIUT": {}}}}, 'queues."MAIL".circiut is unknown: did you mean circuit?'),
        ({"POLLING": 5}, "polling is 5: give a table of settings"),
        ({1: 2}, "1 is unknown"),
    ],
)
def test_djangos_settings_are_strict(settings: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BackpressureConfig.from_django(settings)
    assert message in str(caught.value)
    assert str(caught.value).startswith("correct in settings.BACKPRESSURE")


@pytest.mark.parametrize("given", [None, "POLLING", SimpleNamespace(BACKPRESSURE={})])
def test_djangos_settings_are_a_dict(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"give settings.BACKPRESSURE, a dict"):
        BackpressureConfig.from_django(given)
