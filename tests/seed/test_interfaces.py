"""Every name of the description exists in Python, with its parameters, fields and texts."""

from __future__ import annotations

import inspect
import re
import tomllib
from typing import Any

import attrs
import pytest

import backpressure
from backpressure import (
    AsyncBackpressureController,
    BackpressureController,
    CircuitOpenError,
    ControllerNotStartedError,
    JobShedError,
    StatsProvider,
    StatsUnavailableError,
)
from support.seed_document import DATA, block, snake

SYMBOLS: dict[str, str | list[str]] = tomllib.loads((DATA / "seed_statements.toml").read_text("utf-8"))["symbols"]


def methods(interface: str) -> dict[str, list[str]]:
    """Return the parameters of each method that the description gives `interface`, in Python's way of writing."""
    found = (re.match(r"(\w+)\((.*?)\) |(\w+)\((.*)\)$", line) for line in block(f"type {interface} interface"))
    signatures = {match[1] or match[3]: match[2] or match[4] or "" for match in found if match}
    return {
        snake(name): [snake(part.split()[0]) for part in parameters.split(", ") if part and "context." not in part]
        for name, parameters in signatures.items()
    }


@pytest.mark.parametrize(
    "path", [path for paths in SYMBOLS.values() for path in ([paths] if isinstance(paths, str) else paths)]
)
def test_every_symbol_has_its_python_name(path: str) -> None:
    name, _, parameter = path.removesuffix(")").partition("(")
    found: Any = backpressure
    for part in name.split("."):
        found = getattr(found, part)
    if parameter:
        assert parameter in inspect.signature(found).parameters


@pytest.mark.parametrize("controller", [BackpressureController, AsyncBackpressureController])
@pytest.mark.parametrize(("name", "parameters"), methods("BackpressureController").items())
def test_controllers_have_the_methods_with_their_parameters(
    controller: type[object], name: str, parameters: list[str]
) -> None:
    taken = list(inspect.signature(getattr(controller, name)).parameters)
    assert taken[1 : 1 + len(parameters)] == parameters


def test_the_controllers_interface_is_read_in_full() -> None:
    assert methods("BackpressureController") == {
        "suggest_throttle": ["priority", "queue_name"],
        "run": ["priority", "queue_name", "work"],
        "process_batch": ["jobs"],
        "get_circuit_state": ["queue_name"],
        "set_manual_override": ["enabled"],
        "start": [],
        "stop": [],
        "health": [],
    }


@pytest.mark.parametrize(("name", "parameters"), methods("StatsProvider").items())
def test_providers_have_the_methods_with_their_parameters(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(StatsProvider, name)).parameters) == ["self", *parameters]


def test_decisions_and_jobs_have_the_fields_of_the_examples() -> None:
    assert {"delay", "should_shed"} <= {*backpressure.ThrottleDecision.__match_args__}
    required = [field.name for field in attrs.fields(backpressure.BatchJob) if field.default is attrs.NOTHING]
    assert required == ["priority", "queue_name", "work"]


@pytest.mark.parametrize(
    ("variable", "error"),
    [
        ("ErrJobShed", JobShedError),
        ("ErrCircuitOpen", CircuitOpenError),
        ("ErrControllerNotStarted", ControllerNotStartedError),
        ("ErrStatsUnavailable", StatsUnavailableError),
    ],
)
def test_every_error_variable_is_an_exception(variable: str, error: type[Exception]) -> None:
    assert any(line.startswith(variable) for line in block("ErrJobShed  "))
    assert error.__name__ == f"{variable.removeprefix('Err')}Error"
    assert issubclass(error, backpressure.BackpressureError)
