"""Workers that take jobs out of the queue: how many they could take in each step, and how they come and go."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["Batches", "Poisson", "Pool", "Scaled", "Steady", "Workers"]


class Workers:
    """Something that takes jobs. `possible` says how many it could take in a step of `seconds` that ends `now`."""

    def possible(self, now: float, seconds: float) -> int:
        raise NotImplementedError

    def took(self, now: float, jobs: int) -> None:
        """Learn how many jobs there were to take."""

    def capacity(self, now: float, seconds: float, jobs: int) -> float:
        """Return how many jobs they had time for, of which `possible` is the rest of a moment."""
        del now, seconds
        return jobs


class Steady(Workers):
    """So many jobs a second, evenly; the rate may change with time, down to none."""

    def __init__(self, rate: Callable[[float], float]) -> None:
        self.rate = rate
        self._credit = 0.0

    def possible(self, now: float, seconds: float) -> int:
        self._credit += self.rate(now) * seconds
        jobs = int(self._credit)
        self._credit -= jobs
        return jobs


class Poisson(Workers):
    """So many jobs a second on average, each by chance."""

    def __init__(self, rate: Callable[[float], float], draw: random.Random) -> None:
        self.rate = rate
        self._draw = draw

    def possible(self, now: float, seconds: float) -> int:
        limit, jobs, product = math.exp(-self.rate(now) * seconds), 0, self._draw.random()
        while product > limit:
            jobs += 1
            product *= self._draw.random()
        return jobs


class Batches(Workers):
    """All the jobs of a period at its end."""

    def __init__(self, rate: Callable[[float], float], period: float) -> None:
        self.rate = rate
        self.period = period

    def possible(self, now: float, seconds: float) -> int:
        if int(now / self.period) == int((now - seconds) / self.period):
            return 0
        return int(self.rate(now) * self.period)


class Pool(Workers):
    """So many workers, each busy for a random time with one job."""

    def __init__(self, size: int, seconds_a_job: float, draw: random.Random) -> None:
        self.size = size
        self.seconds_a_job = seconds_a_job
        self._draw = draw
        self._until: list[float] = []

    def possible(self, now: float, seconds: float) -> int:
        del seconds
        self._until = [until for until in self._until if until > now]
        return self.size - len(self._until)

    def took(self, now: float, jobs: int) -> None:
        self._until += [now + self._draw.expovariate(1 / self.seconds_a_job) for _ in range(jobs)]

    def capacity(self, now: float, seconds: float, jobs: int) -> float:
        del now, jobs
        return self.size / self.seconds_a_job * seconds


class Scaled(Workers):
    """As many workers as the demand needs and a tenth more, of `rate` jobs a second each, looked at each 30 s."""

    def __init__(self, demand: Callable[[], float], rate: float) -> None:
        self.demand = demand
        self.size = 1
        self._looks_at = 30.0
        self._steady = Steady(lambda _: self.size * rate)
        self._rate = rate

    def possible(self, now: float, seconds: float) -> int:
        if now >= self._looks_at:
            self._looks_at += 30.0
            self.size = max(1, math.ceil(1.1 * self.demand() / self._rate))
        return self._steady.possible(now, seconds)
