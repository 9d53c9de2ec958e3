"""Who asks most: the names of a few heavy hitters among any number of tenants, in memory that does not grow."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

__all__ = ["COUNTERS", "Heavy", "HeavyHitters"]

#: Names that are kept.
COUNTERS = 8


T = TypeVar("T")


class Heavy(NamedTuple, Generic[T]):
    """One of those who were seen most.

    Attributes:
        who: a name, or whatever is counted.
        seen: how often, at most.
        over: by how much that may be too many: at least `seen` less `over` is sure.
    """

    who: T
    seen: int
    over: int


class HeavyHitters(Generic[T]):
    """Counts names by the space-saving algorithm: a new name takes the place, and the count, of the one seen least.

    So whoever makes more than an eighth of all that is seen is among the names, and no count is too low, nor too high
    by more than an eighth of all: Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and top-k
    elements in data streams", 2005. Its user brings a lock.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[T, tuple[int, int]] = {}

    def see(self, name: T, times: int = 1) -> None:
        """Count a name."""
        seen = self._seen
        if name in seen:
            count, over = seen[name]
            seen[name] = count + times, over
        elif len(seen) < COUNTERS:
            seen[name] = times, 0
        else:
            least = min(seen, key=seen.__getitem__)
            count, _ = seen.pop(least)
            seen[name] = count + times, count

    def fade(self) -> None:
        """Halve all counts, so that who asked most long ago makes room for who does now."""
        self._seen = {name: (count // 2, over // 2) for name, (count, over) in self._seen.items() if count > 1}

    def top(self) -> list[Heavy[T]]:
        """Return those that were seen most, from the top."""
        return sorted((Heavy(name, *counts) for name, counts in self._seen.items()), key=lambda it: -it.seen)
