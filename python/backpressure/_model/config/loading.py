"""Mappings, files and the environment into a configuration, laid over a base, with every fault in one error.

The fields of the class that is loaded, and their types, say what can be set and how it is checked. This file knows one
name: ``queues`` is a table by queue names and patterns, and what a queue sets there is laid over what the patterns have
that match it, or else over the shared part.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NewType, TypeVar, get_args, get_origin

import attrs
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from backpressure._model.arguments import shown, validate_queue_name
from backpressure._model.config.fields import (
    CODE_ONLY,
    NONE_TEXT,
    RIVALS,
    CodeOnly,
    Section,
    Unset,
    broken_rules,
    check_field,
)
from backpressure._model.config.patterns import lineage, patterns_of
from backpressure._model.errors import ConfigurationError, InvalidQueueError
from backpressure._model.units import Stated

__all__ = ["evolve", "from_django", "from_env", "from_file", "from_mapping", "to_dict", "validate"]

C = TypeVar("C", bound=Section)

_Hook = Callable[[Any, Any], Any]
_Keys = tuple[str, ...]
_QueueName = NewType("_QueueName", str)

_PREFIX = "BACKPRESSURE_"
# Others read them.
_NO_SETTINGS = frozenset({"BACKPRESSURE_ENGINE", "BACKPRESSURE_CONSOLE_TOKEN"})
# Tables by the names of queues.
_BY_NAME = (("queues",), ("candidate", "queues"))
_MAX_BYTES = 1 << 20
_MAX_LEVELS = 16
_MAX_KEY = 255
_SEGMENT = r'(?:[^."\\]+|"(?:[^"\\]|\\.)*")'
# A TOML key of more parts than any setting has; tomllib takes quadratic time over them.
_TOML_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_TOO_MANY_PARTS = re.compile(rf"(?:^|[\[{{,])[ \t]*(?:{_TOML_PART}){{{_MAX_LEVELS}}}", re.MULTILINE)


def _shown_key(key: str) -> str:
    return json.dumps(key if len(key) <= _MAX_KEY else f"{key[:_MAX_KEY]}…", ensure_ascii=not key.isprintable())


def _path(keys: _Keys) -> str:
    return ".".join(
        _shown_key(key) if keys[:level] == ("queues",) or not re.fullmatch(r"[\w-]{1,255}", key) else key
        for level, key in enumerate(keys)
    )


def _fault(keys: _Keys, value: object, rule: str) -> ConfigurationError:
    path = _path(keys)
    return ConfigurationError(f"{path} is {shown(value)}: {rule}", field=path, value=value)


def _report(faults: Iterable[ConfigurationError], source: str) -> ConfigurationError:
    faults = tuple(faults)
    first, lines = faults[0], map(str, faults)
    text = "\n  ".join((f"correct in {source}:", *lines)) if source else "\n".join(lines)
    return ConfigurationError(text, field=first.field, value=first.value, faults=faults)


def _structure_queue_name(name: object, _: object) -> str:
    try:
        return validate_queue_name(name)
    except InvalidQueueError as error:
        raise _fault((), name, str(error)) from None


def _names_hook(field: attrs.Attribute[Any]) -> _Hook:
    _, kind = get_args(field.type)

    def structure(queues: Any, _: object) -> Any:
        if not isinstance(queues, Mapping):
            raise _fault((), queues, "give a table of queue names")
        return _converter.structure(queues, dict[_QueueName, kind])  # type: ignore[valid-type]  # known at run time

    return structure


def _value_hook(cls: type[Any], field: attrs.Attribute[Any]) -> _Hook:
    def structure(value: object, _: object) -> Any:
        # Only code can hold classes and functions: anything else came from a file, or was meant for one.
        code_only: CodeOnly | None = field.metadata.get(CODE_ONLY)
        if code_only is not None and not code_only.may_be(value):
            raise _fault((), value, f"settable in code only, as {code_only.form}")
        try:
            return check_field(cls, field, value)
        except ConfigurationError:
            raise
        except (TypeError, ValueError) as error:  # from a class of the user's
            raise _fault((), value, str(error)) from error

    return structure


def _fields(cls: type[Any]) -> tuple[attrs.Attribute[Any], ...]:
    """Return the fields of a class with their types, also if these were written as text."""
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(attrs.resolve_types(cls))
    return fields


def _is_section(field: attrs.Attribute[Any]) -> bool:
    return any(attrs.has(kind) for kind in (field.type, *get_args(field.type)))


def _is_by_name(field: attrs.Attribute[Any]) -> bool:
    kind = get_origin(field.type)
    return isinstance(kind, type) and issubclass(kind, Mapping) and _is_section(field)


def _table_hook(cls: type[Any]) -> _Hook:
    """Return a function that makes a `cls` of a table, or raises everything that is wrong with the table."""
    hooks: dict[str, _Hook] = {}
    for field in _fields(cls):
        if _is_by_name(field):
            hooks[field.name] = _names_hook(field)
        elif not _is_section(field):
            hooks[field.name] = _value_hook(cls, field)
    overrides: dict[str, Any] = {name: override(struct_hook=hook) for name, hook in hooks.items()}
    structure_fields = make_dict_structure_fn(cls, _converter, _cattrs_forbid_extra_keys=True, **overrides)

    def structure(table: Any, _: object) -> Any:
        if not isinstance(table, Mapping):
            raise _fault((), table, "give a table of settings")
        table = {key if isinstance(key, str) else shown(key): value for key, value in table.items()}
        try:
            return structure_fields(table, cls)
        except ClassValidationError as error:
            of_fields, others = error.group_exceptions()
            # Building stops at the first broken rule, and does not begin if a field is wrong.
            sound = SimpleNamespace()
            ruled = issubclass(cls, Section)
            for name, hook in hooks.items() if ruled and (cls._own_rules or cls._rules) else ():
                with contextlib.suppress(ConfigurationError, ClassValidationError, IterableValidationError):
                    # What an upper layer says in another way is not in the table.
                    default = attrs.fields_dict(cls)[name].default
                    setattr(sound, name, hook(table[name], None) if name in table else default)
            broken = list(broken_rules(cls, sound)) if ruled else []
            faults = [
                *(fault for fault, _ in of_fields),
                *broken,
                # Rules between sections are told by building alone.
                *(fault for fault in others if not (broken and isinstance(fault, ConfigurationError))),
            ]
            raise ClassValidationError(error.message, faults, cls) from None

    return structure


_converter = Converter()
_converter.register_structure_hook(_QueueName, _structure_queue_name)
_converter.register_structure_hook_factory(attrs.has, _table_hook)


def _located(error: Exception, keys: _Keys = ()) -> Iterator[tuple[_Keys, str, object]]:
    """Yield each fault within `error`: its keys, what is wrong as the end of a sentence, and the value."""
    if isinstance(error, ClassValidationError):
        members, others = error.group_exceptions()
        for member, note in members:
            yield from _located(member, (*keys, note.name))
        for other in others:
            # The rules between fields know the name of their field, but not its place in the tree.
            own = (other.field.rpartition(".")[2],) if isinstance(other, ConfigurationError) else ()
            yield from _located(other, (*keys, *own))
    elif isinstance(error, IterableValidationError):
        for item, place in error.group_exceptions()[0]:
            yield from _located(item, (*keys, str(place.index)))
    elif isinstance(error, ForbiddenExtraKeysError):
        names = [field.name for field in attrs.fields(error.cl)]
        for name in sorted(error.extra_fields):
            near = difflib.get_close_matches(name.lower()[:_MAX_KEY], names, 1)
            hint = f"did you mean {near[0]}?" if near else f"give {', '.join(names[:-1])} or {names[-1]}"
            yield (*keys, name), f" is unknown: {hint}", name
    elif isinstance(error, ConfigurationError):
        yield keys, str(error).removeprefix(error.field), error.value
    elif isinstance(error, TypeError | ValueError):  # from a class of the user's
        yield keys, f" is refused: {error}", None
    else:
        raise error


def _plain(value: Any) -> Any:
    """Turn a configuration object into its table; leave everything else as it is."""
    if not attrs.has(type(value)):
        return value
    return {field.name: _plain_value(getattr(value, field.name)) for field in _fields(type(value))}


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(of_name) for name, of_name in value.items()}
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Fraction) and not isinstance(value, Unset) else _plain(value)


def _layered(*layers: Any, one_layer: bool = False) -> Any:
    """Lay tables over one another, key by key; if the last layer is no table, only that counts.

    `one_layer`: they were given together, so what says the same in two ways stays, to be refused.
    """
    if len(layers) == 1:
        return layers[0]
    *_, last = layers = tuple(map(_plain, layers))
    if not isinstance(last, Mapping):
        return last
    tables = [layer for layer in layers if isinstance(layer, Mapping)]
    if not one_layer:
        tables = _without_rivals(tables)
    return {
        key: _layered(*(table[key] for table in tables if key in table), one_layer=one_layer)
        for key in dict.fromkeys(chain(*tables))
    }


def _without_rivals(tables: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Take out of lower layers what an upper one says in another way."""
    for one, other in RIVALS.items():
        upper: set[str] = set()
        for table in reversed(tables):
            said = {name for name in (one, other) if _is_said(table.get(name))}
            upper = upper or said
        gone = {one, other} - upper if upper else set()
        if gone:
            tables = [{name: value for name, value in table.items() if name not in gone} for table in tables]
    return tables


