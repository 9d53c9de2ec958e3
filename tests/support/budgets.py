"""Budgets on a server whose clock a test moves, and random producers that report to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from backpressure._age.protocol import NO_SAMPLER, Answer, BacklogSeen, Demand, Report, arguments, decode
from backpressure._age.script import source
from backpressure._model.budget import BudgetSettings

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    import redis

_CLOCK = "clock[1] * 1000 + floor(clock[2] / 1000)"
#: A millisecond of servers' clocks, today.
START_MS = 1_700_000_000_000
SETTINGS = BudgetSettings.of(5.0)


class SharedBudget:
    """The script on a server, at instants that the test gives: a second key's name takes the clock's place."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        text = source()
        assert text.count(_CLOCK) == 1
        self.client = client
        self.key = key
        self._sha = client.script_load(text.replace(_CLOCK, "tonumber(KEYS[2])"))

    def send(self, now_ms: int, words: list[str], *, by: redis.Redis | None = None) -> Any:
        """Return the reply to these arguments; `by` may be a pipeline."""
        client = self.client if by is None else by
        return client.evalsha(self._sha, 2, self.key, str(now_ms), *words)

    def call(self, now_ms: int, report: Report, settings: BudgetSettings = SETTINGS) -> Answer:
        return decode(self.send(now_ms, words(settings, report)))


def words(settings: BudgetSettings, report: Report) -> list[str]:
    """Return a report as the script is given it."""
    return [str(argument) for argument in arguments(settings, report)]


def any_settings(draw: random.Random) -> BudgetSettings:
    return attrs.evolve(
        BudgetSettings.of(draw.choice([0.5, 2.0, 5.0, 60.0, 3_600.0]), calls=draw.choice([1, 100, 2_000, 10**6])),
        trims=draw.random() < 0.8,
        gain_most_permille=draw.choice([250, 1_500, 9_000]),
        medium_floor_permille=draw.choice([0, 0, 100]),
        burst_jobs=draw.choice([0, 5, 100]),
    )


def any_calls(draw: random.Random, settings: BudgetSettings, count: int) -> Iterator[tuple[int, Report]]:
    """Yield instants and what producers report then, from the plausible to the largest numbers that are taken."""
    tick, now = settings.tick_ms, START_MS
    most = draw.choice([3, 100, 5_000, 10**6, 10**9])
    news = draw.choice([0.5, 0.5, 0.1])
    for _ in range(count):
        now += draw.choice([0, 1, 5, tick // 8, tick, draw.randrange(2 * tick)])
        if draw.random() < 0.02:
            now += draw.choice([20 * tick, 70 * settings.target_ms, -1_999, -2_500])
        yield now, any_report(draw, tick, most, news)


def any_report(draw: random.Random, tick_ms: int, most: int, news: float = 0.5) -> Report:
    def jobs() -> int:
        return draw.randint(0, most) if draw.random() < 0.7 else 0

    holds = draw.random() < 0.5

    def demand() -> Demand:
        held = (jobs(), jobs()) if holds else (0, 0)
        return Demand(jobs(), jobs(), jobs(), *held, draw.randrange(10**6))

    seen = None
    if draw.random() < news:
        oldest = draw.choice([None, 0, draw.randrange(200_000)])
        ago = draw.choice([0, draw.randrange(50), draw.randrange(4 * tick_ms), draw.randrange(120_000)])
        seen = BacklogSeen(draw.randint(0, min(10 * most, 10**9)), oldest, ago)
    return Report(
        producer_id=draw.choice([NO_SAMPLER, "p0", "p1", "p2", "p3"]),
        since_ms=draw.choice([0, draw.randrange(3 * tick_ms), tick_ms, draw.randrange(100 * tick_ms)]),
        demands=(demand(), demand(), demand()),
        enqueued=jobs(),
        seen=seen,
        seed_drain_mjobs_per_s=draw.choice([0, 777, 200_000, 10**9]),
        seed_processes=draw.choice([0, 1, 50, 10**6]),
        limit_permille=draw.choice([1_000, 1_000, 300]),
    )
