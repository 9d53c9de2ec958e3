"""What operators want, as it lies in the fields of the control hash: written here, and read with suspicion.

Whoever may write to the hash may write anything. So a value is bounded before it is parsed, each of its parts is
checked, and what is wrong with one field is an `EntryError` about that field alone. With a key that operators and
producers share, a value that was not signed with it is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, Literal

import attrs

from backpressure._fleet.keys import EMERGENCY, OVERRIDE, circuit_field, queue_of
from backpressure._fleet.texts import MAX_AUTHOR, MAX_REASON, is_plain_text, text_of
from backpressure._model.arguments import shown, validate_queue_name
from backpressure._model.errors import ConfigurationError, InvalidQueueError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "LONGEST_SECONDS",
    "MAX_FIELDS",
    "VERSION",
    "Action",
    "EntryError",
    "Kind",
    "Switch",
    "check_key",
    "decode",
    "encode",
    "mac_of",
    "opened",
    "switches_of",
]

#: Of the entries; another version is refused.
VERSION = 1
#: No switch holds longer than a day.
LONGEST_SECONDS = 86_400.0
#: Fields of the control hash that are looked at.
MAX_FIELDS = 2_000
_MAX_BYTES = 4_096
_MAX_WHOLE = 2**53 - 1  # what JSON holds exactly in every language
_LEAST_KEY = 16

Kind = Literal["override", "emergency", "circuit"]
#: ``"on"`` and ``"off"`` of override and emergency, the others of circuits. ``"on"`` and ``"open"`` hold until their
#: time; what ends them is written too, for a field that is not there says nothing.
Action = Literal["on", "off", "open", "close", "reset"]
_ACTIONS: Mapping[str, tuple[Action, ...]] = {
    "override": ("on", "off"),
    "emergency": ("on", "off"),
    "circuit": ("open", "close", "reset"),
}


class EntryError(ValueError):
    """A field of the control hash holds no entry that is understood; the message names the field."""


@attrs.frozen(kw_only=True)
class Switch:
    """What operators want of all processes, for a while.

    Attributes:
        kind: what is switched.
        queue_name: whose circuit; ``None`` for the other kinds.
        action: to what.
        until_ms: by the server's clock, in milliseconds of Unix time: it holds, or is to be done, until then.
        by, reason: who wants it, and why.
        n: grows with each entry, so that another one is known.
    """

    kind: Kind
    action: Action
    until_ms: int
    by: str
    reason: str
    n: int
    queue_name: str | None = None

    @property
    def field(self) -> str:
        """The field of the control hash in which it lies."""
        return self.kind if self.queue_name is None else circuit_field(self.queue_name)

    @property
    def holds(self) -> bool:
        """Whether it holds until its time, and does not end another one."""
        return self.action in {"on", "open"}

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts and pages."""
        return attrs.asdict(self)


def check_key(key: object) -> bytes | None:
    """Return a key of signatures as bytes.

    Raises:
        ConfigurationError: it is no text or bytes, or too short.
    """
    if key is None:
        return None
    raw = key.encode() if isinstance(key, str) else key
    if not isinstance(raw, bytes) or len(raw) < _LEAST_KEY:
        raise ConfigurationError(
            f"fleet key is too short or no text: give at least {_LEAST_KEY} random bytes", field="fleet.key"
        )
    return raw


def mac_of(key: bytes, *parts: object) -> str:
    """Return the signature of some parts, none of which has a line break: HMAC-SHA256 of them, joined by these."""
    return hmac.new(key, "\n".join(map(str, parts)).encode(), hashlib.sha256).hexdigest()


def _signed(switch: Switch, fleet: str) -> tuple[object, ...]:
    return VERSION, fleet, switch.field, switch.action, switch.until_ms, switch.n, switch.by, switch.reason


