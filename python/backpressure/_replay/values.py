"""What a replay tells: three answers side by side, how well the policy in force is replayed, and what to mind."""

from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["ReplayAnswer", "ReplayParity", "ReplayedPriority", "ReplayedQueue"]


@attrs.frozen(kw_only=True)
class ReplayedPriority:
    """What a policy would have done with the offers of one priority. Immutable. Made by ``Replay.queue``.

    Attributes:
        offers: jobs that producers offer; ``None`` where no offers are known.
        delays: those of them that were to wait.
        sheds: those of them that were refused.
        delayed_job_seconds: how long delayed jobs would have waited before they were enqueued, added up.
        seconds: by zone, how long the queue was in it as producers see it.
        delay_seconds: how long the advice was to wait.
        shed_seconds: how long it was to shed.

    Example:
        >>> ReplayedPriority(offers=10, delays=3, sheds=1, delayed_job_seconds=1.5,
        ...     seconds={"green": 5.0, "yellow": 1.0, "red": 0.5}, delay_seconds=1.2, shed_seconds=0.3).sheds
        1
    """

    offers: int | None
    delays: int | None
    sheds: int | None
    delayed_job_seconds: float | None
    seconds: Mapping[str, float]
    delay_seconds: float
    shed_seconds: float


@attrs.frozen(kw_only=True)
class ReplayAnswer:
    """What a policy would have done with a queue. Immutable. Made by ``Replay.queue``.

    Attributes:
        seconds: how much time it is about.
        priorities: by name.
        peak_backlog: the most jobs that waited.
        peak_at_ms: when, in milliseconds of Unix time.
        longest_wait: age in seconds of the oldest job that waited; ``None`` where it was not recorded.
        trail: the highest backlog in each ``ReplayedQueue.trail_seconds``.

    Example:
        >>> told = ReplayAnswer(
        ...     seconds=60.0, priorities={}, peak_backlog=120, peak_at_ms=0, longest_wait=2.5, trail=(120, 0))
        >>> told.trail
        (120, 0)
    """

    seconds: float
    priorities: Mapping[str, ReplayedPriority]
    peak_backlog: int
    peak_at_ms: int
    longest_wait: float | None
    trail: tuple[int, ...]


@attrs.frozen(kw_only=True)
class ReplayParity:
    """How well the policy that was in force, replayed, gives the decisions that were recorded. Immutable.

    Producers judge by the latest reading of the queue, and so does this; offers between a reading and the row that
    tells of it are the only ones that may differ. Made by ``Replay.queue``.

    Attributes:
        offers: jobs that were compared.
        recorded: delays and sheds by priority.
        replayed: the same of the replay.
        off: jobs that were decided otherwise between two rows, added up, as a part of the offers.

    Example:
        >>> print(ReplayParity(offers=1_000, recorded={"low": (40, 9)}, replayed={"low": (41, 9)}, off=0.001))
        the policy in force, replayed: 41 delays and 9 sheds where 40 and 9 were recorded, 0.1 % of 1,000 offers differ
    """

    offers: int
    recorded: Mapping[str, tuple[int, int]]
    replayed: Mapping[str, tuple[int, int]]
    off: float

    def __str__(self) -> str:
        delays, sheds = map(sum, zip(*self.recorded.values(), strict=True))
        delays_again, sheds_again = map(sum, zip(*self.replayed.values(), strict=True))
        return (
            f"the policy in force, replayed: {delays_again:,} delays and {sheds_again:,} sheds where {delays:,} and "
            f"{sheds:,} were recorded, {100 * self.off:.1f} % of {self.offers:,} offers differ"
        )


@attrs.frozen(kw_only=True)
class ReplayedQueue:
    """What a policy would have done with what was recorded of a queue. Immutable. Made by ``Replay.queue``.

    Attributes:
        queue_name: the queue.
        evidence: ``"L0"``: the backlog alone is known; ``"L1"``: and what came in or left; ``"L2"``: and offers.
        began_ms: when the first row was true, in milliseconds of Unix time.
        ended_ms: the same of the last.
        rows: how many there are.
        gap_seconds: time of which nothing is known, for rows are too far apart.
        busy: part of the known time in which the workers had jobs all along, which shows their capacity.
        recorded: every offer judged at the backlog that was recorded: what observe mode counts. Nothing feeds back.
        feedback: judged at a simulated backlog, into which what is shed or delayed does not come; ``None``: too
            little is known.
        behaviour: the same, and producers do about it what the replay was told; ``None``: it was not.
        parity: ``None`` where no decision of a policy that can be replayed was recorded.
        trail_seconds: see ``ReplayAnswer.trail``.
        caveats: sentences about what these numbers do not say.

    Example:
        >>> import tempfile
        >>> path = f"{tempfile.mkdtemp()}/week.bpr"
        >>> with BackpressureController(None, InMemoryStatsProvider({"mail": 120}), recorder=Recorder(path)):
        ...     pass
        >>> Replay(Recording(path), BackpressureConfig()).queue("mail").evidence
        'L0'
    """

    queue_name: str
    evidence: str
    began_ms: int
    ended_ms: int
    rows: int
    gap_seconds: float
    busy: float
    recorded: ReplayAnswer
    feedback: ReplayAnswer | None
    behaviour: ReplayAnswer | None
    parity: ReplayParity | None
    trail_seconds: float
    caveats: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all as nested dicts and lists of numbers and texts, as JSON takes them."""
        told: dict[str, Any] = attrs.asdict(self, value_serializer=lambda _, __, value: _plain(value))
        return told


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [*value]
    return dict(value) if isinstance(value, Mapping) else value
