"""What a replay makes of recordings that know more or less, and what it says about that."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import BackpressureConfig, ConfigurationError, PollingConfig, Recording, RecordingError
from backpressure._recording.book import Book
from backpressure._recording.row import Row
from backpressure.replay import Behaviour, Loops, Replay, ReplayedQueue

if TYPE_CHECKING:
    from pathlib import Path

BEGIN_MS = 1_800_000_000_000
CONFIG = BackpressureConfig(polling=PollingConfig(interval=1, jitter=0))
Replayed = Callable[..., ReplayedQueue]


@pytest.fixture
def replayed(tmp_path: Path, engine_name: str) -> Replayed:
    """Replay rows of a queue, one each second unless they say otherwise."""

    def work(
        rows: list[dict[str, Any]], config: BackpressureConfig = CONFIG, policies: Any = None, **more: Any
    ) -> ReplayedQueue:
        book = Book(tmp_path / "made.bpr")
        made = [Row(**{"at_ms": BEGIN_MS + 1_000 * place, **row}) for place, row in enumerate(rows)]
        told = {1: json.dumps(policies or {"mode": "enforce"})}
        book.write({"mail": made}, told, BEGIN_MS, 10**12)
        return Replay(Recording(book.path), config, _engine=engine_name, **more).queue("mail")

    return work


def offered(backlog: int, low: int = 0, medium: int = 0, **more: Any) -> dict[str, Any]:
    return {"backlog": backlog, "low_offers": low, "low_delays": 0, "low_sheds": 0, "medium_offers": medium, **more}


def test_with_the_backlog_alone_time_is_told_and_no_jobs(replayed: Replayed) -> None:
    told = replayed([{"backlog": backlog} for backlog in (0, 50, 200, 2_000, 2_000)])
    assert (told.evidence, told.feedback, told.behaviour, told.parity) == ("L0", None, None, None)
    low = told.recorded.priorities["low"]
    assert low.seconds == {"green": 2, "yellow": 1, "red": 1}
    assert (low.delay_seconds, low.shed_seconds, low.offers, low.sheds) == (1, 1, None, None)
    assert told.recorded.peak_backlog == 2_000
    assert told.recorded.peak_at_ms == BEGIN_MS + 3_000
    assert told.caveats[0].startswith("only the backlog was recorded")


def test_counts_of_the_source_say_what_workers_take(replayed: Replayed) -> None:
    rows = [{"backlog": 0, "entered": 0, "left": 0}]
    for second in range(1, 61):
        entered = 100 * second
        rows.append({"backlog": 40 * second, "entered": entered, "left": entered - 40 * second})
    told = replayed(rows)
    assert (told.evidence, told.feedback) == ("L1", None)
    assert "give the mix of priorities" in told.caveats[0]
    told = replayed(rows, mix={"low": 0.5, "high": 0.5})
    assert told.feedback is not None
    low, high = told.feedback.priorities["low"], told.feedback.priorities["high"]
    assert low.offers == high.offers == 3_000
    assert low.sheds is not None
    assert 1_000 < low.sheds < 2_500
    assert high.sheds == 0
    assert told.feedback.peak_backlog < 1_100 < told.recorded.peak_backlog == 2_400
    assert told.recorded.priorities["low"].sheds == 50 * 37  # at 920 jobs and more
    assert told.busy > 0.9


def test_jobs_of_others_come_past_the_policy(replayed: Replayed) -> None:
    rows = [offered(30 * second, low=20, entered=80 * second) for second in range(60)]
    told = replayed(rows)
    assert told.feedback is not None
    assert told.feedback.priorities["low"].offers == 20 * 59
    assert told.feedback.peak_backlog > 600
    assert any("75 % of the jobs came past the process that recorded" in caveat for caveat in told.caveats)


def test_what_is_shed_or_delayed_stays_out(replayed: Replayed) -> None:
    rows = [offered(100 * second, low=300, entered=300 * second) for second in range(40)]
    told = replayed(rows, behaviour=Behaviour(returns=1.0))
    assert told.feedback is not None
    assert told.behaviour is not None
    assert told.recorded.peak_backlog == 3_900
    assert told.feedback.peak_backlog < 1_500
    again, first = told.behaviour.priorities["low"], told.feedback.priorities["low"]
    assert again.offers is not None
    assert again.sheds is not None
    assert first.offers == 300 * 39
    assert first.sheds is not None
    assert again.offers > first.offers
    assert again.sheds > 1.5 * first.sheds
    assert first.delayed_job_seconds is not None
    assert first.delayed_job_seconds > 300


def test_loops_offer_less_while_they_wait(replayed: Replayed) -> None:
    rows = [offered(100 * second, medium=200, entered=200 * second) for second in range(120)]
    for loops in ({"medium": 200}, {"medium": Loops(200, pause=1.0)}):
        told = replayed(rows, behaviour=Behaviour(loops=loops))
        assert told.feedback is not None
        assert told.behaviour is not None
        assert told.behaviour.peak_backlog < told.feedback.peak_backlog / 3
        medium = told.behaviour.priorities["medium"]
        assert medium.offers is not None
        assert 100 * 119 < medium.offers < 150 * 119


def test_loops_with_a_timer_go_on_at_once_when_they_were_held_up(replayed: Replayed) -> None:
    """200 come to 100 jobs a second where each waits for 2 s by its timer, or for 1 s before its pause of 1 s."""
    rows = [offered(100 * second, medium=200, entered=200 * second) for second in range(120)]
    found = {}
    for paced in (False, True):
        told = replayed(rows, behaviour=Behaviour(loops={"medium": Loops(200, pause=1.0, paced=paced)}))
        assert told.behaviour is not None
        medium = told.behaviour.priorities["medium"]
        assert medium.offers is not None
        assert medium.delays is not None
        assert medium.delayed_job_seconds is not None
        assert 100 * 119 < medium.offers < 160 * 119
        found[paced] = medium.delayed_job_seconds / medium.delays
    assert found[False] < 1.1
    assert 1.3 * found[False] < found[True] < 2.1  # the backlog has to rise first


def test_loops_that_skip_what_is_shed_offer_as_many_jobs(replayed: Replayed) -> None:
    rows = [offered(20_000, low=50) for _ in range(120)]
    for skips, least, most in ((False, 5, 15), (True, 49, 51)):
        told = replayed(rows, behaviour=Behaviour(loops={"low": Loops(50, pause=1.0, skips=skips)}))
        assert told.behaviour is not None
        low = told.behaviour.priorities["low"]
        assert low.offers is not None
        assert least * 119 <= low.offers <= most * 119
        assert low.sheds == low.offers


def test_gaps_are_left_out(replayed: Replayed) -> None:
    rows = [offered(10, low=5) for _ in range(20)]
    rows += [offered(700, low=50, at_ms=BEGIN_MS + 600_000 + 1_000 * second) for second in range(10)]
    told = replayed(rows)
    assert told.gap_seconds == 581
    assert told.feedback is not None
    assert told.feedback.seconds == 28
    assert told.feedback.priorities["low"].offers == 5 * 19 + 50 * 9
    assert told.feedback.peak_backlog == 700
    assert "581 s lie in gaps between rows, of which nothing is said" in told.caveats


def test_rows_that_are_far_apart_as_usual_have_no_gaps(replayed: Replayed) -> None:
    rows = [offered(10, low=5, at_ms=BEGIN_MS + 3_500_000 + 300_000 * place) for place in range(5)]
    told = replayed(rows)
    assert told.gap_seconds == 0
    assert told.recorded.seconds == 1_200


def test_rows_that_a_clock_set_back_are_left_out(replayed: Replayed) -> None:
    rows = [offered(10, low=5) for _ in range(5)] + [offered(10, low=5, at_ms=BEGIN_MS + 4_000)] * 2
    told = replayed(rows)
    assert told.rows == 5
    assert any(caveat.startswith("2 rows are left out") for caveat in told.caveats)


def test_an_open_circuit_refuses_under_any_policy(replayed: Replayed) -> None:
    told = replayed([offered(2_000, low=50, circuit=int(3 <= second < 6)) for second in range(10)])
    assert told.feedback is not None
    assert told.recorded.priorities["low"].offers == 50 * 7
    assert any(caveat.startswith("100 offers were refused by an open circuit") for caveat in told.caveats)


def test_memory_counts_as_recorded(replayed: Replayed) -> None:
    told = replayed([offered(5, low=50, memory_permille=870) for _ in range(10)])
    assert told.feedback is not None
    assert told.feedback.priorities["low"].sheds == 50 * 9
    assert any("memory" in caveat for caveat in told.caveats)


def test_offers_that_begin_late_are_simulated_from_then(replayed: Replayed) -> None:
    told = replayed([{"backlog": 3}] * 10 + [offered(3, low=4) for _ in range(10)])
    assert told.evidence == "L2"
    assert told.feedback is not None
    assert told.feedback.seconds == 10
    assert any(caveat.startswith("offers are known for 53 % of the time") for caveat in told.caveats)


def test_it_is_told_as_json(replayed: Replayed) -> None:
    told = replayed([offered(100 * second, low=90, policy=1) for second in range(30)], behaviour=Behaviour(returns=0.5))
    as_json = json.loads(json.dumps(told.to_dict()))
    assert as_json["feedback"]["priorities"]["low"]["offers"] == 90 * 29
    assert as_json["parity"]["recorded"]["low"] == [0, 0]
    assert as_json["caveats"] == [*told.caveats]
    assert as_json["recorded"]["trail"][-1] == 2_900
    assert list(as_json["recorded"]["priorities"]) == ["high", "medium", "low"]


def test_policies_that_cannot_be_replayed_are_told(replayed: Replayed) -> None:
    rows = [offered(5, low=50, policy=1) for _ in range(10)]
    for policy in ({"age": {"target": 5}}, {"of": "another version"}):
        told = replayed(rows, policies=policy)
        assert told.parity is None
        assert any("is not compared" in caveat for caveat in told.caveats)


def test_two_rows_are_needed(replayed: Replayed) -> None:
    told = replayed([offered(5)])
    assert (told.rows, told.feedback, told.recorded.seconds) == (1, None, 0)
    assert told.caveats == ("there are no two rows without a gap between them: record for longer",)


def test_damage_is_told(tmp_path: Path, replayed: Replayed) -> None:
    replayed([offered(5), offered(6)])
    recording = Recording(tmp_path / "made.bpr")
    with contextlib.closing(sqlite3.connect(recording.path)) as file, file:
        file.execute("UPDATE blocks SET rows = 3")
    with pytest.raises(RecordingError, match="is damaged in queue 'mail': it ends too early"):
        Replay(recording, CONFIG).queue("mail")
    with contextlib.closing(sqlite3.connect(recording.path)) as file, file:
        file.execute("UPDATE blocks SET data = substr(data, 1, 9)")
    with pytest.raises(RecordingError, match="is damaged in hour 500000 of 'mail': it is cut off"):
        Replay(recording, CONFIG).queue("mail")


def test_faults_are_told(tmp_path: Path, replayed: Replayed) -> None:
    recording = Recording(tmp_path / "made.bpr")
    with pytest.raises(RecordingError, match="does not exist"):
        Replay(recording, CONFIG).queue("mail")
    replayed([offered(5)])
    with pytest.raises(RecordingError, match="has no queue 'web'"):
        Replay(recording, CONFIG).queue("web")
    with pytest.raises(ConfigurationError, match="add up to 1"):
        Replay(recording, CONFIG, mix={"low": 0.5})
    with pytest.raises(ConfigurationError, match="mix is 'half'"):
        Replay(recording, CONFIG, mix="half")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"returns": 2}, "returns is 2: give a number from 0 to 1"),
        ({"returns": {"urgent": 0.5}}, "returns is "),
        ({"returns": float("nan")}, "returns is nan"),
        ({"return_after": -1}, "return_after is -1: give seconds up to an hour"),
        ({"loops": {"urgent": 3}}, "loops is "),
        ({"loops": [3]}, "loops is "),
        ({"loops": {"low": 0}}, "loops is 0: give a whole number of producers from 1 to 1000000"),
        ({"loops": {"low": True}}, "loops is True"),
        ({"loops": {"low": Loops(1)}}, None),
    ],
)
def test_behaviour_is_checked(given: dict[str, Any], says: str | None) -> None:
    if says is None:
        Behaviour(**given)
        return
    with pytest.raises(ConfigurationError, match=says):
        Behaviour(**given)


def test_a_pause_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="pause is -1: give seconds up to a day, or None"):
        Loops(3, pause=-1)
    for name in ("paced", "skips"):
        options: dict[str, Any] = {name: 1}
        with pytest.raises(ConfigurationError, match=f"{name} is 1: give True or False"):
            Loops(3, **options)
