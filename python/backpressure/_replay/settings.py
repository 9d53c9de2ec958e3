"""What a replay is given, in whole numbers, so that both engines compute exactly the same.

Triples are ordered by the value of `Priority`: LOW first. Jobs are millionths of jobs, and parts are parts per million.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from backpressure._engine.laws.age import AgeLaw
    from backpressure._engine.laws.law import Law

__all__ = ["BehaviourSettings", "LoopSettings", "PolicyInForce", "ReplaySettings"]


@attrs.frozen
class LoopSettings:
    """Producers of one priority that wait for one job before they offer the next.

    Attributes:
        count: how many.
        pause_us: microseconds from one job's enqueueing to the next offer; ``None``: as follows from the recorded
            offers of the priority, which are then all theirs.
        paced: whether that is the time from offer to offer, unless a job took longer.
        skips: whether they drop a job that is shed, and wait for nothing before the next.
    """

    count: int
    pause_us: int | None
    paced: bool = False
    skips: bool = False


@attrs.frozen
class BehaviourSettings:
    """What producers do about advice.

    Attributes:
        returns_ppm: part of shed jobs that come back, by priority.
        return_after_us: when; ``None``: after the time that they were told.
        loops: by priority.
    """

    returns_ppm: tuple[int, int, int]
    return_after_us: int | None
    loops: tuple[LoopSettings | None, LoopSettings | None, LoopSettings | None]


@attrs.frozen
class PolicyInForce:
    """What decided while the recording was made.

    Attributes:
        law: ``None``: one that cannot be replayed.
        enforces: whether what it advised was done.
    """

    law: Law | None
    enforces: bool


@attrs.frozen
class ReplaySettings:
    """Everything that a replay of one queue goes by.

    Attributes:
        law: that is asked what it would have done.
        poll_ms, busy_poll_ms: how often its producers read the queue, all green and otherwise.
        sleep_permille: how long producers sleep for each thousand that they are told to.
        gap_ms: rows further apart have a gap between them, of which nothing is said; at most `LONGEST_GAP_MS`.
        trail_ms: the simulated backlog is told as its peak in each so many milliseconds.
        mix_ppm: parts of the priorities among jobs of whose offers nothing is known; ``None``: they are not simulated.
        in_force: by the number that rows have.
        behaviour: for the third answer; ``None``: there is none.
    """

    law: Law | AgeLaw
    poll_ms: int
    busy_poll_ms: int
    sleep_permille: int
    gap_ms: int
    trail_ms: int
    mix_ppm: tuple[int, int, int] | None
    in_force: dict[int, PolicyInForce]
    behaviour: BehaviourSettings | None
