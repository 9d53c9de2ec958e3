"""What a process of a fleet tells of itself, for as long as it lives: a key that expires by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Self

import attrs

from backpressure._fleet.entries import VERSION, EntryError, opened
from backpressure._fleet.texts import readable

__all__ = ["FORGOTTEN_MS", "Presence"]

#: After so long without a sign of life an id is taken from the members: its key has expired long before.
FORGOTTEN_MS = 3_600_000
_MAX_BYTES = 8_192
_LONGEST = 300
#: Circuits that are told, of those that are not closed.
MAX_CIRCUITS = 20
#: Queues whose rates are told.
MAX_QUEUES = 20
#: Tenants that are told of a queue.
MAX_TENANTS = 8
_RATES = 6


@attrs.frozen(kw_only=True)
class Presence:
    """One member of a fleet.

    Attributes:
        id: ``<host>-<pid>-<nonce>``.
        version: of this package.
        engine: ``"native"`` or ``"pure"``; a program in another language names itself.
        started_ms: milliseconds of Unix time, by the server's clock.
        interval_ms: between two signs of life; 1 000 ms later than that it may be in trouble.
        mode: ``"enforce"`` or ``"observe"``.
        enforces: ``"no"`` if it is not among the share of processes that enforce, else ``"yes"``; empty is not told.
        law: ``"three_zone"``, ``"age"`` or ``"both"``.
        config_revision: number of the pushed configuration that it decides by; 0: its own alone.
        config_hash: of the whole configuration, 12 hexadecimal digits.
        config_error: why it does not take the pushed one; empty if it does, or if there is none for it.
        switches: fields of the switches that it acts on.
        offers, delays, sheds: jobs a second, since its last sign of life.
        queues: delays a second of HIGH, MEDIUM and LOW, then sheds of these, by queue: of the 20 that have most.
        circuits: queues whose circuits are not closed: ``"open"``, ``"half_open"`` or ``"forced"``.
        circuits_open: how many these are; `circuits` names 20 of them at most.
        probes_ms: in how many milliseconds circuits let a job through again, where that is known.
        tenants: jobs a second that tenants ask for, of those who ask most, by queue; empty unless that is to be told.
        last_error: what it cannot do now; empty if it can do all.
        problem: why nothing is known but the id; empty if all is.
    """

    id: str
    host: str = ""
    pid: int = 0
    version: str = ""
    engine: str = ""
    started_ms: int = 0
    interval_ms: int = 0
    mode: str = ""
    enforces: str = ""
    law: str = ""
    config_revision: int = 0
    config_hash: str = ""
    config_error: str = ""
    switches: tuple[str, ...] = ()
    offers: float = 0.0
    delays: float = 0.0
    sheds: float = 0.0
    queues: Mapping[str, tuple[float, ...]] = attrs.field(factory=dict)
    circuits: Mapping[str, str] = attrs.field(factory=dict)
    circuits_open: int = 0
    probes_ms: Mapping[str, int] = attrs.field(factory=dict)
    tenants: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict)
    last_error: str = ""
    problem: str = ""

    def encode(self) -> str:
        """Return what is written, of at most 8 KiB: long texts are cut."""
        told: dict[str, Any] = {"v": VERSION}
        for field in attrs.fields(Presence):
            value = getattr(self, field.name)
            if field.name not in {"id", "problem"}:
                told[field.name] = value[:_LONGEST] if isinstance(value, str) else value
        text = json.dumps(told, separators=(",", ":"))
        if len(text) <= _MAX_BYTES:
            return text
        empty: dict[str, Any] = {"queues": {}, "circuits": {}, "probes_ms": {}, "tenants": {}, "switches": ()}
        return json.dumps({**told, **empty, "last_error": told["last_error"][:100]})

    @classmethod
    def of(cls, member_id: str, raw: bytes | str) -> Self:
        """Return what a member told; whoever wrote it, it raises nothing: `problem` says why it cannot be read."""
        try:
            told = opened(f"m:{member_id}", raw, _MAX_BYTES)
            return cls(id=member_id, **{field.name: _checked(field, told) for field in _told_fields()})
        except EntryError as error:
            return cls(id=member_id, problem=str(error))

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts and pages."""
        tables = {name: dict(getattr(self, name)) for name in _TABLES}
        return {**attrs.asdict(self), **tables, "switches": list(self.switches)}


def _told_fields() -> list[attrs.Attribute[Any]]:
    return [field for field in attrs.fields(Presence) if field.name not in {"id", "problem"}]


def _checked(field: attrs.Attribute[Any], told: Mapping[str, Any]) -> Any:
    """Return a part of what was told, in the type that it has to have; what is missing has its default."""
    value = told.get(field.name)
    default = {} if field.name in _TABLES else field.default
    if value is None:
        return default
    if field.name in _TABLES:
        good = isinstance(value, dict) and all(map(_TABLES[field.name], value.values()))
        pairs = list(value.items())[: max(MAX_CIRCUITS, MAX_QUEUES)] if good else []
        value = {readable(name, _LONGEST): _read(inner) for name, inner in pairs}
    elif field.name == "switches":
        good = isinstance(value, list) and all(isinstance(name, str) for name in value)
        value = tuple(readable(name, _LONGEST) for name in value) if good else ()
    elif isinstance(default, str):
        good = isinstance(value, str)
        value = readable(str(value), _LONGEST)
    else:
        good = _is_number(value) and (isinstance(default, float) or isinstance(value, int))
    if not good:
        raise EntryError(f"its {field.name} cannot be read: another program may write there")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53


def _are_rates(value: object) -> bool:
    return isinstance(value, list) and len(value) == _RATES and all(map(_is_number, value))


def _are_tenants(value: object) -> bool:
    return isinstance(value, dict) and len(value) <= MAX_TENANTS and all(map(_is_number, value.values()))


def _read(inner: Any) -> Any:
    if isinstance(inner, dict):
        return {readable(name, _LONGEST): asks for name, asks in inner.items()}
    return readable(inner, _LONGEST) if isinstance(inner, str) else tuple(inner) if isinstance(inner, list) else inner


# What the values of each table have to be.
_TABLES: Mapping[str, Callable[[object], bool]] = {
    "queues": _are_rates,
    "circuits": lambda state: isinstance(state, str),
    "tenants": _are_tenants,
    "probes_ms": lambda left: isinstance(left, int) and _is_number(left),
}