def _is_said(value: Any) -> bool:
    return value is not None and not isinstance(value, Unset)


def _queues_over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Any:
    """Lay the changes of each queue over its own part; if it has none, over that of the patterns that match it.

    If none of these has that part, it is the shared one with its changes.
    """
    changed = _plain(changes["queues"])
    if not isinstance(changed, Mapping):
        return changed
    queues = {**base["queues"], **dict.fromkeys(changed)}  # in the order in which they are known
    patterns = patterns_of(name for name in queues if isinstance(name, str))
    # A section is laid over patterns, and a pattern over those that are less specific: so these come first.
    for name in (*reversed(patterns), *(name for name in queues if name not in patterns)):
        if name not in changed:
            continue
        own, parts = base["queues"].get(name, {}), _plain(changed[name])
        if not isinstance(parts, Mapping):
            queues[name] = parts
            continue
        above = (
            [queues[over] for over in lineage(patterns, patterns, name) if over != name]
            if isinstance(name, str)
            else []
        )
        for part, settings in parts.items():
            lower = (section[part] for section in (own, *above) if isinstance(section, Mapping) and section.get(part))
            below = next(((found,) for found in lower), (base.get(part), changes.get(part)))
            own = {**own, part: _layered(*below, settings)}
        queues[name] = own
    return queues


