"""The throttle law: backlog and priority in, zone, delay and shedding out. Integers throughout."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from backpressure._engine.settings import LawSettings

GREEN, YELLOW, RED = 0, 1, 2
LOW = 0
PERMILLE = 1_000


class Advice(NamedTuple):
    """What a law says of one sample for one priority."""

    zone: int
    delay_ns: int
    shed: bool


class Law(Protocol):
    """Turns a sample into advice. Pure: the same input gives the same answer, on any thread."""

    def advise(self, priority: int, backlog: int) -> Advice:
        """Judge `backlog` waiting jobs for `priority` (0 low, 1 medium, 2 high)."""
        ...


def zone_of(window: tuple[int, int, int], backlog: int) -> int:
    """Return the zone of `backlog` in a window of (green_max, yellow_max, red_max)."""
    green_max, yellow_max, _ = window
    if backlog <= green_max:
        return GREEN
    return YELLOW if backlog <= yellow_max else RED


class ThreeZoneLaw:
    """Piecewise linear delay: none in green, a light slope in yellow, a steep one in red, capped at red_max."""

    __slots__ = ("_settings",)

    def __init__(self, settings: LawSettings) -> None:
        self._settings = settings

    def advise(self, priority: int, backlog: int) -> Advice:
        """See `Law.advise`."""
        law = self._settings
        window = green_max, yellow_max, red_max = law.windows[priority]
        zone = zone_of(window, backlog)
        if zone == GREEN:
            return Advice(GREEN, 0, shed=False)
        scale_num, scale_den = law.scales[priority]
        if zone == YELLOW:
            slope = law.yellow_max_ns - law.yellow_min_ns
            base = law.yellow_min_ns + slope * (backlog - green_max) // (yellow_max - green_max)
            delay = base * scale_num // scale_den if law.scale_yellow else base
            return Advice(YELLOW, delay, shed=False)
        depth, span = min(backlog, red_max) - yellow_max, red_max - yellow_max
        base = law.yellow_max_ns + (law.red_max_ns - law.yellow_max_ns) * depth // span
        shed = priority == LOW and depth * PERMILLE > law.shed_permille * span
        return Advice(RED, base * scale_num // scale_den, shed)
