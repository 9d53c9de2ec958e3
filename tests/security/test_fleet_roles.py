"""The users that the guide recommends for a fleet are enough for their role, and may do nothing else."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from backpressure import (
    BackpressureConfig,
    BackpressureController,
    FleetConfig,
    InMemoryStatsProvider,
    PollingConfig,
    RedisStatsProvider,
)
from backpressure._fleet.keys import audit_key, before_key, control_key, members_key, presence_key
from backpressure._fleet.operator import Operator
from support import redis_fixtures, servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "fleet.md").read_text("utf-8")
SECURITY_GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "security.md").read_text("utf-8")
RULES = {rule.split()[0].removeprefix("shop-"): rule for rule in re.findall(r"^ACL SETUSER (.*)$", GUIDE, re.MULTILINE)}
SECRET = "SECRET"

# Where an operator's presence, or a producer's control, would be; and a key of jobs.
CONTROL, AUDIT, MEMBERS, ANY = control_key("shop"), audit_key("shop"), members_key("shop"), presence_key("shop", "a")
BEFORE = before_key("shop")
FOREIGN = control_key("other")
LOOKING = [f"HGETALL {CONTROL}", "TIME", f"XREVRANGE {AUDIT} + -", f"ZRANGEBYSCORE {MEMBERS} 0 1", f"MGET {ANY}"]
MAY = {
    "producer": [f"HGETALL {CONTROL}", "TIME", f"SET {ANY} x PX 9", f"ZADD {MEMBERS} 1 a", f"ZCOUNT {MEMBERS} 0 1"],
    "operator": [
        *LOOKING,
        f"WATCH {CONTROL}",
        "MULTI",
        "EXEC",
        f"HSET {CONTROL} override x",
        f"HDEL {CONTROL} override",
        f"XADD {AUDIT} * a b",
        f"WATCH {BEFORE}",
        f"GET {BEFORE}",
        f"SET {BEFORE} x",
    ],
    "console": LOOKING,
}
NOBODY = [
    "KEYS *",
    "SCAN 0",
    "GET mail",
    "LPUSH mail x",
    "LRANGE mail 0 1",
    "DEL mail",
    "FLUSHALL",
    "CONFIG GET *",
    "EVAL 1 0",
    "PUBLISH a b",
    "ACL LIST",
    f"DEL {CONTROL}",
    f"DEL {AUDIT}",
    f"XTRIM {AUDIT} MAXLEN 0",
    f"XDEL {AUDIT} 1-0",
    f"HGETALL {FOREIGN}",
    f"HSET {FOREIGN} override x",
    f"SET {presence_key('other', 'a')} x",
    f"EXPIRE {CONTROL} 1",
    f"RENAME {CONTROL} mail",
    "SET mail x",
    "HSET mail a b",
    "ZADD mail 1 a",
    "XADD mail * a b",
    "MGET mail",
    "HGETALL mail",
    f"COPY {CONTROL} mail",
]
MAY_NOT = {
    "producer": [
        *NOBODY,
        f"HSET {CONTROL} override x",
        f"HDEL {CONTROL} override",
        f"XADD {AUDIT} * a b",
        f"XREVRANGE {AUDIT} + -",
        f"GET {ANY}",
        f"MGET {ANY}",
        f"SET {ANY} x GET",
        f"SET {CONTROL} x",
        f"SET {BEFORE} x",
        f"GET {BEFORE}",
        f"ZADD {CONTROL} 1 a",
        f"ZRANGEBYSCORE {MEMBERS} 0 1",
    ],
    "operator": [*NOBODY, f"SET {ANY} x", f"ZADD {MEMBERS} 1 a", f"HSET {MEMBERS} a b", f"XADD {CONTROL} * a b"],
    "console": [*NOBODY, *(command for command in MAY["operator"] if command not in LOOKING), f"SET {ANY} x"],
}


@pytest.fixture(params=[servers.valkey_binary, servers.redis_binary], ids=["valkey", "redis"], scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    find: Callable[[], str | None] = request.param
    if (binary := find()) is None:
        redis_fixtures.no_server("no server: scripts/install_tools.sh")
    with servers.Server(binary=binary) as started:
        with started.client() as admin:
            for rule in RULES.values():
                admin.execute_command("ACL", "SETUSER", *_words(rule))
        yield started


def _words(rule: str) -> list[str]:
    """Return the arguments of a rule; a selector in parentheses is one of them."""
    return re.findall(r"\([^)]*\)|\S+", rule)


def as_user(server: servers.Server, role: str) -> Any:
    return redis.Redis(host=servers.HOST, port=server.port, username=f"shop-{role}", password=SECRET)


def test_the_guide_has_three_roles() -> None:
    assert set(RULES) == {"producer", "operator", "console"}


@pytest.mark.parametrize(("role", "command"), [(role, command) for role in MAY for command in MAY[role]])
def test_a_role_may(server: servers.Server, role: str, command: str) -> None:
    with server.client() as admin:
        assert admin.execute_command("ACL", "DRYRUN", f"shop-{role}", *command.split()) == b"OK"


@pytest.mark.parametrize(("role", "command"), [(role, command) for role in MAY_NOT for command in MAY_NOT[role]])
def test_a_role_may_not(server: servers.Server, role: str, command: str) -> None:
    with as_user(server, role) as client, pytest.raises(redis.exceptions.ResponseError, match=r"(?i)no permissions"):
        client.execute_command(*command.split())


def test_a_user_that_reads_queues_takes_the_words_of_a_producer(server: servers.Server) -> None:
    queues = re.findall(r"^ACL SETUSER (.*)$", SECURITY_GUIDE, re.MULTILINE)[0]
    words = RULES["producer"][RULES["producer"].index("+time") :]
    with server.client() as admin:
        admin.flushall()
        admin.execute_command("ACL", "SETUSER", *_words(f"{queues} {words}"))
        admin.rpush("queue:mail", 1, 2)
        admin.acl_log_reset()
        Operator(admin, "shop", by="ana").override(True, reason="x")
        name, secret = queues.split()[0], queues.split()[2].removeprefix(">")
        url = f"redis://{name}:{secret}@{servers.HOST}:{server.port}/0"
        config = BackpressureConfig(polling=PollingConfig(interval=0.05, jitter=0), fleet=FleetConfig(name="shop"))
        with (
            contextlib.closing(RedisStatsProvider(url, {"mail": "queue:mail"})) as provider,
            BackpressureController(config, provider) as controller,
        ):
            eventually(lambda: controller.health()["manual_override"])
            eventually(lambda: controller.health()["fleet"]["members"] == 1)
            health = controller.health()
            assert (health["fleet"]["problem"], health["queues"]["mail"]["backlog"]) == (None, 2)
        assert {entry["object"] for entry in admin.acl_log()} <= {"client|setinfo"}
    with redis.Redis(host=servers.HOST, port=server.port, username=name, password=secret) as client:
        for command in ("SET queue:mail x", "ZADD queue:mail 1 a", f"HSET {CONTROL} a b", "HGETALL queue:mail"):
            with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)no permissions"):
                client.execute_command(*command.split())


@pytest.mark.parametrize("role", RULES)
def test_none_of_the_rights_is_idle(server: servers.Server, role: str) -> None:
    commands = {command.split()[0].lower() for command in MAY[role]} | {"select", "unwatch", "zremrangebyscore"}
    granted = set(re.findall(r"\+(\S+?)(?=[\s)])", RULES[role] + " "))
    assert granted <= commands


def test_the_roles_are_enough(server: servers.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with server.client() as admin:
        admin.flushall()
        admin.acl_log_reset()
    monkeypatch.setenv("FLEET_URL", f"redis://shop-producer:{SECRET}@{servers.HOST}:{server.port}/0")
    config = BackpressureConfig(
        polling=PollingConfig(interval=0.05, jitter=0), fleet=FleetConfig(name="shop", url="$FLEET_URL")
    )
    with (
        contextlib.closing(as_user(server, "operator")) as client,
        contextlib.closing(as_user(server, "console")) as looker,
        BackpressureController(config, InMemoryStatsProvider({"mail": 5_000})) as controller,
    ):
        operator, console = Operator(client, "shop", by="ana"), Operator(looker, "shop")
        operator.override(True, reason="sale")
        operator.circuit("mail", "open", reason="bank")
        eventually(lambda: controller.health()["manual_override"])
        eventually(lambda: any(member.switches for member in console.members()))
        operator.override(False, reason="over")
        assert [line.action for line in console.audit()] == ["off", "open", "on"]
        pushed = operator.push({"mode": "observe"}, reason="try")
        operator.rollback(reason="no")
        eventually(lambda: console.members()[0].config_revision > pushed.n)
        assert [switch.action for switch in console.switches()] == ["open"]
        assert controller.health()["fleet"]["problem"] is None
        with pytest.raises(redis.exceptions.NoPermissionError):
            console.override(True, reason="mine")
    with server.client() as admin:
        refused = {entry["object"] for entry in admin.acl_log() if entry["username"] != "shop-console"}
    assert refused <= {"client|setinfo"}
