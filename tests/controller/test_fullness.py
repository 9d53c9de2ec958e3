"""Short memory is told once for each change, for all queues of a server together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from backpressure import BackpressureConfig, BackpressureController, InMemoryStatsProvider, QueueStats
from backpressure._controller.polling.fullness import Fullness
from backpressure._model.clock import SystemClock
from backpressure._runtime.foreign import Foreign
from backpressure._telemetry.events import Announcer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

    from backpressure import StateChange


class Watched:
    """A `Fullness` and what it announced."""

    def __init__(self, bounds: tuple[int, int] | None = (850, 900)) -> None:
        self.bounds = bounds
        self.changes: list[StateChange] = []
        announcer = Announcer(Foreign(), SystemClock())
        announcer.add_listener(self.changes.append)
        self.fullness = Fullness(announcer, lambda _: self.bounds)

    def after(self, used: Mapping[str, int]) -> list[tuple[str, str, str | None]]:
        self.changes.clear()
        self.fullness.note(used)
        return [(change.old, change.new, change.queue_name) for change in self.changes]


def test_each_change_is_told_once() -> None:
    it = Watched()
    assert it.after({"mail": 849}) == []
    assert it.after({"mail": 850}) == [("enough", "short", "mail")]
    assert it.after({"mail": 899}) == []
    assert it.after({"mail": 900}) == [("short", "full", "mail")]
    assert it.after({"mail": 300}) == [("full", "enough", "mail")]
    assert it.after({"mail": 950}) == [("enough", "full", "mail")]


def test_what_settles_at_a_bound_is_not_told_each_time() -> None:
    it = Watched()
    it.after({"mail": 855})
    assert [it.after({"mail": used}) for used in (845, 852, 831, 850)] == [[], [], [], []]
    assert it.after({"mail": 829}) == [("short", "enough", "mail")]
    it.after({"mail": 905})
    assert [it.after({"mail": used}) for used in (895, 901, 880)] == [[], [], []]
    assert it.after({"mail": 879}) == [("full", "short", "mail")]


def test_queues_of_a_server_are_told_together(caplog: pytest.LogCaptureFixture) -> None:
    it = Watched()
    with caplog.at_level(logging.INFO, "backpressure"):
        assert it.after({"mail": 870, "web": 870, "other server": 100}) == [("enough", "short", None)]
    (line,) = caplog.messages
    assert line == (
        "memory of the server of queue 'mail' and 1 more: 87 % of its limit is used, jobs are refused, LOW first"
    )


def test_other_bounds_hold_at_once_for_the_same_number() -> None:
    it = Watched()
    it.after({"mail": 870})
    it.bounds = None
    assert it.after({"mail": 870}) == []
    it.fullness.look_anew()
    assert it.after({"mail": 870}) == [("short", "enough", "mail")]


def test_a_queue_that_is_forgotten_begins_anew() -> None:
    it = Watched()
    it.after({"mail": 950, "web": 950})
    it.fullness.forget("mail")
    assert it.after({"mail": 950, "web": 950}) == [("enough", "full", "mail")]
    it.fullness.forget_all()
    assert it.after({"mail": 950, "web": 950}) == [("enough", "full", None)]


def test_a_controller_tells_it(engine_name: str) -> None:
    provider = InMemoryStatsProvider({"mail": QueueStats("mail", 5, memory_used=0.95)})
    controller = BackpressureController(None, provider, _engine=engine_name)
    changes: list[StateChange] = []
    controller.add_listener(changes.append)
    with controller:
        assert [(it.kind, it.new, it.queue_name) for it in changes] == [("memory", "full", "mail")]
        controller.reconfigure(BackpressureConfig().evolve({"age.memory": None}))
        controller.refresh("mail")
        assert [(it.kind, it.new) for it in changes[1:]] == [("configuration", "new"), ("memory", "enough")]
