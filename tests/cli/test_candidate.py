"""A candidate at the command line: beside the real advice in explain, check and top."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import BackpressureConfig

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from cli.conftest import Run

TEXT = """\
[candidate.thresholds.low_priority]
red_max = 5_000

[candidate.queues."mail-*".curve]
shed_permille = 100
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(TEXT)
    return path


def test_explain_tells_both(run_on_engine: Run, file: Path) -> None:
    told = json.loads(run_on_engine("explain", "--config", file, "--backlog", 950, "--json").stdout)
    assert told["advice"]["low"]["should_shed"] is True
    assert told["candidate"]["low"] == {"zone": "red", "delay": 1.425, "should_shed": False, "reason": "backlog_red"}
    of_queue = run_on_engine("explain", "--config", file, "-q", "mail-eu", "--backlog", 951, "--json")
    assert json.loads(of_queue.stdout)["candidate"]["low"]["should_shed"] is True
    alone = json.loads(run_on_engine("explain", "--backlog", 950, "--json").stdout)
    assert alone["candidate"] is None


def test_explain_shows_both(run: Run, file: Path) -> None:
    lines = run("explain", "--config", file, "--backlog", 950).stdout.splitlines()
    assert next(line for line in lines if "priority" in line).split() == [
        "priority",
        "zone",
        "advice",
        "reason",
        "candidate",
    ]
    assert next(line for line in lines if line.split()[:1] == ["low"]).split()[-2:] == ["1.425", "s"]
    assert "candidate" not in run("explain", "--backlog", 950).stdout


def test_check_shows_the_delays_of_both_and_settings_that_read_back(run: Run, file: Path) -> None:
    shown = run("check", file)
    assert shown.exit_code == 0
    assert "delays of all queues without their own, by the candidate" in shown.stdout
    assert "delays of queue mail-*, by the candidate" in shown.stdout
    settings = shown.stdout.partition("delays of")[0]
    assert BackpressureConfig.from_mapping(tomllib.loads(settings)) == BackpressureConfig.from_file(file)
    told = json.loads(run("check", file, "--json").stdout)

    def shed_from(tables: list[dict[str, Any]]) -> list[int]:
        return [next(row["backlog"] for row in table["rows"] if row["low"]["should_shed"]) for table in tables]

    assert shed_from(told["delays"]) == [901]
    assert shed_from(told["candidate_delays"]) == [4_101, 951]


def test_top_tells_what_the_candidate_says_now(
    run_on_engine: Run, file: Path, redis_client: redis.Redis, redis_url: str
) -> None:
    redis_client.rpush("mail-eu", *range(951))
    redis_client.rpush("sms", *range(951))
    arguments = ("--redis-url", redis_url, "--config", file, "-q", "mail-eu", "-q", "sms", "--once", "--json")
    mail, sms = json.loads(run_on_engine("top", *arguments).stdout)["queues"]
    assert [queue["low"]["should_shed"] for queue in (mail, sms)] == [True, True]
    assert [queue["candidate"]["low"]["should_shed"] for queue in (mail, sms)] == [True, False]


def test_a_candidate_that_would_hold_an_age_is_refused(run: Run) -> None:
    result = run("check", "--env", BACKPRESSURE_CANDIDATE__AGE__TARGET="5s")
    assert result.exit_code == 1
    assert "candidate.age.target is '5s': how long jobs would wait depends on which of them go" in result.stderr
