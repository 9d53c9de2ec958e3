"""The shop around the examples: settings, mails, a worker's process, and the count of what happened to all mails.

A campaign writes newsletters faster than the worker can send them. Some of their readers buy, and get a receipt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from prometheus_client import REGISTRY

from backpressure import BackpressureConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

# So small that a campaign of one second is an overload. Begin with the defaults, which allow a hundred times as much.
CONFIG = BackpressureConfig().evolve(
    {
        "thresholds.low_priority.green_max": 3,
        "thresholds.low_priority.yellow_max": 8,
        "thresholds.low_priority.red_max": 20,
        "curve.yellow_min_delay": "1ms",
        "curve.yellow_max_delay": "3ms",
        "curve.red_max_delay": "5ms",
        "polling.interval": "100ms",
        "polling.jitter": 0,
        "polling.timeout": "100ms",
        "polling.max_backoff": "200ms",
    }
)

_CUSTOMERS = range(100)
_PACE = 0.008
_MAIL_SECONDS = 0.04
_PATIENCE = 20.0

_store = redis.Redis.from_url(URL, decode_responses=True)


def newsletter(customer: int) -> None:
    """Send a newsletter. A worker does this."""
    time.sleep(_MAIL_SECONDS)
    _store.rpush("shop:low", customer)


def receipt(customer: int) -> None:
    """Send a receipt. A worker does this."""
    time.sleep(_MAIL_SECONDS)
    _store.rpush("shop:high", customer)


def buys(customer: int) -> bool:
    """Tell whether the newsletter makes a customer buy."""
    return customer % 10 == 0


def customers() -> Iterator[int]:
    """Yield the customers for the newsletter, one every few milliseconds, once the worker has sent the first."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("backpressure").setLevel(logging.INFO)
    _store.delete("shop:low", "shop:high")
    first, *others = _CUSTOMERS
    yield first
    _wait(lambda: _done("low") > 0)
    for customer in others:
        time.sleep(_PACE)
        yield customer


async def customers_async() -> AsyncIterator[int]:
    """As `customers`, for an event loop."""
    source = customers()
    while (customer := await asyncio.to_thread(next, source, None)) is not None:
        yield customer


@contextlib.contextmanager
def worker(module: str, *arguments: str) -> Iterator[None]:
    """Run a framework's own worker in its own process, and end it."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=Path(__file__).parent)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # it waits for a server that is gone
            process.kill()
            process.wait()


def report(postponed: Sequence[int]) -> None:
    """Wait until the worker has done what was enqueued, and print what happened to all jobs."""
    jobs = {"low": len(_CUSTOMERS), "high": sum(map(buys, _CUSTOMERS))}
    _wait(lambda: _done("low") >= jobs["low"] - len(postponed) and _done("high") >= jobs["high"])
    print(f"\n{'':<12}{'priority':<10}{'jobs':>6}{'waited':>8}{'shed':>6}{'done':>6}")
    for mails, priority in (("newsletters", "low"), ("receipts", "high")):
        waited, shed = _counted("throttle", priority), _counted("shed", priority)
        print(f"{mails:<12}{priority:<10}{jobs[priority]:>6}{waited:>8}{shed:>6}{_done(priority):>6}")
    print(f"\n{len(postponed)} newsletters are left for tomorrow")


def _counted(event: str, priority: str) -> int:
    """Return the controller's count: its metrics are in the default registry."""
    labels = {"priority": priority, "queue": "mail"}
    return int(REGISTRY.get_sample_value(f"backpressure_{event}_events_total", labels) or 0)


def _done(priority: str) -> int:
    return _store.llen(f"shop:{priority}")


def _wait(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"the worker has not done its work within {_PATIENCE} s: what does it say above?")
        time.sleep(0.02)
