"""The crates' licences are looked at for every system that gets a wheel."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_target_is_looked_at() -> None:
    built = re.findall(r"target: ([\w-]+),", (ROOT / ".github" / "workflows" / "wheels.yml").read_text("utf-8"))
    looked_at = tomllib.loads((ROOT / "deny.toml").read_text("utf-8"))["graph"]["targets"]
    assert len(built) == 8
    assert sorted(built) == looked_at
