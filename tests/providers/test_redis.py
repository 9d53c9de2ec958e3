"""Both providers of Redis against real servers: layouts, names, errors and transports."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import redis
import redis.asyncio
import redis.client
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.cluster import RedisCluster

from backpressure import AsyncRedisStatsProvider
from backpressure._model.errors import ConfigurationError, StatsUnavailableError
from backpressure._model.stats import MAX_BACKLOG, QueueStats
from backpressure.providers.redis import async_client as _redis_async_client
from backpressure.providers.redis import async_provider as async_module
from backpressure.providers.redis import provider as module
from backpressure.providers.redis.client import RedisTarget, parse_target
from backpressure.providers.redis.errors import error_type
from backpressure.providers.redis.layouts import Reading
from backpressure.providers.redis.provider import ListKey, RedisStatsProvider, StreamKey, ZSetKey
from providers.checks import backlogs, counts, failure, sample
from providers.contract.backend import Wrong, frozen
from providers.contract.faults import says
from providers.contract.reading import connections, reading
from providers.contract.suite import Contract
from providers.redis_backend import RedisBackend, running, wrong
from support import redis_fixtures, servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backpressure.providers.redis.layouts import Layout
    from providers.contract.reading import Face

pytestmark = pytest.mark.usefixtures("no_log_record")

GROUP = "workers"


@pytest.fixture
def no_log_record(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    """The provider leaves logging to the poller, which logs changes, not reads."""
    caplog.set_level(logging.DEBUG, logger="backpressure")
    yield
    said = [record.getMessage() for record in caplog.get_records("call") if record.name.startswith("backpressure")]
    assert said == [] or "engine_name" in request.fixturenames  # a controller logs, also when its reads have ended


Opened: TypeAlias = Callable[..., contextlib.AbstractContextManager["Face"]]
StreamCounts: TypeAlias = Callable[..., tuple[int, int | None]]


def opening(kind: Any) -> Opened:
    @contextlib.contextmanager
    def opened(where: Any, queues: Any = ("q",), **options: Any) -> Iterator[Face]:
        provider = reading(kind(where, queues, **{"timeout": 10.0, **options}))  # machines stall
        try:
            yield provider
        finally:
            provider.close()

    return opened


@pytest.fixture(params=[RedisStatsProvider, AsyncRedisStatsProvider], ids=["blocking", "asyncio"])
def opened(request: pytest.FixtureRequest) -> Opened:
    """Makes each of the two providers in turn, behind blocking methods."""
    return opening(request.param)


class Redis(RedisBackend):
    wrong = (
        *wrong(RedisStatsProvider),
        Wrong(
            "url_or_client",
            lambda: RedisStatsProvider(redis.asyncio.Redis(), ["q"]),  # type: ignore[arg-type]
            "a redis.asyncio.client.Redis: give a URL",
        ),
    )


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Server]:
    with running() as server:
        yield server


@pytest.fixture
def backend(server: servers.Server) -> Iterator[Redis]:
    with servers.tls_front(server) as front:
        yield Redis(server, front)


class TestContract(Contract, of=Redis):
    pass


def commands_called(client: Any) -> dict[str, int]:
    return {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in client.info("commandstats").items()}


def test_list(opened: Opened, redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.rpush("jobs", "a", "b", "c")
    redis_client.rpush("jobs:running", "d")
    before = datetime.now(UTC)
    queues = {"plain": "jobs", "bytes": b"jobs", "both": ListKey("jobs", "jobs:running"), "empty": ListKey("nothing")}
    with opened(redis_url, queues) as provider:
        outcomes = provider.get_all_queue_stats()
    assert {name: counts(sample(outcomes, name)) for name in outcomes} == {
        "plain": (3, None, None),
        "bytes": (3, None, None),
        "both": (3, 1, None),
        "empty": (0, None, None),
    }
    assert all(
        before <= sample(outcomes, name).last_updated <= datetime.now(UTC) and sample(outcomes, name).queue_name == name
        for name in outcomes
    )


@pytest.mark.parametrize(("unit", "factor"), [("seconds", 1), ("milliseconds", 1000)])
def test_sorted_set(opened: Opened, redis_url: str, redis_client: redis.Redis, unit: Any, factor: int) -> None:
    now = time.time() * factor
    redis_client.zadd("z", {"past": now - 60 * factor, "just": now - factor, "soon": now + 60 * factor})
    queues = {"all": ZSetKey("z"), "due": ZSetKey("z", due=unit), "empty": ZSetKey("nothing", due=unit)}
    with opened(redis_url, queues) as provider:
        outcomes = provider.get_all_queue_stats()
    assert counts(sample(outcomes, "all")) == (3, None, None)
    assert counts(sample(outcomes, "due")) == (2, None, 1)
    assert counts(sample(outcomes, "empty")) == (0, None, 0)


class Stream:
    """A stream and its group as a worker handles them."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def add(self, count: int) -> list[Any]:
        return [self.client.xadd("s", {"n": number}) for number in range(count)]

    def group(self, start: str = "0") -> None:
        self.client.xgroup_create("s", GROUP, id=start, mkstream=True)

    def read(self, count: int) -> list[Any]:
        reply = self.client.xreadgroup(GROUP, "worker", {"s": ">"}, count=count)
        entries = reply["s" if "s" in reply else b"s"] if isinstance(reply, dict) else reply[0][1]
        while entries and isinstance(entries[0], list) and isinstance(entries[0][0], (list, tuple)):
            entries = entries[0]
        return [entry[0] for entry in entries]

    def lag(self) -> int | None:
        lag: int | None = self.client.xinfo_groups("s")[0].get("lag")
        return lag


