"""Which counts survive the end of a process in multiprocess mode, as the page of metrics says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import os, signal, sys
from backpressure import BackpressureController, InMemoryStatsProvider

controller = BackpressureController(None, InMemoryStatsProvider({"q": 0}))
controller.start()
for _ in range(100):
    controller.suggest_throttle("high", "q")
"""


@pytest.mark.parametrize(
    ("end", "kept", "code"),
    [
        ("", 100, 0),
        ("sys.exit(3)", 100, 3),
        ("controller.stop(); os._exit(0)", 100, 0),
        ("os._exit(0)", None, 0),
        ("signal.raise_signal(signal.SIGTERM)", None, -signal.SIGTERM),
    ],
)
def test_which_counts_are_kept(tmp_path: Path, engine_name: str, end: str, kept: int | None, code: int) -> None:
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "BACKPRESSURE_ENGINE": engine_name}
    done = subprocess.run([sys.executable, "-c", PROGRAM + end], env=env, check=False, timeout=50)
    assert done.returncode == code
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))  # type: ignore[no-untyped-call]
    labels = {"priority": "high", "queue": "q", "reason": "backlog_green"}
    assert registry.get_sample_value("backpressure_decisions_total", labels) == kept
