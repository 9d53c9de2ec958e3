"""A queue whose age is held: simulated, and as it was recorded. Time goes from one call of the budget to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._replay.backlog import Backlog
from backpressure._replay.counts import Counts
from backpressure._replay.jobs import JOB, MOST
from backpressure._replay.process import Process
from backpressure._replay.producers import Loop, Producers

if TYPE_CHECKING:
    from backpressure._engine.laws.age import AgeLaw
    from backpressure._recording.row import Row
    from backpressure._replay.flow import Flow
    from backpressure._replay.grants import Passed
    from backpressure._replay.judge import Verdict
    from backpressure._replay.settings import BehaviourSettings, ReplaySettings

__all__ = ["AgedRecord", "AgedWorld"]

_LOW, _MEDIUM, _HIGH = range(3)
_PRIORITIES = range(3)
_NO_LOOPS = [Loop()] * 3
#: Jobs that come later are known by the second.
_LONGEST_STEP_MS = 1_000


def _dealt(amount: int, begin: int, end: int, span: int) -> int:
    """Return what of an amount falls between two instants of a span."""
    return amount * end // span - amount * begin // span


class _Aged:
    """What both have: a process, and what became of offers."""

    def __init__(self, law: AgeLaw, *, observes: bool) -> None:
        self._law = law
        self._process = Process(law, observes=observes)
        self.counts = tuple(Counts() for _ in _PRIORITIES)

    def _count(self, priority: int, passed: Passed) -> None:
        """Count what is not to go at once: MEDIUM is told to come later where that is its policy."""
        counts = self.counts[priority]
        counts.delays += passed.delayed
        counts.held += passed.held
        if priority == _MEDIUM and not self._law.sheds_medium:
            counts.delays += passed.refused
        else:
            counts.sheds += passed.refused

    def _note(self, step_ms: int) -> None:
        process = self._process
        for priority, counts in enumerate(self.counts):
            refuses = process.shares[priority].refuses_ppm > 0
            waits = priority == _MEDIUM
            if waits and process.line is not None:
                refuses = process.line.waiting > 0
            sheds = refuses and not (waits and (process.line is not None or not self._law.sheds_medium))
            counts.note(step_ms, process.zone, sheds=sheds, waits=refuses)

    def _step_ms(self, now_ms: int, begin_ms: int, span_ms: int, offers: tuple[int, ...]) -> int:
        """Return how long nothing is decided anew."""
        process = self._process
        step_ms = min(begin_ms + span_ms - now_ms, max(1, process.call_at_ms - now_ms), _LONGEST_STEP_MS)
        if step_ms > process.hurry_ms:
            begin = now_ms - begin_ms
            more = [_dealt(jobs, begin, begin + step_ms, span_ms) for jobs in offers]
            if process.line is not None:
                more[_MEDIUM] = 0
            if process.is_pressed(more):
                return process.hurry_ms
        return step_ms


class AgedRecord(_Aged):
    """Offers judged at the recorded backlog, as where decisions are observed: by shares, and all go."""

    def __init__(self, law: AgeLaw) -> None:
        super().__init__(law, observes=True)

    def begin(self, row: Row) -> None:
        """Begin anew."""
        self._process.begin(row.at_ms)

    def pass_by(self, before: Row, span_ms: int, flow: Flow) -> None:
        """Let the time between two rows go by."""
        process, offers = self._process, flow.offers or (0, 0, 0)
        now_ms, end_ms = before.at_ms, before.at_ms + span_ms
        while now_ms < end_ms:
            if now_ms >= process.call_at_ms:
                jobs = min(max(before.backlog, 0) * JOB, MOST)
                oldest_ms = None if before.oldest_age_ms is None else max(0, before.oldest_age_ms)
                for priority, passed in enumerate(process.call(now_ms, jobs, oldest_ms, before.memory_permille)):
                    process.enqueued -= passed.goes  # of what goes in any case
                    self._count(priority, passed)
            step_ms = self._step_ms(now_ms, before.at_ms, span_ms, offers)
            begin, end = now_ms - before.at_ms, now_ms - before.at_ms + step_ms
            for priority, amount in enumerate(offers):
                jobs = _dealt(amount, begin, end, span_ms)
                self.counts[priority].offers += jobs
                self._count(priority, process.shares[priority].offer(jobs))
            process.enqueued = min(process.enqueued + _dealt(flow.let_in, begin, end, span_ms), MOST)
            self._note(step_ms)
            now_ms += step_ms
            process.look(now_ms)


class AgedWorld(_Aged):
    """One answer with feedback. Jobs are whole millionths."""

    def __init__(self, settings: ReplaySettings, law: AgeLaw, behaviour: BehaviourSettings | None) -> None:
        super().__init__(law, observes=False)
        self._producers = None if behaviour is None else Producers(behaviour)
        self.backlog = Backlog(settings.trail_ms)
        self.simulated_ms = 0

    def begin(self, row: Row) -> None:
        """Begin anew with a recorded backlog."""
        self.backlog.begin(row)
        self._process.begin(row.at_ms)
        if self._producers is not None:
            self._producers.begin(row.at_ms)

    def pass_by(self, before: Row, span_ms: int, flow: Flow, in_force: tuple[Verdict, ...] | None) -> None:
        """Let the time between two rows go by; see `World.pass_by`."""
        offers, loops = flow.offers or (0, 0, 0), _NO_LOOPS
        if self._producers is not None:
            offers, loops = self._producers.apart(before, span_ms, flow, in_force)
        now_ms, end_ms = before.at_ms, before.at_ms + span_ms
        while now_ms < end_ms:
            come = self._call(now_ms, before) if now_ms >= self._process.call_at_ms else 0
            step_ms = self._step_ms(now_ms, before.at_ms, span_ms, offers)
            begin, end = now_ms - before.at_ms, now_ms - before.at_ms + step_ms
            come += _dealt(flow.others, begin, end, span_ms)
            for priority in _PRIORITIES:
                jobs = _dealt(offers[priority], begin, end, span_ms)
                come += self._offer(priority, jobs, now_ms, step_ms, loops[priority])
            self.backlog.work(come, _dealt(flow.capacity, begin, end, span_ms), now_ms, step_ms)
            self._note(step_ms)
            now_ms += step_ms
            self._process.look(now_ms)
        self.simulated_ms += span_ms

    def end(self, now_ms: int) -> None:
        """Count to an instant, after which nothing is known: all is counted."""

    def _call(self, now_ms: int, before: Row) -> int:
        """Call the budget; return the jobs that go by its answer at once."""
        oldest_ms = None if before.oldest_age_ms is None else self.backlog.oldest_ms(now_ms)
        come = 0
        for priority, passed in enumerate(
            self._process.call(now_ms, self.backlog.jobs, oldest_ms, before.memory_permille)
        ):
            come += passed.goes
            self._count(priority, passed)
            if self._producers is not None:
                self._producers.shed(priority, passed.refused, self._process.told_us)
        return come

    def _offer(self, priority: int, jobs: int, now_ms: int, step_ms: int, loop: Loop) -> int:
        """Offer jobs of one priority; return those that go, with others that waited for their turn."""
        process, producers, of_loops, step_us = self._process, self._producers, 0, 1_000 * step_ms
        line = process.line if priority == _MEDIUM else None
        share = process.shares[priority]
        if producers is not None:
            jobs = producers.with_back(priority, jobs, now_ms)
        if loop.count:
            if line is None:
                of_loops = share.offers_of_loops(loop, process.told_us, step_us)
            else:
                of_loops = line.offers_of_loops(loop, jobs, step_us)
        passed = share.offer(jobs + of_loops) if line is None else line.offer(jobs, of_loops, step_us)
        self.counts[priority].offers += jobs + of_loops
        self._count(priority, passed)
        process.enqueued += passed.goes
        if producers is not None and passed.refused:  # loops ask again by themselves
            producers.shed(priority, passed.refused * jobs // (jobs + of_loops), process.told_us)
        return passed.goes
