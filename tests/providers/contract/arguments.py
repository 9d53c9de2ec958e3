"""What every provider makes of its arguments, and of names."""

from __future__ import annotations

import inspect
import math
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from backpressure._model.errors import ConfigurationError, InvalidQueueError
from backpressure._model.stats import AsyncStatsProvider, QueueStats, StatsProvider
from providers.checks import backlogs, failure
from providers.contract.backend import CANARY
from providers.contract.reading import connections, reading
from support import servers

if TYPE_CHECKING:
    from providers.contract.backend import Backend, Wrong

ODD_NAMES = [
    *('"', "\\", "a,b", "{}", "NULL", "null", " ", "a'b", "%(queues)s", "$1", "{queue}", "größer/ä b"),
    "\N{SNOWMAN}" * 85,
]
IMPOSSIBLE_NAMES = ["", "a\n", "a\0b", "__other__", "x" * 256, "\ud800", 5, None, b"q", ("q",)]


READS = ("get_queue_stats", "get_all_queue_stats", "get_many")


class Arguments:
    def test_it_is_a_provider(self, backend: Backend) -> None:
        provider = backend.make({})
        is_async = hasattr(provider, "aclose")
        assert isinstance(provider, AsyncStatsProvider if is_async else StatsProvider)
        assert all(inspect.iscoroutinefunction(getattr(provider, name)) is is_async for name in READS)
        assert getattr(provider, "shares_server", False) is backend.shares_server
        assert repr(provider).startswith(f"{backend.kind.__name__}(")
        reading(provider).close()

    def test_making_one_connects_to_nothing(self, backend: Backend) -> None:
        accepted: list[object] = []
        with servers.Listener(accepted.append) as listener:
            with backend.opened(port=listener.port) as provider:
                assert f"{backend.kind.__name__}(" in repr(backend.make({}, port=listener.port))
                provider.interrupt()
            assert (accepted, connections(listener.port)) == ([], set())

    def test_no_queues_ask_nobody(self, backend: Backend) -> None:
        with backend.closing(lambda: backend.make([], port=servers.dead_port())) as provider:
            assert provider.get_all_queue_stats() == {}
            assert provider.get_many([]) == {}

    @pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name)[:20])
    def test_any_name_is_data(self, backend: Backend, name: str) -> None:
        backend.fill({name: 2, "other": 0})
        with backend.opened(name, "other") as provider:
            assert backlogs(provider.get_all_queue_stats()) == {name: 2, "other": 0}
            assert backlogs(provider.get_many([name])) == {name: 2}
            stats = provider.get_queue_stats(name)
            assert (stats.queue_name, stats.backlog_count) == (name, 2)

    @pytest.mark.parametrize("name", IMPOSSIBLE_NAMES, ids=lambda name: ascii(name)[:9])
    def test_impossible_names(self, backend: Backend, name: Any) -> None:
        with pytest.raises(InvalidQueueError):
            backend.make({name: backend.place("q")})
        with backend.opened() as provider:
            with pytest.raises(InvalidQueueError):
                provider.get_queue_stats(name)
            with pytest.raises(InvalidQueueError):
                provider.get_many(["q", name])

    def test_a_name_that_is_not_listed(self, backend: Backend) -> None:
        backend.fill({"listed": 1, "other": 2})
        with backend.opened("listed") as provider:
            if backend.reads_unlisted:
                assert backlogs(provider.get_many(["other", "listed"])) == {"other": 2, "listed": 1}
                assert provider.get_queue_stats("other").queue_name == "other"
                return
            outcomes = provider.get_many(["other", "listed"])
            assert backlogs(outcomes) == {"other": "missing", "listed": 1}
            assert outcomes["other"].queue_name == "other"
            error = failure(lambda: provider.get_queue_stats("other"))
            assert (error.error_type, error.queue_name) == ("missing", "other")
            assert "queue 'other' is not among the queues of this provider" in str(error)
            assert "add it to queues=" in str(error)
            assert backlogs(provider.get_all_queue_stats()) == {"listed": 1}

    @pytest.mark.parametrize(
        ("queues", "field"), [("mail", "queues"), (b"mail", "queues"), (5, "queues"), ({"q": 5}, "queues.q")]
    )
    def test_impossible_queues(self, backend: Backend, queues: Any, field: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            backend.make(queues)
        assert caught.value.field == field
        assert "give " in str(caught.value)

    @pytest.mark.parametrize("timeout", [0, -1, True, "1", None, math.nan, math.inf])
    def test_impossible_timeouts(self, backend: Backend, timeout: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"timeout is .*: give seconds above 0") as caught:
            backend.make({}, timeout=timeout)
        assert caught.value.field == "timeout"

    @pytest.mark.parametrize("timeout", [61, 500, 5_000.0])
    def test_milliseconds_are_not_taken_for_seconds(self, backend: Backend, timeout: float) -> None:
        question = (
            f"timeout is {timeout}: milliseconds? durations are seconds: write {timeout / 1_000:g}, or at most 60"
        )
        with pytest.raises(ConfigurationError) as caught:
            backend.make({}, timeout=timeout)
        assert (caught.value.field, str(caught.value)) == ("timeout", question)

    def test_other_impossible_arguments(self, wrong: Wrong) -> None:
        with pytest.raises(ConfigurationError) as caught:
            wrong.make()
        assert caught.value.field == wrong.field
        assert wrong.words in str(caught.value)
        assert CANARY not in f"{caught.value} {vars(caught.value)}"

    def test_a_place_that_cannot_be_read_is_withheld(self, backend: Backend, malformed: Any) -> None:
        with pytest.raises(ConfigurationError) as caught:
            backend.make({}, given=malformed)
        error = caught.value
        assert (error.field, error.value, error.__cause__, error.__context__) == (backend.where, None, None, None)
        assert CANARY not in "".join(traceback.format_exception(error, limit=0)) + repr(vars(error))


class Samples:
    def test_a_sample_tells_what_was_read(self, backend: Backend) -> None:
        backend.fill({"q": 3, "empty": 0})
        with backend.opened("q", "empty") as provider:
            outcomes = provider.get_all_queue_stats()
            assert list(outcomes) == ["q", "empty"]
            assert backlogs(outcomes) == {"q": 3, "empty": 0}
            for name, stats in outcomes.items():
                assert isinstance(stats, QueueStats)
                assert (stats.queue_name, stats.fault()) == (name, None)
                assert 0 <= (datetime.now(UTC) - stats.last_updated).total_seconds() < 5
            assert backlogs(provider.get_many(["empty"])) == {"empty": 0}
            backend.fill({"q": 1})
            assert provider.get_queue_stats("q").backlog_count == 1

    def test_many_queues_are_read_at_once(self, backend: Backend) -> None:
        crowd = {f"q{number}": number % 4 for number in range(130)}
        backend.fill(crowd)
        with backend.opened(*crowd, timeout=20) as provider:
            outcomes = provider.get_all_queue_stats()
            assert list(outcomes) == list(crowd)
            assert backlogs(outcomes) == crowd
            some = list(crowd)[::-3]
            outcomes = provider.get_many(iter(some))
            assert list(outcomes) == some
            assert backlogs(outcomes) == {name: crowd[name] for name in some}

    def test_one_bad_queue_spoils_no_other(self, backend: Backend) -> None:
        backend.fill({"a": 1, "bad": 1, "z": 2})
        label = backend.spoil("bad")
        with backend.opened("a", "bad", "z") as provider:
            for _ in range(2):
                outcomes = provider.get_all_queue_stats()
                assert backlogs(outcomes) == {"a": 1, "bad": label, "z": 2}
                error = outcomes["bad"]
                assert (error.queue_name, error.__cause__, error.__context__) == ("bad", None, None)
                assert "'bad'" in str(error)
            assert backlogs(provider.get_many(["bad", "z"])) == {"bad": label, "z": 2}
            error = failure(lambda: provider.get_queue_stats("bad"))
            assert (error.error_type, error.queue_name) == (label, "bad")
