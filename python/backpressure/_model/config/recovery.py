"""What happens without statistics, and how the manual switches begin."""

from enum import StrEnum
from typing import Any

import attrs

from backpressure._model.config.fields import DAY, Section, boolean, converted, duration, fail
from backpressure._model.half_built import repr_when_half_built

__all__ = ["FallbackMode", "RecoveryStrategy"]


class FallbackMode(StrEnum):
    """What to do when there are no usable statistics.

    ``conservative`` delays HIGH/MEDIUM/LOW by 100/500/1000 ms, ``permissive`` does not delay, ``circuit_only`` lets
    only the breaker decide. Settings take ``true`` and ``false`` for the first two.

    Example:
        >>> RecoveryStrategy(fallback_mode=False).fallback_mode
        <FallbackMode.PERMISSIVE: 'permissive'>
    """

    CONSERVATIVE = "conservative"
    PERMISSIVE = "permissive"
    CIRCUIT_ONLY = "circuit_only"


def _to_fallback_mode(value: object, owner: object, field: "attrs.Attribute[Any]") -> FallbackMode:
    if isinstance(value, bool):
        return FallbackMode.CONSERVATIVE if value else FallbackMode.PERMISSIVE
    try:
        return FallbackMode(value)  # type: ignore[arg-type]
    except ValueError:
        *first, last = (f'"{choice}"' for choice in FallbackMode)
        rule = f"give {', '.join(first)} or {last}, or true/false for conservative/permissive"
        raise fail(owner, field.name, value, rule) from None


@repr_when_half_built
@attrs.frozen(kw_only=True)
class RecoveryStrategy(Section):
    """What happens when statistics are stale or missing, and the manual switches' initial positions. Immutable.

    Args:
        fallback_mode: ``conservative`` delays HIGH/MEDIUM/LOW by 100/500/1000 ms, ``permissive`` does not delay,
            ``circuit_only`` lets only the breaker decide.
        graceful_degrade: seconds over which an expired sample's delay moves to the fallback's.
        manual_override: start with the override on.
        emergency_mode: start with emergency mode on.

    Raises:
        ConfigurationError: a value is impossible.

    Example:
        >>> RecoveryStrategy(fallback_mode="permissive", graceful_degrade="1m").graceful_degrade
        60.0
    """

    _path = "recovery"

    fallback_mode: FallbackMode = converted(_to_fallback_mode, default=FallbackMode.CONSERVATIVE)
    graceful_degrade: float = duration(300.0)
    manual_override: bool = boolean(default=False)
    emergency_mode: bool = boolean(default=False)

    _own_rules = (("graceful_degrade", lambda seconds: 0 <= seconds <= DAY or "must be from 0 to 24 h"),)
