"""Durations: seconds as whole nanoseconds, and as text; and which numbers were hardly meant as seconds."""

from __future__ import annotations

__all__ = ["MAX_NS", "Stated", "doubt", "duration", "nanoseconds"]

MAX_NS = 2**63 - 1


class Stated(float):
    """Seconds that were given with their unit, so nobody can have meant milliseconds."""

    __slots__ = ()


def doubt(seconds: float, most: float, instead: str) -> str:
    """Return the question that a bare number above `most` seconds raises, else an empty text; `instead` ends it.

    `instead` may hold ``{}``, in whose place the seconds stand if milliseconds were meant.
    """
    if seconds <= most or isinstance(seconds, Stated):
        return ""
    return f"milliseconds? durations are seconds: {instead.format(f'{seconds / 1_000:g}')}"


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
