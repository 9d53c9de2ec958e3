"""What is said where the library of an extra is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("extra", "library", "code"),
    [
        ("kafka", "kafka", "from backpressure.providers import KafkaStatsProvider"),
        ("kafka", "kafka", "import backpressure.providers.kafka.provider"),
        ("postgres", "psycopg", "from backpressure.providers import PROCRASTINATE"),
        ("rabbitmq", "amqp", "from backpressure.providers import RabbitMQStatsProvider"),
        ("http", "urllib3", "from backpressure.providers import PrometheusStatsProvider"),
        ("sqs", "boto3", "from backpressure.providers import SQSStatsProvider; SQSStatsProvider(['mail'])"),
        ("cli", "typer", "from backpressure.cli import application; application()"),
        ("cli", "rich", "from backpressure.cli import application; application()"),
    ],
)
def test_it_says_what_to_install(extra: str, library: str, code: str) -> None:
    wrapped = (
        f"import sys; sys.modules[{library!r}] = None\n"
        f"try:\n    {code}\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error.name, error)"
    )
    result = subprocess.run([sys.executable, "-c", wrapped], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.startswith(library)
    assert f"pip install 'producer-backpressure[{extra}]'" in result.stdout


def test_another_missing_module_is_not_explained_away() -> None:
    code = "import sys; sys.modules['struct'] = None; import backpressure.providers.rabbitmq.provider"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "producer-backpressure[" not in result.stderr
    assert "struct" in result.stderr
