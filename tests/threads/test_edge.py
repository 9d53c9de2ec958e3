"""When an open circuit becomes half-open, threads race for the probe: in each interval only one gets it."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING

from backpressure._engine.settings import CircuitSettings
from backpressure._model.config.circuit import CircuitConfig

if TYPE_CHECKING:
    from backpressure._engine.border import EngineModule

THREADS = 4
PROBES = 100_000
INTERVAL_NS = 1_000_000_000
CIRCUIT = CircuitSettings.of(CircuitConfig(failure_threshold=1, recovery_timeout=1, probe_interval=1))


class Racers:
    """Threads that want probes. A thread that gets one moves the time on, to the next instant that allows one."""

    def __init__(self, module: EngineModule) -> None:
        self.now_ns = INTERVAL_NS
        self.probes: list[int] = []
        self._read = threading.local()
        self._turns = itertools.count()
        self._breaker = module.Breaker(CIRCUIT, self.read)
        self._breaker.record(False)
        self.now_ns += INTERVAL_NS

    def read(self) -> int:
        """Return the time, often so late that another thread has moved it on already."""
        now_ns = self._read.now_ns = self.now_ns
        if next(self._turns) % 4 == 0:
            time.sleep(0)
        return now_ns

    def race(self) -> None:
        while len(self.probes) < PROBES:
            ticket = self._breaker.try_acquire()
            if ticket is None:
                continue
            assert ticket.probe
            self.probes.append(self._read.now_ns)
            if len(self.probes) % 2:
                self._breaker.record(False, ticket)  # it opens again; otherwise the lease runs out
            self.now_ns += INTERVAL_NS


def test_never_more_than_one_probe_in_an_interval(engine_module: EngineModule) -> None:
    racers = Racers(engine_module)
    threads = [threading.Thread(target=racers.race) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(racers.probes) >= PROBES
    assert len(set(racers.probes)) == len(racers.probes)
