"""What replays are told of producers: who comes back, and who waits for one job before the next."""

import math
from collections.abc import Mapping

import attrs

from backpressure._model.arguments import shown
from backpressure._model.errors import ConfigurationError
from backpressure._model.vocabulary import Priority
from backpressure._replay.settings import BehaviourSettings, LoopSettings

__all__ = ["Behaviour", "Loops", "parts_ppm"]

_PRIORITIES = tuple(str(priority) for priority in Priority)
_MOST_LOOPS = 1_000_000
_DAY = 86_400


@attrs.frozen
class Loops:
    """Producers of one priority that wait for one job before they offer the next. Immutable.

    Args:
        count: how many, from 1 to 1,000,000.
        pause: seconds from one job's enqueueing to the next offer, up to a day. ``None``: all offers of the priority
            are taken as theirs, and the pause follows from how many were recorded.
        paced: the pause is the time from one offer to the next, as of a timer; who was held up for longer goes on at
            once.
        skips: a job that is shed is dropped, and the next one is offered without waiting for its ``retry_after``.

    Raises:
        ConfigurationError: a value is impossible.

    Example:
        >>> Loops(30, pause=1.0)
        Loops(count=30, pause=1.0, paced=False, skips=False)
    """

    count: int
    pause: float | None = None
    paced: bool = attrs.field(default=False, kw_only=True)
    skips: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        count: object = self.count
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST_LOOPS:
            raise _fault("loops", self.count, f"give a whole number of producers from 1 to {_MOST_LOOPS}")
        if self.pause is not None and not _is_number(self.pause, _DAY):
            raise _fault("pause", self.pause, "give seconds up to a day, or None")
        for name in ("paced", "skips"):
            value: object = getattr(self, name)
            if not isinstance(value, bool):
                raise _fault(name, value, "give True or False")

    def settings(self) -> LoopSettings:
        """Return them in whole microseconds."""
        pause_us = None if self.pause is None else round(self.pause * 1_000_000)
        return LoopSettings(self.count, pause_us, self.paced, self.skips)


@attrs.frozen(kw_only=True)
class Behaviour:
    """What producers do about advice: for the third answer of a replay. Immutable.

    Args:
        returns: part of shed jobs that are offered again, from 0 to 1: one number, or one by priority.
        return_after: seconds until then, up to an hour; ``None``: the ``retry_after`` that they were told.
        loops: producers that wait for one job before they offer the next, by priority: how many, or `Loops`.

    Raises:
        ConfigurationError: a value is impossible, or there is no such priority.

    Example:
        >>> Behaviour(returns=0.5, loops={"medium": 30}).loops["medium"].count
        30
    """

    returns: float | Mapping[str, float] = 0.0
    return_after: float | None = None
    loops: Mapping[str, int | Loops] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        given: object = self.loops
        if not isinstance(given, Mapping) or not set(given) <= set(_PRIORITIES):
            raise _fault("loops", self.loops, 'give a mapping of "low", "medium" and "high" to how many there are')
        loops = {str(Priority.parse(name)): it if isinstance(it, Loops) else Loops(it) for name, it in given.items()}
        object.__setattr__(self, "loops", loops)
        if self.return_after is not None and not _is_number(self.return_after, 3_600):
            raise _fault("return_after", self.return_after, "give seconds up to an hour, or None")
        parts_ppm("returns", self.returns)

    def settings(self) -> BehaviourSettings:
        """Return it in whole numbers."""
        loops = [it.settings() if isinstance(it := self.loops.get(name), Loops) else None for name in _PRIORITIES]
        low, medium, high = loops
        after_us = None if self.return_after is None else round(self.return_after * 1_000_000)
        return BehaviourSettings(parts_ppm("returns", self.returns), after_us, (low, medium, high))


def parts_ppm(name: str, given: object) -> tuple[int, int, int]:
    """Return parts from 0 to 1, of LOW, MEDIUM and HIGH, in parts per million; one number holds for all.

    Raises:
        ConfigurationError: they are none.
    """
    if isinstance(given, Mapping) and set(given) <= set(_PRIORITIES):
        parts = [given.get(priority, 0) for priority in _PRIORITIES]
    else:
        parts = [given] * 3
    if not all(_is_number(part, 1) for part in parts):
        raise _fault(name, given, 'give a number from 0 to 1, or one for each of "low", "medium" and "high"')
    low, medium, high = (round(part * 1_000_000) for part in parts)
    return low, medium, high


def _is_number(value: object, most: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and 0 <= value <= most


def _fault(name: str, value: object, rule: str) -> ConfigurationError:
    return ConfigurationError(f"{name} is {shown(value)}: {rule}", field=name, value=value)
