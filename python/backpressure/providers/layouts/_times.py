"""How old the next job is: reads the times that frameworks write, and ignores times that make no sense."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from backpressure.providers.layouts._steps import text

__all__ = ["age", "field", "iso_seconds", "number"]

# Smaller numbers are not times, but ids of streams numbered by hand, counters, or zero for "at once".
_FIRST_SECOND = 10.0**9


def age(now: datetime, seconds: float | None) -> float | None:
    """Return the seconds since Unix time `seconds`, ``None`` where that is not a time."""
    if seconds is None or not _FIRST_SECOND <= seconds < math.inf:
        return None
    return max(0.0, now.timestamp() - seconds)


def number(value: Any, *, per_second: int = 1) -> float | None:
    """Return a number, or the text of one, in seconds; ``None`` where it is neither."""
    if isinstance(value, (bytes, str)):
        try:
            value = float(text(value))
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) / per_second if abs(value) < 2**63 else None


def iso_seconds(value: Any) -> float | None:
    """Return the Unix time of an ISO 8601 text in seconds; without an offset it is UTC."""
    if not isinstance(value, (bytes, str)):
        return None
    try:
        moment = datetime.fromisoformat(text(value))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def field(payload: Any, name: str) -> Any:
    """Return a field of a JSON object; ``None`` where `payload` is not an object or lacks the field."""
    if not isinstance(payload, (bytes, str)):
        return None
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return content.get(name) if isinstance(content, dict) else None
