"""What `top` and `explain` say of queues whose age is held: read from the budget's store, without taking part."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import AgeConfig, BackpressureConfig
from backpressure._age.budget import Budget
from backpressure._age.protocol import BacklogSeen, Demand, Report
from backpressure._age.script import budget_key
from backpressure._age.state import State
from backpressure._watch.budgets import StoredBudget
from backpressure._watch.watch import config_for
from support import servers
from support.budgets import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from cli.conftest import Run

HELD = ("--queue", "mail", "--set", "age.target=5s")
KEY = budget_key("mail")


def budget(*, seconds: int = 60, ends_ms: int | None = None, high: int = 60, drain: int = 200) -> bytes:
    """Return a state after so many seconds, in which a process asked for 60 HIGH, 180 MEDIUM and 360 LOW jobs each."""
    twin, now_ms = Budget(SETTINGS), ends_ms or int(time.time() * 1_000)
    for second in range(seconds):
        asked = (Demand(gone=high), Demand(decided=180), Demand(decided=360))
        seen = BacklogSeen(5 * drain, 5_000, 0)
        report = Report(producer_id="a1", since_ms=1_000, demands=asked, enqueued=drain, seen=seen)
        twin.call(now_ms - 1_000 * (seconds - 1 - second), report)
    return twin.packed()


@pytest.fixture
def mail(redis_client: redis.Redis) -> None:
    """A queue of 1 000 jobs whose age is held at 5 s, and whose state nobody writes any more."""
    redis_client.rpush("mail", *range(1_000))
    redis_client.set(KEY, budget())


def test_a_look_for_scripts(run_on_engine: Run, mail: None, redis_client: redis.Redis, redis_url: str) -> None:
    before = redis_client.get(KEY)
    result = run_on_engine("top", *HELD, "--redis-url", redis_url, "--once", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    (queue,) = json.loads(result.stdout)["queues"]
    assert (queue["backlog"], queue["high"], queue["medium"], queue["low"]) == (1_000, None, None, None)
    told = queue["budget"]
    assert (told["target_age"], told["age"], told["processes"], told["problem"]) == (5.0, 5.0, 1, None)
    assert (told["drain_rate"], told["granted_rate"]) == (200.0, 200.0)
    assert told["demand_rate"] == {"high": 60.0, "medium": 180.0, "low": 360.0}
    assert told["share"]["high"] == 1.0
    assert told["share"]["medium"] == pytest.approx((200 - 60 - 1.8) / 180, abs=1e-5)
    assert told["share"]["low"] == 0.005
    assert 0 <= told["asked"] < 30
    assert redis_client.get(KEY) == before
    assert redis_client.keys("bp:*") == [KEY.encode()]


def test_an_age_between_seldom_news_is_told_as_reckoned() -> None:
    twin, backlog, now_ms = Budget(SETTINGS), 1_000, 1_700_000_000_000
    for second in range(70):
        asked = (Demand(), Demand(gone=200, waiting=10), Demand())
        seen = BacklogSeen(backlog, 5_000, 0) if second % 15 == 0 else None
        twin.call(
            now_ms + 1_000 * second, Report(producer_id="a1", since_ms=1_000, demands=asked, enqueued=250, seen=seen)
        )
        backlog += 50
    said = StoredBudget("mail", AgeConfig(target=5), State.of(twin.packed()), now_ms + 69_000).sentences()
    assert said[0] == (
        "4,000 jobs (oldest 5 s), read 9 s ago; by what was enqueued since and by a drain of 200/s 22.2 s, target 5 s"
    )


@pytest.mark.parametrize(("columns", "cells"), [("80", "Y go Y 76.8 % Y 0.5 %"), ("120", "yellow go yellow 76.8 %")])
def test_a_look_for_people(run: Run, mail: None, redis_url: str, columns: str, cells: str) -> None:
    result = run("top", *HELD, "--redis-url", redis_url, "--once", COLUMNS=columns)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert f"mail 1,000 █ {cells}" in " ".join(next(line for line in lines if line.startswith("mail ")).split())
    told = " ".join(result.stdout.split())
    assert "mail: 1,000 jobs at a drain of 200/s = 5 s (oldest 5 s), target 5 s; read " in told
    assert "mail: budget 200/s for 1 process that asks for 60 high, 180 medium, 360 low; last asked " in told


def test_explained(run: Run, mail: None, redis_url: str) -> None:
    result = run("explain", *HELD, "--redis-url", redis_url)
    assert (result.exit_code, result.stderr) == (0, "")
    told = " ".join(result.stdout.split())
    assert "queue mail: 1,000 jobs waiting, circuit closed, read from " in told
    assert "high all that is asked for fits into the budget: goes at once" in told
    assert "medium 76.8 % of what is asked for fits into the budget: who waits is let go in turn, who does not" in told
    assert "low 0.5 % of what is asked for fits into the budget (its floor): the others are shed" in told
    advice = json.loads(run("explain", *HELD, "--redis-url", redis_url, "--json").stdout)["advice"]
    assert (advice["low"]["zone"], advice["low"]["share"]) == ("yellow", 0.005)
    assert advice["low"]["why"].endswith("the others are shed")


GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "age-law.md").read_text("utf-8")


def test_the_guide_shows_what_is_explained(run: Run, mail: None, redis_url: str) -> None:
    (shown,) = re.findall(r"```console\n\$ backpressure (explain .*?)\n(.*?)```", GUIDE, re.DOTALL)
    command, lines = shown
    printed = run(*command.replace("redis://localhost:6379/0", redis_url).split()).stdout.splitlines()

    def same(line: str) -> str:
        return re.sub(r"[\d.]+ m?s ago", "… ago", line).replace("redis://localhost:6379/0", redis_url)

    assert [same(line) for line in printed[:3]] == [same(line) for line in lines.splitlines()]


def test_what_comes_before_the_budget_is_told_first(run: Run, mail: None, redis_url: str) -> None:
    arguments = ("explain", *HELD, "--redis-url", redis_url, "--json")
    opened = json.loads(run(*arguments, "--circuit", "open").stdout)["advice"]
    assert {told["reason"] for told in opened.values()} == {"circuit_open"}
    switched = json.loads(run(*arguments, "--set", "recovery.manual_override=true").stdout)["advice"]
    assert {told["reason"] for told in switched.values()} == {"manual_override"}


def test_no_store_is_asked_for_a_backlog_that_was_given(run: Run) -> None:
    result = run("explain", "--backlog", "1250", *HELD)
    assert (result.exit_code, result.stderr) == (0, "")
    told = " ".join(result.stdout.split())
    assert "an age of 5 s is to be held" in told
    assert "the budget is not known: no store was asked: give --queue and --redis-url to have it read" in told


def test_a_queue_that_no_producer_has_asked_for(run: Run, redis_client: redis.Redis, redis_url: str) -> None:
    redis_client.rpush("mail", 1)
    shown = run("top", *HELD, "--redis-url", redis_url, "--once")
    assert shown.exit_code == 0
    assert "no producer has asked for the budget yet (key bp:{mail}:age)" in shown.stdout
    assert redis_client.keys("bp:*") == []


def test_a_store_that_is_away_is_a_finding(run: Run, mail: None, redis_url: str) -> None:
    away = f"age.store=redis://127.0.0.1:{servers.dead_port()}/0"
    for command in (("top", "--once"), ("explain",)):
        result = run(*command, *HELD, "--redis-url", redis_url, "--set", away)
        assert result.exit_code == 1
        assert "check that the server runs" in result.stderr
    look = json.loads(run("top", "--once", "--json", *HELD, "--redis-url", redis_url, "--set", away).stdout)
    assert (look["provider"], look["queues"][0]["backlog"]) == ("ok", 1_000)


def test_a_check_that_reads_finds_a_store_that_is_away(run: Run, mail: None, redis_url: str, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('age.target = "5s"\n[queues.mail]\n')
    arguments = ("check", file, "--read", "--redis-url", redis_url)
    assert run(*arguments).exit_code == 0
    lost = run(*arguments, "--set", f"age.store=redis://127.0.0.1:{servers.dead_port()}/0")
    assert lost.exit_code == 1
    assert "the budget of queue 'mail' cannot be read: " in lost.stderr
    assert lost.stderr.endswith("backpressure check: 1 of 1 budgets cannot be read\n")


def test_a_variable_that_names_the_store(run: Run, mail: None, redis_url: str) -> None:
    arguments = ("top", *HELD, "--redis-url", redis_url, "--once", "--set", "age.store=$BUDGETS")
    assert run(*arguments, BUDGETS=redis_url).exit_code == 0
    missing = run(*arguments)
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "BUDGETS" in missing.stderr


def test_a_queue_by_the_table_beside_one_by_the_law(run: Run, mail: None, redis_url: str, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('age.target = "5s"\n[queues.mail]\n[queues.clicks]\nage.target = "none"\n')
    look = json.loads(run("top", "--once", "--json", "--config", file, "--redis-url", redis_url).stdout)
    mail_queue, clicks = look["queues"]
    assert (mail_queue["budget"]["age"], mail_queue["low"]) == (5.0, None)
    assert (clicks["budget"], clicks["low"]["zone"]) == (None, "green")


def test_ages_do_not_hinder_long_intervals() -> None:
    given = BackpressureConfig.from_mapping(
        {
            "age": {"target": "500ms"},
            "queues": {"mail": {"age": {"target": "1s"}}},
            "polling": {"busy_interval": "200ms", "timeout": "200ms"},
        }
    )
    config = config_for(given, 60.0, 2)
    config.validate()
    assert (config.age_of("mail").target, config.age_of("other").target) == (None, None)


def looked(value: bytes | None, *, later_ms: int = 0, **age: Any) -> StoredBudget:
    return StoredBudget("mail", AgeConfig(**{"target": 5.0, **age}), State.of(value), NOW_MS + later_ms)


NOW_MS = 1_700_000_000_000


def sentences() -> Iterator[tuple[StoredBudget, str]]:
    yield looked(budget(ends_ms=NOW_MS), later_ms=301_000), "no producer has asked for 301 s: only the drain is kept"
    yield looked(budget(ends_ms=NOW_MS, high=300)), "HIGH alone asks for more than the budget, and is never refused"
    yield looked(budget(ends_ms=NOW_MS, drain=1), target=2.0), "the target is 2 jobs: the age swings with each of them"


@pytest.mark.parametrize(("stored", "said"), list(sentences()))
def test_what_is_odd_is_said(stored: StoredBudget, said: str) -> None:
    assert said in " ".join(stored.sentences())


def test_who_is_refused_how() -> None:
    from backpressure._model.vocabulary import HIGH, MEDIUM

    assert "is told when to come again" in looked(budget(ends_ms=NOW_MS)).why(MEDIUM)
    assert "is shed" in looked(budget(ends_ms=NOW_MS), medium="shed").why(MEDIUM)
    assert looked(budget(ends_ms=NOW_MS, high=300)).why(HIGH).endswith("up to half of the target (2.5 s)")
    assert looked(None).why(HIGH) == "the budget is not known here"
