"""Under every fault of the catalogue producers get answers: from the last sample, the fallback, then fresh ones."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import pytest

from backpressure import Reason
from faults.catalogue import FAULTS, RIGHTS, Fault, Scene
from faults.producers import CONFIG, QUEUES, Producer
from faults.proxy import Proxy
from faults.resolver import Resolver
from support import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faults.conftest import Hire

# A machine under load may count these together with any other.
STALLS = {"timeout", "deadline"}
RED, FALLBACK = 2.75, 0.5  # delays, in seconds
# The way from the last sample to the fallback, seen from its beginning or from its middle.
GLIDES = ([Reason.BACKLOG_RED, Reason.STATS_STALE], [Reason.STATS_STALE])


@pytest.fixture(params=FAULTS, ids=lambda fault: fault.name)
def fault(request: pytest.FixtureRequest) -> Fault:
    """Each fault in turn."""
    fault: Fault = request.param
    return fault


@pytest.fixture
def scene(fault: Fault, binary: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A server with the fault's options, its queues full."""
    with (
        servers.Server(binary=binary, port=None, sentinel="", user=RIGHTS, **fault.options) as server,
        Proxy(server.port) as proxy,
        server.client() as admin,
    ):
        scene = Scene(server, proxy, Resolver(monkeypatch), admin)
        scene.fill()
        yield scene


def test_producers_are_told_what_to_do(
    fault: Fault, scene: Scene, hire: Hire, record_property: Callable[[str, object], None]
) -> None:
    hit = [queue for queue in QUEUES if queue not in fault.spared]
    crew = hire(scene.url(fault.way))
    crew.until_told(Reason.BACKLOG_RED)

    crew.forget()  # not later, because samples age while a server goes down
    with fault.provoke(scene):
        crew.until_told(Reason.FALLBACK_CONSERVATIVE, *hit, others=Reason.BACKLOG_RED)
        crew.until(lambda producer: fault.error_types & producer.errors().keys())
        for name, figure in crew.figures().items():
            record_property(name, figure)
        for producer in crew.producers:
            record_property(producer.name, dict(producer.errors()))
            check(producer, fault, hit)

    crew.until_told(Reason.BACKLOG_RED)
    crew.until(lambda producer: producer.controller.health()["provider"] == "ok")
    for producer in crew.producers:
        assert {str(state) for state in producer.controller.health()["circuit_states"].values()} == {"closed"}


def check(producer: Producer, fault: Fault, hit: list[str]) -> None:
    """Check that `producer` got the right answers during the fault."""
    assert producer.errors().keys() <= fault.error_types | STALLS, producer.name
    assert len(producer.durations_ns) > 10, "decisions went on"
    # The median of several polls, because a machine under load may delay any one.
    assert statistics.median(producer.polls) <= CONFIG.polling.timeout + 0.5
    for queue in hit:
        told = producer.reasons(queue)
        first = told.index(Reason.FALLBACK_CONSERVATIVE)
        # If the machine was so slow that the producer may have missed the change, there is none to check.
        if producer.told[queue][first].gap < CONFIG.recovery.graceful_degrade / 2:
            assert told[max(0, first - 2) : first] in GLIDES, (producer.name, told)
    assert producer.delays[Reason.BACKLOG_RED] <= {RED}
    assert all(FALLBACK <= delay <= RED for delay in producer.delays[Reason.STATS_STALE])
    assert producer.delays[Reason.FALLBACK_CONSERVATIVE] == {FALLBACK}
