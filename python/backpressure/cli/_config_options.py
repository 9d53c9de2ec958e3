"""The options that say which configuration a command works with, and the order in which they apply."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backpressure._model.config.root import BackpressureConfig
from backpressure._model.errors import ConfigurationError
from backpressure.cli._endings import Finding, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ConfigArgument", "ConfigFile", "Faults", "FromEnv", "Settings", "load", "source"]

ConfigArgument = Annotated[Path | None, typer.Argument(metavar="CONFIG", help="TOML or JSON file.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML or JSON file; without it the defaults hold.")
]
FromEnv = Annotated[bool, typer.Option("--env", help="Lay the environment over it: BACKPRESSURE_POLLING__INTERVAL=5s.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Lay one setting over it: thresholds.low_priority.red_max=2000 or queues.email-queue.circuit."
        "failure_threshold=9. A queue with a dot in its name needs quotes. Repeatable.",
    ),
]

_SUFFIXES = frozenset({".toml", ".json"})
_SETTING = re.compile(r'((?:[^="]|"(?:[^"\\]|\\.)*")+)=(.*)', re.DOTALL)


class Faults(Finding):
    """A file or the environment holds no valid configuration."""

    def __init__(self, error: ConfigurationError, where: str) -> None:
        self.errors = error.faults or (error,)
        count = "1 fault" if len(self.errors) == 1 else f"{len(self.errors)} faults"
        super().__init__(f"{count} in {where}", *map(str, self.errors))


def source(file: Path | None, env: bool, settings: Sequence[str] | None) -> str:
    """Say where the configuration comes from."""
    parts = [str(file or "defaults"), *["environment"] * env, *["--set"] * bool(settings)]
    return " + ".join(parts)


def load(file: Path | None, env: bool, settings: Sequence[str] | None) -> BackpressureConfig:
    """Return the defaults with the file, the environment and single settings laid over them, in that order.

    Raises:
        Faults: the file or the environment is faulty.
        Refusal: the file cannot be read, or a single setting is faulty.
    """
    config = BackpressureConfig()
    if file is not None:
        try:
            config = BackpressureConfig.from_file(file)
        except ConfigurationError as error:
            if isinstance(error.__cause__, OSError) or file.suffix.lower() not in _SUFFIXES:
                raise Refusal(str(error)) from None
            raise Faults(error, str(file)) from None
    if env:
        try:
            config = BackpressureConfig.from_env(base=config)
        except ConfigurationError as error:
            where = "the environment (polling.interval is BACKPRESSURE_POLLING__INTERVAL)"
            raise Faults(error, where) from None
    if not settings:
        return config
    try:
        return config.evolve(dict(map(_setting, settings)))
    except ConfigurationError as error:
        raise Refusal("--set cannot be applied", *map(str, error.faults or (error,))) from None


def _setting(text: str) -> tuple[str, Any]:
    parts = _SETTING.fullmatch(text)
    if parts is None:
        raise Refusal(f"--set {text!r} is no setting: write it as thresholds.low_priority.red_max=2000")
    path, value = parts.groups()
    with contextlib.suppress(ValueError, RecursionError):
        return path, json.loads(value)
    return path, value
