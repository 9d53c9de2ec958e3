"""What a server may do to the shared state, and what the script makes of it: begin anew, or leave it and say so."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs
import pytest
import redis
from redis.exceptions import NoScriptError

from backpressure._age.protocol import VERSION, BacklogSeen, Demand, Report, decode
from backpressure._age.script import budget_key, source, source_sha1
from support.budgets import SETTINGS, START_MS, SharedBudget, words
from support.redis_fixtures import start
from support.servers import dead_port

if TYPE_CHECKING:
    from backpressure._age.protocol import Answer

KEY = budget_key("mail")
NUMBERS = 90
DRAIN = 200_000
SEED = 150_000
REPORT = Report(
    producer_id="a1",
    since_ms=1_000,
    demands=(Demand(), Demand(gone=200, waiting=10), Demand()),
    enqueued=200,
    seen=BacklogSeen(1_000, 5_000, 0),
    seed_drain_mjobs_per_s=SEED,
    seed_processes=7,
)


@pytest.fixture
def shared(redis_client: redis.Redis) -> SharedBudget:
    return SharedBudget(redis_client, KEY)


def run(shared: SharedBudget, ticks: int = 30) -> Answer:
    """Report so many ticks of a queue from which 200 jobs leave a second."""
    answers = [shared.call(START_MS + 1_000 * tick, REPORT) for tick in range(ticks)]
    assert answers[-1].ticks == ticks
    assert ticks < 8 or abs(answers[-1].drain_mjobs_per_s - DRAIN) < 10_000
    return answers[-1]


def next_call(shared: SharedBudget, *, after_ms: int = 1_000) -> Answer:
    return shared.call(START_MS + 29_000 + after_ms, REPORT)


def begins_anew(answer: Answer) -> bool:
    return (answer.ticks, answer.drain_mjobs_per_s, answer.processes) == (1, SEED, 7)


def test_without_trouble_it_goes_on(shared: SharedBudget) -> None:
    run(shared)
    answer = next_call(shared)
    assert answer.ticks == 31
    assert answer.is_sampler


def test_a_wiped_state_begins_with_what_its_callers_remember(shared: SharedBudget) -> None:
    run(shared)
    shared.client.flushall()
    assert begins_anew(next_call(shared))


def packed(version: int = VERSION, number: float = 1.0, numbers: int = NUMBERS) -> bytes:
    return struct.pack("<H", version) + struct.pack(f"<{numbers}d", *[number] * numbers)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"hello",
        b"x" * 690,
        packed(version=VERSION - 1),
        packed(version=VERSION + 1),
        packed(numbers=NUMBERS - 1),
        packed() + b"x" * 65,
        packed(number=float("nan")),
        packed(number=float("inf")),
    ],
    ids=["empty", "short", "text", "older", "newer", "cut off", "too long", "not a number", "infinite"],
)
def test_what_is_no_state_is_written_over(shared: SharedBudget, value: bytes) -> None:
    run(shared)
    shared.client.set(KEY, value)
    assert begins_anew(next_call(shared))
    assert next_call(shared, after_ms=2_000).ticks == 2


def test_one_number_that_is_none_does_not_stay(shared: SharedBudget) -> None:
    run(shared)
    value = shared.client.get(KEY)
    assert isinstance(value, bytes)
    for place in range(2, 2 + 8 * NUMBERS, 8):
        shared.client.set(KEY, value[:place] + struct.pack("<d", float("nan")) + value[place + 8 :])
        assert begins_anew(next_call(shared)), f"the number at byte {place}"


def test_a_clock_that_goes_back_does_not_stop_the_ticks(shared: SharedBudget) -> None:
    run(shared)
    assert begins_anew(next_call(shared, after_ms=-60_000))
    assert next_call(shared, after_ms=-59_000).ticks == 2


def test_a_clock_that_goes_back_a_little_is_borne(shared: SharedBudget) -> None:
    run(shared)
    assert next_call(shared, after_ms=-1_500).ticks == 30
    assert next_call(shared, after_ms=1_000).ticks == 31


def test_a_clock_that_leaps_ahead_does_not_spoil_the_drain(shared: SharedBudget) -> None:
    before = run(shared).drain_mjobs_per_s
    assert next_call(shared, after_ms=250_000).drain_mjobs_per_s == before


def test_after_a_long_silence_only_the_drain_is_remembered(shared: SharedBudget) -> None:
    before = run(shared).drain_mjobs_per_s
    answer = next_call(shared, after_ms=301_000)
    assert (answer.ticks, answer.drain_mjobs_per_s) == (1, before)


def test_the_key_expires(shared: SharedBudget) -> None:
    run(shared, ticks=8)
    assert 6 * 3_600_000 - 60_000 < shared.client.pttl(KEY) <= 6 * 3_600_000


def test_another_type_is_an_error_and_stays(redis_client: redis.Redis, shared: SharedBudget) -> None:
    redis_client.rpush(KEY, "not ours")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        next_call(shared)
    assert redis_client.lrange(KEY, 0, -1) == [b"not ours"]


def test_a_script_that_is_not_there_is_told_and_can_be_loaded(redis_client: redis.Redis) -> None:
    redis_client.script_flush()
    with pytest.raises(NoScriptError):
        redis_client.evalsha(source_sha1(), 1, KEY, *words(SETTINGS, REPORT))
    redis_client.script_load(source())
    answer = decode(redis_client.evalsha(source_sha1(), 1, KEY, *words(SETTINGS, REPORT)))
    assert begins_anew(answer)
    seconds, _ = redis_client.time()
    assert abs(answer.now_ms / 1_000 - int(seconds)) < 60


def test_a_replica_refuses_and_keeps_the_state() -> None:
    with start() as server, server.client() as client:
        shared = SharedBudget(client, KEY)
        run(shared, ticks=8)
        before = client.get(KEY)
        client.replicaof("127.0.0.1", dead_port())
        with pytest.raises(redis.ReadOnlyError):
            next_call(shared)
        assert client.get(KEY) == before
        client.replicaof("NO", "ONE")
        assert next_call(shared).ticks == 9


def test_a_full_server_refuses_and_keeps_the_state() -> None:
    with start(maxmemory_policy="noeviction") as server, server.client() as client:
        shared = SharedBudget(client, KEY)
        run(shared, ticks=8)
        before = client.get(KEY)
        client.config_set("maxmemory", "1")
        with pytest.raises(redis.ResponseError, match=r"OOM|maxmemory"):
            next_call(shared)
        client.config_set("maxmemory", "0")
        assert client.get(KEY) == before
        assert next_call(shared).ticks == 9


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((place, "nan") for place in (13, 14, 36)),
        *((place, "-1") for place in (13, 14, 32, 35)),
        (14, "1.5"),
        (14, "many"),
        (14, ""),
        (33, "-2"),
        (14, "1000000001"),
        (1, "3600001"),
        (2, "0"),
        (2, "1001"),
        (10, "0"),
        (11, "1001"),
        (37, "1000001"),
        (12, ""),
        (12, "x" * 65),
    ],
)
def test_a_report_that_is_none_is_refused(shared: SharedBudget, place: int, value: str) -> None:
    run(shared, ticks=2)
    before = shared.client.get(KEY)
    told = words(SETTINGS, REPORT)
    told[place] = value
    with pytest.raises(redis.ResponseError, match="AGEREPORT"):
        shared.send(START_MS + 9_000, told)
    with pytest.raises(redis.ResponseError, match="AGEREPORT wants 38"):
        shared.send(START_MS + 9_000, told[:-1])
    assert shared.client.get(KEY) == before


def test_another_version_is_refused(shared: SharedBudget) -> None:
    told = words(SETTINGS, REPORT)
    told[0] = str(VERSION + 1)
    with pytest.raises(redis.ResponseError, match="AGEVERSION the caller speaks version 3, this script 2"):
        shared.send(START_MS, told)


def test_the_sampler_is_replaced_when_it_is_not_heard(shared: SharedBudget) -> None:
    run(shared)
    other = attrs.evolve(REPORT, producer_id="b2", demands=(Demand(), Demand(gone=1), Demand()), enqueued=1, seen=None)
    assert not shared.call(START_MS + 29_000 + 2_500, other).is_sampler
    assert shared.call(START_MS + 29_000 + 2_501, other).is_sampler


def test_the_least_rights_suffice() -> None:
    rights = ["+evalsha", "+script|load", "+get", "+set", "+time"]
    with start() as server, server.client() as owner:
        owner.acl_setuser("producer", enabled=True, nopass=True, keys=["bp:*"], commands=rights)
        with server.client(username="producer", password="x") as client:
            sha = client.script_load(source())
            assert begins_anew(decode(client.evalsha(sha, 1, KEY, *words(SETTINGS, REPORT))))
            with pytest.raises(redis.ResponseError, match=r"NOPERM|No permissions|can't access"):
                client.evalsha(sha, 1, "mail", *words(SETTINGS, REPORT))
