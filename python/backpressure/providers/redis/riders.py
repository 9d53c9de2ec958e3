"""Commands that travel with the reads of a provider: those of fleets whose processes read their queues there."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from backpressure.providers.layouts import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from backpressure._fleet.ride import Ride, Rider

__all__ = ["Riders", "commands_of", "deal"]


class Riders:
    """Who travels with the reads of one provider: controllers that share it each have a rider. Holds them weakly."""

    def __init__(self) -> None:
        self._riders: weakref.WeakSet[Rider] = weakref.WeakSet()

    def add(self, rider: Rider) -> None:
        """Carry `rider` from now on. Idempotent."""
        if rider not in self._riders:
            # Replaced whole, because others may iterate.
            self._riders = weakref.WeakSet((*self._riders, rider))

    def boarding(self) -> list[Ride]:
        """Return what a read that begins now is to carry."""
        return [ride for rider in self._riders if (ride := rider.board()) is not None]


def commands_of(rides: Iterable[Ride]) -> list[Command]:
    """Return the commands of some rides."""
    return [Command("execute_command", str(name), args) for ride in rides for name, *args in ride.commands]  # type: ignore[arg-type]


def deal(rides: Iterable[Ride], replies: Sequence[Any], explained: Callable[[Exception], Exception]) -> None:
    """Give each of some rides its replies; errors among them are `explained` to people."""
    position = 0
    for ride in rides:
        ride.take(replies[position : position + len(ride.commands)], explained)
        position += len(ride.commands)
