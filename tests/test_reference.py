"""Every public name is documented: what it is, units, errors, thread-safety, and an example that runs."""

from __future__ import annotations

import ast
import builtins
import doctest
import enum
import inspect
import re
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

import backpressure
from backpressure import otel, providers, replay, testing
from backpressure._controller import gate
from backpressure._model import clock
from support import doc_examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGES = Path(__file__).parent.parent / "docs" / "reference"
MODULES = (backpressure, otel, providers, replay, testing)
#: Public too, but seldom named: annotations ask for them.
MORE = (clock.Clock, gate.Gate, gate.AsyncGate)
PUBLIC = {name: getattr(module, name) for module in MODULES for name in module.__all__} | {
    cls.__name__: cls for cls in MORE
}
CLASSES = {name: value for name, value in PUBLIC.items() if isinstance(value, type)}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}


def own_methods() -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that classes have from this package."""
    for kind, cls in CLASSES.items():
        for name in dir(cls):
            owners = [base for base in cls.__mro__ if name in vars(base)]
            if not name.startswith("_") and owners and owners[0].__module__.startswith("backpressure"):
                member = inspect.getattr_static(cls, name)
                member = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if inspect.isfunction(member):
                    yield f"{kind}.{name}", member


METHODS = dict(own_methods())
DOCUMENTED = {**CLASSES, **FUNCTIONS, **METHODS}
#: Classes made with arguments of their own.
VALUES = {
    name: cls
    for name, cls in CLASSES.items()
    if not issubclass(cls, (BaseException, enum.Enum)) and not getattr(cls, "_is_protocol", False)
}


def doc(documented: object) -> str:
    return inspect.getdoc(documented) or ""


def parameters(documented: Callable[..., object]) -> dict[str, inspect.Parameter]:
    public = inspect.signature(documented).parameters.items()
    return {name: parameter for name, parameter in public if not name.startswith("_") and name != "self"}


def test_everything_has_a_docstring() -> None:
    assert [name for name, documented in DOCUMENTED.items() if not doc(documented)] == []


def test_every_class_and_function_has_an_example() -> None:
    assert [name for name in (*CLASSES, *FUNCTIONS) if ">>>" not in doc(PUBLIC[name])] == []


@pytest.mark.parametrize("name", [name for name, documented in DOCUMENTED.items() if ">>>" in doc(documented)])
def test_the_example_runs(
    name: str, engine_name: str, engine_module: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # what it makes goes when the test does
    names = doc_examples.namespace(engine_name)
    example = doctest.DocTestParser().get_doctest(doc(DOCUMENTED[name]), names, name, None, None)
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert not report, "".join(report)


def test_a_class_names_its_parameters() -> None:
    unnamed = [
        f"{name}.{field}"
        for name, cls in VALUES.items()
        if "Made by ``" not in doc(cls)
        for field in (attrs.fields_dict(cls) if attrs.has(cls) else parameters(cls))
        if not field.startswith("_") and not re.search(rf"\b{field}\b", doc(cls))
    ]
    assert unnamed == []


def test_a_class_says_what_threads_may_do() -> None:
    assert [
        name for name, cls in VALUES.items() if not re.search("thread|task|immutable", doc(cls), re.IGNORECASE)
    ] == []


def test_durations_have_their_unit() -> None:
    # `slot` and its like refer to `run`, which says it.
    unitless = [
        name
        for name, function in (FUNCTIONS | METHODS).items()
        if any("float" in str(parameter.annotation) for parameter in parameters(function).values())
        and not re.search("second|`(?:Async)?BackpressureController\\.", doc(function))
    ]
    assert unitless == []


def raised_by(function: Callable[..., object]) -> set[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [node.exc.func for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    return {call.id for call in calls if isinstance(call, ast.Name) and call.id.endswith("Error")}


def test_what_is_raised_is_told() -> None:
    untold = [
        f"{name}: {error}"
        for name, function in (FUNCTIONS | METHODS).items()
        for error in raised_by(function)
        if error not in doc(function)
    ]
    assert untold == []


def test_what_is_told_to_be_raised_exists() -> None:
    section = re.compile(r"^Raises:\n((?:    .*\n?)+)", re.MULTILINE)
    told = [
        error
        for documented in DOCUMENTED.values()
        for found in section.findall(doc(documented))
        for names in re.findall(r"^    (\w+(?:, \w+)*):", found, re.MULTILINE)
        for error in names.split(", ")
    ]
    assert len(told) > 50
    assert [error for error in told if error not in PUBLIC and not hasattr(builtins, error)] == []


def test_the_reference_has_every_name() -> None:
    pages = "".join(page.read_text("utf-8") for page in PAGES.glob("*.md"))
    shown = set(
        re.findall(r"^\.\. (?:auto\w+|py:data):: backpressure\.(?:\w+\.)?(\w+)(?:\(.*\))?$", pages, re.MULTILINE)
    )
    assert set(PUBLIC) - shown == set()
