"""What is wanted, mapped from the server's clock onto this process's, and kept until its own time."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from backpressure._controller.fleet.wanted import Change, Wanted, Wish
from backpressure._fleet.entries import Switch, encode

NOW_MS, HERE_NS = 1_700_000_000_000, 5_000_000_000
SECOND = 10**9
ON = Switch(kind="override", action="on", until_ms=NOW_MS + 10_000, by="ana", reason="sale", n=1)
WISH = Wish(ON, HERE_NS + 10 * SECOND)


def control(*switches: Switch) -> dict[str, Any]:
    return {switch.field: encode(switch, "shop") for switch in switches}


@pytest.fixture
def wanted() -> Wanted:
    wanted = Wanted("shop", None)
    assert wanted.take(control(ON), NOW_MS, HERE_NS) == [Change("override", None, WISH)]
    return wanted


def test_the_rest_of_its_time_counts_from_when_it_was_read(wanted: Wanted) -> None:
    assert wanted.known() == {"override": WISH}
    assert wanted.next_end_ns() == WISH.until_ns
    assert wanted.expire(WISH.until_ns - 1) == []
    assert wanted.expire(WISH.until_ns) == [Change("override", WISH, None)]
    assert (wanted.known(), wanted.next_end_ns()) == ({}, None)


@pytest.mark.parametrize("jitter_ms", [-199, -1, 0, 1, 199])
def test_clocks_that_jitter_change_nothing(wanted: Wanted, jitter_ms: int) -> None:
    assert wanted.take(control(ON), NOW_MS + 1_000 + jitter_ms, HERE_NS + SECOND) == []
    assert wanted.known() == {"override": WISH}


def test_a_clock_that_was_set_is_followed(wanted: Wanted) -> None:
    (change,) = wanted.take(control(ON), NOW_MS + 6_000, HERE_NS + SECOND)
    assert change.now == Wish(ON, HERE_NS + 5 * SECOND)


def test_another_entry_replaces_it(wanted: Wanted) -> None:
    longer = attrs.evolve(ON, until_ms=NOW_MS + 60_000, n=2)
    assert wanted.take(control(longer), NOW_MS, HERE_NS) == [
        Change("override", WISH, Wish(longer, HERE_NS + 60 * SECOND))
    ]


@pytest.mark.parametrize("fields", [{}, {"override": b"?"}, {"override": "[]"}, {"else": "{}"}])
def test_what_is_lost_or_not_understood_stays(wanted: Wanted, fields: dict[str, Any]) -> None:
    assert wanted.take(fields, NOW_MS, HERE_NS) == []
    assert wanted.known() == {"override": WISH}
    assert wanted.expire(WISH.until_ns) != []


def test_off_ends_it_and_is_told_once(wanted: Wanted) -> None:
    off = attrs.evolve(ON, action="off", by="bo", n=2)
    (change,) = wanted.take(control(off), NOW_MS, HERE_NS)
    assert (change.before, change.now) == (WISH, Wish(off, WISH.until_ns))
    assert wanted.known() == {}
    assert wanted.take(control(off), NOW_MS, HERE_NS) == []


def test_what_is_over_by_the_servers_clock_is_over(wanted: Wanted) -> None:
    assert wanted.take(control(ON), ON.until_ms, HERE_NS) == [Change("override", WISH, None)]
    assert wanted.take(control(ON), ON.until_ms, HERE_NS) == []


def test_nothing_holds_for_longer_than_a_day() -> None:
    wanted = Wanted("shop", None)
    wanted.take(control(attrs.evolve(ON, until_ms=2**53 - 1)), NOW_MS, HERE_NS)
    assert wanted.next_end_ns() == HERE_NS + 86_400 * SECOND


def test_a_configuration_is_no_switch() -> None:
    wanted = Wanted("shop", None)
    assert wanted.take({"config": "{}"}, NOW_MS, HERE_NS) == []
    assert wanted.wrong == {}
