"""All budgets of a controller: made when a queue is first asked for, and kept up by the poller's thread."""

from __future__ import annotations

import logging
import math
import secrets
from typing import TYPE_CHECKING, Any

from backpressure._age.protocol import LEVELS, BacklogSeen, arguments
from backpressure._age.script import budget_key
from backpressure._controller.age.budget import Budget
from backpressure._controller.age.caller import Caller
from backpressure._controller.age.cautions import Cautions
from backpressure._controller.age.stores import Stores
from backpressure._controller.age.turn import HeldError, current
from backpressure._engine.laws.age import AgeLaw, Judged
from backpressure._engine.sync import ForkLock
from backpressure._model.vocabulary import AGE_REASONS, CIRCUIT_REASONS, LOW, Priority, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from backpressure._age.lease import AnyLease
    from backpressure._age.protocol import Answer
    from backpressure._controller.age.turn import Turn
    from backpressure._engine.border import Engine
    from backpressure._engine.settings import EngineSettings
    from backpressure._model.clock import Clock
    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.decision import ThrottleDecision
    from backpressure._telemetry.events import Announcer

__all__ = ["Budgets"]

_LOWEST = LEVELS[-1]
_LOW_NAME = str(LOW)
_NS, _MS = 1_000, 1_000_000
# What a caller is told who asks while a configuration ends that an age is held.
_NOT_HELD = Judged(None, 0, False, Reason.AGE_OPEN)