def encode(switch: Switch, fleet: str, key: bytes | None = None) -> str:
    """Return what is written into the field of a switch."""
    told: dict[str, Any] = {
        "v": VERSION,
        "do": switch.action,
        "until_ms": switch.until_ms,
        "by": switch.by,
        "reason": switch.reason,
        "n": switch.n,
    }
    if key is not None:
        told["mac"] = mac_of(key, *_signed(switch, fleet))
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def decode(field: str, raw: bytes | str, fleet: str, key: bytes | None = None) -> Switch:
    """Return what a field says.

    Raises:
        EntryError: nothing that is understood, or nothing that was signed with `key`.
    """
    told = opened(field, raw, _MAX_BYTES)
    queue_name, kind = queue_of(field), field
    if queue_name is not None:
        kind = "circuit"
        try:
            validate_queue_name(queue_name)
        except InvalidQueueError as error:
            raise EntryError(f"field {shown(field)} of the fleet: {error}") from None
    elif field not in {OVERRIDE, EMERGENCY}:
        raise EntryError(f"field {shown(field)} of the fleet is not known: this release does not act on it")
    actions = _ACTIONS[kind]
    if told.get("do") not in actions:
        raise _wrong(field, "do", told.get("do"), f"give {' or '.join(actions)}")
    switch = Switch(
        kind=kind,  # type: ignore[arg-type]  # it is one of the three
        queue_name=queue_name,
        action=told["do"],
        until_ms=whole(field, told, "until_ms"),
        by=plain(field, told, "by", MAX_AUTHOR),
        reason=plain(field, told, "reason", MAX_REASON),
        n=whole(field, told, "n"),
    )
    check_mac(field, told, key, *_signed(switch, fleet))
    return switch


def opened(field: str, raw: bytes | str, longest: int) -> dict[str, Any]:
    """Return the table that a field holds, of this version.

    Raises:
        EntryError: it holds none.
    """
    if len(raw) > longest:
        raise EntryError(f"field {shown(field)} of the fleet has {len(raw):,} bytes: give at most {longest:,}")
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise EntryError(f"field {shown(field)} of the fleet holds no JSON object: write it with backpressure")
    if type(told.get("v")) is not int or told["v"] != VERSION:
        raise _wrong(field, "v", told.get("v"), f"this release understands version {VERSION}")
    return told


def whole(field: str, told: Mapping[str, Any], name: str) -> int:
    """Return a whole number from 0 that every language reads exactly."""
    value = told.get(name)
    if type(value) is not int or not 0 <= value <= _MAX_WHOLE:
        raise _wrong(field, name, value, "give a whole number")
    return value


def plain(field: str, told: Mapping[str, Any], name: str, longest: int) -> str:
    """Return a text on one line."""
    value = told.get(name)
    if not is_plain_text(value, longest):
        raise _wrong(field, name, value, f"give 1 to {longest} characters on one line")
    return str(value)


def check_mac(field: str, told: Mapping[str, Any], key: bytes | None, *parts: object) -> None:
    """Refuse an entry that was not signed with `key`, if there is one."""
    if key is None:
        return
    mac = told.get("mac")
    if not isinstance(mac, str) or not mac.isascii() or not hmac.compare_digest(mac, mac_of(key, *parts)):
        raise EntryError(
            f"field {shown(field)} of the fleet is not signed with the fleet's key: give operators the same key, or "
            "find out who wrote it"
        )


def _wrong(field: str, name: str, value: object, rule: str) -> EntryError:
    return EntryError(f"field {shown(field)} of the fleet: {name} is {shown(value)}: {rule}")


def switches_of(
    control: Mapping[Any, Any], fleet: str, key: bytes | None = None, apart: frozenset[str] = frozenset()
) -> tuple[dict[str, Switch], dict[str, str]]:
    """Return the switches of a control hash by field, and what is wrong with other fields, but for those `apart`."""
    switches: dict[str, Switch] = {}
    wrong: dict[str, str] = {}
    for number, (name, raw) in enumerate(control.items()):
        field = text_of(name)
        if field in apart:
            continue
        if number >= MAX_FIELDS:
            wrong[""] = f"the fleet has {len(control):,} fields: the first {MAX_FIELDS:,} count, delete the others"
            break
        try:
            switches[field] = decode(field, raw, fleet, key)
        except EntryError as error:
            wrong[field] = str(error)
    return switches, wrong
