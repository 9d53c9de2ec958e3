"""What is recommended: by what replays say, as sure as the recording is, and with the reason beside each number."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import ENGINE, BackpressureConfig, ConfigurationError, Recording, RecordingError
from backpressure._recording.book import Book
from backpressure._recording.row import Row
from backpressure.cli._format import span
from backpressure.replay import Behaviour, Recommendation, RecommendedQueue, Replay, recommend

if TYPE_CHECKING:
    from collections.abc import Callable

WEEK = Path(__file__).parents[2] / "examples" / "week" / "week.bpr"
BEHAVIOUR = {"mail": Behaviour(loops={"low": 20}), "images": Behaviour(returns=0.5)}
GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "recommend.md").read_text("utf-8")
BEGIN_MS = 1_800_000_000_000
HOUR, DAY = 3_600, 86_400
pytestmark = pytest.mark.timeout(240)
#: Of tests that replay days twenty times.
needs_speed = pytest.mark.skipif(ENGINE == "pure", reason="replays of days take minutes in Python")


def recorded(folder: Path, make: Callable[[int], dict[str, Any]], seconds: int, name: str = "mail") -> Recording:
    """Record a queue, whose row at each tenth second `make` gives."""
    rows = [Row(BEGIN_MS + 1_000 * at, **make(at)) for at in range(0, seconds + 1, 10)]
    book = Book(folder / "made.bpr")
    book.write({name: rows}, {}, rows[-1].at_ms, 10**12, release=True)
    return Recording(book.path)


def floods(at: int, *, every: int = HOUR, length: int = 600, drain: int = 10) -> dict[str, Any]:
    """Return a row: for ten minutes of each hour twice as much is offered as workers take; then they catch up."""
    since = at % every
    backlog = drain * since if since <= length else max(0, drain * length - drain * (since - length))
    come = 2 * drain if 0 < since <= length else 0
    return {"backlog": backlog, "low_offers": 10 * come, "low_delays": 0, "low_sheds": 0}


def one(found: Recommendation) -> RecommendedQueue:
    (queue,) = found.queues
    return queue


@pytest.fixture(scope="module")
def week() -> Recommendation:
    if ENGINE == "pure":
        pytest.skip("sixty replays of a week take minutes in Python")
    return recommend(Recording(WEEK), behaviour=BEHAVIOUR)


def test_it_beats_the_rule_of_thumb_and_sheds_no_more(week: Recommendation) -> None:
    for queue in week.queues:
        best = queue.best
        assert best is not None
        rule = next(it for it in queue.candidates if it.name == "twice the usual peak")
        assert best.sheds["low"] <= rule.sheds["low"] + 0.001 * (rule.answer.priorities["low"].offers or 0)
        assert best.waits <= rule.waits
    mail = week.queues[1]
    assert mail.queue_name == "mail"
    assert mail.best is not None
    assert mail.best.usual_wait < 0.4 * next(it for it in mail.candidates if it.name.startswith("twice")).usual_wait


def test_the_table_of_the_guide(week: Recommendation) -> None:
    in_two_minutes = recommend(Recording(WEEK), target_age=120, behaviour=BEHAVIOUR)
    rows = []
    for queue, quick in zip(week.queues, in_two_minutes.queues, strict=True):
        rule = next(it for it in queue.candidates if it.name == "twice the usual peak")
        whose = {"rule of thumb": rule, "recommended": queue.best, "with `--target-age 2m`": quick.best}
        for how, it in whose.items():
            assert it is not None
            figures = f"{it.sheds['low']:,} | {span(it.longest_wait)} | {span(it.usual_wait)}"
            rows.append(f"| `{queue.queue_name}` | {how} | {it.name} | {figures} |")
    assert [line for line in GUIDE.splitlines() if line.startswith("| `")][-len(rows) :] == rows


def test_figures_are_those_of_a_replay(week: Recommendation) -> None:
    queue = week.queues[1]
    told = Replay(Recording(WEEK), week.config(), behaviour=BEHAVIOUR["mail"]).queue("mail")
    assert queue.best is not None
    assert told.behaviour == queue.best.answer
    assert set(told.caveats) <= set(queue.notes)


def test_engines_recommend_the_same(tmp_path: Path, engine_name: str, engine_module: object) -> None:
    recording = recorded(tmp_path, floods, HOUR)
    assert recommend(recording, _engine=engine_name) == recommend(recording, _engine="pure")


def test_it_is_a_file_with_a_reason_beside_each_number(week: Recommendation) -> None:
    text = week.to_toml()
    assert BackpressureConfig.from_mapping(tomllib.loads(text)) == week.config()
    assert week.config().mode == "observe"
    numbers = [line for line in text.splitlines() if "_max = " in line]
    assert len(numbers) == 27
    assert all("  # " in line for line in numbers)


def test_a_target_age_is_kept_with_the_fewest_sheds(tmp_path: Path) -> None:
    recording = recorded(tmp_path, floods, 2 * HOUR)
    queue = one(recommend(recording, target_age={"low": 120}))
    best = queue.best
    assert best is not None
    assert best.keeps
    assert best.longest_wait <= 120
    kept = [it for it in queue.candidates if it.keeps]
    assert 1 < len(kept) < len(queue.candidates)
    assert best.sheds["low"] <= 1.01 * min(it.sheds["low"] for it in kept)
    shed_at = int(best.reasons["thresholds.low_priority.red_max"].split()[2].replace(",", ""))
    assert shed_at == pytest.approx(10 * 120, rel=0.3)


def test_a_target_that_nothing_keeps_is_told(tmp_path: Path) -> None:
    def away(at: int) -> dict[str, Any]:
        """Return floods, after which nobody works for five minutes."""
        row = floods(at)
        return row | {"backlog": 3_000} if 600 < at % HOUR <= 900 else row

    queue = one(recommend(recorded(tmp_path, away, HOUR), target_age=2))
    assert queue.best is not None
    assert queue.best.keeps is False
    assert any(note.startswith("no thresholds keep the target age") for note in queue.notes)
    assert any(note.startswith("workers were away for up to ") for note in queue.notes)


@needs_speed
@pytest.mark.parametrize(
    ("seconds", "every", "confidence", "come_back"),
    [
        (DAY - HOUR, HOUR, "none", DAY),  # too short
        (2 * DAY, 12 * HOUR, "none", round(2 * DAY * 120 / 80)),  # too few busy minutes, at 20 each half day
        (2 * DAY, HOUR, "low", 7 * DAY),
        (7 * DAY, 3 * HOUR, "normal", None),
    ],
)
def test_confidence_and_when_to_come_back(
    tmp_path: Path, seconds: int, every: int, confidence: str, come_back: int | None
) -> None:
    queue = one(recommend(recorded(tmp_path, lambda at: floods(at, every=every), seconds)))
    assert queue.confidence == confidence
    assert queue.best is not None
    if come_back is None:
        assert queue.come_back_ms is None
    else:
        assert queue.come_back_ms is not None
        assert (queue.come_back_ms - BEGIN_MS) / 1_000 == pytest.approx(come_back, rel=0.06)


def test_the_backlog_alone_is_not_enough(tmp_path: Path) -> None:
    queue = one(recommend(recorded(tmp_path, lambda at: {"backlog": floods(at)["backlog"]}, DAY)))
    assert queue.best is None
    assert queue.missing is not None
    assert "only the backlog was recorded: give the controllers of producers a Recorder" in queue.missing
    assert queue.come_back_ms == BEGIN_MS + 1_000 * (DAY + 7 * DAY)
    assert f"# nothing is recommended: {queue.missing}" in Recommendation(source="x", queues=(queue,)).to_toml()


def test_workers_that_were_never_busy_are_not_enough(tmp_path: Path) -> None:
    idle = {"backlog": 0, "low_offers": 5, "low_delays": 0, "low_sheds": 0}
    queue = one(recommend(recorded(tmp_path, lambda _: idle, HOUR)))
    assert queue.best is None
    assert queue.missing is not None
    assert "nothing had to be held back yet" in queue.missing


def test_what_came_in_needs_the_mix(tmp_path: Path) -> None:
    def entered(at: int) -> dict[str, Any]:
        hours, since = divmod(at, HOUR)
        return {"backlog": floods(at)["backlog"], "entered": 12_000 * hours + 20 * min(since, 600)}

    recording = recorded(tmp_path, entered, 2 * HOUR)
    queue = one(recommend(recording))
    assert queue.missing is not None
    assert queue.missing.endswith("give their mix")
    assert one(recommend(recording, mix={"low": 0.5, "medium": 0.5})).best is not None


@needs_speed
def test_thresholds_cannot_hold_an_age_where_workers_vary(tmp_path: Path) -> None:
    def varies(at: int) -> dict[str, Any]:
        return floods(at, drain=20 if at // HOUR % 2 else 4)

    found = recommend(recorded(tmp_path, varies, DAY), target_age=300)
    varying = one(found)
    (note,) = (note for note in varying.notes if "thresholds in jobs cannot hold an age" in note)
    assert "workers take from 4 to 20 jobs a second" in note
    assert "5.0 times as long" in note
    assert note.endswith("the age law can, and is recommended")
    best = varying.best
    assert best is not None
    assert best.name.startswith("the age law, ")
    assert best.keeps
    tables = [it for it in varying.candidates if it.keeps and "thresholds" in it.settings]
    assert tables
    assert best.sheds["low"] < min(it.sheds["low"] for it in tables)
    assert 100 <= (found.config().age_of("mail").target or 0) <= 300
    assert "[queues.mail.age]" in found.to_toml()


def test_steady_workers_are_no_reason_for_the_age_law(tmp_path: Path) -> None:
    steady = one(recommend(recorded(tmp_path, floods, 2 * HOUR), target_age=120))
    assert not any("cannot hold an age" in note for note in steady.notes)


def test_names_that_need_quotes(tmp_path: Path) -> None:
    name = 'mail."x"\\ # = [é]'
    found = recommend(recorded(tmp_path, floods, HOUR, name))
    assert BackpressureConfig.from_mapping(tomllib.loads(found.to_toml())) == found.config()
    assert list(found.config().queues) == [name]


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    recommend(recorded(tmp_path, floods, HOUR), progress=lambda name, part: told.append((name, part)))
    assert told[-1] == ("mail", 1.0)
    assert [part for _, part in told] == sorted(part for _, part in told)
    assert len(told) > 10


@pytest.mark.parametrize("target", [0, -1, True, "10m", {"lowest": 5}, {"low": float("nan")}, 10**7])
def test_impossible_targets(target: Any) -> None:
    with pytest.raises(ConfigurationError, match="target_age"):
        recommend(Recording(WEEK), target_age=target)


def test_a_queue_that_is_not_there() -> None:
    with pytest.raises(RecordingError, match="has no queue 'nothing'"):
        recommend(Recording(WEEK), queues=["nothing"])


def test_to_dict_is_json(week: Recommendation) -> None:
    told = json.loads(json.dumps(week.to_dict()))
    assert [queue["queue_name"] for queue in told["queues"]] == ["images", "mail", "reports"]
    assert told["queues"][1]["candidates"][0]["sheds"] == {"high": 0, "medium": 0, "low": 0}