def _is_given(changes: Any, keys: _Keys) -> bool:
    for key in keys:
        changes = _plain(changes)
        if not isinstance(changes, Mapping) or key not in changes:
            return False
        changes = changes[key]
    return True


def _load(
    cls: type[C],
    base: Section | None,
    changes: Any,
    source: str = "",
    faults: Iterable[ConfigurationError] = (),
) -> C:
    """Lay `changes` over `base`; raise what is wrong with them after the `faults` of reading them."""
    if not isinstance(changes, Mapping):
        raise ConfigurationError(f"a configuration is a mapping: {shown(changes)} is none", value=changes)
    if isinstance(base, cls):
        cls = type(base)  # it may have more sections
    found = list(faults)
    tables = _plain(base or cls())
    merged = _layered(tables, {name: part for name, part in changes.items() if name != "queues"})
    if "queues" in changes:
        merged["queues"] = _queues_over(tables, changes)
    try:
        config: C = _converter.structure(merged, cls)
    except ClassValidationError as error:
        located = list(_located(error))
        shared = {keys for keys, *_ in located}
        found += [
            ConfigurationError(f"{_path(keys)}{text}", field=_path(keys), value=value)
            for keys, text, value in located
            # A queue inherits the faults of the shared part; once is enough.
            if keys[2:] not in shared or _is_given(changes, keys)
        ]
        raise _report(found, source) from None
    if found:
        raise _report(found, source)
    return config


