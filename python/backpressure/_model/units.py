"""Durations: seconds as whole nanoseconds, and as text."""

from __future__ import annotations

__all__ = ["MAX_NS", "duration", "nanoseconds"]

MAX_NS = 2**63 - 1


def nanoseconds(seconds: float) -> int:
    """Round seconds to whole nanoseconds, of which no more than a clock of 64 bits tells: some 292 years."""
    return round(min(seconds * 1e9, MAX_NS))


def duration(seconds: float, digits: int = 4) -> str:
    """Write seconds in the unit that fits, with so many digits at most: ``"20.3 ms"``, ``"2.75 s"``."""
    for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            value = seconds / size
            rounded = round(value, max(0, digits - len(str(int(value)))))
            return f"{rounded:,.3f}".rstrip("0").rstrip(".") + f" {unit}"
    return "0 s"
