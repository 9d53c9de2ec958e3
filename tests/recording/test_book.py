"""The file of a recording: one writer, transactions, hours that become one block, old ones that go, clear words."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backpressure import BackpressureConfig, Recording, RecordingError
from backpressure._recording.book import Book
from backpressure._recording.row import HOUR_MS, Row
from backpressure.replay import Replay

HOUR = 500_000
BEGIN = HOUR * HOUR_MS
DAY_MS = 24 * HOUR_MS
NOBODY = 2**22 + 1  # above what Linux gives to a process


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "made.bpr")


def rows(count: int, begin: int = BEGIN, step: int = 5_000) -> list[Row]:
    return [Row(begin + step * number, number, 1_000 * number, policy=0) for number in range(count)]


def write(book: Book, every: dict[str, list[Row]], *, keep_ms: int = 14 * DAY_MS, release: bool = False) -> None:
    now_ms = max(row.at_ms for some in every.values() for row in some)
    book.write(every, {0: '{"mode": "enforce"}'}, now_ms, keep_ms, release=release)


def blocks(book: Book) -> list[tuple[int, int]]:
    with contextlib.closing(sqlite3.connect(book.path)) as file, file:
        return file.execute("SELECT hour, rows FROM blocks ORDER BY hour, id").fetchall()


def test_what_is_written_is_read(book: Book) -> None:
    write(book, {"mail": rows(12), "web": rows(3)})
    write(book, {"mail": rows(12, BEGIN + 60_000)})
    assert book.queues() == ["mail", "web"]
    read = book.rows("mail", HOUR, HOUR)
    assert [row.backlog for row in read] == [*range(12), *range(12)]
    assert read[3] == Row(BEGIN + 15_000, 3, 3_000, policy=1)
    assert book.policies() == {1: '{"mode": "enforce"}'}


def test_the_blocks_of_an_hour_that_is_over_become_one(book: Book) -> None:
    for minute in range(3):
        write(book, {"mail": rows(12, BEGIN + 60_000 * minute)})
    assert blocks(book) == [(HOUR, 12)] * 3
    write(book, {"mail": rows(12, BEGIN + HOUR_MS)})
    assert blocks(book) == [(HOUR, 36), (HOUR + 1, 12)]
    assert len(book.rows("mail", HOUR, HOUR + 1)) == 48


def test_rows_of_two_hours_are_parted(book: Book) -> None:
    write(book, {"mail": rows(4, BEGIN + HOUR_MS - 10_000)})
    assert blocks(book) == [(HOUR, 2), (HOUR + 1, 2)]


def test_what_is_older_than_it_is_kept_goes(book: Book) -> None:
    write(book, {"mail": rows(3)})
    for hour in range(24):
        assert book.hours("mail")[0] == HOUR
        write(book, {"mail": rows(3, BEGIN + 2 * DAY_MS + hour * HOUR_MS)}, keep_ms=DAY_MS)
    assert book.hours("mail") == [HOUR + 48 + hour for hour in range(24)]


def test_a_clock_that_is_years_ahead_for_some_hours_drops_nothing(book: Book) -> None:
    for hour in range(30):
        write(book, {"mail": rows(3, BEGIN + hour * HOUR_MS)}, keep_ms=DAY_MS)
    kept = book.hours("mail")
    for hour in range(23):
        write(book, {"mail": rows(3, BEGIN + 4_000 * DAY_MS + hour * HOUR_MS)}, keep_ms=DAY_MS)
    assert book.hours("mail")[:25] == kept[-25:]  # a day and the latest hour
    write(book, {"mail": rows(3, BEGIN + 30 * HOUR_MS)}, keep_ms=DAY_MS)  # it is right again
    assert book.hours("mail")[:24] == kept[-24:]


def test_a_clock_that_goes_back_loses_nothing_and_rows_come_in_order(book: Book) -> None:
    write(book, {"mail": rows(3, BEGIN + 90_000)})
    write(book, {"mail": rows(3, BEGIN)})
    times = [row.at_ms - BEGIN for row in book.rows("mail", HOUR, HOUR)]
    assert times == [0, 5_000, 10_000, 90_000, 95_000, 100_000]


def test_rows_of_one_instant_keep_their_order(book: Book) -> None:
    same = [Row(BEGIN, 5, 300), Row(BEGIN, 5, None), Row(BEGIN, 5, 200)]
    write(book, {"mail": same})
    assert book.rows("mail", HOUR, HOUR) == same


def test_another_process_that_lives_is_refused(book: Book) -> None:
    write(book, {"mail": rows(1)})
    set_writer(book, pid=os.getppid())
    with pytest.raises(RecordingError, match=r"process \d+ of .*: give each process a file of its own"):
        write(book, {"mail": rows(1)})
    assert len(book.rows("mail", HOUR, HOUR)) == 1


@pytest.mark.parametrize(
    ("writer", "is_free"),
    [
        ({"pid": NOBODY}, True),
        ({"host": "elsewhere", "at_ms": BEGIN - 180_000}, True),
        ({"host": "elsewhere", "at_ms": BEGIN - 179_000}, False),
        ({"host": None, "pid": None, "at_ms": 0}, True),
    ],
)
def test_a_writer_that_is_gone_makes_room(book: Book, writer: dict[str, object], is_free: bool) -> None:
    write(book, {"mail": rows(1)})
    set_writer(book, **writer)
    if is_free:
        book.claim(BEGIN)
    else:
        with pytest.raises(RecordingError, match="elsewhere"):
            book.claim(BEGIN)


def claim(book: Book) -> None:
    book.claim(BEGIN)


def set_writer(book: Book, **more: object) -> None:
    with contextlib.closing(sqlite3.connect(book.path)) as file, file:
        (told,) = file.execute("SELECT value FROM about WHERE name = 'writer'").fetchone()
        file.execute("UPDATE about SET value = ? WHERE name = 'writer'", (json.dumps(json.loads(told) | more),))


def test_who_releases_a_file_makes_room(book: Book) -> None:
    write(book, {"mail": rows(1)}, release=True)
    with contextlib.closing(sqlite3.connect(book.path)) as file, file:
        assert file.execute("SELECT count(*) FROM about").fetchone() == (0,)


def test_a_damaged_block_is_told_and_the_other_hours_are_read(book: Book) -> None:
    write(book, {"mail": rows(720)})
    write(book, {"mail": rows(3, BEGIN + HOUR_MS)})
    with contextlib.closing(sqlite3.connect(book.path)) as file, file:
        file.execute("UPDATE blocks SET data = substr(data, 1, 30) WHERE hour = ?", (HOUR,))
    with pytest.raises(RecordingError, match=f"damaged in hour {HOUR} of queue number 1: "):
        book.rows("mail", HOUR, HOUR)
    assert len(book.rows("mail", HOUR + 1, HOUR + 1)) == 3
    write(book, {"mail": rows(3, BEGIN + 2 * HOUR_MS)})  # who records goes on


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"queue,backlog\nmail,3\n" * 100, "file is not a database"),
        (b"SQLite format 3\0" + b"\xff" * 5_000, "cannot be"),
    ],
)
def test_a_file_that_is_none_is_refused_and_left(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "other.bpr"
    path.write_bytes(content)
    for use in (Book.queues, claim):
        with pytest.raises(RecordingError, match=says):
            use(Book(path))
    assert path.read_bytes() == content


def test_the_database_of_another_program_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("CREATE TABLE theirs (id INTEGER)")
    before = path.read_bytes()
    for use in (Book.queues, claim):
        with pytest.raises(RecordingError, match="is no recording: another program made it"):
            use(Book(path))
    assert path.read_bytes() == before


def test_a_newer_version_is_refused(book: Book) -> None:
    book.claim(BEGIN)
    with contextlib.closing(sqlite3.connect(book.path)) as file, file:
        file.execute("PRAGMA user_version = 2")
    with pytest.raises(RecordingError, match="has version 2, and this package reads version 1"):
        book.queues()


def test_missing_files_and_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="does not exist: make one with backpressure record"):
        Book(tmp_path / "nowhere.bpr").queues()
    with pytest.raises(RecordingError, match="cannot be written: unable to open database file"):
        Book(tmp_path / "nowhere" / "week.bpr").claim(BEGIN)
    (tmp_path / "begun.bpr").touch()
    with pytest.raises(RecordingError, match="is empty: nothing was written to it yet"):
        Book(tmp_path / "begun.bpr").queues()
    Book(tmp_path / "here.bpr").claim(BEGIN)
    with pytest.raises(RecordingError, match="has no queue 'mail'"):
        Book(tmp_path / "here.bpr").rows("mail", 0, 0)


def test_a_full_disk_loses_nothing_that_was_written(book: Book) -> None:
    write(book, {"mail": rows(3)})
    with contextlib.closing(sqlite3.connect(book.path)) as file, file:
        pages = file.execute("PRAGMA page_count").fetchone()[0]
    code = f"""
