"""Ten producer processes on a real server: a switch reaches them all, and ends everywhere in time, server or not."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backpressure._fleet.operator import Operator
from support import redis_fixtures
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure._engine.border import EngineModule
    from support import servers

TESTS = Path(__file__).parent.parent
HOW = ("blocking",) * 4 + ("rq",) + ("asynchronous",) * 4 + ("saq",)
SECONDS = 4.0


class Member:
    """A process, and what it said last."""

    def __init__(self, how: str, env: dict[str, str]) -> None:
        self.how = how
        self.said: list[tuple[str, float]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "processes.fleet_member", how],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, at = line.split()
            self.said.append((word, float(at)))

    @property
    def last(self) -> str:
        return self.said[-1][0] if self.said else ""

    def end(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture
def members(engine_name: str, engine_module: EngineModule) -> Iterator[tuple[list[Member], servers.Server]]:
    del engine_module
    with redis_fixtures.start() as server, contextlib.ExitStack() as stack:
        with server.client() as client:
            for key in ("jobs", "rq:queue:jobs", "saq:jobs:queued"):
                client.rpush(key, *range(2_000))
        env = {**os.environ, "BACKPRESSURE_ENGINE": engine_name, "TEST_REDIS_URL": server.url, "PYTHONPATH": str(TESTS)}
        made = [Member(how, env) for how in HOW]
        for member in made:
            stack.callback(member.end)
        eventually(lambda: all(member.last == "off" for member in made), 60)
        yield made, server


@pytest.mark.parametrize("killed", [False, True], ids=["server stays", "server is killed"])
def test_a_switch_reaches_ten_processes_and_ends_by_itself(
    members: tuple[list[Member], servers.Server], killed: bool
) -> None:
    made, server = members
    with server.client() as client:
        operator = Operator(client, "shop", by="ana")
        eventually(lambda: len(operator.members()) == len(HOW))
        switch = operator.override(True, reason="sale", for_=SECONDS)
        turned = time.monotonic()
        assert switch is not None
        left = (switch.until_ms - operator.control().now_ms) / 1_000
        ends = time.monotonic() + left
    eventually(lambda: all(member.last == "on" for member in made))
    if killed:
        server.kill()
    eventually(lambda: all(member.last == "off" for member in made))
    for member in made:
        (_, on), (_, off) = member.said[-2:]
        assert turned <= on < ends, member.how
        # What is promised, and by how much it may be early: the way of a message.
        assert ends - 0.5 < off < ends + 1.0, member.how
        assert len(member.said) == 3, member.how
