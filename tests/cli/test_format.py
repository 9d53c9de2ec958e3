"""How numbers are shown."""

from __future__ import annotations

import pytest

from backpressure._model.units import duration
from backpressure.cli._format import sparkline


@pytest.mark.parametrize(
    ("seconds", "digits", "written"),
    [
        (0.0, 4, "0 s"),
        (0.000_25, 4, "250 µs"),
        (0.010, 4, "10 ms"),
        (0.020_312_5, 4, "20.31 ms"),
        (0.158_125, 3, "158 ms"),
        (0.999_99, 3, "1,000 ms"),
        (4.125, 4, "4.125 s"),
        (4.125, 3, "4.12 s"),
        (12.345, 3, "12.3 s"),
        (3_600.0, 4, "3,600 s"),
        (3_600_000.0, 3, "3,600,000 s"),
    ],
)
def test_duration(seconds: float, digits: int, written: str) -> None:
    assert duration(seconds, digits) == written


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([0, 0], "▁▁"),
        ([0, 4, 7, None, 1], "▁▅█ ▂"),
        ([0, 1, 2, 7, None, None], "▂█ "),
        ([None, None, None, None], "   "),
    ],
)
def test_sparkline(values: list[int | None], drawn: str) -> None:
    assert sparkline(values, 5 if len(values) == 5 else 3) == drawn