import random, resource
from pathlib import Path
from backpressure._recording.book import Book
from backpressure._recording.row import Row
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({pages} * 4096 + 4096,) * 2)
numbers = [random.Random(number).getrandbits(40) for number in range(30_000)]
try:
    rows = [Row({BEGIN} + number % 1000, number) for number in numbers]
    Book(Path({str(book.path)!r})).write({{"mail": rows}}, {{}}, {BEGIN}, 10**10)
except Exception as error:
    print(type(error).__name__, error)
"""
    set_writer(book, pid=NOBODY)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "RecordingError" in said
    assert "cannot be written" in said
    assert [row.backlog for row in book.rows("mail", HOUR, HOUR)] == [0, 1, 2]


@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=40),
    st.floats(0, 1),
)
@example([(0.0, 0)], 0.5)
@example([(0.0, 0)], 0.01)
def test_a_file_that_is_damaged_anywhere_is_told_or_read(changes: list[tuple[float, int]], part: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        book = Book(Path(folder) / "bad.bpr")
        write(book, {"mail": rows(60), "web": rows(60)})
        data = bytearray(book.path.read_bytes())
        for place, byte in changes:
            data[int(place * len(data))] = byte
        book.path.write_bytes(data[: math.ceil(part * len(data))])
        for read in (book.queues, book.policies, lambda: book.hours("mail"), lambda: book.rows("mail", HOUR, HOUR)):
            with contextlib.suppress(RecordingError):
                read()
        with contextlib.suppress(RecordingError):
            recording = Recording(book.path)
            told = Replay(recording, BackpressureConfig()).queue("mail")
            assert told.rows == len(list(recording.queue("mail")))
        with contextlib.suppress(RecordingError):
            write(book, {"mail": rows(3)})


def test_kill_9_while_writing_leaves_whole_minutes(book: Book) -> None:
    """A process writes block after block; wherever it dies, the file is whole and holds the blocks that were done."""
    code = f"""
import sys
from pathlib import Path
from backpressure._recording.book import Book
from backpressure._recording.row import Row
book, at = Book(Path({str(book.path)!r})), {BEGIN}
while True:
    book.write({{"mail": [Row(at + n, n) for n in range(500)]}}, {{}}, at, 10**12)
    at += 500
    print("wrote", flush=True)
"""
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            done = 0
            while done < 7:
                done += process.stdout.readline() == "wrote\n"
            process.send_signal(signal.SIGKILL)
            done += process.stdout.read().count("wrote\n")
        read = book.rows("mail", HOUR, HOUR)
        assert len(read) % 500 == 0
        assert done <= len(read) // 500 <= done + 1
        book.path.unlink()
        book.path.with_name(book.path.name + "-journal").unlink(missing_ok=True)
