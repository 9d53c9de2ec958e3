"""Tasks for our own work: they start in an empty context, or they would keep a caller's request and trace alive."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

__all__ = ["start_task"]

T = TypeVar("T")


def start_task(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Run `work` in a task of the running loop, and return the task."""
    import asyncio  # noqa: PLC0415 - it takes a quarter of the time of importing this package

    # Not by `context=`, which task factories made for older Pythons refuse.
    return contextvars.Context().run(asyncio.get_running_loop().create_task, work, name=name)
