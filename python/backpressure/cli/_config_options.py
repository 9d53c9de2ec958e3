"""The options that say which configuration a command works with, and the order in which they apply."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import attrs
import click

from backpressure._model.config.root import BackpressureConfig
from backpressure._model.errors import ConfigurationError
from backpressure.cli._command import argument, gathered
from backpressure.cli._endings import Finding, Refusal

__all__ = ["ConfigOptions", "Faults", "config_argument", "config_file", "config_options"]

_SUFFIXES = frozenset({".toml", ".json"})
_SETTING = re.compile(r'((?:[^="]|"(?:[^"\\]|\\.)*")+)=(.*)', re.DOTALL)


class Faults(Finding):
    """A file or the environment holds no valid configuration."""

    def __init__(self, error: ConfigurationError, where: str) -> None:
        self.errors = error.faults or (error,)
        count = "1 fault" if len(self.errors) == 1 else f"{len(self.errors)} faults"
        super().__init__(f"{count} in {where}", *map(str, self.errors))


@attrs.frozen
class ConfigOptions:
    """What was said of the configuration."""

    file: Path | None = None
    env: bool = False
    settings: tuple[str, ...] = ()

    def source(self) -> str:
        """Say where the configuration comes from."""
        parts = [str(self.file or "defaults"), *["environment"] * self.env, *["--set"] * bool(self.settings)]
        return " + ".join(parts)

    def load(self) -> BackpressureConfig:
        """Return the defaults with the file, the environment and single settings laid over them, in that order.

        Raises:
            Faults: the file or the environment is faulty.
            Refusal: the file cannot be read, or a single setting is faulty.
        """
        config = BackpressureConfig() if self.file is None else _from_file(self.file)
        if self.env:
            try:
                config = BackpressureConfig.from_env(base=config)
            except ConfigurationError as error:
                where = "the environment (polling.interval is BACKPRESSURE_POLLING__INTERVAL)"
                raise Faults(error, where) from None
        if not self.settings:
            return config
        try:
            return config.evolve(dict(map(_setting, self.settings)))
        except ConfigurationError as error:
            raise Refusal("--set cannot be applied", *map(str, error.faults or (error,))) from None


def _from_file(file: Path) -> BackpressureConfig:
    try:
        return BackpressureConfig.from_file(file)
    except ConfigurationError as error:
        if isinstance(error.__cause__, OSError) or file.suffix.lower() not in _SUFFIXES:
            raise Refusal(str(error)) from None
        raise Faults(error, str(file)) from None


def _setting(text: str) -> tuple[str, Any]:
    parts = _SETTING.fullmatch(text)
    if parts is None:
        raise Refusal(f"--set {text!r} is no setting: write it as thresholds.low_priority.red_max=2000")
    path, value = parts.groups()
    with contextlib.suppress(ValueError, RecursionError):
        return path, json.loads(value)
    return path, value


_PATH = click.Path(path_type=Path)
_OVER_IT = (
    click.option("--env", is_flag=True, help="Lay the environment over it: BACKPRESSURE_POLLING__INTERVAL=5s."),
    click.option(
        "--set",
        "settings",
        metavar="PATH=VALUE",
        multiple=True,
        help="Lay one setting over it: thresholds.low_priority.red_max=2000 or queues.email-queue.circuit."
        "failure_threshold=9. A queue with a dot in its name needs quotes. Repeatable.",
    ),
)
#: Gives a command the file alone, by its own name or among others.
config_file = click.option(
    "--config", "file", metavar="FILE", type=_PATH, help="TOML or JSON file; without it the defaults hold."
)
#: Give a command all of them, as its argument `given`: the file by an option, or in the first place.
config_options = gathered("given", ConfigOptions, config_file, *_OVER_IT)
config_argument = gathered(
    "given",
    ConfigOptions,
    argument("file", metavar="[CONFIG]", required=False, type=_PATH, explained="TOML or JSON file."),
    *_OVER_IT,
)
