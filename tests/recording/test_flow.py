"""Jobs that came and went, as sources count them: recorded from a real stream, and enough for a replay to use."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from backpressure import (
    BackpressureConfig,
    BackpressureController,
    InMemoryStatsProvider,
    PollingConfig,
    QueueStats,
    Recorder,
    Recording,
    RedisStatsProvider,
)
from backpressure.providers.layouts import StreamKey
from backpressure.replay import Replay
from backpressure.testing import ManualClock
from support.controller_fixtures import at_rest, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from backpressure._recording.row import Row

CONFIG = BackpressureConfig(polling=PollingConfig(interval=5, busy_interval=5, jitter=0, cache_ttl=600))
STREAM = StreamKey("jobs", group="workers")


class Counting(Recorder):
    """Counts the polls whose rows it was given."""

    polls = 0

    def take(self, *given: Any) -> None:
        super().take(*given)
        self.polls += 1


class Dated:
    """Reads a real server as if it were at the time of a clock."""

    def __init__(self, provider: RedisStatsProvider, clock: ManualClock) -> None:
        self.provider = provider
        self.clock = clock

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        return attrs.evolve(self.provider.get_queue_stats(queue_name), last_updated=self.clock.utc_now())

    def get_all_queue_stats(self) -> Mapping[str, QueueStats]:
        return {"jobs": self.get_queue_stats("jobs")}


class Recorded:
    """A real stream with its producers and workers, and a controller that records it each 5 s of a moved clock."""

    def __init__(self, client: Any, url: str, path: Path, engine_name: str) -> None:
        self.client = client
        self.recorder = Counting(path)
        self.path = path
        self.clock = ManualClock()
        self.create()
        self.provider = RedisStatsProvider(url, {"jobs": STREAM})
        source: Any = Dated(self.provider, self.clock)
        self.controller = BackpressureController(
            CONFIG, source, clock=self.clock, recorder=self.recorder, _engine=engine_name
        )
        self.controller.start()
        eventually(lambda: self.recorder.polls == 1)

    def create(self) -> None:
        self.client.xgroup_create("jobs", "workers", id="0", mkstream=True)

    def step(self, come: int, go: int) -> None:
        """Let jobs come and workers take some, and then a poll."""
        with self.client.pipeline(transaction=False) as pipeline:
            for _ in range(come):
                pipeline.xadd("jobs", {"job": "x"})
            pipeline.execute()
        if go:
            self.client.xreadgroup("workers", "one", {"jobs": ">"}, count=go, noack=True)
        polls = self.recorder.polls
        eventually(lambda: at_rest(self.controller, self.clock, polls))
        self.clock.advance(5)
        eventually(lambda: self.recorder.polls > polls)

    def rows(self) -> list[Row]:
        self.recorder.write()
        return list(Recording(self.path).queue("jobs"))


@pytest.fixture
def recorded(redis_client: Any, redis_url: str, tmp_path: Path, engine_name: str) -> Iterator[Recorded]:
    made = Recorded(redis_client, redis_url, tmp_path / "stream.bpr", engine_name)
    with contextlib.closing(made.provider):
        yield made
        made.controller.stop()


def since(rows: list[Row], column: str) -> list[int]:
    """Return how far a count went on from row to row; all of them know it."""
    counts = [getattr(row, column) for row in rows]
    return [after - before for before, after in itertools.pairwise(counts)]


def test_a_stream_tells_what_came_and_what_was_delivered(recorded: Recorded) -> None:
    steps = [(10, 3), (0, 5), (250, 0), (7, 100), (0, 500), (3, 1)]
    for step in steps:
        recorded.step(*step)
    rows = recorded.rows()[-len(steps) :]
    assert since(rows, "entered") == [come for come, _ in steps[1:]]
    assert since(rows, "left") == [5, 0, 100, 159, 1]
    for row in rows:
        assert row.entered is not None
        assert row.left is not None
        assert row.entered - row.left == row.backlog


def test_a_stream_that_began_anew_is_unknown_for_that_row(recorded: Recorded) -> None:
    recorded.step(40, 30)
    recorded.step(40, 30)
    recorded.client.delete("jobs")
    recorded.create()
    recorded.step(20, 10)
    recorded.step(20, 15)
    *_, before, anew, after = recorded.rows()
    assert (before.entered, before.left) == (80, 60)
    assert (anew.entered, anew.left) == (20, 10)  # less than before: a replay takes nothing from these two
    assert (after.entered, after.left) == (40, 25)


def test_what_the_server_does_not_know_is_not_guessed(recorded: Recorded) -> None:
    recorded.step(40, 30)
    recorded.client.xgroup_setid("jobs", "workers", "0")  # the server forgets what was read
    recorded.step(2, 0)
    row = recorded.rows()[-1]
    assert (row.backlog, row.left) == (42, None)
    assert row.entered is None


def test_a_replay_knows_the_workers_by_it(recorded: Recorded, engine_name: str) -> None:
    """With a mix of priorities, the counts alone tell what was offered and what workers can do."""
    come = 0
    for number in range(60):
        jobs = 400 if 20 <= number < 30 else 60
        come += jobs
        recorded.step(jobs, 100)
    config = CONFIG.evolve({"thresholds.low_priority": {"green_max": 100, "yellow_max": 200, "red_max": 400}})
    mix = {"low": 0.5, "medium": 0.3, "high": 0.2}
    recorded.recorder.write()
    queue = Replay(Recording(recorded.path), config, mix=mix, _engine=engine_name).queue("jobs")
    assert queue.evidence == "L1"
    offers = {priority: answer.offers for priority, answer in queue.recorded.priorities.items()}
    for priority, part in mix.items():
        assert offers[priority] == pytest.approx(part * (come - 60), abs=1)  # of the first row nothing is known before
    assert queue.feedback is not None
    fewer, all_judged = queue.feedback.priorities["low"].sheds, queue.recorded.priorities["low"].sheds
    assert fewer is not None
    assert all_judged is not None
    assert 0 < fewer < all_judged
    assert queue.feedback.peak_backlog < queue.recorded.peak_backlog
    assert queue.busy > 0.5


def test_only_counts_are_recorded(tmp_path: Path, engine_name: str) -> None:
    """A provider may be other people's code."""
    wrong: list[Any] = [-1, True, 2.0, "9", 2**53]
    provider = InMemoryStatsProvider()
    for number, count in enumerate(wrong):
        provider.set(f"q{number}", 1, entered=count, left=count)
    provider.set("good", 1, entered=2**53 - 1, left=0)
    recorder = Recorder(tmp_path / "odd.bpr")
    with BackpressureController(CONFIG, provider, recorder=recorder, _engine=engine_name):
        pass
    recorder.write()
    recording = Recording(tmp_path / "odd.bpr")
    found = {name: [(row.entered, row.left) for row in recording.queue(name)] for name in recording.queues()}
    assert found.pop("good") == [(2**53 - 1, 0)]
    assert found == {f"q{number}": [(None, None)] for number in range(len(wrong))}
