"""No secret of a process or an operator gets into a fleet's keys, into the log, or into what is shown."""

from __future__ import annotations

import contextlib
import json
import logging
from typing import TYPE_CHECKING

import pytest

from backpressure import BackpressureConfig, BackpressureController, FleetConfig, PollingConfig, RedisStatsProvider
from backpressure._fleet.operator import Operator
from support import redis_fixtures, servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from cli.conftest import Run

CANARY = "canary-of-twenty-bytes"


@pytest.fixture
def run() -> Run:
    from click.testing import CliRunner

    from backpressure.cli import application

    return lambda *arguments, **environ: CliRunner().invoke(application(), list(map(str, arguments)), env=environ)


def test_the_canary_is_nowhere(run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("FLEET_KEY", CANARY)
    with redis_fixtures.start(requirepass=CANARY) as server:
        url = f"redis://default:{CANARY}@{servers.HOST}:{server.port}/0"
        config = BackpressureConfig(
            polling=PollingConfig(interval=0.05, jitter=0, max_backoff=0.05),
            fleet=FleetConfig(name="shop", key="$FLEET_KEY"),
        )
        provider = RedisStatsProvider(url, ["mail"])
        with contextlib.closing(provider), BackpressureController(config, provider) as controller:
            override = ["override", "on", "--reason", f"see {url}", "--by", "ana", "--sign-with", "FLEET_KEY"]
            for command in (override, ["audit"], ["fleet"]):
                said = run(*command, "--fleet", "shop", "--redis-url", url)
                assert said.exit_code == 0, said.output
                assert CANARY not in said.output
            eventually(lambda: controller.health()["manual_override"])
            server.kill()
            eventually(lambda: controller.health()["fleet"]["problem"])
            server.start()
            eventually(lambda: controller.health()["fleet"]["problem"] is None)
            with server.client() as client:
                # After the outage: what the process told last may hold what went wrong.
                Operator(client, "shop", by="ana", key=CANARY).override(True, reason="x")
                dump = [client.dump(key) or b"" for key in client.scan_iter("*")]
            health = json.dumps(controller.health())
    assert len(dump) >= 4
    assert not [value for value in dump if CANARY.encode() in value]
    assert CANARY not in health
    assert CANARY not in caplog.text
