"""The file of a recording: an SQLite database of blocks, each of some rows of one queue within one hour.

Blocks are written once a minute, and those of an hour that is over become one. The file is opened for each of this and
closed again: so a fork inherits no connection, and the file can be copied between two writes. A write is a transaction:
a crash loses what was not yet written, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

from backpressure._model.errors import RecordingError
from backpressure._recording.columns import opened, packed, unpacked
from backpressure._recording.row import COLUMNS, HOUR_MS, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Book"]

#: "bprc": by it `file` and SQLite itself know what this is.
_APPLICATION = 0x62707263
_VERSION = 1
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE queues (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE policies (id INTEGER PRIMARY KEY, told TEXT UNIQUE NOT NULL);
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, hour INTEGER NOT NULL, rows INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE INDEX blocks_of_queue ON blocks (queue, hour);
"""
# Seconds that a reader, or a copy, may hold up a write.
_PATIENCE = 10
# What is old is told by a clock that may be wrong for some hours: so many must have been recorded since.
_HOURS_SURE = 24
# A writer of which nothing else is known has ended when it has not written for so long.
_SILENT_MS = 3 * 60_000


class Book:
    """Reads and writes the file; knows no time and no thread.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    # Writing.

    def claim(self, now_ms: int) -> None:
        """Make the file if there is none, and this process its writer.

        Raises:
            RecordingError: another process writes to it, or it is no recording, or it cannot be written.
        """
        with self._opened(write=True) as file:
            self._claim(file, now_ms)

    def write(
        self,
        rows: Mapping[str, Sequence[Row]],
        policies: Mapping[int, str],
        now_ms: int,
        keep_ms: int,
        *,
        release: bool = False,
    ) -> None:
        """Add rows, by queue, whose `policy` is a key of `policies`; drop what is older than it is kept.

        Who will write no more says so by `release`: then another process may at once.

        Raises:
            RecordingError: nothing was written, for the reason that it tells.
        """
        with self._opened(write=True) as file:
            self._claim(file, now_ms)
            numbers = {mine: _number(file, "policies", "told", told) for mine, told in policies.items()}
            hours: set[tuple[int, int]] = set()
            for name, every in rows.items():
                queue = _number(file, "queues", "name", name)
                for hour, some in _by_hour(every):
                    here = [row if row.policy is None else row._replace(policy=numbers[row.policy]) for row in some]
                    _insert(file, queue, hour, here)
                    hours.add((queue, hour))
            self._tidy(file, dict(sorted(hours)))
            self._drop(file, min(now_ms // HOUR_MS, _sure_hour(file)) - keep_ms // HOUR_MS)
            if release:
                file.execute("DELETE FROM about WHERE name = 'writer'")

    def _claim(self, file: sqlite3.Connection, now_ms: int) -> None:
        host, pid, other = socket.gethostname(), os.getpid(), _writer(file)
        if other and (other.get("host"), other.get("pid")) != (host, pid):
            known = _lives(other.get("pid")) if other.get("host") == host else None
            if now_ms - int(other.get("at_ms", 0)) < _SILENT_MS if known is None else known:
                raise RecordingError(
                    f"recording {self.path} is written by process {other.get('pid')} of {other.get('host')}: give each "
                    'process a file of its own, as in "week-{pid}.bpr"'
                )
        told = json.dumps({"host": host, "pid": pid, "at_ms": now_ms})
        file.execute("INSERT OR REPLACE INTO about VALUES ('writer', ?)", (told,))

    def _tidy(self, file: sqlite3.Connection, latest: Mapping[int, int]) -> None:
        """Join the blocks of hours that are over."""
        for queue, hour in latest.items():
            over = file.execute(
                "SELECT hour FROM blocks WHERE queue = ? AND hour < ? GROUP BY hour HAVING count(*) > 1", (queue, hour)
            )
            for (joined,) in over.fetchall():
                with contextlib.suppress(RecordingError):  # what is damaged stays as it is, for the reader to tell
                    rows = list(self._rows(file, queue, joined, joined))
                    file.execute("DELETE FROM blocks WHERE queue = ? AND hour = ?", (queue, joined))
                    _insert(file, queue, joined, rows)

    def _drop(self, file: sqlite3.Connection, oldest: int) -> None:
        """Drop what lies before an hour."""
        if file.execute("DELETE FROM blocks WHERE hour < ?", (oldest,)).rowcount:
            file.execute("PRAGMA incremental_vacuum")

    # Reading.

    def queues(self) -> list[str]:
        """Return the names of the queues that are recorded.

        Raises:
            RecordingError: the file cannot be read, or is no recording.
        """
        with self._opened(write=False) as file:
            return [name for (name,) in file.execute("SELECT name FROM queues ORDER BY name")]

    def policies(self) -> dict[int, str]:
        """Return what policies were in force, by the number that rows have."""
        with self._opened(write=False) as file:
            return dict(file.execute("SELECT id, told FROM policies"))

    def hours(self, name: str) -> list[int]:
        """Return the hours of Unix time of which there are rows of a queue."""
        with self._opened(write=False) as file:
            found = file.execute(
                "SELECT DISTINCT hour FROM blocks JOIN queues ON queues.id = queue WHERE name = ? ORDER BY hour",
                (name,),
            )
            return [hour for (hour,) in found]

    def rows(self, name: str, first: int, last: int) -> list[Row]:
        """Return the rows of a queue from one hour to another, both counted, in the order of their time.

        Raises:
            RecordingError: there is no such queue, or what is there is damaged.
        """
        with self._opened(write=False) as file:
            queue = file.execute("SELECT id FROM queues WHERE name = ?", (name,)).fetchone()
            if queue is None:
                raise RecordingError(f"recording {self.path} has no queue {name!r}")
            return sorted(self._rows(file, queue[0], first, last), key=lambda row: row.at_ms)

    def _rows(self, file: sqlite3.Connection, queue: int, first: int, last: int) -> Iterator[Row]:
        found = file.execute(
            "SELECT rows, data, hour FROM blocks WHERE queue = ? AND hour BETWEEN ? AND ? ORDER BY id",
            (queue, first, last),
        )
        for count, data, hour in found:
            try:
                columns = unpacked(data, len(COLUMNS), count)
            except (ValueError, TypeError) as error:
                raise RecordingError(
                    f"recording {self.path} is damaged in hour {hour} of queue number {queue}: {error}"
                ) from None
            for numbers in zip(*columns, strict=True):
                at_ms, backlog, *more = numbers
                yield Row(at_ms or 0, backlog or 0, *more)

    def blocks(self, name: str, first: int, last: int) -> list[tuple[bytes, int]]:
        """Return the blocks of a queue from one hour to another: columns as bytes, and how many rows.

        They come by hour, and within it in the order of their writing.

        Raises:
            RecordingError: a block is damaged.
        """
        with self._opened(write=False) as file:
            found = file.execute(
                "SELECT data, rows, hour FROM blocks JOIN queues ON queues.id = queue "
                "WHERE name = ? AND hour BETWEEN ? AND ? ORDER BY hour, blocks.id",
                (name, first, last),
            ).fetchall()
        blocks: list[tuple[bytes, int]] = []
        for data, rows, hour in found:
            try:
                blocks.append((opened(data), rows))
            except (ValueError, TypeError) as error:
                raise RecordingError(f"recording {self.path} is damaged in hour {hour} of {name!r}: {error}") from None
        return blocks

    @contextlib.contextmanager
    def _opened(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction.

        Raises:
            RecordingError: it cannot be opened, read or written, or is no recording.
        """
        try:
            with contextlib.closing(self._connect(write=write)) as file:
                file.execute(f"PRAGMA busy_timeout = {1_000 * _PATIENCE}")
                if write and not file.execute("PRAGMA schema_version").fetchone()[0]:
                    file.execute("PRAGMA auto_vacuum = INCREMENTAL")
                file.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    self._check(file, write=write)
                    yield file
                except BaseException:
                    file.rollback()
                    raise
                file.commit()
        except (sqlite3.Error, OSError) as error:
            raise RecordingError(
                f"recording {self.path} cannot be {'written' if write else 'read'}: {error}"
            ) from error

    def _connect(self, *, write: bool) -> sqlite3.Connection:
        if not write and not self.path.is_file():
            raise RecordingError(f"recording {self.path} does not exist: make one with backpressure record")
        mode = "rwc" if write else "ro"
        return sqlite3.connect(f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)

    def _check(self, file: sqlite3.Connection, *, write: bool) -> None:
        (application,) = file.execute("PRAGMA application_id").fetchone()
        (version,) = file.execute("PRAGMA user_version").fetchone()
        (tables,) = file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if write and not tables and not application:
            for statement in filter(str.strip, _TABLES.split(";")):
                file.execute(statement)
            file.execute(f"PRAGMA application_id = {_APPLICATION}")
            file.execute(f"PRAGMA user_version = {_VERSION}")
        elif not tables and not application:
            raise RecordingError(f"recording {self.path} is empty: nothing was written to it yet")
        elif application != _APPLICATION:
            raise RecordingError(f"{self.path} is no recording: another program made it")
        elif version != _VERSION:
            raise RecordingError(
                f"recording {self.path} has version {version}, and this package reads version {_VERSION}: use the "
                "version of the package that made it"
            )


