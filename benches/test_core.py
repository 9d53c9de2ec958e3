"""The core's hot functions without Python, timed by criterion (`rust/core/benches`)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from benches.report import nanoseconds

if TYPE_CHECKING:
    from benches.report import Report

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ("cargo", "bench", "--locked", "--quiet", "--target-dir", "target/benches", "--package", "backpressure-core")


def test_core(report: Report, tmp_path: Path) -> None:
    env = {**os.environ, "CRITERION_HOME": str(tmp_path)}
    subprocess.run([*COMMAND, "--bench", "core"], check=True, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    rows = []
    for found in tmp_path.glob("*/new/estimates.json"):
        estimates = json.loads(found.read_text())
        median, deviation = (estimates[key]["point_estimate"] for key in ("median", "median_abs_dev"))
        rows.append((found.parent.parent.name, nanoseconds(median), nanoseconds(deviation)))
    assert rows
    report.table("The core alone, by criterion", ("", "median", "median absolute deviation"), sorted(rows))
