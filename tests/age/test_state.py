"""What is read from a budget's key is what the script answered, and what is no state is none."""

from __future__ import annotations

import random
import struct

import pytest

from backpressure._age.budget import Budget
from backpressure._age.protocol import VERSION
from backpressure._age.state import State
from support.budgets import any_calls, any_settings


@pytest.mark.parametrize("seed", range(10))
def test_it_tells_what_the_last_call_was_answered(seed: int) -> None:
    draw = random.Random(seed)
    settings = any_settings(draw)
    budget = Budget(settings)
    for now_ms, report in any_calls(draw, settings, 50):
        answer = budget.call(now_ms, report)
        assert len(budget.packed()) < 1_000
        state = State.of(budget.packed())
        assert state is not None
        assert (state.ticks, state.age_ms, state.processes) == (answer.ticks, answer.age_ms, answer.processes)
        rates = (answer.drain_mjobs_per_s, answer.budget_mjobs_per_s)
        assert (state.drain_mjobs_per_s, state.budget_mjobs_per_s) == rates
        assert (state.demand_mjobs_per_s, state.shares_ppm) == (answer.demand_mjobs_per_s, answer.shares_ppm)
        assert state.backlog_jobs == answer.backlog_jobs
        assert (state.ticked_ms, state.trim_ppm) == (budget.ticked, budget.trim)
        assert (state.oldest_age_ms, state.read_ms) == (budget.oldest, budget.read)


def packed(version: int = VERSION, number: float = 1.0, numbers: int = 90) -> bytes:
    return struct.pack("<H", version) + struct.pack(f"<{numbers}d", *[number] * numbers)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"x" * 722,
        packed(version=VERSION - 1),
        packed(numbers=89),
        packed() + b"x" * 65,
        packed(number=float("nan")),
        packed(number=float("inf")),
    ],
)
def test_what_the_script_takes_for_no_state_is_none(value: bytes | None) -> None:
    assert State.of(value) is None
    assert State.of(packed() + b"a1") is not None
