"""What writes a recording: gathers rows, and puts them into the file once a minute, on a thread of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from backpressure._model.arguments import shown
from backpressure._model.errors import ConfigurationError, RecordingError
from backpressure._recording.book import Book
from backpressure._runtime.threads import spawn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backpressure._recording.row import Row

__all__ = ["Ended", "Recorder"]

#: Is called with why a write failed, ``None`` if it did not, and with the same of the one before.
Ended = Callable[[str | None, str | None], object]

_MINUTE_NS = 60_000_000_000
_TWO_WEEKS = timedelta(days=14)
# Rows that wait for a file that cannot be written: beyond that the oldest are dropped.
_MOST_WAITING = 100_000
# Seconds that the end of a controller waits for the last write.
_LAST = 0.5


class Recorder:
    """Records what a controller reads and decides, in a file, for ``backpressure replay`` and ``recommend``.

    Give one to a controller: ``BackpressureController(config, provider, recorder=Recorder("week.bpr"))``. After each
    poll it gathers a row of every queue that was read; once a minute a thread of its own writes them, so no decision
    and no poll waits for the disk. What cannot be written is told once in the log, counted as ``"recorder"`` in
    ``backpressure_polling_errors_total``, and tried again a minute later. A crash loses the last minute at most.

    Args:
        path: of the file, which is made if there is none, and else continued. ``{pid}`` in it stands for the number of
            the process: one process alone can write to a file.
        keep: how long rows are kept, from a day to a year.

    Thread-safe. A forked child gathers rows of its own, which need a file of their own.

    Raises:
        ConfigurationError: `path` is no path, or `keep` is no such time.

    Example:
        >>> import tempfile
        >>> path = f"{tempfile.mkdtemp()}/week.bpr"
        >>> provider = InMemoryStatsProvider({"mail": 120})
        >>> with BackpressureController(None, provider, recorder=Recorder(path)) as controller:
        ...     controller.suggest_throttle("low", "mail").reason
        <Reason.BACKLOG_YELLOW: 'backlog_yellow'>
        >>> [row.backlog for row in Recording(path).queue("mail")]
        [120]
    """

    __module__ = "backpressure"

    def __init__(self, path: str | os.PathLike[str], *, keep: timedelta = _TWO_WEEKS) -> None:
        given: object = path
        if not isinstance(given, str | os.PathLike) or not os.fspath(given):
            raise ConfigurationError(f"path is {shown(path)}: give the path of a file", field="path", value=path)
        self._template = os.fspath(path)
        kept: object = keep
        if not isinstance(kept, timedelta) or not timedelta(days=1) <= kept <= timedelta(days=366):
            told = "give a timedelta from 1 to 366 days"
            raise ConfigurationError(f"keep is {shown(keep)}: {told}", field="keep", value=keep)
        self._keep_ms = keep // timedelta(milliseconds=1)
        self._lock = threading.Lock()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        # Held for a whole write: rows stay in their order, and who has written finds in the file what was gathered.
        self._writing = threading.Lock()
        self._book = Book(Path(self._template.replace("{pid}", str(self._pid))))
        self._rows: dict[str, list[Row]] = {}
        self._policies: dict[str, int] = {}
        self._written_ns: int | None = None
        self._writer: threading.Thread | None = None
        self._lost = 0
        # When it was written last; 0: this process has not.
        self._now_ms = 0
        #: Rows that were gathered in this process.
        self.gathered = 0
        #: Those of them that are in the file.
        self.written = 0
        #: Why the last write failed; ``None`` if it did not.
        self.problem: str | None = None
        #: Writes that failed in this process.
        self.failures = 0

    @property
    def path(self) -> Path:
        """The file of this process."""
        self._follow_fork()
        return self._book.path

    def claim(self, now_ms: int) -> None:
        """Make this process the writer of the file, and the file if there is none.

        Raises:
            RecordingError: another process writes to it, or it is no recording, or it cannot be written.
        """
        self._follow_fork()
        self._book.claim(now_ms)

    def policy(self, told: str) -> int:
        """Return the number that a policy has among the rows that are given to `take`."""
        self._follow_fork()
        return self._policies.setdefault(told, len(self._policies))

    def take(self, rows: Mapping[str, Row], now_ns: int, ended: Ended) -> None:
        """Take over the rows of a poll, by queue, at a monotonic instant; begin to write if that is due.

        Waits for nothing. How each write ended is told to `ended` from another thread.
        """
        self._follow_fork()
        with self._lock:
            for name, row in rows.items():
                self._rows.setdefault(name, []).append(row)
            self.gathered += len(rows)
            if self._written_ns is None:
                self._written_ns = now_ns
            is_due = now_ns - self._written_ns >= _MINUTE_NS and not (self._writer and self._writer.is_alive())
            if is_due:
                self._written_ns = now_ns
        if is_due:
            self._spawn(ended)

    def finish(self, ended: Ended) -> None:
        """Write what is left, for half a second at most, and let the file go."""
        self._follow_fork()
        end, writer = time.monotonic() + _LAST, self._writer
        if writer is not None:
            writer.join(_LAST)
            if writer.is_alive():  # the disk hangs, and would hold another one too
                return
        last = self._spawn(ended, release=True)
        if last is not None:
            last.join(max(0.0, end - time.monotonic()))

    def write(self, *, release: bool = False) -> None:
        """Write what was gathered, now, after a write that is under way; who will write no more says so by `release`.

        Raises:
            RecordingError: it cannot be written; it is kept for the next time.
        """
        self._follow_fork()
        with self._writing:
            self._write(release)

    def _write(self, release: bool) -> None:
        with self._lock:
            rows, self._rows = self._rows, {}
            policies = {number: told for told, number in self._policies.items()}
        if not rows and not (release and self._now_ms):
            return
        now_ms = max((row.at_ms for every in rows.values() for row in every), default=self._now_ms)
        try:
            self._book.write(rows, policies, now_ms, self._keep_ms, release=release)
            self._now_ms = 0 if release else now_ms
            self.written += sum(map(len, rows.values()))
        except BaseException:
            self._put_back(rows)
            raise

    def _put_back(self, rows: dict[str, list[Row]]) -> None:
        with self._lock:
            for name, newer in self._rows.items():
                rows.setdefault(name, []).extend(newer)
            over = sum(map(len, rows.values())) - _MOST_WAITING
            if over > 0:
                share = -(-over // len(rows))
                self._lost += sum(min(share, len(every)) for every in rows.values())
                rows = {name: every[share:] for name, every in rows.items() if len(every) > share}
            self._rows = rows

    def _spawn(self, ended: Ended, *, release: bool = False) -> threading.Thread | None:
        def work() -> None:
            before, problem = self.problem, None
            try:
                self.write(release=release)
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody else is there to hear of it
                known = isinstance(error, RecordingError)
                told = str(error) if known else f"recording {self._book.path} cannot be written: {error!r}"
                self.failures += 1
                problem = f"{told}; {self._lost} rows are lost" if self._lost else told
            self.problem = problem
            ended(problem, before)

        try:
            self._writer = spawn(work, "recorder")
        except RuntimeError:
            return None  # the interpreter ends, or there is no thread left: what is gathered waits
        return self._writer

    def _follow_fork(self) -> None:
        """Begin anew in a forked child: what its parent gathered is its parent's."""
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            self._begin_anew()