@pytest.fixture
def stream(redis_client: redis.Redis) -> Stream:
    return Stream(redis_client)


@pytest.fixture
def stream_counts(opened: Opened, redis_url: str) -> StreamCounts:
    def stream_counts(**more: Any) -> tuple[int, int | None]:
        with opened(redis_url, {"q": StreamKey("s", GROUP, **more)}) as provider:
            stats = provider.get_queue_stats("q")
        return stats.backlog_count, stats.processing_count

    return stream_counts


def test_stream_lag(stream_counts: StreamCounts, stream: Stream) -> None:
    stream.add(10)
    stream.group()
    assert stream_counts() == (10, 0)
    stream.read(3)
    assert stream_counts() == (7, 3)
    stream.read(7)
    assert stream_counts() == (0, 10)


def test_stream_with_a_deleted_undelivered_entry(stream_counts: StreamCounts, stream: Stream) -> None:
    ids = stream.add(10)
    stream.group()
    stream.read(3)
    stream.client.xdel("s", ids[5])
    assert stream.lag() is None
    assert stream_counts() == (6, 3)


@pytest.mark.parametrize(("start", "waiting"), [("$", 3), ("second", 5)])
def test_stream_group_created_in_the_middle(
    stream_counts: StreamCounts, stream: Stream, start: str, waiting: int
) -> None:
    ids = stream.add(4)
    stream.group(ids[1].decode() if start == "second" else start)
    stream.add(3)
    assert stream.lag() is None
    assert stream_counts() == (waiting, 0)


def test_stream_trimmed(stream_counts: StreamCounts, stream: Stream) -> None:
    stream.add(20)
    stream.group()
    stream.client.xtrim("s", maxlen=5, approximate=False)
    assert stream_counts() == (5, 0)


def test_stream_missing_or_without_the_group(stream_counts: StreamCounts, stream: Stream) -> None:
    assert stream_counts() == (0, 0)
    stream.add(4)
    assert stream_counts() == (4, 0)
    stream.client.xgroup_create("s", "someone-else", id="$")
    assert stream_counts() == (4, 0)


def test_stream_whose_consumers_delete_what_they_ack(stream_counts: StreamCounts, stream: Stream) -> None:
    ids = stream.add(10)
    stream.group()
    for entry in stream.read(4)[:2]:
        stream.client.xack("s", GROUP, entry)
        stream.client.xdel("s", entry)
    stream.client.xdel("s", ids[8])
    assert stream.lag() is None
    assert stream_counts(acked_entries_are_deleted=True) == (5, 2)


def test_stream_count_is_bounded_but_never_hides_an_overload(stream_counts: StreamCounts, stream: Stream) -> None:
    # One entry a second for 2 000 s, of which at most 101 are counted.
    pipeline = stream.client.pipeline(transaction=False)
    pipeline.xadd("s", {"n": 0}, id="1700000000000-0")
    for second in range(1, 2001):
        pipeline.xadd("s", {"n": second}, id=f"{1_700_000_000_000 + second * 1000}-0")
    pipeline.execute()
    stream.group("1700000001000-0")
    assert stream.lag() is None
    assert stream_counts(count_limit=1999) == (1999, 0)
    backlog, _ = stream_counts(count_limit=100)
    assert 1950 <= backlog <= 2001


def test_stream_count_of_one_burst_is_the_whole_stream_at_most(stream_counts: StreamCounts, stream: Stream) -> None:
    for number in range(300):
        stream.client.xadd("s", {"n": number}, id=f"1700000000000-{number}")
    stream.group("1700000000000-99")
    assert stream_counts(count_limit=500) == (200, 0)
    # Nothing tells how many of one millisecond were delivered, but eleven of them were seen.
    assert stream_counts(count_limit=10) == (289, 0)


def test_stream_age_of_the_next_entry(opened: Opened, redis_url: str, stream: Stream) -> None:
    now = time.time()
    for age in (100, 50):
        stream.client.xadd("s", {"n": age}, id=f"{int((now - age) * 1000)}-0")
    with opened(redis_url, {"q": StreamKey("s", GROUP)}) as provider:
        assert provider.get_queue_stats("q").oldest_age == pytest.approx(100, abs=5)  # no group yet
        stream.group()
        assert provider.get_queue_stats("q").oldest_age == pytest.approx(100, abs=5)
        stream.read(1)
        assert provider.get_queue_stats("q").oldest_age == pytest.approx(50, abs=5)
        stream.read(1)
        assert provider.get_queue_stats("q").oldest_age is None


def test_stream_with_numbered_entries_has_no_age(opened: Opened, redis_url: str, stream: Stream) -> None:
    stream.client.xadd("s", {"n": 1}, id="1-1")
    stream.group()
    with opened(redis_url, {"q": StreamKey("s", GROUP)}) as provider:
        stats = provider.get_queue_stats("q")
    assert (stats.backlog_count, stats.oldest_age) == (1, None)


def run(layout: Layout, *replies: Sequence[Any]) -> QueueStats | StatsUnavailableError:
    """Feed a layout with replies, one sequence a round."""
    reading = Reading({"q": layout}, datetime.now(UTC))
    for round_ in replies:
        assert len(reading.commands()) == len(round_)
        reading.feed(round_)
    assert reading.commands() == []
    return reading.results["q"]


