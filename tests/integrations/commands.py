"""Runs the commands by which frameworks start their workers, with the programs beside this file.

In those programs the hook's controller is not started by anybody.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TESTS = Path(__file__).parents[1]


class Command:
    """A command under way."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self._process = process
        self._output = output

    def until(self, predicate: Callable[[], object]) -> None:
        """Wait until `predicate` holds, which the command is to bring about."""
        deadline = time.monotonic() + 40
        while not predicate():
            assert self._process.poll() is None, self._output.read_text("utf-8")
            assert time.monotonic() < deadline, self._output.read_text("utf-8")
            time.sleep(0.02)

    def outcome(self, *, fails: bool = False) -> str:
        """Wait until the command has ended, and return what it wrote."""
        code, written = self._process.wait(40), self._output.read_text("utf-8")
        assert bool(code) is fails, written
        return written

    def end(self, number: int = signal.SIGTERM) -> None:
        """Ask the command by a signal to end, and wait until it has."""
        self._process.send_signal(number)
        self._process.wait(20)


@contextlib.contextmanager
def command(folder: Path, url: str, *arguments: str) -> Iterator[Command]:
    """Run a module of this interpreter with the server's URL; what it started ends with it."""
    output = folder / "output"
    variables = {
        **os.environ,
        "SERVER_URL": url,
        "PYTHONPATH": f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env=variables,
            stdout=file,
            stderr=file,
            text=True,
            start_new_session=True,
        )
    try:
        yield Command(process, output)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
