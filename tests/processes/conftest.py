"""Fixtures for tests of processes: other projects' servers as children, and Python programs that tell how they end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from support import redis_fixtures, servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from backpressure._engine.border import EngineModule

TESTS = Path(__file__).parent.parent
SECONDS = 30  # a process that has not ended by then hangs


class Launch(Protocol):
    """Starts a program of this environment in this folder; it is killed when the test ends, if it still runs."""

    def __call__(self, program: str, *arguments: str, **env: str) -> subprocess.Popen[bytes]: ...


@pytest.fixture
def environ(engine_name: str, engine_module: EngineModule, redis_url: str) -> dict[str, str]:
    """Return the environment of the programs under test."""
    return {**os.environ, "BACKPRESSURE_ENGINE": engine_name, "TEST_REDIS_URL": redis_url, "PYTHONPATH": str(TESTS)}


@pytest.fixture
def launch(environ: dict[str, str], tmp_path: Path) -> Iterator[Launch]:
    """Return a function that starts programs. Their output is shown if the test fails."""
    started: list[subprocess.Popen[bytes]] = []

    def launch(program: str, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        found = shutil.which(program, path=Path(sys.executable).parent)
        if found is None:
            redis_fixtures.no_server(f"no {program}: pip install {program}")
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                servers.dying_with_parent(str(found), *arguments),
                env={**environ, **env},
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.wait()
    print((tmp_path / "log").read_text(errors="replace") if started else "")


def end(process: subprocess.Popen[bytes], signal_number: int) -> int:
    """Send a process a signal and return its exit code."""
    process.send_signal(signal_number)
    return process.wait(SECONDS)


@pytest.fixture
def waiting(redis_client: redis.Redis) -> Waiting:
    """Return the queue that programs under test ask about, empty."""
    return Waiting(redis_client)


class Waiting:
    """Jobs that wait in the queue ``jobs``."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.count = 0

    def add(self, count: int) -> int:
        """Add `count` jobs; return how many wait now."""
        self._client.rpush("jobs", *range(count))
        self.count += count
        return self.count


class Python(Protocol):
    """Runs a program on the engine under test and returns how it ended; a program that hangs fails the test."""

    def __call__(self, code: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def python(engine_name: str, engine_module: EngineModule) -> Python:
    """Return a function that runs programs."""

    def run(code: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            # Later Pythons warn about forks beside threads, but these are tested here.
            [
                sys.executable,
                "-W",
                "error",
                "-W",
                "ignore:This process:DeprecationWarning",
                "-c",
                textwrap.dedent(code),
                *arguments,
            ],
            env={**os.environ, "BACKPRESSURE_ENGINE": engine_name, "PYTHONPATH": str(TESTS), **env},
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    return run
