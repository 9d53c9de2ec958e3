"""A run of the demo on one list: the traffic, the controller and the outage where there is one, and the watching."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from redis.exceptions import RedisError

from backpressure._controller.blocking import BackpressureController
from backpressure._engine.laws.registry import sampled_law_of
from backpressure._engine.sample import Sample
from backpressure._model.config.circuit import CircuitConfig
from backpressure._model.config.polling import PollingConfig
from backpressure._model.config.root import BackpressureConfig
from backpressure.cli.demo.outage import Outage
from backpressure.cli.demo.result import PRIORITIES, RunResult, Transition
from backpressure.cli.demo.server import DemoError
from backpressure.cli.demo.workload import QUEUE, Workload
from backpressure.providers.redis.provider import ListKey, RedisStatsProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import redis

    from backpressure._model.vocabulary import Priority, Zone
    from backpressure._telemetry.events import StateChange
    from backpressure.cli.demo.result import Counts
    from backpressure.cli.demo.server import DemoServer

__all__ = [
    "KEY_SECONDS",
    "LOOK_SECONDS",
    "RUNS",
    "Advice",
    "Comparison",
    "Run",
    "Snapshot",
    "Watcher",
    "backlog_of",
    "config_for",
    "controller_for",
    "final_of",
    "remove",
]

#: The runs in their order, and what each is about.
RUNS = {
    "without": "without backpressure",
    "with": "with backpressure",
    "outage": "with backpressure, the server taken away",
    "laws": "workers slow down: the table of zones beside an age that is held",
}
#: If the demo is killed, what it leaves on a server expires after so many seconds.
KEY_SECONDS = 600

#: How often a run is looked at.
LOOK_SECONDS = 0.1


@attrs.frozen
class Advice:
    """What producers of one priority are told at the backlog shown: zone, delay in seconds, whether they are shed."""

    zone: Zone
    delay: float
    shed: bool


@attrs.frozen(kw_only=True)
class Snapshot:
    """The state of a run. `backlog` is ``None`` if the server does not answer, `advice` if there is no controller."""

    name: str
    elapsed: float
    seconds: float
    history: tuple[int | None, ...]
    advice: Mapping[Priority, Advice] | None
    circuit: str | None
    drained: int
    counts: Mapping[Priority, Counts]

    @property
    def backlog(self) -> int | None:
        """Jobs waiting now."""
        return self.history[-1] if self.history else None


@attrs.frozen(kw_only=True)
class Comparison:
    """The state of the run that compares two laws: what jobs had waited by each that were taken, and its backlog."""

    name: str
    elapsed: float
    seconds: float
    target: float
    drain: float
    waits: Mapping[str, tuple[float, ...]]
    backlogs: Mapping[str, int | None]
    counts: Mapping[str, Counts]


class Watcher(Protocol):
    """What is told about the run. `news` is called from any thread."""

    def update(self, snapshot: Snapshot | Comparison) -> None:
        """Show the state of the run."""
        ...

    def news(self, text: str) -> None:
        """Report an event."""
        ...


def config_for(seconds: float) -> BackpressureConfig:
    """Return the configuration of a run of `seconds`.

    Thresholds and curve are the defaults; statistics are read more often and the breaker tries again earlier than by
    default, so that both are seen within the run.
    """
    recovery = round(min(max(0.06 * seconds, 0.2), 2.0), 3)
    return BackpressureConfig(
        polling=PollingConfig(interval=0.25, jitter=0.05, timeout=0.2, max_backoff=0.5),
        circuit=CircuitConfig(recovery_timeout=recovery, probe_interval=recovery / 4),
    )


class Run:
    """One run of `seconds` on the list at `key`."""

    def __init__(self, name: str, seconds: float, server: DemoServer, key: str, watcher: Watcher) -> None:
        self._name = name
        self._seconds = seconds
        self._server = server
        self._key = key
        self._watcher = watcher
        config = config_for(seconds)
        self._config = config
        self._law = sampled_law_of(config, QUEUE)
        self._law_state = self._law.new_state()
        self._began = time.monotonic()
        self._samples: list[tuple[float, int | None]] = [(0.0, 0)]
        self._transitions: list[Transition] = []

    def execute(self) -> RunResult:
        """Let producers produce, and return the result. The key is removed in every case.

        Raises:
            DemoError: the server failed where it was not meant to.
        """
        with contextlib.ExitStack() as stack:
            direct = stack.enter_context(self._server.client())
            stack.callback(remove, direct, self._key, self._watcher)
            client = stack.enter_context(self._server.client(removable=self._name == "outage"))
            controller = None if self._name == "without" else stack.enter_context(self._controlled(client))
            workload = Workload(client, self._key, self._seconds, controller)
            outage = Outage(self._server, self._seconds, self._elapsed, self._watcher.news)
            self._began = time.monotonic()
            try:
                workload.start()
                with outage if self._name == "outage" else contextlib.nullcontext():
                    self._watch(client, workload, controller)
            finally:
                workload.stop()
            return RunResult(
                name=self._name,
                seconds=self._seconds,
                samples=tuple(self._samples),
                peak_backlog=workload.peak(),
                final_backlog=final_of(direct, self._key),
                drained=workload.drained(),
                cut_off=workload.cut_off(),
                counts=workload.counts(),
                transitions=tuple(self._transitions),
                away=outage.span,
            )

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _controlled(self, client: redis.Redis) -> BackpressureController:
        controller = controller_for(self._config, client, {QUEUE: self._key}, self._watcher)
        controller.add_listener(self._note)
        return controller

    def _note(self, change: StateChange) -> None:
        if change.kind == "circuit":
            self._transitions.append(Transition(self._elapsed(), change.old, change.new))

    def _watch(self, client: redis.Redis, workload: Workload, controller: BackpressureController | None) -> None:
        """Look at the run until its time is over."""
        known, elapsed = 0, 0.0
        while elapsed < self._seconds:
            time.sleep(max(0.0, min(LOOK_SECONDS, self._seconds - self._elapsed())))
            elapsed = min(self._elapsed(), self._seconds)
            backlog = backlog_of(client, self._key)
            known = known if backlog is None else backlog
            self._samples.append((elapsed, backlog))
            self._watcher.update(
                Snapshot(
                    name=self._name,
                    elapsed=elapsed,
                    seconds=self._seconds,
                    history=tuple(count for _, count in self._samples),
                    advice=None if controller is None else self._advice(known),
                    circuit=None if controller is None else str(controller.get_circuit_state(QUEUE)),
                    drained=workload.drained(),
                    counts=workload.counts(),
                )
            )

    def _advice(self, backlog: int) -> dict[Priority, Advice]:
        # Asking the controller would count as a producer's question, and could take a probe from one.
        sample, state = Sample(backlog, 0, None), self._law_state
        judged = {priority: self._law.advise(sample, priority.value, state) for priority in PRIORITIES}
        return {priority: Advice(said.zone, said.delay_ns / 1e9, said.shed) for priority, said in judged.items()}


def controller_for(
    config: BackpressureConfig, client: redis.Redis, keys: Mapping[str, str], watcher: Watcher
) -> BackpressureController:
    """Return a controller of lists, by the names of their queues, whose log lines the watcher is told."""
    # Not from getLogger: these lines are for the display, and not for the handlers of the process's logs.
    logger = logging.Logger("backpressure.demo", logging.INFO)  # noqa: LOG001
    logger.addHandler(_NewsHandler(watcher.news))
    provider = RedisStatsProvider(client, {queue: ListKey(key) for queue, key in keys.items()})
    return BackpressureController(config, provider, logger=logger)


def backlog_of(client: redis.Redis, key: str) -> int | None:
    """Return how many jobs wait in a list; ``None`` if the server does not answer. Puts off the list's expiry."""
    pipeline: Any = client.pipeline(transaction=False)
    try:
        count, _ = pipeline.llen(key).expire(key, KEY_SECONDS).execute()
    except RedisError:
        return None
    jobs: int = count
    return jobs


def final_of(client: redis.Redis, key: str) -> int:
    """Return how many jobs a run left in its list.

    Raises:
        DemoError: the server does not answer.
    """
    try:
        return client.llen(key)
    except RedisError as error:
        raise DemoError(f"the server does not answer at the end of a run ({type(error).__name__})") from None


def remove(client: redis.Redis, key: str, watcher: Watcher) -> None:
    """Remove what a run wrote."""
    try:
        client.delete(key)
    except RedisError:
        watcher.news(f"key {key} could not be removed; it expires within {KEY_SECONDS} s")


class _NewsHandler(logging.Handler):
    """Hands log lines to the display."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())
