"""What both controllers share: everything that neither reads nor waits."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from backpressure._controller.admission import Admission
from backpressure._controller.age.budgets import Budgets
from backpressure._controller.batch import Batch
from backpressure._controller.candidate import Candidate
from backpressure._controller.circuit import CircuitBreaker
from backpressure._controller.enforcing import enforces, is_divided
from backpressure._controller.file_control import FileControl
from backpressure._controller.health import Health
from backpressure._controller.polling.provider import check_provider
from backpressure._controller.polling.samples import Samples
from backpressure._controller.sleep import Sleeper
from backpressure._controller.sparing import Sparing
from backpressure._controller.switches import Switches
from backpressure._engine.choice import ENGINE, load
from backpressure._engine.laws.order import inversions
from backpressure._engine.settings import EngineSettings
from backpressure._engine.sync import ForkLock
from backpressure._model.arguments import check_seconds, shown, validate_queue_name
from backpressure._model.clock import SystemClock
from backpressure._model.config.doubts import doubts
from backpressure._model.config.root import BackpressureConfig
from backpressure._model.decision import ThrottleDecision
from backpressure._model.errors import ConfigurationError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.units import nanoseconds
from backpressure._model.vocabulary import CircuitState
from backpressure._runtime.foreign import Foreign, GuardedClock
from backpressure._runtime.uncopied import Uncopied
from backpressure._telemetry.compliance import Compliance
from backpressure._telemetry.events import Announcer
from backpressure._telemetry.passed import Passed

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import CollectorRegistry

    from backpressure._controller.callbacks import ControllerHost
    from backpressure._controller.fleet.fleet import Fleet
    from backpressure._controller.following import Following
    from backpressure._controller.polling.sights import Landing, Sights
    from backpressure._controller.polling.thread import Poller
    from backpressure._controller.recorded import Recorded
    from backpressure._controller.switches import SwitchKind
    from backpressure._model.batch import BatchJob
    from backpressure._model.clock import Clock
    from backpressure._model.config.circuit import CircuitConfig
    from backpressure._model.config.polling import PollingConfig
    from backpressure._model.vocabulary import Priority
    from backpressure._recording.recorder import Recorder
    from backpressure._telemetry.events import StateChange
    from backpressure._telemetry.metrics import MetricsCollector

__all__ = ["ControllerBase"]


@repr_when_half_built
class ControllerBase(Uncopied):
    """Configuration, engine, switches, circuits and health of a controller. Thread-safe."""

    _may_await: ClassVar[bool] = False
    _instead = "make one in the process that uses it, from the same BackpressureConfig, which does pickle"

    def __init__(
        self,
        config: BackpressureConfig | None,
        stats_provider: object,
        logger: logging.Logger | None,
        registry: CollectorRegistry | None,
        clock: Clock | None,
        engine: str | None,
        recorder: Recorder | None,
        make_host: type[ControllerHost],
        control: FileControl | None = None,
        make_admission: type[Admission] = Admission,
    ) -> None:
        if config is not None and not isinstance(config, BackpressureConfig):
            raise ConfigurationError(
                f"config is a {type(config).__name__}: give a BackpressureConfig or None", field="config"
            )
        #: Whether the provider's methods are to be awaited.
        self._awaited = check_provider(stats_provider, may_await=self._may_await)
        if control is not None and not isinstance(control, FileControl):
            raise ConfigurationError(
                f"control is a {type(control).__name__}: give a FileControl or None", field="control"
            )
        self._config = self._own_config = config or BackpressureConfig()
        self._foreign = Foreign(logger)
        self._clock: Clock = GuardedClock(clock, self._foreign) if clock else SystemClock()
        self._engine_name = engine or ENGINE
        self._provider = stats_provider
        self._passed = Passed(lambda: self._config.max_queues)
        self._state: Literal["new", "running", "stopped"] = "new"
        self._lock = ForkLock()
        self._starts: set[object] = set()
        self._sleeper = Sleeper(
            self._clock, passing=self._is_passing, jitter=lambda name: self._config.curve_of(name).delay_jitter
        )
        self._announcer = Announcer(self._foreign, self._clock)
        self._compliance = Compliance(self._clock.monotonic_ns, self._is_tracked)
        self._host = make_host(
            self._clock,
            clock is not None,
            self._sleeper,
            self._announcer,
            self._compliance,
            lambda: self._config.polling.timeout,
        )
        engines, settings = load(engine), self._settings(self._config)
        self._budgets = Budgets(stats_provider, self._clock, self._announcer, engines.Lease)
        self._hold_ages(self._config, settings)
        self._sparing = Sparing(engines.Tenants, lambda name: self._config.age_of(name).tenant_weights)
        self._engine = engines.Engine(settings, self._host)
        self._sparing.bind(self._engine, settings)
        self._admission = make_admission(
            self._engine,
            self._sleeper,
            self._compliance,
            self._circuit_of,
            self._foreign,
            self._budgets,
            self._sparing,
        )
        shares_server = getattr(stats_provider, "shares_server", False)
        self._samples = Samples(
            self._engine,
            self._clock,
            self._announcer,
            hastens=lambda name: shares_server and self._config.circuit_of(name).probe_on_recovery,
            most=lambda: self._config.max_queues,
            memory_bounds=lambda name: self._config.age_of(name).memory_permille,
            cautions=self._memory_cautions,
        )
        self._candidate = Candidate(self._engine, self._config)
        self._check_candidate(self._config, settings)
        self._samples.before_poll = self._candidate.settle
        self._switches = Switches(self._engine, self._clock)
        self._fleet = self._make_fleet(settings)
        self._following = self._make_following(control, settings)
        self._poller, sights = self._make_poller()
        self._poller.forked = self._forked
        self._host.bind(self._engine, self._admission, self._poller, sights, self._switches, self._candidate)
        self._health = Health(
            self._engine,
            self._samples,
            self._compliance,
            self._passed,
            self._budgets,
            self._sparing,
            self._candidate,
            self._clock,
            lambda: self._config,
            self._fleet,
            self._following,
        )
        self._registry = registry
        self._metrics: MetricsCollector | None = None
        self._recorded = self._recorded_by(recorder, settings)
        self._caution()
        recovery = self._config.recovery
        if recovery.manual_override:
            self.set_manual_override(True)
        if recovery.emergency_mode:
            self.set_emergency_mode(True)

    def _hold_ages(self, config: BackpressureConfig, settings: EngineSettings) -> None:
        """Hold the ages of queues as a configuration says; raises where that is not possible."""
        if settings.holds_ages and not settings.polling:
            raise ConfigurationError(
                "age.target needs a provider that is read in the background, and the one that was given is read on its "
                "callers' event loops: give a URL in the place of a client",
                field="age.target",
            )
        self._budgets.configure(config, settings)

    def _caution(self) -> None:
        """Log what nobody means: a lower priority that is better off than a higher one, an age that cannot be held."""
        for sentence in (*inversions(self._config), *doubts(self._config)):
            self._announcer.caution(sentence)

    def _recorded_by(self, recorder: object, settings: EngineSettings) -> Recorded | None:
        """Return what hands over to a recorder; raises where nothing is polled."""
        if recorder is None:
            return None
        from backpressure._controller.recorded import Recorded  # noqa: PLC0415 - loads SQLite
        from backpressure._recording.recorder import Recorder  # noqa: PLC0415

        if not isinstance(recorder, Recorder):
            problem = f"recorder is a {type(recorder).__name__}: give a Recorder"
            raise ConfigurationError(problem, field="recorder", value=recorder)
        if not settings.polling:
            problem = "a recorder needs a provider that is polled in the background: see polling.enabled"
            raise ConfigurationError(problem, field="recorder", value=recorder)
        return Recorded(recorder, self._engine, self._samples, self._announcer, self._clock, lambda: self._config)

    def _check_candidate(self, config: BackpressureConfig, settings: EngineSettings) -> None:
        if config.candidate is not None and not settings.polling:
            raise ConfigurationError(
                "candidate needs a provider that is read in the background, and the one that was given is read on its "
                "callers' event loops: give a URL in the place of a client",
                field="candidate",
            )

    def _memory_cautions(self) -> list[tuple[int, str]]:
        """Return what the provider found out about limits of memory, where any queue's jobs depend on that."""
        told = getattr(self._provider, "memory_cautions", None)
        ages = (self._config.age, *(own.age for own in self._config.queues.values() if own.age is not None))
        return told() if told is not None and any(age.memory is not None for age in ages) else []

    def _make_fleet(self, settings: EngineSettings) -> Fleet | None:
        """Return what makes this process a member of its fleet; ``None`` if it belongs to none."""
        if self._config.fleet.name is None:
            return None
        if not settings.polling:
            raise ConfigurationError(
                "fleet.name needs a provider that is read in the background, and the one that was given is read on its "
                "callers' event loops: give a URL in the place of a client",
                field="fleet.name",
            )
        from backpressure._controller.fleet.fleet import Fleet  # noqa: PLC0415 - most belong to none

        return Fleet(
            self._config,
            self._provider,
            self._clock,
            self._announcer,
            self._engine,
            self._engine_name,
            self._switches,
            self._samples,
            current=lambda: self._config,
            adopt=self._adopt_pushed,
            release=self._sleeper.wake,
            tenants=self._heaviest,
        )

    def _heaviest(self) -> dict[str, dict[str, float]]:
        return self._health.heaviest()

    def _make_following(self, control: FileControl | None, settings: EngineSettings) -> Following | None:
        """Return what follows a file, ``None`` without one."""
        if control is None:
            return None
        if not settings.polling:
            raise ConfigurationError("control needs polling.enabled, for polls read the file", field="control")

        from backpressure._controller.following import Following  # noqa: PLC0415 - most have none

        def adopt(lay_over: Callable[[BackpressureConfig], BackpressureConfig]) -> None:
            with self._lock():
                config = lay_over(self._own_config)
                self._swap(config if self._fleet is None else self._fleet.over(config))
            self._note_change(f": by {control!r}")

        return Following(control, self._announcer, adopt)

    def _make_poller(self) -> tuple[Poller, Sights[Any, Any]]:
        """Return what reads in the background, and what reads for callers."""
        raise NotImplementedError

    @contextlib.contextmanager
    def _starting(self) -> Iterator[Landing | None]:
        """Start the poller; the body waits for its first poll; then run. A start that fails leaves nothing behind.

        Raises:
            ControllerStoppedError: it was stopped.
        """
        if self._state == "stopped":
            raise self._host.not_running()
        this = object()
        try:
            self._starts.add(this)
            self._export()
            yield self._poller.start()
            with self._lock():
                if self._state == "new":
                    self._state = "running"
                    self._engine.set_running(True)
                if self._host.stopped_in:  # by a signal handler, which no lock keeps out, after the state was checked
                    self._state = "stopped"
                    self._engine.set_running(False)
            if self._state == "running":
                self._poller.start()  # another start that failed may have just retired it
        except BaseException:
            self._starts.discard(this)
            with self._lock():
                if self._state == "new" and not self._starts:  # no other start is under way
                    self._poller.retire()
            raise
        finally:
            self._starts.discard(this)

    def _export(self) -> None:
        """Begin to export metrics. If their names are taken, raises what prometheus-client raises."""
        with self._lock():
            if self._metrics is not None or self._state != "new":
                return
            from backpressure._telemetry.metrics import MetricsCollector  # noqa: PLC0415 - not before it is needed

            # Imports prometheus-client, which chooses then and there how it stores values.
            self._metrics = MetricsCollector(self._registry)
            self._metrics.add(self._health)
            self._samples.after_poll = self._after_poll

    def __del__(self) -> None:
        """End what a controller that nobody holds any more has left running, and say that it was not stopped.

        The garbage collector calls this at any moment, under any lock: so nothing is waited for but our own locks,
        which nobody else can hold now.
        """
        poller: Poller | None = getattr(self, "_poller", None)
        if poller is None or not poller.is_begun():
            return  # never started, stopped, or the interpreter ends
        begun_here = poller.is_begun_here()
        if self._metrics is not None:
            self._metrics.settle(self._health)
        self._end()
        poller.abandon()
        if begun_here:  # of what a forked child inherits, its parent takes care
            warnings.warn(
                f"a running {type(self).__name__} was dropped: stop() it, or use it in a with statement",
                ResourceWarning,
                source=self,
                stacklevel=1,
            )

    def _end(self) -> None:
        with self._lock():
            if self._state != "stopped":
                self._host.stopped_in = os.getpid()
            self._state = "stopped"
            self._engine.set_running(False)

    def _rest(self) -> None:
        """Poll no more until it is started again, as between two lifespans of an application."""
        self._flush()
        self._ending(self._poller.retire())()

    def _ending(self, wait: Callable[[], object]) -> Callable[[], None]:
        """Return what waits for the poller's end, by `wait`, and then for what it leaves to be written."""

        def end() -> None:
            wait()
            if self._recorded is not None:
                self._recorded.finish()

        return end

    def _after_poll(self) -> None:
        self._flush()
        if self._recorded is not None:
            self._recorded.poll()

    def _set_stopped(self) -> None:
        self._end()
        self._sleeper.stop()
        self._budgets.close()
        if self._fleet is not None:
            self._fleet.close()
        self._host.sights.release()
        self._candidate.settle()
        if self._metrics is not None:
            self._metrics.remove(self._health)
            self._flush()

    def _is_tracked(self, queue_name: str) -> bool:
        return self._engine.breaker(queue_name, False) is not None

    def _circuit_of(self, queue_name: str) -> CircuitConfig:
        return self._config.circuit_of(queue_name)

    def _flush(self) -> None:
        """Write the metrics of multiprocess mode; a full disk must not disturb who polls or stops."""
        try:
            if self._metrics is not None:
                self._metrics.flush()
        except BaseException as error:  # noqa: BLE001 - whatever its class, see `Foreign`
            self._foreign.raised(error, "flush", "metrics could not all be written to the files of multiprocess mode")

    def _polling(self, config: BackpressureConfig) -> PollingConfig:
        """Return how the poller is to poll."""
        return config.polling

    def _settings(self, config: BackpressureConfig) -> EngineSettings:
        """Return what the engine is to decide by."""
        return EngineSettings.of(config, enforces)

    def _forked(self) -> None:
        """In a forked child, enforce or observe as this process does: its parent may be on the other side."""
        self._candidate.leave()
        with self._lock():
            if is_divided(self._config):
                self._engine.configure(self._settings(self._config))

    def peek(self, priority: Priority | str, queue_name: str) -> ThrottleDecision:
        """Tell what would be decided for one job now, without any effect: for status pages, tests and prompts.

        It takes no probe, counts nothing, reads nothing, keeps no queue and tells no listener. So an open circuit that
        may be probed says go, as often as it is looked at, and reporting the outcome of such a decision does nothing.
        It goes by what is known: a queue that was never read is a ``cold_start``, and where a real call would first
        renew an old sample, the answer is the one that holds if that fails. Nothing is waited for, so it is no
        coroutine, in asyncio either.

        Args:
            priority: a `Priority`, or ``"low"``, ``"medium"``, ``"high"``.
            queue_name: 1–255 UTF-8 bytes without control characters.

        Raises:
            InvalidPriorityError, InvalidQueueError: bad arguments.
            ControllerNotStartedError, ControllerStoppedError: it is not running.

        Example:
            >>> with BackpressureController(None, InMemoryStatsProvider({"email-queue": 5_000})) as controller:
            ...     seen = controller.peek("low", "email-queue")
            >>> seen.should_shed, str(seen.zone), str(seen.reason)
            (True, 'red', 'backlog_red_shed')
        """
        return self._engine.peek(priority, queue_name)

    def record_success(self, decided: ThrottleDecision | str) -> None:
        """Report that a job was enqueued: by its decision, or by queue name if there is no decision.

        Raises:
            InvalidQueueError: it is neither a decision nor a queue name.
        """
        self._record(decided, True)

    def record_failure(self, decided: ThrottleDecision | str) -> None:
        """Report that enqueueing failed: by its decision, or by queue name if there is no decision.

        Raises:
            InvalidQueueError: it is neither a decision nor a queue name.
        """
        self._record(decided, False)

    def _record(self, decided: object, ok: bool) -> None:
        if isinstance(decided, ThrottleDecision):
            self._compliance.reported(decided)
            self._engine.record(decided, ok)
            return
        queue_name = validate_queue_name(decided)
        if not self._is_passing():
            self._engine.record_queue(queue_name, ok)

    def _batch(self, jobs: Iterable[BatchJob], timeout: float | None, on_outcome: object) -> Batch:
        if self._state != "running":
            raise self._host.not_running()
        if not (on_outcome is None or callable(on_outcome)):
            raise ConfigurationError(
                f"on_outcome is {shown(on_outcome)}: give a callable that takes a job and its outcome",
                field="on_outcome",
                value=on_outcome,
            )
        limit = None if timeout is None else check_seconds(timeout, "timeout")
        return Batch(jobs, self._admission, limit, tells=on_outcome is not None)

    def get_circuit_state(self, queue_name: str) -> CircuitState:
        """Return the state of a queue's circuit, CLOSED for an unknown queue. Creates nothing.

        Raises:
            InvalidQueueError: the name cannot name a queue.
        """
        breaker = self._engine.breaker(validate_queue_name(queue_name), False)
        return CircuitState.CLOSED if breaker is None else CircuitState(breaker.state())

    def circuit(self, queue_name: str) -> CircuitBreaker:
        """Return a handle of a queue's breaker. Looking creates nothing; forcing it does.

        Raises:
            InvalidQueueError: the name cannot name a queue.

        Example:
            >>> controller = BackpressureController(None, InMemoryStatsProvider())
            >>> controller.circuit("email-queue").force_open()
            >>> controller.get_circuit_state("email-queue")
            <CircuitState.OPEN: 1>
        """
        name = validate_queue_name(queue_name)
        return CircuitBreaker.of_queue(
            name,
            self._config.circuit_of(name),
            self._clock,
            self._foreign,
            lambda create: self._engine.breaker(name, create),
        )

    def set_manual_override(self, enabled: bool, *, for_: float | None = None) -> None:
        """Let everything pass without delay, except for circuits forced open; `for_` seconds or until turned off.

        Sleepers go at once. Jobs that pass because of it neither ask breakers nor report to them.

        Raises:
            ConfigurationError: `enabled` is no bool, or `for_` no number of seconds from 0.

        Example:
            >>> with BackpressureController(None, InMemoryStatsProvider({"clicks": 5_000})) as controller:
            ...     controller.set_manual_override(True, for_=600)
            ...     controller.suggest_throttle("low", "clicks").reason
            <Reason.MANUAL_OVERRIDE: 'manual_override'>
        """
        _check_switch("enabled", enabled)
        until_ns: float | None = math.inf if enabled else None
        if for_ is not None and enabled:
            until_ns = self._clock.monotonic_ns() + nanoseconds(check_seconds(for_, "for_"))
        old = self._engine.override()
        self._switches.set_here("override", until_ns)
        self._release_sleepers()
        if old != enabled or for_ is not None:
            limit = "" if for_ is None or not enabled else f" for {for_:g} s"
            message = f"manual override is {_on(enabled)}{limit}{self._beside('override', enabled)}"
            self._announcer.announce("override", _on(old), _on(enabled), message)

    def set_emergency_mode(self, enabled: bool) -> None:
        """As the manual override, with a reason of its own and no expiry.

        Raises:
            ConfigurationError: `enabled` is no bool.
        """
        _check_switch("enabled", enabled)
        old = self._engine.emergency()
        self._switches.set_here("emergency", math.inf if enabled else None)
        self._release_sleepers()
        if old != enabled:
            message = f"emergency mode is {_on(enabled)}{self._beside('emergency', enabled)}"
            self._announcer.announce("emergency", _on(old), _on(enabled), message)

    def _beside(self, kind: SwitchKind, enabled: bool) -> str:
        """Say that a switch stays on though it was turned off here."""
        return "" if enabled or not self._switches.is_of_fleet(kind) else " here; the fleet's operators hold it on"

    def _release_sleepers(self) -> None:
        if self._is_passing():
            self._sleeper.wake()

    def _is_passing(self) -> bool:
        return self._engine.override() or self._engine.emergency()

    def reconfigure(self, config: BackpressureConfig) -> None:
        """Decide by `config` from now on, atomically; breakers keep their state.

        What a `FileControl` says, and what the operators of a fleet have pushed, stays over it.

        Raises:
            ConfigurationError: ``circuit`` settings, ``max_queues`` or ``fleet`` differ, which needs a new controller.

        Example:
            >>> config = BackpressureConfig()
            >>> with BackpressureController(config, InMemoryStatsProvider({"clicks": 1_500})) as controller:
            ...     before = controller.suggest_throttle("low", "clicks").reason
            ...     controller.reconfigure(config.evolve({"thresholds.low_priority.red_max": 20_000}))
            ...     print(before, controller.suggest_throttle("low", "clicks").reason)
            backlog_red_shed backlog_red
        """
        if not isinstance(config, BackpressureConfig):
            raise ConfigurationError(f"config is a {type(config).__name__}: give a BackpressureConfig", field="config")
        with self._lock():
            below = self._followed(config)
            self._swap(below if self._fleet is None else self._fleet.over(below))
            self._own_config = config
        self._note_change()

    def _followed(self, own: BackpressureConfig) -> BackpressureConfig:
        """Return a configuration with the settings of the file over it, if there is one."""
        return own if self._following is None else self._following.over(own)

    def _adopt_pushed(self, lay_over: Callable[[BackpressureConfig], BackpressureConfig]) -> None:
        """Decide by the own configuration, with what the fleet's operators have pushed over it."""
        with self._lock():
            self._swap(lay_over(self._followed(self._own_config)))
        self._note_change(": by the fleet's operators")

    def _swap(self, config: BackpressureConfig) -> None:
        """Put a configuration in the place of the present one, under the lock."""
        names = {*self._config.queues, *config.queues, *self._engine.queue_names()}
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
        if old.fleet != config.fleet:
            raise ConfigurationError(
                "fleet cannot change at run time: make a new controller", field="fleet", value=config.fleet.name
            )
        settings = self._settings(config)
        self._check_candidate(config, settings)
        self._hold_ages(config, settings)  # first: it may refuse
        self._candidate.configure(config)
        self._engine.configure(settings)
        self._config = config
        self._sparing.configure(settings)
        self._samples.fullness.look_anew()

    def _note_change(self, how: str = "") -> None:
        """Poll by the new configuration, and tell of it: outside of the lock, for listeners may do anything."""
        config = self._config
        if self._fleet is not None:
            self._fleet.configure(config)
        self._poller.configure(self._polling(config))
        self._announcer.announce("configuration", "old", "new", f"the configuration was changed{how}")
        self._caution()

    def add_listener(self, listener: Callable[[StateChange], object]) -> None:
        """Call `listener` with one frozen `StateChange` per change; it runs in the thread that caused it.

        A listener that raises disturbs nobody and stays registered; the error is logged once for each kind of change.
        Only what a signal handler raises while it runs gets through.

        Example:
            >>> controller = BackpressureController(None, InMemoryStatsProvider())
            >>> controller.add_listener(lambda change: print(change.kind, change.new))
            >>> controller.set_emergency_mode(True)
            emergency on
        """
        self._announcer.add_listener(listener)

    def health(self) -> dict[str, Any]:
        """Return the controller's condition as a JSON-ready dict. Cheap enough for a health check, not for a loop.

        Durations and ages are seconds, ``None`` where unknown. ``queues`` holds under ``advice`` what `peek` says for
        each priority: ``zone``, ``delay``, ``should_shed``, ``reason`` and ``retry_after``. A refused job has no delay.
        In observe mode it is what enforcing would say; while the controller is not running it is ``None``. ``enforces``
        tells whether the process, ``instance``, does what it decides, of each queue too. ``candidate`` is what was
        counted of a queue by priority since the configuration changed: ``offers``, how many of them the candidate
        would have delayed (``delays``) and shed (``sheds``), how many the real policy did (``real_delays``,
        ``real_sheds``), and what the candidate says now (``advice``); ``None`` without one. ``failing``
        holds what cannot be read now, the ``provider`` or single ``queues``: ``error``, ``since``, ``seconds``,
        ``count``. Of a queue whose age is held, ``budget`` tells what this process knows of it: ``state`` of its lease,
        ``lease_age``, callers ``waiting`` here, and of all producers together ``age``, ``target_age``, ``drain_rate``,
        ``granted_rate``, ``demand_rate``, ``share`` and ``processes``; rates are jobs a second. ``fleet`` tells of a
        process that belongs to one: ``name``, ``members``, ``read_age``, ``problem``, what is ``not_understood``,
        ``switches`` that hold here and the ``config_revision``; ``control`` tells of a `FileControl`.

        Example:
            >>> with BackpressureController(None, InMemoryStatsProvider({"email-queue": 120})) as controller:
            ...     health = controller.health()
            >>> health["started"], health["queues"]["email-queue"]["backlog"]
            (True, 120)
            >>> health["queues"]["email-queue"]["advice"]["low"]["zone"]
            'yellow'
        """
        return self._health.as_dict(
            state=self._state,
            engine_name=self._engine_name,
            last_fallback=self._host.last_fallback,
            poller_alive=self._poller.alive(),
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._state}, {self._engine_name} engine>"


def _on(enabled: bool) -> str:
    return "on" if enabled else "off"


def _check_switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is {shown(value)}: give True or False", field=name, value=value)
