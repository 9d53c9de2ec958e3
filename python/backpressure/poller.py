"""The one regular reader of statistics: a thread that polls, backs off, and is replaced when it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

from backpressure._pure.counters import Tally
from backpressure.clock import wait
from backpressure.errors import InvalidQueueError, StatsUnavailableError
from backpressure.reader import Reader
from backpressure.settings import nanoseconds
from backpressure.types import QueueStats, validate_queue_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from backpressure._engine import Engine
    from backpressure.clock import Clock
    from backpressure.config import PollingConfig
    from backpressure.events import Announcer
    from backpressure.types import StatsProvider

__all__ = ["Poller"]

# Samples taken over before other threads are offered the GIL: some 200 µs of work.
_SLICE = 64
# Seconds beyond its own plans after which the thread counts as dead.
_SLACK = 2.0
# Seconds that stop() waits for the thread; it is a daemon, so nothing hangs on it.
_JOIN = 0.5
# Queues whose failures are told one by one; a provider that invents names must not fill the memory.
_MAX_REPORTED = 1_000
# Failures that go on until a person changes something.
_MISCONFIGURED = frozenset({"auth", "acl", "protocol", "wrongtype", "cluster"})


class _Thread:
    """One incarnation of the poller's thread. A stranger to later ones, and to those of other processes."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.wake = threading.Event()
        self.poll_now = False
        self.due_ns: float = 0  # when it will have shown itself again, if it lives
        self.thread: threading.Thread | None = None


