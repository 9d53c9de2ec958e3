"""Times things against each other: round by round, so that a disturbance of the machine hits all of them alike.

Every round gives each case one turn of some milliseconds, beginning with another case each time. A figure is the median
over the rounds; a ratio is the median of the rounds' own ratios, never a ratio of medians. The garbage collector is off
during a turn. The cost of the loop, some 5 ns a pass, is left in every figure: so ratios of small figures are nearer to
1 than without it, never further.
"""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import time
import timeit
from concurrent.futures import ProcessPoolExecutor
from textwrap import indent
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence

    from pytest_benchmark.fixture import BenchmarkFixture

T = TypeVar("T")

# The processor's time, not the wall's: nothing timed here waits, and others may use the same machine.
timer = time.process_time
ROUNDS = 15
PROCESSES = 7
TURN_SECONDS = 0.01


@attrs.frozen
class Case:
    """Something to time: `turn(n)` does it `n` times, each time `per` operations, and returns the seconds taken."""

    name: str
    turn: Callable[[int], float]
    per: int = 1


@attrs.frozen
class Timing:
    """The result of a case: nanoseconds an operation, round by round."""

    name: str
    rounds: tuple[float, ...]
    processes: int = 1

    @property
    def ns(self) -> float:
        return statistics.median(self.rounds)

    @property
    def iqr(self) -> float:
        low, _, high = statistics.quantiles(self.rounds, n=4)
        return high - low

    def ratio_to(self, other: Timing) -> float:
        return statistics.median(self._ratios(other))

    def range_to(self, other: Timing) -> tuple[float, float]:
        """Return the least and the greatest of the processes' own ratios."""
        ratios, count = self._ratios(other), len(self.rounds) // self.processes
        medians = [statistics.median(ratios[first : first + count]) for first in range(0, len(ratios), count)]
        return min(medians), max(medians)

    def _ratios(self, other: Timing) -> list[float]:
        return [mine / its for mine, its in zip(self.rounds, other.rounds, strict=True)]


def statement(name: str, code: str, *, per: int = 1, **names: Any) -> Case:
    """Return a case that runs `code`, with `names` as its local variables."""
    setup = "\n".join(f"{local} = given[{local!r}]" for local in names) or "pass"
    return Case(name, timeit.Timer(code, setup, timer, globals={"given": names}).timeit, per)


def each(name: str, code: str, keys: Sequence[object], **names: Any) -> Case:
    """Return a case that runs `code` for every `key` of `keys`."""
    return statement(name, f"for key in keys:\n{indent(code, ' ')}", per=len(keys), keys=keys, **names)


def awaited(runner: asyncio.Runner, name: str, call: Callable[..., Awaitable[object]], *args: object) -> Case:
    """Return a case that awaits ``call(*args)`` on the runner's event loop."""

    async def turn(number: int) -> float:
        began = timer()
        for _ in range(number):
            await call(*args)
        return timer() - began

    return Case(name, lambda number: runner.run(turn(number)))


def prepared(name: str, prepare: Callable[[], object], code: str, keys: Sequence[object], **names: Any) -> Case:
    """Return a case like `each`, with `prepare` called before every pass, untimed."""
    once = each(name, code, keys, **names)

    def turn(number: int) -> float:
        seconds = 0.0
        for _ in range(number):
            prepare()
            seconds += once.turn(1)
        return seconds

    return Case(name, turn, once.per)


def interleave(*cases: Case, rounds: int = ROUNDS, seconds: float = TURN_SECONDS) -> dict[str, Timing]:
    """Time the cases against each other; return the timings by name."""
    numbers = [_number(case, seconds) for case in cases]
    taken: list[list[float]] = [[] for _ in cases]
    for first in range(rounds):
        for step in range(len(cases)):
            index = (first + step) % len(cases)
            case, number = cases[index], numbers[index]
            taken[index].append(_turn(case, number) / (number * case.per) * 1e9)
    return {case.name: Timing(case.name, tuple(ns)) for case, ns in zip(cases, taken, strict=True)}


def across(measure: Callable[..., dict[str, Timing]], *args: object) -> dict[str, Timing]:
    """Measure in several fresh processes, one after the other; return the rounds of all.

    The place of a process in memory changes the smallest figures by a third, for as long as the process lives.
    """
    context = multiprocessing.get_context("spawn")
    found = []
    for _ in range(PROCESSES):
        with ProcessPoolExecutor(1, context) as pool:
            found.append(pool.submit(measure, *args).result())
    rounds = {name: tuple(ns for timings in found for ns in timings[name].rounds) for name in found[0]}
    return {name: Timing(name, ns, len(found)) for name, ns in rounds.items()}


def alone(benchmark: BenchmarkFixture, function: Callable[..., T], *args: object) -> tuple[T, float]:
    """Time a call of milliseconds by pytest-benchmark; return its value, and the median of its seconds."""
    pedantic: Callable[..., T] = benchmark.pedantic
    value = pedantic(function, args=args, rounds=15, warmup_rounds=1)
    stats: Any = benchmark.stats
    return value, stats.stats.median


def _turn(case: Case, number: int) -> float:
    collects = gc.isenabled()
    gc.disable()
    try:
        return case.turn(number)
    finally:
        if collects:
            gc.enable()


def _number(case: Case, seconds: float) -> int:
    """Return how often to run a case to fill a turn; warms it up."""
    number = 1
    while (taken := _turn(case, number)) < seconds / 4:
        number *= 2
    return max(1, round(number * seconds / taken))
