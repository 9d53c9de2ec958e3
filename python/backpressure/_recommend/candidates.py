"""Policies that are worth a try for a queue, made from what was measured of it. None is chosen here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from backpressure._model.units import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from backpressure._model.config.root import BackpressureConfig
    from backpressure._recommend.measured import Measured

__all__ = ["AGE_AIMS", "TWICE", "Sketch", "first_sketches", "held_age", "nearer_sketches", "windows"]

#: What the guide's rule of thumb is called.
TWICE = "twice the usual peak"
#: From one tried age to the next, and how many there are.
_STEPS = 8
#: Parts of an age at which pacing may begin; a late window lets a backlog grow for longer.
_SHAPES = {"paced early": (0.1, 0.4), "paced late": (0.5, 0.75)}
#: LOW jobs are shed at this part of red, as the curve has it unless told otherwise.
_SHED_AT = 0.8
#: Without a target of its own a priority is held at so many times the one below.
_NEXT = 2
#: What an age law can hold.
_LEAST_TARGET, _MOST_TARGET = 0.5, 3_600
#: So much of a target is aimed at, since a backlog goes on growing until it is read.
_AIMS = (1.0, 0.9, 0.75, 0.5)
#: The same where the age itself is held: it is exceeded only while workers become slower, or are away.
AGE_AIMS = (1.0, 0.85, 0.7, 0.55, 0.4)
_NEARER = (0.6, 0.8, 1.25, 1.6)

#: Low first.
_PRIORITIES = ("low", "medium", "high")


class Sketch(NamedTuple):
    """A policy for a queue.

    Attributes:
        name: what it goes by.
        settings: the queue's section.
        reasons: why, by the path of each number.
        age: seconds of work at which it sheds LOW jobs; ``None``: it was not made from an age.
        shape: how early it paces.
    """

    name: str
    settings: Mapping[str, Any]
    reasons: Mapping[str, str]
    age: float | None = None
    shape: str = ""


def first_sketches(
    measured: Measured, base: BackpressureConfig, name: str, targets: Mapping[str, float]
) -> Iterator[Sketch]:
    """Yield what is tried first."""
    thresholds = attrs.asdict(base.thresholds_of(name))
    yield Sketch("the thresholds as they are", {"thresholds": thresholds}, {})
    peak = max(1, measured.usual_peak)
    yield _of_jobs(TWICE, dict.fromkeys(_PRIORITIES, (peak, 2 * peak, 5 * peak)), peak)
    least = _least_age(measured, base)
    if targets:
        lowest = next(targets[priority] for priority in _PRIORITIES if priority in targets)
        ages = [lowest * aim for aim in _AIMS]
    else:
        most = max(2 * least, measured.peak / (measured.drain or 1))
        ages = [least * (most / least) ** (step / (_STEPS - 1)) for step in range(_STEPS)]
    for age in ages:
        for shape in _SHAPES:
            yield windows(measured, base, age, shape, targets)


def nearer_sketches(
    measured: Measured, base: BackpressureConfig, best: Sketch, targets: Mapping[str, float]
) -> Iterator[Sketch]:
    """Yield what lies near the best of those that were tried."""
    if best.age is not None:
        for factor in _NEARER:
            yield windows(measured, base, best.age * factor, best.shape, targets)


def windows(
    measured: Measured, base: BackpressureConfig, age: float, shape: str, targets: Mapping[str, float]
) -> Sketch:
    """Return thresholds that shed LOW jobs when so many seconds of work wait, and pace before that."""
    drain = measured.drain or 1
    least = _least_age(measured, base)
    age = max(age, 2 * least)
    lowest = next((targets[priority] for priority in _PRIORITIES if priority in targets), age)
    limits: dict[str, float] = {}
    for place, priority in enumerate(_PRIORITIES):
        below = limits[_PRIORITIES[place - 1]] if place else age / _NEXT
        # What is aimed at for LOW is aimed at, in proportion, for the others.
        limits[priority] = targets[priority] * age / lowest if priority in targets else _NEXT * below
    begins, ends = _SHAPES[shape]
    jobs: dict[str, tuple[int, int, int]] = {}
    reasons: dict[str, str] = {}
    for priority, limit in limits.items():
        green, yellow = max(1, round(drain * max(least, begins * limit))), round(drain * ends * limit)
        yellow = max(yellow, green + 1)
        shed = max(round(drain * limit), yellow + 1)
        red = max(yellow + round((shed - yellow) / _SHED_AT), yellow + 1)
        jobs[priority] = green, yellow, red
        path = f"thresholds.{priority}_priority"
        reasons[f"{path}.green_max"] = f"{duration(green / drain, 2)} of work: up to here {priority} jobs go at once"
        reasons[f"{path}.yellow_max"] = f"{duration(yellow / drain, 2)} of work: up to here they are paced gently"
        reasons[f"{path}.red_max"] = (
            f"shed from {shed:,} jobs on, which are {duration(limit, 2)} of work"
            if priority == "low"
            else f"{duration(red / drain, 2)} of work: from here on they wait for the longest delay"
        )
    told = f"{duration(age, 3)} of work, {shape}"
    return Sketch(told, _section(jobs), reasons, age, shape)


def held_age(target: float) -> Sketch | None:
    """Return a policy that holds an age, if the age law can hold that one."""
    if not _LEAST_TARGET <= target <= _MOST_TARGET:
        return None
    reason = f"jobs are to wait for {duration(target, 3)} at most, however fast workers are"
    target = float(f"{target:.3g}")
    return Sketch(
        f"the age law, {duration(target, 3)}", {"age": {"target": f"{target:g}s"}}, {"age.target": reason}, target
    )


def _of_jobs(name: str, jobs: Mapping[str, tuple[int, int, int]], peak: int) -> Sketch:
    reasons: dict[str, str] = {}
    for priority, bounds in jobs.items():
        for bound, value in zip(("green_max", "yellow_max", "red_max"), bounds, strict=True):
            reasons[f"thresholds.{priority}_priority.{bound}"] = f"{value // peak} times the peak of a usual day"
    return Sketch(name, _section(jobs), reasons)


def _section(jobs: Mapping[str, tuple[int, int, int]]) -> dict[str, Any]:
    bounds = ("green_max", "yellow_max", "red_max")
    return {"thresholds": {f"{name}_priority": dict(zip(bounds, jobs[name], strict=True)) for name in _PRIORITIES}}


def _least_age(measured: Measured, base: BackpressureConfig) -> float:
    """Return how many seconds of work are to wait at least, so that workers have some until the queue is read again."""
    return max(base.polling.interval, 2 / (measured.drain or 1))
