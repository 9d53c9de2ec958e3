"""Checks of arguments that several calls take."""

from __future__ import annotations

import sys

from backpressure.config import shown
from backpressure.errors import ConfigurationError

__all__ = ["check_seconds"]


def check_seconds(value: object, name: str = "max_wait") -> float:
    """Return `value` if it is a number of seconds from 0, or raise `ConfigurationError` about `name`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise ConfigurationError(f"{name} is {shown(value)}: give seconds from 0", field=name, value=value)
    return value
