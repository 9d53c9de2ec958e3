"""Jobs in asyncio: what may wait is awaited.

Engines are synchronous. Where a decision needs a read, the engine's call ends in an exception that never reaches the
user; the read is awaited, and then the engine is asked again.
"""

from __future__ import annotations

import contextvars
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from backpressure._controller.admission import Admission
from backpressure._controller.jobs import JobHost
from backpressure._model.clock import TaskWake
from backpressure._model.tenant import of_place
from backpressure._runtime.threads import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from backpressure._model.arguments import MaxWait
    from backpressure._model.batch import BatchJob
    from backpressure._model.decision import ThrottleDecision
    from backpressure._model.tenant import AnyTenant, Place
    from backpressure._model.vocabulary import Priority, Reason

__all__ = ["AsyncAdmission", "AsyncHost", "on_thread"]

T = TypeVar("T")

# Whether this call has already awaited its read, and must get an answer without another one.
_has_read = contextvars.ContextVar("_has_read", default=False)


class _UnreadError(Exception):
    """A decision needs a read, which cannot be awaited inside the engine."""

    def __init__(self, queue_name: str, wait: bool) -> None:
        super().__init__(queue_name)
        self.queue_name = queue_name
        self.wait = wait


class AsyncAdmission(Admission):
    """Admission where deciding may take a read, and sleeps are awaited."""

    def accept(
        self, decision: ThrottleDecision, max_wait: MaxWait, *, awaited: bool = True, patient: bool = False
    ) -> float:
        """As `Admission.accept`."""
        return super().accept(decision, max_wait, awaited=awaited, patient=patient)

    def may_wait(self) -> bool:
        """As `Admission.may_wait`: whoever waits is suspended."""
        return True

    def decide(self, job: BatchJob) -> ThrottleDecision | Exception | None:
        """As `Admission.decide`; ``None`` where the queue is to be read first."""
        answer = super().decide(job)
        return None if isinstance(answer, _UnreadError) else answer


class AsyncHost(JobHost):
    """The host of callers that await a read."""

    def read(self, queue_name: str, wait: bool) -> Reason | None:
        """Make the caller await the read, unless it already has."""
        if _has_read.get():
            return None
        raise _UnreadError(queue_name, wait)

    turn = JobHost.turn_async

    async def turns(self, places: Iterable[Place], max_wait: MaxWait) -> list[ThrottleDecision]:
        """As `turn` for several: all are admitted after one sleep, the longest of theirs, or none."""
        with self.admission.all_or_none() as decisions:
            for place in places:
                tenant = of_place(place)
                decisions.append(await self.plan_async(place[0], place[1], max_wait, delays=True, tenant=tenant))
            seconds = max((self.admission.accept(decision, max_wait) for decision in decisions), default=0.0)
            if seconds > 0:
                await self._sleeper.pause_async(seconds)
            self.admission.admit_all(decisions)
            return decisions

    perform = JobHost.perform_async

    async def suggest(
        self, priority: Priority | str, queue_name: str, tenant: AnyTenant | None = None
    ) -> ThrottleDecision:
        """Decide and admit."""
        try:
            return self.engine.suggest_throttle(priority, queue_name, tenant=tenant)
        except _UnreadError as unread:
            queue_name, wait = unread.queue_name, unread.wait
        await self._read(queue_name, wait)
        return self._settled(partial(self.engine.suggest_throttle, priority, queue_name, tenant=tenant))

    async def plan(self, priority: Priority | str, queue_name: str) -> ThrottleDecision:
        """Decide; see `Admission.plan`."""
        try:
            return self.admission.plan(priority, queue_name)
        except _UnreadError as unread:
            queue_name, wait = unread.queue_name, unread.wait
        await self._read(queue_name, wait)
        return self._settled(partial(self.admission.plan, priority, queue_name))

    @staticmethod
    def _settled(decide: Callable[[], ThrottleDecision]) -> ThrottleDecision:
        """Decide after the read, without another one.

        In a copy of the context, for what a signal handler raises may come between setting a variable and resetting it.
        """

        def after_read() -> ThrottleDecision:
            _has_read.set(True)
            return decide()

        return contextvars.copy_context().run(after_read)

    async def _read(self, queue_name: str, wait: bool) -> None:
        """Start a read of the queue, and await it if necessary."""
        self.poller.revive()
        sight, first = self.sights.ask(queue_name)
        if wait or first:
            await self.sights.wait_async(sight, self._clock, self._timeout())


async def on_thread(work: Callable[[], T]) -> T | None:
    """Run `work` on a thread of its own and return its value; ``None`` if no thread can be started.

    The loop's executor is not used: an application may keep it busy or have closed it. If the caller is cancelled, the
    thread goes on without it.
    """
    wake, outcomes = TaskWake(), list[T]()

    def run() -> None:
        try:
            outcomes.append(work())
        finally:
            wake.set()

    try:
        thread = spawn(run, "wait")
    except RuntimeError:
        return None
    await wake.wait()
    thread.join()  # it is at its last instructions: after stop() no thread is left
    return outcomes[0] if outcomes else None
