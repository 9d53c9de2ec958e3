"""What a group has still to read, against the truth: the entries after the last one that it was given, one by one.

Servers keep counters beside the entries, and these go wrong when entries leave in another way than by the group.
`BACKPRESSURE_STREAM_STEPS` makes the random plays longer.
"""

from __future__ import annotations

import contextlib
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
import redis

from backpressure import RedisStatsProvider
from backpressure.providers.layouts import StreamKey
from support import redis_fixtures, servers

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = int(os.environ.get("BACKPRESSURE_STREAM_STEPS", "150"))
FEW = 3  # of what a rough read counts
SERVERS = {"valkey": servers.valkey_binary, "redis": servers.redis_binary}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    """Valkey, whose lag is right or missing, and Redis, whose 7.0 also tells a wrong one."""
    binary = os.environ.get("BACKPRESSURE_TEST_SERVER") or SERVERS[request.param]()
    if binary is None:
        redis_fixtures.no_server(f"no {request.param}-server")
    with servers.Server(binary=binary) as started:
        yield started


class Group:
    """A stream and its group `g`, with what a program may do to them."""

    def __init__(self, client: redis.Redis) -> None:
        self.client: Any = client
        self.last = 0
        client.flushall()

    def add(self, count: int = 1, **options: Any) -> None:
        """Add entries with ids that grow by one or more."""
        with self.client.pipeline(transaction=False) as pipeline:
            for _ in range(count):
                self.last += 1
                pipeline.xadd("s", {"n": self.last}, id=f"{self.last}-0", **options)
            pipeline.execute()

    def create(self, last_delivered: str = "0") -> None:
        self.client.xgroup_create("s", "g", id=last_delivered, mkstream=True)

    def read(self, count: int) -> list[bytes]:
        reply = self.client.xreadgroup("g", "worker", {"s": ">"}, count=count)
        return [entry for _, entries in reply for entry, _ in entries]

    def acknowledge(self, *entries: bytes) -> None:
        if entries:
            self.client.xack("s", "g", *entries)

    def delete(self, *entries: bytes | str) -> None:
        if entries:
            self.client.xdel("s", *entries)

    @property
    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.xinfo_groups("s")[0]
        return found

    @property
    def waiting(self) -> int:
        """The truth."""
        last = _id(self.info["last-delivered-id"])
        return sum(1 for entry, _ in self.client.xrange("s") if _id(entry) > last)


def _id(text: bytes) -> tuple[int, ...]:
    return tuple(map(int, text.split(b"-")))


@pytest.fixture
def group(server: servers.Server) -> Iterator[Group]:
    with server.client(protocol=2) as client:
        yield Group(client)


@contextlib.contextmanager
def reading(server: servers.Server, **options: Any) -> Iterator[Any]:
    layout = StreamKey("s", group="g", **options)
    with contextlib.closing(RedisStatsProvider(server.url, {"s": layout}, timeout=10)) as provider:
        yield lambda: provider.get_queue_stats("s").backlog_count


def caught_up_after_a_trim(group: Group) -> None:
    group.add(5)
    group.create()
    group.read(1)
    group.client.xtrim("s", maxlen=1, approximate=False)
    group.read(1)


def caught_up_after_a_deletion(group: Group) -> None:
    group.add(4)
    group.create()
    group.read(2)
    group.delete("3-0")
    group.read(2)


def overrun(group: Group) -> None:
    """A stream that its producers cap; the consumers fell behind once."""
    group.add()
    group.create()
    group.read(1)
    group.add(3000, maxlen=1000, approximate=False)


def overrun_and_caught_up(group: Group) -> None:
    overrun(group)
    while group.read(500):
        pass


def overrun_and_nearly_caught_up(group: Group) -> None:
    overrun(group)
    group.read(990)


def overrun_and_halfway(group: Group) -> None:
    overrun(group)
    group.read(400)


def overrun_by_little(group: Group) -> None:
    """The lag is too large, but no larger than the stream."""
    group.add()
    group.create()
    group.read(1)
    group.add(1100, maxlen=1000, approximate=False)
    group.read(500)


