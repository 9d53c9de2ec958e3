"""The table of real scenarios, by name."""

from __future__ import annotations

from benches.control.real.scenario import Lane, Load, Phase, Scenario

__all__ = ["SCENARIOS"]

DRAIN = 200.0


def closed(producers: int) -> tuple[Load, ...]:
    return (Load("medium", producers),)


def web(drain: float, times: float) -> tuple[Load, ...]:
    """Return callers who will hardly wait: a tenth is HIGH, three tenths MEDIUM, the rest LOW, each 3 jobs a second."""
    offers = drain * times
    parts = (("high", 0.1), ("medium", 0.3), ("low", 0.6))
    return tuple(Load(level, round(part * offers / 3), 3.0, 0.5) for level, part in parts)


def tenants(processes: int, controllers: int = 1) -> Scenario:
    """Return two queues: one where a tenant makes half of all offers, and one with two tenants of weight 4."""
    many = processes * controllers

    def offers(level_tenants: tuple[float, ...], heavy: int = 0) -> tuple[Load, ...]:
        producers = max(10, many)
        return (Load("low", producers, 3 * DRAIN / producers, 0.5, level_tenants, heavy),)

    return Scenario(
        name=f"tenants-{many}",
        title=f"tenants share what may go of LOW, three times the drain; {many} controller{'s' * (many > 1)}",
        phases=(Phase("", 90),),
        lanes=(
            Lane("flood", (DRAIN,), offers((49.0, *(1.0,) * 49))),
            Lane("weights", (DRAIN,), offers((1.0,) * 10, heavy=2)),
        ),
        processes=processes,
        controllers=controllers,
    )


def steps(producers: int, processes: int, controllers: int = 1) -> Scenario:
    """Return closed loops whose workers slow down to 0.4 and then become five times as fast."""
    many = f", each of its own {processes * controllers} controllers" if controllers > 1 else ""
    return Scenario(
        name=f"logical-{producers}" if controllers > 1 else f"closed-{producers}",
        title=f"{producers} closed {'loop' if producers == 1 else 'loops'}{many}",
        phases=(Phase("200 a second", 30), Phase("→ 80", 35), Phase("→ 400", 30)),
        lanes=(Lane("jobs", (DRAIN, DRAIN * 0.4, DRAIN * 2), closed(producers)),),
        processes=processes,
        controllers=controllers,
    )


_ALL = (
    steps(1, 1),
    steps(10, 2),
    steps(100, 4),
    steps(500, 4),
    steps(200, 4, controllers=50),
    Scenario(
        name="open",
        title="open, three times the drain",
        phases=(Phase("", 70),),
        lanes=(Lane("jobs", (DRAIN,), web(DRAIN, 3)),),
    ),
    Scenario(
        name="away",
        title="the store goes away and comes back empty",
        phases=(Phase("before", 25), Phase("away", 30, "away"), Phase("back", 20)),
        lanes=(Lane("jobs", (DRAIN,) * 3, closed(100)),),
    ),
    Scenario(
        name="wiped",
        title="the store loses its data",
        phases=(Phase("before", 25), Phase("FLUSHALL", 15, "flush"), Phase("DEL", 15, "delete")),
        lanes=(Lane("jobs", (DRAIN,) * 3, closed(100)),),
    ),
    Scenario(
        name="killed",
        title="a third of the producers is killed",
        phases=(Phase("before", 25), Phase("killed", 30, "kill")),
        lanes=(Lane("jobs", (DRAIN,) * 2, closed(90)),),
        processes=6,
    ),
    Scenario(
        name="queues",
        title="three queues at once",
        phases=(Phase("", 50),),
        lanes=(
            Lane("mail", (DRAIN,), closed(50)),
            Lane("web", (DRAIN / 2,), web(DRAIN / 2, 3)),
            Lane("calm", (DRAIN / 2,), web(DRAIN / 2, 0.4), fits=True),
        ),
        processes=3,
    ),
    tenants(1),
    tenants(10),
    tenants(10, controllers=10),
)

#: All scenarios at full length.
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
