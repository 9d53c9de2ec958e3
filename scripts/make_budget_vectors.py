"""Write tests/vectors/budget.json: lives of budgets, to check the Rust core's.

The answers come from `Budget` in `python/backpressure/_age/budget.py`, which a test holds against the script on real
servers. Run it after a change of the budget; the tests notice when the file is out of date.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from backpressure._age.budget import Budget
from backpressure._age.protocol import arguments

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))
from support.budgets import any_calls, any_settings  # noqa: E402 - its place is known only now

if TYPE_CHECKING:
    from backpressure._age.protocol import Answer
    from backpressure._model.budget import BudgetSettings

VECTORS = ROOT / "tests" / "vectors" / "budget.json"
_LIVES, _CALLS = 24, 30
#: Where a producer's id lies among the script's arguments, between the settings and the report.
_ID = 12


def shown(answer: Answer) -> list[int]:
    """Return an answer's numbers, but for the clock."""
    told = [*attrs.astuple(answer, recurse=False)[1:10], *answer.demand_mjobs_per_s, *answer.shares_ppm]
    return [int(number) for number in told] + [it for terms in answer.terms for it in attrs.astuple(terms)]


def _life(settings: BudgetSettings, dice: random.Random) -> list[list[Any]]:
    """Return a budget's calls: the instant, what is told, and the answer."""
    budget, rows = Budget(settings), []
    for now_ms, report in any_calls(dice, settings, _CALLS):
        told = arguments(settings, report)
        who = None if report.producer_id == "-" else int(report.producer_id.removeprefix("p"))
        rows.append([now_ms, [who, report.limit_permille, *told[_ID + 1 :]], shown(budget.call(now_ms, report))])
    return rows


def text() -> str:
    """Return the file: an array of lives, one call a line."""
    entries = []
    for seed in range(_LIVES):
        dice = random.Random(seed)  # noqa: S311 - the file must come out the same each time
        settings = any_settings(dice)
        rows = ",\n".join(json.dumps(row) for row in _life(settings, dice))
        entries.append(f'{{"settings": {json.dumps(attrs.asdict(settings))},\n"calls": [\n{rows}\n]}}')
    return "[\n" + ",\n".join(entries) + "\n]\n"


if __name__ == "__main__":
    VECTORS.write_text(text(), "utf-8")
    print(f"wrote {VECTORS}")
