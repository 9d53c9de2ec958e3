"""Which queues have series of their own in the files of multiprocess mode, where what was once written stays.

All processes that share the directory keep one list of names there, beside the files: dead ones count too, because
their files are still served. An entry holds as long as its process has files, so an emptied directory begins anew.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from backpressure._model.vocabulary import OTHER_QUEUES

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Labels"]

_FILE = "backpressure_queues.txt"
# Another process holds the lock for less than a millisecond, unless it was suspended; then nobody waits for it.
_TRIES = 5
_PAUSE = 0.002


class Labels:
    """The names that one process may use. Not thread-safe: used under the lock of the metrics."""

    def __init__(self) -> None:
        self._mine: set[str] = set()
        # Names of other processes, which may be used too; only of interest until there is no more room.
        self._others: set[str] = set()

    def admit(self, names: Iterable[str], most: int) -> set[str]:
        """Return those of `names` that may be labels, so that there are no more than `most` of all processes."""
        wanted = set(names) - {OTHER_QUEUES}
        fresh = [name for name in names if name in wanted and name not in self._mine]
        if fresh and (len(self._mine | self._others) < most or not self._others.isdisjoint(fresh)):
            try:
                self._share(fresh, most)
            except OSError:  # the directory is full, or cannot be written to: nobody else is told then
                self._take(fresh, most)
        return wanted & self._mine

    def _take(self, names: Iterable[str], most: int) -> list[str]:
        taken = []
        for name in names:
            if name not in self._mine and (name in self._others or len(self._mine | self._others) < most):
                self._mine.add(name)
                taken.append(name)
        return taken

    def _share(self, fresh: list[str], most: int) -> None:
        directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        with (directory / _FILE).open("a+b") as file:
            _lock(file.fileno())
            file.seek(0)
            text = file.read().decode(errors="replace")
            self._others = _living(text, {path.stem.rpartition("_")[2] for path in directory.glob("*.db")})
            lines = [f"{os.getpid()} {name}\n" for name in self._take(fresh, most)]
            whole = not text or text.endswith("\n")  # else a process died while it wrote
            file.write("".join(lines if whole else ["\n", *lines]).encode())


def _living(text: str, processes: set[str]) -> set[str]:
    """Return the names that processes with files have taken."""
    entries = (line.partition(" ") for line in text.split("\n"))
    return {name for process, _, name in entries if name and process in processes}


def _lock(file: int) -> None:
    """Lock an open file until it is closed, where the system can do that and nobody holds it for long."""
    with contextlib.suppress(ImportError):
        import fcntl  # noqa: PLC0415 - not on Windows

        for _ in range(_TRIES):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(_PAUSE)
            else:
                return
