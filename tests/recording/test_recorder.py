"""A controller with a recorder: what it hands over, and that no fault of the file disturbs it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    ConfigurationError,
    InMemoryStatsProvider,
    PollingConfig,
    Recorder,
    Recording,
    StatsUnavailableError,
)
from backpressure._recording.book import Book
from backpressure._recording.row import Row
from backpressure.testing import ManualClock
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


CONFIG = BackpressureConfig(polling=PollingConfig(interval=5, busy_interval=5, jitter=0, cache_ttl=600))


class Counting(Recorder):
    """Counts the polls whose rows it was given."""

    def __init__(self, path: Path, **more: Any) -> None:
        super().__init__(path, **more)
        self.polls = 0

    def take(self, *given: Any) -> None:
        super().take(*given)
        self.polls += 1


class Run:
    """A controller under a moved clock, which polls each 5 s of it."""

    def __init__(self, path: Path, engine_name: str, **more: Any) -> None:
        self.clock = ManualClock()
        self.provider = InMemoryStatsProvider()
        self.set(0, mail=0)
        self.recorder = Counting(path, **more)
        self.controller = BackpressureController(
            CONFIG, self.provider, clock=self.clock, recorder=self.recorder, _engine=engine_name
        )
        self.controller.start()
        eventually(lambda: self.recorder.polls == 1)

    def set(self, seconds: float, **queues: int | dict[str, Any]) -> None:
        """Set what a poll will find in so many seconds."""
        at = self.clock.utc_now() + timedelta(seconds=seconds)
        for name, stats in queues.items():
            told = stats if isinstance(stats, dict) else {"backlog_count": stats}
            self.provider.set(name, **told, last_updated=at)

    def poll(self, seconds: float = 5, **queues: int | dict[str, Any]) -> None:
        self.set(seconds, **queues)
        before = self.recorder.polls
        self.clock.advance(seconds)
        eventually(lambda: self.recorder.polls > before)

    def rows(self, name: str = "mail") -> list[Row]:
        self.recorder.write()
        return list(Recording(self.recorder.path).queue(name))


@pytest.fixture
def run(tmp_path: Path, engine_name: str) -> Iterator[Run]:
    run = Run(tmp_path / "week.bpr", engine_name)
    yield run
    run.controller.stop()


def test_a_row_for_each_poll_with_what_was_decided(run: Run) -> None:
    run.poll(mail=50)
    for _ in range(3):
        run.controller.suggest_throttle("low", "mail")
    run.poll(mail=300)
    run.controller.suggest_throttle("low", "mail")
    run.controller.suggest_throttle("high", "mail")
    run.poll(mail=2_000)
    run.controller.suggest_throttle("low", "mail")
    run.poll(mail={"backlog_count": 7, "oldest_age": 2.5, "memory_used": 0.5})

    rows = run.rows()[-4:]
    assert [row.backlog for row in rows] == [50, 300, 2_000, 7]
    assert [row.at_ms - rows[0].at_ms for row in rows] == [0, 5_000, 10_000, 15_000]
    assert [(row.low_offers, row.low_delays, row.low_sheds) for row in rows[1:]] == [(3, 0, 0), (1, 1, 0), (1, 0, 1)]
    assert [row.high_offers for row in rows[1:]] == [None, 1, 0]
    assert (rows[3].oldest_age_ms, rows[3].memory_permille) == (2_500, 500)
    assert {row.circuit for row in rows[1:]} == {0}


def test_what_was_not_read_anew_is_a_gap(run: Run) -> None:
    run.poll(mail=5, web=5)
    before = len(run.rows())
    run.provider.fail_with(StatsUnavailableError("away"))
    run.poll()
    run.provider.fail_with(None)
    run.poll(60)  # the same sample once more
    run.provider.fail_with(StatsUnavailableError("away"), "web")
    run.poll(mail=6)
    assert len(run.rows()) == before + 1
    assert len(run.rows("web")) == 1


def test_nothing_is_kept_of_queues_that_lost_their_state(run: Run) -> None:
    run.poll(mail=5, web=5)
    run.controller.suggest_throttle("low", "web")
    run.poll(mail=6, web=6)
    assert run.controller._recorded is not None
    assert {name for name, _ in run.controller._recorded._counts} == {"web"}
    run.controller._samples.forget("web")
    run.provider.remove("web")
    run.poll(mail=7)
    assert run.controller._recorded._counts == {}
    assert set(run.controller._recorded._latest_ms) == {"mail"}


def test_each_policy_that_was_in_force_is_kept(run: Run) -> None:
    run.poll(mail=5)
    changed = CONFIG.evolve({"thresholds.low_priority.red_max": 7_000})
    run.controller.reconfigure(changed)
    run.poll(mail=6)
    numbers = [row.policy for row in run.rows()][-2:]
    policies = Recording(run.recorder.path).policies()
    loaded = [BackpressureConfig.from_mapping(policies[number or 0]) for number in numbers]
    assert loaded == [attrs.evolve(config, polling=PollingConfig()) for config in (CONFIG, changed)]


def test_it_is_written_once_a_minute(run: Run) -> None:
    for number in range(11):
        run.poll(mail=number)
    assert not run.recorder.path.exists()
    run.poll(mail=11)
    settle(run)
    assert [row.backlog for row in Recording(run.recorder.path).queue("mail")] == [0, *range(12)]


def test_a_write_waits_for_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who writes and then reads the file could miss the rows of that minute, and rows could change their order."""
    recorder, order, write = Recorder(tmp_path / "week.bpr"), list[str](), Book.write

    def also() -> None:
        recorder.write()
        order.append("second")

    others = [threading.Thread(target=also) for _ in range(2)]

    def slowly(*given: Any, **more: Any) -> None:
        monkeypatch.undo()
        others[0].start()  # nothing is left for it to write
        others[0].join(0.05)
        recorder.take({"mail": Row(2_000, 2)}, 0, print)
        others[1].start()
        others[1].join(0.05)
        write(*given, **more)
        order.append("first")

    monkeypatch.setattr(Book, "write", slowly)
    recorder.take({"mail": Row(1_000, 1)}, 0, print)
    recorder.write()
    for other in others:
        other.join()
    assert order == ["first", "second", "second"]
    assert [row.backlog for row in Recording(recorder.path).queue("mail")] == [1, 2]


