"""Which queues' servers are short of memory: told once for each change, with the queues that it concerns together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from backpressure._engine.sync import ForkLock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backpressure._telemetry.events import Announcer

__all__ = ["Fullness"]

_ENOUGH, _SHORT, _FULL = "enough", "short", "full"
# Thousandths by which memory must fall below a bound again, so that what settles at the bound is not told each time.
_SLACK = 20


class Fullness:
    """Remembers how full each queue's server was. Thread-safe.

    Args:
        announcer: is told.
        bounds: returns the thousandths from which on jobs of a queue are refused, and those from which on HIGH alone
            goes; ``None`` where no memory is looked at.
    """

    def __init__(self, announcer: Announcer, bounds: Callable[[str], tuple[int, int] | None]) -> None:
        self._announcer = announcer
        self._bounds = bounds
        self._lock = ForkLock()
        self._used: dict[str, int] = {}
        # Of queues that have not enough.
        self._states: dict[str, str] = {}

    def note(self, used: Mapping[str, int]) -> None:
        """Take over how many thousandths of their servers' memory are used, by queue."""
        changed: dict[tuple[str, str, int], list[str]] = {}
        with self._lock():
            for name, permille in used.items():
                if self._used.get(name) == permille:
                    continue
                self._used[name] = permille
                old = self._states.pop(name, _ENOUGH)
                new = _state(permille, self._bounds(name), old)
                if new != _ENOUGH:
                    self._states[name] = new
                if new != old:
                    changed.setdefault((old, new, permille), []).append(name)
        for (old, new, permille), names in changed.items():
            self._tell(old, new, permille, names)

    def look_anew(self) -> None:
        """Judge what comes next by bounds that have changed."""
        self._used.clear()

    def forget(self, queue_name: str) -> None:
        """Drop what is kept about a queue."""
        self._used.pop(queue_name, None)
        self._states.pop(queue_name, None)

    def forget_all(self) -> None:
        """Begin anew in a forked child."""
        self._used.clear()
        self._states.clear()

    def _tell(self, old: str, new: str, permille: int, names: list[str]) -> None:
        of = f"queue {names[0]!r}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        what = {
            _ENOUGH: "no job is refused for it",
            _SHORT: "jobs are refused, LOW first",
            _FULL: "HIGH jobs alone go",
        }[new]
        message = f"memory of the server of {of}: {permille / 10:g} % of its limit is used, {what}"
        level = logging.INFO if new == _ENOUGH else logging.WARNING
        concerned = names[0] if len(names) == 1 else None
        self._announcer.announce("memory", old, new, message, queue_name=concerned, level=level)


def _state(permille: int, bounds: tuple[int, int] | None, old: str) -> str:
    if bounds is None:
        return _ENOUGH
    short, full = bounds
    if permille >= full - _SLACK * (old == _FULL):
        return _FULL
    return _SHORT if permille >= short - _SLACK * (old != _ENOUGH) else _ENOUGH
