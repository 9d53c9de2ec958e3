"""Context variables set for a while that may end in another context: one of a generator closed elsewhere, say."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Iterator

__all__ = ["restore", "setting"]

V = TypeVar("V")


def restore(variable: contextvars.ContextVar[Any], token: contextvars.Token[Any]) -> None:
    """As ``variable.reset(token)``; nothing where another context leaves, in which it was never set."""
    with contextlib.suppress(ValueError):
        variable.reset(token)


@contextlib.contextmanager
def setting(variable: contextvars.ContextVar[V], value: V) -> Iterator[None]:
    """Give the variable a value within the body."""
    token = variable.set(value)
    try:
        yield
    finally:
        restore(variable, token)
