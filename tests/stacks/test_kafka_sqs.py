"""The page about Kafka and SQS: its files and commands, as printed, on a real Kafka and on moto's SQS."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import boto3.session  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from backpressure.providers import ConsumerLag, KafkaStatsProvider
from support import kafka_server, servers
from support.pages import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.kafka_server import KafkaServer
    from support.user_environment import UserEnvironment

pytestmark = pytest.mark.timeout(240)  # the first of them may have to fetch the server

PATH = Path(__file__).parents[2] / "docs" / "stacks" / "kafka-sqs.md"
TOPICS = {"orders": "billing", "invoices": "accounting", "statistics": "analytics"}
#: Nothing but the pace and the size of the overload differs from what the page says.
HURRY = {
    "BACKPRESSURE_POLLING__INTERVAL": "500ms",
    "BACKPRESSURE_POLLING__BUSY_INTERVAL": "100ms",
    "BACKPRESSURE_CURVE__YELLOW_MAX_DELAY": "20ms",
    "BACKPRESSURE_CURVE__RED_MAX_DELAY": "100ms",
    "BACKPRESSURE_THRESHOLDS__LOW_PRIORITY__GREEN_MAX": "5",
    "BACKPRESSURE_THRESHOLDS__LOW_PRIORITY__YELLOW_MAX": "10",
    "BACKPRESSURE_THRESHOLDS__LOW_PRIORITY__RED_MAX": "20",
}


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaServer]:
    with kafka_server.KafkaServer() as server:
        for topic in (*TOPICS, "another"):
            server.create(topic)
        server.produce("another", 1)
        server.consume("another", "others", 1)  # somebody has committed an offset
        yield server


@pytest.fixture
def aws() -> Iterator[dict[str, str]]:
    """An SQS of the test's own, as variables of the environment."""
    server = ThreadedMotoServer(servers.HOST, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    secrets = {"AWS_ACCESS_KEY_ID": "of-the-test", "AWS_SECRET_ACCESS_KEY": "of-the-test"}
    yield {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_EC2_METADATA_DISABLED": "true", **secrets}
    server.stop()
    assert server._server is not None
    server._server.server_close()


@pytest.fixture
def mails(aws: dict[str, str]) -> Callable[[], int]:
    """A function that tells how many mails lie in the queue, taken ones too."""
    session = boto3.session.Session("of-the-test", "of-the-test", region_name="eu-west-1")
    client = session.client("sqs", endpoint_url=aws["AWS_ENDPOINT_URL"])
    url = client.create_queue(QueueName="mails")["QueueUrl"]
    names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")

    def waiting() -> int:
        told = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(told[name]) for name in names)

    return waiting


@pytest.fixture
def lag(kafka: KafkaServer) -> Iterator[Callable[[str], int]]:
    """A function that tells the lag of a topic of the page."""
    queues = {name: ConsumerLag(name, group=TOPICS[name]) for name in TOPICS}
    with contextlib.closing(KafkaStatsProvider(kafka.address, queues)) as provider:
        yield lambda topic: provider.get_queue_stats(topic).backlog_count


def test_every_command_is_run() -> None:
    assert Page(PATH, {}).not_run_by(Path(__file__)) == []


def test_it_runs_as_printed(
    kafka: KafkaServer,
    mails: Callable[[], int],
    lag: Callable[[str], int],
    aws: dict[str, str],
    user: UserEnvironment,
    tmp_path: Path,
) -> None:
    replaced = {
        "localhost:9092": kafka.address,
        "localhost:9102": f"{servers.HOST}:{(port := servers.free_port())}",
        "(9102, ": f"({port}, ",
    }
    page = Page(PATH, replaced)
    page.write_files(tmp_path)
    user.install(page.command("pip install"), tmp_path)
    for export in (page.command("export KAFKA_URL="), page.command("export AWS_DEFAULT_REGION=")):
        name, _, value = export.removeprefix("export ").partition("=")
        user.variables[name] = value
    user.variables |= aws

    read = user.run(page.command("backpressure check"), tmp_path).stdout
    assert re.findall(r"^ +(\w+) +(kafka|sqs) .* 0 ", read, re.MULTILINE) == [
        ("orders", "kafka"),
        ("invoices", "kafka"),
        ("statistics", "kafka"),
        ("mails", "sqs"),
    ]

    # Observed: everything passes, although it is far too much.
    user.run(page.command("python order.py"), tmp_path)
    assert lag("orders") == 30
    observed = user.start(page.command("BACKPRESSURE_MODE=observe python billing.py"), tmp_path, HURRY)
    servers.wait_until(lambda: lag("orders") == 0, seconds=30, what="the first orders")
    assert (lag("invoices"), mails()) == (30, 30)
    assert observed.ended(signal.SIGTERM) == 0, observed.output()

    # Enforced: mails are refused, and their orders stay where they are.
    user.run(page.command("python order.py"), tmp_path)
    billing = user.start(page.command("python billing.py"), tmp_path, HURRY)
    servers.wait_until(lambda: lag("invoices") > 30, seconds=30, what="the first invoices")
    look_around(page, user, tmp_path)
    assert lag("orders") > 0
    assert mails() < 60

    # The mailer empties the queue until the statistics are full; then the mails stay where they are.
    mailer = user.start(page.command("python mailer.py"), tmp_path, HURRY)
    servers.wait_until(lambda: " again in 1 s: " in mailer.output(), seconds=30, what="a mail that must wait")
    assert 10 <= lag("statistics") < 30
    assert mails() > 0

    # Somebody reads the statistics, so all goes on to its end, and nothing is lost.
    def counted() -> int:
        if waiting := lag("statistics"):
            kafka.consume("statistics", "analytics", waiting)
        return len(set(re.findall(r"mail for order (\d+) is sent", mailer.output())))

    servers.wait_until(
        lambda: counted() == 30 and (lag("orders"), mails()) == (0, 0), seconds=40, what="all mails to be sent"
    )
    for program in (billing, mailer):
        assert program.ended(signal.SIGTERM) == 0, program.output()


def look_around(page: Page, user: UserEnvironment, folder: Path) -> None:
    """See it as the page says."""
    url = page.command("curl -s").split()[-1]

    def shown() -> set[str]:
        with urllib.request.urlopen(url) as answer:
            page = answer.read().decode()
        return set(re.findall(r'^backpressure_queue_backlog_size\{queue="(\w+)"\} ', page, re.MULTILINE))

    servers.wait_until(lambda: shown() == {*TOPICS, "mails"}, what="all queues of the file")
    top = user.start(page.command("backpressure top"), folder)
    servers.wait_until(lambda: re.search(r"^mails +\d+ ", top.output(), re.MULTILINE) is not None, what="a look")
    assert top.ended(signal.SIGINT) == 0


def test_prometheus_takes_the_file(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool: scripts/install_tools.sh")
    Page(PATH, {}).write_files(tmp_path)
    done = subprocess.run([promtool, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
