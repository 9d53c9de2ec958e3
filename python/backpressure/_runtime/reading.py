"""For whom a read runs: providers are shared, and who ends its reads must not end those of others."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    class _Owned(Protocol):
        owner: object


__all__ = ["owned", "owner", "owning"]

T = TypeVar("T")

_owner: contextvars.ContextVar[object] = contextvars.ContextVar("backpressure_reading", default=None)


def owner() -> object:
    """Return for whom the present code reads, or ends reads; ``None`` if nobody said."""
    return _owner.get()


def owning(who: object, work: Callable[[], T]) -> T:
    """Return what `work` returns; all that it reads, or ends, is `who`'s."""
    before = _owner.get()
    try:
        _owner.set(who)  # in here: what a signal handler raises must not leave it set
        return work()
    finally:
        _owner.set(before)


R = TypeVar("R", bound="_Owned")


def owned(reads: Iterable[R]) -> list[R]:
    """Return those of `reads` that the present code may end: its owner's; all of them if it has no owner."""
    who = _owner.get()
    return [read for read in reads if who is None or read.owner is who]
