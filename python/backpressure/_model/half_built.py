"""A repr that never raises: debuggers and error reports also show objects whose constructor has failed."""

from __future__ import annotations

from functools import wraps
from typing import TypeVar

__all__ = ["repr_when_half_built"]

T = TypeVar("T")


def repr_when_half_built(cls: type[T]) -> type[T]:
    """Give objects of `cls` that lack attributes, because their constructor raised, a repr that says so."""
    whole = cls.__repr__

    @wraps(whole)
    def repr_of(self: object) -> str:
        try:
            return whole(self)
        except AttributeError:
            return f"<{type(self).__name__}, half built>"

    cls.__repr__ = repr_of  # type: ignore[method-assign]
    return cls
