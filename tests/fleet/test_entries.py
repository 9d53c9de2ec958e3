"""Entries of the control hash: what is written is read, and whatever else lies there is an error about its field."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpressure._fleet import audit, entries, presence, texts
from backpressure._fleet.entries import EntryError, Switch, decode, encode, switches_of
from backpressure._model.errors import ConfigurationError

KEY = b"0123456789abcdef"
ON = Switch(kind="override", action="on", until_ms=5_000, by="ana@shop", reason="sale", n=3)
OPEN = Switch(kind="circuit", queue_name="mail:{eu}", action="open", until_ms=5_000, by="ana", reason="bank", n=4)


@pytest.mark.parametrize("switch", [ON, OPEN, attrs.evolve(ON, reason='"quoted" – é')])
@pytest.mark.parametrize("key", [None, KEY])
def test_what_is_written_is_read(switch: Switch, key: bytes | None) -> None:
    assert decode(switch.field, encode(switch, "shop", key), "shop", key) == switch
    assert decode(switch.field, encode(switch, "shop", key).encode(), "shop") == switch  # readers without the key


@pytest.mark.parametrize(
    "change",
    [
        *({"v": 2}, {"v": True}, {"do": "open"}, {"do": ["on"]}, {"until_ms": -1}, {"until_ms": 1e300}),
        *({"until_ms": "5"}, {"by": ""}, {"by": "a\x1b[2J"}, {"reason": "x" * 501}, {"reason": "a\u202eb"}),
        *({"n": None}, {"n": 2**53}),
    ],
)
def test_a_wrong_part_is_named(change: dict[str, Any]) -> None:
    told = json.loads(encode(ON, "shop")) | change
    with pytest.raises(EntryError, match=f"field 'override' of the fleet: {next(iter(change))} is "):
        decode("override", json.dumps(told), "shop")


@pytest.mark.parametrize(
    ("field", "raw", "wrong"),
    [
        ("override", b"\xff\xfe", "no JSON object"),
        ("override", "[" * 4_000, "no JSON object"),
        ("override", "[]", "no JSON object"),
        ("override", " " * 5_000, "5,000 bytes"),
        ("circuit:", encode(OPEN, "shop"), "invalid queue name"),
        ("circuit:a\nb", encode(OPEN, "shop"), "invalid queue name"),
        ("shrug", encode(ON, "shop"), "is not known"),
    ],
)
def test_what_is_no_entry_is_an_error_about_its_field(field: str, raw: str, wrong: str) -> None:
    with pytest.raises(EntryError, match=wrong):
        decode(field, raw, "shop")


@given(st.binary(max_size=60) | st.from_type(dict[str, int]).map(lambda table: json.dumps(table).encode()))
def test_nothing_else_is_ever_raised(raw: bytes) -> None:
    switches, wrong = switches_of({b"override": raw, "emergency": encode(ON, "shop")}, "shop")
    assert (list(switches), list(wrong)) == (["emergency"], ["override"])
    assert presence.Presence.of("a-1-x", raw).problem
    audit.AuditEntry.of(raw, {raw: raw})


@pytest.mark.parametrize("part", ["do", "until_ms", "n", "by", "reason"])
def test_a_signed_entry_cannot_be_changed(part: str) -> None:
    told = json.loads(encode(OPEN, "shop", KEY))
    told[part] = "close" if part == "do" else told[part] * 2
    with pytest.raises(EntryError, match="not signed"):
        decode(OPEN.field, json.dumps(told), "shop", KEY)


def test_nor_moved_to_another_field_or_fleet_nor_left_unsigned() -> None:
    told = encode(OPEN, "shop", KEY)
    for field, fleet, raw in ((OPEN.field + "2", "shop", told), (OPEN.field, "shops", told)):
        with pytest.raises(EntryError, match="not signed"):
            decode(field, raw, fleet, KEY)
    with pytest.raises(EntryError, match="not signed"):
        decode(OPEN.field, encode(OPEN, "shop"), "shop", KEY)


def test_a_hash_that_somebody_has_filled_is_bounded() -> None:
    control = {f"circuit:q{number}": encode(OPEN, "shop") for number in range(entries.MAX_FIELDS + 5)}
    switches, wrong = switches_of(control, "shop")
    assert (len(switches), list(wrong)) == (entries.MAX_FIELDS, [""])


@pytest.mark.parametrize("key", ["short", 5, b""])
def test_a_key_is_long_enough(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="at least 16"):
        entries.check_key(key)


def test_texts_hide_passwords() -> None:
    assert texts.check_text(" see redis://u:secret@h/0 ", "reason", 99) == "see redis://***@h/0"


def test_what_a_process_tells_is_bounded_and_read_as_it_was_written() -> None:
    told = presence.Presence(
        id="host-1-ab",
        host="host",
        pid=1,
        offers=1.5,
        switches=("override",),
        queues={"mail": (0.5, 0.0, 0.0, 0.0, 0.0, 12.25)},
        circuits={"mail": "open"},
        circuits_open=1,
        probes_ms={"mail": 4_000},
        last_error="x" * 900,
    )
    read = presence.Presence.of("host-1-ab", told.encode())
    assert read == attrs.evolve(told, last_error="x" * 300)
    wide = attrs.evolve(told, circuits={"é" * 250 + str(number): "open" for number in range(20)})
    assert len(wide.encode()) <= 8_192


@pytest.mark.parametrize(
    "change",
    [
        {"pid": -1},
        {"pid": 1.5},
        {"host": 5},
        {"switches": [1]},
        {"circuits": {"a": 1}},
        {"queues": {"a": [1, 2]}},
        {"queues": {"a": [1, 2, 3, 4, 5, "6"]}},
        {"probes_ms": {"a": -1}},
        {"probes_ms": {"a": True}},
        {"queues": []},
    ],
)
def test_a_member_that_tells_nonsense_is_named_and_no_more(change: dict[str, Any]) -> None:
    told = json.loads(presence.Presence(id="a").encode()) | change
    read = presence.Presence.of("a", json.dumps(told))
    assert read == presence.Presence(id="a", problem=read.problem)
    assert next(iter(change)) in read.problem


def test_no_text_of_a_member_can_turn_a_terminal() -> None:
    read = presence.Presence.of("a", json.dumps({"v": 1, "host": "\x1b[2J", "circuits": {"q\n": "open"}}))
    assert (read.host, read.circuits) == ("?[2J", {"q?": "open"})
