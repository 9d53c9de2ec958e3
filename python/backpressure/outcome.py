"""Which values are a job's outcome, and which the promise of one that is yet to come."""

from __future__ import annotations

from types import AsyncGeneratorType, GeneratorType

__all__ = ["is_plain"]

# By number, because a metaclass may make its classes equal, or unhashable. Each is held, so that its number stays its.
_known: dict[int, type] = {}
_MOST = 256

_GENERATORS = (GeneratorType, AsyncGeneratorType)


def is_plain(kind: type) -> bool:
    """Tell whether every value of a type is an outcome in itself.

    It is none where work is still to follow: a generator, an awaitable, a future with callbacks. What counts is what
    the type has or inherits; a value that answers to any name, as mocks do, promises nothing. Thread-safe.
    """
    return _known.get(id(kind)) is kind or _look(kind)


def _look(kind: type) -> bool:
    names = {name for base in kind.__mro__ for name in vars(base)}
    if (
        issubclass(kind, _GENERATORS)
        or "__await__" in names
        or "add_done_callback" in names
        or {"add_callback", "add_errback"} <= names
    ):
        return False
    if len(_known) >= _MOST:
        _known.clear()
    _known[id(kind)] = kind
    return True
