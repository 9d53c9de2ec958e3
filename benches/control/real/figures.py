"""What one law's run of a scenario is judged by: figures of each queue in each phase."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from statistics import fmean
from typing import TYPE_CHECKING

import attrs
from benches.control.figures import jain, needed
from benches.control.real.producers import BLOCKED, ENQUEUED, SHED, THROTTLED, UNFINISHED
from benches.control.real.run import REST
from benches.control.real.scenario import HEAVY, LEVELS

from backpressure._model.config.age import AgeConfig

if TYPE_CHECKING:
    from benches.control.real.run import Job, Outcome
    from benches.control.real.scenario import Load, Phase

__all__ = ["Figures", "ages", "figures", "lost"]

#: At full length: seconds in which a queue fills at first, and of which refusals are counted at the end of a phase.
_FILLING, _LATE = 10.0, 45.0
_REFUSED = {SHED, THROTTLED, BLOCKED}
#: With fewer jobs a producer than this, chance alone keeps them apart.
_FAIR_FROM = 20


@attrs.frozen
class Figures:
    """One queue in one phase. Seconds, unless said.

    Attributes:
        age, least, most: how long jobs had waited that were taken at rest, the phase's last two fifths: mean, extremes.
        settled: from the phase's begin until the mean of each tick stays within a tenth of the target; infinite: never.
        worst: longest that a job waited.
        farthest: largest distance of a tick's mean from the target, as a part of it.
        used: part of what the workers could take that they took, without the time in which a queue fills at first.
        admitted: jobs a second that were enqueued.
        drain: jobs a second that the workers can take.
        shed, needed: per cent of what was offered that was refused, and that had to be: HIGH, MEDIUM, LOW.
        fairness: by who is compared, Jain's index: of the jobs of a priority's producers, only where these have enough
            of them; of those of its tenants, each by its weight, at the end of the phase.
        heavier: how many times as much as the others the tenants of weight `HEAVY` got there; `None`: there are none.
        commands: of the store, for each controller, queue and tick; `None`: it was away, or there is none.
        microseconds: of the store, for a call.
    """

    lane: int
    phase: Phase
    age: float
    least: float
    most: float
    settled: float
    worst: float
    farthest: float
    used: float
    admitted: float
    drain: float
    shed: tuple[float, ...]
    needed: tuple[float, ...]
    fairness: dict[str, float]
    heavier: float | None
    commands: float | None
    microseconds: float | None


def figures(outcome: Outcome) -> list[Figures]:
    """Judge a run, queue by queue."""
    scenario = outcome.scenario
    return [
        _of_phase(outcome, lane, index, begin, end)
        for lane in range(len(scenario.lanes))
        for index, (_, begin, end) in enumerate(scenario.spans())
    ]


def ages(outcome: Outcome, lane: int) -> dict[float, float]:
    """Return how long jobs had waited on average that were taken in each tick, by the tick's end."""
    tick, waits = outcome.scenario.tick, defaultdict(list)
    for job in outcome.jobs:
        if job.lane == lane and job.taken is not None:
            waits[int(job.taken / tick)].append(job.taken - job.enqueued)
    return {round((number + 1) * tick, 3): sum(it) / len(it) for number, it in sorted(waits.items())}


def lost(outcome: Outcome) -> int:
    """Return how many jobs are missing that a producer enqueued who lived to the end, or are there that none did."""
    alive = {producer.number for producer in outcome.scenario.producers()} - _killed(outcome)
    said = Counter((it.lane, it.producer) for it in outcome.offers if it.outcome == ENQUEUED)
    there = Counter((job.lane, job.producer) for job in outcome.jobs if job.producer in alive)
    return sum(abs(said[it] - there[it]) for it in said | there)


def _killed(outcome: Outcome) -> set[int]:
    scenario = outcome.scenario
    return {it.number for it in scenario.producers() if it.number % scenario.processes in scenario.killed()}


