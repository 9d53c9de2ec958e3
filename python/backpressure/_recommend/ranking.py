"""Puts policies in order by what became of the queue under them, replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure._recommend.candidates import TWICE
from backpressure._recommend.values import Candidate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backpressure._recommend.candidates import Sketch
    from backpressure._replay.values import ReplayAnswer

__all__ = ["is_good", "judged", "ordered"]

#: As many more sheds, as a part of the offers, are no more.
_SAME = 0.001
_FROM_HIGH = ("high", "medium", "low")


def judged(sketch: Sketch, answer: ReplayAnswer, drain: float, target: float | None) -> Candidate:
    """Return a candidate with its figures.

    Args:
        sketch: the policy.
        answer: what became of the queue under it.
        drain: jobs a second that workers take.
        target: seconds that jobs are to wait at most.
    """
    told = answer.priorities.values()
    longest = answer.longest_wait or 0.0
    let_in = sum((it.offers or 0) - (it.sheds or 0) for it in told)
    return Candidate(
        name=sketch.name,
        settings=sketch.settings,
        reasons=sketch.reasons,
        sheds={name: answer.priorities[name].sheds or 0 for name in _FROM_HIGH},
        longest_wait=longest,
        usual_wait=sum(answer.trail) / len(answer.trail) / drain,
        held=sum(it.delayed_job_seconds or 0.0 for it in told) / max(1, let_in),
        keeps=None if target is None else longest <= target,
        answer=answer,
    )


def ordered(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return candidates, the best first.

    With a target: those under which no job waited longer, those that shed least first; then the others, by the longest
    wait. Without: those that shed no more than the rule of thumb would, by how long jobs wait; then the others, by how
    many they shed.
    """
    every = list(candidates)

    def key(it: Candidate) -> tuple[Any, ...]:
        if is_good(it, every):
            return (False, *_rough(it), it.waits) if it.keeps else (False, it.waits, it.longest_wait)
        return (True, *_rough(it), it.waits) if it.keeps is None else (True, it.longest_wait)

    return sorted(every, key=key)


def is_good(candidate: Candidate, among: Iterable[Candidate]) -> bool:
    """Tell whether it keeps the target age; without one, whether it sheds no more than the rule of thumb."""
    if candidate.keeps is not None:
        return candidate.keeps
    rule = next(it for it in among if it.name == TWICE)
    return all(
        candidate.sheds[name] <= rule.sheds[name] + _SAME * (rule.answer.priorities[name].offers or 0)
        for name in _FROM_HIGH
    )


def _rough(it: Candidate) -> tuple[int, ...]:
    """Return sheds in thousandths of the offers: what differs by less is decided by something else."""
    offers = {name: max(1, it.answer.priorities[name].offers or 0) for name in _FROM_HIGH}
    return tuple(round(it.sheds[name] / offers[name] / _SAME) for name in _FROM_HIGH)
