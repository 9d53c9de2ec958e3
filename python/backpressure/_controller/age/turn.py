"""One job's turn by a budget: how its caller waits is told to the budget here, and so is what the budget answered."""

from __future__ import annotations

import contextlib
import contextvars
from typing import TYPE_CHECKING, Any

from backpressure._model.arguments import longest_wait
from backpressure._model.clock import TaskWake, Wake

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure._controller.age.budget import Budget
    from backpressure._controller.age.caller import Caller
    from backpressure._controller.sleep import Sleeper
    from backpressure._engine.laws.age import Judged
    from backpressure._model.tenant import AnyTenant
    from backpressure._model.vocabulary import Priority

__all__ = ["HeldError", "Turn", "asking", "current"]

_current: contextvars.ContextVar[Turn | None] = contextvars.ContextVar("_current", default=None)


class HeldError(Exception):
    """A decision has to wait for an answer or a place, which cannot be waited for inside the engine."""

    def __init__(self, budget: Budget, caller: Caller) -> None:
        super().__init__()
        self.budget = budget
        self.caller = caller

    def wait(self, sleeper: Sleeper, queue_name: str) -> Judged | None:
        """Block until it is settled; ``None`` if the override lets all go.

        Raises:
            ControllerStoppedError: the controller was stopped.
        """
        try:
            while True:
                self.caller.wake = wake = Wake()
                outcome = self.budget.look(self.caller)
                if not isinstance(outcome, float):
                    return outcome
                if sleeper.await_wake(wake, outcome, queue_name):
                    self.budget.leave(self.caller)
                    return None
        except BaseException:
            self.budget.leave(self.caller)
            raise

    async def wait_async(self, sleeper: Sleeper) -> Judged | None:
        """As `wait`, suspending the calling task."""
        try:
            while True:
                self.caller.wake = wake = TaskWake()
                outcome = self.budget.look(self.caller)
                if not isinstance(outcome, float):
                    return outcome
                if await sleeper.await_wake_async(wake, outcome):
                    self.budget.leave(self.caller)
                    return None
        except BaseException:
            self.budget.leave(self.caller)
            raise


class Turn:
    """How one caller waits.

    Attributes:
        holds: whether it may wait for an answer, outside of the engine.
        delays: whether it takes care of delays itself.
        jobs: how many it enqueues, all or none.
        tenant: on whose behalf; ``None``: nobody's.
        asked: whether the budget was asked for them; else the engine let it go by itself.
        went: whether the budget, asked for them, let them go.
        judged: what it was told after it waited, with the budget that told it; taken by the decision that follows.
    """

    __slots__ = ("_max_wait", "_patient", "asked", "delays", "holds", "jobs", "judged", "tenant", "went")

    def __init__(
        self,
        max_wait: Any,
        *,
        patient: bool,
        holds: bool,
        delays: bool,
        jobs: int = 1,
        tenant: AnyTenant | None = None,
    ) -> None:
        self._max_wait = max_wait
        self._patient = patient
        self.holds = holds
        self.delays = delays
        self.jobs = jobs
        self.tenant = tenant
        self.asked = self.went = False
        self.judged: tuple[Budget, Judged] | None = None

    def limit(self, priority: Priority) -> tuple[float | None, bool]:
        """Return how long it waits in seconds, ``None`` for any time, and whether a refused job asks again."""
        return longest_wait(self._max_wait, priority, patient=self._patient), self._patient

    def is_impatient(self, patient_ms: int) -> bool:
        """Tell whether it surely waits less than `patient_ms`, for one job about which it was told nothing yet."""
        limit = self._max_wait
        if self._patient or self.jobs > 1 or self.judged is not None:
            return False
        # Whatever else is given may be wrong, which is told where it is asked for.
        return limit is None or (type(limit) in {int, float} and 0 <= limit * 1_000 < patient_ms)

    def told(self, held: HeldError, judged: Judged | None) -> None:
        """Keep an answer for the next decision."""
        self.judged = None if judged is None else (held.budget, judged)


def current() -> Turn | None:
    """Return the turn that the calling thread or task is at; ``None`` for a caller that never waits."""
    return _current.get()


@contextlib.contextmanager
def asking(turn: Turn) -> Iterator[Turn]:
    """Decide for `turn` in the body. A place that it got and did not use is handed on."""
    before = _current.get()
    try:
        _current.set(turn)  # in here: what a signal handler raises must not leave it set
        yield turn
    finally:
        _current.set(before)
        if turn.judged is not None:
            budget, judged = turn.judged
            if judged.goes():
                budget.take_back(turn.jobs)