def test_stream_of_a_server_without_the_lag_field() -> None:
    """Redis 6.2 and older."""
    group = {"name": b"workers", "consumers": 1, "pending": 2, "last-delivered-id": b"5-18446744073709551615"}
    layout = StreamKey("s", GROUP)
    reading = Reading({"q": layout}, datetime.now(UTC))
    reading.feed([[group], 9])
    assert reading.commands() == [("xrange", "s", ("6-0", "+", 101))]
    reading.feed([[(b"6-0", {}), (b"7-0", {})]])
    assert counts(sample(reading.results)) == (2, 2, None)


def test_stream_lag_below_zero_is_no_lag() -> None:
    group = {"name": "workers", "pending": 0, "last-delivered-id": "5-0", "lag": -3}
    assert run(StreamKey("s", GROUP), [[group], 9], [[("6-0", {})]]).backlog_count == 1  # type: ignore[union-attr]


def test_the_age_alone_cannot_fail_a_sample() -> None:
    group = {"name": "workers", "pending": 0, "last-delivered-id": "5-0", "entries-read": 5, "lag": 4}
    outcome = run(StreamKey("s", GROUP), [[group], 9], [redis.exceptions.NoPermissionError("no xrange")])
    assert isinstance(outcome, QueueStats)
    assert (outcome.backlog_count, outcome.oldest_age) == (4, None)


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.binary(max_size=30)
    | st.sampled_from([b"0-0", "1-1", b"workers", "workers", b"99999999999999999999-1", "²-1", "list", b"stream"])
    | st.builds(redis.ResponseError, st.sampled_from(["WRONGTYPE x", "ERR no such key", "BUSY", ""]))
    | st.builds(redis.ConnectionError, st.text(max_size=5))
    | st.builds(ValueError, st.text(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(
            st.sampled_from(["name", b"name", "pending", "lag", "last-delivered-id", b"last-delivered-id", 1]), inner
        )
    ),
    max_leaves=12,
)
GROUPS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.just(b"workers"),
            "pending": st.integers(-1, 5) | JUNK,
            "last-delivered-id": st.just(b"3-1") | JUNK,
        },
        optional={"lag": st.integers(-2, 9) | JUNK},
    ),
    max_size=2,
)
ENTRIES = st.lists(
    st.tuples(st.builds("{}-{}".format, st.integers(0, 2**70), st.integers(0, 9)), st.none()), max_size=5
)
LAYOUTS: list[Layout] = [
    ListKey("k"),
    ListKey("k", "p"),
    ZSetKey("k"),
    ZSetKey("k", "seconds"),
    ZSetKey("k", "milliseconds"),
    StreamKey("k", "workers", count_limit=2),
    StreamKey("k", b"workers", acked_entries_are_deleted=True),
]


@given(st.sampled_from(LAYOUTS), st.data())
@settings(max_examples=500)
def test_no_reply_gives_anything_but_a_sound_sample_or_the_error(layout: Layout, data: st.DataObject) -> None:
    reading = Reading({"q": layout}, datetime.now(UTC))
    rounds = 0
    while commands := reading.commands():
        reading.feed(data.draw(st.tuples(*[st.integers(-1, 9) | GROUPS | ENTRIES | JUNK for _ in commands])))
        rounds += 1
        assert rounds <= 3
    outcome = reading.results["q"]
    if isinstance(outcome, QueueStats):
        assert outcome.fault() is None
        assert 0 <= outcome.backlog_count <= MAX_BACKLOG
        assert outcome.oldest_age is None or outcome.oldest_age >= 0
    else:
        assert isinstance(outcome, StatsUnavailableError)
        assert outcome.queue_name == "q"


def test_names_alone_are_keys_of_lists(opened: Opened, redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.rpush("{app}:a", "x")
    redis_client.rpush("b", "x", "y")
    with opened(redis_url, ["a"], key="{app}:{queue}") as provider:
        assert list(provider.get_all_queue_stats()) == ["a"]
        assert provider.get_queue_stats("a").backlog_count == 1
    with opened(redis_url, {"a": ListKey("{app}:a")}, key="{queue}") as provider:
        assert {name: sample(provider.get_many(["a", "b"]), name).backlog_count for name in "ab"} == {"a": 1, "b": 2}


@pytest.mark.parametrize("layout", [None, "celery", ListKey("jobs:{queue}")])
def test_an_unlisted_name_is_unknown_and_not_empty(
    opened: Opened, redis_url: str, redis_client: redis.Redis, layout: Any
) -> None:
    with opened(redis_url, ["a"], layout=layout) as provider:
        outcomes = provider.get_many(["a", "b"])
        assert sample(outcomes, "a").backlog_count == 0
        error = failure(lambda: provider.get_queue_stats("b"))
        assert "'b' is not among the queues" in str(error)
        assert 'add it to queues=, or give key="{queue}"' in str(error)
        assert error.error_type == "missing"
    with opened(redis_url, ["a"], layout=layout, key="{queue}") as provider:
        assert provider.get_queue_stats("b").backlog_count == 0


def test_impossible_keys() -> None:
    for make in (
        lambda: ListKey(""),
        lambda: ListKey(None),  # type: ignore[arg-type]
        lambda: ListKey("a", 5),  # type: ignore[arg-type]
        lambda: ZSetKey("a", due="minutes"),  # type: ignore[arg-type]
        lambda: StreamKey("a", ""),
        lambda: StreamKey("a", "g", count_limit=0),
    ):
        with pytest.raises(ConfigurationError):
            make()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:secret@h", "redis://h:6379/0"),
        ("valkey://h:1/3", "redis://h:1/3"),
        ("redis://[::1]:7?db=2", "redis://[::1]:7/2"),
        ("valkeys://h", "rediss://h:6379/0"),
        ("unix:///run/x.sock?db=1", "unix:///run/x.sock?db=1"),
        ("valkey+unix:///run/x.sock", "unix:///run/x.sock?db=0"),
        ("redis+sentinel://:secret@a,b:2/main/5", "redis+sentinel://a:26379,b:2/main/5"),
        ("rediss+cluster://a:1,b", "rediss+cluster://a:1,b:6379"),
        # Celery's words.
        ("redis+socket:///run/x.sock?virtual_host=1", "unix:///run/x.sock?db=1"),
        ("redis+socket://:secret@/run/x.sock", "unix:///run/x.sock?db=0"),
        ("redis://h?virtual_host=%2F2", "redis://h:6379/2"),
        ("sentinel://:a;b@h:1/2;sentinel://g?master_name=main", "redis+sentinel://h:1,g:26379/main/2"),
        ("sentinel://h?master_name=main&socket_timeout=2", "redis+sentinel://h:26379/main/0"),
    ],
)
def test_urls(url: str, shown: str) -> None:
    assert repr(RedisStatsProvider(url, ["a", "b"])) == f"RedisStatsProvider({shown!r}, 2 queues)"


