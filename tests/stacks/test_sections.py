"""Pages of stacks tell the same things in the same order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STACKS = Path(__file__).parents[2] / "docs" / "stacks"
SECTIONS = [
    "Install",
    "Configure",
    "Where the controller lives",
    "The code that enqueues",
    "What workers and schedulers do",
    "What callers see",
    "See it",
    "Roll it out",
    "What can go wrong",
]


@pytest.mark.parametrize("name", ["batch-script", "kafka-sqs"])
def test_a_page_has_all_sections_in_order(name: str) -> None:
    text = (STACKS / f"{name}.md").read_text("utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    troubles = text.partition("\n## What can go wrong\n")[2].strip().split("\n- ")
    assert len(troubles) == 3
    assert all("](" in trouble for trouble in troubles)
