"""The build backend: which wheel an interpreter gets, and which extension a pure install leaves alone."""

from __future__ import annotations

import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]


@pytest.fixture
def backend() -> Any:
    spec = importlib.util.spec_from_file_location("backend", ROOT / "python" / "_build" / "backend.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("implementation", "version", "free_threaded", "pure"),
    [
        ("cpython", (3, 11), False, False),
        ("cpython", (3, 13), False, False),
        ("cpython", (3, 13), True, True),
        ("cpython", (3, 14), True, False),
        ("cpython", (3, 15), True, False),
        ("pypy", (3, 11), False, True),
        ("graalpy", (3, 12), False, True),
    ],
)
def test_an_interpreter_gets_the_wheel_that_can_be_built(
    backend: Any, implementation: str, version: tuple[int, int], free_threaded: bool, pure: bool
) -> None:
    assert backend._only_pure(implementation, version, free_threaded=free_threaded) is pure


def on_pypy(backend: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.sys.implementation, "name", "pypy")


def test_pypy_needs_no_rust(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on_pypy(backend, monkeypatch)
    monkeypatch.setenv("PATH", "")
    assert backend.get_requires_for_build_wheel({}) == ["hatchling>=1.27,<2"]


def test_the_switch_outdoes_the_interpreter(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on_pypy(backend, monkeypatch)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="the native engine needs a Rust toolchain"):
        backend.get_requires_for_build_wheel({"pure-python": "false"})


def test_a_wrong_switch_names_itself(backend: Any) -> None:
    with pytest.raises(SystemExit, match="pure-python='yes' is neither true nor false"):
        backend.get_requires_for_build_wheel({"pure-python": "yes"})


def test_a_pure_install_leaves_other_interpreters_their_extension(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backend, "_PACKAGE", tmp_path)
    own, other = tmp_path / f"_native{EXTENSION_SUFFIXES[0]}", tmp_path / "_native.cpython-39-x86_64-linux-gnu.so"
    own.touch()
    other.touch()
    backend._remove_extension()
    assert list(tmp_path.iterdir()) == [other]
    assert f"removed {own.name}" in capsys.readouterr().err
