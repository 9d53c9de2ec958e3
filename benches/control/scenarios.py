"""The table of scenarios, in groups: each is a list, as sizes and loads are varied within it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from benches.control.scenario import WEB, Phase, Scenario, steady

from backpressure._model.budget import BudgetSettings

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GROUPS"]

DRAIN = 200.0
SIZES = (10, 100, 1_000, 10_000, 100_000)


def mix(load: float) -> tuple[float, float]:
    """Return the parts of HIGH and MEDIUM: at 20 times the drain, a tenth that is never shed would be twice of it."""
    return (0.1, 0.3) if load < 20 else (0.02, 0.38)


def whole(seconds: float, drain: float = DRAIN, begin: float = 0.0, rests_for: float = 30.0) -> tuple[Phase, ...]:
    return (Phase("", begin, seconds, drain, rests_for),)


def web(name: str, offers: Callable[[float], float], load: float, seconds: float, begin: float, size: int) -> Scenario:
    return Scenario(
        name=f"{name}, {size} processes",
        seconds=seconds,
        phases=whole(seconds, begin=begin),
        processes=size,
        loops=0,
        offers=offers,
        mix=mix(load),
        patient=WEB,
    )


def cold() -> list[Scenario]:
    """A fleet starts into more offers than the workers can take, and nobody knows what they can."""
    return [
        web(f"{load:g} times the drain", steady(DRAIN * load), load, 75, 0, size)
        for size in SIZES
        for load in (1.5, 3, 7.5, 20)
    ]


def jump() -> list[Scenario]:
    """A minute of calm, then more than the workers can take."""

    def offers(calm: float, load: float) -> Callable[[float], float]:
        return lambda now: calm if now < 60 else DRAIN * load

    return [
        web(f"{calm:g} a second, then {load} times the drain", offers(calm, load), load, 140, 60, size)
        for size in (10, 50, 1_000, 10_000)
        for calm in (1.0, 30.0, 150.0)
        for load in (5, 20)
    ]


def start() -> list[Scenario]:
    """Every process is a loop that enqueues as fast as it may."""
    sizes = (1, 2, *SIZES)
    return [Scenario(name=f"loops, {size} processes", seconds=75, phases=whole(75), processes=size) for size in sizes]


def steps() -> list[Scenario]:
    """Workers become fewer by 0.4, then more by 5."""
    drain = stepping(100, 180)
    loops = [
        Scenario(
            name=f"loops, {size} processes", seconds=260, phases=phases(100, 180, 260), drain=drain, processes=size
        )
        for size in (1, 10, 100, 1_000, 10_000)
    ]
    offered = attrs.evolve(web("1 200 a second", steady(1_200.0), 6, 260, 0, 10_000), drain=drain, mix=(0.05, 0.35))
    return [*loops, attrs.evolve(offered, phases=phases(100, 180, 260))]


def stepping(less_at: float, more_at: float) -> Callable[[float], float]:
    return lambda now: DRAIN if now < less_at else 0.4 * DRAIN if now < more_at else 2 * DRAIN


def phases(less_at: float, more_at: float, end: float) -> tuple[Phase, ...]:
    return (
        Phase("200 a second", 0, less_at, 200),
        Phase("80 a second", less_at, more_at, 80),
        Phase("400 a second", more_at, end, 400),
    )


def hot() -> list[Scenario]:
    """One process has 20 loops, or half of all offers; the others are idle, or share the rest."""
    idle = [
        Scenario(
            name=f"20 loops beside {size} idle processes",
            seconds=150,
            phases=whole(150),
            processes=size + 1,
            loops=0,
            loops_in_first=20,
        )
        for size in (1, 100, 1_000)
    ]
    half = [
        attrs.evolve(web("half of 3 times the drain in one", steady(600.0), 3, 120, 0, size), hot=0.5)
        for size in (1_000, 10_000)
    ]
    many = [
        Scenario(
            name=f"one to many loops, {size} processes", seconds=120, phases=whole(120), processes=size, loops="pareto"
        )
        for size in (100, 1_000)
    ]
    beside = [
        Scenario(
            name=f"loops beside LOW twice the drain, {size} processes",
            seconds=120,
            phases=whole(120),
            processes=size,
            offers=steady(400.0),
            mix=(0.0, 0.0),
            patient=WEB,
        )
        for size in (1_000,)
    ]
    return [*idle, *half, *many, *beside]


def crowded() -> list[Scenario]:
    """Many more processes than calls a second, so that each calls seldom: and more jobs than calls, or fewer."""
    settings = BudgetSettings.of(5.0, calls=80)
    loops = [
        Scenario(
            name=f"loops, {drain:g} jobs a second by 80 calls, 400 processes",
            seconds=120,
            phases=whole(120, drain),
            drain=steady(drain),
            processes=400,
            settings=settings,
        )
        for drain in (8.0, 40.0, 80.0, 160.0, 400.0, 1_000.0)
    ]
    offered = [
        attrs.evolve(
            web(f"{load} times {drain:g} jobs a second by 80 calls", steady(drain * load), load, 120, 0, 400),
            phases=whole(120, drain),
            drain=steady(drain),
            settings=settings,
        )
        for drain in (40.0, 400.0)
        for load in (3, 20)
    ]
    return [*loops, *offered]


def few() -> list[Scenario]:
    """Workers so slow that the target is few jobs."""
    return [
        Scenario(
            name=f"{drain * 5:g} jobs in the target, {size} processes",
            seconds=1_500 if drain < 5 else 500,
            phases=whole(1_500 if drain < 5 else 500, drain, 200, 1_300),
            drain=steady(drain),
            workers="poisson",
            processes=size,
        )
        for drain in (0.5, 1, 2, 5, 10, 20, 50, 200)
        for size in (5, 100)
    ]


def odd() -> list[Scenario]:
    """Workers, statistics, networks and producers that are not as one wishes."""

    def on_off(seconds: int) -> Callable[[float], float]:
        return lambda now: 2 * DRAIN if int(now / seconds) % 2 == 0 else 0.0

    def of(name: str, seconds: float = 200, **changes: object) -> Scenario:
        plain = Scenario(name=name, seconds=seconds, phases=whole(seconds, DRAIN, seconds / 2, seconds / 2))
        return attrs.evolve(plain, **changes)  # type: ignore[arg-type]  # of many kinds

    return [
        of("workers 5 s on, 5 s off", 240, drain=on_off(5)),
        of("workers 20 s on, 20 s off", 300, drain=on_off(20)),
        of("batches of 2 s", workers="batches"),
        of("50 workers, 10 s a job", 400, workers="pool", phases=whole(400, 5.0, 200, 200)),
        of("workers by chance", workers="poisson"),
        of("a tenth of noise on the backlog", sample_noise=0.1),
        *(of(f"statistics {age:g} s old", 240, sample_age=age) for age in (2.0, 4.0, 8.0)),
        of("calls take 0.3 s", latency=0.3),
        of("calls half an interval early or late", jitter=0.5),
        of("2 % of processes crash a second", crashes=(0.02, 0.5)),
        of("30 % of jobs from others", 240, unprotected=60.0),
        of("the same, no oldest age", 240, unprotected=60.0, tells_oldest=False),
        of("callers take no answer, 3 times the drain", loops=0, offers=steady(600.0), patient=WEB, never_held=True),
        of(
            "callers leave before the answer, 3 times the drain",
            loops=0,
            offers=steady(600.0),
            patient=WEB,
            held_for=0.05,
            latency=0.1,
        ),
    ]


def seldom() -> list[Scenario]:
    """News of the queue come seldom: each 15 or 60 s, fresh or old, once or, as Prometheus tells them, repeatedly."""

    def of(target: float, apart: float, old: float = 0.0, **changes: object) -> Scenario:
        seconds = 20 * (apart + old) + 4 * target
        plain = Scenario(
            name=f"target {target:g} s, news each {apart:g} s{f', {old:g} s old' if old else ''}",
            seconds=seconds,
            phases=(Phase("start", 0, seconds / 2, DRAIN), Phase("rest", seconds / 2, seconds, DRAIN, seconds / 2)),
            processes=10,
            sample_every=apart,
            sample_age=old,
        )
        return attrs.evolve(plain, settings=BudgetSettings.of(target), **changes)  # type: ignore[arg-type]  # of many kinds

    jump = of(5.0, 15.0, name="news each 15 s, 150 a second, then 5 times the drain", loops=0, patient=WEB)
    step = of(5.0, 15.0, name="news each 15 s, workers become fewer", seconds=900)
    return [
        *(of(target, 15.0) for target in (0.5, 5.0, 60.0, 300.0)),
        *(of(target, 60.0) for target in (5.0, 60.0, 300.0)),
        *(of(target, 60.0, 60.0) for target in (5.0, 60.0, 300.0)),
        *(
            of(target, 15.0, 15.0, sample_repeats=True, name=f"target {target:g} s, scraped each 15 s")
            for target in (5.0, 60.0)
        ),
        attrs.evolve(jump, offers=lambda now: 150.0 if now < jump.seconds / 2 else 1_000.0),
        attrs.evolve(step, drain=stepping(300, 600), phases=phases(300, 600, 900)),
        of(5.0, 15.0, workers="poisson", name="news each 15 s, workers by chance"),
        of(5.0, 3.0),
    ]


def loss() -> list[Scenario]:
    """The store is away for a minute, or empty."""
    lost = (Phase("away", 90, 140, DRAIN), Phase("back", 140, 200, DRAIN))
    halved = (Phase("away", 90, 140, DRAIN / 2), Phase("back", 140, 200, DRAIN / 2))
    return [
        Scenario(name="store away 80 to 140 s", seconds=200, phases=lost, store_away=(80, 140)),
        Scenario(
            name="the same, workers halve at 90 s",
            seconds=200,
            phases=halved,
            store_away=(80, 140),
            drain=lambda now: DRAIN if now < 90 else DRAIN / 2,
        ),
        attrs.evolve(
            web("the same, 3 times the drain", steady(600.0), 3, 200, 0, 100), phases=lost, store_away=(80, 140)
        ),
        attrs.evolve(web("the same, half the drain", steady(100.0), 3, 200, 0, 100), phases=lost, store_away=(80, 140)),
        Scenario(name="wiped at 80 and 100 s", seconds=160, phases=whole(160, begin=80), wiped_at=(80, 100)),
    ]


def targets() -> list[Scenario]:
    """Other ages to be held."""
    found = []
    for target in (0.5, 1.0, 2.0, 10.0, 20.0, 60.0):
        long = max(1.0, target / 5)
        found.append(
            Scenario(
                name=f"target {target:g} s",
                seconds=260 * long,
                phases=phases(100 * long, 180 * long, 260 * long),
                drain=stepping(100 * long, 180 * long),
                settings=BudgetSettings.of(target),
            )
        )
    return found


def scaled() -> list[Scenario]:
    """An autoscaler follows the demand, from one worker on: each 30 s as many workers as 1.1 of it needs."""

    def offers(now: float) -> float:
        return 100.0 if now < 180 or now >= 480 else 600.0

    parts = (
        Phase("100 a second", 0, 180, 120),
        Phase("600 a second", 180, 480, 660),
        Phase("100 again", 480, 660, 120),
    )
    return [
        attrs.evolve(web("as demand asks", offers, 3, 660, 0, size), phases=parts, workers="scaled")
        for size in (10, 100, 1_000)
    ]


#: What `python -m benches.control` can be asked for.
GROUPS: dict[str, Callable[[], list[Scenario]]] = {
    group.__name__: group for group in (cold, jump, start, steps, hot, crowded, few, odd, seldom, loss, targets, scaled)
}
