"""The programs of a run as children: started, begun at one instant, and ended by their ids, whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from support.servers import dying_with_parent

__all__ = ["Child", "Children"]

ROOT = Path(__file__).resolve().parent.parent.parent.parent
_END_SECONDS = 20.0


class Child:
    """One program: what it is told, and where it writes what became of it."""

    def __init__(self, module: str, told: dict[str, Any], folder: Path, name: str, env: dict[str, str]) -> None:
        self.to, self.name, self.killed = folder / f"{name}.json", name, False
        self._told = {**told, "to": str(self.to)}
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                dying_with_parent(sys.executable, "-m", module),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **env},
                start_new_session=True,  # Ctrl-C is for the parent, which ends all
                text=True,
            )
        self._say(json.dumps(self._told))

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def await_ready(self) -> None:
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            self._failed()

    def begin(self, at: float) -> None:
        self._say(repr(at))

    def result(self) -> Any:
        """Wait for its end; return what it wrote."""
        if self.process.wait(_END_SECONDS):
            self._failed()
        return json.loads(self.to.read_text())

    def kill(self) -> None:
        self.killed = True
        self.process.kill()
        self.process.wait()

    def check(self) -> None:
        """Raise if it ended early by itself."""
        if not self.killed and self.process.poll():
            self._failed()

    def _failed(self) -> None:
        raise RuntimeError(f"{self.name} ended early:\n{self._log.read_text(errors='replace')[-4_000:]}")


class Children(list[Child]):
    """All of them; at the end of the ``with`` body none lives."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self:
            child.kill()
            for pipe in (child.process.stdin, child.process.stdout):
                if pipe is not None:
                    pipe.close()
