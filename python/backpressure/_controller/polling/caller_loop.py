"""Reads of a provider that belongs to the event loops of its callers: each loop reads for itself, in its own tasks."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from backpressure._controller.polling.deadline import as_failed_read
from backpressure._controller.polling.reads import Reads
from backpressure._controller.polling.sights import Sights
from backpressure._model.clock import wait_async
from backpressure._model.errors import StatsUnavailableError
from backpressure._model.tasks import start_task
from backpressure._runtime.foreign import raised_by_signal, unless_by_signal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from backpressure._controller.polling.reads import Request
    from backpressure._controller.polling.samples import Samples
    from backpressure._controller.polling.sights import Field
    from backpressure._model.clock import Clock
    from backpressure._model.stats import AsyncStatsProvider

__all__ = ["CallerLoopReads"]

T = TypeVar("T")

_Loop = asyncio.AbstractEventLoop
_Task = asyncio.Task[None]


async def _tamed(reading: Awaitable[T]) -> T:
    """Return what `reading` returns. Turn errors that are no `Exception` into one: they could end the loop."""
    try:
        return await reading
    except Exception:
        raise
    except BaseException as error:
        task = asyncio.current_task()
        cancelled = task is not None and task.cancelling() and isinstance(error, asyncio.CancelledError)
        if cancelled or isinstance(error, GeneratorExit) or raised_by_signal(error):
            raise
        raise as_failed_read(error) from None


def _look_away(work: asyncio.Future[Any]) -> None:
    """Look at the outcome of a read that was cut short, so that asyncio does not complain that nobody did."""
    if not work.cancelled():
        work.exception()


class CallerLoopReads(Sights[_Loop, _Task]):
    """Reads on the event loop of the caller, in tasks that end when nothing is left to read. Loops share nothing."""

    def __init__(
        self, provider: AsyncStatsProvider, samples: Samples, clock: Clock, timeout: Callable[[], float]
    ) -> None:
        self._provider: Any = provider
        self._reads = Reads(provider)
        super().__init__(bool, together=self._reads.together)  # a task can always be started
        self._samples = samples
        self._clock = clock
        self._timeout = timeout

    async def read(self, queue_names: list[str]) -> int:
        """Read some queues, within the timeout; return how many got a sample. Raises nothing the provider raised."""
        collected: dict[str, Any] = {}
        failure: Exception | None = None
        try:
            await self._carry_out(self._reads.steps(collected, queue_names))
        except Exception as error:  # noqa: BLE001 - providers may raise anything
            failure = unless_by_signal(error)
        return self._samples.sighted(queue_names, collected, failure, polled=False)

    async def _carry_out(self, steps: Generator[Request, Any, None]) -> None:
        """Do what `steps` ask for, one after the other."""
        go_on = partial(steps.send, None)
        with contextlib.suppress(StopIteration):
            while True:
                request = go_on()
                try:
                    go_on = partial(steps.send, await self._bounded(request.of(self._provider)))
                except Exception as error:  # noqa: BLE001 - providers may raise anything
                    go_on = partial(steps.throw, unless_by_signal(error))

    async def _bounded(self, reading: Awaitable[T]) -> T:
        """Return what `reading` returns, or raise what it raises; cancel it when it takes longer than the timeout."""
        timeout = self._timeout()
        work = start_task(_tamed(reading), "backpressure-read")
        timer = start_task(wait_async(self._clock, timeout), "backpressure-timer")
        try:
            await asyncio.wait({work, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            ended = work.done()
            work.cancel()
            work.add_done_callback(_look_away)
        if ended:
            return work.result()
        raise StatsUnavailableError(
            f"reading took longer than {timeout:g} s: look at the server, or raise polling.timeout",
            error_type="deadline",
        )

    def _here(self) -> _Loop:
        for loop in [loop for loop in self._fields if loop.is_closed()]:
            self._fields.pop(loop, None)
        return asyncio.get_running_loop()

    def _launch(self, field: Field[_Task]) -> _Task:
        return start_task(self._fly(field), "backpressure-read")

    def _lives(self, flier: _Task) -> bool:
        return not flier.done()

    async def _fly(self, field: Field[_Task]) -> None:
        me: Any = asyncio.current_task()
        while sights := self._take(field, me):
            try:
                await self.read([sight.queue_name for sight in sights])
            finally:
                self._land(field, sights)
