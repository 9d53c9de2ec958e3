"""How commands that take long show how far they are."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from backpressure.cli._format import new_console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["bar"]


@contextlib.contextmanager
def bar(what: str, *, as_json: bool) -> Iterator[Callable[[float], object]]:
    """Give what moves a bar, from 0 to 1; there is none without a terminal."""
    console = new_console(stderr=True)
    if as_json or not console.is_terminal:
        yield lambda _: None  # rich 13.7 ends a bar that is not shown with an empty line
        return
    percent = TextColumn("{task.percentage:3.0f} %")
    columns = (TextColumn("{task.description}"), BarColumn(), percent, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda part: progress.update(task, completed=part)
