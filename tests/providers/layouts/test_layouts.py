"""What layouts promise without any framework: discovery, names, plain keys as templates, and sense out of any reply."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint, EntryPoints
from typing import TYPE_CHECKING, Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from backpressure import AsyncRedisStatsProvider, ConfigurationError, QueueStats, RedisStatsProvider
from backpressure._model.errors import StatsUnavailableError
from backpressure._model.stats import MAX_BACKLOG
from backpressure.providers import layouts
from backpressure.providers.layouts import Command, ListKey, StreamKey, ZSetKey, ask
from backpressure.providers.redis.layouts import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure.providers.layouts import Layout, Rounds, Steps
    from support import servers

NOW = datetime.now(UTC)


@contextlib.contextmanager
def opened(url: str, *args: Any, **options: Any) -> Iterator[RedisStatsProvider]:
    with contextlib.closing(RedisStatsProvider(url, *args, **options)) as provider:
        yield provider


def split(sample: Any) -> tuple[int, int | None, int | None]:
    assert isinstance(sample, QueueStats)
    return sample.backlog_count, sample.processing_count, sample.delayed_count


# ---------------------------------------------------------------------------------------- frameworks of other languages


@pytest.mark.parametrize("unit", [1, 1000], ids=["Sidekiq 7", "Sidekiq 8"])
def test_sidekiq(redis_url: str, redis_client: redis.Redis, unit: int) -> None:
    """Jobs as Sidekiq's documentation describes them, not as Ruby wrote them."""
    for age in (30, 20, 10):
        moment = (time.time() - age) * unit
        job = {"class": "Work", "jid": "b4a577edbccf1d805744efa9", "args": [], "queue": "mail", "retry": True}
        job |= {"enqueued_at": moment if unit == 1 else int(moment)}
        redis_client.lpush("queue:mail", json.dumps(job))
    redis_client.sadd("queues", "mail", "idle")
    redis_client.zadd("schedule", {"later": time.time() + 60})
    with opened(redis_url, layout="sidekiq") as provider:
        samples = provider.get_all_queue_stats()
    assert {name: split(sample) for name, sample in samples.items()} == {
        "mail": (3, None, None),
        "idle": (0, None, None),
    }
    assert samples["mail"].oldest_age == pytest.approx(30, abs=1)  # type: ignore[union-attr]


def test_go_redis_work_queue(redis_url: str, redis_client: redis.Redis) -> None:
    """Jobs as its ``internal/queue/job.go`` marshals them, not as Go wrote them."""
    for age in (30, 20, 10):
        moment = datetime.now(UTC) - timedelta(seconds=age)
        job = {"id": "f00", "filepath": "/data/a.pdf", "filesize": 5, "priority": "high", "retries": 0}
        job |= {"creation_time": f"{moment:%Y-%m-%dT%H:%M:%S.%f}789Z", "trace_id": "", "span_id": ""}
        redis_client.lpush("jobqueue:high_priority", json.dumps(job))
    redis_client.lpush("jobqueue:worker:host-1-0:processing", "{}")
    redis_client.rpush("jobqueue:completed", "{}")
    with opened(redis_url, layout="go-redis-work-queue") as provider:
        samples = provider.get_all_queue_stats()
        by_key = provider.get_queue_stats("jobqueue:high_priority")
    assert {name: split(sample) for name, sample in samples.items()} == {
        "high": (3, None, None),
        "low": (0, None, None),
    }
    assert samples["high"].oldest_age == pytest.approx(30, abs=1)  # type: ignore[union-attr]
    assert split(by_key) == (3, None, None)