def _number(file: sqlite3.Connection, table: str, column: str, text: str) -> int:
    """Return the number of a text, which it is given if it has none."""
    file.execute(f"INSERT OR IGNORE INTO {table} ({column}) VALUES (?)", (text,))  # noqa: S608 - our own names
    (number,) = file.execute(f"SELECT id FROM {table} WHERE {column} = ?", (text,)).fetchone()  # noqa: S608
    return int(number)


def _sure_hour(file: sqlite3.Connection) -> int:
    """Return the hour since which so many were recorded that its clock was not wrong for a while; 0: there is none."""
    hours = "SELECT DISTINCT hour FROM blocks ORDER BY hour DESC LIMIT 1 OFFSET ?"
    found = file.execute(hours, (_HOURS_SURE - 1,)).fetchone()
    return int(found[0]) if found else 0


def _insert(file: sqlite3.Connection, queue: int, hour: int, rows: Sequence[Row]) -> None:
    data = packed([*zip(*rows, strict=True)])
    file.execute("INSERT INTO blocks (queue, hour, rows, data) VALUES (?, ?, ?, ?)", (queue, hour, len(rows), data))


def _by_hour(rows: Iterable[Row]) -> Iterator[tuple[int, list[Row]]]:
    hours: dict[int, list[Row]] = {}
    for row in rows:
        hours.setdefault(row.at_ms // HOUR_MS, []).append(row)
    yield from hours.items()


def _writer(file: sqlite3.Connection) -> dict[str, Any]:
    """Return who wrote last; empty if nobody does."""
    found = file.execute("SELECT value FROM about WHERE name = 'writer'").fetchone()
    with contextlib.suppress(ValueError):
        told = json.loads(found[0]) if found else {}
        return told if isinstance(told, dict) else {}
    return {}


def _lives(pid: object) -> bool | None:
    """Tell whether a process of this machine lives; ``None``: that is not known."""
    if sys.platform == "win32":
        return None  # to ask there is to send it a signal
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is somebody else's
    return True