def from_mapping(cls: type[C], mapping: Mapping[str, Any], base: Section | None = None) -> C:
    """See `BackpressureConfig.from_mapping`."""
    return _load(cls, base, mapping)


def from_django(cls: type[C], settings: Any, base: Section | None = None) -> C:
    """See `BackpressureConfig.from_django`."""
    if not isinstance(settings, Mapping):
        rule = 'give settings.BACKPRESSURE, a dict such as {"POLLING": {"INTERVAL": "2s"}}'
        raise ConfigurationError(f"settings is a {type(settings).__name__}: {rule}", field="settings")
    faults: list[ConfigurationError] = []
    tables = _in_lower_case(settings, (), faults)
    return _load(cls, base, tables, "settings.BACKPRESSURE (polling.interval is POLLING, INTERVAL)", faults)


def _in_lower_case(table: Any, keys: _Keys, faults: list[ConfigurationError]) -> Any:
    """Return a table whose names of settings are in lower case; other values, and names of queues, as they are."""
    if not isinstance(table, Mapping) or len(keys) > _MAX_LEVELS:
        return table
    lowered: dict[Any, Any] = {}
    for given, value in table.items():
        is_setting = isinstance(given, str) and given.isupper() and keys not in _BY_NAME
        name = given.lower() if is_setting else given
        path = (*keys, str(name))
        if name in lowered:
            faults.append(_fault(path, value, "given in upper case and in lower case; remove one"))
        lowered[name] = _in_lower_case(value, path, faults)
    return lowered


def to_dict(config: Section) -> dict[str, Any]:
    """See `BackpressureConfig.to_dict`."""
    tables: dict[str, Any] = {}
    for field in _fields(type(config)):
        value = getattr(config, field.name)
        # ``None`` means that a queue uses what lies below, or it has a text.
        value = field.metadata.get(NONE_TEXT) if value is None else value
        if CODE_ONLY not in field.metadata and value is not None:
            tables[field.name] = _bare(value)
    for one, other in RIVALS.items():
        if one in tables:
            tables.pop(other, None)
    return tables


def _bare(value: Any) -> Any:
    """Return a value ready for JSON, without the mark of a default."""
    if attrs.has(type(value)):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {name: _bare(of_name) for name, of_name in value.items()}
    if isinstance(value, tuple):
        return [*value]
    value = _plain_value(value)
    if isinstance(value, Stated):
        return f"{float(value)!r}s"  # a bare number would be questioned
    if isinstance(value, Fraction):
        return str(value)
    return value.real if isinstance(value, Unset) and isinstance(value, int | float) else value


def validate(config: Section) -> None:
    """See `BackpressureConfig.validate`."""
    _load(type(config), config, {})


def _nested(keys: _Keys, value: Any) -> Any:
    return functools.reduce(lambda inner, key: {key: inner}, reversed(keys), value)


def evolve(config: C, changes: Mapping[Any, Any]) -> C:
    """See `BackpressureConfig.evolve`."""
    tables: dict[str, Any] = {}
    faults = []
    for path, value in changes.items():
        if not isinstance(path, str) or not re.fullmatch(rf"{_SEGMENT}(?:\.{_SEGMENT})*", path, re.DOTALL):
            hint = 'write it as thresholds.low_priority.red_max or queues."email-queue".curve.red_max_delay'
            faults.append(ConfigurationError(f"{shown(path)} is no path: {hint}", value=path))
            continue
        keys = tuple(
            re.sub(r"\\(.)", r"\1", key[1:-1], flags=re.DOTALL) if key.startswith('"') else key
            for key in re.findall(_SEGMENT, path, re.DOTALL)
        )
        if len(keys) > _MAX_LEVELS:
            faults.append(_fault(keys[:_MAX_LEVELS], value, f"no setting is {len(keys)} levels deep"))
            continue
        tables = _layered(tables, _nested(keys, value), one_layer=True)
    return _load(type(config), config, tables, faults=faults)


