"""The hook for PyInstaller lists every module that is imported by name alone."""

from __future__ import annotations

import ast
import importlib.metadata
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import backpressure
from backpressure import _pyinstaller

PACKAGE = Path(backpressure.__file__).parent
RUST = PACKAGE.parent.parent / "rust" / "binding" / "src"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the hook tells PyInstaller, of which only two functions are asked."""
    hooks = types.ModuleType("PyInstaller.utils.hooks")
    hooks.copy_metadata = lambda name: [(name, "metadata")]  # type: ignore[attr-defined]
    hooks.collect_data_files = lambda package, includes: [(package, *includes)]  # type: ignore[attr-defined]
    for name in ("PyInstaller", "PyInstaller.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "PyInstaller.utils.hooks", hooks)
    (directory,) = _pyinstaller.get_hook_dirs()
    return runpy.run_path(f"{directory}/hook-backpressure.py")


def named() -> set[str]:
    """Return the modules that are named by texts: in Python, but for the hook itself, and in Rust."""
    files = [file for file in PACKAGE.rglob("*.py") if file.parent.name not in {"_pyinstaller", "cli"}]
    modules = {".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in PACKAGE.rglob("*.py")}
    found: set[str] = set()
    for file in files:
        texts = {
            node.value
            for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        package = "backpressure.providers." if file.parent.name == "providers" else ""
        found |= {name for text in texts for name in (text, package + text) if name in modules}
    for file in RUST.rglob("*.rs"):
        found |= {text for text in file.read_text("utf-8").split('"') if text in modules}
    return found - {"backpressure._model.clock"}  # imported by name on some systems; and everywhere by its own name


def test_it_lists_what_is_imported_by_name(hook: dict[str, Any]) -> None:
    assert len(named()) > 10
    assert named() - set(hook["hiddenimports"]) == set()


def test_it_lists_both_engines_and_nothing_that_is_not_there(hook: dict[str, Any]) -> None:
    assert {"backpressure._native", "backpressure._engine.pure"} <= set(hook["hiddenimports"])
    for name in set(hook["hiddenimports"]) - {"backpressure._native"}:
        place = PACKAGE.parent / Path(*name.split("."))
        assert place.with_suffix(".py").exists() or (place / "__init__.py").exists(), name


def test_scripts_and_metadata_come_with_it(hook: dict[str, Any]) -> None:
    assert hook["datas"] == [("backpressure", "**/*.lua", "console/page/**"), ("producer-backpressure", "metadata")]
    assert [file.name for file in PACKAGE.glob("**/*.lua")] == ["script.lua"]
    assert (PACKAGE / "console/page/index.html").exists()


def test_pyinstaller_finds_it() -> None:
    (point,) = (
        point
        for point in importlib.metadata.entry_points(group="pyinstaller40")
        if point.value.startswith("backpressure.")
    )
    assert point.name == "hook-dirs"
    assert point.load()() == [str(PACKAGE / "_pyinstaller")]