# --------------------------------------------------------------------------------------------------- names and settings


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
def test_any_kind_of_client_will_do(redis_url: str, redis_client: redis.Redis, protocol: int, *, decode: bool) -> None:
    """Replies come as bytes or text, pairs as tuples or lists, sets as sets or lists."""
    now = int(time.time() * 1000)
    redis_client.zadd("arq:queue", {"a": now - 5_000, "b": now - 3_000, "c": now + 60_000})
    redis_client.set("arq:in-progress:a", 1)
    redis_client.sadd("rq:queues", "rq:queue:mail")
    redis_client.rpush("rq:queue:mail", "job")
    redis_client.hset("rq:job:job", "enqueued_at", f"{datetime.now(UTC) - timedelta(seconds=9):%Y-%m-%dT%H:%M:%S.%f}Z")
    with redis.Redis.from_url(redis_url, decode_responses=decode, protocol=protocol) as client:
        with opened(client, ["arq:queue"], layout="arq") as provider:
            sample = provider.get_queue_stats("arq:queue")
        assert split(sample) == (1, 1, 1)
        assert sample.oldest_age == pytest.approx(3, abs=1)
        with opened(client, layout="rq") as provider:
            (sample,) = provider.get_all_queue_stats().values()  # type: ignore[assignment]
        assert sample.queue_name == "mail"
        assert sample.oldest_age == pytest.approx(9, abs=1)


def test_arq_jobs_beyond_the_limit_are_not_asked(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.zadd("q", {str(number): 10**12 + number for number in range(5)})
    redis_client.mset({f"arq:in-progress:{number}": 1 for number in range(3)})
    for limit, waiting, running in ((0, 5, 0), (2, 3, 2), (3, 2, 3), (10, 2, 3)):
        with opened(redis_url, ["q"], layout=layouts.ArqLayout(limit)) as provider:
            sample = provider.get_queue_stats("q")
        assert split(sample) == (waiting, running, 0)
        assert sample.oldest_age == pytest.approx(time.time() - 10**9 - min(limit, 3) / 1000, abs=1)
    with pytest.raises(ConfigurationError, match="running_limit is -1"):
        layouts.ArqLayout(-1)


def test_plain_keys_are_templates(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.rpush("jobs:a", 1, 2)
    redis_client.rpush("jobs:a:running", 1)
    redis_client.zadd("later:a", {"x": 1, "y": 10**11})
    redis_client.xadd("events:a", {"x": 1})
    for layout, expected in (
        (ListKey("jobs:{queue}", "jobs:{queue}:running"), (2, 1, None)),
        (ListKey(b"jobs:{queue}"), (2, None, None)),
        (ZSetKey("later:{queue}", due="seconds"), (1, None, 1)),
        (StreamKey("events:{queue}", group="workers"), (1, 0, None)),
    ):
        with opened(redis_url, ["a"], layout=layout, key="{queue}") as provider:
            assert [split(sample) for sample in provider.get_all_queue_stats().values()] == [expected]
            assert split(provider.get_queue_stats("b"))[0] == 0


def test_each_queue_may_have_its_own(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.rpush("saq:mail:queued", "x")
    redis_client.rpush("dramatiq:reports", "x", "y")
    queues = {"mail": layouts.SAQLayout(), "reports": layouts.DramatiqLayout()}
    with opened(redis_url, queues) as provider:
        found = provider.get_all_queue_stats()
    assert [split(found[name])[0] for name in queues] == [1, 2]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"layout": "resque"}, "layout"),
        ({"layout": 5}, "layout"),
        ({"layout": layouts.RQLayout}, "layout"),
        ({"layout": ListKey("jobs")}, "layout"),
        ({"layout": "rq", "key": "jobs:{queue}"}, "layout"),
        ({"queues": None}, "queues"),
        ({"queues": None, "layout": "celery"}, "queues"),
    ],
)
def test_impossible_settings(options: dict[str, Any], field: str) -> None:
    for provider in (RedisStatsProvider, AsyncRedisStatsProvider):
        with pytest.raises(ConfigurationError) as caught:
            provider("redis://localhost", **{"queues": ["q"], **options})
        assert caught.value.field == field


class Jobs:
    """A layout of somebody else, that counts what it says."""

    def __init__(self, *commands: Command) -> None:
        self.commands = commands

    def read(self, queue_name: str, now: datetime) -> Steps:
        counts = yield from ask(*self.commands)
        return QueueStats(queue_name, sum(counts), last_updated=now)

    def __repr__(self) -> str:
        return "Jobs()"


