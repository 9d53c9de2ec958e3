"""Each framework's real package fills its queues, with real workers, and the provider reports exactly that split.

A program in ``frameworks/`` does so in an environment of its own and tells what it did: see ``matrix.py``, which
`make matrix` runs. Frameworks that are installed beside this package are tested at every run.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import matrix
from backpressure import AsyncRedisStatsProvider, RedisStatsProvider
from backpressure.providers.layouts import CeleryLayout, HueyLayout, StreaqLayout, TaskiqLayout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import redis

    from backpressure import QueueStats
    from backpressure.providers.layouts import Layout

_LAYOUTS: dict[str, Any] = {
    "celery": lambda told: CeleryLayout.from_app(
        SimpleNamespace(conf=SimpleNamespace(broker_transport_options=told.get("options", {})))
    ),
    "huey": lambda told: HueyLayout(priority=told.get("priority", False)),
    "streaq": lambda _: StreaqLayout(["low", "high"]),
    "taskiq": lambda told: TaskiqLayout(told.get("group")),
}

MATRIX = os.environ.get("BACKPRESSURE_MATRIX", "")
PACKAGES = {"rq-3": "rq", "celery": "celery", "dramatiq": "dramatiq", "huey": "huey", "taskiq": "taskiq_redis"}
HERE = [name for name, package in PACKAGES.items() if importlib.util.find_spec(package) is not None]


@contextlib.contextmanager
def filled(name: str, url: str) -> Iterator[list[dict[str, Any]]]:
    """Run an environment's program, and yield what it tells, while its workers are still at work."""
    command = matrix.command(name, url)
    if not MATRIX:
        command[0] = sys.executable
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            # Workers may print too.
            told = next((line for line in program.stdout if line.startswith("[{")), "")
            assert told, f"{command} ended with {program.wait()}"
            yield json.loads(told)
        finally:
            program.stdin.close()
            try:
                program.wait(10)
            finally:
                program.kill()


def layout_of(framework: str, told: Mapping[str, Any]) -> Layout | str:
    make = _LAYOUTS.get(framework)
    return framework if make is None else make(told)


async def read(url: str, name: str, layout: Layout | str) -> QueueStats:
    provider = AsyncRedisStatsProvider(url, [name], layout=layout)
    sample = await provider.get_queue_stats(name)
    await provider.aclose()
    return sample


def assert_sample(sample: QueueStats, told: Mapping[str, Any], read: tuple[float, float]) -> None:
    split = (sample.backlog_count, sample.processing_count, sample.delayed_count)
    assert split == (told["waiting"], told["running"], told["delayed"])
    if told["oldest"] is None:
        assert sample.oldest_age is None
    else:
        enqueued = told["oldest"]
        assert sample.oldest_age is not None
        # Frameworks round to milliseconds.
        assert read[0] - enqueued[1] - 0.002 <= sample.oldest_age <= read[1] - enqueued[0] + 0.002


@pytest.mark.parametrize("name", [name for name in MATRIX.split(",") if name] or HERE)
def test_the_provider_reports_what_the_framework_did(name: str, redis_url: str, redis_client: redis.Redis) -> None:
    framework = matrix.ENVIRONMENTS[name].framework
    with filled(name, redis_url) as queues:
        for told in queues:
            layout = layout_of(framework, told)
            began = time.time()
            with contextlib.closing(RedisStatsProvider(redis_url, [told["queue"]], layout=layout)) as provider:
                blocking = provider.get_queue_stats(told["queue"])
            for sample in (blocking, asyncio.run(read(redis_url, told["queue"], layout))):
                assert_sample(sample, told, (began, time.time()))
        if framework in {"rq", "sidekiq"}:
            with contextlib.closing(RedisStatsProvider(redis_url, layout=framework)) as provider:
                assert set(provider.get_all_queue_stats()) == {told["queue"] for told in queues}
