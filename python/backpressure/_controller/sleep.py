"""Sleeping an advised delay: jittered, and ended early by `stop()` and by the manual override."""

from __future__ import annotations

import contextlib
import os
import random
from typing import TYPE_CHECKING, Any, Protocol

from backpressure._model.clock import TaskWake, Wake, in_event_loop, other_thread, running_loop, wait
from backpressure._model.errors import BackpressureError, ControllerStoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backpressure._model.clock import Clock

__all__ = ["Sleeper", "blocks_a_loop"]


class _Wakes(Protocol):
    def set(self) -> None: ...


def blocks_a_loop(seconds: float, queue_name: str, **about: Any) -> BackpressureError:
    """Return the error for a wait on a thread that runs an event loop; `about` are more arguments of the error."""
    on_asyncio = running_loop() == "asyncio"
    instead = "use wait_async() or AsyncBackpressureController" if on_asyncio else f"call it by {other_thread()}"
    return BackpressureError(
        f"waiting {seconds:.3f} s for queue {queue_name!r} would block the running event loop: {instead}",
        queue_name=queue_name,
        retry_after=seconds,
        **about,
    )


class Sleeper:
    """Makes callers wait, except while `passing()`. Thread-safe.

    A forked child has nothing to do with the sleepers of its parent.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        passing: Callable[[], bool],
        jitter: Callable[[str], float],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._uniform = uniform
        self._stopped = False
        self._passing = passing
        # By process: a thread that does not exist in a forked child may have held the lock of an event.
        self._sleepers: dict[int, set[_Wakes]] = {}
        self.now_ns = clock.monotonic_ns

    def pause(self, seconds: float, queue_name: str) -> None:
        """Block for exactly `seconds`, or until woken.

        Raises:
            ControllerStoppedError: the controller was stopped, before or during the sleep.
            BackpressureError: the calling thread runs an event loop.
        """
        if in_event_loop():
            raise blocks_a_loop(seconds, queue_name)
        event = Wake()
        with self._registered(event):
            if not self._released():
                wait(self._clock, event, seconds, background=False)
        self._released()

    async def pause_async(self, seconds: float) -> None:
        """As `pause`, suspending the calling task instead."""
        sleeper = TaskWake()
        with self._registered(sleeper):
            if not self._released():
                await sleeper.wait(self._clock.async_sleep(seconds))
        self._released()

    def await_wake(self, wake: Wake, seconds: float, queue_name: str) -> bool:
        """Block until `wake` is set or `seconds` have passed; tell whether everything is let pass.

        Raises as `pause`.
        """
        if in_event_loop():
            raise blocks_a_loop(seconds, queue_name)
        with self._registered(wake):
            if not self._released():
                wait(self._clock, wake, seconds, background=False)
        return self._released()

    async def await_wake_async(self, wake: TaskWake, seconds: float) -> bool:
        """As `await_wake`, suspending the calling task instead."""
        with self._registered(wake):
            if not self._released():
                await wake.wait(self._clock.async_sleep(seconds))
        return self._released()

    def stop(self) -> None:
        """Wake every sleeper; now and later they raise `ControllerStoppedError`."""
        self._stopped = True
        self.wake()

    def wake(self) -> None:
        """Wake those who sleep now; called after `passing` has become true."""
        for sleeper in self._sleepers.get(os.getpid(), set()).copy():
            sleeper.set()

    @contextlib.contextmanager
    def _registered(self, sleeper: _Wakes) -> Iterator[None]:
        # Registered before the flags are read, so that a release in between is not missed.
        sleepers = self._sleepers.setdefault(os.getpid(), set())
        sleepers.add(sleeper)
        try:
            yield
        finally:
            sleepers.discard(sleeper)

    def _released(self) -> bool:
        if self._stopped:
            raise ControllerStoppedError("the controller was stopped: make a new one and start it")
        return self._passing()

    def jittered(self, delay: float, queue_name: str) -> float:
        """Lengthen `delay` seconds by a random share of the queue's jitter."""
        return delay * (1 + self._uniform(0, self._jitter(queue_name)))