def test_others_add_layouts_by_an_entry_point(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = EntryPoints(
        EntryPoint(name, value, layouts.GROUP)
        for name, value in (("resque", f"{__name__}:resque"), ("broken", "builtins:int"))
    )
    monkeypatch.setattr(layouts, "entry_points", lambda group: points.select(group=group))
    monkeypatch.setattr(EntryPoint, "load", lambda point: resque if point.name == "resque" else int)
    redis_client.rpush("resque:queue:mail", "x")
    with opened(redis_url, ["mail"], layout="resque") as provider:
        assert split(provider.get_queue_stats("mail"))[0] == 1
    with pytest.raises(ConfigurationError, match="layout 'broken' is 0, as entry point 'builtins:int' gives it"):
        layouts.layout_named("broken")
    with pytest.raises(ConfigurationError, match=r"give a Layout, or one of arq, .*, resque, rq, .*"):
        layouts.layout_named("none")


def resque() -> Layout:
    return Jobs(Command("llen", "resque:queue:mail"))


# ------------------------------------------------------------------------------------------------------------ discovery


def test_queues_are_found_anew_at_each_read(redis_url: str, redis_client: redis.Redis) -> None:
    with opened(redis_url, layout="rq") as provider:
        assert repr(provider).endswith("queues of RQLayout(prefix='rq'))")
        assert provider.get_all_queue_stats() == {}
        redis_client.sadd("rq:queues", "rq:queue:a", "rq:queue:b", "rq:queue:\n")
        assert sorted(provider.get_all_queue_stats()) == ["a", "b"]
    assert sorted(asyncio.run(found_by_asyncio(redis_url))) == ["a", "b"]


async def found_by_asyncio(url: str) -> Any:
    provider = AsyncRedisStatsProvider(url, layout="rq")
    samples = await provider.get_all_queue_stats()
    await provider.aclose()
    return samples


def test_a_discovery_that_fails_says_so(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.set("queues", "x")
    with opened(redis_url, layout="sidekiq") as provider:
        for _ in range(2):
            with pytest.raises(StatsUnavailableError, match="holds a string, not a set: give the layout= of") as caught:
                provider.get_all_queue_stats()
            assert (caught.value.error_type, caught.value.queue_name) == ("wrongtype", None)
        redis_client.delete("queues")
        assert provider.get_all_queue_stats() == {}


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_the_wrong_layout_is_named(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.zadd("huey.redis.mail", {"x": 1})
    redis_client.rpush("huey.redis.other", "x")
    with opened(redis_url, ["mail", "other"], layout="huey") as provider:
        samples = provider.get_all_queue_stats()
    assert str(samples["mail"]) == (
        "key 'huey.redis.mail' of queue 'mail' holds a zset, not a list: give the layout= of what keeps this queue, "
        "HueyLayout(priority=False, clean_name=True) is not"
    )
    assert split(samples["other"]) == (1, None, 0)


def test_a_layout_that_fails_spoils_no_other_queue(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.rpush("good", "x")

    class Broken(Jobs):
        def read(self, queue_name: str, now: datetime) -> Steps:
            yield from super().read(queue_name, now)
            raise KeyError("lost")

    with opened(redis_url, {"bad": Broken(Command("llen", "good")), "good": ListKey("good")}) as provider:
        samples = provider.get_all_queue_stats()
    assert str(samples["bad"]) == "cannot read queue 'bad' by Jobs(): KeyError: 'lost'"
    assert samples["bad"].error_type == "provider"  # type: ignore[union-attr]
    assert split(samples["good"])[0] == 1


EVERY: list[Layout] = [
    layouts.ArqLayout(),
    layouts.BullMQLayout(),
    layouts.CeleryLayout(),
    layouts.DramatiqLayout(),
    layouts.GoRedisWorkQueueLayout(),
    layouts.HueyLayout(),
    layouts.HueyLayout(priority=True),
    layouts.RQLayout(),
    layouts.SAQLayout(),
    layouts.SidekiqLayout(),
    layouts.StreaqLayout(["low", "high"]),
    layouts.TaskiqLayout(),
    layouts.TaskiqLayout(group="taskiq"),
]
_ODD_TIMES: list[Any] = [None, True, "x", "2026-01-01", [], 1e300, 10**400, 1_700_000_000, 1_700_000_000_000, -1]
VALUES: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.binary(max_size=30)
    | st.sampled_from(
        [
            b"2026-01-01T00:00:00Z",
            b"0001-01-01T00:00:00+14:00",
            b"1e400",
            b"[" * 9_999,
            *[
                json.dumps({field: value}).encode()
                for field in ("message_timestamp", "queued", "enqueued_at", "creation_time")
                for value in _ODD_TIMES
            ],
        ]
    )
    | st.builds(redis.ResponseError, st.sampled_from(["WRONGTYPE x", "ERR no such key", ""]))
    | st.builds(redis.ConnectionError, st.text(max_size=5))
)
REPLIES = VALUES | st.lists(VALUES | st.tuples(VALUES, VALUES) | st.lists(VALUES, max_size=2), max_size=3)


def run(layout: Layout, data: st.DataObject, replies: st.SearchStrategy[Any]) -> Any:
    reading = Reading({"q": layout}, NOW)
    rounds = 0
    while commands := reading.commands():
        assert all(isinstance(command.key, (str, bytes)) for command in commands)
        counts = st.integers(0, 9)
        reading.feed([data.draw(counts if c.method in {*COUNTS, "exists"} else replies) for c in commands])
        rounds += 1
        assert rounds <= 12
    return reading.results["q"]


COUNTS = {"llen", "zcard", "zcount", "hlen", "scard", "xlen"}


@given(st.sampled_from(EVERY), st.data())
def test_whatever_jobs_hold_the_counts_stand(layout: Layout, data: st.DataObject) -> None:
    """Payloads and times are other people's; only a stream's group can make counts impossible."""
    outcome = run(layout, data, REPLIES)
    if isinstance(outcome, QueueStats):
        assert outcome.fault() is None
        assert outcome.oldest_age is None or 0 <= outcome.oldest_age < 10**9
    else:
        assert isinstance(layout, (layouts.StreaqLayout, layouts.TaskiqLayout))
        assert isinstance(outcome, StatsUnavailableError)


@given(st.sampled_from(EVERY), st.data())
def test_what_is_no_count_is_an_error(layout: Layout, data: st.DataObject) -> None:
    reading = Reading({"q": layout}, NOW)
    bad = [None, -1, True, MAX_BACKLOG + 1, b"5", redis.ResponseError("NOPERM no")]
    reading.feed([data.draw(st.sampled_from(bad)) for _ in reading.commands()])
    while commands := reading.commands():
        reading.feed([redis.ResponseError("NOPERM no")] * len(commands))
    outcome = reading.results["q"]
    assert isinstance(outcome, StatsUnavailableError)
    assert outcome.queue_name == "q"


# -------------------------------------------------------------------------------------------------------------- servers


def test_every_layout_reads_a_cluster(redis_cluster: servers.Cluster) -> None:
    """Keys of one queue lie on several nodes, so this fails for any command on two keys."""
    queues = {f"{type(layout).__name__}-{number}": layout for number, layout in enumerate(EVERY)}
    with opened(redis_cluster.url, queues) as provider:
        samples = provider.get_all_queue_stats()
    assert {name: split(sample)[0] for name, sample in samples.items()} == dict.fromkeys(queues, 0)
    for layout in ("rq", "sidekiq"):
        with opened(redis_cluster.url, layout=layout) as provider:
            assert provider.get_all_queue_stats() == {}


def test_all_queues_share_their_round_trips(redis_url: str, redis_client: redis.Redis) -> None:
    for number in range(9):
        redis_client.rpush(f"rq:queue:{number}", "job")
    with opened(redis_url, [str(number) for number in range(9)], layout="rq") as provider:
        provider.get_all_queue_stats()
        redis_client.config_resetstat()
        provider.get_all_queue_stats()
        stats = redis_client.info("stats")
    # The two pipelines of all queues, and this very question.
    assert stats["total_reads_processed"] <= 4


def test_generators_together_share_their_rounds() -> None:
    def counting(name: str, rounds: int) -> Rounds[str]:
        for number in range(rounds):
            (reply,) = yield (Command("get", f"{name}{number}"),)
            assert reply == f"{name}{number}"
        return name

    steps = layouts.together(counting("a", 2), counting("b", 0), counting("c", 3))
    assert [command.key for command in next(steps)] == ["a0", "c0"]
    assert [command.key for command in steps.send(["a0", "c0"])] == ["a1", "c1"]
    assert [command.key for command in steps.send(["a1", "c1"])] == ["c2"]
    with pytest.raises(StopIteration) as finished:
        steps.send(["c2"])
    assert finished.value.value == ["a", "b", "c"]
