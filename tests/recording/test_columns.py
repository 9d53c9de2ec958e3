"""Rows as bytes and back: nothing changes, little is needed, and damage is found."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpressure._recording.columns import first_column_of, packed, plain, unpacked

numbers = st.none() | st.integers(-(2**63) + 1, 2**63 - 1)


@given(st.integers(0, 30).flatmap(lambda rows: st.lists(st.lists(numbers, min_size=rows, max_size=rows), max_size=4)))
def test_what_is_packed_comes_out_again(columns: list[list[int | None]]) -> None:
    rows = len(columns[0]) if columns else 0
    assert unpacked(packed(columns), len(columns), rows) == columns


@given(st.integers(100, 400), st.lists(st.tuples(st.integers(0, 399), numbers), max_size=6), st.none() | st.integers())
def test_so_does_what_changes_seldom(rows: int, changes: list[tuple[int, int | None]], first: int | None) -> None:
    column: list[int | None] = [None if first is None else first % 10**12] * rows
    for place, number in changes:
        column[place % rows] = number
    assert unpacked(packed([column, column]), 2, rows) == [column, column]
    assert first_column_of(plain([column, column]), rows, 150) == column[:150]


@given(st.binary(max_size=200), st.integers(0, 5), st.integers(0, 50))
def test_any_bytes_are_told_apart_from_rows(data: bytes, columns: int, rows: int) -> None:
    for written in (data, zlib.crc32(data).to_bytes(4, "little") + data):
        try:
            found = unpacked(written, columns, rows)
        except ValueError:
            continue
        assert [len(column) for column in found] == [rows] * columns


def test_what_does_not_change_or_grows_evenly_costs_next_to_nothing() -> None:
    assert len(packed([[1_000 * row for row in range(720)], [7] * 720, [None] * 720])) < 60


def test_an_hour_of_a_queue_is_a_kilobyte_or_two() -> None:
    rows = range(720)
    times = [1_800_000_000_000 + 5_000 * row + row * 7 % 13 for row in rows]
    backlog = [500 + row * 37 % 60 for row in rows]
    nothing: list[int | None] = [None] * 720
    assert len(packed([times, backlog, *[nothing] * 15])) < 2_500


@pytest.mark.parametrize("cut", [1, 10, -1])
def test_a_cut_block_is_refused(cut: int) -> None:
    data = packed([[1, 2, 3], [4, None, 6]])
    with pytest.raises(ValueError, match=r"incomplete|cut off|ends"):
        unpacked(data[:cut], 2, 3)


def test_more_or_fewer_rows_than_were_said_are_refused() -> None:
    data = packed([[1, 2, 3]])
    with pytest.raises(ValueError, match="too early"):
        unpacked(data, 1, 4)
    with pytest.raises(ValueError, match="more than its rows"):
        unpacked(data, 1, 2)
