"""Django, Celery and gunicorn: a campaign of 10 000 newsletters in a task that beat starts, while customers buy."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = Path(__file__).parent
URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
MAILS = int(os.environ.get("SHOP_MAILS", "10000"))
BUYS_A_SECOND = int(os.environ.get("SHOP_BUYS", "40"))
PATIENCE = 120.0
# The queue's red_max for low jobs, see shop/settings.py.
FULL = 400
# Processes of gunicorn, see gunicorn.conf.py.
WORKERS = 2

# As docs/stacks/django-celery.md has them.
SITE = "localhost:8000"
GUNICORN = "gunicorn --bind localhost:8000"
WORKER = "celery --app shop worker --queues celery,mail --concurrency 3"
BEAT = "celery --app shop beat"
PROMETHEUS = "prometheus --config.file prometheus.yml"
LOOKS = (
    "python -m shop.config > backpressure.json",
    "backpressure check backpressure.json --read",
    "backpressure explain --config backpressure.json",
    "backpressure top --config backpressure.json --once",
)

store = redis.Redis.from_url(URL, decode_responses=True)


def program(command: str, *options: str) -> list[str]:
    """Return a command of the page as a program and its arguments, with options that keep it quiet."""
    name, *arguments = shlex.split(command.replace("celery ", "celery --quiet ", 1))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return [shutil.which(name, path=path) or name, *arguments, *options]


@contextlib.contextmanager
def process(*command: str, env: dict[str, str], folder: Path = FOLDER) -> Iterator[None]:
    """Run a program at the same time, and end it."""
    running = subprocess.Popen(command, cwd=folder, env=env)
    try:
        yield
    finally:
        running.terminate()
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def look(folder: Path, env: dict[str, str]) -> None:
    """Show what the command line says."""
    file = folder / "backpressure.json"
    for command in LOOKS:
        print(f"\n$ {command}")
        words, _, target = command.replace(file.name, str(file)).partition(" > ")
        told = subprocess.run(
            program(words), check=True, cwd=FOLDER, env={**env, "COLUMNS": "80"}, stdout=subprocess.PIPE, text=True
        ).stdout
        if target:
            file.write_text(told, "utf-8")
        else:
            lines = [line.rstrip() for line in told.replace(str(file), file.name).splitlines()]
            print(*(lines if len(lines) < 20 else ["...", *lines[-7:]]), sep="\n", flush=True)


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
        self.subscribed: list[int] = []
        self.retry_after: str | None = None

    def ask(self, method: str, path: str) -> tuple[int, str]:
        """Return status and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            self.retry_after = answer.headers["Retry-After"]
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

    def subscribe(self) -> None:
        """Subscribe to the newsletter."""
        status, _ = self.ask("POST", "/subscribe/0")
        self.subscribed.append(status)

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


# First no worker runs, and customers fill the queue.
def fill(site: Site) -> None:
    """Buy without a worker until what is low is shed; show what its subscriber and operators see."""
    know: set[int] = set()

    def look(_: int) -> None:
        health = json.loads(site.ask("GET", "/health")[1])
        if health["queues"]["mail"]["backlog"] == FULL:
            know.add(health["pid"])

    def all_know() -> bool:
        list(pool.map(look, range(4)))
        return len(know) == WORKERS

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(site.buy, range(FULL)))
        wait(all_know, "a look at the queue by each process of gunicorn")
    site.subscribe()
    print(f"POST /subscribe/0: {site.subscribed[-1]}, Retry-After: {site.retry_after}")
    told = json.loads(site.ask("GET", "/health")[1])["queues"]["mail"]["advice"]
    print("GET /health:", {priority: advice["zone"] for priority, advice in told.items()})


