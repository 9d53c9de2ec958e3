"""`passing`: a block in which a program lets all its jobs pass."""

from __future__ import annotations

import contextvars

from backpressure.integrations._shared.context import restore

__all__ = ["is_passing", "passing"]

_passing: contextvars.ContextVar[bool] = contextvars.ContextVar("_passing", default=False)


class passing:  # noqa: N801 - reads as a word for the body
    """Let all jobs of the body pass, through every hook: for schedulers of the application, and for start-up code.

    Jobs are not judged and not delayed, and their controller need not be started. It holds for this thread or task and
    for tasks that it starts, but not for threads. Counted as ``backpressure_passed_total{why="passing"}``.

    Usable by several threads and tasks; make one for each ``with``.

    Example:
        >>> from backpressure.integrations import passing
        >>> with passing():
        ...     pass  # newsletter.delay("me@example.org")
    """

    def __enter__(self) -> None:
        self._token = _passing.set(True)

    def __exit__(self, *_: object) -> None:
        restore(_passing, self._token)


def is_passing() -> bool:
    """Tell whether this code runs in the body of a `passing`."""
    return _passing.get()