class Budgets:
    """Thread-safe; `exchange` is called by one thread at a time.

    Args:
        provider: whose Redis keeps the budgets, where no other store is named.
        clock: tells the time.
        announcer: is told of changes of state.
        make_lease: the engine's.
    """

    def __init__(
        self, provider: object, clock: Clock, announcer: Announcer, make_lease: Callable[..., AnyLease]
    ) -> None:
        self._clock = clock
        self._announcer = announcer
        self._make_lease = make_lease
        self._cautions = Cautions(announcer.caution)
        self._stores = Stores(provider)
        self._lock = ForkLock()
        self._budgets: dict[str, Budget] = {}
        self._seen_ns: dict[str, int] = {}
        self._producer_id = ""
        self._settings: EngineSettings
        self._timeout = 1.0
        self._call: Callable[[], object] = bool
        #: Calls of the store by how they ended.
        self.calls = {"ok": 0, "error": 0}
        #: Whether the age of any queue is to be held.
        self.used = False

    def configure(self, config: BackpressureConfig, settings: EngineSettings) -> None:
        """Hold what a configuration says from now on.

        Raises:
            ConfigurationError: nothing keeps the budget of a queue.
        """
        self._stores.configure(config)
        self._settings = settings
        self._timeout = config.polling.timeout
        self.used = settings.holds_ages
        for name, budget in self._budgets.copy().items():
            law = settings.law_of(name)
            if isinstance(law, AgeLaw):
                budget.reconfigure(law)
            else:
                self._budgets.pop(name, None)
                budget.release()

    def bind(self, call: Callable[[], object]) -> None:
        """Take what has `exchange` called at once."""
        self._call = call

    # What the engine asks for.

    def judge(self, queue_name: str, priority: Priority) -> Judged:
        """See `backpressure._engine.border.Host.judge`."""
        budget, level, turn = self._budget(queue_name), _LOWEST - priority.value, current()
        if budget is None:
            return _NOT_HELD
        if turn is None:  # a caller that never waits
            judged = budget.arrive(level, None, patient=priority is not LOW, holds=False, delays=True)
            assert not isinstance(judged, Caller)  # noqa: S101 - such a caller is answered at once
            return judged
        if turn.judged is not None:
            told, turn.judged = turn.judged[1], None
            turn.went = told.goes()
            return told
        turn.asked = True
        limit, asks_again = turn.limit(priority)
        patient_ms = budget.lease.settings.patient_ms
        patient = (priority is not LOW or asks_again) if limit is None else limit * 1_000 >= patient_ms
        arrived = budget.arrive(
            level,
            None if limit is None else int(limit * _MS),
            patient=patient,
            holds=turn.holds and limit != 0,
            delays=turn.delays or not turn.holds,
            jobs=turn.jobs,
            tenant=turn.tenant,
        )
        if isinstance(arrived, Caller):
            raise HeldError(budget, arrived)
        turn.went = arrived.goes()
        return arrived

    def foresee(self, queue_name: str, priority: Priority) -> Judged:
        """See `backpressure._engine.border.Host.foresee`."""
        budget = self._budget(queue_name)
        return _NOT_HELD if budget is None else budget.foresee(_LOWEST - priority.value)

    def is_impatient(self, priority: object, queue_name: object, turn: Turn) -> bool:
        """Tell whether the refusal of a lease that lies ready is for a caller, whom `judge` would not have wait either.

        Only LOW jobs are refused so: others wait for their turn, or are told when to come again by how long they wait.
        """
        if type(queue_name) is not str or not (priority is LOW or (type(priority) is str and priority == _LOW_NAME)):
            return False
        budget = self._budgets.get(queue_name)
        return budget is not None and turn.is_impatient(budget.lease.settings.patient_ms)

    def settle(self, decision: ThrottleDecision, turn: Turn) -> None:
        """Make what is counted that which was decided in the end.

        An engine that lets a caller go by itself has counted one job; a circuit may refuse whom the budget let go.
        """
        budget = self._budgets.get(decision.queue_name)
        if budget is None:
            return
        if turn.went and decision.reason in CIRCUIT_REASONS:
            budget.take_back(turn.jobs)
        elif turn.jobs > 1 and not turn.asked and decision.reason in AGE_REASONS:
            budget.go_along(_LOWEST - decision.priority.value, turn.jobs - 1, turn.tenant)

    def begin(self, queue_name: str, jobs: int = 1) -> None:
        """Take note that the enqueue of jobs begins which were let go; `end` is to follow."""
        budget = self._budgets.get(queue_name)
        if budget is not None:
            budget.begin(jobs)

    def end(self, queue_name: str, jobs: int = 1) -> None:
        """Take note that it has ended."""
        budget = self._budgets.get(queue_name)
        if budget is not None:
            budget.end(jobs)

    def take_back(self, queue_name: str, jobs: int = 1) -> None:
        """Count off jobs that were let go and were not enqueued."""
        budget = self._budgets.get(queue_name)
        if budget is not None:
            budget.take_back(jobs)

    def _budget(self, queue_name: str) -> Budget | None:
        """Return the budget of a queue, made if need be; ``None`` if no age is held there, or not any more."""
        budget = self._budgets.get(queue_name)
        if budget is not None:
            return budget
        with self._lock():
            budget, law = self._budgets.get(queue_name), self._settings.law_of(queue_name)
            if budget is None and isinstance(law, AgeLaw):
                self._producer_id = self._producer_id or secrets.token_hex(8)
                budget = self._budgets[queue_name] = Budget(
                    law,
                    self._producer_id,
                    self._make_lease,
                    self._now_us,
                    self._call,
                    lambda: self._settings,
                    lambda: self._settings.observes(queue_name),
                    lambda: int(self._timeout * _MS),
                )
        return budget

    def _now_us(self) -> int:
        return self._clock.monotonic_ns() // _NS

    # What the poller does.

    def prepare(self, queue_names: Iterable[str]) -> None:
        """Have the budgets of some queues ready before their first jobs come."""
        for name in queue_names:
            self._budget(name)

    def due_in(self) -> float:
        """Return seconds until `exchange` has something to do; infinite while nobody asks."""
        at_us = min((at for it in self._budgets.copy().values() if (at := it.call_at_us) is not None), default=None)
        return math.inf if at_us is None else max(0, at_us - self._now_us()) / _MS

    def exchange(
        self,
        engine: Engine,
        read: Callable[[list[str]], object],
        gap_of: Callable[[str], float],
        within: Callable[..., Any],
    ) -> None:
        """Call the stores for all queues that are due: tell what was done, and take what may be done.

        Args:
            engine: knows what was last read of the queues.
            read: reads some queues, whose backlogs this process is to tell.
            gap_of: returns how many seconds are to lie between two reads of a queue, at least.
            within: calls a function in limited time.
        """
        due = {name: budget for name, budget in self._budgets.copy().items() if budget.is_due()}
        if not due:
            return
        sampled = [name for name, budget in due.items() if budget.lease.is_sampler or budget.lease.is_safe]
        sampled = [name for name in sampled if self._may_read(engine, name, gap_of(name))]
        if sampled:
            read(sampled)
        seen = {name: self._seen(engine, name) for name in sampled}
        for store, names in self._stores.by_store(due):
            calls, told = {}, {}
            for name in names:
                sample = engine.sample(name)
                report = due[name].report(seen.get(name), None if sample is None else sample[4])
                calls[budget_key(name)] = arguments(due[name].lease.settings, report)
                told[budget_key(name)] = name
            answers: dict[str, Answer | Exception]
            try:
                answers = within(lambda store=store, calls=calls: store.exchange(calls))
            except Exception as error:  # noqa: BLE001 - whatever it is, the store was not reached
                answers = dict.fromkeys(calls, error)
            for key, answer in answers.items():
                self._take(told[key], due[told[key]], answer, seen.get(told[key]))

    def _may_read(self, engine: Engine, queue_name: str, gap: float) -> bool:
        sample = engine.sample(queue_name)
        return sample is None or self._clock.monotonic_ns() - sample[1] >= gap * 1e9

    def _seen(self, engine: Engine, queue_name: str) -> BacklogSeen | None:
        """Return what was read of a queue since it was last told."""
        sample = engine.sample(queue_name)
        if sample is None or self._seen_ns.get(queue_name) == sample[1]:
            return None
        backlog, as_of_ns, oldest_age_ns, *_ = sample
        self._seen_ns[queue_name] = as_of_ns
        ago_ms = max(0, self._clock.monotonic_ns() - as_of_ns) // _MS
        return BacklogSeen(backlog, None if oldest_age_ns is None else oldest_age_ns // _MS, ago_ms)

    def _take(self, queue_name: str, budget: Budget, answer: Answer | Exception, seen: BacklogSeen | None) -> None:
        before = budget.state
        if isinstance(answer, Exception):
            self.calls["error"] += 1
            budget.fail(seen)
        else:
            self.calls["ok"] += 1
            budget.renew(answer)
            self._cautions.note(queue_name, budget.lease.settings.target_ms, answer, seen)
        if before != budget.state:
            self._tell(queue_name, before, budget.state, answer)

    def _tell(self, queue_name: str, before: str, after: str, answer: object) -> None:
        lost = after in {"safe", "local"}
        because = f": {answer}" if lost else ""
        self._announcer.announce(
            "lease",
            before,
            after,
            f"the budget of queue {queue_name!r} is {after}, was {before}{because}",
            queue_name=queue_name,
            level=logging.WARNING if lost else logging.INFO,
        )

    def forget_parent(self) -> None:
        """Begin anew in a forked child: what its parent was granted is the parent's."""
        self._budgets.clear()
        self._seen_ns.clear()
        self._producer_id = ""

    def forget(self, queue_name: str) -> None:
        """Drop the budget of a queue that lost its state."""
        budget = self._budgets.pop(queue_name, None)
        if budget is not None:
            self._cautions.forget(queue_name)
            budget.release()

    def interrupt(self) -> None:
        """End calls that are under way."""
        self._stores.interrupt()

    def close(self) -> None:
        """Close the stores' connections; later calls open others."""
        self._stores.close()

    def all(self) -> dict[str, Budget]:
        """Return the budgets by queue."""
        return self._budgets.copy()
