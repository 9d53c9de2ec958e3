"""The effective configuration as lines of TOML, with what is not the default marked."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from rich.text import Text

from backpressure._model.config.root import BackpressureConfig
from backpressure.cli._masking import masked_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["config_view", "notes"]

_Flat = dict[tuple[str, ...], Any]


def config_view(config: BackpressureConfig) -> Text:
    """Return valid TOML that `BackpressureConfig.from_file` reads back; queues show what differs."""
    tables = config.to_dict()
    queues: dict[str, Any] = tables.pop("queues")
    shared, defaults = _flat(tables), _flat(BackpressureConfig().to_dict())
    lines = _lines(shared, defaults, "default")
    for name, own in queues.items():
        different = {keys: value for keys, value in _flat(own).items() if value != shared.get(keys)}
        lines.append(Text())
        lines += _lines(different, shared, "shared", ("queues", name)) or [_line(("queues", name), {})]
    return Text("\n").join(lines)


def notes(config: BackpressureConfig, queue_name: str | None = None) -> list[str]:
    """Return what keeps `config` from doing what its thresholds say: for all queues, or for one."""
    recovery = config.recovery
    switches = {"manual_override": recovery.manual_override, "emergency_mode": recovery.emergency_mode}
    told = [f"recovery.{name} is on: everything goes at once" for name, on in switches.items() if on]
    own = [] if queue_name is not None else [name for name in config.queues if config.mode_of(name) != config.mode]
    observed = [name for name in own if config.mode_of(name) == "observe"]
    mode = config.mode if queue_name is None else config.mode_of(queue_name)
    if mode == "observe":
        but = f" (but not of {', '.join(own)})" if own else ""
        told.append(f"mode is observe: advice is counted and logged, but producers are told to go at once{but}")
    elif observed:
        told.append(f"mode is observe for {', '.join(observed)}: producers are told to go at once")
    return told


def _flat(tables: Mapping[str, Any], keys: tuple[str, ...] = ()) -> _Flat:
    flat: _Flat = {}
    for key, value in tables.items():
        flat |= _flat(value, (*keys, key)) if isinstance(value, dict) else {(*keys, key): value}
    return flat


def _lines(values: _Flat, usual: _Flat, called: str, prefix: tuple[str, ...] = ()) -> list[Text]:
    lines: list[Text] = []
    section = None
    for keys, value in values.items():
        path = (*prefix, *keys)
        if lines and path[:-1][:1] != section:
            lines.append(Text())
        section = path[:-1][:1]
        line = _line(path, value)
        if keys in usual and value != usual[keys]:
            line.stylize("bold")
            line.append(f"  # {called}: {_value(usual[keys])}", style="not bold cyan")
        lines.append(line)
    return lines


def _line(keys: tuple[str, ...], value: Any) -> Text:
    return Text(f"{'.'.join(map(_key, keys))} = {_value(value)}")


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z_]+", key) else _value(key)


def _value(value: Any) -> str:
    # What JSON and TOML write in the same way: strings, numbers, true and false, and an empty table.
    return json.dumps(masked_tree(value), ensure_ascii=False)
