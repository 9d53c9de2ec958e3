"""`BackpressureController`: tells producers go, wait or shed, and runs their work accordingly."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, cast

from backpressure._engine import ENGINE, load
from backpressure._pure.counters import LAW_REASONS, MISS_REASONS, REASONS
from backpressure._pure.lock import ForkLock
from backpressure.circuit import CircuitBreaker, is_failure, refuse_coroutine
from backpressure.clock import SystemClock, in_event_loop
from backpressure.config import BackpressureConfig
from backpressure.errors import BackpressureError, ConfigurationError, ThrottledError
from backpressure.events import Announcer
from backpressure.host import ControllerHost
from backpressure.pacer import Pacer
from backpressure.poller import Poller
from backpressure.settings import EngineSettings
from backpressure.types import (
    CircuitState,
    Priority,
    StatsProvider,
    ThrottleDecision,
    validate_queue_name,
)

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from backpressure.clock import Clock
    from backpressure.events import StateChange

__all__ = ["BackpressureController"]

P = ParamSpec("P")
T = TypeVar("T")

_LAW_INDICES = tuple(REASONS.index(reason) for reason in LAW_REASONS)
_MISS_INDICES = tuple(REASONS.index(reason) for reason in MISS_REASONS)
_USE_ASYNC = "use AsyncBackpressureController, or decorate it with throttled()"


class BackpressureController:
    """Decides for every job whether to enqueue it now, later or not at all.

    Args:
        config: thresholds and everything else; ``None`` for the defaults.
        stats_provider: where queue statistics come from. Never closed by the controller.
        logger: default ``logging.getLogger("backpressure")``.
        clock: source of time for tests; ``None`` reads the system's inside the engine.

    Life cycle: new, running, stopped, one way. Use it as a context manager, or call `start` and `stop`.
    All methods are thread-safe. After a fork the child goes on with the parent's samples and circuits and starts a
    poller of its own when these grow old, or when `start` is called.

    Example::

        with BackpressureController(config, provider) as controller:
            controller.run("low", "analytics-queue", enqueue, event)
    """

    def __init__(
        self,
        config: BackpressureConfig | None,
        stats_provider: StatsProvider,
        *,
        logger: logging.Logger | None = None,
        clock: Clock | None = None,
        _engine: str | None = None,
    ) -> None:
        if config is not None and not isinstance(config, BackpressureConfig):
            raise ConfigurationError(f"config is {config!r}: give a BackpressureConfig or None", field="config")
        if not isinstance(stats_provider, StatsProvider):
            raise ConfigurationError(
                f"stats_provider is a {type(stats_provider).__name__}: give an object with get_queue_stats() and "
                "get_all_queue_stats()",
                field="stats_provider",
            )
        self._config = config or BackpressureConfig()
        self._clock: Clock = clock or SystemClock()
        self._engine_name = _engine or ENGINE
        self._state: Literal["new", "running", "stopped"] = "new"
        self._lock = ForkLock()
        self._pacer = Pacer(
            self._clock, passing=self._is_passing, jitter=lambda name: self._config.curve_of(name).delay_jitter
        )
        self._announcer = Announcer(logger, self._clock)
        self._host = ControllerHost(
            self._clock, clock is not None, self._pacer, self._announcer, lambda: self._config.polling.timeout
        )
        self._engine = load(_engine).Engine(EngineSettings.of(self._config), self._host)
        self._poller = Poller(stats_provider, self._engine, self._config.polling, self._clock, self._announcer)
        self._host.engine, self._host.poller = self._engine, self._poller
        recovery = self._config.recovery
        if recovery.manual_override:
            self.set_manual_override(True)
        if recovery.emergency_mode:
            self.set_emergency_mode(True)
        if type(self).suggest_throttle is BackpressureController.suggest_throttle:
            # The hot path without a Python frame. A subclass that overrides the method keeps its own.
            self.suggest_throttle = self._engine.suggest_throttle  # type: ignore[method-assign]

    # ----------------------------------------------------------------------------------------------------- life cycle

    def start(self) -> None:
        """Begin to decide: poll the provider once, bounded by ``polling.timeout``, then in the background.

        A failing first poll is logged and counted, not raised; where the thread runs an event loop the first poll
        is left to the background. Running already: nothing happens, except that a forked child gets its poller.

        Raises:
            ControllerStoppedError: it was stopped; make a new one.
        """
        if self._state == "stopped":
            raise self._host.not_running()
        self._poller.start(poll_first=not in_event_loop())
        with self._lock():
            if self._state == "new":
                self._state = "running"
                self._engine.set_running(True)

    def stop(self) -> None:
        """Stop deciding; sleepers raise `ControllerStoppedError`. Returns within 1 s. Idempotent."""
        with self._lock():
            self._state = "stopped"
            self._host.stopped = True
            self._engine.set_running(False)
        self._pacer.stop()
        self._poller.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # ------------------------------------------------------------------------------------------------------ decisions

    def suggest_throttle(self, priority: Priority | str, queue_name: str) -> ThrottleDecision:
        """Decide for one job now: go, wait or shed.

        The caller acts on the answer itself (`ThrottleDecision.wait` sleeps or raises) and should report the
        outcome with `record_success` or `record_failure`. A probe of a recovering circuit is admitted at once; who
        never reports gets one go per ``probe_interval``.

        Args:
            priority: a `Priority`, or ``"low"``, ``"medium"``, ``"high"``.
            queue_name: 1–255 UTF-8 bytes without control characters.

        Never waits, except that the first sight of a queue reads its statistics, bounded by ``polling.timeout``.

        Raises:
            InvalidPriorityError, InvalidQueueError: bad arguments.
            ControllerNotStartedError, ControllerStoppedError: it is not running.
        """
        return self._engine.suggest_throttle(priority, queue_name)

    def run(
        self,
        priority: Priority | str,
        queue_name: str,
        work: Callable[..., T],
        /,
        *args: Any,
        max_wait: float | None = None,
        **kwargs: Any,
    ) -> T:
        """Wait as advised, call ``work(*args, **kwargs)``, report its outcome and return its value.

        Args:
            max_wait: longest sleep accepted, in seconds; beyond it `ThrottledError` is raised at once.

        Raises:
            JobShedError: the backlog is too large; `work` was not called.
            CircuitOpenError: the queue's circuit is open; `work` was not called.
            ThrottledError: the advised delay exceeds `max_wait`; `work` was not called.
            TypeError: `work` is a coroutine function.
            Exception: whatever `work` raises.
        """
        return self._perform(self._go(priority, queue_name, max_wait), work, args, kwargs)

    @contextlib.contextmanager
    def slot(
        self, priority: Priority | str, queue_name: str, *, max_wait: float | None = None
    ) -> Iterator[ThrottleDecision]:
        """Wait as advised, then run the body; its outcome is reported. Raises as `run`."""
        decision = self._go(priority, queue_name, max_wait)
        with self._reported(decision):
            yield decision

    def throttled(
        self, priority: Priority | str, queue_name: str, *, max_wait: float | None = None
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Make every call of the decorated function go through `run`; a coroutine function awaits its turn.

        Raises:
            TypeError: the function is a generator, whose work happens after the call.
        """
        checked_priority, checked_name = Priority.parse(priority), validate_queue_name(queue_name)

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(
                    f"{function.__qualname__} is a generator function, whose work happens after the call: "
                    "use slot() inside it"
                )
            if inspect.iscoroutinefunction(function):

                @wraps(function)
                async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                    decision = await self._go_async(checked_priority, checked_name, max_wait)
                    with self._reported(decision):
                        return await function(*args, **kwargs)

                return cast("Callable[P, T]", call_async)

            @wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> T:
                return self._perform(self._go(checked_priority, checked_name, max_wait), function, args, kwargs)

            return call

        return decorate

    def record_success(self, decided: ThrottleDecision | str) -> None:
        """Report that a job was enqueued: by its decision, or by queue name where there is none at hand."""
        self._record(decided, True)

    def record_failure(self, decided: ThrottleDecision | str) -> None:
        """Report that enqueueing failed: by its decision, or by queue name where there is none at hand."""
        self._record(decided, False)

    def _record(self, decided: object, ok: bool) -> None:
        if isinstance(decided, ThrottleDecision):
            self._engine.record(decided, ok)
        else:
            self._engine.record_queue(validate_queue_name(decided), ok)

    def _go(self, priority: Priority | str, queue_name: str, max_wait: float | None) -> ThrottleDecision:
        """Return the decision of an admitted job, after its sleep."""
        decision = self._plan(priority, queue_name, max_wait)
        if decision.delay > 0:
            self._pacer.sleep(decision.delay, decision.queue_name)
            decision = self._admit(decision)
        return decision

    async def _go_async(self, priority: Priority | str, queue_name: str, max_wait: float | None) -> ThrottleDecision:
        decision = self._plan(priority, queue_name, max_wait)
        if decision.delay > 0:
            await self._pacer.sleep_async(decision.delay, decision.queue_name)
            decision = self._admit(decision)
        return decision

    def _plan(self, priority: Priority | str, queue_name: str, max_wait: float | None) -> ThrottleDecision:
        decision = self._engine.plan(priority, queue_name)
        _raise_rejection(decision)
        if max_wait is not None and decision.delay > _seconds(max_wait):
            self._engine.count(decision)
            raise ThrottledError(
                f"{decision.priority} job for queue {decision.queue_name!r} would wait {decision.delay:.3f} s, "
                f"longer than max_wait ({max_wait:g} s): retry then",
                queue_name=decision.queue_name,
                priority=decision.priority,
                retry_after=decision.delay,
            )
        return decision

    def _admit(self, planned: ThrottleDecision) -> ThrottleDecision:
        decision = self._engine.admit(planned)
        _raise_rejection(decision)
        return decision

    def _perform(
        self, decision: ThrottleDecision, work: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> T:
        try:
            value = work(*args, **kwargs)
        except BaseException as error:
            self._report_error(decision, error)
            raise
        refuse_coroutine(value, _USE_ASYNC)
        self._engine.record(decision, True)
        return value

    @contextlib.contextmanager
    def _reported(self, decision: ThrottleDecision) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._report_error(decision, error)
            raise
        self._engine.record(decision, True)

    def _report_error(self, decision: ThrottleDecision, error: BaseException) -> None:
        if is_failure(error, self._config.circuit_of(decision.queue_name).excluded_exceptions):
            self._engine.record(decision, False)

    # ------------------------------------------------------------------------------------------------------- circuits

    def get_circuit_state(self, queue_name: str) -> CircuitState:
        """Return the state of a queue's circuit, CLOSED for an unknown queue. Creates nothing."""
        breaker = self._engine.breaker(validate_queue_name(queue_name), False)
        return CircuitState.CLOSED if breaker is None else CircuitState(breaker.state())

    def circuit(self, queue_name: str) -> CircuitBreaker:
        """Return a handle of a queue's breaker. Looking creates nothing; forcing it does."""
        name = validate_queue_name(queue_name)
        return CircuitBreaker.of_queue(
            name, self._config.circuit_of(name), self._clock, lambda create: self._engine.breaker(name, create)
        )

    # ------------------------------------------------------------------------------------------------------- controls

    def set_manual_override(self, enabled: bool, *, for_: float | None = None) -> None:
        """Let everything pass without delay, except for circuits forced open; `for_` seconds or until turned off.

        Sleepers go at once. Breakers are neither asked nor fed meanwhile.
        """
        _check_switch("enabled", enabled)
        until_ns = None
        if for_ is not None and enabled:
            until_ns = self._clock.monotonic_ns() + round(_seconds(for_, "for_") * 1e9)
        old = self._engine.override()
        self._engine.set_override(enabled, until_ns)
        self._release_sleepers()
        if old != enabled or for_ is not None:
            limit = "" if for_ is None or not enabled else f" for {for_:g} s"
            self._announcer.announce("override", _on(old), _on(enabled), f"manual override is {_on(enabled)}{limit}")

    def set_emergency_mode(self, enabled: bool) -> None:
        """As the manual override, with a reason of its own and no expiry."""
        _check_switch("enabled", enabled)
        old = self._engine.emergency()
        self._engine.set_emergency(enabled)
        self._release_sleepers()
        if old != enabled:
            self._announcer.announce("emergency", _on(old), _on(enabled), f"emergency mode is {_on(enabled)}")

    def _release_sleepers(self) -> None:
        if self._is_passing():
            self._pacer.wake()

    def _is_passing(self) -> bool:
        return self._engine.override() or self._engine.emergency()

    def refresh(self, queue_name: str) -> bool:
        """Read a queue's statistics now, whatever the back-off; tell whether there is a new sample.

        Blocks for up to ``polling.timeout``.

        Raises:
            ControllerNotStartedError, ControllerStoppedError: it is not running.
            BackpressureError: the calling thread runs an event loop.
        """
        name = validate_queue_name(queue_name)
        if self._state != "running":
            raise self._host.not_running()
        if in_event_loop():
            raise BackpressureError(
                f"refreshing queue {name!r} would block the running event loop: use AsyncBackpressureController",
                queue_name=name,
            )
        return self._poller.read_one(name)

    def reconfigure(self, config: BackpressureConfig) -> None:
        """Decide by `config` from now on, atomically; breakers keep their state.

        Raises:
            ConfigurationError: ``circuit`` settings or ``max_queues`` differ, which needs a new controller.
        """
        if not isinstance(config, BackpressureConfig):
            raise ConfigurationError(f"config is {config!r}: give a BackpressureConfig", field="config")
        names = {*self._config.queues, *config.queues}
        old = self._config
        if old.circuit != config.circuit or any(old.circuit_of(name) != config.circuit_of(name) for name in names):
            raise ConfigurationError(
                "circuit cannot change at run time: make a new controller", field="circuit", value=config.circuit
            )
        if old.max_queues != config.max_queues:
            raise ConfigurationError(
                "max_queues cannot change at run time: make a new controller",
                field="max_queues",
                value=config.max_queues,
            )
        with self._lock():
            self._config = config
            self._engine.configure(EngineSettings.of(config))
        if self._state == "running":
            self._poller.configure(config.polling)
        self._announcer.announce("configuration", "old", "new", "the configuration was changed")

    def add_listener(self, listener: Callable[[StateChange], object]) -> None:
        """Call `listener` with one frozen `StateChange` per change; it runs in the thread that caused it."""
        self._announcer.add_listener(listener)

    # --------------------------------------------------------------------------------------------------------- health

    def health(self) -> dict[str, Any]:
        """Return the controller's condition as a JSON-ready dict. Cheap enough for a health check, not for a loop."""
        totals = self._engine.totals().values()
        answered = sum(sum(total.reasons[index] for index in _LAW_INDICES) for total in totals)
        missed = sum(total.computed + sum(total.reasons[index] for index in _MISS_INDICES) for total in totals)
        computed = sum(total.computed for total in totals)
        asked = answered - computed + missed
        names = self._engine.queue_names()
        fallback = self._host.last_fallback
        return {
            "started": self._state != "new",
            "stopped": self._state == "stopped",
            "manual_override": self._engine.override(),
            "emergency_mode": self._engine.emergency(),
            "cache_hit_rate": (answered - computed) / asked if asked else 0.0,
            "cache_size": self._engine.cache_size(),
            "circuit_states": {name: str(self.get_circuit_state(name)) for name in names},
            "polling_enabled": self._config.polling.enabled,
            "last_fallback": None if fallback is None else fallback.isoformat(),
            "engine": self._engine_name,
            "mode": self._config.mode,
            "pid": os.getpid(),
            "poller_alive": self._poller.alive(),
            "provider": self._poller.intake.health(),
            "polling_errors": self._poller.intake.errors(),
            "last_poll_seconds": self._poller.intake.last_poll_seconds,
            "queues": {name: self._queue_health(name) for name in names},
        }

    def _queue_health(self, name: str) -> dict[str, Any]:
        sample = self._engine.backlog(name)
        stats = self._poller.intake.stats.get(name)
        return {
            "backlog": None if sample is None else sample[0],
            "sample_age": None if sample is None else max(0, self._clock.monotonic_ns() - sample[1]) / 1e9,
            "processing": None if stats is None else stats.processing_count,
            "delayed": None if stats is None else stats.delayed_count,
            "oldest_age": None if stats is None else stats.oldest_age,
        }

    def __repr__(self) -> str:
        return f"<BackpressureController: {self._state}, {self._engine_name} engine>"


def _raise_rejection(decision: ThrottleDecision) -> None:
    error = decision.rejection()
    if error is not None:
        raise error


def _on(enabled: bool) -> str:
    return "on" if enabled else "off"


def _check_switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is {value!r}: give True or False", field=name, value=value)


def _seconds(value: object, name: str = "max_wait") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigurationError(f"{name} is {value!r}: give seconds from 0", field=name, value=value)
    return value
