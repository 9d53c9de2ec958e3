"""What is foreseen of a server's memory: a second of its growth, and nothing of its shrinking."""

from __future__ import annotations

import pytest

from backpressure._controller.age.filling import Filling

SECOND_US = 1_000_000


@pytest.mark.parametrize(
    ("seen", "foreseen"),
    [
        ([(0, 700)], [700]),
        ([(0, 700), (1, 760)], [700, 820]),
        ([(0, 700), (2, 760)], [700, 790]),
        ([(0, 700), (1, 760), (1.1, 760), (1.9, 760)], [700, 820, 820, 820]),
        ([(0, 700), (1, 760), (3, 760)], [700, 820, 760]),
        ([(0, 700), (0.1, 760)], [700, 820]),
        ([(0, 700), (1, 600), (2, 610)], [700, 600, 620]),
        ([(0, 700), (1, None), (2, 900), (3, 910)], [700, None, 900, 920]),
    ],
    ids=[
        *("first", "growth", "slow growth", "one look for several reports", "steady", "two looks at once"),
        *("shrinking", "unknown meanwhile"),
    ],
)
def test_a_second_of_growth_is_foreseen(seen: list[tuple[float, int | None]], foreseen: list[int | None]) -> None:
    filling = Filling()
    assert [filling.foresee(used, int(at * SECOND_US)) for at, used in seen] == foreseen