def test_the_end_writes_the_rest_and_lets_the_file_go(run: Run) -> None:
    run.poll(mail=5)
    run.controller.stop()
    run.controller.stop()
    assert [row.backlog for row in Recording(run.recorder.path).queue("mail")][-1] == 5
    Recorder(run.recorder.path).claim(0)


def test_a_file_that_cannot_be_written_is_told_once_and_nothing_else_changes(
    tmp_path: Path, engine_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "later"
    run = Run(folder / "week.bpr", engine_name)
    with caplog.at_level(logging.INFO, "backpressure"):
        for number in range(36):
            run.poll(mail=number)
            settle(run)
        assert run.recorder.failures == 3
        told = [message for message in caplog.messages if "recording" in message]
        why = "cannot be written: unable to open database file; it is tried again each minute"
        assert told == [f"recording {folder / 'week.bpr'} {why}"]
        assert run.controller.health()["polling_errors"] == {"recorder": 3}
        assert run.controller.suggest_throttle("low", "mail").reason == "backlog_green"
        folder.mkdir()
        for number in range(36, 48):
            run.poll(mail=number)
            settle(run)
        assert caplog.messages[-1] == "the recording is written again"
    run.controller.stop()
    assert [row.backlog for row in Recording(run.recorder.path).queue("mail")] == [0, *range(48)]


def settle(run: Run) -> None:
    """Wait for the end of a write that was begun."""
    writer = run.recorder._writer
    if writer is not None:
        writer.join(10)


def test_a_disk_that_hangs_holds_up_no_poll_and_no_stop(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        begun.set()
        go_on.wait(30)

    monkeypatch.setattr(Book, "write", hang)
    for number in range(12):
        run.poll(mail=number)
    assert begun.wait(10)
    for number in range(30):
        run.poll(mail=number)
    assert sum(thread.name == "backpressure-recorder" for thread in threading.enumerate()) == 1
    run.controller.stop()
    assert sum(thread.name == "backpressure-recorder" for thread in threading.enumerate()) == 1
    go_on.set()
    settle(run)


def test_rows_that_cannot_be_written_do_not_fill_the_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backpressure._recording.recorder._MOST_WAITING", 10)
    monkeypatch.setattr(Book, "write", failing)
    for number in range(25):
        run.poll(mail=number)
        with pytest.raises(OSError, match="full"):
            run.recorder.write()
    assert sum(map(len, run.recorder._rows.values())) == 10
    monkeypatch.undo()
    assert [row.backlog for row in run.rows()] == [*range(15, 25)]


def failing(*_: object, **__: object) -> None:
    raise OSError("full")


def test_a_forked_child_begins_a_file_of_its_own(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "week-{pid}.bpr")
    run = BackpressureController(None, InMemoryStatsProvider({"mail": 3}), recorder=recorder)
    with run:
        eventually(lambda: recorder.gathered)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert recorder.gathered == 0 or recorder.path.name != f"week-{os.getppid()}.bpr"
                run.start()
                run.suggest_throttle("low", "mail")
                eventually(lambda: recorder.gathered)
                run.stop()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    files = sorted(path.name for path in tmp_path.glob("*.bpr"))
    assert files == sorted([f"week-{os.getpid()}.bpr", f"week-{child}.bpr"])
    assert all(list(Recording(tmp_path / name).queue("mail")) for name in files)


def test_the_asyncio_controller_records_too(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "week.bpr")

    async def main() -> None:
        async with AsyncBackpressureController(None, InMemoryStatsProvider({"mail": 3}), recorder=recorder):
            pass

    asyncio.run(main())
    assert [row.backlog for row in Recording(recorder.path).queue("mail")] == [3]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Recorder(""), "path is '': give the path of a file"),
        (lambda: Recorder(3), "path is 3: give the path of a file"),  # type: ignore[arg-type]
        (lambda: Recorder("x", keep=timedelta(hours=3)), "give a timedelta from 1 to 366 days"),
        (lambda: Recorder("x", keep=14), "give a timedelta from 1 to 366 days"),  # type: ignore[arg-type]
        (
            lambda: BackpressureController(None, InMemoryStatsProvider(), recorder="week.bpr"),  # type: ignore[arg-type]
            "recorder is a str: give a Recorder",
        ),
        (
            lambda: BackpressureController(
                BackpressureConfig(polling=PollingConfig(enabled=False)),
                InMemoryStatsProvider(),
                recorder=Recorder("x"),
            ),
            "needs a provider that is polled in the background",
        ),
    ],
)
def test_what_cannot_record_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        make()
