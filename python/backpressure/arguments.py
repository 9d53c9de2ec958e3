"""Checks of arguments that several calls take."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TypeAlias

from backpressure.config import shown
from backpressure.errors import ConfigurationError, InvalidPriorityError
from backpressure.types import Priority

__all__ = ["MaxWait", "check_max_wait", "check_seconds", "longest_wait"]

#: The longest sleep accepted, in seconds; by priority, where it is a mapping. ``None``, or a priority that is left out,
#: accepts any.
MaxWait: TypeAlias = float | Mapping[Priority, float | None] | Mapping[str, float | None] | None


def check_seconds(value: object, name: str = "max_wait") -> float:
    """Return `value` if it is a number of seconds from 0, or raise `ConfigurationError` about `name`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise ConfigurationError(f"{name} is {shown(value)}: give seconds from 0", field=name, value=value)
    return value


def check_max_wait(value: object) -> float | dict[Priority, float | None] | None:
    """Return `value` if it can be a ``max_wait``, its priorities parsed, or raise `ConfigurationError`."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return check_seconds(value)
    limits: dict[Priority, float | None] = {}
    for given, limit in value.items():
        try:
            priority = Priority.parse(given)
        except InvalidPriorityError as error:
            raise ConfigurationError(f"max_wait has an {error}", field="max_wait", value=value) from None
        limits[priority] = None if limit is None else check_seconds(limit, f"max_wait[{str(priority)!r}]")
    return limits


def longest_wait(max_wait: object, priority: Priority) -> float | None:
    """Return the longest sleep that a job of `priority` accepts, in seconds; ``None`` for any."""
    if max_wait is None:
        return None
    if isinstance(max_wait, Mapping):
        limits: object = check_max_wait(max_wait)
        return limits.get(priority) if isinstance(limits, dict) else None
    return check_seconds(max_wait)
