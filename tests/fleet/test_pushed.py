"""Configurations that operators push: what they may hold, for whom they are, and how they come back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from backpressure import BackpressureConfig, ConfigurationError
from backpressure._fleet.entries import EntryError
from backpressure._fleet.keys import control_key
from backpressure._fleet.operator import Operator
from backpressure._fleet.pushed import Pushed, check_pushable, laid_over

if TYPE_CHECKING:
    import redis

KEY = b"0123456789abcdef"
NARROW = {"thresholds": {"low_priority": {"red_max": 800}}}
PUSHED = Pushed(
    n=5, share_permille=100, settings=NARROW, by="ana", reason="disks", others_n=3, others={"mode": "observe"}
)


@pytest.mark.parametrize("key", [None, KEY])
def test_what_is_written_is_read(key: bytes | None) -> None:
    assert Pushed.decode(PUSHED.encode("shop", key), "shop", key) == PUSHED
    assert Pushed.decode(PUSHED.encode("shop", key).encode(), "shop") == PUSHED


@pytest.mark.parametrize(
    "change",
    [
        *({"v": 2}, {"n": -1}, {"share": 0}, {"share": 1_001}, {"settings": {}}, {"settings": "[]"}, {"others": "x"}),
        *({"by": ""}, {"reason": 5}, {"settings": '{"a":' * 5_000}, {"others_n": None}),
    ],
)
def test_what_is_none(change: dict[str, Any]) -> None:
    told = json.loads(PUSHED.encode("shop")) | change
    with pytest.raises(EntryError, match="'config' of the fleet"):
        Pushed.decode(json.dumps(told), "shop")


@pytest.mark.parametrize("part", ["n", "share", "by", "reason", "settings", "others_n", "others"])
def test_a_signed_one_cannot_be_changed(part: str) -> None:
    told = json.loads(PUSHED.encode("shop", KEY))
    told[part] = '{"max_queues":9}' if part in {"settings", "others"} else told[part] * 2
    with pytest.raises(EntryError, match="not signed"):
        Pushed.decode(json.dumps(told), "shop", KEY)


def test_a_larger_share_holds_the_smaller() -> None:
    ids = [f"host-{number}-ab" for number in range(2_000)]
    shares = [
        {each for each in ids if attrs.evolve(PUSHED, share_permille=permille).of(each)[0] == 5}
        for permille in (1, 100, 500, 1_000)
    ]
    assert shares[0] <= shares[1] < shares[2] < shares[3] == set(ids)
    assert 140 <= len(shares[1]) <= 260
    assert PUSHED.of(next(iter(set(ids) - shares[1]))) == (3, {"mode": "observe"})


@pytest.mark.parametrize(
    ("settings", "field", "instead"),
    [
        ({"circuit": {"failure_threshold": 9}}, "circuit", "restart the processes"),
        ({"max_queues": 9}, "max_queues", "restart the processes"),
        ({"fleet": {"name": "other"}}, "fleet", "its own configuration names"),
        ({"recovery": {"manual_override": True}}, "recovery.manual_override", "use backpressure override"),
        ({"recovery": {"emergency_mode": True}}, "recovery.emergency_mode", "use backpressure emergency"),
        ({"polling": {"enabled": False}}, "polling.enabled", "read by polls"),
        ({"queues": {"mail": {"circuit": {}}}}, 'queues."mail".circuit', "restart the processes"),
        ({"queues": {"m*": {"url": "redis://h"}}}, 'queues."m*".url', "restart the processes"),
        ({"thresholds": {"low_priority": {"red_max": "x"}}}, "thresholds.low_priority.red_max", "give an integer"),
        ({"shrug": 1}, "shrug", "is unknown"),
        ({"queues": {"mail": {"thresholds": {"low_priority": {"red_max": 10_000}}}}}, "", ""),
    ],
)
def test_what_running_processes_can_take(settings: dict[str, Any], field: str, instead: str) -> None:
    if not field:
        assert check_pushable(settings) == settings
        return
    with pytest.raises(ConfigurationError, match=instead) as caught:
        check_pushable(settings)
    assert caught.value.field == field


def test_what_fits_some_configuration_may_be_pushed() -> None:
    slow = {"polling": {"timeout": "9s"}}
    with pytest.raises(ConfigurationError, match=r"polling\.timeout is 9"):
        check_pushable(slow)
    assert check_pushable(slow, BackpressureConfig.from_mapping({"polling": {"interval": "15s"}})) == slow


def test_all_faults_are_told() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_pushable({"max_queues": 5, "circuit": {}, "queues": {"mail": {"url": "redis://h"}}})
    assert len(caught.value.faults) == 3


def test_settings_are_bounded() -> None:
    queues = {f"queue-{number}": {"mode": "observe"} for number in range(600)}
    with pytest.raises(ConfigurationError, match="push at most 16,384"):
        check_pushable({"queues": queues})


def test_they_lie_over_a_process_own() -> None:
    own = BackpressureConfig.from_mapping({"mode": "observe", "circuit": {"failure_threshold": 9}})
    config = laid_over(NARROW, own)
    assert (config.mode, config.circuit.failure_threshold) == ("observe", 9)
    assert config.thresholds.low_priority.red_max == 800
    assert laid_over({}, own) is own


def test_push_share_and_rollback(redis_client: redis.Redis) -> None:
    operator = Operator(redis_client, "shop", by="ana")
    with pytest.raises(ConfigurationError, match="nothing was pushed"):
        operator.rollback(reason="x")
    first = operator.push({"mode": "observe"}, reason="one")
    assert operator.control().pushed == first
    tried = operator.push(NARROW, reason="two", share=0.1, by="bo")
    assert (tried.share_permille, tried.others_n, tried.others) == (100, first.n, {"mode": "observe"})
    wider = operator.push(NARROW, reason="three", share=0.5)
    assert (wider.others_n, wider.others) == (first.n, {"mode": "observe"})
    back = operator.rollback(reason="four")
    assert (back.share_permille, back.settings, back.others_n) == (100, NARROW, first.n)
    assert back.n > wider.n > tried.n > first.n
    again = operator.rollback(reason="five")
    assert (again.share_permille, again.settings) == (500, NARROW)
    whole = operator.push(NARROW, reason="six")
    assert (whole.others_n, whole.others) == (0, {})
    assert [(line.action, line.detail) for line in operator.audit(3)] == [
        ("push", ""),
        ("rollback", "50 % of the processes"),
        ("rollback", "10 % of the processes"),
    ]


def test_the_first_push_is_taken_back_to_each_process_own(redis_client: redis.Redis) -> None:
    operator = Operator(redis_client, "shop", by="ana")
    operator.push(NARROW, reason="one")
    back = operator.rollback(reason="two")
    assert (back.settings, back.share_permille) == ({}, 1_000)


@pytest.mark.parametrize("share", [0, 0.0004, 1.1, -1, "10%", True, float("nan")])
def test_shares_that_are_none(redis_client: redis.Redis, share: Any) -> None:
    with pytest.raises(ConfigurationError, match="share is"):
        Operator(redis_client, "shop").push(NARROW, reason="x", share=share)


def test_a_switch_leaves_the_configuration_alone(redis_client: redis.Redis) -> None:
    operator = Operator(redis_client, "shop")
    pushed = operator.push(NARROW, reason="x")
    operator.override(True, reason="y")
    assert operator.control().pushed == pushed
    redis_client.hset(control_key("shop"), "config", "?")
    assert operator.control().pushed is None
    assert "'config'" in operator.control().problems[0]
    assert operator.push(NARROW, reason="z").others == {}
