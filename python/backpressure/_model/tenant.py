"""Tenants: on whose behalf a job is enqueued, so that one of them does not take the part of the others."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from backpressure._model.arguments import shown
from backpressure._model.errors import ConfigurationError
from backpressure._model.vocabulary import Priority

__all__ = ["MOST_BYTES", "AnyTenant", "Place", "Tenant", "check_tenant", "is_tenant", "of_place", "parsed"]

#: Of a name, in UTF-8.
MOST_BYTES = 255
_RULE = "give a name of 1 to 255 UTF-8 bytes, or a pair of a name and the name of a class of weights"


class Tenant(NamedTuple):
    """On whose behalf a job is enqueued: a customer, a user, an account. Immutable.

    Attributes:
        name: 1 to 255 UTF-8 bytes.
        weight_class: the class whose weight it has, see `AgeConfig`; ``""`` is none.

    Example:
        >>> Tenant("acme", "gold") == ("acme", "gold")
        True
    """

    name: str
    weight_class: str = ""


#: A name, or a pair of a name and the name of a class.
AnyTenant: TypeAlias = str | tuple[str, str]
#: Where a job is to go: its priority, its queue, and on whose behalf it is enqueued, if on anybody's.
Place: TypeAlias = tuple[Priority, str] | tuple[Priority, str, Tenant]


def of_place(place: Place) -> Tenant | None:
    """Return on whose behalf a job of that place is enqueued."""
    return place[2] if len(place) > 2 else None


def check_tenant(value: object) -> Tenant:
    """Return `value` as a tenant.

    Raises:
        ConfigurationError: it is neither a name of 1 to 255 UTF-8 bytes, nor a pair of one and the name of a class.
    """
    tenant = parsed(value)
    if tenant is None:
        raise ConfigurationError(f"tenant is {shown(value)}: {_RULE}", field="tenant", value=value)
    return tenant


def is_tenant(value: object) -> bool:
    """Tell whether `check_tenant` takes it."""
    return (type(value) is str and 0 < len(value) <= MOST_BYTES and value.isascii()) or parsed(value) is not None


def parsed(value: object) -> Tenant | None:
    """Return `value` as a tenant, ``None`` if it is none."""
    name, weight_class = value if isinstance(value, tuple) and len(value) == 2 else (value, "")
    if not _is_name(name) or not (_is_name(weight_class) or weight_class == ""):
        return None
    # Of a subclass the own text: engines only ever see exact strings.
    return Tenant(str.__str__(name), str.__str__(weight_class))


def _is_name(value: object) -> bool:
    # The length first: to encode a long text takes long.
    if not isinstance(value, str) or not 1 <= str.__len__(value) <= MOST_BYTES:
        return False
    try:
        return len(str.__str__(value).encode()) <= MOST_BYTES
    except UnicodeEncodeError:  # a surrogate
        return False
