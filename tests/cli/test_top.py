"""`backpressure top`: a look for people and for scripts, through outages, and its end when stopped."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import redis

from backpressure import (
    BackpressureConfig,
    InMemoryStatsProvider,
    Priority,
    QueueStats,
    RedisStatsProvider,
    StatsUnavailableError,
)
from backpressure._watch.watch import Watch, config_for
from backpressure.cli.top import command as top
from support import redis_fixtures, servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cli.conftest import Run

# A shell's background jobs, CI's among them, are started with SIGINT ignored.
HEAR_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
MAIN = f"{HEAR_INTERRUPTS}import sys; from backpressure.cli import main; sys.exit(main())"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def queues(redis_client: redis.Redis) -> None:
    """A queue in each zone of MEDIUM."""
    for name, backlog in (("calm", 3), ("busy", 1_250), ("full", 20_000)):
        redis_client.rpush(name, *range(backlog))


def interrupted_after(looks: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make Ctrl-C come instead of the pause after `looks` looks; return the pauses."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == looks:
            raise KeyboardInterrupt

    monkeypatch.setattr(top, "pause", pause)
    return pauses


def test_one_look_for_scripts(run_on_engine: Run, queues: None, redis_url: str) -> None:
    arguments = [part for name in ("calm", "busy", "calm", "full") for part in ("--queue", name)]
    result = run_on_engine("top", "--redis-url", redis_url, *arguments, "--once", "--json")

    assert (result.exit_code, result.stderr) == (0, "")
    look = json.loads(result.stdout)
    assert (look["provider"], look["errors"], look["problem"]) == ("ok", {}, None)
    assert [queue["queue_name"] for queue in look["queues"]] == ["calm", "busy", "full"]
    busy = look["queues"][1]
    assert (busy["backlog"], busy["problem"]) == (1_250, None)
    assert 0 <= busy["sample_age"] < 5
    assert (busy["medium"]["zone"], busy["medium"]["delay"]) == ("yellow", 0.255)
    assert look["queues"][2]["low"]["should_shed"] is True
    assert [queue["high"]["zone"] for queue in look["queues"]] == ["green", "yellow", "red"]


@pytest.mark.parametrize(
    ("columns", "cells"),
    [("80", "Y 20.3 ms Y 255 ms R shed"), ("120", "yellow 20.3 ms yellow 255 ms red shed")],
)
def test_one_look_for_people(run: Run, queues: None, redis_url: str, columns: str, cells: str) -> None:
    arguments = ("top", "--redis-url", redis_url, "--queue", "busy", "--queue", "full", "--once")
    result = run(*arguments, COLUMNS=columns)

    assert result.exit_code == 0
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert max(map(len, lines)) <= int(columns)
    (busy,) = (line for line in lines if line.startswith("busy"))
    assert f"busy 1,250 █ {cells} 0." in " ".join(busy.split())
    assert ("G green  Y yellow  R red" in result.stdout) == (columns == "80")


def test_a_long_name_is_cut_and_no_number(run: Run, redis_client: redis.Redis, redis_url: str) -> None:
    name = "a-queue-whose-name-is-longer-than-any-terminal-should-have-to-show"
    redis_client.rpush(name, *range(1_250))
    shown = run("top", "--redis-url", redis_url, "--queue", name, "--once", COLUMNS="80").stdout
    assert re.search(r"^a-queue-\S*…\s+1,250\s+█\s+Y 20.3 ms\s+Y 255 ms\s+R shed\s+\d\.\d s$", shown, re.MULTILINE)


def test_queues_have_their_own_settings(run_on_engine: Run, queues: None, redis_url: str, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text("[queues.busy.thresholds.low_priority]\nred_max = 2000")
    arguments = ("top", "--redis-url", redis_url, "--queue", "busy", "--once", "--json", "--config", file)

    def low(*more: str) -> Any:
        return json.loads(run_on_engine(*arguments, *more).stdout)["queues"][0]["low"]

    assert low()["delay"] == 4.125
    assert low("--set", "queues.busy.thresholds.low_priority.red_max=1000")["should_shed"] is True
    assert low("--set", "recovery.manual_override=true")["reason"] == "manual_override"
    assert low("--set", "mode=observe")["delay"] == 4.125
    assert "mode is observe" in run_on_engine(*arguments[:6], "--set", "mode=observe").stdout


def test_a_queue_that_cannot_be_read_spoils_no_other(
    run: Run, queues: None, redis_client: redis.Redis, redis_url: str
) -> None:
    redis_client.set("text", "no queue")
    arguments = ("top", "--redis-url", redis_url, "--queue", "busy", "--queue", "text", "--once")
    result = run(*arguments, "--json")

    assert result.exit_code == 1
    assert "backpressure top: queue 'text': " in result.stderr
    look = json.loads(result.stdout)
    busy, text = look["queues"]
    assert (busy["backlog"], busy["problem"]) == (1_250, None)
    assert (text["backlog"], text["high"]["reason"]) == (None, "fallback_conservative")
    assert "holds a string" in text["problem"]
    assert look["errors"]["wrongtype"] >= 1
    shown = run(*arguments).stdout
    assert "holds a string" in shown
    assert "failed reads: wrongtype" in shown


def test_without_a_server_one_look_is_a_finding_and_shows_no_password(run_on_engine: Run) -> None:
    url = f"redis://somebody:hunter2@127.0.0.1:{servers.dead_port()}"
    arguments = ("top", "--queue", "busy", "--once")
    result = run_on_engine(*arguments, "--json", REDIS_URL=url)

    assert result.exit_code == 1
    look = json.loads(result.stdout)
    assert look["provider"] == "connect"
    assert "check that the server runs" in look["problem"]
    assert look["problem"] in result.stderr
    people = run_on_engine(*arguments, REDIS_URL=url)
    assert people.exit_code == 1
    assert "statistics connect" in people.stdout
    assert "hunter2" not in result.output + people.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--redis-url", "redis://localhost"), "--queue"),
        (("--queue", "a"), "give --redis-url, or set REDIS_URL"),
        (("--queue", "", "--redis-url", "redis://localhost"), "give 1 to 255"),
        (("--queue", "a", "--redis-url", "ftp://:hunter2@localhost"), "no known scheme"),
        (("--queue", "a", "--redis-url", "redis://localhost", "--interval", "0"), "--interval"),
        (("--queue", "a", "--redis-url", "redis://localhost", "--config", "absent.toml"), "cannot be read"),
        (("--queue", "a", "--redis-url", "redis://localhost", "--set", "mode=monitor"), "mode is 'monitor'"),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], said: str) -> None:
    result = run("top", *arguments, "--once")
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert "hunter2" not in result.stderr


def test_a_line_of_json_for_each_look(run: Run, queues: None, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = interrupted_after(3, monkeypatch)
    result = run("top", "--redis-url", redis_url, "--queue", "busy", "--interval", "0.5", "--json")

    assert (result.exit_code, result.stderr, pauses) == (0, "", [0.5] * 3)
    assert [json.loads(line)["queues"][0]["backlog"] for line in result.stdout.splitlines()] == [1_250] * 3


def test_without_a_terminal_a_table_for_each_look(
    run: Run, queues: None, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_after(2, monkeypatch)
    result = run("top", "--redis-url", redis_url, "--queue", "busy")
    assert result.exit_code == 0
    assert len(re.findall(r"^busy +1,250", result.stdout, re.MULTILINE)) == 2


@pytest.mark.parametrize("interval", [0.1, 1.0, 60.0])
def test_any_configuration_can_be_watched_at_any_interval(interval: float) -> None:
    polling = {"enabled": False, "cache_ttl": 0, "busy_interval": 5}
    given = BackpressureConfig.from_mapping({"polling": polling, "max_queues": 1})
    config = config_for(given, interval, 2)
    config.validate()
    assert (config.polling.interval, config.polling.max_backoff, config.polling.jitter) == (interval, interval, 0)
    assert config.polling.busy_interval == interval
    assert (config.polling.enabled, config.max_queues) == (True, 2)


@contextlib.contextmanager
def watching(url: str, *names: str) -> Iterator[Watch]:
    config = config_for(BackpressureConfig(), 0.1, len(names))
    provider = RedisStatsProvider(url, names, timeout=config.polling.timeout)
    with contextlib.closing(provider), Watch(config, provider, "server", names) as watch:
        yield watch


def test_an_outage_is_shown_and_passes() -> None:
    with redis_fixtures.start() as server, watching(server.url, "busy") as watch:
        with server.client() as client:
            client.rpush("busy", *range(1_250))
        eventually(lambda: watch.look().queues[0].backlog == 1_250)

        server.kill()
        eventually(lambda: watch.look().problems())
        during = watch.look()
        assert during.provider in {"connect", "deadline", "timeout"}
        assert sum(during.errors.values()) > 0
        assert (during.queues[0].backlog, during.queues[0].history[-1]) == (1_250, None), "believed, but not read"

        server.start()
        eventually(lambda: not watch.look().problems() and watch.look().queues[0].backlog == 0)
        assert watch.look().provider == "ok"


def test_a_server_that_is_away_is_not_waited_for_by_each_queue() -> None:
    reads: list[str] = []

    class Away(InMemoryStatsProvider):
        def get_queue_stats(self, queue_name: str) -> QueueStats:
            reads.append(queue_name)
            raise self.error

        def get_all_queue_stats(self) -> NoReturn:
            raise self.error

        def get_many(self, queue_names: Iterable[str]) -> NoReturn:
            reads.extend(queue_names)
            raise self.error

        error = StatsUnavailableError("nobody answers", error_type="timeout")

    names = [f"queue-{number}" for number in range(100)]
    with Watch(config_for(BackpressureConfig(), 60, 100), Away(), "server", names) as watch:
        first = watch.look()
        del reads[:]
        second = watch.look()
    assert "nobody answers" in str(first.problem)
    assert second.queues[99].advice[Priority.LOW].reason == "cold_start"
    assert reads == []


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_leaves_at_once_with_a_clean_terminal(
    queues: None, redis_url: str, ending: signal.Signals, code: int
) -> None:
    terminal, side = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", "REDIS_URL": redis_url}
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "top", "--queue", "busy", "--interval", "60"],
        stdin=side,
        stdout=side,
        stderr=side,
        env=environ,
    )
    os.close(side)
    try:
        said = read_until(terminal, "1,250")
        assert HIDE_CURSOR in said
        asked = time.monotonic()
        process.send_signal(ending)
        said = read_to_the_end(terminal)
        assert process.wait(10) == code
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert time.monotonic() - asked < 5, "the pause is not waited out"
    assert SHOW_CURSOR in said
    assert HIDE_CURSOR not in said
    assert "Traceback" not in said
    assert "1,250" in said, "the last look stays on the screen"


def test_no_nap_is_long_enough_to_keep_a_signal_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes between Python's last check for signals and the sleep itself does not end that sleep."""
    naps: list[float] = []
    monkeypatch.setattr(top, "monotonic", lambda: sum(naps))
    monkeypatch.setattr(top, "sleep", naps.append)
    top.pause(60)
    assert sum(naps) == pytest.approx(60)
    assert max(naps) <= 0.2


def read_until(terminal: int, text: str) -> str:
    said = ""
    while text not in said:
        ready, _, _ = select.select([terminal], [], [], 20)
        assert ready, f"it fell silent: {said}"
        said += os.read(terminal, 65_536).decode(errors="replace")
    return said


def read_to_the_end(terminal: int) -> str:
    said = b""
    with contextlib.suppress(OSError):  # on Linux this means that nobody has the other side any more
        while data := os.read(terminal, 65_536):
            said += data
    return said.decode(errors="replace")


def test_it_prints_no_password_of_a_queue(run: Run, redis_url: str) -> None:
    name = "redis://u:hunter2@host/0"
    redis.Redis.from_url(redis_url).set(name, "no list")
    for more in ((), ("--json",)):
        result = run("top", "--redis-url", redis_url, "--queue", name, "--once", *more)
        assert result.exit_code == 1
        assert "redis://***@host" in result.stdout
        assert "***" in result.stderr
        assert "hunter2" not in result.output + result.stderr
