"""The Redis user that the guide recommends is enough, and may do nothing else."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from backpressure import RedisStatsProvider, StatsUnavailableError
from backpressure._age.protocol import Answer, Report, arguments
from backpressure._age.script import budget_key
from backpressure._model.budget import BudgetSettings
from backpressure.providers import ListKey, StreamKey, ZSetKey
from backpressure.providers.redis.client import parse_target
from backpressure.providers.redis.store import BudgetStore
from support import redis_fixtures, servers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backpressure import QueueStats

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "security.md").read_text("utf-8")
RULE = re.findall(r"^ACL SETUSER (.*)$", GUIDE, re.MULTILINE)[0].split()
FOR_CLUSTERS = re.findall(r"add `(\+cluster[^`]*)`", GUIDE)[0].split()
AGE_GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "age-law.md").read_text("utf-8")
STORE_RULE = re.findall(r"^ACL SETUSER (.*)$", AGE_GUIDE, re.MULTILINE)[0].split()
STORE_USER = f"{STORE_RULE[0]}:{STORE_RULE[2].removeprefix('>')}"
CALLED = Report(producer_id="a1", since_ms=0)
USER = f"{RULE[0]}:{RULE[2].removeprefix('>')}"
QUEUES = {
    "list": ListKey("queue:list", processing_key="queue:working"),
    "sorted": ZSetKey("queue:sorted", due="milliseconds"),
    "stream": StreamKey("queue:stream", "workers"),
    "gaps": StreamKey("queue:gaps", "workers"),  # its lag is unknown, so entries are counted
}


def fill(client: redis.Redis | redis.RedisCluster) -> None:
    client.rpush("queue:list", 1, 2)
    client.zadd("queue:sorted", {"a": 1, "b": 2, "c": 3})
    for number in range(4):
        client.xadd("queue:stream", {"n": number}, id=f"{number + 1}-0")
        client.xadd("queue:gaps", {"n": number}, id=f"{number + 1}-0")
    client.xgroup_create("queue:stream", "workers", "0")
    client.xgroup_create("queue:gaps", "workers", "2-0")
    client.xdel("queue:gaps", "3-0")


def backlogs(outcomes: Mapping[str, QueueStats | StatsUnavailableError]) -> dict[str, int | str]:
    return {
        name: str(outcome) if isinstance(outcome, StatsUnavailableError) else outcome.backlog_count
        for name, outcome in outcomes.items()
    }


def test_it_reads_every_kind_and_nothing_else() -> None:
    with redis_fixtures.start() as server, server.client() as admin:
        fill(admin)
        admin.set("queue:text", "x")
        admin.rpush("other", 1)
        admin.execute_command("ACL", "SETUSER", *RULE)
        url = f"redis://{USER}@{servers.HOST}:{server.port}/0"
        with contextlib.closing(RedisStatsProvider(url, QUEUES)) as provider:
            assert backlogs(provider.get_all_queue_stats()) == {"list": 2, "sorted": 3, "stream": 4, "gaps": 1}
        with contextlib.closing(RedisStatsProvider(url, {"text": "queue:text", "other": "other"})) as provider:
            outcomes = provider.get_all_queue_stats()
        assert {entry["object"] for entry in admin.acl_log()} - {"client|setinfo"} == {"other"}
    assert "holds a string" in str(outcomes["text"])
    assert isinstance(refused := outcomes["other"], StatsUnavailableError)
    assert refused.error_type == "acl"


@pytest.mark.parametrize(
    "command", ["KEYS *", "SCAN 0", "GET queue:text", "LPOP queue:list", "CONFIG GET *", "EVAL 1 0"]
)
def test_it_may_not(redis_server: servers.Server, command: str) -> None:
    with redis_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", *RULE)
        refused = admin.execute_command("ACL", "DRYRUN", RULE[0], *command.split())
    assert b"no permissions" in refused


def test_a_cluster_needs_three_more(redis_cluster: servers.Cluster) -> None:
    for node in redis_cluster.nodes:
        with node.client() as admin:
            admin.execute_command("ACL", "SETUSER", *RULE, *FOR_CLUSTERS)
    with redis.RedisCluster(host=servers.HOST, port=redis_cluster.nodes[0].port) as client:
        fill(client)
        url = redis_cluster.url.replace("//", f"//{USER}@")
        with contextlib.closing(RedisStatsProvider(url, QUEUES)) as provider:
            found = backlogs(provider.get_all_queue_stats())
        for key in ("list", "sorted", "stream", "gaps"):
            client.delete(f"queue:{key}")
    assert found == {"list": 2, "sorted": 3, "stream": 4, "gaps": 1}


def shared_by(url: str, *queues: str) -> dict[str, object]:
    """Have the script share the budgets of some queues, and look at their states; return what came of it."""
    calls = {budget_key(name): arguments(BudgetSettings.of(5.0), CALLED) for name in queues}
    with contextlib.closing(BudgetStore(parse_target(url, 5.0))) as store:
        assert all(isinstance(answer, Answer) for answer in store.exchange(calls).values())
        looks: dict[str, object] = {**store.look(calls)}
    return looks


def test_a_store_of_budgets_needs_no_more() -> None:
    with redis_fixtures.start() as server, server.client() as admin:
        admin.execute_command("ACL", "SETUSER", *STORE_RULE)
        looks = shared_by(f"redis://{STORE_USER}@{servers.HOST}:{server.port}/0", "mail", "a{b}c")
        assert all(isinstance(look, tuple) for look in looks.values())
        assert {entry["object"] for entry in admin.acl_log()} <= {"client|setinfo"}


def test_and_a_store_in_a_cluster_three_more(redis_cluster: servers.Cluster) -> None:
    for node in redis_cluster.nodes:
        with node.client() as admin:
            admin.execute_command("ACL", "SETUSER", *STORE_RULE, *FOR_CLUSTERS)
    looks = shared_by(redis_cluster.url.replace("//", f"//{STORE_USER}@"), "mail", "clicks", "sms")
    assert all(isinstance(look, tuple) for look in looks.values())
    with redis.RedisCluster(host=servers.HOST, port=redis_cluster.nodes[0].port) as client:
        for key in looks:
            client.delete(key)


@pytest.mark.parametrize(
    "command", ["GET mail", "SET mail 1", "DEL bp:{mail}:age", "KEYS *", "EVAL 1 0", "SCRIPT FLUSH"]
)
def test_the_user_of_a_store_may_not(redis_server: servers.Server, command: str) -> None:
    with redis_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", *STORE_RULE)
        refused = admin.execute_command("ACL", "DRYRUN", STORE_RULE[0], *command.split())
    assert b"no permissions" in refused


@pytest.mark.parametrize("binary", [servers.valkey_binary, servers.redis_binary])
@pytest.mark.parametrize("right", [word for word in STORE_RULE if word.startswith("+")])
def test_none_of_the_rights_of_a_store_is_idle(right: str, binary: Callable[[], str | None]) -> None:
    found = binary()
    if found is None:
        redis_fixtures.no_server("no server: scripts/install_tools.sh")
    with servers.Server(binary=found) as server, server.client() as admin:
        admin.execute_command("ACL", "SETUSER", *[word for word in STORE_RULE if word != right])
        url = f"redis://{STORE_USER}@{servers.HOST}:{server.port}/0"
        with contextlib.closing(BudgetStore(parse_target(url, 5.0))) as store:
            (answer,) = store.exchange({budget_key("mail"): arguments(BudgetSettings.of(5.0), CALLED)}).values()
        assert isinstance(answer, StatsUnavailableError)
        assert answer.error_type == "acl"
