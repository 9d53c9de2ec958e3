"""What belongs to one entrance of a gate that many threads and tasks are inside of, and may leave elsewhere.

A ``with`` loads ``__exit__`` before it calls ``__enter__`` (so the language reference) and keeps what it has loaded on
its frame until it is left. So each load is given an object of its own, the `Entrance`: wherever the frame goes on, it
is at hand there, and it goes when the frame goes. No context variable, which the leaving context may not have, and no
table, which who never leaves would fill.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from backpressure._model.decision import ThrottleDecision

__all__ = ["Entrance", "Entrances", "per_entrance"]

G = TypeVar("G")
P = ParamSpec("P")
T = TypeVar("T")

# Entrances that were made by calling `__enter__` by hand and may never be left.
_MAX_BY_HAND = 1_000


class Entered(NamedTuple):
    """What is to be reported of an entrance."""

    decision: ThrottleDecision
    began_ns: int


class Entrance:
    """A gate's ``__exit__`` as loaded once: called with the gate in front where it was loaded from its class."""

    __slots__ = ("__weakref__", "_entered", "_function", "_gate")

    def __init__(self, function: Callable[..., Any], gate: object) -> None:
        self._function = function
        self._gate = gate
        self._entered: list[Entered] = []

    def __call__(self, *args: Any) -> Any:
        if self._gate is None:
            gate, *args_ = args
            return self._function(gate, self, *args_)
        return self._function(self._gate, self, *args)

    def fill(self, entered: Entered) -> None:
        self._entered.append(entered)

    def take(self) -> Entered | None:
        return self._entered.pop() if self._entered else None


class _PerEntrance:
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __get__(self, gate: object, owner: type | None = None) -> Entrance:
        entrance = Entrance(self._function, gate)
        _loaded.last = weakref.ref(entrance), id(sys._getframe(1))  # noqa: SLF001 - the frame that loads
        return entrance


def per_entrance(leave: Callable[Concatenate[G, Entrance, P], T]) -> Callable[Concatenate[G, P], T]:
    """Make a method ``__exit__`` or ``__aexit__``, which is given the `Entrance` that is left besides."""
    return cast("Callable[Concatenate[G, P], T]", _PerEntrance(leave))


class _Loaded(threading.local):
    """The exit that this thread has loaded last, and in which frame."""

    last: tuple[Callable[[], Entrance | None], int] | None = None


_loaded = _Loaded()


class Entrances:
    """Of one gate. Thread-safe.

    Those whose exit was not loaded beforehand, as when ``__enter__`` is called by hand, are kept here, and found again
    by thread and task.
    """

    def __init__(self) -> None:
        self._by_hand: dict[int, tuple[object, Entered]] = {}
        self._number = itertools.count().__next__

    @staticmethod
    def loaded_in(frame: FrameType) -> Entrance | None:
        """Return the exit that `frame`, which calls to enter, has loaded for it."""
        loaded, _loaded.last = _loaded.last, None
        if loaded is None or loaded[1] != id(frame):
            return None
        return loaded[0]()  # none, if nobody holds it any more: it was loaded to look at

    def fill(self, entrance: Entrance | None, decision: ThrottleDecision, began_ns: int) -> None:
        """Note what an entrance has led to."""
        entered = Entered(decision, began_ns)
        if entrance is not None:
            entrance.fill(entered)
            return
        self._by_hand[self._number()] = _caller(), entered
        while len(self._by_hand) > _MAX_BY_HAND:
            self._by_hand.pop(min(self._by_hand.copy()), None)

    def take(self) -> Entered | None:
        """Return the last entrance by hand of this thread and task, or else the oldest; ``None`` if there is none."""
        me = _caller()
        while by_hand := self._by_hand.copy():
            mine = [number for number, (caller, _) in by_hand.items() if caller == me]
            number = max(mine) if mine else min(by_hand)
            taken = self._by_hand.pop(number, None)  # another thread may have been faster
            if taken is not None:
                return taken[1]
        return None


def _caller() -> tuple[int, int]:
    """Return a name for the running thread and task."""
    # Where it was never imported, or is just being imported, no task runs.
    current_task: Callable[[], object] | None = getattr(sys.modules.get("asyncio"), "current_task", None)
    task = None
    if current_task is not None:
        with contextlib.suppress(RuntimeError):  # no loop runs here
            task = current_task()
    return threading.get_ident(), id(task)
