"""The asyncio side of a controller: what may wait, awaited.

Engines are synchronous. Where a decision needs a read, the engine's call ends in an exception that never reaches the
user; the read is awaited, and the decision asked for again.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, Protocol

from backpressure.desk import Desk
from backpressure.host import AnyPoller, ControllerHost

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure.batch import BatchJob
    from backpressure.types import Priority, Reason, ThrottleDecision

__all__ = ["AsyncDesk", "AsyncHost", "AsyncSource"]

# Whether this call has awaited its read already, and must be answered with what there is.
_has_read = contextvars.ContextVar("_has_read", default=False)


class _UnreadError(Exception):
    """A decision needs a read, which cannot be awaited inside the engine."""

    def __init__(self, queue_name: str, wait: bool) -> None:
        super().__init__(queue_name)
        self.queue_name = queue_name
        self.wait = wait


class AsyncDesk(Desk):
    """A desk where deciding may take a read."""

    def decide(self, job: BatchJob) -> ThrottleDecision | Exception | None:
        """As `Desk.decide`; ``None`` where the queue is to be read first."""
        answer = super().decide(job)
        return None if isinstance(answer, _UnreadError) else answer


class AsyncSource(AnyPoller, Protocol):
    """What drives the reads, seen from an event loop."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def read_one(self, queue_name: str) -> bool: ...


class AsyncHost(ControllerHost):
    """The host of callers that await a read."""

    poller: AsyncSource

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._reads: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Task[None]] = {}

    def read(self, queue_name: str, wait: bool) -> Reason | None:
        """Have the caller await the read, unless it has."""
        if _has_read.get():
            return None
        raise _UnreadError(queue_name, wait)

    async def turn(self, priority: Priority | str, queue_name: str, max_wait: float | None) -> ThrottleDecision:
        """Return the decision of an admitted job, after its sleep. Nothing is held while it sleeps."""
        decision = self.desk.accept(await self.plan(priority, queue_name), max_wait)
        if decision.delay > 0:
            await self._pacer.sleep_async(decision.delay, decision.queue_name)
            decision = self.desk.admit(decision)
        return decision

    perform = ControllerHost.perform_async

    # ---------------------------------------------------------------------------------------------------------- reads

    async def suggest(self, priority: Priority | str, queue_name: str) -> ThrottleDecision:
        """Decide and admit."""
        try:
            return self.engine.suggest_throttle(priority, queue_name)
        except _UnreadError as unread:
            await self._read(unread)
        return self._settled(self.engine.suggest_throttle, priority, queue_name)

    async def plan(self, priority: Priority | str, queue_name: str) -> ThrottleDecision:
        """Decide; see `backpressure._engine.Engine.plan`."""
        try:
            return self.engine.plan(priority, queue_name)
        except _UnreadError as unread:
            await self._read(unread)
        return self._settled(self.engine.plan, priority, queue_name)

    @staticmethod
    def _settled(
        decide: Callable[[Priority | str, str], ThrottleDecision], priority: Priority | str, queue_name: str
    ) -> ThrottleDecision:
        """Decide with what there is, after a read."""
        token = _has_read.set(True)
        try:
            return decide(priority, queue_name)
        finally:
            _has_read.reset(token)

    async def _read(self, unread: _UnreadError) -> None:
        """Have the queue read: one task reads, every caller of this loop shares it."""
        loop = asyncio.get_running_loop()
        key = (loop, unread.queue_name)
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = loop.create_task(self._read_queue(unread.queue_name))
            task.add_done_callback(lambda _: self._reads.pop(key, None))
        elif not unread.wait:
            return
        # Shielded, so that a caller that is cancelled does not take the read away from the others.
        await asyncio.shield(task)

    async def _read_queue(self, queue_name: str) -> None:
        read = False
        try:
            read = await self.poller.read_one(queue_name)
        finally:
            if not read:
                self.engine.read_failed(queue_name)
