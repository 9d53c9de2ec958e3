"""How many callers the law holds: the table in the guide, from a simulation of callers that do nothing but enqueue."""

from __future__ import annotations

import heapq
import random
from pathlib import Path

import pytest

from backpressure import HIGH, LOW, MEDIUM, BacklogThresholds, CurveConfig, Priority
from backpressure._engine.laws.three_zone import ThreeZoneLaw
from backpressure._engine.sample import Sample

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "algorithm.md"
CURVE = CurveConfig()
LAW = ThreeZoneLaw.of(BacklogThresholds(), CURVE)
DRAIN = 80  # jobs a second
INTERVAL = 5  # seconds between polls
SECONDS = 1_200
JOB = 0.1  # seconds that a caller takes for a job if it does not wait


def simulate(callers: int, priority: Priority) -> tuple[int, float]:
    """Return the backlog after twenty minutes, and by how many jobs a second it grew in the second half of them.

    Each caller asks, waits as advised, enqueues and asks again. A shed job is dropped, and its caller waits a second.
    """
    uniform = random.Random(1).uniform
    index = priority.value
    backlog, polled = 0.0, Sample(0, 0, None)
    last, poll_at, half = 0.0, 0.0, 0.0
    # When a caller acts next, and whether it then enqueues a job before it asks for the next one.
    heap = [(uniform(0, 60), number, False) for number in range(callers)]
    heapq.heapify(heap)
    while (now := heap[0][0]) < SECONDS:
        while poll_at <= now:
            backlog = max(0.0, backlog - DRAIN * (poll_at - last))
            last, polled = poll_at, Sample(int(backlog), 0, None)
            if poll_at == SECONDS / 2:
                half = backlog
            poll_at += INTERVAL
        _, number, enqueues = heap[0]
        if enqueues:
            backlog = max(0.0, backlog - DRAIN * (now - last)) + 1
            last = now
        advice = LAW.advise(polled, index, None)
        pause = 1.0 if advice.shed else advice.delay_ns / 1e9 * (1 + uniform(0, CURVE.delay_jitter))
        heapq.heapreplace(heap, (now + JOB + pause, number, not advice.shed))
    return round(backlog), (backlog - half) / (SECONDS / 2)


def idle(interval: int) -> int:
    """Return in how many of forty seconds workers find too little, where 200 LOW jobs/s are offered and 150/s drained.

    Jobs that would have to wait are dropped.
    """
    backlog, empty, advice = 0, 0, LAW.advise(Sample(0, 0, None), LOW.value, None)
    for second in range(45):
        if second % interval == 0:
            advice = LAW.advise(Sample(backlog, 0, None), LOW.value, None)
        offered = 0 if advice.shed or advice.delay_ns else 200
        empty += second >= 5 and backlog + offered < 150
        backlog = max(0, backlog + offered - 150)
    return empty


def test_a_queue_that_drains_between_two_polls_runs_dry() -> None:
    assert (idle(5), idle(1)) == (16, 0)
    said = "at the default interval of 5 s they find too little in 16 of 40 seconds, and at 1 s in none"
    assert said in " ".join(GUIDE.read_text("utf-8").split())


def limit(priority: Priority) -> float:
    """Return how many callers the law holds at most, by the formula of the guide."""
    longest = LAW.red_max_ns / 1e9 * CURVE.scale(priority) * (1 + CURVE.delay_jitter / 2)
    return DRAIN * (longest + JOB)


@pytest.mark.parametrize(("priority", "callers"), [(MEDIUM, 50), (MEDIUM, 300), (HIGH, 150), (LOW, 500)])
def test_it_holds_the_queue(priority: Priority, callers: int) -> None:
    backlog, growth = simulate(callers, priority)
    assert abs(growth) < 1
    assert f"| {priority.name} | {callers:,} | {backlog:,} |" in GUIDE.read_text("utf-8")


@pytest.mark.parametrize(("priority", "callers"), [(MEDIUM, 500), (HIGH, 250)])
def test_beyond_the_limit_it_does_not(priority: Priority, callers: int) -> None:
    backlog, growth = simulate(callers, priority)
    assert growth == pytest.approx(DRAIN * (callers / limit(priority) - 1), abs=0.5)
    assert f"| {priority.name} | {callers:,} | {backlog:,}, +{growth:.0f}/s |" in GUIDE.read_text("utf-8")


def test_the_limits_are_those_of_the_guide() -> None:
    assert (round(limit(MEDIUM)), round(limit(HIGH))) == (428, 218)
    assert "428 MEDIUM or 218 HIGH callers" in GUIDE.read_text("utf-8")
