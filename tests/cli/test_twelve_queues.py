"""An operator's queues of many kinds in one file: `check`, `top` and `explain` read them all, on real servers."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import amqp  # type: ignore[import-untyped]
import boto3.session  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from support import rabbitmq_server, redis_fixtures, servers
from support.postgres_server import session_postgres  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from cli.conftest import Run
    from support.postgres_server import Postgres

FILE = """
[queues."*"]
url = "$SHOP_REDIS"

[queues."mail-*"]
layout = "rq"
mode = "observe"

[queues.mail-eu]
[queues.mail-us]

[queues.campaign]
layout = "celery"
options = { priority_steps = [0, 3, 6, 9] }

[queues."arq:queue"]
layout = "arq"

[queues.push]
layout = "saq"

[queues.events]
layout = "stream"
group = "workers"

[queues.clicks]
layout = "zset"
key = "jobs:{queue}"
options = { due = "seconds" }

[queues.images]
layout = "list"
key = "jobs:images"

[queues.orders]
url = "$SHOP_AMQP"
key = "orders.incoming"

[queues.reports]
url = "$SHOP_PG"
options = { query = "SELECT queue, count(*) AS backlog FROM reports GROUP BY queue" }

[queues.invoices]
url = "sqs://eu-west-1"
options = { endpoint_url = "$SHOP_SQS" }

