"""`backpressure check`: it tells every fault, shows the configuration and its delays, and keeps its exit codes."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import BackpressureConfig

if TYPE_CHECKING:
    from pathlib import Path

    from cli.conftest import Run

FIVE_MISTAKES = """
mode = "monitor"
[thresholds.low_priority]
red_max = -1
[polling]
intervall = "5s"
jitter = 9.0
[queues."email-queue".circuit]
failure_threshold = 0
"""
THEIR_FIELDS = (
    "thresholds.low_priority.red_max",
    "polling.intervall",
    "polling.jitter",
    "mode",
    'queues."email-queue".circuit.failure_threshold',
)

SHOP = """
[polling]
interval = "2s"
timeout = 1.5
[queues."email-queue".thresholds.low_priority]
red_max = 2000
[queues.'dotted."name"'.curve]
scale_yellow = false
[queues.guarded.circuit]
failure_threshold = 9
[queues.plain]
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A valid file with settings for single queues."""
    return write(tmp_path, SHOP)


def write(folder: Path, text: str, name: str = "shop.toml") -> Path:
    file = folder / name
    file.write_text(text, "utf-8")
    return file


def test_five_mistakes_are_five_lines(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path, FIVE_MISTAKES)
    result = run("check", file)

    assert (result.exit_code, result.stdout) == (1, "")
    *faults, last = result.stderr.splitlines()
    assert sorted(line.split(" is ")[0] for line in faults) == sorted(THEIR_FIELDS)
    assert last == f"backpressure check: 5 faults in {file}"
    assert "polling.jitter is 9.0: must be from 0 to half the interval (2.5 s)" in faults
    assert "polling.intervall is unknown: did you mean interval?" in faults


def test_faults_for_scripts(run: Run, tmp_path: Path) -> None:
    result = run("check", write(tmp_path, FIVE_MISTAKES), "--json")

    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["valid"] is False
    assert {fault["field"]: fault["value"] for fault in told["faults"]} == {
        "thresholds.low_priority.red_max": -1,
        "polling.intervall": "intervall",
        "polling.jitter": 9.0,
        "mode": "monitor",
        'queues."email-queue".circuit.failure_threshold': 0,
    }
    assert all(fault["message"].startswith(fault["field"]) for fault in told["faults"])


@pytest.mark.parametrize("value", ["2025-01-01", "inf", "[2025-01-01]"])
def test_a_faulty_value_that_json_does_not_know(run: Run, tmp_path: Path, value: str) -> None:
    result = run("check", write(tmp_path, f"[polling]\ninterval = {value}"), "--json")
    assert isinstance(json.loads(result.stdout)["faults"][0]["value"], str)


@pytest.mark.parametrize(("name", "text"), [("a.toml", "a ="), ("a.json", "{"), ("a.json", "[]")])
def test_bad_syntax_is_a_finding(run: Run, tmp_path: Path, name: str, text: str) -> None:
    result = run("check", write(tmp_path, text, name))
    assert (result.exit_code, result.stdout) == (1, "")
    assert name in result.stderr


def test_a_faulty_environment_is_a_finding(run: Run) -> None:
    result = run("check", "--env", BACKPRESSURE_POLLING__JITTER="9", BACKPRESSURE_MODE="monitor")
    assert result.exit_code == 1
    assert "polling.jitter is 9.0: " in result.stderr
    assert "mode is 'monitor': " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a TOML or JSON file, or --env"),
        (("absent.toml",), "cannot be read: No such file"),
        (("folder.toml",), "cannot be read: Is a directory"),
        (("notes.md",), "name it .toml or .json"),
        (("--env", "--set", "polling.interval"), "is no setting: write it as"),
        (("--env", "--set", "polling.jitter=9"), "polling.jitter is 9.0: must be"),
        (("--env", "--queue", ""), "give 1 to 255"),
    ],
)
def test_wrong_usage(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "", "notes.md")
    (tmp_path / "folder.toml").mkdir()
    result = run("check", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_what_is_shown_reads_back(run: Run, shop: Path) -> None:
    result = run("check", shop)

    assert result.exit_code == 0
    assert result.stderr == ""
    shown, _, _ = result.stdout.partition("\ndelays of ")
    config, again = BackpressureConfig.from_file(shop), BackpressureConfig.from_mapping(tomllib.loads(shown))
    for name in ("thresholds", "curve", "circuit", "polling", "recovery", "mode", "max_queues"):
        assert getattr(again, name) == getattr(config, name)
    assert again.queues.keys() == config.queues.keys()
    for name in config.queues:
        assert again.thresholds_of(name) == config.thresholds_of(name)
        assert again.curve_of(name) == config.curve_of(name)
        assert again.circuit_of(name) == config.circuit_of(name)


def test_what_is_not_the_default_is_marked(run: Run, shop: Path) -> None:
    lines = run("check", shop).stdout.splitlines()
    assert "polling.interval = 2.0  # default: 5.0" in lines
    assert "polling.jitter = 1.0" in lines
    assert 'queues."email-queue".thresholds.low_priority.red_max = 2000  # shared: 1000' in lines


def test_layers_lie_over_one_another(run: Run, shop: Path) -> None:
    def effective(*arguments: str, **environ: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(run("check", shop, "--json", *arguments, **environ).stdout)
        polling: dict[str, Any] = told["config"]["polling"]
        return polling

    environ = {"BACKPRESSURE_POLLING__INTERVAL": "4s", "BACKPRESSURE_POLLING__TIMEOUT": "2s"}
    assert (effective()["interval"], effective()["timeout"]) == (2, 1.5)
    assert effective(**environ) == effective(), "the environment is not asked for"
    both = effective("--env", **environ)
    assert (both["interval"], both["timeout"]) == (4, 2)
    all_three = effective("--env", "--set", "polling.interval=6s", "--set", "polling.jitter=0", **environ)
    assert (all_three["interval"], all_three["timeout"], all_three["jitter"]) == (6, 2, 0)


@pytest.mark.parametrize(
    ("setting", "queue", "value"),
    [
        ("queues.email-queue.thresholds.low_priority.red_max=3000", "email-queue", 3000),
        ('queues."email-queue".thresholds.low_priority.red_max=3000', "email-queue", 3000),
        ('queues."a=b.c".thresholds.low_priority.red_max=3000', "a=b.c", 3000),
        ('queues={"json": {"thresholds": {"low_priority": {"red_max": 3000}}}}', "json", 3000),
    ],
)
def test_single_settings_of_queues(run: Run, shop: Path, setting: str, queue: str, value: int) -> None:
    told = json.loads(run("check", shop, "--json", "--set", setting).stdout)
    assert told["config"]["queues"][queue]["thresholds"]["low_priority"]["red_max"] == value


def rows(table: dict[str, Any], priority: str) -> dict[int, Any]:
    return {row["backlog"]: row[priority] for row in table["rows"]}


def test_the_delay_table(run_on_engine: Run) -> None:
    (table,) = json.loads(run_on_engine("check", "--env", "--json").stdout)["delays"]

    assert table["queue_name"] is None
    low, medium, high = (rows(table, priority) for priority in ("low", "medium", "high"))
    bounds = {0, 100, 500, 1_000, 2_000, 5_000, 10_000}
    assert bounds <= low.keys(), "every zone's bounds are shown"
    for lower, upper in ((100, 500), (500, 2_000), (2_000, 5_000)):
        assert any(lower < backlog < upper for backlog in low), "and something between"
    assert (low[100]["zone"], low[100]["delay"]) == ("green", 0)
    assert (low[500]["zone"], low[500]["delay"]) == ("yellow", 0.75)
    assert (low[900]["zone"], low[900]["delay"], low[900]["should_shed"]) == ("red", 6.15, False)
    assert (low[901]["reason"], low[901]["delay"], low[901]["should_shed"]) == ("backlog_red_shed", None, True)
    assert [one[2_000]["delay"] for one in (high, medium)] == [0.06625, 0.5]
    assert [one[10_000]["delay"] for one in (high, medium)] == [2.5, 5.0]


def test_queues_with_their_own_thresholds_or_curve_get_their_own_table(run: Run, shop: Path) -> None:
    tables = {table["queue_name"]: table for table in json.loads(run("check", shop, "--json").stdout)["delays"]}

    assert tables.keys() == {None, "email-queue", 'dotted."name"'}
    assert rows(tables["email-queue"], "low")[1_700]["should_shed"] is False
    assert rows(tables["email-queue"], "low")[1_701]["should_shed"] is True
    assert rows(tables['dotted."name"'], "high")[5_000]["delay"] == 0.5
    assert rows(tables[None], "high")[5_000]["delay"] == 0.25


def test_single_queues_can_be_asked_for(run: Run, shop: Path) -> None:
    arguments = ("check", shop, "--queue", "unheard-of", "--queue", "email-queue", "--queue", "email-queue")
    assert [table["queue_name"] for table in json.loads(run(*arguments, "--json").stdout)["delays"]] == [
        "unheard-of",
        "email-queue",
    ]
    assert "delays of queue email-queue" in run(*arguments).stdout


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("recovery.manual_override=true", "recovery.manual_override is on"),
        ("recovery.emergency_mode=true", "recovery.emergency_mode is on"),
        ("mode=observe", "mode is observe"),
    ],
)
def test_what_suspends_the_law_is_said_beside_its_table(run: Run, setting: str, said: str) -> None:
    suspended = run("check", "--env", "--set", setting).stdout
    assert said in suspended
    assert "red        shed" in suspended


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_table_fits(run: Run, columns: str) -> None:
    result = run("check", "--env", COLUMNS=columns)
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert "2,000 yellow 66.25 ms yellow 500 ms red shed" in [" ".join(line.split()) for line in lines]


def test_edges_of_what_can_be_configured(run: Run) -> None:
    top = 2**53 - 1
    settings = (
        *("--set", f"thresholds.low_priority.red_max={top}", "--set", "curve.shed_permille=1000"),
        *("--set", "curve.red_max_delay=1h", "--set", "polling.enabled=false", "--set", "polling.cache_ttl=0"),
    )
    result = run("check", "--env", "--json", *settings)
    assert result.exit_code == 0, result.stderr
    low = rows(json.loads(result.stdout)["delays"][0], "low")
    assert low[top]["should_shed"] is False
    assert low[top]["delay"] == 5_400


@pytest.mark.parametrize(
    ("rate", "narrow"), [(10, []), (70, ["low"]), (200, ["low"]), (1_000, ["high", "medium", "low"])]
)
def test_a_window_that_one_poll_fills(run_on_engine: Run, tmp_path: Path, rate: int, narrow: list[str]) -> None:
    file = tmp_path / "shop.toml"
    file.write_text("")
    result = run_on_engine("check", file, "--rate", rate, "--json")
    assert result.exit_code == 0
    warnings = json.loads(result.stdout)["warnings"]
    for warning in warnings:
        assert f"{rate:g} jobs/s are {rate * 6:,} jobs in one poll (5 s + up to 1 s)" in warning
    assert [
        next(name for name in ("high", "medium", "low") if f"{name}_priority" in each) for each in warnings
    ] == narrow
    people = run_on_engine("check", file, "--rate", rate).stdout
    assert people.count("warning: thresholds:") == len(narrow)


def test_bounds_out_of_order_are_a_warning(run_on_engine: Run, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text("[queues.mail.thresholds.low_priority]\nred_max = 50000")
    result = run_on_engine("check", file)
    assert result.exit_code == 0
    assert "warning: thresholds of mail: with" in result.stdout
    assert "low jobs wait less than medium ones" in result.stdout


# Queues named by URLs, as those of SQS or of a broker may be.
SECRET_NAMES = (
    "redis://somebody:hunter2@queues.example/0",
    "amqp://:hunter2@broker.example/jobs",
    "redis://somebody:hun/hunter2@queues.example/1",
    "https://queues.example/jobs?password=hunter2&db=0",
)


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_it_prints_no_password_of_a_url(run: Run, tmp_path: Path, name: str) -> None:
    valid = (
        f"[queues.{name!r}.circuit]\nfailure_threshold = 9\n[queues.{name!r}.thresholds.low_priority]\nred_max = 9000\n"
    )
    faulty = f'mode = "{name}"\n[queues.{name!r}.circuit]\nfailure_threshold = 0\n"{name}" = 1\n'
    for text, code in ((valid, 0), (faulty, 1)):
        file = str(write(tmp_path, text))
        for arguments in ((file,), (file, "--json"), (file, "--queue", name), (file, "--set", f'queues."{name}".x=1')):
            result = run("check", *arguments)
            assert result.exit_code in {code, 2}
            assert "hunter2" not in result.output + result.stderr, arguments
            assert "***" in result.output + result.stderr or "withheld" in result.output + result.stderr
    config = json.loads(run("check", str(write(tmp_path, valid)), "--json").stdout)["config"]
    assert len(config["queues"]) == 1
    assert run("check", str(write(tmp_path, valid)), "--queue", f"{name}\n").exit_code == 2
    assert "hunter2" not in run("check", str(write(tmp_path, valid)), "--queue", f"{name}\n").stderr


HELD = """
[age]
target = "5s"
store = "rediss://somebody@budget.example/0"
[queues.mail.age]
target = "10s"
calls = 100
[queues."mail-*".age]
low_floor = 0.2
[queues.clicks.age]
target = "none"
"""


def test_what_follows_from_an_age_is_shown(run: Run, tmp_path: Path) -> None:
    result = run("check", write(tmp_path, HELD))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "ages to be held" in result.stdout
    assert "delays of queue clicks" in result.stdout
    assert "delays of all queues" not in result.stdout
    assert "delays of queue mail" not in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("  mail "))
    assert row.split()[1:10] == ["10", "s", "1", "s", "6", "s", "3", "0.5", "%"]
    assert result.stdout.splitlines()[-1].startswith('warning: queues."mail-*".age.low_floor is 0.2: ')
    assert "somebody" not in result.stdout


def test_what_follows_from_an_age_for_scripts(run: Run, tmp_path: Path) -> None:
    result = run("check", write(tmp_path, HELD), "--json")
    told = json.loads(result.stdout)
    assert [table["queue_name"] for table in told["delays"]] == ["clicks"]
    assert {age["queue_name"]: (age["target_ms"], age["calls_per_second"], age["key"]) for age in told["ages"]} == {
        None: (5_000, 2_000, None),
        "mail": (10_000, 100, "bp:{mail}:age"),
        "mail-*": (5_000, 2_000, None),
    }
    shared = told["ages"][0]
    assert (shared["tick_ms"], shared["drain_window_ms"], shared["gain_most_permille"]) == (1_000, 3_000, 1_500)
    assert (shared["oldest_sample_ms"], shared["patient_ms"], shared["low_floor_permille"]) == (600_000, 2_000, 5)
    assert shared["store"] == "rediss://***@budget.example/0"
    assert len(told["warnings"]) == 1


def test_the_age_of_chosen_queues_alone(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path, HELD)
    told = json.loads(run("check", file, "--json", "-q", "mail-eu", "-q", "clicks").stdout)
    assert [age["queue_name"] for age in told["ages"]] == ["mail-eu"]
    assert told["ages"][0]["low_floor_permille"] == 200
    assert [table["queue_name"] for table in told["delays"]] == ["clicks"]


def test_without_a_target_nothing_is_said_of_ages(run: Run, shop: Path) -> None:
    assert "ages to be held" not in run("check", shop).stdout
    assert json.loads(run("check", shop, "--json").stdout)["ages"] == []


def test_what_is_shown_of_ages_reads_back(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path, HELD.replace("somebody@", ""))
    shown, _, _ = run("check", file).stdout.partition("\ndelays of ")
    config, again = BackpressureConfig.from_file(file), BackpressureConfig.from_mapping(tomllib.loads(shown))
    assert again.age == config.age
    assert {name: again.age_of(name) for name in config.queues} == {name: config.age_of(name) for name in config.queues}


def test_an_age_that_cannot_be_held_is_a_fault(run: Run, tmp_path: Path) -> None:
    result = run("check", write(tmp_path, f'{HELD}\n[polling]\ninterval = "700s"\nbusy_interval = "700s"\n'))
    assert result.exit_code == 1
    assert result.stderr.startswith("age.target is 5.0: needs statistics of at most 600 s")


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_it_prints_no_password_of_a_store(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = write(tmp_path, HELD.replace("somebody@", "somebody:hunter2@"))
    result = run("check", file, *arguments)
    assert result.exit_code == 1
    assert "hunter2" not in result.output + result.stderr
    assert "withheld" in result.output + result.stderr
