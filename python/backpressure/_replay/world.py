"""A simulated backlog: fed by what is offered and let in, emptied by workers, read and judged as by producers."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from backpressure._replay.jobs import FLOW, JOB, MOST
from backpressure._replay.judge import Judge
from backpressure._replay.later import Later
from backpressure._replay.trail import Trail

if TYPE_CHECKING:
    from backpressure._recording.row import Row
    from backpressure._replay.flow import Flow
    from backpressure._replay.judge import Verdict
    from backpressure._replay.settings import BehaviourSettings, LoopSettings, ReplaySettings

__all__ = ["Counts", "World"]

_PRIORITIES = range(3)
_LONGEST_PAUSE_US = 10**15


class Counts:
    """What became of the offers of one priority, in millionths of jobs, and for how long it was so, in milliseconds."""

    __slots__ = ("delays", "held", "offers", "shed_ms", "sheds", "waits_ms", "zones_ms")

    def __init__(self) -> None:
        self.offers = self.delays = self.sheds = self.held = 0
        self.zones_ms = [0, 0, 0]
        self.shed_ms = self.waits_ms = 0

    def judge(self, jobs: int, verdict: Verdict) -> None:
        """Count offers that were judged alike."""
        self.offers += jobs
        if verdict.shed:
            self.sheds += jobs
        elif verdict.waits:
            self.delays += jobs
            self.held += jobs * verdict.held_us

    def last(self, span_ms: int, verdict: Verdict) -> None:
        """Count for how long a verdict was in force."""
        self.zones_ms[verdict.zone] += span_ms
        if verdict.shed:
            self.shed_ms += span_ms
        elif verdict.waits:
            self.waits_ms += span_ms

    def told(self) -> tuple[int, ...]:
        """Return all as a tuple; `held` is in millionths of job-microseconds."""
        return (
            self.offers, self.delays, self.sheds, self.held, *self.zones_ms, self.waits_ms, self.shed_ms,
        )  # fmt: skip


class World:
    """One answer with feedback. Jobs are whole millionths; time goes in steps of about a second."""

    def __init__(self, settings: ReplaySettings, behaviour: BehaviourSettings | None) -> None:
        self._settings = settings
        self._judge = Judge(settings.law, settings.sleep_permille)
        self._behaviour = behaviour
        self._late = Later()
        self._back = tuple(Later() for _ in _PRIORITIES)
        # Those of jobs that were shed while the recording was made: they are among its offers.
        self._recorded_back = tuple(Later() for _ in _PRIORITIES)
        self.counts = tuple(Counts() for _ in _PRIORITIES)
        self.simulated_ms = 0
        self.trail = Trail(settings.trail_ms)
        self.longest_wait_ms = 0
        self._backlog = 0
        self._verdicts: tuple[Verdict, ...] = ()
        self._due_ms = self._judged_ms = 0
        # Jobs that were let in since the queue was read, and how many may be.
        self._let_in = self._room = 0
        # Jobs that wait, by when they came.
        self._waiting: deque[list[int]] = deque()

    def begin(self, row: Row) -> None:
        """Begin anew with a recorded backlog."""
        self._backlog = min(max(row.backlog, 0) * JOB, MOST)
        for later in (self._late, *self._back, *self._recorded_back):
            later.clear(row.at_ms)
        self._due_ms = self._judged_ms = row.at_ms
        self._verdicts = ()
        self._waiting.clear()
        if self._backlog:
            self._waiting.append([self._backlog, row.at_ms - min(max(row.oldest_age_ms or 0, 0), row.at_ms)])
        self.trail.note(row.at_ms, self._backlog)

    def pass_by(self, before: Row, span_ms: int, flow: Flow, in_force: tuple[Verdict, ...] | None) -> None:
        """Let the time between two rows go by.

        Args:
            before: the first of them.
            span_ms: the time.
            flow: what came and went then.
            in_force: what producers were told then, and did; ``None``: nothing, or it is not known.
        """
        offers = flow.offers or (0, 0, 0)
        loops: list[tuple[int, int]] = []
        if self._behaviour is not None:
            offers, loops = self._apart(self._behaviour, before, span_ms, flow, in_force)
        memory, steps = before.memory_permille, max(1, (span_ms + 499) // 1_000)
        span, more_span = divmod(span_ms, steps)
        parts = [divmod(jobs, steps) for jobs in (*offers, flow.others, flow.capacity)]
        now_ms = before.at_ms
        for step in range(steps):
            step_ms = span + (step < more_span)
            low, medium, high, others, capacity = (part + (step < more) for part, more in parts)
            if now_ms >= self._due_ms or self._let_in > self._room:
                self._read(now_ms, memory)
            come = others + self._late.take(now_ms)
            for priority, jobs in enumerate((low, medium, high)):
                come += self._offer(priority, jobs, now_ms, step_ms, loops)
            self._work(come, capacity, now_ms, step_ms)
            now_ms += step_ms
        self.simulated_ms += span_ms

    def _read(self, now_ms: int, memory_permille: int | None) -> None:
        """Read the backlog as producers do, and judge it."""
        self._settle(now_ms)
        self._verdicts = self._judge.judge(self._backlog // JOB, memory_permille)
        settings = self._settings
        self._due_ms = now_ms + (settings.busy_poll_ms if self._judge.is_busy() else settings.poll_ms)
        self._let_in, self._room = 0, self._judge.room() * JOB

    def _settle(self, now_ms: int) -> None:
        for counts, verdict in zip(self.counts, self._verdicts, strict=False):
            counts.last(now_ms - self._judged_ms, verdict)
        self._judged_ms = now_ms

    def end(self, now_ms: int) -> None:
        """Count to an instant, after which nothing is known."""
        self._settle(now_ms)
        self._verdicts = ()

    def _offer(self, priority: int, jobs: int, now_ms: int, step_ms: int, loops: list[tuple[int, int]]) -> int:
        """Offer jobs of one priority; return those that are let in at once."""
        verdict, behaviour, of_loops = self._verdicts[priority], self._behaviour, 0
        if behaviour is not None:
            jobs = min(jobs + self._back[priority].take(now_ms), FLOW)
            count, pause_us = loops[priority]
            of_priority = behaviour.loops[priority]
            if count and of_priority is not None:
                cycle_us = of_priority.cycle_us(pause_us, of_priority.waits_us(verdict))
                of_loops = min(count * JOB * step_ms * 1_000 // cycle_us, FLOW)
            if verdict.shed:
                after_us = verdict.told_us if behaviour.return_after_us is None else behaviour.return_after_us
                self._back[priority].put_later(jobs * behaviour.returns_ppm[priority] // JOB, after_us)
        jobs += of_loops
        self.counts[priority].judge(jobs, verdict)
        if verdict.shed:
            return 0
        self._let_in += jobs
        return self._late.put(jobs, verdict.held_us) if verdict.waits else jobs

    def _work(self, come: int, capacity: int, now_ms: int, step_ms: int) -> None:
        """Let jobs in, and workers take what they can."""
        have = min(self._backlog + come, MOST)
        come, out = have - self._backlog, min(have, capacity)
        self._backlog = have - out
        waiting = self._waiting
        if self._backlog == 0:
            waiting.clear()
        else:
            if come:
                waiting.append([come, now_ms])
            while out >= waiting[0][0]:
                out -= waiting.popleft()[0]
            waiting[0][0] -= out
            self.longest_wait_ms = max(self.longest_wait_ms, now_ms + step_ms - waiting[0][1])
        self.trail.note(now_ms + step_ms, self._backlog)

    # Behaviour.

    def _apart(
        self,
        behaviour: BehaviourSettings,
        before: Row,
        span_ms: int,
        flow: Flow,
        in_force: tuple[Verdict, ...] | None,
    ) -> tuple[tuple[int, int, int], list[tuple[int, int]]]:
        """Return the offers that come whatever is advised, and by priority how many loops offer, with which pause.

        Recorded offers are both, and those of jobs that had been shed and came back.
        """
        offers = list(flow.offers or (0, 0, 0))
        loops: list[tuple[int, int]] = []
        for priority in _PRIORITIES:
            verdict = None if in_force is None else in_force[priority]
            back = self._recorded_back[priority]
            offers[priority] = max(0, offers[priority] - back.take(before.at_ms))
            count, pause_us, theirs = 0, 0, 0
            of_priority = behaviour.loops[priority]
            if of_priority is not None:
                waited_us = 0 if verdict is None else of_priority.waits_us(verdict)
                count, pause_us, theirs = _loops(of_priority, offers[priority], span_ms, waited_us)
                offers[priority] -= theirs
            if verdict is not None:
                shed = max(0, flow.sheds[priority] - theirs)  # loops ask again by themselves
                after_us = verdict.told_us if behaviour.return_after_us is None else behaviour.return_after_us
                back.put_later(shed * behaviour.returns_ppm[priority] // JOB, after_us)
            loops.append((count, pause_us))
        low, medium, high = offers
        return (low, medium, high), loops


def _loops(loops: LoopSettings, offers: int, span_ms: int, waited_us: int) -> tuple[int, int, int]:
    """Return how many loops offer, with which pause, and how many of the recorded offers were theirs."""
    time_us = loops.count * JOB * span_ms * 1_000
    if loops.pause_us is not None:
        return loops.count, loops.pause_us, min(time_us // loops.cycle_us(loops.pause_us, waited_us), offers)
    if offers == 0:
        return 0, 0, 0
    pause_us = time_us // offers - (0 if loops.paced else waited_us)
    return loops.count, min(max(0, pause_us), _LONGEST_PAUSE_US), offers
