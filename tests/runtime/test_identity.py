"""Shares of all processes: as many as they say, and a larger one only adds some."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from backpressure._runtime.identity import instance_id, is_among, new_id

if TYPE_CHECKING:
    import pytest

MANY = 10_000
SHARES = st.floats(0, 1)
NAMES = [f"host-{number % 50}-{number}-{number:08x}" for number in range(MANY)]


@given(SHARES)
def test_a_share_of_many_processes_is_as_large_as_it_says(share: float) -> None:
    found = sum(is_among(name, share) for name in NAMES)
    # Five standard deviations of a fair draw, and one process for the ends.
    assert abs(found - share * MANY) <= 5 * math.sqrt(MANY * share * (1 - share)) + 1


@given(st.text(max_size=80), SHARES, SHARES)
def test_a_larger_share_takes_nobody_away(name: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert is_among(name, low) <= is_among(name, high)
    assert not is_among(name, 0)
    assert is_among(name, 1)


def test_new_names_fall_on_both_sides() -> None:
    found = sum(is_among(new_id(os.getpid()), 0.3) for _ in range(1_000))
    assert 200 < found < 400


def test_a_process_keeps_its_name_and_a_child_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = instance_id()
    assert mine == instance_id()
    monkeypatch.setattr(os, "getpid", lambda: 4_194_305)  # no process has this id
    child = instance_id()
    assert child != mine
    assert child.split("-")[-2] == "4194305"
    monkeypatch.undo()
    assert instance_id() == mine