def trimmed_by_id(group: Group) -> None:
    group.add(300)
    group.create()
    group.read(10)
    group.client.xtrim("s", minid="200-0", approximate=False)
    group.read(5)


def created_in_the_middle(group: Group) -> None:
    group.add(300)
    group.create("120-5")


def created_with_a_wrong_count(group: Group) -> None:
    group.add(60)
    group.create("20-0")
    group.client.execute_command("XGROUP SETID", "s", "g", "20-0", *_read_so_far(group, 60))


def created_with_too_small_a_count(group: Group) -> None:
    group.add(60)
    group.create()
    group.client.execute_command("XGROUP SETID", "s", "g", "50-0", *_read_so_far(group, 3))


def _read_so_far(group: Group, count: int) -> tuple[object, ...]:
    return ("ENTRIESREAD", count) if "entries-read" in group.info else ()


def moved_id(group: Group) -> None:
    group.add(200)
    group.create()
    group.read(20)
    group.client.execute_command("XSETID", "s", "9000-0", *_added_so_far(group, 7000))
    group.last = 9000
    group.add(5)


def _added_so_far(group: Group, count: int) -> tuple[object, ...]:
    return ("ENTRIESADDED", count, "MAXDELETEDID", "0-0") if "entries-read" in group.info else ()


def set_back(group: Group) -> None:
    group.add(200)
    group.create()
    group.read(150)
    group.client.xgroup_setid("s", "g", "30-0")
    group.read(1)


def created_at_the_last_id_there_is(group: Group) -> None:
    group.add(3)
    group.create(f"{2**64 - 1}-{2**64 - 1}")


def created_at_the_last_of_a_millisecond(group: Group) -> None:
    group.add(3)
    group.create(f"2-{2**64 - 1}")


def acknowledged_and_deleted(group: Group) -> None:
    group.add(250)
    group.create()
    taken = group.read(60)
    group.acknowledge(*taken[:40])
    group.delete(*taken[:40])
    group.delete("61-0", "200-0")


def emptied(group: Group) -> None:
    group.add(50)
    group.create()
    group.read(10)
    group.client.xtrim("s", maxlen=0, approximate=False)


PLAYS = [
    caught_up_after_a_trim,
    caught_up_after_a_deletion,
    overrun,
    overrun_and_caught_up,
    overrun_and_nearly_caught_up,
    overrun_and_halfway,
    overrun_by_little,
    trimmed_by_id,
    created_in_the_middle,
    created_with_a_wrong_count,
    created_with_too_small_a_count,
    moved_id,
    set_back,
    created_at_the_last_id_there_is,
    created_at_the_last_of_a_millisecond,
    acknowledged_and_deleted,
    emptied,
]


@pytest.mark.parametrize("acked_entries_are_deleted", [False, True], ids=["kept", "deleted"])
@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.__name__)
def test_a_count_that_cannot_match_is_not_believed(
    server: servers.Server, group: Group, play: Any, *, acked_entries_are_deleted: bool
) -> None:
    play(group)
    with reading(server, acked_entries_are_deleted=acked_entries_are_deleted) as backlog:
        assert backlog() == group.waiting


def test_more_than_is_counted_from_either_end_is_within_what_is_there(server: servers.Server, group: Group) -> None:
    overrun(group)
    group.read(400)
    assert group.waiting == 600
    for limit in (1, 99, 101, 399):
        with reading(server, count_limit=limit) as backlog:
            assert limit < backlog() < 1000 - limit
    for limit in (400, 599, 600):
        with reading(server, count_limit=limit) as backlog:
            assert backlog() == 600


def test_a_lag_that_must_be_right_is_taken_without_a_count(server: servers.Server, group: Group) -> None:
    group.add(3000)
    group.create()
    group.read(700)
    if "lag" not in group.info:
        pytest.skip("servers before 7.0 tell no lag")
    group.client.config_resetstat()
    with reading(server, count_limit=200) as backlog:
        assert backlog() == 2300
    assert group.client.info("commandstats")["cmdstat_xrange"]["calls"] == 1


