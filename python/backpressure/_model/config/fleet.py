"""Which fleet a process belongs to, whose operators switch all its processes at once."""

import re

import attrs

from backpressure._model.config.fields import PASSWORD, Section, boolean, optional_text
from backpressure._model.half_built import repr_when_half_built

__all__ = ["FleetConfig", "is_fleet_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAMES = "give 1 to 64 letters, digits, dots, hyphens and underscores, and none of the last three at first"
_URLS = (
    'give the URL of a Redis or Valkey such as "redis://host:6379/0", without a password: put one with a password into '
    'an environment variable, and give "$" and the name of that'
)
_KEYS = 'put the key into an environment variable, and give "$" and the name of that'
_VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})\Z")
_URL = re.compile(r"(?:(?:redis|valkey)s?(?:\+(?:unix|sentinel|cluster))?|unix)://", re.IGNORECASE)


def is_fleet_name(value: object) -> bool:
    """Tell whether a fleet may be called so."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_variable(value: object) -> bool:
    return value is None or (isinstance(value, str) and bool(_VARIABLE.match(value)))


def _is_url(value: object) -> bool:
    return _is_variable(value) or (isinstance(value, str) and bool(_URL.match(value)) and not PASSWORD.search(value))


@repr_when_half_built
@attrs.frozen(kw_only=True)
class FleetConfig(Section):
    """The fleet that a process belongs to: its operators switch all its processes at once, and see them. Immutable.

    With a name, each poll also reads what the operators of that fleet want, and tells of this process.

    Args:
        name: of the fleet: 1 to 64 ASCII letters, digits, dots, hyphens and underscores. ``None`` (in files
            ``"none"``) belongs to none.
        url: of the Redis or Valkey in which the fleet meets; ``"$NAME"`` stands for the environment variable of that
            name, which must hold a URL with a password. ``None`` (in files ``"none"``) is the statistics provider's.
        key: ``"$NAME"``, where that environment variable holds a secret of 16 bytes or more: then only switches that
            operators signed with it count. ``None`` (in files ``"none"``) takes those of all who may write there.
        tenants: whether processes tell their fleet the names of the tenants who ask most, for those who look at it.

    Raises:
        ConfigurationError: a value is impossible.

    Example:
        >>> FleetConfig(name="shop", key="$FLEET_KEY")
        FleetConfig(name='shop', url=None, key='$FLEET_KEY', tenants=False)
    """

    _path = "fleet"

    name: str | None = optional_text(lambda value: value is None or is_fleet_name(value), _NAMES)
    url: str | None = optional_text(_is_url, _URLS)
    key: str | None = optional_text(_is_variable, _KEYS)
    tenants: bool = boolean(default=False)
