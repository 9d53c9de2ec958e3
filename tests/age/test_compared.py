"""The table of the simulated law beside its reference is that of the figures that are kept, and finds what is worse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
from benches.control.compare import OURS, REFERENCE, TABLE, Row, dump, load, render, spread, worse
from benches.control.figures import figures
from benches.control.scenarios import GROUPS
from benches.control.simulation import Simulation

if TYPE_CHECKING:
    from pathlib import Path


def test_the_table_is_that_of_the_figures() -> None:
    assert TABLE.read_text("utf-8") == render(load(REFERENCE), load(OURS))


#: The designs differ here: in what passes while the store is away, and with rare calls, where the reference leaves
#: workers idle.
OF_OTHER_DESIGN = {"loss", "crowded"}


def test_every_row_is_of_a_scenario_and_none_is_worse() -> None:
    reference, ours = load(REFERENCE), load(OURS)
    targets = {
        (group, scenario.name, phase.name): scenario.target
        for group, scenarios in GROUPS.items()
        for scenario in scenarios()
        for phase in scenario.phases
    }
    assert set(ours) <= set(reference) <= set(targets)
    held = [key for key in ours if key[0] not in OF_OTHER_DESIGN]
    assert [key for key in held if worse(reference[key], ours[key], targets[key])] == []


def test_rows_are_kept_as_they_are(tmp_path: Path) -> None:
    scenario = attrs.evolve(GROUPS["start"]()[0], seconds=20)
    scenario = attrs.evolve(scenario, phases=(attrs.evolve(scenario.phases[0], end=20),))
    row = spread([figures(Simulation(scenario, seed).run(), scenario.phases[0]) for seed in (1, 2)])
    assert row["seeds"] == 2
    kept = tmp_path / "rows.jsonl"
    kept.write_text(dump({("start", scenario.name, ""): row}), "utf-8")
    assert load(kept) == {("start", scenario.name, ""): row}


@pytest.mark.parametrize(
    ("peak", "age", "found"),
    [(5.2, 5.0, []), (6.2, 5.0, []), (6.3, 5.0, ["peak"]), (5.2, 4.6, []), (5.2, 4.4, ["age"]), (5.2, 5.6, ["age"])],
)
def test_worse_is_what_is_further_off_than_the_worst_seed(peak: float, age: float, found: list[str]) -> None:
    reference: Row = {"seeds": 3, "peak": [5.1, 5.2, 6.0], "age": [4.8, 5.0, 5.1]}
    assert worse(reference, {"seeds": 3, "peak": [peak] * 3, "age": [age] * 3}, 5.0) == found
