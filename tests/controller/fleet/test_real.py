"""A process in its fleet on a real server, by the system's clock: what stands still, forks and comes back."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from backpressure import BackpressureConfig, BackpressureController, FleetConfig, PollingConfig, RedisStatsProvider
from backpressure._fleet.operator import Operator
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import Server

CONFIG = BackpressureConfig(
    polling=PollingConfig(interval=0.1, jitter=0, max_backoff=0.1), fleet=FleetConfig(name="shop")
)


@pytest.fixture
def controller(own_server: Server, engine_name: str) -> Iterator[BackpressureController]:
    provider = RedisStatsProvider(own_server.url, ["mail"], timeout=5.0)
    with (
        contextlib.closing(provider),
        BackpressureController(CONFIG, provider, registry=CollectorRegistry(), _engine=engine_name) as controller,
    ):
        yield controller


@pytest.mark.parametrize("kind", ["override", "emergency", "circuit"])
def test_a_server_that_stands_still_does_not_keep_a_switch_on(
    controller: BackpressureController, own_server: Server, kind: str
) -> None:
    with own_server.client() as client:
        operator = Operator(client, "shop", by="ana")
        if kind == "circuit":
            operator.circuit("mail", "open", reason="x", for_=1.5)
        else:
            (operator.override if kind == "override" else operator.emergency)(True, reason="x", for_=1.5)
        written = time.monotonic()
    reasons = {"override": "manual_override", "emergency": "emergency_mode", "circuit": "circuit_open"}

    def holds() -> bool:
        return controller.suggest_throttle("high", "mail").reason == reasons[kind]

    eventually(holds)
    own_server.freeze()
    try:
        eventually(lambda: not holds())
        assert 1.0 < time.monotonic() - written < 2.5
    finally:
        own_server.resume()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_a_member_of_its_own(controller: BackpressureController, own_server: Server) -> None:
    with own_server.client() as client:
        operator = Operator(client, "shop", by="ana")
        eventually(lambda: len(operator.members()) == 1)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                end = time.monotonic() + 20
                while time.monotonic() < end:
                    if controller.suggest_throttle("high", "mail").reason == "manual_override":
                        os.write(writer, b"on")
                        break
                    time.sleep(0.01)
            finally:
                os._exit(0)
        try:
            os.close(writer)
            eventually(lambda: len(operator.members()) == 2, 20)
            assert {member.pid for member in operator.members()} == {os.getpid(), pid}
            operator.override(True, reason="x")
            assert os.read(reader, 2) == b"on"
        finally:
            os.close(reader)
            os.waitpid(pid, 0)


def test_a_pushed_configuration_reaches_and_comes_back(controller: BackpressureController, own_server: Server) -> None:
    with own_server.client() as client:
        operator = Operator(client, "shop", by="ana")
        pushed = operator.push({"mode": "observe"}, reason="x")
        eventually(lambda: controller.health()["mode"] == "observe")
        eventually(lambda: operator.members()[0].config_revision == pushed.n)
        operator.push({"polling": {"timeout": "3s"}}, reason="does not fit")
        eventually(lambda: "polling.timeout is 3.0" in operator.members()[0].config_error)
        assert controller.health()["mode"] == "observe"
        operator.rollback(reason="x")
        eventually(lambda: not operator.members()[0].config_error)
        assert controller.health()["mode"] == "observe"
