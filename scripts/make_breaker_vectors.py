"""Write tests/vectors/breaker.json: sequences of calls on a circuit breaker, to check both engines.

The answers come from the tests' model and not from an engine. Run it after a change of the breaker; the tests notice
when the file is out of date.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import attrs

from backpressure._engine.settings import CircuitSettings

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from support.breaker_model import CLOSED, MS, BreakerModel, ModelTicket  # noqa: E402 - found by the line above

VECTORS = TESTS / "vectors" / "breaker.json"
ORIGIN_NS = 5_000_000_123
ACTS = ["acquire"] * 12 + ["success"] * 9 + ["failure"] * 9 + ["ignored"] * 3 + ["look", "hasten"]
ACTS += ["force_open", "force_close", "reset"]


class Life:
    """One breaker's sequence.

    A step: instant, act, ticket's number or end of a forced opening; then word, next probe and ticket granted; last,
    the time at which a failed attempt began.
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._now_ns = ORIGIN_NS
        self._changes: list[tuple[str, str]] = []
        self._tickets: list[ModelTicket] = []
        probe_ms, recovery_ms = sorted(dice.choices([10, 11, 500, 5_000], k=2))
        self._circuit = CircuitSettings(
            failure_threshold=dice.randint(1, 3),
            recovery_threshold=dice.randint(1, 3),
            trip_window_ms=dice.choice([10, 500, 30_000]),
            recovery_timeout_ms=recovery_ms,
            probe_interval_ms=probe_ms,
            high_attempts=False,
        )
        self._model = BreakerModel(
            self._circuit,
            lambda: self._now_ns,
            origin_ns=ORIGIN_NS,
            on_change=lambda old, new: self._changes.append((old, new)),
        )

    def entry(self, steps: int) -> dict[str, Any]:
        """Live `steps` steps; return their entry in the file."""
        rows = [self._step() for _ in range(steps)]
        return {
            "circuit": attrs.asdict(self._circuit),
            "origin_ns": ORIGIN_NS,
            "steps": rows,
            "changes": self._changes,
        }

    def _step(self) -> list[Any]:
        dice, model = self._dice, self._model
        self._pass_time()
        act, number, granted, began_ns = dice.choice(ACTS), None, None, None
        if act == "acquire":
            ticket = model.try_acquire()
            if ticket is not None:
                self._tickets.append(ticket)
                granted = [ticket.generation, ticket.probe]
        elif act in {"success", "failure", "ignored"}:
            if self._tickets and dice.random() < 0.6:
                number = max(0, len(self._tickets) - dice.choice([1, 1, 1, 2, 3]))
            if act == "failure" and dice.random() < 0.3:
                began_ns = self._now_ns - dice.choice([MS, 500 * MS, 60_000 * MS])
            ok = {"success": True, "failure": False}.get(act)
            model.record(ok, None if number is None else self._tickets[number], began_ns)
        elif act == "force_open":
            number = dice.choice([None, self._now_ns, self._now_ns + MS, self._now_ns + 500 * MS])
            model.force_open(number)
        else:
            getattr(model, act)()
        retry_at_ns = None if model.state == CLOSED else model.retry_at_ns()
        return [self._now_ns, act, number, model.word(), retry_at_ns, granted, began_ns]

    def _pass_time(self) -> None:
        dice, edge_ns = self._dice, self._model.retry_at_ns()
        if self._model.state != CLOSED and edge_ns is not None and dice.random() < 0.5:
            self._now_ns = max(self._now_ns, edge_ns + dice.choice([-1, 0, 0, 0, 1]))
        else:
            trip_window_ns = self._circuit.trip_window_ms * MS
            self._now_ns += dice.choice([0, 0, 1, MS - 1, MS, 2 * MS, 10 * MS, 500 * MS, trip_window_ns])


def text() -> str:
    """Return the file: an array of sequences, one step a line."""
    dice = random.Random(21)  # noqa: S311 - the file must come out the same each time
    entries = []
    for _ in range(30):
        entry = Life(dice).entry(steps=60)
        rows = ",\n".join(json.dumps(row) for row in entry.pop("steps"))
        entries.append(f'{json.dumps(entry)[:-1]},\n"steps": [\n{rows}\n]}}')
    return "[\n" + ",\n".join(entries) + "\n]\n"


if __name__ == "__main__":
    VECTORS.write_text(text(), "utf-8")
    print(f"wrote {VECTORS}")
