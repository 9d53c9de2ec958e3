"""How long jobs may wait in a queue, for a law that holds that age for all producers together."""

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from backpressure._model.config.fields import (
    HOUR,
    MINUTE,
    NONE_TEXT,
    PASSWORD,
    Section,
    checked,
    converted,
    fail,
    integer,
    is_number,
    optional_duration,
    optional_text,
)
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.units import doubt

__all__ = ["AgeConfig"]

_LEAST_TARGET = 0.5
_MOST_CALLS = 1_000_000
_MOST_RATE = 1_000_000
_MOST_CLASSES = 16
_MOST_CLASS_BYTES = 64
_MOST_WEIGHT = 100
_WEIGHTS = (
    f"give at most {_MOST_CLASSES} names of classes, each of 1 to {_MOST_CLASS_BYTES} bytes with a weight from 1 to "
    f'{_MOST_WEIGHT}, as in {{"gold": 4}}'
)
_STORES = (
    'give the URL of a Redis or Valkey such as "redis://host:6379/0", without a password: put one with a password into '
    'an environment variable, and give "$" and the name of that'
)
_VARIABLE = r"\$(?:\w+|\{\w+\})\Z"
_URL = r"(?:(?:redis|valkey)s?(?:\+(?:unix|sentinel|cluster))?|unix)://"
_STORE = re.compile(f"{_VARIABLE}|{_URL}", re.IGNORECASE)


def _is_store(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, str) and bool(_STORE.match(value)) and not PASSWORD.search(value)


def _is_target(target: float) -> bool | str:
    asked = doubt(target, HOUR, 'write "{}s"; ')
    return _LEAST_TARGET <= target <= HOUR or f"{asked}must be from 500 ms to 1 h"


def _is_floor(value: object) -> bool:
    return is_number(value) and (value == 0 or 0.001 <= value <= 1)  # type: ignore[operator]  # it is a number


def _is_rate(value: object) -> bool:
    return is_number(value) and 0 <= value <= _MOST_RATE  # type: ignore[operator]  # it is a number


def _to_memory(value: object, owner: object, field: "attrs.Attribute[Any]") -> tuple[float, float] | None:
    """Take two parts of 1, also as text, as a variable of the environment has them: ``"0.85, 0.9"``."""
    if value is None or value == "none":
        return None
    parts: list[object] = []
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            parts = [float(part) for part in value.strip("[] ").split(",")]
    elif isinstance(value, list | tuple):
        parts = [*value]
    match parts:
        case [int() | float() as low, int() | float() as high] if 0 < low < high <= 1:
            return float(low), float(high)
    raise fail(owner, field.name, value, 'give two parts of the memory, such as [0.85, 0.9], or "none"')


def _to_weights(value: object) -> object:
    if isinstance(value, str) and value.startswith("{"):  # in one variable of the environment
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    return dict(value) if isinstance(value, Mapping) else value


def _are_weights(value: object) -> bool:
    return isinstance(value, dict) and len(value) <= _MOST_CLASSES and all(map(_is_weight, value, value.values()))


def _is_weight(name: object, weight: object) -> bool:
    if not isinstance(name, str) or isinstance(weight, bool) or not isinstance(weight, int):
        return False
    return 1 <= len(name.encode(errors="replace")) <= _MOST_CLASS_BYTES and 1 <= weight <= _MOST_WEIGHT


@repr_when_half_built
@attrs.frozen(kw_only=True)
class AgeConfig(Section):
    """How long jobs may wait in a queue. With a target, the age law takes the place of the table of zones. Immutable.

    All producers of a queue share a budget, which is kept in Redis or Valkey: so many jobs a second that one enqueued
    now waits for `target`. Everything else follows from that: the budget is set anew each fifth of it (100 ms to 1 s).
    What is more than the budget waits or is shed, LOW before MEDIUM; HIGH always goes.

    Args:
        target: seconds that a job is to wait in the queue, from 500 ms to 1 h. ``None`` is the table of zones; in files
            and variables that is ``"none"``, for queues among others that have a target.
        medium: what becomes of MEDIUM jobs beyond the budget whose callers will not wait: ``"wait"`` tells them when to
            come again, ``"shed"`` refuses them as LOW ones.
        low_floor: part of LOW that passes always: 0, or from 0.001 to 1.
        store: URL of the Redis or Valkey that keeps the budget; ``"$NAME"`` stands for the environment variable of that
            name, which must hold a URL with a password. ``None`` (in files ``"none"``) is the statistics provider's.
        safe_rate: jobs a second that each process lets pass which has never reached the store; 0 leaves them to
            the fallback mode of `RecoveryStrategy`.
        tenant_weights: how much a class of tenants weighs where what may go is dealt among tenants: whole numbers from
            1 to 100 by the names of at most 16 classes. Who is of no class, or of another one, weighs 1.
        calls: calls a second that one queue may cost the store, whatever the number of processes.
        memory: parts of the memory limit of the queue's server: from the first on the budget shrinks, at the second
            nothing is left of it but for HIGH. Without a target, LOW is shed from the first on, and MEDIUM from the
            second. ``None`` (in files ``"none"``) looks at no memory.

    Raises:
        ConfigurationError: a value is impossible.

    Example:
        >>> age = AgeConfig(target="5s")
        >>> age.target, age.medium, age.low_floor
        (5.0, 'wait', 0.005)
    """

    _path = "age"

    target: float | None = optional_duration(doubt_above=MINUTE)
    medium: Literal["wait", "shed"] = checked("wait", lambda value: value in ("wait", "shed"), 'give "wait" or "shed"')
    low_floor: float = checked(0.005, _is_floor, "give 0, or a part of the demand of LOW from 0.001 to 1")
    store: str | None = optional_text(_is_store, _STORES)
    safe_rate: float = checked(0, _is_rate, f"give jobs a second from 0 to {_MOST_RATE}")
    calls: int = integer(2_000, 1, _MOST_CALLS)
    memory: tuple[float, float] | None = converted(_to_memory, default=(0.85, 0.9), metadata={NONE_TEXT: "none"})
    tenant_weights: Mapping[str, int] = checked({}, _are_weights, _WEIGHTS, converter=_to_weights, hash=False)

    _own_rules = (("target", _is_target),)

    @property
    def memory_permille(self) -> tuple[int, int] | None:
        """Return `memory` in thousandths; at least one apart."""
        if self.memory is None:
            return None
        low, high = (round(part * 1_000) for part in self.memory)
        return min(low, high - 1), high
