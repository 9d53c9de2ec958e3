"""The week that is shipped is what its script makes, and shows what its pages say of it."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backpressure import BackpressureConfig, Recording
from backpressure.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

FOLDER = Path(__file__).parents[2] / "examples" / "week"
WEEK = FOLDER / "week.bpr"


def script() -> ModuleType:
    found = importlib.util.spec_from_file_location("make_week", FOLDER / "make.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, if there is one: a disk that is asked for ten thousand whole writes may take minutes."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.mark.timeout(300)
def test_the_script_makes_the_week_that_is_shipped(folder: Path) -> None:
    """All rows are the same; bytes may differ, as the libraries that compress them do."""
    script().make(folder / "week.bpr")
    made, shipped = Recording(folder / "week.bpr"), Recording(WEEK)
    assert made.queues() == shipped.queues() == sorted(script().QUEUES)
    assert made.policies() == shipped.policies()
    for name in shipped.queues():
        rows = list(shipped.queue(name))
        assert len(rows) == 7 * 86_400 // script().STEP + 1
        assert list(made.queue(name)) == rows


def test_it_is_small_and_says_nothing_of_who_made_it() -> None:
    content = WEEK.read_bytes()
    assert len(content) < 1_000_000
    assert b'"host"' not in content


def test_observed_decisions_are_replayed_exactly(engine_name: str) -> None:
    told = Replay(Recording(WEEK), BackpressureConfig(), _engine=engine_name).queue("images")
    assert told.evidence == "L2"
    assert told.parity is not None
    assert told.parity.off == 0