[queues.audit]
layout = "dramatiq"
"""
BACKLOGS = {
    "mail-eu": 3,
    "mail-us": 700,
    "campaign": 1_250,
    "arq:queue": 4,
    "push": 5,
    "events": 6,
    "clicks": 7,
    "images": 8,
    "orders": 9,
    "reports": 10,
    "invoices": 11,
    "audit": 12,
}
READ_AS = ["rq", "rq", "celery", "arq", "saq", "stream", "zset", "list", "rabbitmq", "postgres", "sqs", "dramatiq"]


@pytest.fixture(scope="module")
def broker() -> Iterator[rabbitmq_server.Broker]:
    if rabbitmq_server.binary() is None:
        redis_fixtures.no_server("no rabbitmq-server: apt-get install rabbitmq-server")
    with rabbitmq_server.Broker() as server:
        with server.channel() as channel:
            channel.queue_declare("orders.incoming", durable=True, auto_delete=False)
            channel.confirm_select()
            for _ in range(9):
                channel.basic_publish_confirm(amqp.Message(b"job"), routing_key="orders.incoming")
        yield server


@pytest.fixture(scope="session")
def reports(postgres: Postgres) -> str:
    postgres.run("CREATE DATABASE twelve")
    postgres.run(
        "CREATE TABLE reports (queue text)",
        "INSERT INTO reports SELECT 'reports' FROM generate_series(1, 10)",
        database="twelve",
    )
    postgres.role("twelve_reader", "SELECT ON reports", database="twelve")
    return postgres.url("twelve", "twelve_reader")


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(servers.HOST, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.session.Session("key", "secret").client("sqs", region_name="eu-west-1", endpoint_url=url)
    queue = client.create_queue(QueueName="invoices")["QueueUrl"]
    for number in range(11):
        client.send_message(QueueUrl=queue, MessageBody=str(number))
    yield url
    client.delete_queue(QueueUrl=queue)  # moto keeps it for as long as the process lives
    client.close()
    server.stop()
    assert server._server is not None
    server._server.server_close()


def fill(client: redis.Redis) -> None:
    """Put jobs where each framework keeps them."""
    now = time.time()
    client.rpush("rq:queue:mail-eu", *range(3))
    client.rpush("rq:queue:mail-us", *range(700))
    client.rpush("campaign", *range(1_000))
    client.rpush("campaign\x06\x163", *range(250))
    client.zadd("arq:queue", {f"job{number}": (now - 60) * 1000 for number in range(4)})
    client.zadd("arq:queue", {"later": (now + 3600) * 1000})
    client.rpush("saq:push:queued", *range(5))
    client.xgroup_create("events", "workers", "0", mkstream=True)
    for number in range(6):
        client.xadd("events", {"job": number})
    client.zadd("jobs:clicks", {f"job{number}": now - 60 for number in range(7)})
    client.rpush("jobs:images", *range(8))
    client.rpush("dramatiq:audit", *range(12))


@pytest.fixture
def shop(
    broker: rabbitmq_server.Broker,
    reports: str,
    moto: str,
    redis_client: redis.Redis,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    fill(redis_client)
    variables = {
        "SHOP_REDIS": redis_url,
        "SHOP_AMQP": broker.url(),
        "SHOP_PG": reports,
        "SHOP_SQS": moto,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "shop.toml"
    file.write_text(FILE)
    return file


def test_check_reads_them_all(run_on_engine: Run, shop: Path) -> None:
    result = run_on_engine("check", shop, "--read", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    queues = json.loads(result.stdout)["queues"]
    assert {queue["queue_name"]: queue["backlog"] for queue in queues} == BACKLOGS
    assert [queue["read_as"] for queue in queues] == READ_AS
    people = run_on_engine("check", shop, "--read").stdout
    assert "queues as they are read" in people
    assert "guest:" not in people + result.stdout
    unread = run_on_engine("check", shop).stdout
    assert "where queues are read" in unread


def test_top_watches_them_all(run_on_engine: Run, shop: Path) -> None:
    result = run_on_engine("top", "--config", shop, "--once", "--interval", 5, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    look = json.loads(result.stdout)
    assert (look["provider"], look["statistics"], look["server"]) == ("ok", "ok", "4 servers")
    assert {queue["queue_name"]: queue["backlog"] for queue in look["queues"]} == BACKLOGS
    people = run_on_engine("top", "--config", shop, "--once", "--interval", 5).stdout
    assert "statistics ok" in people
    assert "mode is observe for mail-*, mail-eu, mail-us" in people


def test_explain_reads_them_all(run_on_engine: Run, shop: Path) -> None:
    result = run_on_engine("explain", "--config", shop, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)["queues"]
    assert {answer["queue_name"]: answer["backlog"] for answer in told} == BACKLOGS
    assert [answer["mode"] for answer in told] == ["observe"] * 2 + ["enforce"] * 10
    one = run_on_engine("explain", "--config", shop, "-q", "campaign").stdout
    assert "queue campaign: 1,250 jobs waiting" in one


def test_the_headline_counts_what_cannot_be_read(run: Run, shop: Path, redis_client: redis.Redis) -> None:
    """One queue of the wrong type and one whole server away: the others are read all the same."""
    redis_client.delete("jobs:images")
    redis_client.set("jobs:images", "no queue")
    away = {"SHOP_AMQP": f"amqp://{servers.HOST}:{servers.dead_port()}"}
    result = run("top", "--config", shop, "--once", "--interval", 5, **away)
    assert result.exit_code == 1
    assert "statistics unreadable for 2 of 12 queues" in result.stdout
    assert "statistics ok" not in result.stdout
    assert "holds a string" in result.stdout
    checked = run("check", shop, "--read", "--json", **away)
    assert checked.exit_code == 1
    assert "2 of 12 queues cannot be read" in checked.stderr
    unread = {queue["queue_name"] for queue in json.loads(checked.stdout)["queues"] if queue["problem"]}
    assert unread == {"images", "orders"}


def test_options_say_the_same_of_queues_without_a_section(run_on_engine: Run, shop: Path, redis_url: str) -> None:
    def backlog(*arguments: Any) -> Any:
        told = run_on_engine("explain", "--redis-url", redis_url, *arguments, "--json")
        assert told.exit_code == 0, told.stderr
        return json.loads(told.stdout)["backlog"]

    assert backlog("-q", "mail-us", "--layout", "rq") == 700
    assert backlog("-q", "campaign", "--layout", "celery") == 1_250
    assert backlog("-q", "events", "--group", "workers") == 6
    assert backlog("-q", "events", "--layout", "stream", "--group", "workers") == 6
    assert backlog("-q", "clicks", "--layout", "zset", "--key", "jobs:{queue}") == 7
    look = json.loads(
        run_on_engine("top", "--redis-url", redis_url, "--layout", "saq", "-q", "push", "--once", "--json").stdout
    )
    assert look["queues"][0]["backlog"] == 5


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('layout = "rqq"', "give a Layout, or one of arq"),
        ('layout = "rq"\ngroup = "workers"', "layout 'rq' has no option 'group': it takes prefix"),
        ('layout = "stream"', "give the consumer group"),
        ('url = "$NOT_SET_ANYWHERE"', "set the environment variable NOT_SET_ANYWHERE"),
        ('url = "amqp://localhost"\nlayout = "rq"', "leave it out, RabbitMQ needs none"),
    ],
)
def test_what_a_section_cannot_say(run: Run, tmp_path: Path, section: str, said: str) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(f'[queues.mail]\n{section}\n[queues.other]\nurl = "redis://localhost"')
    for command in (("check", file), ("top", "--once", "--config", file), ("explain", "--config", file)):
        result = run(*command, REDIS_URL="redis://localhost")
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr
        assert 'queues."mail"' in result.stderr


def test_a_queue_without_a_server_is_refused(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('[queues.mail]\nlayout = "rq"')
    result = run("top", "--once", "--config", file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert 'queues."mail" has no url: give --redis-url, or set REDIS_URL' in result.stderr
