"""Simulate how fairly tenants share what may go, and print two tables: `python -m benches.tenants`.

Of 600 offers a second 200 may go. In the first table one tenant makes half of them and 49 others the rest, so 4 a
second are fair for each; in the second ten make as many each, of which two have weight 4. Offers come by chance, to
any of the processes; leases are renewed once a second. The second half of two minutes counts.
"""

from __future__ import annotations

import random
from statistics import mean
from typing import TYPE_CHECKING

from benches.control.figures import jain

from backpressure._age.protocol import MILLION
from backpressure._engine import choice

if TYPE_CHECKING:
    from collections.abc import Sequence

OFFERS, GO, SECONDS = 600.0, 200, 120
SHARE_PPM = int(MILLION * GO / OFFERS)
PROCESSES = (1, 10, 100, 1_000)
FLOOD = (49.0, *(1.0,) * 49)
EVEN = (1.0,) * 10


def simulate(processes: int, asks: Sequence[float], *, dealt: bool, heavy: int = 0, seed: int = 1) -> list[float]:
    """Return how many jobs a second go of each tenant; the first so many of them have weight 4.

    `asks` is what they ask for, in proportion. Where nothing is `dealt`, one share holds for all.
    """
    draw = random.Random(seed)
    module = choice.load(None)
    every = [module.Tenants(draw.getrandbits(64), SHARE_PPM) for _ in range(processes)]
    names = [draw.getrandbits(63) for _ in asks]
    for tenants in every:
        tenants.weigh({"heavy": 4})
    places = [[it.place_of(name, int(who < heavy)) for who, name in enumerate(names)] for it in every]
    carries = [draw.randrange(MILLION) for _ in every]
    went, now, renewed = [0] * len(asks), 0.0, 1.0
    while now < SECONDS:
        now += draw.expovariate(OFFERS)
        while now > renewed:
            for tenants in every:
                tenants.renew(SHARE_PPM)
            renewed += 1
        (who,), where = draw.choices(range(len(asks)), asks), draw.randrange(processes)
        if dealt:
            goes = every[where].offer(places[where][who])
        else:
            carries[where] += SHARE_PPM
            goes = carries[where] >= MILLION
            carries[where] -= MILLION * goes
        if now > SECONDS / 2:
            went[who] += goes
    return [count / (SECONDS / 2) for count in went]


def main() -> None:
    print(
        "| processes | dealt | go, 1/s | the flood, 1/s | each of the others, 1/s | Jain |\n|---|---|---|---|---|---|"
    )
    for processes in PROCESSES:
        for dealt in (False, True):
            rates = simulate(processes, FLOOD, dealt=dealt)
            flood, *others = rates
            print(
                f"| {processes:,} | {'by tenant' if dealt else 'one share'} | {sum(rates):.0f} | {flood:.1f} | "
                f"{mean(others):.2f} ({min(others):.2f}–{max(others):.2f}) | {jain(rates):.3f} |",
                flush=True,
            )
    print("\n| processes | go, 1/s | of weight 4 each (fair: 50) | of weight 1 each (fair: 12.5) | times as much |")
    print("|---|---|---|---|---|")
    for processes in PROCESSES:
        rates = simulate(processes, EVEN, dealt=True, heavy=2)
        heavy, light = mean(rates[:2]), mean(rates[2:])
        print(f"| {processes:,} | {sum(rates):.0f} | {heavy:.1f} | {light:.1f} | {heavy / light:.2f} |", flush=True)


if __name__ == "__main__":
    main()