class Play:
    """Random steps of producers, consumers and people with a shell."""

    def __init__(self, group: Group, chance: random.Random, *, deletes: bool) -> None:
        self.group, self.chance, self.deletes = group, chance, deletes
        self.taken: list[bytes] = []
        self.group.add(chance.randrange(40))
        self.group.create(chance.choice(["0", "0", "$", str(chance.randrange(1, 60))]))

    def step(self) -> str:
        does = self.chance.choices(
            [self.add, self.read, self.acknowledge, self.trim, self.delete, self.skip, self.set_back, self.lie],
            [30, 30, 20, 6, 6, 3, 2, 2],
        )[0]
        does()
        return does.__name__

    def add(self) -> None:
        cap = self.chance.choice([None, None, None, 5, 30, 100])
        limit = {} if cap is None else {"maxlen": cap, "approximate": self.chance.random() < 0.3}
        self.group.add(self.chance.choice([1, 2, 5, 40]), **limit)

    def read(self) -> None:
        self.taken += self.group.read(self.chance.choice([1, 3, 10, 60]))

    def acknowledge(self) -> None:
        done = [self.taken.pop(self.chance.randrange(len(self.taken))) for _ in range(len(self.taken) // 2)]
        if done and self.deletes and self.chance.random() < 0.3:
            with contextlib.suppress(redis.ResponseError):  # Redis 8.2 has it in one command
                self.group.client.execute_command("XACKDEL", "s", "g", "IDS", len(done), *done)
                return
        self.group.acknowledge(*done)
        if self.deletes or self.chance.random() < 0.2:
            self.group.delete(*done)

    def trim(self) -> None:
        if self.chance.random() < 0.5:
            self.group.client.xtrim("s", maxlen=self.chance.randrange(40), approximate=False)
        else:
            with contextlib.suppress(redis.ResponseError):  # before 6.2
                self.group.client.xtrim("s", minid=f"{self.chance.randrange(self.group.last + 2)}-0", approximate=False)

    def delete(self) -> None:
        entries = [entry for entry, _ in self.group.client.xrange("s")]
        self.group.delete(*self.chance.sample(entries, min(len(entries), self.chance.choice([1, 1, 4]))))

    def skip(self) -> None:
        self.group.last += self.chance.randrange(1000)
        with contextlib.suppress(redis.ResponseError):  # refused while the stream is empty, by some
            added = _added_so_far(self.group, self.group.client.xlen("s") + self.chance.randrange(500))
            self.group.client.execute_command("XSETID", "s", f"{self.group.last}-0", *added)

    def set_back(self) -> None:
        self.group.client.xgroup_setid("s", "g", self.chance.choice([0, "$", self.chance.randrange(1, 99)]))

    def lie(self) -> None:
        where = self.chance.randrange(self.group.last + 5)
        with contextlib.suppress(redis.ResponseError):  # more than were added is refused, by some
            said = _read_so_far(self.group, self.chance.randrange(self.group.last + 5))
            self.group.client.execute_command("XGROUP SETID", "s", "g", f"{where}-0", *said)


@pytest.mark.parametrize("deletes", [False, True], ids=["kept", "deleted"])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_to_a_stream_its_backlog_is_the_truth(
    server: servers.Server, group: Group, seed: int, *, deletes: bool
) -> None:
    chance = random.Random(seed)
    with (
        reading(server, acked_entries_are_deleted=deletes) as backlog,
        reading(server, acked_entries_are_deleted=deletes, count_limit=FEW) as rough,
    ):
        for _ in range(max(1, STEPS // 50)):
            group.client.flushall()
            group.last = 0
            play = Play(group, chance, deletes=deletes)
            done: list[str] = []
            for _ in range(50):
                done.append(play.step())
                waiting, length = group.waiting, group.client.xlen("s")
                assert backlog() == waiting, (group.info, done)
                told = rough()
                if waiting <= FEW:
                    assert told == waiting, (group.info, done)
                else:
                    assert FEW < told <= length, (group.info, done)
                    # Only a person who tells the server a wrong count can make it wrong while nothing was removed.
                    if length - waiting <= FEW and not {"lie", "skip"} & {*done}:
                        assert told == waiting, (group.info, done)
