"""`backpressure record`: rows of a real server, its end by time, Ctrl-C and SIGTERM, and clear words."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from backpressure import Recorder, Recording
from support.servers import HOST, free_port

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from cli.conftest import Run

# A shell's background jobs, CI's among them, are started with SIGINT ignored.
HEAR_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
MAIN = f"{HEAR_INTERRUPTS}import sys; from backpressure.cli import main; sys.exit(main())"


def test_it_records_until_its_time_is_up_and_goes_on_later(
    run_on_engine: Run, redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    redis_client.rpush("mail", *range(30))
    path = tmp_path / "week.bpr"
    arguments = ["--redis-url", redis_url, "-q", "mail", "-q", "empty", "--out", str(path), "--interval", "0.1"]
    first = run_on_engine("record", *arguments, "--seconds", "0.5")
    assert first.exit_code == 0, first.output
    assert f"rows of 2 queues in {path}" in first.output
    second = run_on_engine("record", *arguments, "--seconds", "0.5", "--json")
    told = json.loads(second.stdout)
    assert (told["recording"], told["queues"], told["failures"]) == (str(path), ["mail", "empty"], 0)
    rows = list(Recording(path).queue("mail"))
    assert {row.backlog for row in rows} == {30}
    assert {row.backlog for row in Recording(path).queue("empty")} == {0}
    assert len(rows) > told["rows"] // 2 > 0
    assert {row.low_offers for row in rows} == {None}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_what_ends_it_leaves_a_whole_file(redis_url: str, tmp_path: Path, number: signal.Signals, code: int) -> None:
    path = tmp_path / "week.bpr"
    arguments = ["record", "--redis-url", redis_url, "-q", "mail", "--out", str(path), "--interval", "0.1"]
    with subprocess.Popen([sys.executable, "-c", MAIN, *arguments], stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 20
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(number)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(20) == code, said
    assert said == ""
    assert list(Recording(path).queue("mail"))


def test_kill_9_loses_the_last_minute_and_the_next_goes_on(
    run_on_engine: Run, redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    redis_client.rpush("mail", *range(7))
    path = tmp_path / "week.bpr"
    arguments = ["record", "--redis-url", redis_url, "-q", "mail", "--out", str(path), "--interval", "0.1"]
    with subprocess.Popen([sys.executable, "-c", MAIN, *arguments], stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 20
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.02)
        process.kill()
    assert path.exists()
    result = run_on_engine(*arguments, "--seconds", "0.5")
    assert result.exit_code == 0, result.output
    assert {row.backlog for row in Recording(path).queue("mail")} == {7}


def test_nothing_to_read_and_nowhere_to_write_are_findings(run_on_engine: Run, redis_url: str, tmp_path: Path) -> None:
    away = f"redis://{HOST}:{free_port()}/0"
    out = ["--out", str(tmp_path / "x.bpr"), "--seconds", "0.3"]
    unread = run_on_engine("record", "--redis-url", away, "-q", "mail", *out)
    assert unread.exit_code == 1
    assert "Connection refused" in unread.stderr
    nowhere = run_on_engine("record", "--redis-url", redis_url, "-q", "mail", "--out", str(tmp_path / "no" / "x.bpr"))
    assert nowhere.exit_code == 1
    assert "cannot be written" in nowhere.stderr
    assert run_on_engine("record", *out).exit_code == 2


def test_a_second_writer_is_refused(run_on_engine: Run, redis_url: str, tmp_path: Path) -> None:
    path = tmp_path / "week.bpr"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        Recorder(path).claim(time.time_ns() // 1_000_000)
        with contextlib.closing(sqlite3.connect(path)) as file, file:
            file.execute("UPDATE about SET value = json_set(value, '$.pid', ?) WHERE name = 'writer'", (other.pid,))
        refused = run_on_engine("record", "--redis-url", redis_url, "-q", "mail", "--out", str(path), "--seconds", "1")
        other.kill()
    assert refused.exit_code == 1
    assert f"is written by process {other.pid}" in refused.stderr
