"""The one regular reader of statistics: a thread that polls, backs off, and is replaced when it dies."""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
from typing import TYPE_CHECKING

from backpressure.clock import Wake, wait
from backpressure.intake import Intake
from backpressure.reader import Reader
from backpressure.settings import nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from backpressure._engine import Engine
    from backpressure.clock import Clock
    from backpressure.config import PollingConfig
    from backpressure.errors import StatsUnavailableError
    from backpressure.events import Announcer
    from backpressure.types import QueueStats, StatsProvider

__all__ = ["Poller"]

# Seconds beyond its own plans after which the thread counts as dead.
_SLACK = 2.0
# Seconds that stop() waits for the thread; it is a daemon, so nothing hangs on it.
_JOIN = 0.5


class _Thread:
    """One incarnation of the poller's thread. A stranger to later ones, and to those of other processes."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.wake = Wake()
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
    ) -> None:
        self._provider = provider
        self._engine = engine
        self._config = config
        self._clock = clock
        self._announcer = announcer
        self.intake = Intake(engine, clock, announcer)
        self.reader = Reader(provider, clock)
        self._current: _Thread | None = None
        self._stopped = False
        self._rotation = 0

    # ----------------------------------------------------------------------------------------------------- lifecycle

    def poll_first(self) -> None:
        """Poll in this thread, if `start` is to follow."""
        if self._is_wanted():
            self.poll()

    def start(self, *, poll_now: bool) -> None:
        """Start the thread, or in a forked child start it anew; its first poll is due now, or after the interval."""
        if self._is_wanted():
            self._spawn(poll_now=poll_now)

    def _is_wanted(self) -> bool:
        return self._config.enabled and (self._current is None or self._current.pid != os.getpid())

    def check(self) -> None:
        """Replace the thread if it shows no sign of life. Called where samples are older than they may be."""
        current = self._current
        if self._stopped or not self._config.enabled:
            return
        if current is None or current.pid != os.getpid():
            self._spawn(poll_now=True)  # a child process: threads do not survive a fork
        elif self._clock.monotonic_ns() > current.due_ns:
            self.intake.note_restart()
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
            self.start(poll_now=True)
            self.wake()
        else:
            self._retire()

    def stop(self) -> None:
        """End the thread; returns within 1 s whatever the provider does. Idempotent."""
        self._stopped = True
        atexit.unregister(self._retire)
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
        if self._stopped:
            return  # stop() came while start() was polling
        fresh = _Thread()
        fresh.poll_now = poll_now
        self._expect(fresh, self._config.timeout)
        self._current = fresh
        try:
            thread = threading.Thread(target=self._run, args=(fresh,), name="backpressure-poller", daemon=True)
            thread.start()
        except RuntimeError as error:  # no more threads are to be had: whoever meets an old sample tries again
            fresh.due_ns = -math.inf
            self._announcer.poller_failed(error)
            return
        fresh.thread = thread
        # A daemon at work while its interpreter ends could log to what is closed, and a subinterpreter dies of it.
        atexit.unregister(self._retire)
        atexit.register(self._retire)

    def _run(self, me: _Thread) -> None:
        while self._current is me:
            try:
                if not me.poll_now:
                    pause = self.intake.pause(self._config)
                    self._expect(me, pause + self._config.timeout)
                    wait(self._clock, me.wake, pause, background=True)
                    me.wake.clear()
                    if self._current is not me:
                        return
                me.poll_now = False
                self._expect(me, self._config.timeout)
                self.poll()
            except Exception as error:  # noqa: BLE001 - a poller that dies would serve stale answers
                self._announcer.poller_failed(error)
                self.intake.count_error("provider")
                wait(self._clock, me.wake, self._config.interval, background=True)
                me.wake.clear()

    def _expect(self, me: _Thread, seconds: float) -> None:
        me.due_ns = self._clock.monotonic_ns() + nanoseconds(seconds + _SLACK)

    # --------------------------------------------------------------------------------------------------------- polls

    def poll(self) -> bool:
        """Read everything once, within the timeout; tell whether the provider answered. Raises nothing it raised."""
        collected: dict[str, object] = {}
        began = time.perf_counter()
        failure: Exception | None = None
        try:
            deadline_ns = self._clock.monotonic_ns() + nanoseconds(self._config.timeout)
            self.reader.call(lambda: self._collect(collected, deadline_ns), self._config.timeout)
        except Exception as error:  # noqa: BLE001 - providers may raise anything
            failure = error
        answered = self.intake.finish(collected.copy(), failure, time.perf_counter() - began)
        self.intake.after_poll()
        return answered

    def read_one(self, queue_name: str) -> bool:
        """Read one queue on the caller's path, within the timeout; tell whether it got a sample."""
        outcome: object
        try:
            outcome = self.reader.call(lambda: self._provider.get_queue_stats(queue_name), self._config.timeout)
        except Exception as error:  # noqa: BLE001 - providers may raise anything
            outcome = error
        return self.intake.take({queue_name: outcome}) == 1

    def _collect(self, collected: dict[str, object], deadline_ns: int) -> None:
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
            except Exception as error:  # noqa: BLE001 - one queue's error spoils no other
                collected[name] = error
