"""A simulated queue under a law that judges samples: read and judged as by producers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._replay.backlog import Backlog
from backpressure._replay.counts import Counts
from backpressure._replay.jobs import JOB
from backpressure._replay.judge import Judge
from backpressure._replay.later import Later
from backpressure._replay.producers import Loop, Producers

if TYPE_CHECKING:
    from backpressure._engine.laws.law import Law
    from backpressure._recording.row import Row
    from backpressure._replay.flow import Flow
    from backpressure._replay.judge import Verdict
    from backpressure._replay.settings import BehaviourSettings, ReplaySettings

__all__ = ["World"]

_NO_LOOPS = [Loop()] * 3


class World:
    """One answer with feedback. Jobs are whole millionths; time goes in steps of about a second."""

    def __init__(self, settings: ReplaySettings, law: Law, behaviour: BehaviourSettings | None) -> None:
        self._settings = settings
        self._judge = Judge(law, settings.sleep_permille)
        self._producers = None if behaviour is None else Producers(behaviour)
        self._late = Later()
        self.backlog = Backlog(settings.trail_ms)
        self.counts = tuple(Counts() for _ in range(3))
        self.simulated_ms = 0
        self._verdicts: tuple[Verdict, ...] = ()
        self._due_ms = self._judged_ms = 0
        # Jobs that were let in since the queue was read, and how many may be.
        self._let_in = self._room = 0

    def begin(self, row: Row) -> None:
        """Begin anew with a recorded backlog."""
        self.backlog.begin(row)
        self._late.clear(row.at_ms)
        if self._producers is not None:
            self._producers.begin(row.at_ms)
        self._due_ms = self._judged_ms = row.at_ms
        self._verdicts = ()

    def pass_by(self, before: Row, span_ms: int, flow: Flow, in_force: tuple[Verdict, ...] | None) -> None:
        """Let the time between two rows go by.

        Args:
            before: the first of them.
            span_ms: the time.
            flow: what came and went then.
            in_force: what producers were told then, and did; ``None``: nothing, or it is not known.
        """
        offers, loops = flow.offers or (0, 0, 0), _NO_LOOPS
        if self._producers is not None:
            offers, loops = self._producers.apart(before, span_ms, flow, in_force)
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
                come += self._offer(priority, jobs, now_ms, step_ms, loops[priority])
            self.backlog.work(come, capacity, now_ms, step_ms)
            now_ms += step_ms
        self.simulated_ms += span_ms

    def _read(self, now_ms: int, memory_permille: int | None) -> None:
        """Read the backlog as producers do, and judge it."""
        self._settle(now_ms)
        self._verdicts = self._judge.judge(self.backlog.jobs // JOB, memory_permille)
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

    def _offer(self, priority: int, jobs: int, now_ms: int, step_ms: int, loop: Loop) -> int:
        """Offer jobs of one priority; return those that are let in at once."""
        verdict, producers, of_loops = self._verdicts[priority], self._producers, 0
        if producers is not None:
            jobs = producers.with_back(priority, jobs, now_ms)
            if loop.count:
                of_loops = loop.offers(loop.waits_us(verdict), 1_000 * step_ms)
            if verdict.shed:
                producers.shed(priority, jobs, verdict.told_us)
        jobs += of_loops
        self.counts[priority].judge(jobs, verdict)
        if verdict.shed:
            return 0
        self._let_in += jobs
        return self._late.put(jobs, verdict.held_us) if verdict.waits else jobs
