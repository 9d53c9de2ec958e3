"""The PEP 517 backend: maturin builds the native wheel, hatchling the pure one and the sdist.

``-C pure-python=true`` chooses the pure wheel, which needs no Rust. maturin cannot make a ``py3-none-any`` wheel, and
hatchling does not compile, so there is a switch. An interpreter that the native engine cannot be built for gets the pure
wheel without being asked. Both builders are imported late, as only the chosen one is installed. The optional
``prepare_metadata`` hooks are left out: frontends then read the metadata from the wheel they build anyway.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

Settings: TypeAlias = "dict[str, str | list[str]] | None"

_SWITCH = "pure-python"
_HATCHLING = ["hatchling>=1.27,<2"]
_MATURIN = ["maturin>=1.10,<2"]
_PACKAGE = Path(__file__).resolve().parent.parent / "backpressure"


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    if _pure(config_settings):
        return _HATCHLING
    _require_cargo()
    return _MATURIN


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return get_requires_for_build_wheel(config_settings)


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    _pure(config_settings)
    return _HATCHLING


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    built: str = _builder(config_settings).build_wheel(wheel_directory, _passed_on(config_settings), metadata_directory)
    return built


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    builder = _builder(config_settings)
    if _pure(config_settings):
        _remove_extension()
    built: str = builder.build_editable(wheel_directory, _passed_on(config_settings), metadata_directory)
    return built


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    built: str = import_module("hatchling.build").build_sdist(sdist_directory, _passed_on(config_settings))
    return built


def _builder(config_settings: Settings) -> ModuleType:
    if _pure(config_settings):
        return import_module("hatchling.build")
    _require_cargo()
    return import_module("maturin")


def _pure(config_settings: Settings) -> bool:
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    usual = "true" if _only_pure(sys.implementation.name, sys.version_info[:2], free_threaded=free_threaded) else "false"
    value = (config_settings or {}).get(_SWITCH, usual)
    if value not in ("true", "false"):
        sys.exit(f"error: {_SWITCH}={value!r} is neither true nor false; pass -C {_SWITCH}=true for the pure wheel")
    return value == "true"


def _only_pure(implementation: str, version: tuple[int, ...], *, free_threaded: bool) -> bool:
    """Tell whether the native engine cannot be built: it enters CPython by itself, and PyO3 has left 3.13t behind."""
    return implementation != "cpython" or (free_threaded and version < (3, 14))


def _passed_on(config_settings: Settings) -> Settings:
    """Return the settings without our own: maturin and hatchling would not know it."""
    return {name: value for name, value in (config_settings or {}).items() if name != _SWITCH}


def _require_cargo() -> None:
    if shutil.which("cargo") is None:
        sys.exit(
            "error: the native engine needs a Rust toolchain, and there is no cargo on PATH. Install one from "
            f"https://rustup.rs, or build the pure-Python engine: pip install . -C {_SWITCH}=true"
        )


def _remove_extension() -> None:
    """A pure editable install means that its interpreter finds no extension; a native one may have left one here."""
    for suffix in EXTENSION_SUFFIXES:
        extension = _PACKAGE / f"_native{suffix}"
        if extension.exists():
            extension.unlink()
            print(f"removed {extension.name}, left by an earlier native build", file=sys.stderr)
