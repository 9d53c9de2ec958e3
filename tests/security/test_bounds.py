"""Names and error types that others choose fill neither the memory nor the metrics page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from backpressure import InMemoryStatsProvider, StatsUnavailableError
from backpressure._telemetry import compliance
from backpressure._telemetry.compliance import Compliance

if TYPE_CHECKING:
    from support.controller_fixtures import MakeController

MANY_NAMES = Path(__file__).with_name("many_names.py")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is known on Linux alone")
def test_memory_is_flat_under_ever_new_names(engine_name: str, engine_module: object) -> None:
    result = subprocess.run(
        [sys.executable, MANY_NAMES, engine_name, "100000"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_evicted_queues_complied_with_is_folded() -> None:
    counted = Compliance(lambda: 0, lambda _: True)
    advice: Any = SimpleNamespace(reason="backlog_red")
    queues = 3 * compliance._MAX_FORGOTTEN
    for number in range(queues):
        advice.queue_name = f"queue-{number}"
        counted.honoured(advice)
        counted.forget(advice.queue_name)
    assert counted.counts() == {"__other__": (queues, queues)}
    assert len(counted._forgotten) == compliance._MAX_FORGOTTEN


@pytest.mark.parametrize("given", ["two words", "x" * 65, "", "a\nb", "\ud800", "ä", 3, None, ["auth"]], ids=repr)
def test_an_error_type_that_is_no_label(make_controller: MakeController, given: Any) -> None:
    provider, registry = InMemoryStatsProvider({"a": 1}), CollectorRegistry()
    controller = make_controller(provider, registry=registry)
    error = StatsUnavailableError("down")
    error.error_type = given
    provider.fail_with(error, "a")  # for one queue
    controller._poller.poll()
    provider.fail_with(error)  # for all
    controller._poller.poll()
    health = controller.health()
    assert (health["provider"], health["polling_errors"]) == ("provider", {"provider": 2})
    generate_latest(registry)


def test_ever_new_error_types_are_counted_together(make_controller: MakeController) -> None:
    provider = InMemoryStatsProvider({"a": 1})
    controller = make_controller(provider)
    for number in range(300):
        provider.fail_with(StatsUnavailableError("down", error_type=f"type-{number}"))
        controller._poller.poll()
    errors = controller.health()["polling_errors"]
    assert len(errors) == 51
    assert errors["type-0"] == 1
    assert errors["provider"] == 250
