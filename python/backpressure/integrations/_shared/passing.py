"""`passing`: jobs that a program itself lets pass."""

from __future__ import annotations

import contextvars

from backpressure.integrations._shared.context import restore

__all__ = ["is_passing", "passing"]

_passing: contextvars.ContextVar[bool] = contextvars.ContextVar("_passing", default=False)


class passing:  # noqa: N801 - it reads well in a `with`
    """Let every hook pass what the body enqueues: for schedulers of the application, and for start-up code.

    Jobs are neither judged nor delayed, and their controller need not be started. Holds for this thread or task and the
    tasks that it starts, not for threads. Counted as ``backpressure_passed_total{why="passing"}``.

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
