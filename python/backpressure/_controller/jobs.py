"""Jobs that may have to wait: decide, sleep, ask again, run; and a queue's first sight, which is waited for."""

from __future__ import annotations

import sys
import warnings
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

from backpressure._controller.age.turn import HeldError, Turn, asking
from backpressure._controller.callbacks import USE_ASYNC, ControllerHost
from backpressure._controller.outcome import is_plain, runs_on_a_loop
from backpressure._controller.patience import Patience
from backpressure._model.arguments import check_patient, longest_wait, parse_priority
from backpressure._model.clock import in_event_loop, other_thread, running_loop
from backpressure._model.tenant import check_tenant, of_place
from backpressure._model.vocabulary import Reason
from backpressure._runtime.called import called

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from backpressure._model.arguments import MaxWait
    from backpressure._model.decision import ThrottleDecision
    from backpressure._model.tenant import AnyTenant, Place
    from backpressure._model.vocabulary import Priority

__all__ = ["BlockingHost", "JobHost"]

T = TypeVar("T")

_AWAIT_IT = "await it inside the work"

# Modules whose frames lie between a call of this package and what it does.
_INSIDE = frozenset({"backpressure", "contextlib"})


class JobHost(ControllerHost):
    """What jobs of both controllers share: coroutine functions can be decorated with either."""

    async def plan(self, priority: Priority | str, queue_name: str) -> ThrottleDecision:
        """Decide; see `Admission.plan`."""
        return self.admission.plan(priority, queue_name)

    async def plan_async(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: MaxWait,
        *,
        patient: bool = False,
        delays: bool = False,
        jobs: int = 1,
        tenant: AnyTenant | None = None,
    ) -> ThrottleDecision:
        """As `plan`, after what the caller has to wait for where an age is held; `delays` are left to the caller."""
        if tenant is None and not self.budgets.used:
            return await self.plan(priority, queue_name)
        with asking(Turn(max_wait, patient=patient, holds=True, delays=delays, jobs=jobs, tenant=tenant)) as turn:
            while True:
                try:
                    decision = await self.plan(priority, queue_name)
                except HeldError as error:
                    held = error
                else:
                    self.budgets.settle(decision, turn)
                    return decision
                turn.told(held, await held.wait_async(self._sleeper))

    async def turn_async(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: MaxWait,
        patient: bool = False,
        jobs: int = 1,
        tenant: AnyTenant | None = None,
    ) -> ThrottleDecision:
        """Return the decision of an admitted job, after its sleep. Nothing is held while it sleeps."""
        tenant = None if tenant is None else check_tenant(tenant)
        if patient:
            return await self._patient_turn_async(parse_priority(priority), queue_name, max_wait, jobs, tenant)
        decision = await self.plan_async(priority, queue_name, max_wait, jobs=jobs, tenant=tenant)
        seconds = self.admission.accept(decision, max_wait, awaited=True)
        if seconds > 0:
            await self._sleeper.pause_async(seconds)
        return self.admission.admit(decision) if decision.delay > 0 else decision

    async def _patient_turn_async(
        self, priority: Priority, queue_name: str, max_wait: MaxWait, jobs: int, tenant: AnyTenant | None
    ) -> ThrottleDecision:
        patience = Patience(self.admission, priority, max_wait)
        plan = partial(self.plan_async, priority, queue_name, patient=True, jobs=jobs, tenant=tenant)
        decision = await plan(max_wait)
        while True:
            seconds = patience.wait(decision)
            if seconds > 0:
                await self._sleeper.pause_async(seconds)
            if decision.should_shed:
                decision = await plan(patience.left)
            elif decision.delay > 0:
                decision = self.engine.admit(decision)
                if not decision.should_shed:
                    return decision
            else:
                return decision

    async def perform_async(
        self, decision: ThrottleDecision, work: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Run the work of an admitted job, await it if it is awaitable, and report its outcome."""
        began_ns, held = self.admission.now_ns(), self.admission.begin(decision)
        try:
            value = work(*args, **kwargs)
            if type(value) is CoroutineType or runs_on_a_loop(value):
                value = await value
        except BaseException as error:
            self.admission.report_error(decision, error, began_ns)
            raise
        finally:
            if held:
                self.admission.end(decision)
        if value is None or is_plain(type(value)):
            self.admission.report_success(decision)
        else:
            self.admission.report_value(decision, value, began_ns, instead=_AWAIT_IT, work=work, awaited=True)
        return value


def _level_of_caller() -> int:
    """Return the ``stacklevel``, seen from the caller, of the first frame outside of this package."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 - the module warnings does so too
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        level, frame = level + 1, frame.f_back
    return level


class BlockingHost(JobHost):
    """The host of callers that may wait for a read."""

    _warned = False

    def warn_of_loop(self, *limits: float | None) -> None:
        """Warn, once, that the calling thread runs an event loop: while all queues are green nothing else shows it.

        No warning if all `limits` are 0 seconds: that caller knows that it cannot wait.
        """
        if self._warned or not any(limit != 0 for limit in limits):
            return
        self._warned = True
        instead = "use AsyncBackpressureController, or " if running_loop() == "asyncio" else ""
        warnings.warn(
            "a BackpressureController is used on a running event loop, where it cannot wait: jobs that are to be "
            f"delayed will be refused here; {instead}start and call it by {other_thread()}",
            RuntimeWarning,
            stacklevel=_level_of_caller(),
        )

    def plan_blocking(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: MaxWait,
        *,
        patient: bool = False,
        delays: bool = False,
        jobs: int = 1,
        tenant: AnyTenant | None = None,
    ) -> ThrottleDecision:
        """As `plan_async`, for a thread. On an event loop nothing waits."""
        if tenant is None and not self.budgets.used:
            return self.engine.plan(priority, queue_name)
        holds = not in_event_loop()
        with asking(Turn(max_wait, patient=patient, holds=holds, delays=delays, jobs=jobs, tenant=tenant)) as turn:
            while True:
                try:
                    decision = self.admission.plan(priority, queue_name)
                except HeldError as error:
                    held = error
                else:
                    self.budgets.settle(decision, turn)
                    return decision
                turn.told(held, held.wait(self._sleeper, queue_name))

    def turn(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: MaxWait,
        patient: bool = False,
        jobs: int = 1,
        tenant: AnyTenant | None = None,
    ) -> ThrottleDecision:
        """Return the decision of an admitted job, after its sleep."""
        tenant = None if tenant is None else check_tenant(tenant)
        if in_event_loop():
            self.warn_of_loop(longest_wait(max_wait, parse_priority(priority), patient=patient))
        elif patient:
            return self._patient_turn(parse_priority(priority), queue_name, max_wait, jobs, tenant)
        decision = self.plan_blocking(priority, queue_name, max_wait, patient=patient, jobs=jobs, tenant=tenant)
        seconds = self.admission.accept(decision, max_wait, patient=patient)
        if seconds > 0:
            self._sleeper.pause(seconds, decision.queue_name)
        return self.admission.admit(decision) if decision.delay > 0 else decision

    def _patient_turn(
        self, priority: Priority, queue_name: str, max_wait: MaxWait, jobs: int, tenant: AnyTenant | None
    ) -> ThrottleDecision:
        patience = Patience(self.admission, priority, max_wait)
        plan = partial(self.plan_blocking, priority, queue_name, patient=True, jobs=jobs, tenant=tenant)
        decision = plan(max_wait)
        while True:
            seconds = patience.wait(decision)
            if seconds > 0:
                self._sleeper.pause(seconds, queue_name)
            if decision.should_shed:
                decision = plan(patience.left)
            elif decision.delay > 0:
                decision = self.engine.admit(decision)
                if not decision.should_shed:
                    return decision
            else:
                return decision

    def turns(self, places: Iterable[Place], max_wait: MaxWait) -> list[ThrottleDecision]:
        """As `turn` for several: all are admitted after one sleep, the longest of theirs, or none."""
        with self.admission.all_or_none() as decisions:
            for place in places:
                tenant = of_place(place)
                decisions.append(self.plan_blocking(place[0], place[1], max_wait, delays=True, tenant=tenant))
            seconds = max((self.admission.accept(decision, max_wait) for decision in decisions), default=0.0)
            if seconds > 0:
                self._sleeper.pause(seconds, decisions[0].queue_name)
            self.admission.admit_all(decisions)
            return decisions

    @called("BackpressureController.run")
    def run(
        self,
        priority: Priority | str,
        queue_name: str,
        work: Callable[..., T],
        /,
        *args: Any,
        max_wait: MaxWait = None,
        patient: bool = False,
        tenant: AnyTenant | None = None,
        **kwargs: Any,
    ) -> T:
        """Run a job, waiting for its turn."""
        turn = self.turn(priority, queue_name, max_wait, check_patient(patient), tenant=tenant)
        return self.perform(turn, work, *args, **kwargs)

    @called("Gate.run")
    def run_within(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: MaxWait,
        patient: bool,
        work: Callable[..., T],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> T:
        """As `run`, with every keyword argument for the work."""
        return self.perform(self.turn(priority, queue_name, max_wait, patient), work, *args, **kwargs)

    @called("Gate.run_for")
    def run_for(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: MaxWait,
        patient: bool,
        tenant: AnyTenant,
        work: Callable[..., T],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> T:
        """As `run_within`, on behalf of a tenant."""
        return self.perform(self.turn(priority, queue_name, max_wait, patient, 1, tenant), work, *args, **kwargs)

    def perform(self, decision: ThrottleDecision, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Run the work of an admitted job and report its outcome."""
        began_ns, held = self.admission.now_ns(), self.admission.begin(decision)
        try:
            value = work(*args, **kwargs)
        except BaseException as error:
            self.admission.report_error(decision, error, began_ns)
            raise
        finally:
            if held:
                self.admission.end(decision)
        if value is None or is_plain(type(value)):
            self.admission.report_success(decision)
        else:
            self.admission.report_value(decision, value, began_ns, instead=USE_ASYNC, work=work)
        return value

    def read(self, queue_name: str, wait: bool) -> Reason | None:
        """Start a read of a queue, and wait for it if necessary; on an event loop nothing waits."""
        self.poller.revive()
        sight, first = self.sights.ask(queue_name)
        if in_event_loop():
            return Reason.COLD_START if wait and self.engine.sample(queue_name) is None else None
        if wait or first:
            self.sights.wait(sight, self._clock, self._timeout())
        return None
