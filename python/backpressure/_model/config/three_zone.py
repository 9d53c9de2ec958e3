"""Where a backlog is green, yellow or red, and how long jobs wait there."""

from fractions import Fraction
from typing import Any

import attrs

from backpressure._model.config.fields import (
    HOUR,
    MINUTE,
    RIVALS,
    Section,
    Unset,
    UnsetInteger,
    boolean,
    checked,
    duration,
    fraction,
    instance,
    integer,
    is_number,
    ordered,
)
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import MAX_BACKLOG
from backpressure._model.vocabulary import Priority

__all__ = ["BacklogThresholds", "BacklogWindow", "CurveConfig"]

_MAX_SCALE = 1_000
_MAX_DENOMINATOR = 1_000_000


@repr_when_half_built
@attrs.frozen(kw_only=True)
class BacklogWindow(Section):
    """Where a queue's backlog turns from green to yellow to red. Integers, in waiting jobs. Immutable.

    0 <= green_max < yellow_max < red_max <= 2**53 - 1.

    Args:
        green_max: largest backlog at which jobs go at once.
        yellow_max: largest backlog of the yellow zone; beyond it lies red.
        red_max: where the delay stops growing.

    Raises:
        ConfigurationError: a bound is no such integer, or out of order.

    Example:
        >>> BacklogWindow(green_max=200, yellow_max=100, red_max=1_000)
        Traceback (most recent call last):
            ...
        backpressure.ConfigurationError: yellow_max is 100: must be above green_max (200)
    """

    green_max: int = integer(attrs.NOTHING, 0, MAX_BACKLOG)
    yellow_max: int = integer(attrs.NOTHING, 0, MAX_BACKLOG)
    red_max: int = integer(attrs.NOTHING, 0, MAX_BACKLOG)

    _rules = tuple(
        rule
        for low, high in (("green_max", "yellow_max"), ("yellow_max", "red_max"))
        for rule in ordered(low, high, f"must be below {high} ({{}})", f"must be above {low} ({{}})", strictly=True)
    )


def _window(green: int, yellow: int, red: int) -> Any:
    green, yellow, red = map(UnsetInteger, (green, yellow, red))
    return instance(BacklogWindow, BacklogWindow(green_max=green, yellow_max=yellow, red_max=red))


@repr_when_half_built
@attrs.frozen(kw_only=True)
class BacklogThresholds(Section):
    """One window for each priority. Immutable.

    Args:
        high_priority: default 1000/5000/10000.
        medium_priority: default 500/2000/5000.
        low_priority: default 100/500/1000.

    Raises:
        ConfigurationError: a window is no `BacklogWindow`.

    Example:
        >>> BacklogThresholds().window(Priority.LOW)
        BacklogWindow(green_max=100, yellow_max=500, red_max=1000)
    """

    _path = "thresholds"

    high_priority: BacklogWindow = _window(1_000, 5_000, 10_000)
    medium_priority: BacklogWindow = _window(500, 2_000, 5_000)
    low_priority: BacklogWindow = _window(100, 500, 1_000)

    def window(self, priority: Priority) -> BacklogWindow:
        """Return the window of `priority`."""
        return (self.low_priority, self.medium_priority, self.high_priority)[priority.value]


RIVALS["shed_at"] = "shed_permille"
_ONE_OF_TWO = "shed_permille says the same in another way: give one of the two"


def _is_jobs(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_BACKLOG)


def _is_delay(delay: float) -> bool | str:
    return 0 <= delay <= HOUR or "must be from 0 to 1 h"


def _is_scale(scale: Fraction) -> bool | str:
    rule = f"must be above 0, at most {_MAX_SCALE} and have a denominator of at most {_MAX_DENOMINATOR}"
    return (0 < scale <= _MAX_SCALE and scale.denominator <= _MAX_DENOMINATOR) or rule


