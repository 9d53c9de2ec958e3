"""The one regular reader of statistics: a thread that polls, backs off, and is replaced when it dies."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import sys
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from backpressure._controller.polling.deadline import Reader, as_failed_read
from backpressure._controller.polling.provider import gaps_of
from backpressure._controller.polling.reads import Reads
from backpressure._controller.polling.schedule import Schedule
from backpressure._controller.polling.sights import Landing, ThreadSights
from backpressure._engine.sync import ForkLock
from backpressure._model.clock import Wake, own_time, wait
from backpressure._model.units import nanoseconds
from backpressure._runtime.foreign import unless_by_signal
from backpressure._runtime.threads import await_ours, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from backpressure._controller.age.budgets import Budgets
    from backpressure._controller.fleet.fleet import Fleet
    from backpressure._controller.following import Following
    from backpressure._controller.polling.reads import Request
    from backpressure._controller.polling.samples import Samples
    from backpressure._engine.border import Engine
    from backpressure._model.clock import Clock
    from backpressure._model.config.polling import PollingConfig
    from backpressure._model.stats import StatsProvider
    from backpressure._telemetry.events import Announcer

__all__ = ["Poller"]

# Seconds after which a thread that does not do what it planned is in doubt.
_SLACK = 2.0
# Seconds to wait for the end of each thread; they are daemons, so the process can end without them.
_JOIN = 0.4
# Seconds for which a fleet's own server, or a file, may hold up the polls of queues.
_LONGEST_CARRY = 1.0


def _nothing() -> None:
    """End no reads: these end by themselves."""


def _known(poller: weakref.ref[Poller]) -> list[str]:
    held = poller()
    return [] if held is None else held.queue_names()


def _retire(poller: weakref.ref[Poller]) -> None:
    held = poller()
    if held is not None:
        held.retire()()


def _live(poller: weakref.ref[Poller], me: _Thread) -> None:
    """Poll for as long as anybody holds the poller: this thread does so while it polls, but not while it waits."""
    try:
        while (held := poller()) is not None and held.is_wanted(me):
            clock, seconds = held.turn(me)
            del held
            try:
                wait(clock, me.wake, seconds, background=True)
            except Exception as error:  # noqa: BLE001 - a poller that dies would serve stale answers
                if (held := poller()) is not None:
                    held.failed(error)
                del held
                me.wake.wait(seconds)
            me.wake.clear()
    finally:
        me.first_poll.land()
        if (held := poller()) is not None:
            held.thread_ended()


def _carry_out(steps: Generator[Request, Any, None], provider: StatsProvider) -> None:
    """Do what `steps` ask for, one after the other. Runs on the reader's thread, which may hang for ever.

    So nothing here holds the poller.
    """
    go_on = partial(steps.send, None)
    with contextlib.suppress(StopIteration):
        while True:
            request = go_on()
            try:
                go_on = partial(steps.send, request.of(provider))
            except BaseException as error:  # noqa: BLE001 - providers may raise anything
                go_on = partial(steps.throw, error if isinstance(error, Exception) else as_failed_read(error))


class _Thread:
    """One thread of the poller, with its state. Later threads, and those of other processes, share none of it."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.pid = os.getpid()
        self.wake = Wake()
        self.first_poll = Landing()
        self.due_ns: float = 0  # when it must have reported again, if it lives
        self.late = False  # it woke up much later than planned, and polls
        self.doubted = False  # it did not report in time, and was woken to do so
        self.dismissed = False
        self.thread: threading.Thread | None = None

    def poll_now(self) -> None:
        """Have it read everything at once."""
        self.schedule.poll_now()
        self.wake.set()

    def is_own(self) -> bool:
        """Tell whether this process started it."""
        return self.pid == os.getpid()

    def is_dead(self) -> bool:
        """Tell whether it has ended. A ``False`` is not reliable under all servers."""
        return self.thread is not None and not self.thread.is_alive()


