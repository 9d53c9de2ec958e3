"""The law of three zones: backlog and priority in, zone, delay and shedding out. Integers throughout."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs

from backpressure._engine.laws.law import Advice
from backpressure._engine.sample import Sample
from backpressure._model.units import duration, nanoseconds
from backpressure._model.vocabulary import HIGH, LOW, MEDIUM, Priority, Reason, Zone

if TYPE_CHECKING:
    from backpressure._model.config.three_zone import BacklogThresholds, CurveConfig

__all__ = ["ThreeZoneLaw"]

PERMILLE = 1_000
_LOW: int = LOW.value
_HIGH: int = HIGH.value


@attrs.frozen
class ThreeZoneLaw:
    """Piecewise linear delay: none in green, a light slope in yellow, a steep one in red, capped at ``red_max``.

    Attributes:
        windows: green_max, yellow_max and red_max in jobs; these and `scales` by priority, LOW first.
        yellow_min_ns, yellow_max_ns, red_max_ns: base delays just above green_max, at yellow_max, and at red_max.
        scales: factors on the base delay, as numerator and denominator.
        shed_permille: LOW is shed beyond so many thousandths of the red zone.
        scale_yellow: whether the factors hold in the yellow zone too.
        memory_permille: thousandths of its limit of memory that the queue's server uses when LOW is shed, and when
            MEDIUM is too, whatever the backlog.
    """

    sections: ClassVar[tuple[str, ...]] = ("thresholds", "curve")

    windows: tuple[tuple[int, int, int], ...]
    yellow_min_ns: int
    yellow_max_ns: int
    red_max_ns: int
    scales: tuple[tuple[int, int], ...]
    shed_permille: int
    scale_yellow: bool
    memory_permille: tuple[int, int] | None = None

    @classmethod
    def of(
        cls, thresholds: BacklogThresholds, curve: CurveConfig, *, memory_permille: tuple[int, int] | None = None
    ) -> ThreeZoneLaw:
        """Flatten thresholds and curve."""
        windows = [thresholds.window(priority) for priority in Priority]
        return cls(
            windows=tuple((int(it.green_max), int(it.yellow_max), int(it.red_max)) for it in windows),
            yellow_min_ns=nanoseconds(curve.yellow_min_delay),
            yellow_max_ns=nanoseconds(curve.yellow_max_delay),
            red_max_ns=nanoseconds(curve.red_max_delay),
            scales=tuple(curve.scale(priority).as_integer_ratio() for priority in Priority),
            shed_permille=curve.permille(thresholds.low_priority),
            scale_yellow=curve.scale_yellow,
            memory_permille=memory_permille,
        )

    def new_state(self) -> None:
        """Keep nothing: the backlog alone decides."""

    def advise(self, sample: Sample, priority: int, _state: None) -> Advice:
        backlog = sample.backlog
        green_max, yellow_max, red_max = self.windows[priority]
        if self._lacks_memory(sample, priority):
            scale_num, scale_den = self.scales[priority]
            return Advice(Zone.RED, self.red_max_ns * scale_num // scale_den, True, Reason.MEMORY)
        if backlog <= green_max:
            return Advice(Zone.GREEN, 0, False, Reason.BACKLOG_GREEN, green_max - backlog)
        scale_num, scale_den = self.scales[priority]
        if backlog <= yellow_max:
            slope = self.yellow_max_ns - self.yellow_min_ns
            base = self.yellow_min_ns + slope * (backlog - green_max) // (yellow_max - green_max)
            delay = base * scale_num // scale_den if self.scale_yellow else base
            return Advice(Zone.YELLOW, delay, False, Reason.BACKLOG_YELLOW, yellow_max - backlog)
        depth, span = min(backlog, red_max) - yellow_max, red_max - yellow_max
        base = self.yellow_max_ns + (self.red_max_ns - self.yellow_max_ns) * depth // span
        shed = priority == _LOW and depth * PERMILLE > self.shed_permille * span
        reason = Reason.BACKLOG_RED_SHED if shed else Reason.BACKLOG_RED
        limit = self.shed_limit() if priority == _LOW else red_max
        room = None if shed or backlog >= red_max else limit - backlog
        return Advice(Zone.RED, base * scale_num // scale_den, shed, reason, room)

    def _lacks_memory(self, sample: Sample, priority: int) -> bool:
        """Tell whether the memory of the queue's server keeps a job out, whatever the backlog."""
        if sample.memory_permille is None or self.memory_permille is None or priority == _HIGH:
            return False
        return sample.memory_permille >= self.memory_permille[priority]

    def foresee(self, sample: Sample, priority: int, state: None) -> Advice:
        """See `advise`, which keeps nothing."""
        return self.advise(sample, priority, state)

    def shed_limit(self) -> int:
        """Return the largest backlog at which LOW is not shed, as far as it lies below its red_max."""
        _, yellow_max, red_max = self.windows[_LOW]
        return yellow_max + self.shed_permille * (red_max - yellow_max) // PERMILLE

    def spared_ppm(self, backlog: int) -> int | None:
        """Return which part of LOW jobs is not shed if their tenants are known, in millionths; ``None``: none is shed.

        It falls from all, where shedding begins, to none at ``red_max``.
        """
        limit, red_max = self.shed_limit(), self.windows[_LOW][2]
        if backlog <= limit or limit >= red_max:
            return None
        return 1_000_000 * max(0, red_max - backlog) // (red_max - limit)

    def explain(self, sample: Sample, priority: int, _state: None) -> str:
        """Say which bounds hold, where between them the backlog lies, and the formula with its numbers."""
        backlog, advice = sample.backlog, self.advise(sample, priority, None)
        green, yellow, red = self.windows[priority]
        lowest, middle, highest = (ns / 1e9 for ns in (self.yellow_min_ns, self.yellow_max_ns, self.red_max_ns))
        delay = duration(advice.delay_ns / 1e9)
        if advice.reason is Reason.MEMORY:
            used, bound = sample.memory_permille, (self.memory_permille or (0, 0))[priority]
            return (
                f"the queue's server uses {(used or 0) / 10:g} % of its memory, and from {bound / 10:g} % on "
                f"{(LOW, MEDIUM)[priority]} jobs are shed, whatever the backlog"
            )
        if advice.zone is Zone.GREEN:
            return f"{backlog:,} is not above green_max ({green:,}): nothing to wait for"
        if advice.shed:
            return (
                f"{backlog:,} is above {self.shed_limit():,}, which is {self.shed_permille / 10:g} % of the way from "
                f"yellow_max ({yellow:,}) to red_max ({red:,}): {LOW} jobs are shed (else it would wait {delay})"
            )
        num, den = self.scales[priority]
        scaled = f"× {num if den == 1 else f'{num}/{den}'} = {delay}"
        if advice.zone is Zone.YELLOW:
            where = f"{_share(backlog, green, yellow)} of the way from green_max ({green:,}) to yellow_max ({yellow:,})"
            base = f"{duration(lowest)} + {duration(middle - lowest)} × {backlog - green:,}/{yellow - green:,}"
            result = f"({base}) {scaled}" if self.scale_yellow else f"{base} = {delay}, not scaled"
            return f"{backlog:,} lies {where}: {result}"
        if backlog >= red:
            return f"{backlog:,} has reached red_max ({red:,}), where delays end: {duration(highest)} {scaled}"
        where = f"{_share(backlog, yellow, red)} of the way from yellow_max ({yellow:,}) to red_max ({red:,})"
        base = f"{duration(middle)} + {duration(highest - middle)} × {backlog - yellow:,}/{red - yellow:,}"
        return f"{backlog:,} lies {where}: ({base}) {scaled}"

    def turning_points(self) -> list[Sample]:
        """Return the bounds of all windows and the middle between each two, and where LOW begins to be shed."""
        limit = self.shed_limit()
        backlogs = {0, limit, limit + 1}
        for green, yellow, red in self.windows:
            backlogs |= {green, (green + yellow) // 2, yellow, (yellow + red) // 2, red}
        return [Sample(backlog, 0, None) for backlog in sorted(backlogs)]


def _share(backlog: int, low: int, high: int) -> str:
    return f"{100 * (backlog - low) / (high - low):.3g} %"