@pytest.mark.parametrize("kind", [RedisStatsProvider, AsyncRedisStatsProvider])
@pytest.mark.parametrize("word", ["none", "optional", "required"])
def test_certificates_are_asked_for_in_any_words(kind: Any, word: str) -> None:
    for form in (word, word.title(), word.upper(), f"CERT_{word.upper()}"):
        options = kind(f"rediss://h?ssl_cert_reqs={form}", ["q"])._target.options
        assert (options["ssl_cert_reqs"], options["ssl_check_hostname"]) == (word, word != "none")


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("sentinel://h:26379;sentinel://g:26379", r"give redis\+sentinel://.* or make the provider by from_celery"),
        ("redis://h;redis://g", "several brokers"),
        ("redis://h?visibility_timeout=3600", r"has visibility_timeout .* for Celery: make .* by from_celery"),
        ("redis://h?master_name=main", "has master_name"),
        ("rediss://h?ssl_cert_reqs=maybe", "none, optional or required"),
    ],
)
def test_words_of_celerys_that_say_nothing_here_are_named(url: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        RedisStatsProvider(url, ["q"])


def test_one_bad_key_spoils_no_other(opened: Opened, redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.rpush("good", "x")
    redis_client.set("text", "x")
    redis_client.zadd("set", {"x": 1})
    redis_client.xadd("log", {"x": 1})
    queues = {
        "good": ListKey("good"),
        "text": ListKey("text"),
        "set": ListKey("set"),
        "log": ZSetKey("log", "seconds"),
        "list": StreamKey("good", GROUP),
        "second": ListKey("good", "text"),
    }
    with opened(redis_url, queues) as provider:
        outcomes = provider.get_all_queue_stats()
    assert sample(outcomes, "good").backlog_count == 1
    messages = {name: str(outcomes[name]) for name in queues if name != "good"}
    assert messages == {
        "text": "key 'text' of queue 'text' holds a string, not a list: it is no queue: correct the key",
        "set": "key 'set' of queue 'set' holds a zset, not a list: "
        """give ZSetKey('set') for this queue, or layout = "zset" in its section""",
        "log": "key 'log' of queue 'log' holds a stream, not a zset: "
        """give StreamKey('log', group=...) for this queue, or layout = "stream" in its section""",
        "list": "key 'good' of queue 'list' holds a list, not a stream: "
        """give ListKey('good') for this queue, or layout = "list" in its section""",
        "second": "key 'text' of queue 'second' holds a string, not a list: it is no queue: correct the key",
    }
    for name in messages:
        error = outcomes[name]
        assert isinstance(error, StatsUnavailableError)
        assert (error.error_type, error.queue_name) == ("wrongtype", name)
        assert (error.__cause__, error.__context__) == (None, None)


def test_the_type_of_a_bad_key_is_asked_once(opened: Opened, redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.set("q", "x")
    with opened(redis_url) as provider:
        redis_client.config_resetstat()
        first = failure(lambda: provider.get_queue_stats("q"))
        assert str(failure(lambda: provider.get_queue_stats("q"))) == str(first)
        assert commands_called(redis_client)["type"] == 1
        redis_client.delete("q")
        assert provider.get_queue_stats("q").backlog_count == 0
        redis_client.zadd("q", {"x": 1})
        assert "holds a zset" in str(failure(lambda: provider.get_queue_stats("q")))
        assert commands_called(redis_client)["type"] == 2


class RoundTrips(list[int]):
    """How many commands each exchange sent; the one of number `cut` fails."""

    cut = 0

    def note(self, commands: Any) -> None:
        self.append(len(commands))
        if len(self) == self.cut:
            raise redis.ConnectionError("cut")


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> RoundTrips:
    trips = RoundTrips()
    execute = redis.client.Pipeline.execute
    exchange = _redis_async_client.exchange

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        assert not self.explicit_transaction
        assert not self.transaction
        trips.note(self.command_stack)
        return execute(self, *args, **options)

    async def noted(server: Any, commands: Any) -> list[Any]:
        trips.note(commands)
        return await exchange(server, commands)

    monkeypatch.setattr(redis.client.Pipeline, "execute", counted)
    monkeypatch.setattr(async_module, "exchange", noted)
    return trips


def test_many_queues_are_read_in_chunks(
    opened: Opened, redis_url: str, redis_client: redis.Redis, round_trips: RoundTrips
) -> None:
    names = [f"q{number}" for number in range(1201)]
    pipeline = redis_client.pipeline(transaction=False)
    for number, name in enumerate(names):
        pipeline.rpush(name, *range(number % 7 + 1))
    pipeline.set("q600", "not a list")
    pipeline.execute()
    round_trips.clear()
    with opened(redis_url, names) as provider:
        redis_client.config_resetstat()
        outcomes = provider.get_all_queue_stats()
    assert round_trips == [500, 500, 201, 1, 1], "the last two ask for the memory, and for the type of the bad key"
    expected = {name: number % 7 + 1 for number, name in enumerate(names)}
    assert backlogs(outcomes) == {**expected, "q600": "wrongtype"}
    called = commands_called(redis_client)
    assert called["llen"] == 1201
    assert not {"multi", "exec", "eval", "evalsha", "keys", "scan"} & set(called)


def test_streams_of_one_read_share_their_rounds(
    opened: Opened, redis_url: str, stream: Stream, round_trips: RoundTrips
) -> None:
    stream.add(3)
    stream.group()
    queues = {"l": ListKey("l"), **{f"s{number}": StreamKey("s", GROUP) for number in range(200)}}
    with opened(redis_url, queues) as provider:
        assert set(backlogs(provider.get_all_queue_stats()).values()) == {0, 3}
    assert round_trips == [401, 1, 200], "the second asks for the memory, once"


def test_unix_socket(opened: Opened, redis_server: servers.Server) -> None:
    with redis_server.client() as client:
        client.flushall()
        client.rpush("q", "x", "y")
    for scheme in ("unix", "valkey+unix"):
        with opened(f"{scheme}://{redis_server.unix_socket}?db=0") as provider:
            assert provider.get_queue_stats("q").backlog_count == 2


def test_database_of_the_url(opened: Opened, redis_server: servers.Server) -> None:
    with redis_server.client(db=3) as client:
        client.flushall()
        client.rpush("q", "x")
    with opened(f"redis://{servers.HOST}:{redis_server.port}/3") as provider:
        assert provider.get_queue_stats("q").backlog_count == 1


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 3}, {"protocol": 2}], ids=str)
def test_a_given_client_is_used_and_left_open(
    redis_url: str, redis_client: redis.Redis, stream: Stream, options: dict[str, Any]
) -> None:
    redis_client.rpush("q", "x")
    redis_client.set("text", "x")
    stream.add(3)
    stream.group("0-1")
    with redis.Redis.from_url(redis_url, **options) as client:
        pool = client.connection_pool
        queues = {"q": "q", "s": StreamKey(b"s", GROUP.encode()), "t": "text"}
        provider = RedisStatsProvider(client, queues)
        outcomes = provider.get_all_queue_stats()
        assert sample(outcomes).backlog_count == 1
        assert counts(sample(outcomes, "s")) == (3, 0, None)
        assert "holds a string" in str(outcomes["t"])
        client.client_setname("mine")
        provider.interrupt()
        provider.close()
        assert client.connection_pool is pool
        assert client.client_getname() in {"mine", b"mine"}, "the connection was closed"
        assert "is closed" in str(failure(provider.get_all_queue_stats))


