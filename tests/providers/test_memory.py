"""`InMemoryStatsProvider`: what it is told, it answers."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from backpressure._model.errors import InvalidQueueError, StatsUnavailableError
from backpressure._model.stats import QueueStats
from backpressure.providers import InMemoryStatsProvider
from providers.contract.arguments import IMPOSSIBLE_NAMES
from providers.contract.backend import Backend
from providers.contract.suite import Contract

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_SERVER = "there is no server"
NO_ARGUMENT = "it has no such argument"


class Memory(Backend):
    kind = InMemoryStatsProvider
    shares_server = False
    not_promised: ClassVar = {
        "Faults": NO_SERVER,
        "Secrets": "it holds none",
        "test_closed_is_closed": "there is nothing to close",
        "test_a_frozen_server_holds_no_producer": NO_SERVER,
        "test_a_server_that_restarts": NO_SERVER,
        "test_impossible_queues": "it takes samples, which the controller judges",
        "test_impossible_timeouts": NO_ARGUMENT,
        "test_milliseconds_are_not_taken_for_seconds": NO_ARGUMENT,
        "test_other_impossible_arguments": NO_ARGUMENT,
        "test_a_place_that_cannot_be_read_is_withheld": NO_ARGUMENT,
        "test_impossible_names": "names are checked when numbers are told; any other has none",
        "test_a_name_that_is_not_listed": "a queue without numbers is absent from answers",
    }

    def __init__(self) -> None:
        super().__init__(port=0)
        self.backlogs: dict[str, int] = {}
        self.bad: set[str] = set()
        self.made: list[InMemoryStatsProvider] = []

    def make(self, queues: Any, **_: Any) -> InMemoryStatsProvider:
        provider = InMemoryStatsProvider({name: self.backlogs.get(name, 0) for name in queues})
        for name in self.bad:
            provider.fail_with(StatsUnavailableError(f"no {name!r}", error_type="wrongtype", queue_name=name), name)
        self.made.append(provider)
        return provider

    def fill(self, backlogs: Mapping[str, int]) -> None:
        self.backlogs.update(backlogs)
        for provider in self.made:
            provider.update(backlogs)

    def spoil(self, name: str) -> str:
        self.bad.add(name)
        return "wrongtype"


@pytest.fixture
def backend() -> Memory:
    return Memory()


class TestContract(Contract, of=Memory):
    pass


def test_answers_what_was_set_last() -> None:
    provider = InMemoryStatsProvider({"a": 3})
    provider.set("a", 5, processing_count=2, delayed_count=1, oldest_age=0.5)
    provider.update({"b": 7})

    sample = provider.get_queue_stats("a")
    assert (sample.backlog_count, sample.processing_count, sample.delayed_count, sample.oldest_age) == (5, 2, 1, 0.5)
    assert list(provider.get_all_queue_stats()) == ["a", "b"]
    assert provider.get_queue_stats("b").backlog_count == 7
    assert list(provider.get_many(["b", "unknown"])) == ["b"]


def test_a_number_is_true_whenever_it_is_read() -> None:
    provider = InMemoryStatsProvider({"a": 3})
    before = datetime.now(UTC)
    assert provider.get_queue_stats("a").last_updated >= before


def test_an_explicit_date_stays() -> None:
    old = datetime.now(UTC) - timedelta(hours=1)
    provider = InMemoryStatsProvider({"given": QueueStats("other-name", 3, last_updated=old)})
    provider.set("set", 4, last_updated=old)

    assert [provider.get_queue_stats(name).last_updated for name in ("given", "set")] == [old, old]
    assert provider.get_queue_stats("given").queue_name == "given"
    provider.set("set", 4)
    assert provider.get_queue_stats("set").last_updated > old


def test_a_removed_queue_is_absent() -> None:
    provider = InMemoryStatsProvider({"a": 3})
    provider.remove("a")
    provider.remove("never-there")
    assert provider.get_all_queue_stats() == {}
    with pytest.raises(StatsUnavailableError, match="'a' has no numbers") as caught:
        provider.get_queue_stats("a")
    assert caught.value.queue_name == "a"


def test_fails_with_what_it_is_told_until_told_otherwise() -> None:
    provider = InMemoryStatsProvider({"a": 3})
    error = ZeroDivisionError("boom")
    provider.fail_with(error)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            provider.get_all_queue_stats()
        with pytest.raises(ZeroDivisionError):
            provider.get_many(["a"])
        with pytest.raises(ZeroDivisionError):
            provider.get_queue_stats("a")
    depth = 0
    frame = error.__traceback__
    while frame is not None:
        depth, frame = depth + 1, frame.tb_next
    assert depth < 5, "the error gathers the traceback of every read"
    provider.fail_with(None)
    assert provider.get_queue_stats("a").backlog_count == 3


def test_one_failing_queue_spoils_no_other() -> None:
    provider = InMemoryStatsProvider({"a": 3, "b": 4})
    error = StatsUnavailableError("no", error_type="wrongtype", queue_name="a")
    provider.fail_with(error, "a")

    answer = provider.get_all_queue_stats()
    assert answer["a"] is error
    assert isinstance(answer["b"], QueueStats)
    with pytest.raises(StatsUnavailableError):
        provider.get_queue_stats("a")
    with pytest.raises(TypeError, match="give a StatsUnavailableError"):
        provider.fail_with(ValueError("x"), "a")
    provider.fail_with(None, "a")
    assert provider.get_queue_stats("a").backlog_count == 3


@pytest.mark.parametrize("name", IMPOSSIBLE_NAMES, ids=lambda name: ascii(name)[:9])
def test_refuses_impossible_names(name: Any) -> None:
    with pytest.raises(InvalidQueueError):
        InMemoryStatsProvider({name: 1})


def test_readers_and_writers_do_not_disturb_each_other() -> None:
    provider = InMemoryStatsProvider({"a": 0})
    errors: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                provider.get_all_queue_stats()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for count in range(5_000):
        provider.set(f"q{count % 50}", count)
        provider.remove(f"q{(count + 25) % 50}")
    done.set()
    for reader in readers:
        reader.join()
    assert errors == []
