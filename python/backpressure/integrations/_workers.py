"""For frameworks whose workers do not tell what they run that it runs in one: a mark that they carry along."""

from __future__ import annotations

import contextvars
import functools
from typing import TYPE_CHECKING, Any

from backpressure.integrations._context import setting

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["marked"]


def marked(worker: type[Any], *methods: str) -> contextvars.ContextVar[bool]:
    """Return a variable that is true within coroutine methods of a worker's class, and in all tasks they start.

    Threads see it as far as their context was copied, as by ``asyncio.to_thread``.

    Raises:
        AttributeError: a method is not there, so that jobs of this release would be taken for a producer's.
    """
    inside = contextvars.ContextVar(f"in_{worker.__module__}.{worker.__qualname__}", default=False)
    for name in methods:
        setattr(worker, name, _marking(getattr(worker, name), inside))
    return inside


def _marking(
    method: Callable[..., Coroutine[Any, Any, Any]], inside: contextvars.ContextVar[bool]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(method)
    async def marking(*args: Any, **kwargs: Any) -> Any:
        with setting(inside, True):
            return await method(*args, **kwargs)

    return marking