class Poller:
    """Reads the provider into the engine. Thread-safe; survives whatever the provider raises."""

    def __init__(
        self,
        provider: StatsProvider,
        engine: Engine,
        config: PollingConfig,
        clock: Clock,
        announcer: Announcer,
        samples: Samples,
        end_reads: Callable[[], threading.Thread | None] = _nothing,
        rest: Callable[[], threading.Thread | None] = _nothing,
        *,
        budgets: Budgets,
        fleet: Fleet | None = None,
        following: Following | None = None,
    ) -> None:
        self._provider = provider
        self._engine = engine
        self._config = config
        self._clock = clock
        self._announcer = announcer
        self.samples = samples
        self.reader = Reader(provider, clock)
        self.budgets = budgets
        budgets.bind(self.hasten)
        self._stores = Reader(budgets, clock)
        self.fleet = fleet
        self._carriers = Reader(fleet, clock)
        self._following = following
        self._files = Reader(following, clock)
        this = weakref.ref(self)
        self._reads = Reads(provider, partial(_known, this), self.reader.is_crowded)
        self._at_exit = partial(_retire, this)
        self._end_reads = end_reads
        self._rest = rest
        self._current: _Thread | None = None
        #: Called in a forked child, whatever the parent has read being forgotten.
        self.forked: Callable[[], object] = _nothing
        self._lock = ForkLock()
        self._begun_in: int | None = None  # the process that started it
        self._stopped = False
        self._again = False
        self._forking = False
        self._has_forked = False
        _pollers.add(self)

    def start(self) -> Landing | None:
        """Start the thread, in a forked child again; return the end of its first poll, or ``None`` without a poller."""
        self._begun_in = os.getpid()
        # A daemon that works while its interpreter ends could log to closed files; a subinterpreter would crash.
        atexit.unregister(self._at_exit)
        atexit.register(self._at_exit)
        self._ensure()
        current = self._current
        return None if current is None else current.first_poll

    def _ensure(self) -> bool:
        """Start the thread if polling is wanted and this process has none; tell whether that was so."""
        current = self._current
        if not self._may_run() or sys.is_finalizing() or (current is not None and current.is_own()):
            return False
        if current is not None:
            self.forget_parent()  # the fork hook may not have run
        self._spawn(current)
        return True

    def _may_run(self) -> bool:
        return self.is_begun() and self._config.enabled and not self._stopped and not self._forking

    def check(self) -> bool:
        """Check the thread, since samples are older than they may be; tell whether the caller should read first.

        It should if nobody can have read: in a forked child, and after the whole process stood still.
        """
        if self._ensure():
            return True
        current = self._current
        if current is None or not current.is_own() or sys.is_finalizing():
            return False
        dead = current.is_dead()
        if not dead and self._clock.monotonic_ns() <= current.due_ns:
            return current.late
        if dead or current.doubted:
            self.samples.note_restart()
            self._spawn(current)
        else:
            # Perhaps it did not report because this process was suspended, and is itself just waking up.
            current.doubted = True
            current.due_ns = self._due_ns(self._config.timeout)
            current.poll_now()
        return True

    def configure(self, config: PollingConfig) -> None:
        """Poll by `config` from now on; before `start`, from then on."""
        self._config = config
        if not config.enabled:
            self._dismiss()
        elif not self._ensure() and self._current is not None:
            self._current.poll_now()

    def hurry(self, queue_name: str) -> None:
        """Read a queue before its time: more jobs came than what is known of it is good for."""
        current = self._current
        if current is not None:
            current.schedule.hurry(queue_name)
            current.wake.set()

    def note_busy(self) -> None:
        """Take note that a queue has left green: it is read more often from now on."""
        current = self._current
        if current is not None:
            current.wake.set()

    def hasten(self) -> None:
        """Have the stores of budgets that are due called at once; start the thread, or look after it, if need be."""
        current = self._current
        if self._ensure() or current is None:
            return
        if current.is_dead() or self._clock.monotonic_ns() > current.due_ns:
            self.check()
        current.wake.set()

    def retire(self) -> Callable[[], object]:
        """End the thread and its reads; return a function that waits for the end, for less than a second.

        `start` may come again.
        """
        self._forget_start()
        current = self._dismiss()
        self.reader.interrupt()
        self._stores.interrupt()
        self._carriers.interrupt()
        return partial(_join, current, self._end_reads())

    def stop(self) -> Callable[[], object]:
        """As `retire`, for good. Idempotent."""
        self._stopped = True
        return self.retire()

    def abandon(self) -> None:
        """As `stop`, when nobody holds it any more: waits for nothing, and calls nothing of the provider's."""
        self._stopped = True
        self._forget_start()
        self._dismiss()
        self._end_reads()

    def is_begun(self) -> bool:
        """Tell whether it was started, here or in the parent of this process, and not ended."""
        return self._begun_in is not None

    def is_begun_here(self) -> bool:
        """Tell whether it was started in this process, and not ended."""
        return self._begun_in == os.getpid()

    def queue_names(self) -> list[str]:
        """Return the queues that are polled, beside those that the provider lists."""
        return self._engine.queue_names()

    def alive(self) -> bool:
        """Tell whether this process has a poller that reports in time; one that ended for a fork is started again."""
        if self._has_forked:
            self._ensure()
        current = self._current
        return (
            current is not None
            and current.is_own()
            and not current.is_dead()
            and self._clock.monotonic_ns() <= current.due_ns
        )

    def before_fork(self) -> threading.Thread | None:
        """Tell the thread to end for a fork, and return it: Python 3.12 warns where a process with threads forks."""
        self._forking = True
        return self._dismiss()

    def rest(self) -> None:
        """End what the reads keep between two of them."""
        self._rest()

    def after_fork(self, *, in_child: bool) -> None:
        """Let the next look at the poller start it again; Python counts threads only after this."""
        self._forking, self._has_forked = False, not in_child
        if in_child:
            self.forget_parent()

    def forget_parent(self) -> None:
        """Begin again in a forked child: what its parent has read is old."""
        self._engine.forget_samples()
        self.samples.forget_all()
        self.budgets.forget_parent()
        if self.fleet is not None:
            self.fleet.forget_parent()
        self.forked()

    def revive(self) -> None:
        """Start the thread of a forked child, when it reads its first queue."""
        self._ensure()

    def _dismiss(self) -> threading.Thread | None:
        """Tell the thread to end as soon as it checks; return it."""
        # `_current` is cleared last, so that a caller that is interrupted here may try again.
        current = self._current
        own = current is not None and current.is_own()
        if current is not None and own:
            current.dismissed = True
            current.wake.set()
            current.first_poll.land()
        if self._current is current:
            self._current = None
        return current.thread if current is not None and own else None

    def _forget_start(self) -> None:
        self._begun_in = None
        atexit.unregister(self._at_exit)

    def _spawn(self, old: _Thread | None) -> None:
        """Start a thread that replaces `old`, unless another caller already has."""
        fresh = _Thread(Schedule(self._clock, gaps_of(self._provider)))
        fresh.due_ns = self._due_ns(self._config.timeout)
        with self._lock():
            if self._current is not old:
                return
            self._current = fresh
        if old is not None and old.is_own():
            old.wake.set()
        try:
            fresh.thread = spawn(partial(_live, weakref.ref(self), fresh), "poller")
        except RuntimeError as error:
            # No more threads can be started: the next caller that finds an old sample tries again.
            fresh.due_ns = -math.inf
            fresh.doubted = True
            fresh.first_poll.land()
            self._announcer.poller_failed(error)
            return
        if not self._may_run():
            self._dismiss()  # the poller was ended after this began

    def is_wanted(self, me: _Thread) -> bool:
        """Tell whether this thread is to go on."""
        return self._current is me and not me.dismissed and not self._stopped

    def thread_ended(self) -> None:
        """Take note that a thread is at its end."""
        if self._current is None:
            self._end_reads()  # it may have begun to read after the reads were ended

    def turn(self, me: _Thread) -> tuple[Clock, float]:
        """Read what is due; return the clock to wait on until more is, and the seconds. A `wake` ends the wait."""
        schedule, config = me.schedule, self._config
        try:
            me.late = me.doubted or self._clock.monotonic_ns() > me.due_ns
            self._expect(me, config.timeout)
            queue_names = schedule.due()
            if queue_names is None:
                self._again = False
                if self.fleet is not None:
                    self._beside(self.fleet.prepare)
                self.poll()
                if self._following is not None and not self._stopped:
                    self._expect(me, 2 * config.timeout)
                    self._beside(partial(self._following.follow, self._within(self._files, config)))
                # At once, for queues that the poll did not come to.
                schedule.polled(0.0 if self._again else self.samples.pause(config))
            elif quick := self._reads.quick(queue_names):
                self._read_early(quick)
            if self.samples.is_failing():
                pause = schedule.rest_from_failure()
            else:
                pause = schedule.rest(config, self.samples.half_empty(self._engine.busy_queues()))
            if self.budgets.used:
                self._expect(me, 2 * config.timeout)
                pause = min(pause, self._hold_ages(config))
            if self.fleet is not None and not self._stopped:
                self._expect(me, 2 * config.timeout)
                if self._beside(partial(self.fleet.follow, self._within(self._carriers, config))):
                    pause = min(pause, self.fleet.due_in())
        except Exception as error:  # noqa: BLE001 - a poller that dies would serve stale answers
            self.failed(error)
            pause = config.interval
            schedule.polled(pause)
        me.late = False
        me.first_poll.land()
        self._expect(me, pause + self._config.timeout)
        return self._clock, pause

    def _hold_ages(self, config: PollingConfig) -> float:
        """Call the stores of budgets that are due; return the seconds until others are."""
        self.budgets.prepare(self._engine.queue_names())
        gap_of = gaps_of(self._provider)

        def least_gap(queue_name: str) -> float:
            # Where each read costs something, a queue is read no more often than if it were outside of green.
            return gap if (gap := gap_of(queue_name)) < math.inf else config.busy_interval

        self.budgets.exchange(self._engine, self.read, least_gap, lambda call: self._stores.call(call, config.timeout))
        return self.budgets.due_in()

    def _beside(self, work: Callable[[], object]) -> bool:
        """Do what queues do not depend on: whatever becomes of it, they are read. Tell whether it was done."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a defect of this package
            self._announcer.poller_failed(error)
            return False
        return True

    @staticmethod
    def _within(reader: Reader, config: PollingConfig) -> Callable[[Callable[[], object]], object]:
        """Return what has a function end in time."""
        timeout = min(config.timeout, _LONGEST_CARRY)
        return lambda call: reader.call(call, timeout)

    def failed(self, error: Exception) -> None:
        """Tell of an error that no provider raised."""
        self._announcer.poller_failed(error)
        self.samples.count_error("provider")

    def _expect(self, me: _Thread, seconds: float) -> None:
        me.due_ns = self._due_ns(seconds)
        me.doubted = False

    def _due_ns(self, seconds: float) -> int:
        return self._clock.monotonic_ns() + nanoseconds(seconds + _SLACK)

    def poll(self) -> bool:
        """Read everything once, within the timeout; tell whether the provider answered. Its errors are not raised."""
        collected: dict[str, object] = {}
        began = own_time.perf_counter()
        failure = self._bounded(collected)
        if self._stopped:
            return False  # what was cut short is not reported
        taken = collected.copy()
        if failure is not None and (is_new := self._reads.note_cut(taken)) is not None:
            failure = None  # the provider answers: one queue alone took too long
            self._again = is_new
        answered = self.samples.finish(taken, failure, own_time.perf_counter() - began)
        self.samples.after_poll()
        return answered

    def _read_early(self, queue_names: list[str]) -> None:
        """Read some queues before their time; one that takes too long is left to polls from now on."""
        self.samples.follow(queue_names)
        _, failure, taken = self._sight(queue_names)
        if failure is not None:
            self._reads.note_slow(queue_names, taken)

    def sights(self) -> ThreadSights:
        """Return what reads for callers."""
        return ThreadSights(self.read, self._engine.read_failed, together=self._reads.together)

    def read(self, queue_names: list[str]) -> int:
        """Read some queues for callers, within the timeout; return how many got a sample."""
        return self._sight(queue_names)[0]

    def _sight(self, queue_names: list[str]) -> tuple[int, Exception | None, dict[str, object]]:
        """Read some queues; return how many got a sample, what cut the read short, and what was read until then."""
        collected: dict[str, object] = {}
        failure = None if self._stopped else self._bounded(collected, queue_names)
        taken = collected.copy()
        if self._stopped:
            return 0, None, taken
        return self.samples.sighted(queue_names, taken, failure, polled=self._config.enabled), failure, taken

    def _bounded(self, collected: dict[str, object], queue_names: list[str] | None = None) -> Exception | None:
        """Read some queues, or everything, within the timeout; return what cut it short.

        What was read until then is in `collected`, into which a read that hangs may still write later.
        """
        timeout, clock = self._config.timeout, self._clock
        try:
            deadline_ns = clock.monotonic_ns() + nanoseconds(timeout)
            steps = self._reads.steps(collected, queue_names, lambda: clock.monotonic_ns() >= deadline_ns)
            self.reader.call(partial(_carry_out, steps, self._provider), timeout)
        except Exception as error:  # noqa: BLE001 - providers may raise anything
            return unless_by_signal(error)
        return None


def _join(*threads: threading.Thread | None) -> None:
    for thread in threads:
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN)


def _before_fork() -> None:
    pollers = list(_pollers)
    _join(*[poller.before_fork() for poller in pollers])  # reads under way are not cut
    for poller in pollers:
        poller.rest()
    await_ours(_JOIN)


def _after_fork(*, in_child: bool) -> None:
    for poller in list(_pollers):
        poller.after_fork(in_child=in_child)


# Servers that fork in C call none of these: there a child sees by its process id that its samples are old.
_pollers: weakref.WeakSet[Poller] = weakref.WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=partial(_after_fork, in_child=False),
        after_in_child=partial(_after_fork, in_child=True),
    )
