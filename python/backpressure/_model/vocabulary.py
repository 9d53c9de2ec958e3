"""The words that everything shares: priorities, zones, states of a circuit, and the reasons of decisions."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Any, Self

__all__ = ["CIRCUIT_REASONS", "HIGH", "LOW", "MEDIUM", "OTHER_QUEUES", "CircuitState", "Priority", "Reason", "Zone"]

#: Label under which queues beyond ``max_queues`` are counted together; not a legal queue name.
OTHER_QUEUES = "__other__"


class _Numbered(str, Enum):  # noqa: UP042 - the value of a StrEnum is its text
    """Words that have a number too: each compares, hashes and is written as its text, and its value is the number."""

    _value_: int

    def __new__(cls, *parts: Any) -> Self:
        """Make a member of its text and its number."""
        text, number = parts
        member = str.__new__(cls, text)
        member._value_ = number
        return member

    __str__ = str.__str__

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self.value}>"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return next((member for member in cls if member == value), None)


class Priority(_Numbered):
    """How much a job matters. There is no default: forgetting it must not make a job sheddable.

    Everywhere a priority may also be given by its lower-case name, which it equals. To sort by importance, sort by
    `value`: as texts, "high" comes before "low".

    Example:
        >>> Priority.HIGH, str(Priority.HIGH), Priority.HIGH == "high"
        (<Priority.HIGH: 2>, 'high', True)
    """

    LOW = "low", 0
    MEDIUM = "medium", 1
    HIGH = "high", 2

    @classmethod
    def parse(cls, value: object) -> Priority:
        """Return the member for a `Priority` or ``"low"``, ``"medium"``, ``"high"``.

        Example:
            >>> Priority.parse("low")
            <Priority.LOW: 0>

        Raises:
            InvalidPriorityError: anything else, plain integers and bools included.
        """
        from backpressure._model.arguments import parse_priority  # noqa: PLC0415 - errors name the types of this file

        return parse_priority(value)


LOW, MEDIUM, HIGH = Priority.LOW, Priority.MEDIUM, Priority.HIGH


class Zone(StrEnum):
    """Which part of its window a queue's backlog lies in.

    Example:
        >>> [str(zone) for zone in Zone]
        ['green', 'yellow', 'red']
    """

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


class CircuitState(_Numbered):
    """State of a queue's circuit breaker; it equals its text, and its value is that of the metric.

    Example:
        >>> [(state.value, str(state)) for state in CircuitState], CircuitState.OPEN == "open"
        ([(0, 'closed'), (1, 'open'), (2, 'half-open')], True)
    """

    CLOSED = "closed", 0
    OPEN = "open", 1
    HALF_OPEN = "half-open", 2


class Reason(StrEnum):
    """Why a decision is what it is. The order is shared with the native engine.

    ``backlog_*`` comes from the law, ``backlog_red_shed`` alone sheds by load; ``circuit_*`` are rejections by the
    breaker; ``stats_stale``, ``fallback_*`` and ``cold_start`` say that there is no fresh sample; ``untracked`` is a
    queue beyond ``max_queues``. ``age_*`` come from the budget of a queue whose age is held: all that is asked for fits
    (``age_open``), the job is of the part that does (``age_share``), it waits for its turn (``age_wait``), it is shed
    (``age_shed``), or the budget is out of reach (``age_safe``). ``memory`` sheds because the queue's server
    runs out of it. The rest name the switch that was on.

    Example:
        >>> Reason.BACKLOG_RED_SHED == "backlog_red_shed"
        True
    """

    BACKLOG_GREEN = "backlog_green"
    BACKLOG_YELLOW = "backlog_yellow"
    BACKLOG_RED = "backlog_red"
    BACKLOG_RED_SHED = "backlog_red_shed"
    CIRCUIT_OPEN = "circuit_open"
    CIRCUIT_HALF_OPEN = "circuit_half_open"
    MANUAL_OVERRIDE = "manual_override"
    EMERGENCY_MODE = "emergency_mode"
    STATS_STALE = "stats_stale"
    FALLBACK_CONSERVATIVE = "fallback_conservative"
    FALLBACK_PERMISSIVE = "fallback_permissive"
    FALLBACK_CIRCUIT_ONLY = "fallback_circuit_only"
    COLD_START = "cold_start"
    OBSERVE_ONLY = "observe_only"
    UNTRACKED = "untracked"
    AGE_OPEN = "age_open"
    AGE_SHARE = "age_share"
    AGE_WAIT = "age_wait"
    AGE_SHED = "age_shed"
    AGE_SAFE = "age_safe"
    MEMORY = "memory"


CIRCUIT_REASONS = frozenset({Reason.CIRCUIT_OPEN, Reason.CIRCUIT_HALF_OPEN})
# Answers of laws: those that a cache can serve.
LAW_REASONS = (Reason.BACKLOG_GREEN, Reason.BACKLOG_YELLOW, Reason.BACKLOG_RED, Reason.BACKLOG_RED_SHED, Reason.MEMORY)
#: Answers of the budget of a queue whose age is held.
AGE_REASONS = frozenset({Reason.AGE_OPEN, Reason.AGE_SHARE, Reason.AGE_WAIT, Reason.AGE_SHED, Reason.AGE_SAFE})
#: Reasons of refusals by load.
SHEDS = frozenset({Reason.BACKLOG_RED_SHED, Reason.AGE_SHED, Reason.MEMORY})
#: Reasons of refusals, which observe mode lets go.
REFUSALS = (Reason.BACKLOG_RED_SHED, Reason.CIRCUIT_OPEN, Reason.CIRCUIT_HALF_OPEN, Reason.AGE_SHED, Reason.MEMORY)
# Answers where there is no usable sample: misses, never cached.
MISS_REASONS = (
    Reason.STATS_STALE,
    Reason.FALLBACK_CONSERVATIVE,
    Reason.FALLBACK_PERMISSIVE,
    Reason.FALLBACK_CIRCUIT_ONLY,
    Reason.COLD_START,
    Reason.UNTRACKED,
)
