"""What providers answer: checked, counted, reported and given to the engine. No I/O, no waiting."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import re
import sys
from typing import TYPE_CHECKING, Any

from backpressure._controller.polling.drain import Drain
from backpressure._controller.polling.failing import REMIND_NS, Failing, span
from backpressure._controller.polling.fullness import Fullness
from backpressure._engine.sync import Tally
from backpressure._model.arguments import validate_queue_name
from backpressure._model.errors import InvalidQueueError, StatsUnavailableError
from backpressure._model.stats import QueueStats, age_of, permille_of
from backpressure._model.units import nanoseconds
from backpressure._runtime.foreign import raised_by_signal
from backpressure._runtime.pauses import Pauses
from backpressure._telemetry.ledger import Durations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from backpressure._engine.border import Engine
    from backpressure._model.clock import Clock
    from backpressure._model.config.polling import PollingConfig
    from backpressure._telemetry.events import Announcer

__all__ = ["Samples"]

# Queues whose failures are reported one by one; a provider that invents names must not fill the memory.
_MAX_REPORTED = 1_000
# One in so many places is kept for queues that producers ask for, where a provider lists more than there are.
_FREE_SHARE = 4
# Types of errors that are counted one by one: they are labels of a metric, and come from other people's code.
_MAX_ERROR_TYPES = 50
_ERROR_TYPE = re.compile(r"[\w.-]{1,64}", re.ASCII)
# Failures that go on until a person changes something.
_MISCONFIGURED = frozenset({"auth", "acl", "protocol", "wrongtype", "cluster"})


# Backlog, nanoseconds since it was true, nanoseconds since the oldest job was enqueued, thousandths of the memory used.
_Numbers = tuple[int, int, int | None, int | None]


def _never(_queue_name: str) -> bool:
    return False


def _unlimited(_queue_name: str) -> None:
    return None


def _age_ns(seconds: object) -> int | None:
    """Return an age in whole nanoseconds; ``None`` for what is no age."""
    age = age_of(seconds)
    return None if age is None else nanoseconds(age)


def _numbers(sample: QueueStats, lag: _Lag) -> _Numbers:
    age, used = sample.oldest_age, sample.memory_used
    oldest_age_ns = None if age is None else _age_ns(age)
    memory_permille = None if used is None else permille_of(used)  # most have none
    return sample.backlog_count, lag.of(sample.last_updated), oldest_age_ns, memory_permille


class _Lag:
    """How long before `wall` samples were true."""

    __slots__ = ("_at", "_ns", "_wall")

    def __init__(self, wall: datetime) -> None:
        self._wall = wall
        self._at: datetime | None = None
        self._ns = 0

    def of(self, at: datetime) -> int:
        """Return it in nanoseconds. Most samples of a poll share one instant, so the last one is remembered."""
        if at is not self._at:
            self._ns = max(0, nanoseconds((self._wall - at).total_seconds()))
            self._at = at
        return self._ns


class Samples:
    """Stands between those who read and the engine. Thread-safe.

    Args:
        hastens: tells whether a queue's circuit may be probed at once when its statistics can be read again.
        most: returns how many queues may have state.
        memory_bounds: returns the thousandths of memory from which on jobs of a queue are refused, see `Fullness`.
        cautions: returns what is to be said once, as whole polls found it: levels of the log, and sentences.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        announcer: Announcer,
        *,
        hastens: Callable[[str], bool] = _never,
        most: Callable[[], int] = lambda: sys.maxsize,
        memory_bounds: Callable[[str], tuple[int, int] | None] = _unlimited,
        cautions: Callable[[], Iterable[tuple[int, str]]] = tuple,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._announcer = announcer
        self._uniform = uniform
        self._hastens = hastens
        self._most = most
        self._cautions = cautions
        #: Whose servers are short of memory.
        self.fullness = Fullness(announcer, memory_bounds)
        self._told: set[str] = set()
        self._failures = 0
        self._errors: dict[str, Tally] = {}
        self._health = "unknown"
        #: What cannot be read now: the provider as a whole, and single queues.
        self.failing: Failing | None = None
        self.failing_queues: dict[str, Failing] = {}
        # Of queues that were read before their time.
        self._drains: dict[str, Drain] = {}
        # Queues that could not be read while their circuits were open, and have not been read since.
        self._lost: set[str] = set()
        #: Monotonic nanoseconds of the last answer of the provider, ``None`` before the first.
        self.answered_ns: int | None = None
        #: The last good sample of each queue, for display.
        self.stats: dict[str, QueueStats] = {}
        #: Seconds that the last poll took, ``None`` before the first.
        self.last_poll_seconds: float | None = None
        #: How long all polls took.
        self.durations = Durations()
        #: Called with every poll, before what it read takes the place of the samples that were decided by.
        self.before_poll: Callable[[], object] = bool
        #: Called by the poller after every poll, on its thread.
        self.after_poll: Callable[[], object] = bool

    def pause(self, config: PollingConfig) -> float:
        """Return seconds until the next poll."""
        if self._failures == 0:
            return config.interval + self._uniform(-config.jitter, config.jitter)
        # The exponent is capped only to keep the number small: the delay is capped long before.
        return min(config.max_backoff, config.interval * 2.0 ** min(self._failures, 64)) * self._uniform(0.5, 1.0)

    def follow(self, queue_names: Iterable[str]) -> None:
        """See from now on how fast some queues are drained."""
        for name in queue_names:
            if name not in self._drains:
                self._drains[name] = Drain()

    def half_empty(self, queue_names: Iterable[str]) -> dict[str, float]:
        """Return the monotonic instants, in nanoseconds, at which half of some queues' backlogs may be drained."""
        return {name: drain.half_empty_ns() if (drain := self._drains.get(name)) else math.inf for name in queue_names}

    def is_failing(self) -> bool:
        """Tell whether the last poll failed."""
        return self._failures > 0

    def finish(self, collected: Mapping[str, Any], failure: Exception | None, seconds: float) -> bool:
        """Take over a whole poll; tell whether the provider answered."""
        self.before_poll()
        good = self.take(self._with_room(collected))
        self._settle_cold_queues()
        self.last_poll_seconds = seconds
        self.durations = self.durations.plus(nanoseconds(seconds))
        self._failures = 0 if failure is None else self._failures + 1
        if failure is not None:
            self.count_error(self._error_type(failure))
            self._note_lost(set(self._engine.queue_names()) - good)
        self._report(failure)
        self._remind_of_queues()
        for level, sentence in self._cautions():
            if sentence not in self._told:
                self._told.add(sentence)
                self._announcer.caution(sentence, level=level)
        return failure is None

    def sighted(
        self, queue_names: Iterable[str], collected: Mapping[str, Any], failure: Exception | None, *, polled: bool
    ) -> int:
        """Take over what was read for callers, until a `failure` if there was one; return how many samples were good.

        If the provider is not `polled` as well, this is what its health is known by.
        """
        names = set(queue_names)
        if failure is not None and len(names) == 1:
            collected = dict.fromkeys(names, failure)  # as far as is known it concerns this queue alone
        elif failure is not None:
            self.count_error(self._error_type(failure))
        good = self.take(collected) & names
        for name in names - good:
            self._engine.read_failed(name)
        if failure is not None:
            self._note_lost(names - good)
        if not polled and (good or failure is not None):
            self._report(None if good else failure)
        if not polled:
            self._remind_of_queues()
        return len(good)

    def _with_room(self, collected: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what there is room for if a provider lists more queues than may have state.

        Those that producers have asked for come first, and some places stay free for others that they will ask for.
        """
        if collected.keys() <= self.stats.keys():
            return collected  # none is new
        most, known = self._most(), set(self._engine.queue_names())
        new = [name for name in collected if name not in known]
        if len(known) + len(new) <= most:
            return collected
        room = max(0, most - max(1, most // _FREE_SHARE) - len(known))
        left_out = set(new[room:])
        return {name: sample for name, sample in collected.items() if name not in left_out}

    def take(self, collected: Mapping[str, Any]) -> set[str]:
        """Give samples to the engine; return the queues whose samples were good. A bad one does not affect others."""
        now_ns, lag = self._clock.monotonic_ns(), _Lag(self._clock.utc_now())
        tick, put_sample = Pauses().tick, self._engine.put_sample
        good: set[str] = set()
        memory: dict[str, int] = {}
        for name, sample in collected.items():
            tick()
            problem, error_type, numbers = self._judge(name, sample, lag)
            if numbers is not None:
                backlog, lag_ns, oldest_age_ns, memory_permille = numbers
                if self._drains and (drain := self._drains.get(name)) is not None:
                    drain.note(backlog, now_ns - lag_ns, self._engine.sample(name))
                if put_sample(name, backlog, now_ns - lag_ns, oldest_age_ns, memory_permille):
                    self.stats[name] = sample
                    good.add(name)
                    if memory_permille is not None:
                        memory[name] = memory_permille
                    if self._lost:
                        self._note_found(name)
            else:
                self.count_error(error_type)
                self._note_lost((name,))
            if problem is not None or self.failing_queues:
                self._report_queue(name, error_type, problem)
        if memory:
            self.fullness.note(memory)
        return good

    def _note_lost(self, names: Iterable[object]) -> None:
        """Remember which queues could not be read while their circuits were not closed."""
        for name in names:
            with contextlib.suppress(InvalidQueueError):  # a provider may invent names
                valid = validate_queue_name(name)
                breaker = self._engine.breaker(valid, False)
                if breaker is not None and breaker.state() != 0:
                    self._lost.add(valid)

    def _note_found(self, name: str) -> None:
        """If a lost queue can be read again, let its circuit be probed: jobs go to the server that was read."""
        if name in self._lost:
            self._lost.discard(name)
            if self._hastens(name):
                self._engine.hasten(name)

    def _error_type(self, error: Exception) -> str:
        """Return the type to count an error as: the one that it names, if that can be a label."""
        given: object = getattr(error, "error_type", None)
        if not (isinstance(error, StatsUnavailableError) and isinstance(given, str) and _ERROR_TYPE.fullmatch(given)):
            return "provider"
        return given if given in self._errors or len(self._errors) < _MAX_ERROR_TYPES else "provider"

    def _judge(self, name: object, sample: Any, lag: _Lag) -> tuple[str | None, str, _Numbers | None]:
        """Return what is wrong with a sample, as what to count that, and else its numbers.

        A subclass, or a time zone, may be other people's code and raise anything: that concerns this queue alone.
        """
        try:
            problem, error_type = self._problem(name, sample)
            if problem is not None:
                return problem, error_type, None
            return None, error_type, _numbers(sample, lag)
        except BaseException as error:
            if raised_by_signal(error):
                raise
            return f"looking at its sample raised {type(error).__name__}", "invalid_sample", None

    def _problem(self, name: object, sample: object) -> tuple[str | None, str]:
        if type(sample) is QueueStats and type(name) is str and name in self.stats:
            return sample.fault(), "invalid_sample"  # nearly all: the name was checked with an earlier sample
        if isinstance(sample, StatsUnavailableError):
            return str(sample), self._error_type(sample)
        if isinstance(sample, Exception):
            return f"{type(sample).__name__} while reading", "provider"  # its text may hold credentials
        if not isinstance(sample, QueueStats):
            return f"a provider must give QueueStats, not {type(sample).__name__}", "invalid_sample"
        try:
            validate_queue_name(name)
        except InvalidQueueError as error:
            return str(error), "invalid_sample"
        return QueueStats.fault(sample) or sample.fault(), "invalid_sample"

    def _settle_cold_queues(self) -> None:
        """Let queues without any sample use the fallback until the next poll."""
        for name in self._engine.queue_names():
            if name not in self.stats:
                self._engine.read_failed(name)

    def forget(self, queue_name: str) -> None:
        """Drop what is kept about an evicted queue."""
        self.stats.pop(queue_name, None)
        self.failing_queues.pop(queue_name, None)
        self._drains.pop(queue_name, None)
        self._lost.discard(queue_name)
        self.fullness.forget(queue_name)

    def forget_all(self) -> None:
        """Begin anew in a forked child, which has read nothing yet."""
        self.stats.clear()
        self.failing = None
        self.failing_queues.clear()
        self._drains.clear()
        self._lost.clear()
        self.fullness.forget_all()
        self._failures = 0
        self._health = "unknown"
        self.answered_ns = None

    def errors(self) -> dict[str, int]:
        """Return failed reads by type."""
        return {error_type: tally.value for error_type, tally in self._errors.copy().items()}

    def health(self) -> str:
        """Return ``"ok"``, the error type of a failing provider, or ``"unknown"`` before the first poll."""
        return self._health

    def count_error(self, error_type: str) -> None:
        (self._errors.get(error_type) or self._errors.setdefault(error_type, Tally())).add()

    def note_restart(self) -> None:
        """Count and announce that a poller which showed no sign of life was replaced."""
        self.count_error("heartbeat")
        message = "the poller showed no sign of life: restarted"
        self._announcer.announce("poller", "running", "restarted", message, level=logging.ERROR)

    def _report(self, failure: Exception | None) -> None:
        old, new = self._health, "ok" if failure is None else self._error_type(failure)
        self._health = new
        now_ns = self._clock.monotonic_ns()
        if failure is None:
            failing, self.failing, self.answered_ns = self.failing, None, now_ns
            if failing is not None:
                lasted_ns = now_ns - failing.since_ns
                lasted = f", after {span(lasted_ns)} and {failing.count} failures" if lasted_ns >= REMIND_NS else ""
                self._announcer.announce("provider", old, new, f"statistics are read again{lasted}")
            return
        failing = self.failing = self.failing or Failing(self._clock)
        # The text of other people's exceptions may hold a URL with credentials; the type says enough.
        cause = str(failure) if isinstance(failure, StatsUnavailableError) else type(failure).__name__
        level = logging.ERROR if new in _MISCONFIGURED else logging.WARNING
        if failing.note(new, cause):
            failing.told(now_ns)
            self._announcer.announce(
                "provider", old, new, f"statistics cannot be read: {cause}", level=level, error_type=new
            )
        elif failing.is_due(now_ns):
            failing.told(now_ns)
            lasted = f"for {span(now_ns - failing.since_ns)} now, {failing.count} times in a row"
            message = f"statistics still cannot be read, {lasted}: {cause}"
            self._announcer.remind("provider", message, level=level, error_type=new)

    def _report_queue(self, name: str, error_type: str, problem: str | None) -> None:
        if problem is None:
            ended = self.failing_queues.pop(name, None)
            if ended is not None:
                message = f"statistics of queue {name!r} are read again"
                self._announcer.announce(
                    "queue_stats", ended.error, "ok", message, queue_name=name, error_type=error_type
                )
            return
        failing = self.failing_queues.get(name)
        if failing is None:
            if len(self.failing_queues) >= _MAX_REPORTED:
                return
            failing = self.failing_queues[name] = Failing(self._clock)
        old = failing.error or "ok"
        if failing.note(error_type, problem):
            failing.told(self._clock.monotonic_ns())
            message = f"queue {name!r}: {problem}"
            self._announcer.announce(
                "queue_stats", old, error_type, message, queue_name=name, level=logging.WARNING, error_type=error_type
            )

    def _remind_of_queues(self) -> None:
        """Tell of queues that have failed for long, in one line."""
        if not self.failing_queues:
            return
        now_ns = self._clock.monotonic_ns()
        due = [(name, each) for name, each in self.failing_queues.copy().items() if each.is_due(now_ns)]
        if not due:
            return
        for _, each in due:
            each.told(now_ns)
        name, first = min(due, key=lambda item: item[1].since_ns)
        others = f", and {len(due) - 1} other queues" if len(due) > 1 else ""
        lasted = f"for {span(now_ns - first.since_ns)} now, {first.count} times in a row"
        self._announcer.remind(
            "queue_stats",
            f"statistics of queue {name!r}{others} still cannot be read, {lasted}: {first.cause}",
            level=logging.WARNING,
            queue_name=name,
            error_type=first.error,
        )
