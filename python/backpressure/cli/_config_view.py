"""The effective configuration as lines of TOML, with what is not the default marked."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from rich.text import Text

from backpressure._model.config.root import BackpressureConfig
from backpressure._watch.masking import masked_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["config_view"]

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
