"""Imports run one way: no circles, and each room imports only what stands below it."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "python" / "backpressure"
#: From the top. Rooms on one level do not import each other; "" is the package itself.
LEVELS = (
    ("__main__", "_pyinstaller"),
    ("cli",),
    ("console",),
    ("_watch",),
    ("integrations",),
    ("", "otel", "replay", "testing"),
    ("_recommend",),
    ("_controller", "_replay"),
    ("_telemetry",),
    ("providers", "_engine"),
    ("_age", "_fleet", "_recording"),
    ("_runtime",),
    ("_model",),
)
HEIGHT = {room: -level for level, rooms in enumerate(LEVELS) for room in rooms}
#: `Priority.parse` is public and has to name its errors, whose types are annotated with what stands beside it.
ALLOWED = ("_model.vocabulary", "_model.arguments")

Graph = dict[str, set[str]]


def read() -> Graph:
    """Return what every module imports: at its top, for annotations, inside functions, and by `import_module`."""
    dotted = {path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    files = {name.removesuffix(".__init__"): path for path, name in dotted.items()}
    modules = {*files, "backpressure._native"}
    graph: Graph = {}
    for module, path in files.items():
        found: set[str] = set()
        tree = ast.parse(path.read_text())
        told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Assign) and is_module_name(node)}
        for node in ast.walk(tree):
            if id(node) in told:
                continue
            if isinstance(node, ast.ImportFrom):
                assert node.module, f"{path} imports by dots"
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= names if names <= modules else {node.module, *names}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
                found.add(node.value)
        graph[inside(module)] = {inside(name) for name in (found & modules) - {module}}
    return graph


def is_module_name(node: ast.Assign) -> bool:
    """Tell whether a class only says where it is public."""
    return ast.unparse(node.targets[0]) == "__module__"


def inside(module: str) -> str:
    return module.removeprefix("backpressure").removeprefix(".")


def room_of(module: str) -> str:
    room = module.partition(".")[0]
    return "_engine" if room == "_native" else room


def back_edges(graph: Graph) -> list[str]:
    """Return the imports that do not run downwards, and a circle if there is one."""
    wrong = [
        f"{module} imports {below}"
        for module, imported in graph.items()
        for below in sorted(imported)
        if (room := room_of(module)) != (other := room_of(below)) and HEIGHT[room] <= HEIGHT[other]
    ]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        wrong.append("circle: " + " -> ".join(reversed(error.args[1])))
    return wrong


def test_imports_run_one_way() -> None:
    graph = read()
    assert len(graph) > 100
    graph[ALLOWED[0]].remove(ALLOWED[1])
    assert back_edges(graph) == []


@pytest.mark.parametrize(
    ("graph", "wrong"),
    [
        ({"cli.top": {"_model.stats", ""}, "_engine.choice": {"_native"}}, []),
        ({"_model.stats": {"_engine.word"}}, ["_model.stats imports _engine.word"]),
        ({"providers.memory": {"_engine.word"}}, ["providers.memory imports _engine.word"]),
        ({"_engine.word": {"providers.memory"}}, ["_engine.word imports providers.memory"]),
        ({"providers.sqs": {""}}, ["providers.sqs imports "]),
        ({"providers.memory": {"_native"}}, ["providers.memory imports _native"]),
        ({"_model.a": {"_model.b"}, "_model.b": {"_model.a"}}, ["circle: _model.a -> _model.b -> _model.a"]),
    ],
)
def test_a_back_edge_is_found(graph: Graph, wrong: list[str]) -> None:
    assert back_edges(graph) == wrong
