"""Run both laws on a real server, side by side, and write down how long jobs waited.

Without names all scenarios are run, in a quarter of an hour, and the results go to benches/CONTROL.md and
benches/control.svg. With names, or with `--quick`, they go to target/control/. Exits with 1 if a bound was missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benches.control.real import picture
from benches.control.real.bounds import bounds
from benches.control.real.children import ROOT
from benches.control.real.report import report, verdicts
from benches.control.real.run import run
from benches.control.real.scenario import LAWS
from benches.control.real.scenarios import SCENARIOS

from support.servers import default_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benches.control.real.run import Outcome
    from benches.control.real.scenario import Scenario

_QUICK = 5.0
_INTERRUPTED = 130


def main() -> int:
    parser = argparse.ArgumentParser(prog="make control", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=", ".join(SCENARIOS))
    parser.add_argument(
        "--quick", action="store_true", help=f"a target of {5 / _QUICK:g} s, and all else as much shorter"
    )
    parser.add_argument("--engine", choices=("native", "pure"), default="native")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--to", type=Path, metavar="DIR", help="where CONTROL.md and control.svg go")
    asked = parser.parse_args()
    if unknown := set(asked.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; choose from {', '.join(SCENARIOS)}")
    chosen = [SCENARIOS[name].scaled(_QUICK if asked.quick else 1) for name in asked.scenarios or SCENARIOS]
    whole = not asked.scenarios and not asked.quick
    to: Path = asked.to or (ROOT / "benches" if whole else ROOT / "target" / "control")
    runs, found = [], []
    for scenario in chosen:
        with progress(scenario) as tell:
            outcomes = run(scenario, seed=asked.seed, engine=asked.engine, tell=tell)
        runs.append(outcomes)
        found += [it for law in LAWS for it in bounds(outcomes[law])]
    write(runs, to, asked.engine, asked.seed)
    print(verdicts(found))
    return any(not it.met for it in found)


def write(runs: list[dict[str, Outcome]], to: Path, engine: str, seed: int) -> None:
    to.mkdir(parents=True, exist_ok=True)
    picture.draw(runs, to / "control.svg")
    about = (
        f"Written by `make control` with the {engine} engine, seed {seed}, and a target of "
        f"{runs[0]['age'].scenario.target:g} s: the table law with its defaults and the age law at the same time, each "
        "with producers and workers of its own. "
        f"{Path(default_binary() or 'none').name}, Python {platform.python_version()}, {os.cpu_count()} processors."
    )
    text = report(runs, about, "control.svg")
    (to / "CONTROL.md").write_text(text)
    print(text)
    print(f"{to / 'CONTROL.md'}\n{to / 'control.svg'}", file=sys.stderr)


@contextmanager
def progress(scenario: Scenario) -> Iterator[Callable[[float], None]]:
    """Tell on standard error how far a run is: in place on a terminal, else when it begins and ends."""
    moves, began = sys.stderr.isatty(), time.monotonic()

    def say(text: str, end: str = "\n") -> None:
        print(f"\r\033[K{text}" if moves else text, end=end, file=sys.stderr, flush=True)

    def tell(at: float) -> None:
        if moves:
            say(f"{scenario.name}: {at:.0f} of {scenario.seconds:.0f} s", end="")

    say(f"{scenario.name}: {scenario.title}, {scenario.seconds:.0f} s", end="" if moves else "\n")
    yield tell
    say(f"{scenario.name}: done after {time.monotonic() - began:.0f} s")


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted: nothing is left running", file=sys.stderr)
        sys.exit(_INTERRUPTED)