@pytest.mark.parametrize(
    ("scheme", "words", "label", "advice"),
    [
        ("redis", b"-ERR max number of clients reached\r\n", "maxclients", ""),
        ("rediss", b"-ERR Protocol error\r\n", "protocol", "TLS (rediss://) on both sides"),
    ],
    ids=["full", "no TLS"],
)
def test_what_a_server_says_before_it_is_asked(
    opened: Opened, scheme: str, words: bytes, label: str, advice: str
) -> None:
    listener = servers.Listener(says(words))
    with listener, opened(f"{scheme}://{servers.HOST}:{listener.port}") as provider:
        error = failure(lambda: provider.get_queue_stats("q"))
        assert (error.error_type, advice in str(error)) == (label, True)


@pytest.fixture
def no_hello() -> Iterator[servers.Server]:
    """A server that knows neither HELLO nor CLIENT, as one before Redis 6, or one whose operator has renamed them."""
    with redis_fixtures.start(rename_command="HELLO  --rename-command CLIENT ") as server:
        with server.client(protocol=2) as client:
            client.rpush("mail", 1, 2, 3)
            client.xadd("s", {"n": 1})
        yield server


QUEUES = {"mail": "mail", "s": StreamKey("s", GROUP)}


def test_a_server_without_hello(opened: Opened, no_hello: servers.Server) -> None:
    with opened(no_hello.url, QUEUES) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"mail": 3, "s": 1}
    with opened(f"{no_hello.url}?protocol=3", QUEUES) as provider:
        error = failure(lambda: provider.get_queue_stats("mail"))
    assert error.error_type == "protocol"
    assert str(error).endswith("give a client with protocol=2, or a URL without protocol")


