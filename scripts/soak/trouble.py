"""The trouble during the soak: the server flaps, an operator changes settings all the time, and the process forks."""
# ruff: noqa: S311 - chance, not secrets

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from scripts.soak.producers import PRIORITIES, QUEUES
from scripts.soak.tally import engine_counts

from backpressure import (
    BacklogThresholds,
    BacklogWindow,
    BackpressureConfig,
    CircuitConfig,
    CurveConfig,
    PollingConfig,
    RecoveryStrategy,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis
    from scripts.soak.producers import Crew, ThreadCrew

    from support.servers import Server

# Milliseconds and tens of jobs instead of seconds and thousands, so that every zone, state and age is passed often.
CONFIG = BackpressureConfig(
    thresholds=BacklogThresholds(
        high_priority=BacklogWindow(green_max=20, yellow_max=60, red_max=120),
        medium_priority=BacklogWindow(green_max=15, yellow_max=40, red_max=100),
        low_priority=BacklogWindow(green_max=10, yellow_max=30, red_max=80),
    ),
    curve=CurveConfig(yellow_min_delay=0.001, yellow_max_delay=0.01, red_max_delay=0.05),
    circuit=CircuitConfig(failure_threshold=4, recovery_threshold=2, recovery_timeout=0.3, probe_interval=0.05),
    polling=PollingConfig(interval=0.1, jitter=0.02, timeout=0.1, max_backoff=0.4, cache_ttl=0.4),
    recovery=RecoveryStrategy(graceful_degrade=0.4),
    max_queues=8,
)
_VARIANTS = (
    CONFIG,
    CONFIG.evolve({"thresholds.low_priority.red_max": 200, "curve.scale_yellow": False}),
    CONFIG.evolve({"polling.interval": 0.2, "polling.cache_ttl": 0.6, "recovery.fallback_mode": "permissive"}),
    CONFIG.evolve({"polling.enabled": False, "recovery.fallback_mode": "circuit_only"}),
)
_HANG_SECONDS = 30


class Trouble:
    """A thread that makes `happen` happen again and again until `stop`."""

    def __init__(self, interrupted: threading.Event) -> None:
        self.times = 0
        self.surprises: list[str] = []
        self._interrupted = interrupted
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End when the current act is over."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.happen()
            except Exception as error:  # noqa: BLE001 - told at the end
                if self._interrupted.wait(0.5):
                    break  # Ctrl-C ended the server too
                self.surprises[5:] = [f"{type(self).__name__}: {error!r}"]

    def pause(self, least: float, most: float) -> None:
        """Wait, but no longer than until the end of the run."""
        self._ended.wait(random.uniform(least, most))

    def happen(self) -> None:
        """Do it once."""
        raise NotImplementedError


class Flapping(Trouble):
    """The server fills and empties its queues, then freezes, or dies and comes back empty."""

    def __init__(self, interrupted: threading.Event, server: Server) -> None:
        super().__init__(interrupted)
        self._server = server

    def happen(self) -> None:
        """See `Trouble.happen`."""
        with self._server.client() as client:
            for _ in range(random.randint(4, 12)):
                self._fill(client)
                self.pause(0.2, 0.6)
        self.times += 1
        if random.random() < 0.5:
            self._server.freeze()
            self.pause(0.1, 2)
            self._server.resume()
        else:
            self._server.kill()
            self.pause(0.1, 2)
            self._server.start()

    @staticmethod
    def _fill(client: redis.Redis) -> None:
        pipeline = client.pipeline()
        for queue, most in zip(QUEUES, (10, 50, 150, 10), strict=True):
            pipeline.delete(queue)
            pipeline.rpush(queue, *range(1 + random.randrange(most)))
        pipeline.execute()


class Operator(Trouble):
    """Somebody who reconfigures, overrides, and forces circuits."""

    def __init__(self, interrupted: threading.Event, crews: Sequence[Crew]) -> None:
        super().__init__(interrupted)
        self._crews = crews

    def happen(self) -> None:
        """See `Trouble.happen`."""
        self.pause(0.2, 1)
        controller = random.choice(self._crews).controller
        circuit = controller.circuit(random.choice(QUEUES))
        self.times += 1
        match random.randrange(6):
            case 0:
                controller.set_manual_override(True, for_=0.1)
            case 1:
                controller.set_emergency_mode(True)
                self.pause(0, 0.1)
                controller.set_emergency_mode(False)
            case 2:
                circuit.force_open()
                self.pause(0, 0.2)
                random.choice([circuit.force_close, circuit.reset])()
            case 3:
                controller.health()
            case _:
                controller.reconfigure(random.choice(_VARIANTS))


class Forks:
    """Children that decide for themselves, count alone, and get a poller of their own. Forked by the calling thread."""

    def __init__(self, crews: Sequence[ThreadCrew]) -> None:
        self.times = self.failed = 0
        self._crews = crews
        self._children: set[int] = set()

    def fork(self) -> None:
        """Start a child."""
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _child(self._crews)
        self.times += 1
        self._children.add(pid)

    def reap(self, *, wait: bool = False) -> None:
        """Take note of the children that have ended, or wait for all."""
        for pid in self._children.copy():
            ended, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
            if ended:
                self._children.discard(pid)
                self.failed += status != 0


def _child(crews: Sequence[ThreadCrew]) -> None:
    """Never returns: a child must not touch the objects of the parent's threads and frames."""
    status = 1
    try:
        faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True)
        for crew in crews:
            _decide(crew)
        status = 0
    except BaseException:  # noqa: BLE001 - told here, because the parent sees only the status
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(status)


def _decide(crew: ThreadCrew) -> None:
    controller, asked = crew.controller, 0
    for priority in PRIORITIES:
        for queue in QUEUES * 10:
            controller.suggest_throttle(priority, queue)
            asked += 1
    counted = engine_counts(crew.registry)[0].total()
    assert counted == asked, f"{crew.name}: a child asked {asked} times and counted {counted}"  # noqa: S101
    controller.start()
    polling = controller.health()["polling_enabled"]
    end = time.monotonic() + 5
    while polling and not controller.health()["poller_alive"]:
        assert time.monotonic() < end, f"{crew.name}: no poller in the child"  # noqa: S101
        time.sleep(0.01)
    controller.stop()
