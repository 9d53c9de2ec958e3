"""What reads a recording."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backpressure._recording.book import Book
from backpressure._recording.row import COLUMNS, Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

__all__ = ["Recording"]


class Recording:
    """A recording that `Recorder` or ``backpressure record`` has made, or still makes.

    Immutable, holds nothing open, and reads what the file says when it is asked. Thread-safe.

    Args:
        path: of the file.

    Example:
        >>> Recording("nowhere.bpr").queues()
        Traceback (most recent call last):
            ...
        backpressure.RecordingError: recording nowhere.bpr does not exist: make one with backpressure record

    Raises:
        RecordingError: by every method: the file is missing, damaged, or no recording.
    """

    __module__ = "backpressure"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._book = Book(Path(path))

    @property
    def path(self) -> Path:
        """The file."""
        return self._book.path

    def queues(self) -> list[str]:
        """Return the names of the recorded queues, in the order of the alphabet."""
        return self._book.queues()

    def policies(self) -> dict[int, dict[str, Any]]:
        """Return the policies that were in force, by the number that rows have.

        They are settings, as `BackpressureConfig.from_mapping` takes them.
        """
        return {number: json.loads(told) for number, told in self._book.policies().items()}

    def queue(self, name: str, *, since_ms: int | None = None, until_ms: int | None = None) -> Iterator[Row]:
        """Yield the rows of a queue in the order of their time, an hour's at a time.

        Args:
            name: of the queue.
            since_ms: milliseconds of Unix time of the first row that is wanted; ``None``: of all.
            until_ms: the same of the first that is not.
        """
        for hour in self._book.hours(name) or self._must_have(name):
            for row in self._book.rows(name, hour, hour):
                if (since_ms is None or row.at_ms >= since_ms) and (until_ms is None or row.at_ms < until_ms):
                    yield row

    def _must_have(self, name: str) -> list[int]:
        self._book.rows(name, 0, 0)  # raises if there is no such queue
        return []

    def to_csv(self, file: TextIO, queues: Sequence[str] | None = None) -> int:
        """Write rows as CSV, with a line of names first; what is not known is empty. Return how many rows.

        Args:
            file: opened with ``newline=""``.
            queues: those to write; ``None``: all.
        """
        written = 0
        writer = csv.writer(file)
        writer.writerow(("queue", *COLUMNS))
        for name in self.queues() if queues is None else queues:
            for row in self.queue(name):
                writer.writerow((name, *row))
                written += 1
        return written

    def to_parquet(self, path: str | os.PathLike[str], queues: Sequence[str] | None = None) -> int:
        """Write rows as a Parquet file, with the columns of `to_csv`; what is not known is null. Return how many rows.

        Needs pyarrow, which no extra installs: it is larger than everything else together.

        Args:
            path: of the file, which is replaced if it is there.
            queues: those to write; ``None``: all.

        Raises:
            ModuleNotFoundError: pyarrow is not installed.
        """
        try:
            import pyarrow as pa  # noqa: PLC0415 - nothing else needs it
            from pyarrow import parquet  # noqa: PLC0415 - likewise
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "pyarrow":
                raise
            told = "Parquet needs pyarrow: pip install pyarrow, or write CSV"
            raise ModuleNotFoundError(told, name="pyarrow") from None
        names = self.queues() if queues is None else queues
        fields = [("queue", pa.string()), *((name, pa.int64()) for name in COLUMNS)]
        schema, written = pa.schema(fields), 0
        with parquet.ParquetWriter(os.fspath(path), schema, compression="zstd") as writer:
            for name in names:
                hours = self._book.hours(name) or self._must_have(name)
                for day in range(0, len(hours), 24):
                    rows = self._book.rows(name, hours[day], hours[day : day + 24][-1])
                    columns = [[name] * len(rows), *map(list, zip(*rows, strict=True))]
                    writer.write_table(pa.table(columns, schema=schema))
                    written += len(rows)
        return written
