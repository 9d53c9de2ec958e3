"""What belongs to one entrance of a gate, which many threads and tasks may enter at once, and leave elsewhere.

A ``with`` loads ``__exit__`` before it calls ``__enter__`` (so the language reference says), and keeps what it has
loaded on its frame until it is left. So each load gets an object of its own, the `Entrance`: it is there wherever the
frame continues, and it ends with the frame. A context variable would not do: the context that leaves may not have it.
Nor would a table: entrances that are never left would fill it.
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
    """What is to be reported when an entrance is left."""

    decision: ThrottleDecision
    began_ns: int


class Entrance:
    """A gate's ``__exit__``, loaded once. If it was loaded from the class, the gate is its first argument."""

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
    """Make a method an ``__exit__`` or ``__aexit__`` that also gets the `Entrance` which is left."""
    return cast("Callable[Concatenate[G, P], T]", _PerEntrance(leave))


class _Loaded(threading.local):
    """The exit that this thread has loaded last, and in which frame."""

    last: tuple[Callable[[], Entrance | None], int] | None = None


_loaded = _Loaded()


class Entrances:
    """The entrances of one gate. Thread-safe.

    If the exit was not loaded before, as when ``__enter__`` is called by hand, the entrance is kept here, and found
    again by thread and task.
    """

    def __init__(self) -> None:
        self._by_hand: dict[int, tuple[object, Entered]] = {}
        self._number = itertools.count().__next__

    @staticmethod
    def loaded_in(frame: FrameType) -> Entrance | None:
        """Return the exit that was loaded by `frame`, which now enters."""
        loaded, _loaded.last = _loaded.last, None
        if loaded is None or loaded[1] != id(frame):
            return None
        return loaded[0]()  # none if nothing holds it any longer: it was loaded, but not to be called

    def fill(self, entrance: Entrance | None, decision: ThrottleDecision, began_ns: int) -> None:
        """Note the decision of an entrance."""
        entered = Entered(decision, began_ns)
        if entrance is not None:
            entrance.fill(entered)
            return
        self._by_hand[self._number()] = _caller(), entered
        while len(self._by_hand) > _MAX_BY_HAND:
            self._by_hand.pop(min(self._by_hand.copy()), None)

    def take(self) -> Entered | None:
        """Return the last entrance by hand of this thread and task, or else the oldest of all; or ``None``."""
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
    # If asyncio was never imported, or is being imported right now, no task runs.
    current_task: Callable[[], object] | None = getattr(sys.modules.get("asyncio"), "current_task", None)
    task = None
    if current_task is not None:
        with contextlib.suppress(RuntimeError):  # no loop runs here
            task = current_task()
    return threading.get_ident(), id(task)