def test_a_given_client_on_a_server_without_hello(no_hello: servers.Server) -> None:
    opened = opening(RedisStatsProvider)
    with no_hello.client(protocol=2) as client, opened(client, QUEUES) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"mail": 3, "s": 1}
    with no_hello.client(protocol=3) as client, opened(client, QUEUES) as provider:
        error = failure(lambda: provider.get_queue_stats("mail"))
    assert (error.error_type, "a client with protocol=2" in str(error)) == ("protocol", True)


def test_a_proxy_that_ends_connections_at_commands_it_does_not_know(
    opened: Opened, redis_server: servers.Server, redis_client: redis.Redis
) -> None:
    """As twemproxy does; Envoy answers with an error."""
    redis_client.rpush("mail", 1, 2, 3)

    def handle(connection: socket.socket) -> None:
        with socket.create_connection((servers.HOST, redis_server.port)) as upstream:
            threading.Thread(target=servers.copy, args=(upstream, connection), daemon=True).start()
            while data := connection.recv(65536):
                if any(
                    word in data.upper() for word in (b"HELLO", b"CLIENT", b"SELECT", b"XINFO", b"PING", b"COMMAND")
                ):
                    break
                upstream.sendall(data)

    with servers.Listener(handle) as proxy:
        url = f"redis://{servers.HOST}:{proxy.port}"
        for options in ("", "/0", "/0?protocol=2"):
            with opened(f"{url}{options}", ["mail"]) as provider:
                assert provider.get_queue_stats("mail").backlog_count == 3
        for options in ("/1", "/0?protocol=3", "/0?client_name=mine"):
            with opened(f"{url}{options}", ["mail"]) as provider:
                error = failure(lambda: provider.get_queue_stats("mail"))
            assert error.error_type == "connect"
            assert "a proxy also ends connections at commands that it does not know" in str(error)


def test_sentinels_and_nodes_are_not_greeted_either() -> None:
    """Sentinels have options of their own."""
    for url in ("redis+sentinel://localhost/main", "redis+cluster://localhost", "unix:///run/s", "rediss://localhost"):
        target = parse_target(url, 1.0)
        for options in (target.options, target.sentinel_options or target.options):
            assert options["protocol"] == 2
            assert [options[name] for name in ("driver_info", "lib_name") if name in options] == [None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of redis-py's, for the option's name
        target = parse_target("redis://localhost?lib_name=mine&protocol=3", 1.0)
    assert (int(target.options["protocol"]), target.options["lib_name"]) == (3, "mine")  # once text
    assert "driver_info" not in target.options


def test_cluster(opened: Opened, redis_cluster: servers.Cluster, round_trips: RoundTrips) -> None:
    names = [f"q{number}" for number in range(40)]
    with redis_cluster.nodes[0].client() as plain, opening(RedisStatsProvider)(plain, names) as provider:
        outcomes = provider.get_all_queue_stats()
        wrong = [outcome for outcome in outcomes.values() if isinstance(outcome, StatsUnavailableError)]
        assert 0 < len(wrong) < 40, "keys of one node are read, those of the others are not"
        assert {error.error_type for error in wrong} == {"cluster"}
        assert all("redis+cluster://" in str(error) for error in wrong)

    with opened(redis_cluster.url, names) as provider:
        client = RedisCluster(host=servers.HOST, port=redis_cluster.nodes[0].port)
        with contextlib.closing(client):
            for node in redis_cluster.nodes:
                with node.client() as direct:
                    direct.flushall()
            for number, name in enumerate(names):
                client.rpush(name, *range(number + 1))
            round_trips.clear()
            outcomes = provider.get_all_queue_stats()
            assert [sample(outcomes, name).backlog_count for name in names] == list(range(1, 41))
            assert len([trip for trip in round_trips if trip > 1]) == 3, "one pipeline a node, beside its memory"

            with opening(RedisStatsProvider)(client, names) as given_client:
                assert given_client.get_queue_stats("q7").backlog_count == 8
            assert client.llen("q7") == 8


def test_cluster_wrong_type_and_stream(opened: Opened, redis_cluster: servers.Cluster) -> None:
    with contextlib.closing(RedisCluster(host=servers.HOST, port=redis_cluster.nodes[0].port)) as client:
        for node in redis_cluster.nodes:
            with node.client() as direct:
                direct.flushall()
        client.set("text", "x")
        client.xadd("s", {"n": 1})
        client.xgroup_create("s", GROUP, id="0-1")
        with opened(redis_cluster.url, {"t": "text", "s": StreamKey("s", GROUP)}) as provider:
            outcomes = provider.get_all_queue_stats()
        assert "holds a string" in str(outcomes["t"])
        assert counts(sample(outcomes, "s")) == (1, 0, None)


def test_cluster_follows_moved_slots(opened: Opened, redis_cluster: servers.Cluster) -> None:
    with opened(redis_cluster.url) as provider, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(node.client()) for node in redis_cluster.nodes]
        for client in clients:
            client.flushall()
        assert provider.get_queue_stats("q").backlog_count == 0
        slot = int(clients[0].execute_command("CLUSTER", "KEYSLOT", "q"))
        ids = [client.execute_command("CLUSTER", "MYID") for client in clients]
        owner = min(slot * 3 // 16384, 2)
        target = (owner + 1) % 3

        def assign(index: int) -> None:
            for client in clients:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[index])

        assign(target)
        try:
            clients[target].rpush("q", "x")
            assert failure(lambda: provider.get_queue_stats("q")).error_type == "cluster"
            assert provider.get_queue_stats("q").backlog_count == 1
        finally:
            clients[target].delete("q")
            assign(owner)


