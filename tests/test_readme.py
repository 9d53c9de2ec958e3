"""The README's examples run as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_ten_lines_run_as_printed() -> None:
    example = BLOCKS[0]
    assert len(example.splitlines()) == 10
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "low job for queue 'analytics-queue' was shed at a backlog of 5000: drop it, or retry in 7.500 s; "
        "sent ['receipt']\n"
    )


def test_ways_to_use_it_run() -> None:
    setting = (
        "from backpressure import BackpressureController, BatchJob, InMemoryStatsProvider\n"
        "payment, jobs = 1, [bool]\n"
        "controller = BackpressureController(None, InMemoryStatsProvider({'payments-queue': 0}))\n"
        "controller.start()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{setting}{BLOCKS[2]}\ncontroller.stop()"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
