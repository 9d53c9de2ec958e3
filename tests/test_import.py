"""What `import backpressure` loads, and how it chooses its engine."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import get_type_hints

import attrs
import pytest

import backpressure
from backpressure import providers


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


def test_nothing_heavy_is_loaded() -> None:
    done = python(
        "import sys, backpressure; print([m for m in sys.modules if m.split('.')[0] in "
        "{'asyncio', 'redis', 'prometheus_client', 'cattrs', 'click', 'rich', 'starlette', 'uvicorn'}])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_is_there() -> None:
    assert all(getattr(backpressure, name) is not None for name in backpressure.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = backpressure.nothing


def test_the_engine_is_chosen_by_the_environment() -> None:
    assert python("import backpressure; print(backpressure.ENGINE)", BACKPRESSURE_ENGINE="pure").stdout == "pure\n"
    done = python("import backpressure", BACKPRESSURE_ENGINE="rust")
    assert "set it to auto, native or pure" in done.stderr


def test_a_broken_extension_raises_instead_of_falling_back(tmp_path: object) -> None:
    code = (
        "import sys, importlib.machinery as m, importlib.util as u\n"
        "class Broken:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'backpressure._native':\n"
        "            return u.spec_from_loader(name, self)\n"
        "    def create_module(self, spec): raise ImportError('undefined symbol')\n"
        "    def exec_module(self, module): pass\n"
        "sys.meta_path.insert(0, Broken())\n"
        "import backpressure\n"
    )
    done = python(code, BACKPRESSURE_ENGINE="auto")
    assert done.returncode != 0
    assert "undefined symbol" in done.stderr


def test_without_an_extension_the_pure_engine_serves() -> None:
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'backpressure._native': raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import backpressure; print(backpressure.ENGINE)\n"
    )
    done = python(code, BACKPRESSURE_ENGINE="native")
    assert "ModuleNotFoundError" in done.stderr


ATTRS_CLASSES = [
    public for name in backpressure.__all__ if attrs.has(public := getattr(backpressure, name)) and type(public) is type
]


def test_every_public_name_says_that_it_is_public() -> None:
    named = {name: getattr(backpressure, name) for name in backpressure.__all__}
    told = {name: value.__module__ for name, value in named.items() if isinstance(value, type) or callable(value)}
    assert len(told) > 40
    assert set(told.values()) == {"backpressure"}


@pytest.mark.parametrize("public", ATTRS_CLASSES, ids=lambda public: public.__name__)
def test_the_types_of_public_values_can_be_read(public: type) -> None:
    hints = get_type_hints(public)
    assert {field.name for field in attrs.fields(public)} <= set(hints)
    attrs.resolve_types(public)


def test_values_have_the_module_of_their_class() -> None:
    assert [vars(priority).get("__module__") for priority in backpressure.Priority] == [None] * 3


LAZY = {
    "backpressure._controller.asynchronous": "AsyncBackpressureController",
    "backpressure._telemetry.metrics": "MetricsCollector",
    "backpressure.providers": "RedisStatsProvider, AsyncRedisStatsProvider",
}


@pytest.mark.parametrize(("module", "names"), LAZY.items())
def test_a_name_that_is_loaded_late_is_public_whoever_loads_it(module: str, names: str) -> None:
    done = python(f"from {module} import {names}; print({{it.__module__ for it in ({names},)}})")
    assert done.stdout == "{'backpressure'}\n", done.stderr


def test_providers_say_where_users_import_them_from() -> None:
    here = {name: getattr(providers, name) for name in providers.__all__ if name not in backpressure.__all__}
    kinds = {name: kind.__module__ for name, kind in here.items() if name.endswith("StatsProvider")}
    assert len(kinds) == 5
    assert set(kinds.values()) == {"backpressure.providers"}


@pytest.mark.parametrize(
    "public",
    [
        backpressure.AsyncBackpressureController.suggest_throttle,
        backpressure.AsyncGate.suggest,
        backpressure.BackpressureController.suggest_throttle,
        backpressure.Gate.__enter__,
        backpressure.Gate.suggest,
        backpressure.MetricsCollector,
        backpressure.MetricsCollector.add,
        backpressure.MetricsCollector.remove,
    ],
    ids=lambda public: public.__qualname__,
)
def test_the_types_of_what_is_asked_for_can_be_read(public: object) -> None:
    assert get_type_hints(public)
