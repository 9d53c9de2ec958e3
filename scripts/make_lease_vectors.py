"""Write tests/vectors/lease.json: sequences of calls on one priority's lease, to check the Rust core's words.

The answers come from `Lease` in `python/backpressure/_age/lease.py`, which was measured. Run it after a change of the
lease; the tests notice when the file is out of date.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from backpressure._age.lease import Lease
from backpressure._age.protocol import MILLION, Terms

VECTORS = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "lease.json"
ORIGIN_US = 7_000_000_123
ACTS = {
    "renew": 6,
    "offer": 30,
    "offer_stale": 4,
    "prolong": 1,
    "is_used_up": 6,
    "take_ticket": 14,
    "take_saved": 5,
    "take_share": 12,
    "refuse_share": 12,
    "take_counts": 4,
    "due_in": 14,
    "foresee": 5,
    "leave_places": 4,
}
STEPS_US = [0, 0, 1, 999, 20_000, 333_333, 1_000_000, -40]  # another thread's clock was read a little before
SHARES_PPM = [0, 1, 333_333, 500_000, 999_999, MILLION, MILLION, 2 * MILLION]
CAPS_JOBS = [0, 1, 2, 3, 5, 100, 2**21 - 1, 2**40]
RATES_UJOBS_PER_S = [0, 1, 123_457, MILLION, 3 * MILLION, 10 * MILLION, 10**12]
BURSTS_UJOBS = [0, 500_000, MILLION, 2 * MILLION, 5 * MILLION + 1]


class Life:
    """One lease's sequence.

    A step: instant, act, its arguments and the answer; then carry, used and cap of the share, and tickets taken, base,
    rate, burst and instant of the line, and the remainder.
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._now_us = ORIGIN_US
        self._phase_ppm = dice.choice([0, MILLION - 1, dice.randrange(MILLION)])
        self._lease = Lease(self._phase_ppm)
        self._tickets: list[int] = []

    def entry(self, steps: int) -> dict[str, Any]:
        """Live `steps` steps; return their entry in the file."""
        acts = ["renew", *self._dice.choices([*ACTS], [*ACTS.values()], k=steps - 1)]
        rows = [self._step(act) for act in acts]
        return {"phase_ppm": self._phase_ppm, "steps": rows}

    def _step(self, act: str) -> list[Any]:
        self._now_us += self._dice.choice(STEPS_US)
        arguments = self._arguments(act)
        answer = getattr(self, f"_{act}")(*arguments)
        lease = self._lease
        state = [lease.carry_ppm, lease.used, lease.cap_jobs, lease.taken_ujobs // MILLION, lease.base_ujobs]
        state += [lease.rate_ujobs_per_s, lease.burst_ujobs, lease.since_us, lease.remainder_ppm]
        return [self._now_us, act, arguments, answer, state]

    def _arguments(self, act: str) -> list[Any]:
        dice = self._dice
        if act == "renew":
            share, cap = dice.choice([*SHARES_PPM, dice.randrange(MILLION)]), dice.choice(CAPS_JOBS)
            rate, burst = dice.choice(RATES_UJOBS_PER_S), dice.choice(BURSTS_UJOBS)
            return [share, cap, rate, burst, dice.randrange(2), dice.randrange(MILLION)]
        if act == "offer_stale":
            return [dice.random() < 0.5]
        if act == "refuse_share":
            return [self._lease.renewal - (dice.random() < 0.2)]
        if act == "due_in":
            return [dice.choice(self._tickets[-6:]) // MILLION if self._tickets else 1]
        return [dice.randint(1, 3)] if act == "leave_places" else []

    def _renew(self, share: int, cap: int, rate: int, burst: int, fill: int, remainder: int) -> None:
        self._lease.renew(self._now_us, Terms(share, cap, rate, burst, fill, 0, remainder))

    def _offer(self) -> bool:
        return self._lease.offer()

    def _offer_stale(self, aged: bool) -> bool:
        return self._lease.offer_stale(aged=aged)

    def _prolong(self) -> None:
        self._lease.prolong()

    def _is_used_up(self) -> bool:
        return self._lease.is_used_up()

    def _take_ticket(self) -> int:
        self._tickets.append(self._lease.take_ticket())
        return self._tickets[-1] // MILLION

    def _take_saved(self) -> bool:
        return self._lease.take_saved(self._now_us)

    def _take_share(self) -> bool:
        return self._lease.take_share()

    def _refuse_share(self, renewal: int) -> bool:
        return self._lease.refuse_share(renewal)

    def _take_counts(self) -> list[int]:
        return list(self._lease.take_counts())

    def _due_in(self, ticket: int) -> int:
        return self._lease.due_in_us(ticket * MILLION, self._now_us)

    def _foresee(self) -> int:
        return self._lease.foresee_us(self._now_us)

    def _leave_places(self, places: int) -> None:
        self._lease.leave_places(places)


def text() -> str:
    """Return the file: an array of sequences, one step a line."""
    dice = random.Random(17)  # noqa: S311 - the file must come out the same each time
    entries = []
    for _ in range(30):
        entry = Life(dice).entry(steps=60)
        rows = ",\n".join(json.dumps(row) for row in entry.pop("steps"))
        entries.append(f'{json.dumps(entry)[:-1]},\n"steps": [\n{rows}\n]}}')
    return "[\n" + ",\n".join(entries) + "\n]\n"


if __name__ == "__main__":
    VECTORS.write_text(text(), "utf-8")
    print(f"wrote {VECTORS}")
