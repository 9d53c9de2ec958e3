"""`backpressure explain`: the controller's own answers, and sentences whose numbers add up to them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from support import servers

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from cli.conftest import Run

UNITS = {"s": "1", "ms": "1e-3", "µs": "1e-6"}


def advice(run: Run, *arguments: str | Path | float) -> dict[str, Any]:
    result = run("explain", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)["advice"]
    return told


def evaluated(formula: str) -> float:
    """Calculate the formula of a sentence, before its ``=``."""
    plain = re.sub(r"([\d.]+) (s|ms|µs)\b", lambda found: f"({found[1]}*{UNITS[found[2]]})", formula.replace(",", ""))
    return float(eval(plain.replace("×", "*")))


@pytest.mark.parametrize(
    ("backlog", "priority", "zone", "delay", "reason", "why"),
    [
        (1_000, "high", "green", 0, "backlog_green", "1,000 is not above green_max (1,000): nothing to wait for"),
        (
            1_250,
            "medium",
            "yellow",
            0.255,
            "backlog_yellow",
            (
                "1,250 lies 50 % of the way from green_max (500) to yellow_max (2,000): "
                "(10 ms + 490 ms × 750/1,500) × 1 = 255 ms"
            ),
        ),
        (
            750,
            "low",
            "red",
            4.125,
            "backlog_red",
            (
                "750 lies 50 % of the way from yellow_max (500) to red_max (1,000): "
                "(500 ms + 4.5 s × 250/500) × 3/2 = 4.125 s"
            ),
        ),
        (
            20_000,
            "high",
            "red",
            2.5,
            "backlog_red",
            "20,000 has reached red_max (10,000), where delays end: 5 s × 1/2 = 2.5 s",
        ),
        (
            901,
            "low",
            "red",
            None,
            "backlog_red_shed",
            (
                "901 is above 900, which is 80 % of the way from yellow_max (500) to red_max (1,000): low jobs are "
                "shed (else it would wait 6.163 s)"
            ),
        ),
    ],
)
def test_why(
    run_on_engine: Run, backlog: int, priority: str, zone: str, delay: float | None, reason: str, why: str
) -> None:
    told = advice(run_on_engine, "--backlog", backlog)[priority]
    assert (told["zone"], told["delay"], told["should_shed"]) == (zone, delay, delay is None)
    assert (told["reason"], told["why"]) == (reason, why)


@pytest.mark.parametrize("setting", ["mode=enforce", "curve.scale_yellow=false", "curve.red_max_delay=123456ms"])
@pytest.mark.parametrize("backlog", [101, 333, 501, 999, 1_001, 1_999, 2_001, 4_999, 5_001, 9_999, 10_000])
def test_formulas_add_up(run_on_engine: Run, setting: str, backlog: int) -> None:
    checked = 0
    for told in advice(run_on_engine, "--backlog", backlog, "--set", setting).values():
        if told["delay"]:
            *_, calculation = told["why"].split(": ")
            formula, _, _ = calculation.partition(" = ")
            assert evaluated(formula) == pytest.approx(told["delay"], rel=1e-3), told["why"]
            checked += 1
    assert checked


def test_a_queue_is_judged_by_its_own_thresholds_and_curve(run_on_engine: Run, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('[queues."email-queue"]\nthresholds.low_priority.red_max = 2000\ncurve.scale_low = 2')

    def told(*more: str) -> Any:
        return advice(run_on_engine, "--backlog", 1_250, "--config", file, *more)["low"]

    assert told()["should_shed"] is True
    assert told("--queue", "other")["should_shed"] is True
    own = told("--queue", "email-queue")
    assert (own["should_shed"], own["delay"]) == (False, 5.5)
    assert told("--queue", "email-queue", "--set", "queues.email-queue.curve.scale_low=3")["delay"] == 8.25


def test_no_queue_in_particular_has_nothing_of_its_own(run: Run) -> None:
    told = advice(run, "--backlog", 1_250, "--set", "queues.any.thresholds.low_priority.red_max=3000")
    assert told["low"]["should_shed"] is True


@pytest.mark.parametrize(
    ("circuit", "reason", "retry_after", "why"),
    [
        ("open", "circuit_open", 60, "the circuit is open: jobs are rejected for recovery_timeout (60 s)"),
        ("half-open", "circuit_half_open", 5, "the circuit is half-open and its probe is under way"),
    ],
)
def test_circuits(run_on_engine: Run, circuit: str, reason: str, retry_after: float, why: str) -> None:
    for told in advice(run_on_engine, "--backlog", 0, "--circuit", circuit).values():
        assert (told["reason"], told["should_shed"]) == (reason, True)
        assert told["retry_after"] == pytest.approx(retry_after, abs=0.01)
        assert told["why"].startswith(why)


@pytest.mark.parametrize("circuit", ["open", "half-open"])
def test_high_may_attempt_a_circuit(run_on_engine: Run, circuit: str) -> None:
    attempting = ("--circuit", circuit, "--set", "circuit.high_priority=attempt")
    told = advice(run_on_engine, "--backlog", 3_000, *attempting)
    assert (told["high"]["reason"], told["high"]["delay"]) == ("backlog_yellow", 0.1275)
    assert told["high"]["why"].startswith("circuit.high_priority is attempt, hence: 3,000 lies")
    assert told["medium"]["should_shed"] is True


@pytest.mark.parametrize("switch", ["manual_override", "emergency_mode"])
def test_switches_let_everything_go(run_on_engine: Run, switch: str) -> None:
    for told in advice(run_on_engine, "--backlog", 9_999, "--set", f"recovery.{switch}=true").values():
        assert (told["delay"], told["reason"]) == (0, switch)
        assert told["why"] == f"recovery.{switch} is on: everything goes at once"


def test_observing_it_says_what_would_be_told(run_on_engine: Run) -> None:
    observing = ("explain", "--backlog", "9999", "--set", "mode=observe")
    result = run_on_engine(*observing, "--json")
    told = json.loads(result.stdout)
    assert (told["mode"], told["advice"]["low"]["reason"]) == ("observe", "backlog_red_shed")
    assert "mode is observe" in run_on_engine(*observing).stdout


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_answer_for_people_fits(run: Run, columns: str) -> None:
    result = run("explain", "--backlog", "1250", COLUMNS=columns)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= int(columns)
    words = " ".join(result.stdout.split())
    assert "high yellow 20.31 ms backlog_yellow" in words
    assert "low red shed backlog_red_shed" in words
    assert "(10 ms + 490 ms × 250/4,000) × 1/2 = 20.31 ms" in words


def test_reads_the_queue(run_on_engine: Run, redis_client: redis.Redis, redis_url: str) -> None:
    redis_client.rpush("jobs:email-queue", *range(1_250))
    where = ("--queue", "email-queue", "--redis-url", redis_url, "--key", "jobs:{queue}")
    told = json.loads(run_on_engine("explain", *where, "--json").stdout)

    assert (told["queue_name"], told["backlog"], told["problem"]) == ("email-queue", 1_250, None)
    assert told["server"].startswith("redis://127.0.0.1:")
    assert told["advice"]["medium"]["delay"] == 0.255
    assert "queue email-queue: 1,250 jobs waiting" in run_on_engine("explain", *where).stdout


def test_the_url_may_come_from_the_environment(run: Run, redis_client: redis.Redis, redis_url: str) -> None:
    redis_client.rpush("email-queue", *range(7))
    told = json.loads(run("explain", "--queue", "email-queue", "--json", REDIS_URL=redis_url).stdout)
    assert told["backlog"] == 7


def test_a_given_backlog_is_judged_without_a_server(run: Run) -> None:
    result = run("explain", "--backlog", "7", "--queue", "email-queue", "--json", REDIS_URL="redis://127.0.0.1:1")
    assert (result.exit_code, json.loads(result.stdout)["server"]) == (0, None)


def test_a_key_that_is_no_queue_is_a_finding(run: Run, redis_client: redis.Redis, redis_url: str) -> None:
    redis_client.set("email-queue", "text")
    result = run("explain", "--queue", "email-queue", "--redis-url", redis_url, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problem"] in result.stderr
    assert "holds a string" in result.stderr


@pytest.mark.parametrize(
    ("mode", "delay", "why"),
    [
        ("conservative", 0.5, "recovery.fallback_mode conservative delays medium jobs by a fixed time"),
        ("permissive", 0, "recovery.fallback_mode permissive delays nothing"),
        ("circuit_only", 0, "recovery.fallback_mode circuit_only leaves it to the circuit"),
    ],
)
def test_without_a_server_the_fallback_is_explained(run_on_engine: Run, mode: str, delay: float, why: str) -> None:
    url = f"redis://somebody:hunter2@127.0.0.1:{servers.dead_port()}"
    arguments = ("explain", "--queue", "email-queue", "--redis-url", url, "--set", f"recovery.fallback_mode={mode}")
    result = run_on_engine(*arguments, "--json")

    assert result.exit_code == 1
    assert "check that the server runs" in result.stderr
    told = json.loads(result.stdout)
    assert told["backlog"] is None
    assert (told["advice"]["medium"]["delay"], told["advice"]["medium"]["reason"]) == (delay, f"fallback_{mode}")
    assert told["advice"]["medium"]["why"].endswith(why)
    people = run_on_engine(*arguments)
    assert "an unknown number of jobs" in people.stdout
    assert not any("hunter2" in said for said in (result.output, people.output))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --backlog, or --queue or --config with sections of queues"),
        (("--queue", "a"), 'queues."a" has no url: give --redis-url, or set REDIS_URL'),
        (("--redis-url", "redis://localhost"), "give --backlog, or --queue or --config with sections of queues"),
        (("--backlog", "-1"), "--backlog"),
        (("--backlog", "1", "--queue", "\n"), "remove control characters"),
        (("--backlog", "1", "--circuit", "ajar"), "--circuit"),
        (("--backlog", "1", "--config", "absent.toml"), "cannot be read"),
        (("--queue", "a", "--redis-url", "ftp://:hunter2@localhost"), "no known scheme"),
        (("--queue", "a", "--redis-url", "redis://localhost", "--key", "jobs"), "{queue}"),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], said: str) -> None:
    result = run("explain", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert "hunter2" not in result.stderr


def test_a_faulty_file_is_a_finding(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "shop.json"
    file.write_text('{"mode": "monitor", "max_queues": 0}')
    result = run("explain", "--backlog", "1", "--config", file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 3


def test_it_prints_no_password_of_a_url(run: Run) -> None:
    name = "redis://somebody:hunter2@queues.example/0"
    for more in ((), ("--json",)):
        result = run("explain", "--backlog", "1250", "--queue", name, *more)
        assert result.exit_code == 0
        assert "redis://***@queues.example/0" in result.stdout
        assert "hunter2" not in result.output
