"""How much memory the server of a queue will use when its budget is set the next time."""

from __future__ import annotations

__all__ = ["Filling"]

_SECOND_US = 1_000_000
#: A server is asked once a second at most: the same number for so long says that nothing grows.
_STEADY_US = 2 * _SECOND_US


class Filling:
    """Foresees a second: so long a budget holds, in which busy producers may fill what was left.

    Used by one thread at a time.
    """

    def __init__(self) -> None:
        self._used = self._since_us = self._growth = 0
        self._knows = False

    def foresee(self, used_permille: int | None, now_us: int) -> int | None:
        """Return the thousandths that will be used, of those that are used now; what shrinks is not foreseen."""
        if used_permille is None:
            self._knows = False
            return None
        waited_us = now_us - self._since_us
        if not self._knows or used_permille != self._used or waited_us >= _STEADY_US:
            grown = used_permille - self._used if self._knows else 0
            self._growth = max(0, grown * _SECOND_US // max(waited_us, _SECOND_US))
            self._used, self._since_us, self._knows = used_permille, now_us, True
        return used_permille + self._growth