def test_cluster_with_a_frozen_node_still_reads_the_others(
    redis_cluster: servers.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"q{number}" for number in range(40)]
    asked: list[int] = []
    execute = redis.client.Pipeline.execute

    def noted(self: Any, *args: Any, **options: Any) -> Any:
        asked.append(self.connection_pool.connection_kwargs["port"])
        return execute(self, *args, **options)

    monkeypatch.setattr(redis.client.Pipeline, "execute", noted)
    with opening(RedisStatsProvider)(redis_cluster.url, names, timeout=1) as provider:
        assert all(isinstance(outcome, QueueStats) for outcome in provider.get_all_queue_stats().values())
        frozen = next(node for node in redis_cluster.nodes if node.port == asked[0])
        frozen.freeze()
        try:
            for _ in range(2):  # the second read asks for the slots anew
                asked.clear()
                begun = time.monotonic()
                outcomes = provider.get_all_queue_stats()
                assert time.monotonic() - begun < 15
                errors = [outcome for outcome in outcomes.values() if isinstance(outcome, StatsUnavailableError)]
                assert 0 < len(errors) < 40
                assert {error.error_type for error in errors} <= {"timeout", "connect"}
            assert asked[-1] == frozen.port, "what hung last time is read last"
        finally:
            frozen.resume()
            servers.wait_until(redis_cluster.is_complete, what="the cluster to be whole again")
        provider.get_all_queue_stats()
        assert all(isinstance(outcome, QueueStats) for outcome in provider.get_all_queue_stats().values())


def test_cluster_that_is_gone(opened: Opened) -> None:
    port = servers.dead_port()
    with opened(f"redis+cluster://{servers.HOST}:{port}", timeout=2) as provider:
        assert failure(provider.get_all_queue_stats).error_type == "connect"


def test_cluster_url_for_a_single_server(opened: Opened, redis_server: servers.Server) -> None:
    with opened(f"redis+cluster://{servers.HOST}:{redis_server.port}", timeout=2) as provider:
        assert failure(provider.get_all_queue_stats).error_type == "cluster"


def test_sentinel(opened: Opened) -> None:
    with redis_fixtures.start(requirepass="secret") as master:
        rules = f"sentinel monitor main {servers.HOST} {master.port} 1\nsentinel auth-pass main secret"
        with servers.Server(sentinel=rules) as sentinel, master.client() as client:
            client.rpush("q", "x")
            nobody = servers.dead_port()
            hosts = f"{servers.HOST}:{nobody},{servers.HOST}:{sentinel.port}"
            with opened(f"redis+sentinel://:secret@{hosts}/main/0") as provider:
                assert provider.get_queue_stats("q").backlog_count == 1
                # Demoted behind the sentinel's back: its answers are those of a replica without a master.
                client.execute_command("REPLICAOF", servers.HOST, nobody)
                assert failure(lambda: provider.get_queue_stats("q")).error_type == "failover"
                client.execute_command("REPLICAOF", "NO", "ONE")
                assert provider.get_queue_stats("q").backlog_count == 1
            with opened(f"redis+sentinel://:secret@{servers.HOST}:{sentinel.port}/other") as provider:
                assert failure(lambda: provider.get_queue_stats("q")).error_type == "failover"
    with opened(f"redis+sentinel://:secret@{servers.HOST}:{nobody}/main", timeout=2) as provider:
        assert failure(lambda: provider.get_queue_stats("q")).error_type == "connect"


def test_least_privilege(opened: Opened) -> None:
    with redis_fixtures.start() as server, server.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">word", "~q:*", "+llen", "+ping")
        client.rpush("q:good", "x")
        queues = {"good": "q:good", "hidden": "other", "set": ZSetKey("q:set")}
        with opened(f"redis://reader:word@{servers.HOST}:{server.port}", queues) as provider:
            outcomes = provider.get_all_queue_stats()
        assert sample(outcomes, "good").backlog_count == 1
        for name in ("hidden", "set"):
            error = outcomes[name]
            assert isinstance(error, StatsUnavailableError)
            assert (error.error_type, error.queue_name) == ("acl", name)


