"""The operator's side on real servers: switches and audit in one transaction, ends by the server's clock, members."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import redis

from backpressure._fleet.keys import audit_key, control_key, members_key, presence_key
from backpressure._fleet.operator import Operator, author
from backpressure._fleet.presence import FORGOTTEN_MS, Presence
from backpressure._model.errors import ConfigurationError, InvalidQueueError
from support import redis_fixtures, servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=[servers.valkey_binary, servers.redis_binary], ids=["valkey", "redis"], scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    find: Callable[[], str | None] = request.param
    if (binary := find()) is None:
        redis_fixtures.no_server("no server: scripts/install_tools.sh")
    with servers.Server(binary=binary) as started:
        yield started


@pytest.fixture(params=[False, True], ids=["bytes", "text"])
def client(server: servers.Server, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with server.client(decode_responses=request.param) as made:
        made.flushall()
        yield made


def now_ms(client: redis.Redis) -> int:
    seconds, microseconds = client.time()
    return seconds * 1_000 + microseconds // 1_000


def test_a_switch_is_written_with_its_line_in_the_audit(client: redis.Redis) -> None:
    operator = Operator(client, "shop", by="ana@ops")
    before = now_ms(client)
    made = operator.override(True, reason="sale")
    assert made is not None
    assert operator.switches() == [made]
    assert before + 600_000 <= made.until_ms <= now_ms(client) + 600_000
    (line,) = operator.audit()
    assert (line.field, line.action, line.by, line.reason) == ("override", "on", "ana@ops", "sale")
    assert (line.until_ms, line.n, before <= line.at_ms <= now_ms(client)) == (made.until_ms, made.n, True)


def test_switches_are_turned_off_and_replaced(client: redis.Redis) -> None:
    operator = Operator(client, "shop", by="ana")
    first = operator.emergency(True, reason="one", for_=60)
    second = operator.emergency(True, reason="two", for_=61, by="bo")
    assert first is not None
    assert second is not None
    assert second.n > first.n
    opened = operator.circuit("mail", "open", reason="bank")
    assert operator.switches() == [opened, second]
    operator.circuit("mail", "reset", reason="paid")
    assert operator.emergency(False, reason="over") is None
    (left,) = operator.switches()
    assert (left.action, left.holds) == ("reset", False)
    assert [(line.action, line.by) for line in operator.audit(3)] == [("off", "ana"), ("reset", "ana"), ("open", "ana")]


def test_what_is_over_does_not_stay(client: redis.Redis) -> None:
    operator = Operator(client, "shop", by="ana")
    made = operator.circuit("mail", "open", reason="bank")
    told = json.loads(str(redis_text(client.hget(control_key("shop"), made.field))))
    client.hset(control_key("shop"), made.field, json.dumps(told | {"until_ms": now_ms(client)}))
    assert operator.switches() == []
    operator.override(True, reason="sale")
    assert [redis_text(name) for name in client.hkeys(control_key("shop"))] == ["override"]


def redis_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def test_what_others_wrote_is_told_and_not_taken(client: redis.Redis) -> None:
    client.hset(control_key("shop"), "override", "on please")
    operator = Operator(client, "shop", by="ana")
    control = operator.control()
    assert control.switches == ()
    assert "holds no JSON object" in control.problems[0]
    assert operator.override(True, reason="mine") is not None
    assert operator.control().problems == ()


def test_somebody_who_writes_in_between_loses_nothing(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, other = Operator(client, "shop", by="ana"), Operator(client, "shop", by="bo")
    judge, meanwhile = operator._outdated, [lambda: other.emergency(True, reason="theirs")]

    def outdated(*args: Any) -> list[str]:
        if meanwhile:
            meanwhile.pop()()
        return judge(*args)

    monkeypatch.setattr(operator, "_outdated", outdated)
    operator.override(True, reason="ours")
    assert [switch.by for switch in operator.switches()] == ["bo", "ana"]
    assert len(operator.audit()) == 2


def test_with_a_key_only_what_was_signed_counts(client: redis.Redis) -> None:
    key = "a key of sixteen bytes or more"
    Operator(client, "shop", by="intruder").override(True, reason="unsigned")
    signed = Operator(client, "shop", by="ana", key=key)
    assert signed.switches() == []
    assert "not signed" in signed.control().problems[0]
    signed.override(True, reason="signed")
    assert [switch.by for switch in signed.switches()] == ["ana"]
    assert key not in repr(signed)


def test_members_are_those_whose_keys_have_not_expired(client: redis.Redis) -> None:
    told = {f"host-{number}-ab": Presence(id=f"host-{number}-ab", host="host", pid=number) for number in range(3)}
    now = now_ms(client)
    for member_id, presence in told.items():
        client.set(presence_key("shop", member_id), presence.encode(), px=60_000)
        client.zadd(members_key("shop"), {member_id: now})
    client.delete(presence_key("shop", "host-1-ab"))
    client.set(presence_key("shop", "garbage"), "x")
    client.zadd(members_key("shop"), {"garbage": now, "long gone": now, "host-2-ab": now - FORGOTTEN_MS - 1})
    members = Operator(client, "shop").members()
    assert [member.id for member in members] == ["garbage", "host-0-ab"]
    assert members[0].problem
    assert members[1] == told["host-0-ab"]


def test_five_hundred_members_are_two_round_trips(client: redis.Redis) -> None:
    with client.pipeline() as pipeline:
        for number in range(500):
            member_id = f"host-{number}-ab"
            pipeline.set(presence_key("shop", member_id), Presence(id=member_id).encode())
            pipeline.zadd(members_key("shop"), {member_id: 2**52})
        pipeline.execute()
    before = client.info("stats")["total_commands_processed"]
    assert len(Operator(client, "shop").members()) == 500
    assert client.info("stats")["total_commands_processed"] - before <= 5


@pytest.mark.parametrize("for_", [0, 0.9, 86_401, -1, "10m", float("nan"), True])
def test_every_switch_ends_within_a_day(client: redis.Redis, for_: Any) -> None:
    with pytest.raises(ConfigurationError, match="for_"):
        Operator(client, "shop").override(True, reason="sale", for_=for_)


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "x" * 501, None, "a\x1b[0m"])
def test_a_reason_is_demanded(client: redis.Redis, reason: Any) -> None:
    operator = Operator(client, "shop")
    writes: list[Callable[[], object]] = [
        lambda: operator.override(True, reason=reason),
        lambda: operator.emergency(False, reason=reason),
        lambda: operator.circuit("mail", "open", reason=reason),
    ]
    for write in writes:
        with pytest.raises(ConfigurationError, match="reason is"):
            write()
    assert operator.audit() == []


def test_names_and_actions_are_checked(client: redis.Redis) -> None:
    for name in ("", "a b", "a{b}", "x" * 65, None):
        with pytest.raises(ConfigurationError, match="fleet name is"):
            Operator(client, name)  # type: ignore[arg-type]
    operator = Operator(client, "shop")
    with pytest.raises(InvalidQueueError):
        operator.circuit("a\nb", "open", reason="x")
    with pytest.raises(ConfigurationError, match="action is 'shut'"):
        operator.circuit("mail", "shut", reason="x")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="enabled is 1"):
        operator.override(1, reason="x")  # type: ignore[arg-type]


def test_a_cluster_keeps_all_on_one_node(redis_cluster: servers.Cluster) -> None:
    cluster: Any = redis.RedisCluster(host=servers.HOST, port=redis_cluster.nodes[0].port)
    with cluster as client:
        operator = Operator(client, "shop", by="ana")
        made = operator.circuit("mail", "open", reason="bank")
        assert operator.switches() == [made]
        assert operator.members() == []
        assert len(operator.audit()) == 1
        for key in (control_key("shop"), audit_key("shop")):
            client.delete(key)


def test_the_author_is_who_is_at_work_here() -> None:
    assert "@" in author()
    assert repr(Operator(redis.Redis(), "shop", by="ana")) == "Operator('shop', by='ana')"
