"""The last hour: a bounded number of points, each the largest of its step."""

from __future__ import annotations

import pytest

from backpressure.console.history import SPAN, History


def test_a_point_is_the_largest_of_its_step() -> None:
    history = History(2, 10)
    for now, backlog in ((100, 5), (104, 9), (109.9, 7), (110, 1)):
        history.note(now, [(backlog, None), (0, 2.5)])
    backlogs, ages = history.of(0)
    assert len(backlogs) == len(ages) == SPAN / 10
    assert backlogs[-3:] == [None, 9, 1]
    assert set(ages) == {None}
    assert history.of(1)[1][-2:] == [2.5, 2.5]


def test_what_was_not_read_is_a_gap() -> None:
    history = History(1, 10)
    for now, backlog in ((0, 4), (10, None), (50, 6)):
        history.note(now, [(backlog, None)])
    assert history.of(0)[0][-7:] == [None, 4, None, None, None, None, 6]


@pytest.mark.parametrize("gap", [SPAN, 10 * SPAN, 1e9])
def test_nothing_of_an_earlier_hour_is_left(gap: float) -> None:
    history = History(1, 10)
    history.note(5, [(7, 7.0)])
    history.note(5 + gap, [(1, None)])
    assert history.of(0)[0] == [None] * 359 + [1]


def test_a_whole_hour_is_kept() -> None:
    history = History(1, 10)
    for step in range(1_000):
        history.note(step * 10, [(step, None)])
    assert history.of(0)[0] == list(range(640, 1_000))


def test_a_step_need_not_divide_the_hour() -> None:
    history = History(1, 45.5)
    history.note(1e6, [(1, None)])
    assert history.points * 45.5 >= SPAN