def _parse_json(text: str, faults: list[ConfigurationError]) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for key, value in pairs:
            if key in table:
                faults.append(_fault((key,), value, "given twice in one table; remove one"))
            table.setdefault(key, value)
        return table

    return json.loads(text, object_pairs_hook=unique)


def _parse_toml(text: str, _: list[ConfigurationError]) -> Any:
    if _TOO_MANY_PARTS.search(text):
        raise RecursionError
    return tomllib.loads(text)


_PARSERS = {".json": _parse_json, ".toml": _parse_toml}


def from_file(cls: type[C], path: str | os.PathLike[str], base: Section | None = None) -> C:
    """See `BackpressureConfig.from_file`."""
    tables, faults = read_tables(path)
    return _load(cls, base, tables, str(path), faults)


def read_tables(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[ConfigurationError]]:
    """Return what a file holds, and which of its settings are given twice.

    Raises:
        ConfigurationError: it cannot be read.
    """

    def refused(reason: str) -> ConfigurationError:
        return ConfigurationError(f"configuration file {str(path)!r} {reason}", value=str(path))

    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in _PARSERS:
        raise refused("has no suffix that tells its format: write TOML or JSON and name it .toml or .json")
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise refused(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > _MAX_BYTES:
        raise refused("is larger than 1 MiB: no configuration is, check the path")
    faults: list[ConfigurationError] = []
    try:
        tables = _PARSERS[suffix](data.decode("utf-8-sig"), faults)
    except RecursionError:
        raise refused(f"is nested more deeply than any setting: use at most {_MAX_LEVELS} levels") from None
    except ValueError as error:
        raise refused(f"is no {suffix[1:].upper()}: {error}") from error
    if not isinstance(tables, dict):
        raise refused("holds no table of settings: begin it with { and end it with }")
    return tables, faults


def _env_value(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, str | int | float) else text


def from_env(cls: type[C], environ: Mapping[str, str] | None = None, base: Section | None = None) -> C:
    """See `BackpressureConfig.from_env`."""
    tables: dict[str, Any] = {}
    faults: list[ConfigurationError] = []
    seen: dict[_Keys, str] = {}
    for given, text in sorted((os.environ if environ is None else environ).items()):
        name = given.upper()
        if not name.startswith(_PREFIX) or name in _NO_SETTINGS or name.startswith("BACKPRESSURE_TEST_"):
            continue
        keys = tuple(name.removeprefix(_PREFIX).lower().split("__"))
        value: Any = None
        variable = _path((given[:_MAX_KEY],))
        if keys in seen:
            rule = f"{seen[keys]} and {variable} name the same setting; unset one"
        elif any(keys[: len(table)] == table != keys for table in _BY_NAME):
            table = "__".join(next(table for table in _BY_NAME if keys[: len(table)] == table)).upper()
            rule = f"set queues in a file, or unset {variable} and give BACKPRESSURE_{table} as a JSON object"
        elif len(keys) > _MAX_LEVELS:
            keys, rule = keys[:1], f"unset {variable}: no setting is {len(keys)} levels deep"
        elif not text.strip():
            rule = f"give a value or unset {variable}"
        else:
            rule = ""
            value = _env_value(text)
            if keys in _BY_NAME:
                try:
                    value = _parse_json(text, faults)
                except (ValueError, RecursionError):
                    rule = "give a JSON object"
        if rule:
            faults.append(_fault(keys, text, rule))
        else:
            tables = _layered(tables, _nested(keys, value), one_layer=True)
        seen.setdefault(keys, variable)
    return _load(cls, base, tables, "the environment (polling.interval is BACKPRESSURE_POLLING__INTERVAL)", faults)
