"""`backpressure record`: what queues are like, written down for days, with no producer changed."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from prometheus_client import CollectorRegistry
from rich.live import Live
from rich.text import Text

from backpressure._controller.blocking import BackpressureController
from backpressure._model.arguments import masked
from backpressure._model.errors import RecordingError
from backpressure._recording.recorder import Recorder
from backpressure._watch.watch import Problems, config_for
from backpressure.cli._command import command, json_option
from backpressure.cli._config_options import ConfigOptions, config_options
from backpressure.cli._endings import Finding, Refusal, ending, terminable
from backpressure.cli._format import new_console
from backpressure.cli._masking import print_json
from backpressure.cli._queue_options import SHARE, QueueOptions, queue_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["record"]

_EXAMPLES = """\
backpressure record --redis-url redis://localhost:6379/0 -q mail -q sms --out week.bpr
backpressure record --config backpressure.toml --out week.bpr
backpressure record --config backpressure.toml --out day.bpr --seconds 86400
"""

_NAP = 0.2  # seconds


@command(_EXAMPLES)
@click.option(
    "--out",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The recording; an old one is continued.",
)
@queue_options
@config_options
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 300),
    default=5.0,
    metavar="S",
    help="Seconds between two readings.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    metavar="N",
    help="End by itself after so long; default with Ctrl-C.",
)
@json_option("Print one JSON object at the end.")
def record(
    out: Path, place: QueueOptions, given: ConfigOptions, interval: float, seconds: float | None, as_json: bool
) -> None:
    """Record what queues are like, for replays and recommendations.

    Only reads: of the queues given, else of those that the file has sections of, the backlog and the age of the oldest
    job, again and again. What is offered and shed, only producers know: give their controllers a Recorder for that.
    Ctrl-C ends it, which is good: exit code 0. Else exits with 1 when the configuration is faulty, or the recording
    cannot be written, or no queue could be read to the end, 2 for wrong usage. A crash loses the last minute at most.
    """
    with ending("record"):
        own = given.load()
        names = place.chosen(own)
        if not names:
            raise Refusal("there is no queue to record: give --queue, or --config with sections of queues")
        config = config_for(own, interval, len(names))
        provider, server = place.provider(config, names, SHARE * config.polling.timeout)
        recorder = Recorder(out)
        logger, problems = logging.Logger("backpressure.record", logging.INFO), Problems()  # noqa: LOG001 - nobody's
        logger.addHandler(problems)
        with contextlib.closing(provider), contextlib.suppress(KeyboardInterrupt), terminable():
            try:
                recorder.claim(time.time_ns() // 1_000_000)
            except RecordingError as error:
                raise Finding(str(error)) from None
            controller = BackpressureController(
                config, provider, logger=logger, registry=CollectorRegistry(), recorder=recorder
            )
            with controller, _status(as_json=as_json) as show:
                end = None if seconds is None else time.monotonic() + seconds
                began = time.monotonic()
                while end is None or time.monotonic() < end:
                    problem = recorder.problem or problems.last()
                    show(_line(recorder, len(names), server, time.monotonic() - began, problem))
                    time.sleep(_NAP)
        _sum_up(recorder, names, as_json=as_json)
        if recorder.failures and not recorder.written:
            raise Finding(recorder.problem or "nothing could be written")
        if not recorder.gathered:
            raise Finding(problems.last() or "no queue could be read")


@contextlib.contextmanager
def _status(*, as_json: bool) -> Iterator[Callable[[str], object]]:
    """Give what shows how far it is: a line that changes in a terminal, nothing elsewhere."""
    console = new_console(stderr=True)
    if as_json or not console.is_terminal or console.is_dumb_terminal:
        yield lambda _: None
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda line: live.update(Text(masked(line)), refresh=True)


def _line(recorder: Recorder, queues: int, server: str, seconds: float, problem: str) -> str:
    elapsed = time.strftime("%H:%M:%S", time.gmtime(seconds))
    told = f"{elapsed}  {recorder.gathered:,} rows of {queues} queues on {server} in {recorder.path}"
    return f"{told}\n{problem}" if problem else told


def _sum_up(recorder: Recorder, names: list[str], *, as_json: bool) -> None:
    size = recorder.path.stat().st_size if recorder.path.exists() else 0
    told: dict[str, Any] = {
        "recording": str(recorder.path),
        "queues": names,
        "rows": recorder.gathered,
        "bytes": size,
        "failures": recorder.failures,
    }
    if as_json:
        print_json(told)
    else:
        rows = f"{recorder.gathered:,} rows of {len(names)} queue{'s' * (len(names) != 1)}"
        print(masked(f"recorded {rows} in {recorder.path} ({size / 1024:,.0f} KiB)"))
