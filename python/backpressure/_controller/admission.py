"""What both controllers do with one job without waiting: decide, check, admit, and report its outcome."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from backpressure._controller import outcome
from backpressure._controller.age.turn import HeldError, Turn, asking, current
from backpressure._controller.sleep import blocks_a_loop
from backpressure._model.arguments import longest_wait
from backpressure._model.clock import in_event_loop, other_thread
from backpressure._model.errors import ConfigurationError, ThrottledError
from backpressure._model.tenant import check_tenant
from backpressure._model.units import nanoseconds
from backpressure._model.vocabulary import AGE_REASONS, Priority, Reason
from backpressure._runtime.foreign import unless_by_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from backpressure._controller.age.budgets import Budgets
    from backpressure._controller.sleep import Sleeper
    from backpressure._controller.sparing import Sparing
    from backpressure._engine.border import Engine
    from backpressure._model.arguments import MaxWait
    from backpressure._model.batch import BatchJob
    from backpressure._model.config.circuit import CircuitConfig
    from backpressure._model.decision import ThrottleDecision
    from backpressure._model.tenant import AnyTenant
    from backpressure._runtime.foreign import Foreign
    from backpressure._telemetry.compliance import Compliance

__all__ = ["Admission"]


class Admission:
    """Thread-safe. `circuit_of` tells what counts as a failure of a queue."""

    def __init__(
        self,
        engine: Engine,
        sleeper: Sleeper,
        compliance: Compliance,
        circuit_of: Callable[[str], CircuitConfig],
        foreign: Foreign,
        budgets: Budgets,
        sparing: Sparing,
    ) -> None:
        self._engine = engine
        self._sleeper = sleeper
        self._compliance = compliance
        self._circuit_of = circuit_of
        self._foreign = foreign
        self.budgets = budgets
        self.sparing = sparing
        self.now_ns = sleeper.now_ns
        self.jittered = sleeper.jittered

    def accept(
        self, decision: ThrottleDecision, max_wait: MaxWait, *, awaited: bool = False, patient: bool = False
    ) -> float:
        """Return how long to sleep for a planned decision, in seconds, or raise the error that it stands for.

        That is the delay with jitter, but no longer than `max_wait`; on an event loop 0, unless the sleep is `awaited`.
        A job that would have to wait longer is refused, unless it is HIGH: load never refuses a HIGH job. If it is
        `patient`, `max_wait` is what it has left.
        """
        raise_rejection(decision)
        delay = decision.delay
        try:
            limit = longest_wait(max_wait, decision.priority, patient=patient)
        except ConfigurationError:
            self.give_back(decision)
            raise
        if delay <= 0:
            return 0.0
        blocks = not awaited and in_event_loop()
        if decision.priority is Priority.HIGH:
            if blocks:
                return 0.0
        elif limit is not None and delay > limit:
            self._engine.refuse_late(decision)
            what = "what is left of max_wait" if patient else "max_wait"
            why, instead = f"longer than {what} ({limit:g} s)", "accept a longer max_wait"
            if blocks:
                why, instead = "which would block the running event loop", f"let it wait in {other_thread()}"
            raise ThrottledError(
                f"{decision.priority} job for queue {decision.queue_name!r} would wait {delay:.3f} s "
                f"({decision.reason}), {why}, and was not enqueued: retry in {delay:.3f} s, or {instead}",
                queue_name=decision.queue_name,
                priority=decision.priority,
                retry_after=delay,
                reason=decision.reason,
            )
        elif blocks:
            self._engine.refuse_late(decision)
            raise blocks_a_loop(delay, decision.queue_name, priority=decision.priority, reason=decision.reason)
        jittered = self.jittered(delay, decision.queue_name)
        return jittered if limit is None else min(jittered, limit)

    def admit(self, planned: ThrottleDecision) -> ThrottleDecision:
        """After the wait, ask the breaker again for a planned decision; raise if the job may no longer go."""
        decision = self._engine.admit(planned)
        raise_rejection(decision)
        return decision

    @contextlib.contextmanager
    def all_or_none(self) -> Iterator[list[ThrottleDecision]]:
        """Give the body a list for planned decisions; if the body raises, give back their leases."""
        decisions: list[ThrottleDecision] = []
        try:
            yield decisions
        except BaseException:
            for decision in decisions:
                self.give_back(decision)
            raise

    def admit_all(self, decisions: list[ThrottleDecision]) -> None:
        """After the sleep, replace planned decisions by admitted ones; raise if one of the jobs may no longer go."""
        slept = any(decision.delay > 0 for decision in decisions)
        for place, planned in enumerate(decisions):
            if slept:  # others may have run meanwhile
                decisions[place] = self.admit(planned)

    def begin(self, decision: ThrottleDecision, jobs: int = 1) -> bool:
        """Take note that a job's work begins; tell whether its `end` is to be noted too, as where an age is held."""
        held = self.budgets.used and _by_budget(decision)
        if held:
            self.budgets.begin(decision.queue_name, jobs)
        return held

    def end(self, decision: ThrottleDecision, jobs: int = 1) -> None:
        """Take note that it has ended."""
        self.budgets.end(decision.queue_name, jobs)

    def report_value(
        self,
        decision: ThrottleDecision,
        value: object,
        began_ns: int | None,
        *,
        instead: str,
        work: Callable[..., object] | None = None,
        awaited: bool = False,
    ) -> None:
        """Note what a job's work returned; see `backpressure._controller.outcome.take`.

        `began_ns` is when the work began, for the outcome of a future; ``None`` means about now.

        Raises:
            TypeError: the work has only begun.
        """
        since_ns = self.now_ns() if began_ns is None else began_ns

        def report(error: BaseException | None) -> None:
            self.report(decision, error, since_ns)

        outcome.take(value, report, self._foreign, work=work, instead=instead, awaited=awaited)

    def report_success(self, decision: ThrottleDecision) -> None:
        """Note that a caller followed a decision and that its job succeeded."""
        if decision.delay > 0:
            self._compliance.honoured(decision)
        self._engine.record(decision, True)

    def report_error(self, decision: ThrottleDecision, error: BaseException, began_ns: int | None) -> None:
        """Note that a caller followed a decision and that its job, which began at `began_ns`, raised."""
        if decision.delay > 0:
            self._compliance.honoured(decision)
        circuit = self._circuit_of(decision.queue_name)
        if _by_budget(decision):
            self.budgets.take_back(decision.queue_name)
        ok = outcome.verdict(error, circuit, self._foreign)
        self._engine.record(decision, ok, began_ns, type(error).__name__)
        if ok is False:
            outcome.note_failure(error, decision.queue_name, self._opens_in(decision.queue_name, circuit))

    def _opens_in(self, queue_name: str, circuit: CircuitConfig) -> float:
        """Return after how many seconds to try again where a job has just failed."""
        breaker = self._engine.breaker(queue_name, False)
        retry_at_ns = None if breaker is None or breaker.state() == 0 else breaker.retry_at_ns(breaker.word)
        return circuit.probe_interval if retry_at_ns is None else max(0, retry_at_ns - self.now_ns()) / 1e9

    def report(self, decision: ThrottleDecision, error: BaseException | None, began_ns: int | None) -> None:
        """Note that a caller followed a decision, and how its job ended."""
        if error is None:
            self.report_success(decision)
        else:
            self.report_error(decision, error, began_ns)

    @contextlib.contextmanager
    def reporting(
        self, decisions: Sequence[ThrottleDecision], not_failures: tuple[type[BaseException], ...] = (), jobs: int = 1
    ) -> Iterator[None]:
        """Report to all queues how the body ended. A body has no value, so there is no future to wait for.

        Errors that are `not_failures` say nothing about the queues. Each decision is for so many `jobs`.
        """
        began_ns = self.now_ns()
        held = [decision for decision in decisions if self.begin(decision, jobs)]
        try:
            yield
        except BaseException as error:
            for decision in held:
                self.budgets.take_back(decision.queue_name, jobs - 1)  # one is, where the error is reported
            for decision in decisions:
                if outcome.is_excused(error, not_failures):
                    self.give_back(decision)
                else:
                    self.report_error(decision, error, began_ns)
            raise
        finally:
            for decision in held:
                self.end(decision, jobs)
        for decision in decisions:
            self.report_success(decision)

    def decide(self, job: BatchJob) -> ThrottleDecision | Exception | None:
        """Return the decision of a batch's job, refused or not, or the exception that came instead.

        ``None`` if a decision is not possible without waiting.
        """
        try:
            held = self.budgets.used or job.tenant is not None
            return self._plan(job) if held else self._engine.plan(job.priority, job.queue_name)
        except HeldError as held:
            held.budget.leave(held.caller)  # it comes again, and may wait then
            return None
        except Exception as error:  # noqa: BLE001 - every job ends in an outcome
            return unless_by_signal(error)

    def plan(self, priority: Priority | str, queue_name: str) -> ThrottleDecision:
        """Have the engine decide for the turn that the caller is at, if it is at one; see `Engine.plan`."""
        turn = current()
        if turn is None:
            return self._engine.plan(priority, queue_name)
        impatient = self.budgets.is_impatient(priority, queue_name, turn)
        tenant = turn.tenant
        if tenant is None:
            return self._engine.plan(priority, queue_name, impatient)
        # Who waited was told something, which is asked for again.
        if turn.judged is None and turn.jobs == 1:
            ready = self._engine.ready_for(priority, queue_name, tenant, admit=False, impatient=impatient)
            if ready is not None:
                return ready
        return self._engine.decide_for(priority, queue_name, False, self.sparing.spares(priority, queue_name, tenant))

    def suggest_for(self, priority: Priority | str, queue_name: str, tenant: AnyTenant) -> ThrottleDecision:
        """Have the engine decide and admit on behalf of a tenant, for a caller that never waits."""
        tenant = check_tenant(tenant)
        with asking(Turn(None, patient=False, holds=False, delays=True, tenant=tenant)):
            spared = self.sparing.spares(priority, queue_name, tenant)
            return self._engine.decide_for(priority, queue_name, True, spared)

    def _plan(self, job: BatchJob) -> ThrottleDecision:
        """Decide where an age may be held."""
        turn = Turn(job.max_wait, patient=job.patient, holds=self.may_wait(), delays=True, tenant=job.tenant)
        with asking(turn):
            decision = self.plan(job.priority, job.queue_name)
        self.budgets.settle(decision, turn)
        return decision

    def readmit(self, planned: ThrottleDecision) -> ThrottleDecision | Exception:
        """As `admit`, for a batch: refusals and errors are returned."""
        try:
            return self._engine.admit(planned)
        except Exception as error:  # noqa: BLE001 - every job ends in an outcome
            return unless_by_signal(error)

    def give_back(self, decision: ThrottleDecision) -> None:
        """If the decision holds the lease of a probe, give it back: the probe will not be made."""
        if not decision.should_shed:
            if _by_budget(decision):
                self.budgets.take_back(decision.queue_name)
            self._engine.record(decision, None)

    def may_wait(self) -> bool:
        """Tell whether a job may wait here."""
        return not in_event_loop()

    def wait_ns(
        self, job: BatchJob, decision: ThrottleDecision, patiently: Callable[[ThrottleDecision], float] | None
    ) -> int | Exception:
        """Return for how long a batch's job is to wait, `patiently` if it is patient, or the exception that came."""
        try:
            if patiently is None:
                return nanoseconds(self.accept(decision, job.max_wait, patient=job.patient))
            return nanoseconds(patiently(decision))
        except Exception as error:  # noqa: BLE001 - every job ends in an outcome
            return unless_by_signal(error)


def _by_budget(decision: ThrottleDecision) -> bool:
    """Tell whether a budget let a job go, or would have refused it, but for observe mode."""
    answer = decision._answer  # noqa: SLF001 - of this package
    if answer.reason is Reason.OBSERVE_ONLY and answer.advised is not None:
        answer = answer.advised
    return answer.reason in AGE_REASONS


def raise_rejection(decision: ThrottleDecision) -> None:
    if decision.should_shed:
        error: Any = decision.rejection()
        raise error