def _of_phase(outcome: Outcome, lane: int, index: int, begin: float, end: float) -> Figures:
    scenario = outcome.scenario
    phase, target, drain = scenario.phases[index], scenario.target, scenario.lanes[lane].drains[index]
    jobs = [job for job in outcome.jobs if job.lane == lane]
    taken = [job for job in jobs if job.taken is not None and begin <= job.taken < end]
    rest = [_waited(job) for job in taken if job.taken is not None and job.taken >= end - REST * phase.seconds]
    means = {at: mean for at, mean in ages(outcome, lane).items() if begin < at <= end}
    off = [at for at, mean in means.items() if abs(mean - target) > target / 10]
    full = max(begin, _FILLING / scenario.scale)
    tenths = range(math.ceil(10 * full), int(10 * end))
    possible = sum(jobs for tenth, jobs in outcome.possible[lane].items() if tenth in tenths)
    used = sum(int(10 * job.taken) in tenths for job in taken if job.taken is not None)
    late = max(full, end - _LATE / scenario.scale)
    shed, must = _refusals(outcome, lane, late, end, drain)
    by_tenant = {load: rates for load in scenario.lanes[lane].loads if (rates := _tenants(jobs, load, late, end))}
    alike = {f"tenants of {load.level}": jain(rates) for load, rates in by_tenant.items()}
    heavier = [fmean(rates[: it.heavy]) / fmean(rates[it.heavy :]) for it, rates in by_tenant.items() if it.heavy]
    commands, microseconds = _costs(outcome, index)
    return Figures(
        lane=lane,
        phase=phase,
        age=sum(rest) / len(rest) if rest else math.nan,
        least=min(rest, default=math.nan),
        most=max(rest, default=math.nan),
        settled=_settled(off, means, begin, scenario.tick),
        worst=max(map(_waited, taken), default=math.nan),
        farthest=max((abs(mean - target) / target for mean in means.values()), default=math.nan),
        used=used / possible if possible else math.nan,
        admitted=sum(begin <= job.enqueued < end for job in jobs) / phase.seconds,
        drain=drain,
        shed=shed,
        needed=must,
        fairness=_fairness(outcome, lane, full, end) | alike,
        heavier=HEAVY * heavier[0] if heavier else None,
        commands=commands,
        microseconds=microseconds,
    )


def _waited(job: Job) -> float:
    assert job.taken is not None
    return job.taken - job.enqueued


def _settled(off: list[float], means: dict[float, float], begin: float, tick: float) -> float:
    if not means:
        return math.inf
    last = max(off, default=begin)
    return last - begin if last < max(means) - tick / 2 else math.inf


def _refusals(
    outcome: Outcome, lane: int, begin: float, end: float, drain: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    ended = Counter(
        (it.level, it.outcome in _REFUSED)
        for it in outcome.offers
        if it.lane == lane and begin <= it.at < end and it.outcome != UNFINISHED
    )
    offered = [ended[level, False] + ended[level, True] for level in range(len(LEVELS))]
    shed = tuple(100 * ended[level, True] / jobs if jobs else 0.0 for level, jobs in enumerate(offered))
    waits = all(load.max_wait is None for load in outcome.scenario.lanes[lane].loads)
    must = (0.0,) * len(LEVELS) if waits else needed(offered, drain * (end - begin), AgeConfig().low_floor)
    return shed, must


def _fairness(outcome: Outcome, lane: int, begin: float, end: float) -> dict[str, float]:
    """Compare the producers of a priority who live on."""
    phases = outcome.scenario.spans()
    gone = _killed(outcome) if any(it.fault == "kill" and since <= begin for it, since, _ in phases) else set()
    went = Counter(job.producer for job in outcome.jobs if job.lane == lane and begin <= job.enqueued < end)
    fairness = {}
    for level in LEVELS:
        all_of_it = [it.number for it in outcome.scenario.producers() if (it.lane, it.load.level) == (lane, level)]
        jobs = [went[number] for number in all_of_it if number not in gone]
        if len(jobs) > 1 and sum(jobs) >= _FAIR_FROM * len(jobs):
            fairness[f"producers of {level}"] = jain(jobs)
    return fairness


def _tenants(jobs: list[Job], load: Load, begin: float, end: float) -> list[float]:
    """Return the jobs of each tenant, divided by its weight."""
    level = LEVELS.index(load.level)
    went = Counter(it.tenant for it in jobs if it.level == level and begin <= it.enqueued < end)
    return [went[tenant] / load.weight(tenant) for tenant in range(len(load.tenants))]


def _costs(outcome: Outcome, index: int) -> tuple[float | None, float | None]:
    scenario, spent = outcome.scenario, outcome.spent[index]
    if outcome.law != "age" or spent is None or spent.calls <= 0:
        return None, None
    gone = any(phase.fault == "kill" for phase in scenario.phases[: index + 1])
    alive = scenario.processes - (len(scenario.killed()) if gone else 0)
    ticks = REST * scenario.phases[index].seconds / scenario.tick
    each = spent.commands / (alive * scenario.controllers * len(scenario.lanes) * ticks)
    return each, spent.microseconds / spent.calls
