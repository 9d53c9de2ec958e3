"""The replay of one queue in Python: takes blocks of rows, and tells three answers and what they rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure._engine.laws.age import AgeLaw
from backpressure._recording.columns import columns_of
from backpressure._recording.row import COLUMNS, Row
from backpressure._replay.aged import AgedRecord, AgedWorld
from backpressure._replay.counts import Counts
from backpressure._replay.flow import Flows
from backpressure._replay.jobs import JOB, MOST
from backpressure._replay.judge import Judge
from backpressure._replay.trail import Trail
from backpressure._replay.world import World

if TYPE_CHECKING:
    from backpressure._replay.flow import Flow
    from backpressure._replay.judge import Verdict
    from backpressure._replay.settings import BehaviourSettings, ReplaySettings

__all__ = ["QueueReplay"]

_PRIORITIES = range(3)
#: Unix time of no row, in the year 3084.
_LAST_MS = 1 << 45


class Parity:
    """How far the policy that was in force, replayed at the recorded backlog, is from what was decided."""

    def __init__(self) -> None:
        self.offers = self.off = 0
        self.recorded = [0] * 6  # delays and sheds of LOW, MEDIUM, HIGH
        self.replayed = [0] * 6

    def compare(self, flow: Flow, verdicts: tuple[Verdict, ...], *, enforces: bool) -> None:
        """Compare what was decided between two rows."""
        for priority in _PRIORITIES:
            verdict, offers = verdicts[priority], 0 if flow.offers is None else flow.offers[priority]
            recorded = flow.delays[priority], flow.sheds[priority]
            replayed = offers if verdict.waits else 0, offers if verdict.shed and enforces else 0
            self.offers += offers
            for kind in range(2):
                place = 2 * priority + kind
                self.recorded[place] += recorded[kind]
                self.replayed[place] += replayed[kind]
                self.off += abs(recorded[kind] - replayed[kind])

    def told(self) -> tuple[int, ...]:
        """Return all as a tuple."""
        return (self.offers, self.off, *self.recorded, *self.replayed)


class QueueReplay:
    """Replays one queue. Not thread-safe."""

    def __init__(self, settings: ReplaySettings) -> None:
        self._settings = settings
        law = settings.law
        # At the recorded backlog.
        self._aged = AgedRecord(law) if isinstance(law, AgeLaw) else None
        self._judge = None if isinstance(law, AgeLaw) else Judge(law, settings.sleep_permille)
        self._in_force = {
            number: (None if policy.law is None else Judge(policy.law, settings.sleep_permille), policy.enforces)
            for number, policy in settings.in_force.items()
        }
        self._flows = Flows(settings.mix_ppm)
        self._worlds = [_world(settings, None)]
        if settings.behaviour is not None:
            self._worlds.append(_world(settings, settings.behaviour))
        self._counts = tuple(Counts() for _ in _PRIORITIES) if self._aged is None else self._aged.counts
        self._parity = Parity()
        self._before: Row | None = None
        self._begun = False
        self._rows = self._skipped = self._first_ms = 0
        self._judged_ms = self._gaps_ms = self._offers_ms = self._drains_ms = self._busy_ms = 0
        self._unjudged = self._refused = self._others = 0
        self._trail = Trail(settings.trail_ms)
        self._oldest_ms: int | None = None
        self._knows_memory = False

    def feed(self, content: bytes, rows: int) -> None:
        """Take the rows of a block; blocks come in the order of their time.

        Raises:
            ValueError: the bytes are damaged, or of other columns. Nothing was taken.
        """
        for numbers in zip(*columns_of(content, len(COLUMNS), rows), strict=True):
            at_ms, backlog, *more = numbers
            self._take(Row(at_ms or 0, backlog or 0, *more))

    def _take(self, row: Row) -> None:
        before = self._before
        if not (-1 if before is None else before.at_ms) < row.at_ms < _LAST_MS:
            self._skipped += 1
            return
        self._before = row
        self._rows += 1
        if before is None:
            self._first_ms = row.at_ms
            for trail in (self._trail, *(world.backlog.trail for world in self._worlds)):
                trail.begin(row.at_ms)
        self._trail.note(row.at_ms, _backlog(row) * JOB)
        self._knows_memory |= row.memory_permille is not None
        if row.oldest_age_ms is not None:
            self._oldest_ms = max(self._oldest_ms or 0, row.oldest_age_ms)
        if before is None:
            return
        span_ms = row.at_ms - before.at_ms
        if span_ms > self._settings.gap_ms:
            self._gaps_ms += span_ms
            self._unjudged += sum(_jobs(count) for count in (row.low_offers, row.medium_offers, row.high_offers))
            self._stop(before.at_ms)
            return
        self._pass_by(before, row, span_ms)

    def _pass_by(self, before: Row, row: Row, span_ms: int) -> None:
        in_force, enforces = self._told_then(before, row)
        flow = self._flows.between(before, row, span_ms, in_force if enforces else None)
        self._judged_ms += span_ms
        self._offers_ms += span_ms if flow.told else 0
        self._drains_ms += span_ms if flow.drains else 0
        self._busy_ms += span_ms if flow.busy else 0
        self._refused += flow.refused
        self._others += flow.others if flow.offers is not None else 0
        verdicts = () if self._judge is None else self._judge.judge(_backlog(before), before.memory_permille)
        for counts, verdict in zip(self._counts, verdicts, strict=False):
            counts.last(span_ms, verdict)
        if flow.offers is None:
            self._stop(before.at_ms)
            return
        for counts, jobs, verdict in zip(self._counts, flow.offers, verdicts, strict=False):
            counts.judge(jobs, verdict)
        if self._aged is not None:
            if not self._begun:
                self._aged.begin(before)
            self._aged.pass_by(before, span_ms, flow)
        if in_force is not None and flow.told:
            self._parity.compare(flow, in_force, enforces=enforces)
        for world in self._worlds:
            if not self._begun:
                world.begin(before)
            world.pass_by(before, span_ms, flow, in_force if enforces else None)
        self._begun = True

    def _told_then(self, before: Row, row: Row) -> tuple[tuple[Verdict, ...] | None, bool]:
        """Return what the policy in force said, and whether that was done."""
        if row.policy is None or row.policy != before.policy:
            return None, False
        judge, enforces = self._in_force.get(row.policy, (None, False))
        if judge is None:
            return None, False
        return judge.judge(_backlog(before), before.memory_permille), enforces

    def _stop(self, now_ms: int) -> None:
        if self._begun:
            for world in self._worlds:
                world.end(now_ms)
        self._begun = False
        self._flows.forget()

    def result(self) -> dict[str, Any]:
        """Return all that was found; ends the replay."""
        before = self._before
        if before is not None:
            for world in self._worlds:
                world.end(before.at_ms)
            self._begun = False
        return {
            "rows": self._rows,
            "skipped": self._skipped,
            "first_ms": self._first_ms,
            "last_ms": 0 if before is None else before.at_ms,
            "judged_ms": self._judged_ms,
            "gaps_ms": self._gaps_ms,
            "offers_ms": self._offers_ms,
            "drains_ms": self._drains_ms,
            "busy_ms": self._busy_ms,
            "unjudged": self._unjudged,
            "refused": self._refused,
            "knows_memory": self._knows_memory,
            "others": self._others,
            "recorded": (
                tuple(counts.told() for counts in self._counts),
                self._trail.peak,
                self._trail.peak_at_ms,
                self._oldest_ms,
                self._judged_ms,
                self._trail.told(),
            ),
            "simulated": [
                (
                    tuple(counts.told() for counts in world.counts),
                    world.backlog.trail.peak,
                    world.backlog.trail.peak_at_ms,
                    world.backlog.longest_wait_ms,
                    world.simulated_ms,
                    world.backlog.trail.told(),
                )
                for world in self._worlds
            ],
            "parity": self._parity.told(),
        }


def _world(settings: ReplaySettings, behaviour: BehaviourSettings | None) -> World | AgedWorld:
    law = settings.law
    return AgedWorld(settings, law, behaviour) if isinstance(law, AgeLaw) else World(settings, law, behaviour)


def _jobs(count: int | None) -> int:
    return 0 if count is None else max(count, 0) * JOB


def _backlog(row: Row) -> int:
    return min(max(row.backlog, 0), MOST // JOB)