class Poller:
    """Reads the provider into the engine. Thread-safe; survives whatever the provider raises."""

    def __init__(
        self,
        provider: StatsProvider,
        engine: Engine,
        config: PollingConfig,
        clock: Clock,
        announcer: Announcer,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._provider = provider
        self._engine = engine
        self._config = config
        self._clock = clock
        self._announcer = announcer
        self._uniform = uniform
        self.reader = Reader(provider, clock)
        self._current: _Thread | None = None
        self._stopped = False
        self._failures = 0
        self._rotation = 0
        self._errors: dict[str, Tally] = {}
        self._health = "unknown"
        self._queue_health: dict[str, str] = {}
        #: The last good sample of each queue, for display.
        self.stats: dict[str, QueueStats] = {}
        #: Seconds that the last poll took, ``None`` before the first.
        self.last_poll_seconds: float | None = None

    # ----------------------------------------------------------------------------------------------------- lifecycle

    def start(self, *, poll_first: bool) -> None:
        """Start the thread, or in a forked child start it anew; with `poll_first` poll in this thread before."""
        if not self._config.enabled or (self._current is not None and self._current.pid == os.getpid()):
            return
        if poll_first:
            self.poll()
        self._spawn(poll_now=not poll_first)

    def check(self) -> None:
        """Replace the thread if it shows no sign of life. Called where samples are older than they may be."""
        current = self._current
        if self._stopped or not self._config.enabled:
            return
        if current is None or current.pid != os.getpid():
            self._spawn(poll_now=True)  # a child process: threads do not survive a fork
        elif self._clock.monotonic_ns() > current.due_ns:
            self._count_error("heartbeat")
            self._announcer.announce(
                "poller", "running", "restarted", "the poller showed no sign of life: restarted", level=logging.ERROR
            )
            self._spawn(poll_now=True)

    def wake(self) -> None:
        """Make the thread poll now, whatever the back-off."""
        current = self._current
        if current is not None and current.pid == os.getpid():
            current.poll_now = True
            current.wake.set()

    def configure(self, config: PollingConfig) -> None:
        """Poll by `config` from now on."""
        self._config = config
        if config.enabled:
            self.start(poll_first=False)
            self.wake()
        else:
            self._retire()

    def stop(self) -> None:
        """End the thread; returns within 1 s whatever the provider does. Idempotent."""
        self._stopped = True
        self._retire()

    def alive(self) -> bool:
        """Tell whether this process has a poller that shows itself."""
        current = self._current
        return current is not None and current.pid == os.getpid() and self._clock.monotonic_ns() <= current.due_ns

    def _retire(self) -> None:
        current, self._current = self._current, None
        if current is None or current.pid != os.getpid():
            return
        current.wake.set()
        self.reader.interrupt()
        thread = current.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN)

    def _spawn(self, *, poll_now: bool) -> None:
        fresh = _Thread()
        fresh.poll_now = poll_now
        self._expect(fresh, self._config.timeout)
        self._current = fresh
        fresh.thread = threading.Thread(target=self._run, args=(fresh,), name="backpressure-poller", daemon=True)
        fresh.thread.start()

    def _run(self, me: _Thread) -> None:
        while self._current is me:
            try:
                if not me.poll_now:
                    pause = self._pause()
                    self._expect(me, pause + self._config.timeout)
                    wait(self._clock, me.wake, pause, background=True)
                    me.wake.clear()
                    if self._current is not me:
                        return
                me.poll_now = False
                self._expect(me, self._config.timeout)
                self.poll()
            except Exception:
                # A defect of ours, or a clock that raises. A poller that dies would serve stale answers.
                self._announcer.logger.exception("the poller failed unexpectedly; it goes on")
                self._count_error("provider")
                wait(self._clock, me.wake, self._config.interval, background=True)
                me.wake.clear()

    def _expect(self, me: _Thread, seconds: float) -> None:
        me.due_ns = self._clock.monotonic_ns() + nanoseconds(seconds + _SLACK)

    def _pause(self) -> float:
        """Return seconds until the next poll."""
        config = self._config
        if self._failures == 0:
            return config.interval + self._uniform(-config.jitter, config.jitter)
        # The exponent is capped only to keep the number small: the delay is capped long before.
        return min(config.max_backoff, config.interval * 2.0 ** min(self._failures, 64)) * self._uniform(0.5, 1.0)

    # --------------------------------------------------------------------------------------------------------- polls

    def poll(self) -> bool:
        """Read everything once, within the timeout; tell whether the provider answered. Raises nothing it raised."""
        collected: dict[str, QueueStats | StatsUnavailableError] = {}
        began = time.perf_counter()
        failure: Exception | None = None
        try:
            deadline_ns = self._clock.monotonic_ns() + nanoseconds(self._config.timeout)
            self.reader.call(lambda: self._collect(collected, deadline_ns), self._config.timeout)
        except Exception as error:  # noqa: BLE001 - providers may raise anything
            failure = error
        self._take(collected.copy())
        self._settle_cold_queues()
        self.last_poll_seconds = time.perf_counter() - began
        self._failures = 0 if failure is None else self._failures + 1
        self._report(failure)
        return failure is None

    def read_one(self, queue_name: str) -> bool:
        """Read one queue on the caller's path, within the timeout; tell whether it got a sample."""
        try:
            sample: Any = self.reader.call(lambda: self._provider.get_queue_stats(queue_name), self._config.timeout)
        except Exception as error:  # noqa: BLE001 - providers may raise anything
            sample = error
            if not isinstance(error, StatsUnavailableError):
                sample = StatsUnavailableError(f"{type(error).__name__} while reading", queue_name=queue_name)
        return self._take({queue_name: sample}) == 1

    def _collect(self, collected: dict[str, QueueStats | StatsUnavailableError], deadline_ns: int) -> None:
        """Read all that the provider lists, then the known queues that it left out. Runs on the reader's thread."""
        collected.update(self._provider.get_all_queue_stats())
        missing = [name for name in self._engine.queue_names() if name not in collected]
        if not missing:
            return
        get_many: Callable[[Iterable[str]], Mapping[str, QueueStats | StatsUnavailableError]] | None
        get_many = getattr(self._provider, "get_many", None)
        if get_many is not None:
            collected.update(get_many(missing))
            return
        # One by one, beginning behind where the last poll was cut off, so that every queue gets its turn.
        first = self._rotation % len(missing)
        for position, name in enumerate(missing[first:] + missing[:first], first + 1):
            if self._clock.monotonic_ns() >= deadline_ns:
                return
            self._rotation = position
            try:
                collected[name] = self._provider.get_queue_stats(name)
            except StatsUnavailableError as error:
                collected[name] = error

    def _take(self, collected: Mapping[str, QueueStats | StatsUnavailableError]) -> int:
        """Hand samples to the engine; return how many were good. A bad one spoils no other."""
        now_ns, wall = self._clock.monotonic_ns(), self._clock.utc_now()
        good = 0
        for position, (name, sample) in enumerate(collected.items(), 1):
            if position % _SLICE == 0:
                time.sleep(0)
            problem, error_type = self._problem(name, sample)
            if problem is None:
                assert isinstance(sample, QueueStats)  # noqa: S101 - what else has no problem
                lag_ns = max(0, nanoseconds((wall - sample.last_updated).total_seconds()))
                if self._engine.put_sample(name, sample.backlog_count, now_ns - lag_ns):
                    self.stats[name] = sample
                    good += 1
            else:
                self._count_error(error_type)
            self._report_queue(name, error_type, problem)
        return good

    @staticmethod
    def _problem(name: object, sample: object) -> tuple[str | None, str]:
        if isinstance(sample, StatsUnavailableError):
            return str(sample), sample.error_type
        if not isinstance(sample, QueueStats):
            return f"a provider must give QueueStats, not {type(sample).__name__}", "invalid_sample"
        try:
            validate_queue_name(name)
        except InvalidQueueError as error:
            return str(error), "invalid_sample"
        return sample.fault(), "invalid_sample"

    def _settle_cold_queues(self) -> None:
        """Let queues that this poll brought no sample for fall back until the next one."""
        for name in self._engine.queue_names():
            if self._engine.backlog(name) is None:
                self._engine.read_failed(name)

    def forget(self, queue_name: str) -> None:
        """Drop what is kept for display of an evicted queue."""
        self.stats.pop(queue_name, None)
        self._queue_health.pop(queue_name, None)

    # -------------------------------------------------------------------------------------------------------- reports

    def errors(self) -> dict[str, int]:
        """Return failed reads by type."""
        return {error_type: tally.value for error_type, tally in self._errors.copy().items()}

    def health(self) -> str:
        """Return ``"ok"``, the error type of a failing provider, or ``"unknown"`` before the first poll."""
        return self._health

    def _count_error(self, error_type: str) -> None:
        (self._errors.get(error_type) or self._errors.setdefault(error_type, Tally())).add()

    def _report(self, failure: Exception | None) -> None:
        old, new = self._health, "ok"
        if failure is not None:
            new = failure.error_type if isinstance(failure, StatsUnavailableError) else "provider"
            self._count_error(new)
        self._health = new
        if new == old or (old == "unknown" and new == "ok"):
            return
        if failure is None:
            self._announcer.announce("provider", old, new, "statistics are read again")
        else:
            # A foreign exception's text may hold a URL with credentials; its type says enough.
            cause = failure if isinstance(failure, StatsUnavailableError) else type(failure).__name__
            level = logging.ERROR if new in _MISCONFIGURED else logging.WARNING
            self._announcer.announce(
                "provider", old, new, f"statistics cannot be read: {cause}", level=level, error_type=new
            )

    def _report_queue(self, name: str, error_type: str, problem: str | None) -> None:
        old = self._queue_health.get(name, "ok")
        new = "ok" if problem is None else error_type
        if new == old or (problem is not None and len(self._queue_health) >= _MAX_REPORTED):
            return
        with contextlib.suppress(KeyError):
            del self._queue_health[name]
        if problem is not None:
            self._queue_health[name] = new
        message = f"statistics of queue {name!r} are read again" if problem is None else f"queue {name!r}: {problem}"
        level = logging.INFO if problem is None else logging.WARNING
        self._announcer.announce("queue_stats", old, new, message, queue_name=name, level=level, error_type=error_type)
