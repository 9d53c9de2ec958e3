"""A running controller while its real server is killed, frozen and started again: nobody who enqueues is hurt."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import redis

import redis_fixtures
from backpressure import BackpressureConfig, CircuitOpenError, PollingConfig, Reason, RecoveryStrategy
from backpressure.clock import SystemClock
from backpressure.providers import RedisStatsProvider
from controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import servers
    from backpressure import BackpressureController
    from controller_fixtures import MakeController

CONFIG = BackpressureConfig(
    polling=PollingConfig(interval=0.1, jitter=0, timeout=0.1, max_backoff=0.2, cache_ttl=0.5),
    recovery=RecoveryStrategy(graceful_degrade=0.5),
)


class Asking(threading.Thread):
    """A producer that asks without a break, and remembers the answers."""

    def __init__(self, controller: BackpressureController) -> None:
        super().__init__(daemon=True)
        self.controller = controller
        self.reasons: Counter[Reason] = Counter()
        self.error: BaseException | None = None
        self.ended = threading.Event()

    def run(self) -> None:
        try:
            while not self.ended.wait(0.0005):
                self.reasons[self.controller.suggest_throttle("medium", "jobs").reason] += 1
        except BaseException as error:  # noqa: BLE001 - that none comes is what is tested
            self.error = error


@pytest.fixture
def server() -> Iterator[servers.Server]:
    with redis_fixtures.start() as server:
        yield server


def fill(server: servers.Server, count: int) -> None:
    with server.client() as client:
        client.rpush("jobs", *range(count))


def kill(server: servers.Server) -> Callable[[], object]:
    server.kill()
    return server.start


def freeze(server: servers.Server) -> Callable[[], object]:
    server.freeze()
    return server.resume


@pytest.mark.parametrize("take_away", [kill, freeze])
def test_answers_go_on_and_recover_by_themselves(
    make_controller: MakeController,
    server: servers.Server,
    take_away: Callable[[servers.Server], Callable[[], object]],
) -> None:
    fill(server, 3_500)
    provider = RedisStatsProvider(server.url, ["jobs"], timeout=0.05)
    controller = make_controller(provider, CONFIG, clock=SystemClock())
    asking = Asking(controller)
    asking.start()
    eventually(lambda: asking.reasons[Reason.BACKLOG_RED])
    bring_back = take_away(server)
    eventually(lambda: asking.reasons[Reason.FALLBACK_CONSERVATIVE])
    assert asking.reasons[Reason.STATS_STALE]
    assert controller.health()["provider"] in {"connect", "timeout", "deadline"}
    assert str(controller.get_circuit_state("jobs")) == "closed"
    bring_back()
    asking.reasons.clear()
    lost_its_data = take_away is kill
    eventually(lambda: asking.reasons[Reason.BACKLOG_GREEN if lost_its_data else Reason.BACKLOG_RED])
    assert controller.health()["provider"] == "ok"
    asking.ended.set()
    asking.join(10)
    assert asking.error is None
    provider.close()


def test_a_queue_of_the_wrong_type_falls_back_and_spoils_no_other(
    make_controller: MakeController, server: servers.Server
) -> None:
    fill(server, 3_500)
    with server.client() as client:
        client.set("text", "no queue")
    provider = RedisStatsProvider(server.url, ["jobs", "text"])
    controller = make_controller(provider, CONFIG, clock=SystemClock())
    assert controller.suggest_throttle("medium", "jobs").reason is Reason.BACKLOG_RED
    assert controller.suggest_throttle("medium", "text").reason is Reason.FALLBACK_CONSERVATIVE
    assert controller.health()["polling_errors"]["wrongtype"] >= 1
    provider.close()


def test_jobs_that_cannot_be_enqueued_open_the_circuit(make_controller: MakeController, server: servers.Server) -> None:
    fill(server, 1)
    provider = RedisStatsProvider(server.url, ["jobs"])
    controller = make_controller(provider, CONFIG, clock=SystemClock())
    with server.client() as client:
        assert controller.run("high", "jobs", client.rpush, "jobs", "job") == 2
        server.kill()
        for _ in range(5):
            with pytest.raises(redis.ConnectionError):
                controller.run("high", "jobs", client.rpush, "jobs", "job")
        with pytest.raises(CircuitOpenError):
            controller.run("high", "jobs", client.rpush, "jobs", "job")
    assert str(controller.get_circuit_state("jobs")) == "open"
    provider.close()
