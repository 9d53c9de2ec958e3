"""`backpressure import prometheus`: a recording of days that are over, from what a Prometheus has of them."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backpressure._model.arguments import masked, validate_queue_name
from backpressure._model.errors import ConfigurationError, InvalidQueueError, RecordingError
from backpressure._recording.book import Book
from backpressure._recording.row import Row
from backpressure._runtime.extras import extra
from backpressure.cli._command import command, json_option
from backpressure.cli._endings import Finding, Refusal, ending, terminable
from backpressure.cli._masking import print_json
from backpressure.cli._progress import bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from backpressure.providers.prometheus.history import History, Window

__all__ = ["prometheus"]

_EXAMPLES = """\
backpressure import prometheus --url http://localhost:9090 --query celery_queue_length --by queue_name --out week.bpr
backpressure import prometheus --url http://localhost:9090 --query 'sum by (queue) (rq_jobs)' --out week.bpr
backpressure import prometheus --url http://localhost:9090 --query depth --since 2d --step 30s --out two.bpr
"""

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_FOR_EVER_MS = 100 * 366 * 86_400_000
_MOST_ROWS = 10_000_000


@command(_EXAMPLES)
@click.option(
    "--url",
    required=True,
    metavar="URL",
    envvar="PROMETHEUS_URL",
    show_envvar=True,
    help="The server, or one that answers like it. A password is better given by the variable.",
)
@click.option("--query", required=True, metavar="PROMQL", help="Gives the waiting jobs, a series for each queue.")
@click.option(
    "--out",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The recording, which must not exist.",
)
@click.option("--by", default="queue", metavar="LABEL", help="The label that holds a queue's name.")
@click.option("--oldest-age", metavar="PROMQL", help="Gives the seconds since the oldest job was enqueued.")
@click.option("--entered", metavar="PROMQL", help="Gives a counter of the jobs that ever came into the queue.")
@click.option("--left", metavar="PROMQL", help="Gives a counter of the jobs that ever left it.")
@click.option("--since", default="7d", metavar="TIME", help="How far back: 12h, 7d, 2w.")
@click.option("--step", default="15s", metavar="TIME", help="Between two numbers; best the interval of the scrapes.")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=30.0, metavar="S", help="Seconds for one answer.")
@click.option("--token", metavar="VARIABLE", help="Environment variable that holds a bearer token.")
@json_option("Print one JSON object at the end.")
def prometheus(
    url: str,
    query: str,
    out: Path,
    by: str,
    oldest_age: str | None,
    entered: str | None,
    left: str | None,
    since: str,
    step: str,
    timeout: float,
    token: str | None,
    as_json: bool,
) -> None:
    """Make a recording from what a Prometheus has stored.

    What it has no number for is a gap: samples are looked for two steps back. Times are those of its clock. Exits with
    0 when rows were written, 1 when the server does not answer, or has nothing, 2 for wrong usage. What ends early
    leaves no file.
    """
    with ending("import prometheus"):
        back, gap = _seconds(since, "--since"), _seconds(step, "--step")
        if out.exists():
            raise Refusal(f"{out} exists: give a new file, so that nothing is recorded twice")
        if back < gap or back / gap > _MOST_ROWS:
            raise Refusal(f"--since {since} is {back / gap:,.0f} steps of {step}: give from 1 to {_MOST_ROWS:,}")
        with extra("http", "urllib3", what="backpressure import prometheus"):
            from backpressure.providers.prometheus.api import PrometheusError  # noqa: PLC0415 - needs the extra
            from backpressure.providers.prometheus.history import History  # noqa: PLC0415 - likewise
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - likewise

        try:
            history = History(url, step=gap, timeout=timeout, headers=_headers(token))
        except ConfigurationError as error:
            raise Refusal(str(error)) from None
        end = time.time() // gap * gap
        copied = _Copy(Book(out), by)
        try:
            with contextlib.closing(history), terminable(), _whole(out), bar("reading", as_json=as_json) as move:
                copied.run(history, query, (oldest_age, entered, left), end - back, end, move)
        except PrometheusError as error:
            of_ours = error.label == "invalid_sample"
            raise Finding(str(error) if of_ours else f"{history.shown} does not answer: {error}") from None
        except (HTTPError, OSError) as error:
            raise Finding(f"{history.shown} cannot be read: {type(error).__name__}") from None
        except RecordingError as error:
            raise Finding(str(error)) from None
        if not copied.rows:
            raise Finding(f"{history.shown} has no number for this query from the last {since}")
        _sum_up(copied, out, as_json=as_json)


@contextlib.contextmanager
def _whole(out: Path) -> Iterator[None]:
    """Leave a whole file or none."""
    try:
        yield
    except BaseException:
        out.unlink(missing_ok=True)
        raise


class _Copy:
    """Puts the numbers of a server into a file."""

    def __init__(self, book: Book, label: str) -> None:
        self._book = book
        self._label = label
        self.rows = 0
        self.queues: set[str] = set()
        self.left_out: set[str] = set()
        self.warnings: dict[str, None] = {}

    def run(
        self,
        history: History,
        query: str,
        others: Sequence[str | None],
        begin: float,
        end: float,
        move: Callable[[float], object],
    ) -> None:
        for window in history.windows(query, self._label, begin, end):
            more = [self._more(history, other, window) for other in others]
            rows = {}
            for name, values in window.values.items():
                if values and self._takes(name):
                    known = [each.get(name, {}) for each in more]
                    rows[name] = [_row(at, value, *(each.get(at) for each in known)) for at, value in values]
            if rows:
                self._book.write(rows, {}, round(1_000 * window.end), _FOR_EVER_MS, release=True)
            self.rows += sum(map(len, rows.values()))
            self.queues |= rows.keys()
            self.warnings.update(dict.fromkeys(window.warnings))
            move((window.end - begin) / (end - begin))

    def _more(self, history: History, query: str | None, window: Window) -> dict[str, dict[float, float]]:
        """Return what else is known in a window, by queue and Unix seconds."""
        found: dict[str, dict[float, float]] = {}
        if query is not None:
            for part in history.windows(query, self._label, window.begin, window.end):
                for name, values in part.values.items():
                    found.setdefault(name, {}).update(values)
        return found

    def _takes(self, name: str) -> bool:
        try:
            validate_queue_name(name)
        except InvalidQueueError:
            self.left_out.add(name)
            return False
        return True


def _row(at: float, value: float, age: float | None, entered: float | None, left: float | None) -> Row:
    oldest_ms = None if age is None else round(1_000 * age)
    flow = [None if count is None else math.floor(count) for count in (entered, left)]
    return Row(round(1_000 * at), math.ceil(value), oldest_ms, *flow)


def _seconds(text: str, option: str) -> float:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", text.strip())
    if found is None or not float(found[1]):
        raise Refusal(f"{option} is {text!r}: give a time such as 15s, 12h, 7d or 2w")
    return float(found[1]) * _UNITS[found[2]]


def _headers(variable: str | None) -> dict[str, str]:
    if variable is None:
        return {}
    token = os.environ.get(variable)
    if not token:
        raise Refusal(f"--token names the variable {variable}, which is not set")
    return {"authorization": f"Bearer {token}"}


def _sum_up(copied: _Copy, out: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "recording": str(out),
                "queues": sorted(copied.queues),
                "rows": copied.rows,
                "left_out": sorted(copied.left_out),
                "warnings": list(copied.warnings),
            }
        )
        return
    for warning in copied.warnings:
        print(masked(f"warning: {warning}"))
    if copied.left_out:
        print(masked(f"left out, for they cannot name queues: {', '.join(sorted(copied.left_out)[:10])}"))
    print(masked(f"recorded {copied.rows:,} rows of {len(copied.queues)} queues in {out}"))
