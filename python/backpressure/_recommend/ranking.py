"""Puts policies in order by what became of the queue under them, replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure._recommend.candidates import TWICE
from backpressure._recommend.values import Candidate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from backpressure._recommend.candidates import Sketch
    from backpressure._replay.values import ReplayAnswer

__all__ = ["judged", "ordered"]

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
    if any(it.keeps is not None for it in every):
        return sorted(every, key=_with_target)
    rule = next(it for it in every if it.name == TWICE)
    return sorted(every, key=lambda it: _without_target(it, rule))


def _with_target(candidate: Candidate) -> tuple[Any, ...]:
    if candidate.keeps:
        return (False, *_rough(candidate.sheds, candidate.answer), candidate.waits)
    return (True, candidate.longest_wait)


def _without_target(candidate: Candidate, rule: Candidate) -> tuple[Any, ...]:
    if all(
        candidate.sheds[name] <= rule.sheds[name] + _SAME * (rule.answer.priorities[name].offers or 0)
        for name in _FROM_HIGH
    ):
        return (False, candidate.waits, candidate.longest_wait)
    return (True, *_rough(candidate.sheds, candidate.answer), candidate.waits)


def _rough(sheds: Mapping[str, int], answer: ReplayAnswer) -> tuple[int, ...]:
    """Return sheds in thousandths of the offers: what differs by less is decided by something else."""
    return tuple(round(sheds[name] / max(1, answer.priorities[name].offers or 0) / _SAME) for name in _FROM_HIGH)
