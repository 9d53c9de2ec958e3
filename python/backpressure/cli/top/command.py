"""`backpressure top`: queues, their zones and delays as they are now, again and again."""

from __future__ import annotations

import contextlib
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING

import click
from rich.live import Live

from backpressure._watch.budgets import stored_budgets, stores_of
from backpressure._watch.tenants import heaviest_of
from backpressure._watch.watch import Watch, config_for
from backpressure.cli._command import command, json_option
from backpressure.cli._config_options import ConfigOptions, config_options
from backpressure.cli._endings import Finding, Refusal, ending, terminable
from backpressure.cli._format import new_console
from backpressure.cli._masking import print_json
from backpressure.cli._queue_options import SHARE, QueueOptions, queue_options
from backpressure.cli.top.table import top_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backpressure._watch.watch import Snapshot

__all__ = ["pause", "top"]

_EXAMPLES = """\
backpressure top --redis-url redis://localhost:6379/0 --queue email-queue
backpressure top --config backpressure.toml
REDIS_URL=redis://localhost:6379/0 backpressure top --layout rq -q mail -q sms
backpressure top --queue email-queue --config backpressure.toml --interval 5
backpressure top --queue email --key 'jobs:{queue}'
backpressure top --queue email-queue --once --json | jq .queues[0].backlog
"""

_NAP = 0.2  # seconds


@command(_EXAMPLES)
@queue_options
@config_options
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    metavar="S",
    help="Seconds between two readings, instead of polling's.",
)
@click.option("--once", is_flag=True, help="Look once and end.")
@json_option("Print one JSON object a line, one for each look.")
def top(place: QueueOptions, given: ConfigOptions, interval: float, once: bool, as_json: bool) -> None:
    """Watch queues live.

    Shows backlogs, zone and delay at each priority, the age of samples and failed reads: of the queues given, else of
    those that the file has sections of. Of queues whose age is held, it shows which part of what is asked for goes, as
    it stands in the store of their budgets. Where the fleet tells of tenants, those
    are named who ask most. Circuits live in the producers and are not seen from here. Ctrl-C ends it,
    which is good: exit code 0. Else exits with 1 when the configuration is faulty or, with --once, a queue could not be
    read, 2 for wrong usage.
    """
    with ending("top"):
        own = given.load()
        names = place.chosen(own)
        if not names:
            raise Refusal("there is no queue to watch: give --queue, or --config with sections of queues")
        config = config_for(own, interval, len(names))
        provider, server = place.provider(config, names, SHARE * config.polling.timeout)
        ended_by = () if once else (KeyboardInterrupt,)
        with (
            contextlib.closing(provider),
            stores_of(provider, own) as stores,
            heaviest_of(own, provider, names) as heaviest,
            contextlib.suppress(*ended_by),
            terminable(),
            _screen(as_json=as_json, once=once) as show,
        ):
            budgets = partial(stored_budgets, stores, own, names)
            with Watch(config, provider, server, names, budgets, heaviest, own.with_candidate()) as watch:
                snapshot = watch.look()
                show(snapshot)
                while not once:
                    pause(interval)
                    show(watch.look())
            if problems := snapshot.problems():
                raise Finding(problems[-1], *problems[:-1])


def pause(seconds: float) -> None:
    """Sleep in naps, because a signal that comes just before a sleep is noticed only at its end."""
    end = monotonic() + seconds
    while (left := end - monotonic()) > 0:
        sleep(min(left, _NAP))


@contextlib.contextmanager
def _screen(*, as_json: bool, once: bool) -> Iterator[Callable[[Snapshot], None]]:
    """Give what shows a snapshot: a line of JSON, the next table, or in a terminal a table in place of the last."""
    console = new_console()
    if as_json:
        yield lambda snapshot: print_json(snapshot.to_dict(), indent=None)
    elif once or not console.is_terminal or console.is_dumb_terminal:
        yield lambda snapshot: console.print(top_view(snapshot, console.width))
    else:
        with Live(console=console, auto_refresh=False) as live:
            # When it ends, the last look stays on the screen.
            yield lambda snapshot: live.update(top_view(snapshot, console.width), refresh=True)
