"""What is said where the library of an extra is not installed."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest
from packaging.requirements import Requirement


@pytest.mark.parametrize(
    ("extra", "library", "code"),
    [
        ("kafka", "kafka", "from backpressure.providers import KafkaStatsProvider"),
        ("kafka", "kafka", "import backpressure.providers.kafka.provider"),
        ("postgres", "psycopg", "from backpressure.providers import PROCRASTINATE"),
        ("rabbitmq", "amqp", "from backpressure.providers import RabbitMQStatsProvider"),
        ("http", "urllib3", "from backpressure.providers import PrometheusStatsProvider"),
        ("sqs", "boto3", "from backpressure.providers import SQSStatsProvider; SQSStatsProvider(['mail'])"),
        ("cli", "click", "from backpressure.cli import application; application()"),
        ("otel", "opentelemetry", "import backpressure.otel"),
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


def installed(requirement: Requirement, seen: dict[str, importlib.metadata.Distribution]) -> None:
    """Add to `seen` what pip installs here for a requirement."""
    if requirement.name in seen:
        return
    distribution = importlib.metadata.distribution(requirement.name)
    seen[requirement.name] = distribution
    for line in distribution.requires or ():
        needed = Requirement(line)
        extras = {"", *requirement.extras}
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            installed(needed, seen)


def test_the_command_line_brings_nothing_that_is_compiled() -> None:
    brought: dict[str, importlib.metadata.Distribution] = {}
    installed(Requirement("producer-backpressure[cli]"), brought)
    assert {"attrs", "redis", "click", "rich"} <= brought.keys()
    del brought["producer-backpressure"]
    compiled = [file for each in brought.values() for file in each.files or () if file.suffix in {".so", ".pyd"}]
    assert compiled == []
