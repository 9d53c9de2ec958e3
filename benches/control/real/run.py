"""One run of a scenario: servers, producers and workers of both laws at once, and what goes wrong meanwhile."""

from __future__ import annotations

import functools
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import redis
from benches.control.real.children import Child, Children
from benches.control.real.scenario import LAWS

from backpressure._age.script import budget_key
from support.servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.control.real.scenario import Phase, Scenario

__all__ = ["Job", "Offer", "Outcome", "Spent", "run"]

#: Seconds from when all are ready until they begin.
_LEAD = 0.3
# Commands of the store that are none of a tick's: what this program asks for itself, what connections begin with, and
# what the script runs.
_NOT_SENT = {"info", "ping", "hello", "client", "time", "get", "set"}
#: Part of a phase, its last, in which things should be at rest.
REST = 0.4


@attrs.frozen
class Offer:
    """What became of an offer: when that was known, and `outcome`, see `producers.OUTCOMES`."""

    at: float
    lane: int
    level: int
    producer: int
    outcome: int


@attrs.frozen
class Job:
    """A job that was enqueued: when, and when a worker took it, if one did; on behalf of which tenant: -1: nobody."""

    lane: int
    enqueued: float
    taken: float | None
    producer: int
    level: int
    tenant: int


@attrs.frozen
class Spent:
    """Commands that a store had run by an instant, those of the script, and the microseconds that these took."""

    commands: int
    calls: int
    microseconds: int

    def since(self, earlier: Spent) -> Spent:
        return Spent(
            self.commands - earlier.commands, self.calls - earlier.calls, self.microseconds - earlier.microseconds
        )


@attrs.frozen
class Outcome:
    """What one law made of a scenario.

    Attributes:
        jobs: all that were ever in a queue.
        offers: of all producers that lived to the end.
        possible: by queue, how many jobs the workers could have taken in each tenth of a second.
        spent: by phase, what the store did while that was at rest; nothing where the store was away.
    """

    scenario: Scenario
    law: str
    jobs: list[Job]
    offers: list[Offer]
    possible: list[dict[int, int]]
    spent: list[Spent | None]


class _Watch:
    """Does what is to be done at set instants, and tells on the way how far the run is."""

    def __init__(self, children: Children, tell: Callable[[float], None]) -> None:
        self._children = children
        self._tell = tell
        self.todo: list[tuple[float, Callable[[], object]]] = []

    def run(self, begin: float, seconds: float) -> None:
        self.todo.sort(key=lambda it: it[0])
        while (now := time.monotonic() - begin) < seconds:
            self._tell(now)
            while self.todo and self.todo[0][0] <= now:
                self.todo.pop(0)[1]()
            following = self.todo[0][0] if self.todo else seconds
            time.sleep(max(0.0, min(0.25, following - now, seconds - now)))
            for child in self._children:
                child.check()


def run(
    scenario: Scenario, *, seed: int = 1, engine: str = "auto", tell: Callable[[float], None] = lambda _: None
) -> dict[str, Outcome]:
    """Run a scenario by both laws, each in a database of its own; return what came of it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backpressure-control-")))
        queues, store = stack.enter_context(Server()), stack.enter_context(Server())
        children = stack.enter_context(Children())
        urls = {law: f"{queues.url.rpartition('/')[0]}/{number}" for number, law in enumerate(LAWS, 1)}
        producers, workers = _start(children, scenario, urls, store.url, folder, seed, engine)
        for child in children:
            child.await_ready()
        begin = time.monotonic() + _LEAD
        for child in children:
            child.begin(begin)
        spent: list[list[Spent | None]] = [[] for _ in scenario.phases]
        watch = _Watch(children, tell)
        for index, (phase, since, until) in enumerate(scenario.spans()):
            watch.todo += _faults(phase, since, until, scenario, store, producers)
            for at in (until - REST * phase.seconds, until - 0.05 / scenario.scale):
                watch.todo.append((at, functools.partial(_look, store, spent[index])))
        watch.run(begin, scenario.seconds)
        between = [_between(it) for it in spent]
        return {law: _outcome(scenario, law, begin, workers[law], producers[law], urls[law], between) for law in LAWS}


def _start(
    children: Children,
    scenario: Scenario,
    urls: dict[str, str],
    store_url: str,
    folder: Path,
    seed: int,
    engine: str,
) -> tuple[dict[str, list[Child]], dict[str, Child]]:
    producers: dict[str, list[Child]] = {law: [] for law in LAWS}
    workers: dict[str, Child] = {}
    env = {"BACKPRESSURE_ENGINE": engine}

    def start(module: str, law: str, name: str, **more: Any) -> Child:
        told = {"scenario": scenario.told(), "law": law, "queue_url": urls[law], **more}
        child = Child(f"benches.control.real.{module}", told, folder, name, env)
        children.append(child)
        return child

    for law in LAWS:
        workers[law] = start("workers", law, f"{law}-workers")
        for number in range(scenario.processes):
            about = {"number": number, "store_url": store_url, "seed": seed}
            producers[law].append(start("producers", law, f"{law}-producers-{number}", **about))
    return producers, workers


def _faults(
    phase: Phase,
    since: float,
    until: float,
    scenario: Scenario,
    store: Server,
    producers: dict[str, list[Child]],
) -> list[tuple[float, Callable[[], object]]]:
    """Return what is to be done in a phase, and when."""

    def flush() -> None:
        with store.client() as client:
            client.flushall()

    def delete() -> None:
        with store.client() as client:
            client.delete(*(budget_key(lane.name) for lane in scenario.lanes))

    def kill() -> None:
        for law in LAWS:
            for number in scenario.killed():
                producers[law][number].kill()

    if phase.fault == "away":
        return [(since, store.kill), (until, store.start)]
    once: dict[str | None, Callable[[], None]] = {"flush": flush, "delete": delete, "kill": kill}
    return [(since, once[phase.fault])] if phase.fault in once else []


def _look(store: Server, spent: list[Spent | None]) -> None:
    spent.append(_spent(store))


def _spent(store: Server) -> Spent | None:
    try:
        with store.client() as client:
            commands: dict[str, dict[str, Any]] = client.info("commandstats")
    except redis.ConnectionError:
        return None  # it is away
    told = {
        name: it for name, it in commands.items() if name.removeprefix("cmdstat_").partition("|")[0] not in _NOT_SENT
    }
    script = told.get("cmdstat_evalsha", {"calls": 0, "usec": 0})
    return Spent(sum(it["calls"] for it in told.values()), script["calls"], script["usec"])


def _between(seen: list[Spent | None]) -> Spent | None:
    first, last = (*seen, None, None)[:2]
    return None if first is None or last is None else last.since(first)


def _outcome(
    scenario: Scenario,
    law: str,
    begin: float,
    workers: Child,
    producers: list[Child],
    url: str,
    spent: list[Spent | None],
) -> Outcome:
    offers = [Offer(*event) for child in producers if not child.killed for event in child.result()]
    work = workers.result()
    jobs = [Job(lane, at - age, at, *about) for lane, at, age, *about in work["taken"]]
    with redis.Redis.from_url(url) as client:
        for lane, it in enumerate(scenario.lanes):
            for job in client.lrange(it.name, 0, -1):
                stamp, *about = job.split()
                jobs.append(Job(lane, float(stamp) - begin, None, *map(int, about)))
    return Outcome(scenario, law, jobs, offers, [dict(it) for it in work["possible"]], spent)
