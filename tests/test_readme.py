"""The README's examples run as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from integrations.frameworks import required
from support import doc_examples

if TYPE_CHECKING:
    import redis

README = Path(__file__).parent.parent / "README.md"
BLOCKS = [block.text for block in doc_examples.blocks(README) if block.language == "python"]


def test_ten_lines_run_as_printed() -> None:
    example = BLOCKS[0]
    assert len(example.splitlines()) == 10
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "low job for queue 'analytics-queue' was shed at a backlog of 5000: drop it, or retry in 7.500 s; "
        "sent ['receipt']\n"
    )


def test_ways_to_use_it_run(engine_name: str, engine_module: object) -> None:
    names = doc_examples.namespace(engine_name)
    setting = (
        "letter, jobs, event = 1, [bool], 'click'\n"
        "controller = BackpressureController(None, InMemoryStatsProvider({'email-queue': 0}))\n"
    )
    exec(setting, names)
    with names["controller"]:
        exec(BLOCKS[2], names)


def test_a_hook_takes_two_lines(engine_name: str, redis_client: redis.Redis) -> None:
    required("rq")
    names = doc_examples.namespace(engine_name) | {"connection": redis_client}
    exec("controller = BackpressureController(None, InMemoryStatsProvider({'mail': 0}))", names)
    with names["controller"]:
        exec(BLOCKS[3] + "queue.enqueue(print)", names)
    assert names["queue"].count == 1


def test_what_the_readme_names_exists() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", README.read_text("utf-8"))
    assert [target for target in targets if not (README.parent / target).exists()] == []
