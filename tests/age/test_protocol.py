"""What follows from a target, and reports and answers as the script sees them."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from backpressure._age.protocol import (
    NO_SAMPLER,
    VERSION,
    BacklogSeen,
    Demand,
    Report,
    Terms,
    arguments,
    decode,
)
from backpressure._model.budget import BudgetSettings

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "age-protocol.md"
SETTINGS = BudgetSettings.of(5.0)


@pytest.mark.parametrize(
    ("target", "tick_ms", "gain", "window_ms"),
    [
        (0.5, 100, 1_500, 300),
        (2.0, 400, 1_500, 1_200),
        (5.0, 1_000, 1_500, 3_000),
        (20.0, 1_000, 6_000, 6_000),
        (3_600.0, 1_000, 9_000, 6_000),
    ],
)
def test_all_else_follows_from_the_target(target: float, tick_ms: int, gain: int, window_ms: int) -> None:
    settings = BudgetSettings.of(target)
    assert settings.target_ms == target * 1_000
    assert (settings.tick_ms, settings.gain_most_permille, settings.drain_window_ms) == (tick_ms, gain, window_ms)
    assert (settings.low_floor_permille, settings.burst_jobs, settings.calls_per_second) == (5, 5, 2_000)


def test_arguments_are_in_the_order_of_the_page() -> None:
    high, medium, low = (Demand(*(100 * kind + level for kind in range(1, 7))) for level in (1, 2, 3))
    report = Report(
        producer_id="7f",
        since_ms=900,
        demands=(high, medium, low),
        enqueued=8,
        seen=BacklogSeen(40, 3, 2),
        seed_drain_mjobs_per_s=5,
        seed_processes=6,
        limit_permille=700,
    )
    kinds = [100 * kind + level for kind in range(1, 7) for level in (1, 2, 3)]
    head = [VERSION, 5_000, 1_000, 1_500, 3_000, 1, 50, 0, 5, 5, 2_000, 700, "7f", 900]
    assert arguments(SETTINGS, report) == [*head, *kinds, 8, 40, 3, 2, 5, 6]
    report_part = PAGE.read_text("utf-8").partition("## The answer")[0]
    places = re.findall(r"^\| (\d+)(?:[–,] ?(\d+))? \|", report_part, re.MULTILINE)
    assert [int(first) for first, _ in places] == [*range(1, 9), *range(10, 15), *range(15, 33, 3), *range(33, 39)]


def test_who_does_not_read_the_queue_says_so() -> None:
    assert arguments(SETTINGS, Report(producer_id=NO_SAMPLER, since_ms=0))[33:36] == [-1, -1, 0]
    without_age = Report(producer_id="7f", since_ms=0, seen=BacklogSeen(1, None, 0))
    assert arguments(SETTINGS, without_age)[33:36] == [1, -1, 0]


def test_counts_beyond_what_the_script_takes_are_cut() -> None:
    huge = Demand(decided=2**40)
    told = arguments(
        SETTINGS, Report(producer_id="7f", since_ms=2**40, demands=(huge, huge, huge), seed_processes=2**40)
    )
    assert max(number for number in told if isinstance(number, int)) == 10**9
    assert told[37] == 10**6


def test_a_reply_is_decoded() -> None:
    answer = decode([b"17", *range(2, 9), 1, *range(10, 17), *range(100, 121)])
    assert (answer.now_ms, answer.ticks, answer.is_sampler, answer.wait_ms) == (17, 2, True, 10)
    assert (answer.demand_mjobs_per_s, answer.shares_ppm) == ((11, 12, 13), (14, 15, 16))
    assert answer.terms[2] == Terms(*range(114, 121))
    assert attrs.astuple(answer.terms[0]) == tuple(range(100, 107))


def test_another_versions_reply_is_refused() -> None:
    with pytest.raises(ValueError, match="answered 3 numbers, expected 37"):
        decode([1, 2, 3])