class Prometheus:
    """A server that scrapes the shop, where Prometheus is installed."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.is_there = shutil.which("prometheus") is not None
        self.port = free_port()
        self.folder = folder
        config = (FOLDER / "prometheus.yml").read_text("utf-8")
        config = config.replace(SITE, f"127.0.0.1:{site.port}").replace("5s", "500ms")
        (folder / "prometheus.yml").write_text(config, "utf-8")
        shutil.copy(FOLDER.parents[1] / "ops" / "alerts.yml", folder)

    def running(self) -> contextlib.AbstractContextManager[None]:
        """Run it, if it is there."""
        if not self.is_there:
            print("Prometheus is not installed: only the page that it would read is looked at")
            return contextlib.nullcontext()
        options = (f"--web.listen-address=127.0.0.1:{self.port}", "--storage.tsdb.path=data", "--log.level=error")
        return process(*program(PROMETHEUS, *options), env=dict(os.environ), folder=self.folder)

    def ask(self, path: str) -> dict[str, list[dict[str, Any]]]:
        """Ask its API; what it cannot answer is empty."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}")
            data: dict[str, list[dict[str, Any]]] = json.load(connection.getresponse()).get("data", {})
        except (OSError, ValueError):
            return {}
        else:
            return data
        finally:
            connection.close()

    def refused(self) -> dict[str, int]:
        """Return how many jobs of each priority were refused, over all processes."""
        found = self.ask("query?query=sum+by(priority)(backpressure_refusals_total)").get("result", [])
        return {series["metric"]["priority"]: int(series["value"][1]) for series in found}

    def alerts(self) -> list[str]:
        """Return the alert rules that it could evaluate."""
        return [
            rule["name"]
            for group in self.ask("rules").get("groups", [])
            for rule in group["rules"]
            if rule["health"] != "err"
        ]


def main() -> int:
    """Run it all; print what happened to all jobs, and whether the metrics say the same."""
    store.flushdb()
    site = Site(free_port())
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        metrics = Path(folder, "metrics")
        metrics.mkdir()
        env = {**os.environ, "REDIS_URL": URL, "SHOP_CAMPAIGN_EVERY": "2", "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
        prometheus = Prometheus(Path(folder), site)
        servers.enter_context(prometheus.running())
        gunicorn = GUNICORN.replace(SITE, f"127.0.0.1:{site.port}")
        servers.enter_context(process(*program(gunicorn, "--log-level=error"), env=env))
        wait(site.answers, "the shop")
        fill(site)
        look(Path(folder), env)
        with process(*program(WORKER, "--loglevel=error"), env=env):
            wait(lambda: done("welcomes") == FULL, "the end of the queue")
            over = threading.Event()
            buying = threading.Thread(target=customers, args=(site, over))
            buying.start()
            try:
                with process(*program(BEAT, f"--schedule={folder}/beat", "--loglevel=error"), env=env):
                    wait(lambda: store.get("shop:campaign") == "done", "the end of the campaign")
            finally:
                over.set()
                buying.join()
            refused = store.llen("shop:postponed") - 1 + len(site.subscribed) - site.subscribed.count(202)
            newsletters = MAILS + len(site.subscribed)
            wait(lambda: done("newsletters") >= newsletters - refused, "the last newsletter")
            wait(lambda: done("welcomes") >= site.statuses.count(202), "the last receipt, and its welcome")
        counted = {priority: site.counted("refusals_total", priority=priority) for priority in ("low", "high")}
        passed = site.counted("passed_total", queue="mail", why="worker")
        processes = len(list(metrics.glob("counter_*.db")))
        seen = prometheus.is_there and counted["low"]
        if seen:
            wait(lambda: prometheus.refused().get("low") == seen, "the last scrape")
        alerts = prometheus.alerts()
    bought, rejected = len(site.statuses), len(site.statuses) - site.statuses.count(202)
    rows = (
        ("newsletters", "low", newsletters, refused, counted["low"]),
        ("receipts", "high", bought, rejected, counted["high"]),
        ("welcomes", "low", done("receipts"), 0, done("receipts") - passed),
    )
    print(f"\n{'':<12}{'priority':<10}{'jobs':>6}{'refused':>9}{'done':>7}{'counted as refused':>20}")
    for kind, priority, jobs, lost, told in rows:
        print(f"{kind:<12}{priority:<10}{jobs:>6}{lost:>9}{done(kind):>7}{told:>20}")
    percentiles = statistics.quantiles(site.seconds[FULL:], n=100)
    median, p99 = percentiles[49] * 1e3, percentiles[98] * 1e3
    print(f"\nbuys took {median:.0f} ms in the median, {p99:.0f} ms at the 99th percentile")
    print(f"metrics of {processes} processes")
    if seen:
        print(f"Prometheus counts {seen} refused low jobs, and evaluates {len(alerts)} alerts")
    exact = all((jobs, told) == (lost + done(kind), lost) for kind, _, jobs, lost, told in rows)
    print("every job is accounted for" if exact else "the counts do not agree")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
