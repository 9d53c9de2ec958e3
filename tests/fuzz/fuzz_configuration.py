"""Fuzz target: any bytes as a TOML file, a JSON file, the environment, or dotted paths.

The first byte chooses the source. The result is a configuration that survives being written and read again, or one
error that can be printed.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backpressure import BackpressureConfig, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["WORDS", "check"]


def _names(table: dict[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        yield name
        if isinstance(value, dict):
            yield from _names(value)


#: Words for inputs.
WORDS = sorted({*_names(BackpressureConfig().to_dict()), "excluded_exceptions", "observe", "__", "true", "null", "1e9"})

_MAX_FAULT = 10_000  # two names of 255 characters, escaped, and the rule
_folder = tempfile.TemporaryDirectory(prefix="backpressure-fuzz-")


def _from_file(suffix: str) -> Callable[[bytes], BackpressureConfig]:
    def load(data: bytes) -> BackpressureConfig:
        path = Path(_folder.name, f"fuzzed{suffix}")
        path.write_bytes(data)
        return BackpressureConfig.from_file(path)

    return load


def _from_env(data: bytes) -> BackpressureConfig:
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    pairs = (line.partition("=") for line in lines)
    return BackpressureConfig.from_env({f"BACKPRESSURE_{name}": value for name, _, value in pairs})


def _evolved(data: bytes) -> BackpressureConfig:
    changes = {}
    for line in data.decode("utf-8", "replace").split("\n"):
        path, _, text = line.partition("=")
        changes[path] = text
        with contextlib.suppress(ValueError, RecursionError):
            changes[path] = json.loads(text)
    return BackpressureConfig().evolve(changes)


_SOURCES = {ord("t"): _from_file(".toml"), ord("j"): _from_file(".json"), ord("e"): _from_env, ord("p"): _evolved}


def check(data: bytes) -> None:
    """Fail if these bytes break the promise above."""
    source = _SOURCES.get(data[0]) if data else None
    if source is None:
        return
    try:
        config = source(data[1:])
    except ConfigurationError as error:
        for fault in error.faults or (error,):
            text = str(fault)
            assert len(text) <= _MAX_FAULT, f"{len(text)} characters: {text[:200]}"
            assert text.isprintable(), text
        return
    config.validate()
    assert BackpressureConfig.from_mapping(config.to_dict()) == config
