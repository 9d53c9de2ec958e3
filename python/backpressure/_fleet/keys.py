"""Where a fleet's switches, audit and members lie: all under one hash tag, so that MULTI works in a cluster."""

from __future__ import annotations

from backpressure._model.arguments import shown, validate_queue_name
from backpressure._model.config.fleet import is_fleet_name
from backpressure._model.errors import ConfigurationError

__all__ = [
    "CONFIG",
    "EMERGENCY",
    "OVERRIDE",
    "audit_key",
    "before_key",
    "check_fleet_name",
    "circuit_field",
    "control_key",
    "members_key",
    "presence_key",
    "queue_of",
]

#: Fields of the hash `control_key`. A queue's circuit has `circuit_field`.
OVERRIDE, EMERGENCY, CONFIG = "override", "emergency", "config"
_CIRCUIT = "circuit:"


def check_fleet_name(value: object) -> str:
    """Return `value` if a fleet may be called so.

    Raises:
        ConfigurationError: it may not.
    """
    if not is_fleet_name(value):
        raise ConfigurationError(
            f"fleet name is {shown(value)}: give 1 to 64 letters, digits, dots, hyphens and underscores",
            field="fleet",
            value=value,
        )
    return str(value)


def control_key(fleet: str) -> str:
    """Return the key of the hash that holds what operators want: `entries` by field."""
    return f"bp:{{{fleet}}}:control"


def before_key(fleet: str) -> str:
    """Return the key of the configuration that was pushed before the present one, for a rollback."""
    return f"bp:{{{fleet}}}:before"


def audit_key(fleet: str) -> str:
    """Return the key of the stream that tells who wanted what."""
    return f"bp:{{{fleet}}}:audit"


def members_key(fleet: str) -> str:
    """Return the key of the sorted set of the ids of members, scored by the server's milliseconds."""
    return f"bp:{{{fleet}}}:members"


def presence_key(fleet: str, member_id: str) -> str:
    """Return the key of what one member tells of itself."""
    return f"bp:{{{fleet}}}:m:{member_id}"


def circuit_field(queue_name: str) -> str:
    """Return the field of a queue's circuit.

    Raises:
        InvalidQueueError: the name cannot name a queue.
    """
    return f"{_CIRCUIT}{validate_queue_name(queue_name)}"


def queue_of(field: str) -> str | None:
    """Return the queue whose circuit a field is about; ``None`` for other fields."""
    return field.removeprefix(_CIRCUIT) if field.startswith(_CIRCUIT) else None
