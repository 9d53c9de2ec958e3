"""Write tests/vectors/law.json: the throttle law's answers, to check both engines.

The answers come from exact fractions and not from an engine, so that no engine checks itself. Run it after a change of
the law; the tests notice when the file is out of date.
"""

from __future__ import annotations

import json
import math
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "law.json"

GREEN, YELLOW, RED = 0, 1, 2
LOW, MEDIUM, HIGH = 0, 1, 2
MAX_BACKLOG = 2**53 - 1
MS = 1_000_000
HOUR = 3_600_000 * MS

Law = dict[str, Any]
Case = tuple[int, int, int, int, bool]  # priority, backlog, zone, delay in nanoseconds, shed

DEFAULT: Law = {
    "windows": [[100, 500, 1_000], [500, 2_000, 5_000], [1_000, 5_000, 10_000]],  # low, medium, high
    "yellow_min_ns": 10 * MS,
    "yellow_max_ns": 500 * MS,
    "red_max_ns": 5_000 * MS,
    "scales": [[3, 2], [1, 1], [1, 2]],
    "shed_permille": 800,
    "scale_yellow": True,
}


def advise(law: Law, priority: int, backlog: int) -> tuple[int, int, bool]:
    """Return zone, delay in nanoseconds and whether to shed, each division exact and then rounded down."""
    green_max, yellow_max, red_max = law["windows"][priority]
    yellow_min, yellow_top, red_top = law["yellow_min_ns"], law["yellow_max_ns"], law["red_max_ns"]
    scale = Fraction(*law["scales"][priority])
    if backlog <= green_max:
        return GREEN, 0, False
    if backlog <= yellow_max:
        share = Fraction(backlog - green_max, yellow_max - green_max)
        base = math.floor(yellow_min * (1 - share) + yellow_top * share)
        return YELLOW, math.floor(base * scale) if law["scale_yellow"] else base, False
    share = min(Fraction(1), Fraction(backlog - yellow_max, red_max - yellow_max))
    base = math.floor(yellow_top * (1 - share) + red_top * share)
    return RED, math.floor(base * scale), priority == LOW and share > Fraction(law["shed_permille"], 1_000)


def backlogs(law: Law, priority: int, dice: random.Random) -> list[int]:
    """Return the bounds of every zone and of shedding with their neighbours, and some in between.

    One of those in each zone makes the delay slightly less than a whole nanosecond: floats would round it up.
    """
    green_max, yellow_max, red_max = law["windows"][priority]
    yellow_rise = law["yellow_max_ns"] - law["yellow_min_ns"]
    red_rise = law["red_max_ns"] - law["yellow_max_ns"]
    shed_above = yellow_max + law["shed_permille"] * (red_max - yellow_max) // 1_000
    edges = (0, green_max, yellow_max, shed_above, red_max, MAX_BACKLOG)
    found = {edge + step for edge in edges for step in (-1, 0, 1)}
    for low, high in ((0, green_max), (green_max, yellow_max), (yellow_max, red_max)):
        found |= {(low + high) // 2, dice.randint(low, high), dice.randint(low, high)}
    for rise, low, high in ((yellow_rise, green_max, yellow_max), (red_rise, yellow_max, red_max)):
        if math.gcd(rise, high - low) == 1:
            found.add(low + -pow(rise, -1, high - low) % (high - low))
    return sorted(backlog for backlog in found if 0 <= backlog <= MAX_BACKLOG)


def laws(dice: random.Random) -> list[Law]:
    """Return the default law, its single changes, the extremes that the configuration allows, and random ones."""
    unscaled = [[1, 1], [1, 1], [1, 1]]
    primes = [[0, 2**52 - 47, 2**53 - 190]] * 3  # so are the widths of both zones
    changes: list[Law] = [
        {},
        {"scale_yellow": False},
        {"windows": [[0, 1, 2]] * 3},
        {"windows": [[0, 1, MAX_BACKLOG]] * 3},
        {"windows": [[MAX_BACKLOG - 2, MAX_BACKLOG - 1, MAX_BACKLOG]] * 3},
        {"windows": [[0, MAX_BACKLOG - 1, MAX_BACKLOG], [0, 2**52, MAX_BACKLOG], [2**31, 2**32, 2**33]]},
        {"windows": [[0, 2**52, MAX_BACKLOG]] * 3, "scales": [[1_000, 1]] * 3, "red_max_ns": HOUR},
        {"windows": primes, "scales": unscaled},
        {"windows": primes, "yellow_max_ns": HOUR // 2 - 1, "red_max_ns": HOUR},
        {"windows": [[7, 17, 37], [7, 10, 13], [7, 8, 1_000_003]], "scales": [[5, 3], [2, 3], [1, 3]]},
        {"scales": [[999_983, 999_979], [333_667, 999_983], [1, 1_000_000]]},
        {"scales": [[1_000, 1], [1, 1_000_000], [1, 1_000_000]], "scale_yellow": False},
        {"scales": unscaled, "shed_permille": 0},
        {"scales": unscaled, "shed_permille": 1_000},
        {"shed_permille": 1, "windows": [[10, 20, 1_019], [10, 20, 1_020], [10, 20, 1_021]]},
        {"shed_permille": 999, "windows": [[10, 20, 1_019], [10, 20, 1_020], [10, 20, 1_021]]},
        {"yellow_min_ns": 0, "yellow_max_ns": 0, "red_max_ns": 0},
        {"yellow_min_ns": 0, "yellow_max_ns": 1, "red_max_ns": 2},
        {"yellow_min_ns": HOUR, "yellow_max_ns": HOUR, "red_max_ns": HOUR},
        {"yellow_min_ns": 0, "yellow_max_ns": 0, "red_max_ns": HOUR, "scale_yellow": False},
    ]
    return [DEFAULT | change for change in changes] + [random_law(dice) for _ in range(18)]


def random_law(dice: random.Random) -> Law:
    """Return a law whose numbers are all drawn, with windows of very different widths."""

    def window() -> list[int]:
        top = 2 ** dice.randint(3, 53) - 1
        return sorted(dice.sample(range(top + 1), 3))

    low, middle, top = sorted(dice.randint(0, HOUR) for _ in range(3))
    scales = sorted(Fraction(dice.randint(1, 1_000_000), dice.randint(1, 1_000_000)) for _ in range(3))
    return {
        "windows": [window() for _ in range(3)],
        "yellow_min_ns": low,
        "yellow_max_ns": middle,
        "red_max_ns": top,
        "scales": [list(min(scale, Fraction(1_000)).as_integer_ratio()) for scale in reversed(scales)],
        "shed_permille": dice.randint(0, 1_000),
        "scale_yellow": dice.random() < 0.5,
    }


def text() -> str:
    """Return the file: an array of laws, each with its cases, one case a line."""
    dice = random.Random(20)  # noqa: S311 - the file must come out the same each time
    entries = []
    for law in laws(dice):
        cases: list[Case] = [
            (priority, backlog, *advise(law, priority, backlog))
            for priority in (LOW, MEDIUM, HIGH)
            for backlog in backlogs(law, priority, dice)
        ]
        rows = ",\n".join(json.dumps(case) for case in cases)
        entries.append(f'{{"law": {json.dumps(law)},\n"cases": [\n{rows}\n]}}')
    return "[\n" + ",\n".join(entries) + "\n]\n"


if __name__ == "__main__":
    VECTORS.parent.mkdir(parents=True, exist_ok=True)
    VECTORS.write_text(text(), "utf-8")
    print(f"wrote {VECTORS}")
