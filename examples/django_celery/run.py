"""Django, Celery and gunicorn: a campaign of 10 000 newsletters in a task that beat starts, while customers buy."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = Path(__file__).parent
URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
MAILS = int(os.environ.get("SHOP_MAILS", "10000"))
BUYS_A_SECOND = int(os.environ.get("SHOP_BUYS", "40"))
PATIENCE = 120.0

store = redis.Redis.from_url(URL, decode_responses=True)


@contextlib.contextmanager
def process(*command: str, env: dict[str, str]) -> Iterator[None]:
    """Run a Python program at the same time, and end it."""
    running = subprocess.Popen([sys.executable, "-m", *command], cwd=FOLDER, env=env)
    try:
        yield
    finally:
        running.terminate()
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait(condition: Callable[[], object], what: str) -> None:
    """Wait for something to come true."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what} did not come within {PATIENCE:g} s: what do the processes say above?")
        time.sleep(0.05)


class Site:
    """The shop, as its customers meet it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seconds: list[float] = []
        self.statuses: list[int] = []

    def ask(self, method: str, path: str) -> tuple[int, str]:
        """Return status and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def answers(self) -> bool:
        """Tell whether it is up."""
        try:
            return self.ask("GET", "/metrics")[0] == 200
        except OSError:
            return False

    def buy(self, customer: int) -> None:
        """Buy something, and note how long it takes."""
        began = time.perf_counter()
        status, _ = self.ask("POST", f"/buy/{customer}")
        self.seconds.append(time.perf_counter() - began)
        self.statuses.append(status)

    def counted(self, name: str, **labels: str) -> int:
        """Return what a counter says, over all processes."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        lines = re.findall(rf"^backpressure_{name}{{([^}}]*)}} (\S+)$", self.ask("GET", "/metrics")[1], re.MULTILINE)
        return int(sum(float(value) for found, value in lines if wanted <= set(found.split(","))))


def customers(site: Site, over: threading.Event) -> None:
    """Buy at a steady pace until it is over."""
    due, customer = time.monotonic(), 0
    while not over.is_set():
        site.buy(customer)
        due, customer = due + 1 / BUYS_A_SECOND, customer + 1
        time.sleep(max(0, due - time.monotonic()))


def done(kind: str) -> int:
    """Return how many mails were sent, by the workers' own count."""
    return int(store.get(f"shop:{kind}") or 0)


def main() -> int:
    """Run it all; print what happened to all jobs, and whether the metrics say the same."""
    store.flushdb()
    site = Site(free_port())
    with tempfile.TemporaryDirectory() as metrics:
        env = {**os.environ, "REDIS_URL": URL, "SHOP_CAMPAIGN_EVERY": "2", "PROMETHEUS_MULTIPROC_DIR": metrics}
        celery = ("celery", "--quiet", "--app=shop")
        schedule = f"--schedule={metrics}/beat"
        with process("gunicorn", f"--bind=127.0.0.1:{site.port}", "--log-level=error", env=env):
            wait(site.answers, "the shop")
            with process(*celery, "worker", "--queues=celery,mail", "--concurrency=3", "--loglevel=error", env=env):
                over = threading.Event()
                buying = threading.Thread(target=customers, args=(site, over))
                buying.start()
                try:
                    with process(*celery, "beat", schedule, "--loglevel=error", env=env):
                        wait(lambda: store.get("shop:campaign") == "done", "the end of the campaign")
                finally:
                    over.set()
                    buying.join()
                refused = store.llen("shop:postponed") - 1
                wait(lambda: done("newsletters") >= MAILS - refused, "the last newsletter")
                wait(lambda: done("receipts") >= site.statuses.count(202), "the last receipt")
            counted = {priority: site.counted("refusals_total", priority=priority) for priority in ("low", "high")}
            passed = site.counted("passed_total", queue="mail")
    bought, rejected = len(site.statuses), len(site.statuses) - site.statuses.count(202)
    rows = (("newsletters", "low", MAILS, refused), ("receipts", "high", bought, rejected))
    print(f"\n{'':<12}{'priority':<10}{'jobs':>6}{'refused':>9}{'done':>7}{'counted as refused':>20}")
    for kind, priority, jobs, lost in rows:
        print(f"{kind:<12}{priority:<10}{jobs:>6}{lost:>9}{done(kind):>7}{counted[priority]:>20}")
    percentiles = statistics.quantiles(site.seconds, n=100)
    median, p99 = percentiles[49] * 1e3, percentiles[98] * 1e3
    print(f"\nbuys took {median:.0f} ms in the median, {p99:.0f} ms at the 99th percentile")
    exact = passed == 0 and all(
        (jobs, counted[priority]) == (lost + done(kind), lost) for kind, priority, jobs, lost in rows
    )
    print("every job is accounted for" if exact else "the counts do not agree")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
