"""`backpressure serve`: it serves until it is told to end, on the loopback interface, and says what is missing."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from backpressure._fleet.operator import Operator
from cli.test_top import MAIN, read_until
from support import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from cli.conftest import Run


@contextlib.contextmanager
def serving(*arguments: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command; give the process, and the URL that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        found = re.search(r"http://\S+", said)
        assert found, said + process.communicate(timeout=20)[1]
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_serves_and_leaves_at_once(redis_url: str, ending: signal.Signals, code: int) -> None:
    with serving("--queue", "busy", REDIS_URL=redis_url) as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        assert httpx.get(f"{url}about").json()["control"] is False
        with httpx.stream("GET", f"{url}stream", timeout=20) as stream:
            lines = stream.iter_lines()
            assert any(line.startswith("event: all") for line in lines)
            asked = time.monotonic()
            process.send_signal(ending)
            assert list(lines) is not None, "the stream is ended"
        assert process.wait(20) == code
        assert time.monotonic() - asked < 10
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_other_names_and_addresses(redis_url: str) -> None:
    arguments = ("--queue", "busy", "--host", "0.0.0.0", "--allow-host", "ops.example", "--interval", "0.5")
    with serving(*arguments, REDIS_URL=redis_url) as (process, url):
        asked = url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{asked}about", headers={"host": "ops.example"}).status_code == 200
        assert httpx.get(f"{asked}about", headers={"host": "evil.example"}).status_code == 421
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert "put a proxy that knows people before it" in said


def test_a_server_that_is_away_is_no_reason_not_to_serve() -> None:
    dead = f"redis://somebody:hunter2@127.0.0.1:{servers.dead_port()}"
    with serving("--queue", "busy", "--interval", "0.2", REDIS_URL=dead) as (process, url):
        with httpx.stream("GET", f"{url}stream", timeout=20) as stream:
            whole = next(line for line in stream.iter_lines() if '"problem":"' in line)
        assert "check that the server runs" in whole
        process.send_signal(signal.SIGINT)
        said = "".join(process.communicate(timeout=20))
        assert "hunter2" not in said + whole


def test_a_fleet_is_switched_with_the_token_of_the_environment(redis_url: str, redis_client: redis.Redis) -> None:
    arguments = ("--queue", "busy", "--fleet", "shop", "--control", "--by", "ann@desk")
    environ = {"REDIS_URL": redis_url, "BACKPRESSURE_CONSOLE_TOKEN": "canary-token-5e1f"}
    with serving(*arguments, **environ) as (process, url):
        assert "#" not in url
        start = httpx.get(f"{url}about").json()["start"]
        wish = {"start": start, "kind": "override", "action": "on", "reason": "sale", "for": 60}
        headers = {"origin": url.rstrip("/"), "x-backpressure-token": "canary-token-5e1f"}
        assert httpx.post(f"{url}switch", json=wish, headers=headers | {"x-backpressure-token": "x"}).status_code == 401
        assert httpx.post(f"{url}switch", json=wish, headers=headers).status_code == 200
        process.send_signal(signal.SIGINT)
        assert "canary" not in "".join(process.communicate(timeout=20))
    (switch,) = Operator(redis_client, "shop").switches()
    assert (switch.kind, switch.by) == ("override", "ann@desk")


def test_in_a_terminal_the_token_is_shown_behind_the_address(redis_url: str) -> None:
    terminal, side = pty.openpty()
    command = [sys.executable, "-c", MAIN, "serve", "--port", "0", "--queue", "busy", "--fleet", "shop", "--control"]
    with subprocess.Popen(command, stdout=side, stderr=side, env={**os.environ, "REDIS_URL": redis_url}) as process:
        try:
            os.close(side)
            said = read_until(terminal, "Ctrl-C ends it")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()
            os.close(terminal)
    found = re.search(r"http://127\.0\.0\.1:\d+/#token=([\w-]{40,}) ", said)
    assert found, said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--queue"),
        (("--queue", "a"), "give --redis-url, or set REDIS_URL"),
        (("--queue", "a", "--redis-url", "redis://localhost", "--interval", "0"), "--interval"),
        (("--queue", "a", "--redis-url", "redis://localhost", "--port", "70000"), "--port"),
        (("--queue", "a", "--redis-url", "redis://localhost", "--host", "192.0.2.1"), "give another --host"),
        (("--queue", "a", "--redis-url", "redis://localhost", "--config", "absent.toml"), "cannot be read"),
        (("--queue", "a", "--redis-url", "redis://localhost", "--control"), "give --fleet"),
        (("--queue", "a", "--redis-url", "redis://localhost", "--control", "--fleet", "shop"), "in a terminal, or set"),
        (("--queue", "a", "--redis-url", "redis://localhost", "--fleet", "a b"), "fleet.name is 'a b'"),
        (("--queue", "a", "--redis-url", "redis://localhost", "--fleet", "shop", "--sign-with", "NOT_SET"), "NOT_SET"),
        (("--queue", "a", "--redis-url", "redis://localhost", "--fleet", "shop", "--by", "a\nb"), "--by: "),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], said: str) -> None:
    result = run("serve", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_token_that_is_too_short_is_not_repeated(run: Run) -> None:
    arguments = ("serve", "--queue", "a", "--redis-url", "redis://localhost", "--fleet", "shop", "--control")
    result = run(*arguments, BACKPRESSURE_CONSOLE_TOKEN="canary")
    assert result.exit_code == 2
    assert "BACKPRESSURE_CONSOLE_TOKEN: token is impossible: give at least 16" in result.stderr
    assert "canary" not in result.output


def test_a_port_that_is_taken(run: Run) -> None:
    with socket.create_server((servers.HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", "--queue", "a", "--redis-url", "redis://localhost", "--port", port)
    assert result.exit_code == 2
    assert "give another --host or --port" in result.stderr


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_a_missing_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for name in [name for name in sys.modules if name.startswith(("backpressure.console.", f"{missing}."))]:
        monkeypatch.delitem(sys.modules, name)
    result = run("serve", "--queue", "a", "--redis-url", "redis://localhost")
    assert result.exit_code == 2
    assert "pip install 'producer-backpressure[console]'" in result.stderr
