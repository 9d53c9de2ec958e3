"""One real situation: which producers meet which workers, over what time, and what goes wrong meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs
import cattrs

from backpressure._model.budget import BudgetSettings

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

__all__ = ["HEAVY", "LAWS", "LEVELS", "Fault", "Lane", "Load", "Phase", "Producer", "Scenario"]

LAWS = ("table", "age")
#: In the order of the age law: who goes first.
LEVELS = ("high", "medium", "low")
#: Seconds that jobs are to wait, at full length.
TARGET = 5.0

#: Jobs a second that closed loops could offer together: five times what workers ever take.
UNHINDERED = 2_000

#: What a heavy tenant weighs.
HEAVY = 4

#: What happens as a phase begins: the store goes away until its end, loses all, loses the budget's key alone, or a
#: third of the producers' processes is killed.
Fault = Literal["away", "flush", "delete", "kill"]


@attrs.frozen
class Phase:
    """A part of the time that is judged by itself: name, seconds, and what goes wrong as it begins."""

    name: str
    seconds: float
    fault: Fault | None = None


@attrs.frozen
class Load:
    """So many producers of one priority: each offers `rate` jobs a second, by chance, and waits up to `max_wait`.

    A rate of 0 is a closed loop: its next job comes a little after the last one has gone, so that all loops together
    could offer `UNHINDERED` jobs a second.

    Each job is on behalf of one of the `tenants`, who make as much of what is offered as is told, in proportion; none:
    nobody names one. So many of them, from the first on, are `heavy`: they have the weight `HEAVY`.
    """

    level: str
    producers: int
    rate: float = 0.0
    max_wait: float | None = None
    tenants: tuple[float, ...] = ()
    heavy: int = 0

    def tenant(self, draw: random.Random) -> int | None:
        """Draw on whose behalf the next job is; ``None``: on nobody's."""
        return draw.choices(range(len(self.tenants)), self.tenants)[0] if self.tenants else None

    def weight(self, tenant: int) -> int:
        return HEAVY if tenant < self.heavy else 1

    @property
    def pause(self) -> float:
        """Seconds between two jobs of a closed loop."""
        return self.producers / UNHINDERED

    def scaled(self, scale: float) -> Load:
        """Return it with less patience."""
        return self if self.max_wait is None else attrs.evolve(self, max_wait=self.max_wait / scale)


@attrs.frozen
class Lane:
    """One queue: what its workers take in each phase, in jobs a second, and what is offered.

    `fits`: the workers can take all that is offered, so that nobody should wait or be refused.
    """

    name: str
    drains: tuple[float, ...]
    loads: tuple[Load, ...]
    fits: bool = False


@attrs.frozen
class Producer:
    """One thread: its number among all, its queue and what it does."""

    number: int
    lane: int
    load: Load


@attrs.frozen(kw_only=True)
class Scenario:
    """A situation. Times are seconds.

    Attributes:
        name: by which it is chosen.
        title: what the report calls it.
        phases: one after the other.
        lanes: the queues.
        processes: of producers, for each law.
        controllers: in each process; its producers share them evenly.
        scale: all times are shorter by this, the target too; 1 is full length.
    """

    name: str
    title: str
    phases: tuple[Phase, ...]
    lanes: tuple[Lane, ...]
    processes: int = 4
    controllers: int = 1
    scale: float = 1.0

    def told(self) -> Any:
        """Return it as JSON can hold it, for `heard`."""
        return cattrs.unstructure(self)

    @classmethod
    def heard(cls, told: Any) -> Scenario:
        return cattrs.structure(told, cls)

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    @property
    def target(self) -> float:
        return TARGET / self.scale

    @property
    def tick(self) -> float:
        return BudgetSettings.of(self.target).tick_ms / 1_000

    def scaled(self, scale: float) -> Scenario:
        """Return it with all times shorter, and fewer controllers if their ticks would be too many for a machine."""
        phases = tuple(attrs.evolve(phase, seconds=phase.seconds / scale) for phase in self.phases)
        lanes = tuple(attrs.evolve(lane, loads=tuple(it.scaled(scale) for it in lane.loads)) for lane in self.lanes)
        controllers = max(1, round(self.controllers / scale))
        return attrs.evolve(self, phases=phases, lanes=lanes, controllers=controllers, scale=scale)

    def spans(self) -> Iterator[tuple[Phase, float, float]]:
        """Yield each phase with its begin and its end."""
        begin = 0.0
        for phase in self.phases:
            yield phase, begin, begin + phase.seconds
            begin += phase.seconds

    def drain(self, lane: int, at: float) -> float:
        """Return what the workers of a queue can take at an instant."""
        for (_, _, end), drain in zip(self.spans(), self.lanes[lane].drains, strict=True):
            if at < end:
                return drain
        return self.lanes[lane].drains[-1]

    def producers(self) -> list[Producer]:
        """Return all producers; number n belongs to process n modulo `processes`."""
        every = [(lane, load) for lane, it in enumerate(self.lanes) for load in it.loads for _ in range(load.producers)]
        return [Producer(number, lane, load) for number, (lane, load) in enumerate(every)]

    def killed(self) -> tuple[int, ...]:
        """Return the processes that are killed: a third of them, the first, one of which tells the backlog."""
        return tuple(range(self.processes // 3)) if any(it.fault == "kill" for it in self.phases) else ()
