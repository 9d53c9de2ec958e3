"""What every provider promises from its first read to its last: threads, forks, interrupts, and what is left behind."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from providers.checks import backlogs, failure
from providers.contract.reading import belongings, connections, in_a_child, ways_to_read
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from providers.contract.backend import Backend
    from providers.contract.reading import Face


class Life:
    def test_closed_is_closed(self, backend: Backend) -> None:
        backend.fill({"q": 1})
        before = connections(backend.port)
        with backend.opened() as provider:
            assert backlogs(provider.get_all_queue_stats()) == {"q": 1}
            kept = connections(backend.port) - before
            assert 1 <= len(kept) <= backend.kept
            for _ in range(2):
                provider.close()
            eventually(lambda: not connections(backend.port) & kept)
            for read in ways_to_read(provider):
                error = failure(read)
                assert str(error) == "this provider is closed: make a new one"
                assert (error.error_type, error.queue_name) == ("provider", None)
            provider.interrupt()
        assert not connections(backend.port) - before

    def test_an_interrupt_of_nothing_ends_nothing(self, backend: Backend) -> None:
        backend.fill({"q": 1})
        with backend.opened() as provider:
            for _ in range(2):
                provider.interrupt()
                assert backlogs(provider.get_all_queue_stats()) == {"q": 1}
                assert provider.get_queue_stats("q").backlog_count == 1

    def test_threads_read_at_once(self, backend: Backend) -> None:
        crowd = {f"q{number}": number for number in range(10)}
        backend.fill({**crowd, "bad": 1})
        expected = {**crowd, "bad": backend.spoil("bad")}
        before = connections(backend.port)

        def read(turn: int) -> tuple[object, ...]:
            name = f"q{turn % 10}"
            some = {name: crowd[name], "bad": expected["bad"], "q3": 3}
            return (
                provider.get_queue_stats(name).backlog_count == crowd[name],
                backlogs(provider.get_all_queue_stats()) == expected,
                backlogs(provider.get_many(list(some))) == some,
            )

        with backend.opened(*expected, timeout=20) as provider:
            with ThreadPoolExecutor(8) as pool:
                assert set(pool.map(read, range(48))) == {(True, True, True)}
            assert len(connections(backend.port) - before) <= backend.kept
        assert not connections(backend.port) - before

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_opens_connections_of_its_own(self, backend: Backend) -> None:
        backend.fill({"q": 2})
        before = connections(backend.port)
        with backend.opened(timeout=5.0) as provider:
            assert provider.get_queue_stats("q").backlog_count == 2
            parents = connections(backend.port) - before

            def reads_by_itself() -> bool:
                inherited = connections(backend.port)
                provider.interrupt()
                read = [provider.get_queue_stats("q").backlog_count, backlogs(provider.get_all_queue_stats())]
                own = connections(backend.port) - inherited
                provider.close()
                gc.collect()
                return read == [2, {"q": 2}] and bool(own) is bool(parents) and not connections(backend.port) & own

            for _ in range(2):
                assert in_a_child(reads_by_itself) == 0
                assert backlogs(provider.get_all_queue_stats()) == {"q": 2}
                assert connections(backend.port) - before == parents, "the child closed its parent's connection"

    def test_reads_leave_nothing_behind(self, backend: Backend) -> None:
        backend.fill({"q": 1})
        leaves_nothing(backend.opened(), lambda provider: backlogs(provider.get_all_queue_stats()) == {"q": 1})


def leaves_nothing(opened: contextlib.AbstractContextManager[Face], reads: Callable[[Face], bool]) -> None:
    """Read a dozen times: that leaves no more open than one read, and nothing once the provider is closed."""
    before = belongings()
    with opened as provider:
        assert reads(provider)
        kept = belongings()
        assert all(reads(provider) for _ in range(12))
        eventually(lambda: belongings() <= kept)
    gc.collect()
    eventually(lambda: belongings() <= before)
