"""No Rust file imports one that imports it, by whatever way: in each crate the imports run one way."""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

RUST = Path(__file__).resolve().parent.parent / "rust"
PATH = re.compile(r"\bcrate::((?:\w+::)*)(?:\{([^}]*)\}|(\w+))")


def name_of(file: Path, source: Path) -> str:
    return "::".join(file.relative_to(source).with_suffix("").parts).removesuffix("::mod")


def imports(text: str, modules: set[str]) -> set[str]:
    """Return the modules that a file's text names, but for its tests and its comments."""
    code = re.sub(r"//.*", "", text.split("#[cfg(test)]\nmod tests {", maxsplit=1)[0])
    found = set()
    for prefix, several, one in PATH.findall(code):
        for last in re.findall(r"\w+", several) or [one]:
            parts = [*prefix.split("::")[:-1], last]
            paths = ("::".join(parts[:length]) for length in range(len(parts), 0, -1))
            found.add(next((path for path in paths if path in modules), "lib"))
    return found


@pytest.mark.parametrize("crate", ["core", "binding"])
def test_imports_run_one_way(crate: str) -> None:
    source = RUST / crate / "src"
    files = {name_of(file, source): file for file in source.rglob("*.rs") if file.stem != "tests"}
    graph = {name: imports(file.read_text("utf-8"), set(files)) - {name} for name, file in files.items()}
    assert sum(map(len, graph.values())) > len(graph)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
