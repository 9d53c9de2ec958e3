"""Sets context variables for a while that may end in another context, such as a generator that is closed elsewhere."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Iterator

__all__ = ["restore", "setting"]

V = TypeVar("V")


def restore(variable: contextvars.ContextVar[Any], token: contextvars.Token[Any]) -> None:
    """As ``variable.reset(token)``; does nothing in another context, where the variable was never set."""
    with contextlib.suppress(ValueError):
        variable.reset(token)


@contextlib.contextmanager
def setting(variable: contextvars.ContextVar[V], value: V) -> Iterator[None]:
    """Give the variable a value inside the body."""
    token = variable.set(value)
    try:
        yield
    finally:
        restore(variable, token)
