"""What a run of the demo yields, and what must hold of all together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from backpressure._model.vocabulary import Priority

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["AGE_WITHIN", "PRIORITIES", "Check", "Counts", "RunResult", "Transition", "check"]

#: In the order in which people look at them.
PRIORITIES = (Priority.HIGH, Priority.MEDIUM, Priority.LOW)
#: Part of the target by which the age may be off at the end of so short a run.
AGE_WITHIN = 0.25


@attrs.define
class Counts:
    """How offered jobs ended.

    Attributes:
        offered: jobs that a producer had. One whose fate the run's end left open (its producer was sleeping as
            advised) is taken back from it: it was neither enqueued nor refused.
        enqueued: acknowledged by the server.
        shed: refused because of the backlog.
        blocked: refused because the circuit was open.
        failed: the server did not acknowledge.
    """

    offered: int = 0
    enqueued: int = 0
    shed: int = 0
    blocked: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(attrs.astuple(self), attrs.astuple(other), strict=True)))

    @property
    def missing(self) -> int:
        """Offered jobs that no outcome accounts for."""
        return self.offered - self.enqueued - self.shed - self.blocked - self.failed


@attrs.frozen
class Transition:
    """The circuit changed, `at` seconds into the run."""

    at: float
    old: str
    new: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as the JSON output shows it."""
        return {"at": round(self.at, 3), "from": self.old, "to": self.new}


@attrs.frozen(kw_only=True)
class RunResult:
    """One run.

    Attributes:
        name: ``without``, ``with`` or ``outage``; ``table`` or ``age`` of the two laws that are compared.
        seconds: how long producers produced.
        samples: (seconds into the run, jobs waiting), ``None`` jobs where the server did not answer.
        peak_backlog: exact, from what the server answered to each push.
        final_backlog: jobs waiting after producers and workers had ended.
        drained: jobs that workers took.
        cut_off: takes whose answer never came; the server may have handed out a job for each.
        counts: by priority.
        transitions: of the circuit.
        away: from when to when the server was away, in seconds into the run.
        waits: how long jobs had waited that were taken, in seconds, by seconds into the run.
        target: seconds that they were to wait, where an age is held on one side.
    """

    name: str
    seconds: float
    samples: tuple[tuple[float, int | None], ...]
    peak_backlog: int
    final_backlog: int
    drained: int
    cut_off: int
    counts: Mapping[Priority, Counts]
    transitions: tuple[Transition, ...] = ()
    away: tuple[float, float] | None = None
    waits: tuple[tuple[float, float], ...] = ()
    target: float | None = None

    @property
    def waited_at_end(self) -> float:
        """How long jobs had waited that were taken in the last tenth of the run, in seconds; 0 if none was."""
        last = [waited for at, waited in self.waits if at > self.seconds * 0.9]
        return sum(last) / len(last) if last else 0.0

    @property
    def total(self) -> Counts:
        """The counts of all priorities together."""
        return sum(self.counts.values(), Counts())

    def to_dict(self) -> dict[str, Any]:
        """Return it as the JSON output shows it."""
        return {
            "seconds": round(self.seconds, 3),
            "peak_backlog": self.peak_backlog,
            "final_backlog": self.final_backlog,
            "drained": self.drained,
            "circuit_transitions": [transition.to_dict() for transition in self.transitions],
            **({} if self.away is None else {"server_away": [round(instant, 3) for instant in self.away]}),
            **({} if self.target is None else {"target": self.target, "waited_at_end": round(self.waited_at_end, 3)}),
            **{str(priority): attrs.asdict(self.counts[priority]) for priority in PRIORITIES},
        }


@attrs.frozen
class Check:
    """One thing that must hold: what, whether it does, and the figures."""

    name: str
    passed: bool
    detail: str


def check(results: Mapping[str, RunResult]) -> list[Check]:
    """Judge the runs that there are."""
    checks = [
        *(_accounted(run) for run in results.values()),
        *(_kept(run) for run in results.values()),
        *(_never_shed(run) for run in results.values()),
    ]
    if "outage" in results:
        without, with_ = results["without"], results["with"]
        checks += [
            Check(
                "with: peak backlog under a third of without",
                with_.peak_backlog * 3 < without.peak_backlog,
                f"{with_.peak_backlog:,} with, {without.peak_backlog:,} without",
            ),
            Check(
                "with: workers drain at least 90 % of without",
                with_.drained * 10 >= without.drained * 9 and without.drained > 0,
                f"{with_.drained:,} with, {without.drained:,} without",
            ),
            _recovered(results["outage"]),
        ]
    return [*checks, *_held(results)] if "age" in results else checks


def _held(results: Mapping[str, RunResult]) -> Iterator[Check]:
    table, age = results["table"], results["age"]
    target = age.target or 0.0
    yield Check(
        f"age: jobs wait {target:g} s again after workers slowed down, within {AGE_WITHIN:.0%}",
        abs(age.waited_at_end - target) <= AGE_WITHIN * target,
        f"{age.waited_at_end:.2f} s at the end",
    )
    yield Check(
        "age: jobs wait less than half as long as by the table",
        0 < 2 * age.waited_at_end < table.waited_at_end,
        f"{age.waited_at_end:.2f} s by age, {table.waited_at_end:.2f} s by the table",
    )
    yield Check(
        "age: workers drain at least 90 % of the table",
        age.drained * 10 >= table.drained * 9 and table.drained > 0,
        f"{age.drained:,} by age, {table.drained:,} by the table",
    )


def _accounted(run: RunResult) -> Check:
    total = run.total
    return Check(
        f"{run.name}: every offered job is accounted for",
        total.offered > 0 and all(counts.missing == 0 for counts in run.counts.values()),
        f"{total.offered:,} = {total.enqueued:,} + {total.shed:,} + {total.blocked:,} + {total.failed:,}",
    )


def _kept(run: RunResult) -> Check:
    # A call that was cut off may have taken effect or not, so each leaves a margin of one job.
    total = run.total
    surplus = run.drained + run.final_backlog - total.enqueued
    return Check(
        f"{run.name}: no enqueued job is lost",
        -run.cut_off <= surplus <= total.failed,
        f"{total.enqueued:,} enqueued, {run.drained:,} drained, {run.final_backlog:,} waiting"
        + (f", {run.cut_off + total.failed:,} calls failed" if run.cut_off + total.failed else ""),
    )


def _never_shed(run: RunResult) -> Check:
    shed = run.counts[Priority.HIGH].shed + run.counts[Priority.MEDIUM].shed
    return Check(f"{run.name}: no high or medium job is shed", shed == 0, f"{shed:,} shed")


def _recovered(run: RunResult) -> Check:
    opened = [transition for transition in run.transitions if transition.new == "open"]
    passed = bool(opened) and run.transitions[-1].new == "closed"
    if not opened:
        detail = "it never opened"
    else:
        last = run.transitions[-1]
        probes = len(opened) - 1
        detail = f"open at {opened[0].at:.1f} s, {probes} failed probes, {last.new} at {last.at:.1f} s"
    return Check("outage: the circuit opened and closed again", passed, detail)