def test_an_interrupt_ends_first_reads_that_made_a_client_each(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    second = threading.Event()

    def connect(target: RedisTarget) -> Any:
        client = make(target)
        made.append(client)
        if client is made[0]:
            second.wait(10)
        else:
            second.set()
            servers.wait_until(lambda: len(connections(server.port)) == 1, what="the first reader's connection")
        return client

    make = RedisTarget.connect
    monkeypatch.setattr(RedisTarget, "connect", connect)
    with servers.Server() as server, frozen(server), ThreadPoolExecutor(2) as pool:
        provider = RedisStatsProvider(server.url, ["q"], timeout=20)
        reads = [pool.submit(failure, provider.get_all_queue_stats) for _ in range(2)]
        servers.wait_until(lambda: len(connections(server.port)) == 2, what="both connections")
        provider.interrupt()
        assert [read.result(10).error_type for read in reads] == ["deadline"] * 2
        assert len(made) == 2
        provider.close()
        assert not connections(server.port), "none is left to the garbage collector"


def test_server_busy_with_a_script(opened: Opened) -> None:
    with redis_fixtures.start(busy_reply_threshold="50") as server, server.client() as client:

        def hog() -> None:
            with contextlib.suppress(redis.RedisError), server.client(socket_timeout=30.0) as own:
                own.eval("while true do end", 0)

        def busy() -> bool:
            with contextlib.suppress(redis.RedisError):
                client.llen("q")
                return False
            return True

        thread = threading.Thread(target=hog)
        thread.start()
        try:
            servers.wait_until(busy, what="the script to be noticed")
            with opened(server.url, timeout=5.0) as provider:
                error = provider.get_all_queue_stats()["q"]
        finally:
            client.script_kill()
            thread.join()
    assert isinstance(error, StatsUnavailableError)
    assert error.error_type == "busy"


def test_server_that_loads_its_data(opened: Opened) -> None:
    slow = {"key_load_delay": "2000", "loading_process_events_interval_bytes": "1024", "rdbcompression": "no"}
    with redis_fixtures.start(**slow) as server:
        with server.client() as client:
            client.mset({f"k{number}": "x" * 1024 for number in range(500)})
            client.save()
        server.kill()
        server.start()
        with opened(server.url, timeout=5.0) as provider:
            assert failure(provider.get_all_queue_stats).error_type == "loading"


def test_replica_without_its_master(opened: Opened) -> None:
    with redis_fixtures.start(replica_serve_stale_data="no") as server, server.client() as client:
        client.execute_command("REPLICAOF", servers.HOST, servers.dead_port())
        with opened(server.url) as provider:
            error = provider.get_all_queue_stats()["q"]
            assert isinstance(error, StatsUnavailableError)
            assert error.error_type == "masterdown"


def test_too_many_clients(opened: Opened) -> None:
    with redis_fixtures.start(maxclients="1") as server, server.client() as client:
        client.ping()
        with opened(server.url) as provider:
            for _ in range(5):  # the server's words come before, or after, ours
                assert failure(provider.get_all_queue_stats).error_type == "maxclients"


@pytest.mark.parametrize("kind", [redis.ConnectionPool, redis.asyncio.ConnectionPool], ids=["blocking", "asyncio"])
def test_what_a_pool_does_not_pass_on_is_heard(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools end a connection on which the server was faster than they; which of them is, differs."""

    def get(*_: Any) -> Any:
        raise redis.ConnectionError("Connection not ready")

    async def aget(*_: Any) -> Any:
        get()

    blocking = kind is redis.ConnectionPool
    monkeypatch.setattr(kind, "get_connection", get if blocking else aget)
    opened = opening(RedisStatsProvider if blocking else AsyncRedisStatsProvider)
    told = {b"-ERR max number of clients reached\r\n": "maxclients", b"-LOADING x\r\n": "loading", b"": "connect"}
    for words, label in told.items():

        def speak(connection: socket.socket, words: bytes = words) -> None:
            connection.sendall(words)
            connection.recv(1)

        with servers.Listener(speak) as listener, opened(f"redis://{servers.HOST}:{listener.port}") as provider:
            assert failure(provider.get_all_queue_stats).error_type == label


def test_a_failure_in_the_middle_keeps_what_was_read(
    opened: Opened, redis_url: str, redis_client: redis.Redis, round_trips: RoundTrips, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (module, async_module):
        monkeypatch.setattr(kind, "CHUNK", 2)
    round_trips.cut = 2
    with opened(redis_url, list("abcde")) as provider:
        outcomes = provider.get_all_queue_stats()
    assert round_trips == [2, 2]
    assert backlogs(outcomes) == {"a": 0, "b": 0, **dict.fromkeys("cde", "connect")}
    assert [outcomes[name].queue_name for name in "cde"] == list("cde")


@pytest.mark.parametrize(
    ("error", "label"),
    [
        (redis.AuthenticationError("x"), "auth"),
        (redis.ResponseError("NOAUTH HELLO must be called with the client already authenticated"), "auth"),
        (redis.exceptions.NoPermissionError("x"), "acl"),
        (redis.BusyLoadingError("x"), "loading"),
        (redis.ResponseError("BUSY Redis is busy running a script"), "busy"),
        (redis.ResponseError("WRONGTYPE Operation"), "wrongtype"),
        (redis.exceptions.MasterDownError("x"), "masterdown"),
        (redis.exceptions.ClusterDownError("x"), "cluster"),
        (redis.exceptions.MovedError("1 h:1"), "cluster"),
        (redis.exceptions.SlotNotCoveredError("x"), "cluster"),
        (redis.TimeoutError("x"), "timeout"),
        (TimeoutError("x"), "timeout"),
        (redis.ConnectionError("max number of clients reached"), "maxclients"),
        (redis.ConnectionError("x"), "connect"),
        (redis.ConnectionError("Error -2 connecting to h:1. Name or service not known."), "dns"),
        (redis.ConnectionError("Error 1 connecting to h:1. [SSL: CERTIFICATE_VERIFY_FAILED] no."), "protocol"),
        (redis.ConnectionError("Error 111 connecting to h:1. Connection refused."), "connect"),
        (ConnectionResetError("x"), "connect"),
        (socket.gaierror("x"), "dns"),
        (redis.InvalidResponse("x"), "protocol"),
        (redis.ResponseError("unknown command `HELLO`"), "protocol"),
        (redis.ResponseError("unsupported command 'hello'"), "protocol"),
        (redis.ResponseError("ERR what"), "provider"),
        (ValueError("I/O operation on closed file"), "provider"),
        (StatsUnavailableError("x", error_type="deadline"), "deadline"),
    ],
    ids=str,
)
def test_error_types(error: Exception, label: str) -> None:
    assert error_type(error) == label