@repr_when_half_built
@attrs.frozen(kw_only=True)
class CurveConfig(Section):
    """Shape of the delay between the bounds of a window. Durations in seconds. Immutable.

    The base delay grows linearly from `yellow_min_delay` to `yellow_max_delay` across the yellow zone and on to
    `red_max_delay` across the red one, and is multiplied by the priority's scale. LOW is shed once the backlog is
    more than `shed_permille` thousandths into the red zone.

    Args:
        yellow_min_delay: base delay just above the green bound.
        yellow_max_delay: base delay at the yellow bound.
        red_max_delay: base delay at the red bound and beyond; at most an hour.
        scale_high: factor for HIGH; a number or a fraction such as ``"1/2"``.
        scale_medium: factor for MEDIUM, at least that of HIGH.
        scale_low: factor for LOW, at least that of MEDIUM.
        shed_permille: how far into the red zone, in thousandths of it, LOW begins to be shed; 1000 never sheds.
        shed_at: the same in waiting jobs: LOW is shed above this backlog, which lies in LOW's red zone. Give one of the
            two. It becomes thousandths, rounded down: so LOW is shed up to a thousandth of the red zone earlier.
        scale_yellow: ``False`` scales the red zone alone, as the Go original does; HIGH then waits *less* just above
            the yellow limit than just below it.
        delay_jitter: sleeps are lengthened by a random share of up to this, so that producers do not wake together.

    Raises:
        ConfigurationError: a value is impossible.

    Example:
        >>> curve = CurveConfig(yellow_max_delay="250ms", red_max_delay="2s", scale_low=2)
        >>> curve.yellow_max_delay, curve.scale(Priority.LOW)
        (0.25, Fraction(2, 1))
    """

    _path = "curve"

    yellow_min_delay: float = duration(0.010, doubt_above=MINUTE)
    yellow_max_delay: float = duration(0.500, doubt_above=MINUTE)
    red_max_delay: float = duration(5.0, doubt_above=MINUTE)
    scale_high: Fraction = fraction(Fraction(1, 2))
    scale_medium: Fraction = fraction(Fraction(1))
    scale_low: Fraction = fraction(Fraction(3, 2))
    shed_permille: int = integer(UnsetInteger(800), 0, 1_000)
    shed_at: int | None = checked(None, _is_jobs, "give an integer of waiting jobs")
    scale_yellow: bool = boolean(default=True)
    delay_jitter: float = checked(0.1, lambda value: is_number(value) and 0 <= value <= 1, "give a number from 0 to 1")

    _own_rules = (
        *((name, _is_delay) for name in ("yellow_min_delay", "yellow_max_delay", "red_max_delay")),
        *((name, _is_scale) for name in ("scale_high", "scale_medium", "scale_low")),
    )
    _rules = (
        ("shed_at", lambda it: it.shed_at is None or isinstance(it.shed_permille, Unset) or _ONE_OF_TWO),
        *ordered(
            "yellow_min_delay",
            "yellow_max_delay",
            "must be at most yellow_max_delay ({} s)",
            "must be at least yellow_min_delay ({} s)",
        ),
        *ordered(
            "yellow_max_delay",
            "red_max_delay",
            "must be at most red_max_delay ({} s)",
            "must be from yellow_max_delay ({} s) to 1 h",
        ),
        *(
            rule
            for low, high in (("scale_high", "scale_medium"), ("scale_medium", "scale_low"))
            for rule in ordered(
                low,
                high,
                f"must be at most {high} ({{}}): a higher priority never waits longer",
                f"must be at least {low} ({{}}): a higher priority never waits longer",
            )
        ),
    )

    def misplaced(self, window: BacklogWindow) -> str:
        """Return what is wrong with `shed_at` in LOW's `window`, or an empty text."""
        if self.shed_at is None or window.yellow_max <= self.shed_at <= window.red_max:
            return ""
        return (
            f"curve.shed_at is {self.shed_at}: must be from yellow_max ({window.yellow_max}) to red_max "
            f"({window.red_max}) of low_priority"
        )

    def permille(self, window: BacklogWindow) -> int:
        """Return how far into the red zone of LOW's `window`, in thousandths, it begins to be shed.

        From `shed_at` it is rounded down: LOW is never shed later than that says, and at most a thousandth earlier.
        """
        if self.shed_at is None:
            return int(self.shed_permille)
        return 1_000 * (self.shed_at - window.yellow_max) // (window.red_max - window.yellow_max)

    def shed_limit(self, window: BacklogWindow) -> int | None:
        """Return the largest backlog at which LOW is not shed, given its `window`; ``None`` if it never is."""
        permille = self.permille(window)
        if permille == 1_000:
            return None
        return window.yellow_max + permille * (window.red_max - window.yellow_max) // 1_000

    def scale(self, priority: Priority) -> Fraction:
        """Return the factor on the base delay for `priority`."""
        return (self.scale_low, self.scale_medium, self.scale_high)[priority.value]
