"""How near replays come to the truth over a week. Run by ``PYTHONPATH=tests python -m benches.week``; some minutes.

A queue is simulated job by job for a week, with a rhythm of days and a calmer end, a flood each day, and workers some
of whom are away for half an hour. It is recorded under the default policy, observed or enforced, and replayed under
it. The truth is the same queue with the policy enforced, with other chances. The table goes into the guide.
"""

from __future__ import annotations

import math
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from backpressure.replay import Behaviour, Loops
from replay.test_truth import CONFIG, LAW, replayed
from replay.truth import LOW, POLL, Scenario, Truth

if TYPE_CHECKING:
    from collections.abc import Iterator

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "guide" / "replay.md"
DAY, HOUR = 86_400, 3_600
LOOPS = 10
HEAD = (
    "| producers | the policy was | jobs offered | LOW jobs shed: truth | `recorded` | `behaviour` | off |"
    " highest backlog: truth | `recorded` | `behaviour` | off |\n"
)


def offers(second: int) -> tuple[float, float, float]:
    """Return jobs a second: most at noon, fewer at the end of the week, and a flood of LOW from 15:00 on."""
    day, at = divmod(second, DAY)
    rhythm = (0.6 + 0.4 * math.sin(2 * math.pi * (at / DAY - 0.25))) * (1 if day < 5 else 0.6)
    return 3.2 * rhythm * (4 if 15 * HOUR <= at < 16 * HOUR else 1), 2 * rhythm, 0.8 * rhythm


def drain(second: int) -> float:
    """Return jobs a second that workers take: more of them from the third day on, fewer during a release."""
    day, at = divmod(second, DAY)
    return (8 if day < 2 else 9) * (0.45 if 10 * HOUR <= at < 10.5 * HOUR else 1)


SCENARIOS = {
    "come whatever they are told": (0.0, 0, Behaviour()),
    "half of the shed jobs come back": (0.5, 0, Behaviour(returns=0.5)),
    f"and {LOOPS} loops of MEDIUM jobs": (
        0.5,
        LOOPS,
        Behaviour(returns={"low": 0.5}, loops={"medium": Loops(LOOPS, pause=1)}),
    ),
}


def lines(days: int) -> Iterator[str]:
    """Yield the lines of the table."""
    for name, (returns, loops, behaviour) in SCENARIOS.items():

        def more(second: int, loops: int = loops) -> float:
            return drain(second) * (1 + loops / 10)

        scenario = Scenario(days * DAY, offers, more, returns, loops)
        true = Truth(scenario, LAW, enforces=True)
        for mode, seed in (("observe", 2), ("enforce", 3)):
            made = Truth(scenario, LAW, enforces=mode == "enforce", every=1 if mode == "observe" else POLL, seed=seed)
            with tempfile.TemporaryDirectory() as folder:
                found = replayed(Path(folder), made.rows, CONFIG, behaviour=behaviour, mode=mode)
            answer = found.behaviour
            assert answer is not None
            sheds, peak = true.sheds[LOW], true.peak
            mine = answer.priorities["low"].sheds or 0
            yield (
                f"| {name} | {mode}d | {sum(true.offers):,} | {sheds:,} | {found.recorded.priorities['low'].sheds:,} |"
                f" {mine:,} | {100 * (mine / sheds - 1):+.1f} % | {peak:,} | {found.recorded.peak_backlog:,} |"
                f" {answer.peak_backlog:,} | {100 * (answer.peak_backlog / peak - 1):+.1f} % |\n"
            )


def main() -> None:
    """Put the table into the guide; of a week, or of as many days as are given."""
    began, made = time.monotonic(), HEAD + "|---|---|---|---|---|---|---|---|---|---|---|\n"
    for line in lines(int(sys.argv[1]) if len(sys.argv) > 1 else 7):
        made += line
        print(f"{time.monotonic() - began:.0f} s {line}", end="", flush=True)
    text = GUIDE.read_text("utf-8")
    if len(sys.argv) == 1:
        GUIDE.write_text(re.sub(re.escape(HEAD) + r"(\|.*\n)+", lambda _: made, text), "utf-8")


if __name__ == "__main__":
    main()
