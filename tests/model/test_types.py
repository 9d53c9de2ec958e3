"""The values that everything else exchanges: enums, names, samples and decisions."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import pickle
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpressure._model import arguments, stats, vocabulary
from backpressure._model.arguments import validate_queue_name
from backpressure._model.decision import Answer, ThrottleDecision, issued
from backpressure._model.errors import (
    BackpressureError,
    CircuitOpenError,
    InvalidPriorityError,
    InvalidQueueError,
    JobShedError,
)
from backpressure._model.stats import MAX_BACKLOG, QueueStats, StatsProvider
from backpressure._model.vocabulary import HIGH, LOW, MEDIUM, OTHER_QUEUES, CircuitState, Priority, Reason, Zone

if TYPE_CHECKING:
    from enum import Enum


def test_priorities() -> None:
    assert {str(priority): priority.value for priority in Priority} == {"low": 0, "medium": 1, "high": 2}
    assert [*Priority] == [LOW, MEDIUM, HIGH]


def test_circuit_states() -> None:
    assert {str(state): state.value for state in CircuitState} == {"closed": 0, "open": 1, "half-open": 2}


NUMBERED = [*Priority, *CircuitState]


@pytest.mark.parametrize("member", NUMBERED)
def test_numbered_words_are_their_texts_wherever_texts_are_compared(member: Priority | CircuitState) -> None:
    text = str(member)
    assert type(text) is str
    assert (member == text, text == member, member != text, text != member) == (True, True, False, False)
    assert hash(member) == hash(text)
    assert ({member: 1}[text], {text: 1}[member]) == (1, 1)  # type: ignore[index]  # a checker tells them apart
    assert member in {text, "other"}
    assert text in [None, member]
    assert json.loads(json.dumps({"word": member, member: "word"})) == {"word": text, text: "word"}
    assert (f"{member}", f"{member:>9}", "%s" % member) == (text, text.rjust(9), text)  # noqa: UP031
    assert repr(member) == f"<{type(member).__name__}.{member.name}: {member.value}>"


@pytest.mark.parametrize("member", NUMBERED)
def test_numbered_words_are_found_by_number_and_by_text(member: Priority | CircuitState) -> None:
    assert type(member)(member.value) is type(member)(str(member)) is member
    assert type(member.value) is int
    others: list[object] = [3, -1, "OPEN", "LOW", "", None, b"low", []]
    for unknown in others:
        with pytest.raises(ValueError, match="is not a valid"):
            type(member)(unknown)


@pytest.mark.parametrize("member", NUMBERED)
def test_copies_of_numbered_words_are_themselves(member: Priority | CircuitState) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(member, protocol)) is member
    assert copy.copy(member) is copy.deepcopy(member) is member


def test_numbered_words_equal_neither_numbers_nor_other_spellings() -> None:
    for member in NUMBERED:
        for other in (member.value, bool(member.value), str(member).upper(), str(member).encode(), None):
            assert member != other


def test_zones() -> None:
    assert [str(zone) for zone in Zone] == ["green", "yellow", "red"]


def test_reasons_in_the_order_that_the_engines_share() -> None:
    assert [str(reason) for reason in Reason] == [
        "backlog_green",
        "backlog_yellow",
        "backlog_red",
        "backlog_red_shed",
        "circuit_open",
        "circuit_half_open",
        "manual_override",
        "emergency_mode",
        "stats_stale",
        "fallback_conservative",
        "fallback_permissive",
        "fallback_circuit_only",
        "cold_start",
        "observe_only",
        "untracked",
        "age_open",
        "age_share",
        "age_wait",
        "age_shed",
        "age_safe",
        "memory",
    ]


@pytest.mark.parametrize("member", [*Priority, *CircuitState, *Zone, *Reason])
def test_members_stay_themselves(member: Enum) -> None:
    assert pickle.loads(pickle.dumps(member)) is member
    assert copy.deepcopy(member) is member
    assert {member: 1}[member] == 1


@pytest.mark.parametrize(
    ("value", "priority"), [(LOW, LOW), (HIGH, HIGH), ("low", LOW), ("medium", MEDIUM), ("high", HIGH)]
)
def test_parses_priorities(value: object, priority: Priority) -> None:
    assert Priority.parse(value) is priority


class Text(str):
    """What an ORM may give."""

    __slots__ = ()


def test_parses_a_subclass_of_str() -> None:
    assert Priority.parse(Text("high")) is HIGH


@pytest.mark.parametrize(
    "value", [0, 1, 2, 1.0, True, False, None, "", "urgent", b"low", CircuitState.OPEN, Priority, [LOW]]
)
def test_refuses_any_other_priority(value: object) -> None:
    with pytest.raises(InvalidPriorityError) as caught:
        Priority.parse(value)
    assert str(caught.value) == f'invalid priority {value!r}: give a Priority or one of "low", "medium", "high"'
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("HIGH", "high"), ("Low", "low"), ("low ", "low"), ("MEDUIM", "medium"), ("hihg", "high"), (b"HIGH", None)],
)
def test_a_priority_that_is_nearly_one_is_answered_with_it(given: object, meant: str | None) -> None:
    with pytest.raises(InvalidPriorityError) as caught:
        Priority.parse(given)
    question = f'did you mean "{meant}"? ' if meant else ""
    choices = 'give a Priority or one of "low", "medium", "high"'
    assert str(caught.value) == f"invalid priority {given!r}: {question}{choices}"


def test_a_priority_of_megabytes_is_not_compared() -> None:
    with pytest.raises(InvalidPriorityError) as caught:
        Priority.parse("HIGH" * 1_000_000)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "email-queue",
        " ",
        "a b",
        "队列",
        "🐇",
        "a" * 255,
        "é" * 127,
        "🐇" * 63,
        "{mail}:1",
        "__other",
        "__OTHER__",
        "\u200b",
    ],
)
def test_accepts_names(name: str) -> None:
    assert validate_queue_name(name) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("", "give 1 to 255 UTF-8 bytes"),
        ("a" * 256, "give 1 to 255 UTF-8 bytes"),
        ("é" * 128, "give 1 to 255 UTF-8 bytes"),
        ("🐇" * 64, "give 1 to 255 UTF-8 bytes"),
        ("a\nb", "remove control characters and surrogates"),
        ("\x00", "remove control characters and surrogates"),
        ("a\x7f", "remove control characters and surrogates"),
        ("a\x85", "remove control characters and surrogates"),
        ("a\ud800", "remove control characters and surrogates"),
        (OTHER_QUEUES, "it is reserved for queues beyond max_queues"),
        (None, "give a str, not NoneType"),
        (b"mail", "give a str, not bytes"),
        (7, "give a str, not int"),
    ],
)
def test_refuses_names_and_says_why(name: object, hint: str) -> None:
    with pytest.raises(InvalidQueueError) as caught:
        validate_queue_name(name)
    message = str(caught.value)
    assert message.startswith("invalid queue name ")
    assert message.endswith(f": {hint}")
    assert message.isprintable()
    assert len(message) < 400
    assert isinstance(caught.value, ValueError)


def test_every_control_character_and_surrogate_is_refused_and_no_other() -> None:
    for point in range(0x3000):
        forbidden = unicodedata.category(chr(point)) == "Cc"
        try:
            validate_queue_name(chr(point))
        except InvalidQueueError:
            assert forbidden, hex(point)
        else:
            assert not forbidden, hex(point)
    for point in range(0xD800, 0xE000, 0x7F):
        with pytest.raises(InvalidQueueError):
            validate_queue_name(chr(point))


@given(st.text(max_size=300))
def test_a_valid_name_encodes_and_fits(name: str) -> None:
    try:
        valid = validate_queue_name(name)
    except InvalidQueueError:
        return
    assert valid == name
    assert 1 <= len(valid.encode("utf-8")) <= 255
    assert valid.encode("utf-8").decode("utf-8") == name


class Liar(str):
    """A str that compares and hashes as it likes."""

    __slots__ = ()

    def __str__(self) -> str:
        return "other"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


def test_engines_only_ever_see_an_exact_str() -> None:
    name = validate_queue_name(Liar("mail"))
    assert type(name) is str
    assert "mail" == name  # noqa: SIM300 - the exact str must be asked


def test_a_samples_time_defaults_to_now() -> None:
    before = datetime.now(UTC)
    sample = QueueStats("mail", 3)
    assert before <= sample.last_updated <= datetime.now(UTC)
    assert sample.last_updated.tzinfo is UTC
    assert (sample.processing_count, sample.delayed_count, sample.oldest_age) == (None, None, None)
    assert sample.fault() is None


def test_any_aware_time_will_do() -> None:
    when = datetime(2025, 5, 1, 12, tzinfo=timezone(timedelta(hours=-7)))
    assert QueueStats("mail", 3, last_updated=when).last_updated is when


@pytest.mark.parametrize("when", [datetime(2025, 5, 1), "2025-05-01", 0, 1_700_000_000.0])  # noqa: DTZ001 - naive
def test_refuses_naive_times_and_what_is_none(when: Any) -> None:
    with pytest.raises(ValueError, match=r"^last_updated is .*: give an aware datetime"):
        QueueStats("mail", 3, last_updated=when)


@pytest.mark.parametrize("field", ["backlog_count", "processing_count", "delayed_count"])
@pytest.mark.parametrize("count", [0, 1, MAX_BACKLOG])
def test_counts_within_bounds(field: str, count: Any) -> None:
    assert attrs.evolve(QueueStats("mail", 1), **{field: count}).fault() is None


@pytest.mark.parametrize("field", ["backlog_count", "processing_count", "delayed_count"])
@pytest.mark.parametrize("count", [-1, MAX_BACKLOG + 1, 1.0, math.nan, True, "3", b"3", [3]])
def test_counts_out_of_bounds_are_named(field: str, count: Any) -> None:
    sample = attrs.evolve(QueueStats("mail", 1), **{field: count})
    assert sample.fault() == f"{field} is {count!r}: a provider must give an integer from 0 to 2**53 - 1"


def test_only_the_backlog_must_be_known() -> None:
    backlog: Any = None
    assert "backlog_count is None" in (QueueStats("mail", backlog).fault() or "")


def test_samples_are_values() -> None:
    sample = QueueStats("mail", 3, processing_count=1, delayed_count=2, oldest_age=0.5)
    assert pickle.loads(pickle.dumps(sample)) == sample
    assert attrs.evolve(sample, backlog_count=4) != sample
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        sample.backlog_count = 4  # type: ignore[misc]


def test_a_provider_is_known_by_its_methods() -> None:
    class Mine:
        def get_queue_stats(self, queue_name: str) -> QueueStats:
            return QueueStats(queue_name, 0)

        def get_all_queue_stats(self) -> dict[str, QueueStats]:
            return {}

    assert isinstance(Mine(), StatsProvider)
    assert not isinstance(object(), StatsProvider)


WHEN = datetime(2025, 5, 1, 12, 30, tzinfo=UTC)


PUBLIC: dict[str, Any] = {
    "priority": LOW,
    "queue_name": "mail",
    "delay": 0.25,
    "should_shed": False,
    "reason": Reason.BACKLOG_YELLOW,
    "timestamp": WHEN,
    "backlog_size": 250,
    "zone": Zone.YELLOW,
    "advised": None,
}


def decision(**changes: Any) -> ThrottleDecision:
    return ThrottleDecision(**(PUBLIC | {"retry_after": 0.25} | changes))


SHED = decision(
    delay=math.inf,
    should_shed=True,
    reason=Reason.BACKLOG_RED_SHED,
    zone=Zone.RED,
    backlog_size=990,
    retry_after=7.365,
)


class StoppedTime:
    """A sleeper, as far as the retry time of a decision needs one."""

    def __init__(self, now_ns: int) -> None:
        self.now = now_ns

    def now_ns(self) -> int:
        return self.now


def circuit_open(**changes: Any) -> ThrottleDecision:
    values: dict[str, Any] = {
        "delay": math.inf,
        "should_shed": True,
        "reason": Reason.CIRCUIT_OPEN,
        "retry_after": None,
    }
    return decision(**(values | changes))


def bound(now_ns: int, **own: Any) -> ThrottleDecision:
    """Return a rejection as a controller makes it, whose time stands still at `now_ns`."""
    own = {
        "sleeper": StoppedTime(now_ns),
        "retry_at_ns": 4_000_000_000,
        "retry_delay": None,
        "last_failure": None,
    } | own
    public = PUBLIC | {"delay": math.inf, "should_shed": True, "reason": Reason.CIRCUIT_OPEN}
    return issued(Answer(**(public | own)), 5, object(), computed=True)


@pytest.mark.parametrize("each", [decision(), SHED, circuit_open(), decision(delay=0.0, advised=SHED)])
def test_decisions_are_values(each: ThrottleDecision) -> None:
    for back in (pickle.loads(pickle.dumps(each)), copy.copy(each), copy.deepcopy(each)):
        assert back == each
        assert hash(back) == hash(each)
        assert back.to_dict() == each.to_dict()
        assert back.retry_after == each.retry_after


def test_a_decision_is_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        decision().delay = 0.0  # type: ignore[misc]


@pytest.mark.parametrize(
    "change",
    [
        {"priority": HIGH},
        {"queue_name": "other"},
        {"delay": 0.26},
        {"should_shed": True},
        {"reason": Reason.STATS_STALE},
        {"timestamp": WHEN + timedelta(microseconds=1)},
        {"backlog_size": None},
        {"zone": None},
        {"advised": SHED},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_public_field_counts(change: dict[str, Any]) -> None:
    assert decision(**change) != decision()


def test_what_the_engine_adds_does_not_count() -> None:
    own, public = bound(0, retry_delay=9.0), circuit_open()
    assert own == public
    assert hash(own) == hash(public)
    assert repr(own) == repr(public)


def test_tickets_and_sleepers_stay_in_their_process() -> None:
    back = pickle.loads(pickle.dumps(bound(1_000_000_000)))
    assert (back._ticket, back._answer.sleeper, back._issued_ns, back._answer.retry_at_ns) == (None, None, 0, None)
    assert back.retry_after == 3.0


def test_to_dict_is_json() -> None:
    assert json.loads(json.dumps(decision().to_dict(), allow_nan=False)) == {
        "priority": "low",
        "queue_name": "mail",
        "delay": 0.25,
        "should_shed": False,
        "reason": "backlog_yellow",
        "timestamp": "2025-05-01T12:30:00+00:00",
        "backlog_size": 250,
        "zone": "yellow",
        "retry_after": 0.25,
        "advised": None,
    }


def test_to_dict_has_no_infinity_and_nests() -> None:
    observed = decision(delay=0.0, reason=Reason.OBSERVE_ONLY, backlog_size=None, zone=None, advised=SHED)
    known = json.loads(json.dumps(observed.to_dict(), allow_nan=False))
    assert (known["backlog_size"], known["zone"]) == (None, None)
    assert (known["advised"]["delay"], known["advised"]["should_shed"]) == (None, True)
    assert known["advised"]["retry_after"] == 7.365


def test_to_dict_names_every_public_field() -> None:
    assert set(decision().to_dict()) == {*ThrottleDecision.__match_args__, "retry_after"}


def test_an_open_circuits_retry_time_is_computed_when_read() -> None:
    time = StoppedTime(1_000_000_000)
    rejected = bound(0, sleeper=time)
    assert rejected.retry_after == 3.0
    time.now = 3_500_000_000
    assert rejected.retry_after == 0.5
    time.now = 9_000_000_000
    assert rejected.retry_after == 0.0


def test_a_go_waits_for_nothing_and_rejects_nothing() -> None:
    go = decision(delay=0.0, reason=Reason.BACKLOG_GREEN)
    assert go.rejection() is None
    go.wait()
    asyncio.run(go.wait_async())


def test_a_shed_raises_what_it_stands_for() -> None:
    error = SHED.rejection()
    assert type(error) is JobShedError
    assert (error.queue_name, error.priority, error.retry_after) == ("mail", LOW, 7.365)
    assert str(error) == "low job for queue 'mail' was shed at a backlog of 990: drop it, or retry in 7.365 s"
    with pytest.raises(JobShedError):
        SHED.wait()
    with pytest.raises(JobShedError):
        asyncio.run(SHED.wait_async())


@pytest.mark.parametrize(
    ("reason", "retry_after", "message"),
    [
        (Reason.CIRCUIT_OPEN, 2.0, "circuit of queue 'mail' is open: retry in 2.000 s"),
        (Reason.CIRCUIT_HALF_OPEN, 0.5, "circuit of queue 'mail' is half-open: retry in 0.500 s"),
        (Reason.CIRCUIT_OPEN, None, "circuit of queue 'mail' is open: retry once it is released"),
    ],
)
def test_a_rejection_by_the_circuit_says_so(reason: Reason, retry_after: float | None, message: str) -> None:
    rejected = circuit_open(priority=HIGH, reason=reason, retry_after=retry_after)
    with pytest.raises(CircuitOpenError) as caught:
        rejected.wait()
    assert str(caught.value) == message
    assert (caught.value.priority, caught.value.retry_after) == (HIGH, retry_after)
    with pytest.raises(CircuitOpenError):
        asyncio.run(rejected.wait_async())


def test_a_copy_cannot_wait_without_its_controller() -> None:
    with pytest.raises(BackpressureError, match="ask the controller for a new one"):
        decision().wait()
    with pytest.raises(BackpressureError, match="ask the controller for a new one"):
        asyncio.run(decision().wait_async())


def test_it_is_the_sleeper_that_sleeps() -> None:
    slept: list[float] = []

    class Sleeper(StoppedTime):
        def jittered(self, delay: float, queue_name: str) -> float:
            assert queue_name == "mail"
            return delay * 2

        def pause(self, seconds: float, queue_name: str) -> None:
            assert queue_name == "mail"
            slept.append(seconds)

        async def pause_async(self, seconds: float) -> None:
            slept.append(seconds)

    bound = issued(decision()._answer._replace(sleeper=Sleeper(0)), 0)
    bound.wait()
    asyncio.run(bound.wait_async())
    assert slept == [0.5, 0.5]


def test_every_public_name_is_there() -> None:
    modules = (arguments, stats, vocabulary)
    assert all(hasattr(module, name) for module in modules for name in module.__all__)
