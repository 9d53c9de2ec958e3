"""The poller and the reader: back-off, bad samples, deadlines, and coming back from the dead."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    InMemoryStatsProvider,
    PollingConfig,
    QueueStats,
    Reason,
    StatsUnavailableError,
)
from backpressure._controller.polling import deadline
from backpressure._controller.polling.deadline import Reader
from backpressure._model.clock import SystemClock
from backpressure.testing import ManualClock
from support.controller_fixtures import at_rest, being_read, eventually, overrun

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from backpressure import BackpressureController, StateChange
    from support.controller_fixtures import MakeController

OUTAGE = StatsUnavailableError("no server", error_type="connect")
Answer = dict[str, QueueStats | StatsUnavailableError]


def backlog(controller: BackpressureController, queue_name: str) -> int | None:
    sample = controller._engine.sample(queue_name)
    return None if sample is None else sample[0]


class TestTiming:
    @pytest.mark.parametrize(
        ("failures", "low", "high"), [(0, 4, 6), (1, 5, 10), (2, 10, 20), (3, 20, 40), (4, 30, 60), (5_000, 30, 60)]
    )
    def test_pauses(self, controller: BackpressureController, failures: int, low: float, high: float) -> None:
        samples = controller._poller.samples
        samples._failures = failures
        samples._uniform = lambda least, most: least
        assert samples.pause(PollingConfig()) == low
        samples._uniform = lambda least, most: most
        assert samples.pause(PollingConfig()) == high

    def test_the_thread_polls_every_interval(
        self, make_controller: MakeController, provider: InMemoryStatsProvider, clock: ManualClock
    ) -> None:
        controller = make_controller(None, BackpressureConfig(polling=PollingConfig(jitter=0)))
        for count in range(1, 4):
            provider.set("empty", count)
            clock.advance(4.999)
            assert backlog(controller, "empty") == count - 1
            clock.advance(0.001)
            assert backlog(controller, "empty") == count

    def test_a_poll_that_succeeds_ends_the_back_off(
        self, controller: BackpressureController, provider: InMemoryStatsProvider
    ) -> None:
        poller = controller._poller
        provider.fail_with(OUTAGE)
        assert [poller.poll(), poller.poll()] == [False, False]
        assert poller.samples._failures == 2
        provider.fail_with(None)
        assert poller.poll()
        assert poller.samples._failures == 0


class TestSamples:
    @pytest.mark.parametrize("count", [-1, 1.5, "3", None, True, 2**53, float("nan")])
    def test_impossible_counts_keep_the_previous_sample(self, make_controller: MakeController, count: Any) -> None:
        provider = InMemoryStatsProvider({"good": 1, "bad": 2})
        controller = make_controller(provider)
        provider.update({"good": 3, "bad": QueueStats("bad", count)})
        assert controller._poller.poll()
        assert (backlog(controller, "good"), backlog(controller, "bad")) == (3, 2)
        assert controller.health()["polling_errors"] == {"invalid_sample": 1}

    def test_one_bad_queue_spoils_no_other(self, make_controller: MakeController) -> None:
        provider = InMemoryStatsProvider({"good": 1, "bad": 2})
        controller = make_controller(provider)
        provider.fail_with(StatsUnavailableError("a string", error_type="wrongtype"), "bad")
        provider.set("good", 5)
        assert controller._poller.poll()
        assert (backlog(controller, "good"), backlog(controller, "bad")) == (5, 2)
        assert controller.health()["polling_errors"] == {"wrongtype": 1}
        assert controller.health()["provider"] == "ok"

    def test_whatever_a_provider_answers_is_survived(self, make_controller: MakeController) -> None:
        answers: list[Any] = [None, 3, {"empty": 3}, {3: QueueStats("3", 3)}, {"a\n": QueueStats("a", 1)}, []]

        class Odd(InMemoryStatsProvider):
            def get_all_queue_stats(self) -> Any:
                return answers.pop()

        controller = make_controller(Odd())
        while answers:
            controller._poller.poll()
        assert controller._engine.queue_names() == []
        assert controller.suggest_throttle("low", "new").reason is Reason.FALLBACK_CONSERVATIVE

    @pytest.mark.parametrize("error", [ValueError("x"), OSError(), StatsUnavailableError("x"), SystemExit(), KeyError])
    def test_whatever_a_provider_raises_is_survived(
        self, controller: BackpressureController, provider: InMemoryStatsProvider, error: Any
    ) -> None:
        provider.fail_with(error() if isinstance(error, type) else error)
        poller = controller._poller
        before = controller.health()["polling_errors"]
        assert poller._current is not None
        poller._current.poll_now()
        eventually(lambda: controller.health()["polling_errors"] != before)
        assert controller.health()["polling_errors"] == {"provider": 1}
        assert poller.alive()
        assert controller.suggest_throttle("low", "empty").reason is Reason.BACKLOG_GREEN

    def test_absent_queues_are_read_together_where_the_provider_can(self, make_controller: MakeController) -> None:
        asked: list[list[str]] = []

        class Provider(InMemoryStatsProvider):
            def get_all_queue_stats(self) -> Answer:
                return {"listed": QueueStats("listed", 1)}

            def get_many(self, queue_names: Iterable[str]) -> Mapping[str, QueueStats | StatsUnavailableError]:
                asked.append(list(queue_names))
                return {name: QueueStats(name, 2) for name in asked[-1]}

        controller = make_controller(Provider())
        for name in ("a", "b", "listed"):
            controller.suggest_throttle("low", name)
        asked.clear()
        controller._poller.poll()
        assert asked == [["a", "b"]]
        assert backlog(controller, "b") == 2

    def test_absent_queues_take_turns_where_it_cannot(
        self, make_controller: MakeController, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(deadline, "_GRACE", 10)  # what is interrupted ends in time
        asked: list[str] = []
        stuck = threading.Event()

        class Provider:
            limit = 99

            def get_all_queue_stats(self) -> Answer:
                return {}

            def get_queue_stats(self, queue_name: str) -> QueueStats:
                if len(asked) >= self.limit:
                    overrun(clock, 3)
                    stuck.wait(30)
                    raise StatsUnavailableError("late")
                asked.append(queue_name)
                return QueueStats(queue_name, 1)

            def interrupt(self) -> None:
                stuck.set()

        provider = Provider()
        controller = make_controller(provider)
        for name in "abc":
            controller.suggest_throttle("low", name)
        asked.clear()
        provider.limit = 1
        assert not controller._poller.poll()
        assert asked == ["a"]
        provider.limit = 99
        stuck.clear()
        assert controller._poller.poll()
        assert asked[1:] == ["c", "a", "b"]


class TestHealth:
    def test_one_line_per_change_of_the_providers_health(
        self,
        make_controller: MakeController,
        provider: InMemoryStatsProvider,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO, "backpressure")
        controller = make_controller()
        changes: list[StateChange] = []
        controller.add_listener(changes.append)
        provider.fail_with(OUTAGE)
        for _ in range(3):
            controller._poller.poll()
        provider.fail_with(None)
        for _ in range(3):
            controller._poller.poll()
        assert [(change.kind, change.old, change.new) for change in changes] == [
            ("provider", "ok", "connect"),
            ("provider", "connect", "ok"),
        ]
        assert [record.getMessage() for record in caplog.records] == [
            "statistics cannot be read: no server",
            "statistics are read again",
        ]
        assert caplog.records[0].error_type == "connect"  # type: ignore[attr-defined]

    def test_a_foreign_errors_text_is_not_logged(
        self,
        controller: BackpressureController,
        provider: InMemoryStatsProvider,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        provider.fail_with(ValueError("redis://user:canary@host"))
        controller._poller.poll()
        controller.refresh("empty")
        assert "canary" not in caplog.text
        assert "canary" not in str(controller.health())


class TestReader:
    def test_returns_and_raises_what_the_call_does(self) -> None:
        reader = Reader(object(), SystemClock())
        assert reader.call(lambda: 3, 10) == 3
        with pytest.raises(ZeroDivisionError):
            reader.call(lambda: 1 / 0, 10)

    def test_a_finished_call_leaves_no_thread(self) -> None:
        reader = Reader(object(), SystemClock())
        assert not reader.call(threading.current_thread, 10).is_alive()

    def test_an_overdue_call_is_interrupted_and_its_result_dropped(self) -> None:
        class Interruptible:
            def __init__(self) -> None:
                self.interrupted = threading.Event()

            def interrupt(self) -> None:
                self.interrupted.set()

        provider = Interruptible()
        reader = Reader(provider, SystemClock())
        with pytest.raises(StatsUnavailableError, match=r"longer than 0\.01 s") as raised:
            reader.call(lambda: provider.interrupted.wait(30), 0.01)
        assert raised.value.error_type == "deadline"
        assert provider.interrupted.is_set()

    def test_the_deadline_follows_the_injected_clock(self) -> None:
        clock, release = ManualClock(), threading.Event()
        reader = Reader(object(), clock)
        errors: list[StatsUnavailableError] = []

        def call() -> None:
            try:
                reader.call(lambda: release.wait(30), 3)
            except StatsUnavailableError as error:
                errors.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        eventually(lambda: clock.sleeping() == 1)
        clock.advance(2.999)
        assert not errors
        clock.advance(0.001)
        caller.join(10)
        release.set()
        assert [error.error_type for error in errors] == ["deadline"]

    def test_at_most_eight_calls_hang_at_a_time(self) -> None:
        release = threading.Event()
        reader = Reader(object(), SystemClock())
        calls: list[int] = []

        def hang() -> None:
            calls.append(1)
            release.wait(30)

        for _ in range(10):
            with pytest.raises(StatsUnavailableError):
                reader.call(hang, 0.01)
        eventually(lambda: len(calls) == 8)
        release.set()
        eventually(lambda: all(call.done for call in reader._hung[os.getpid()]))
        assert len(calls) == 8
        assert reader.call(lambda: 3, 10) == 3

    def test_many_calls_at_once_are_no_reason_to_refuse(self) -> None:
        reader = Reader(object(), SystemClock())
        barrier = threading.Barrier(8)
        results: list[int] = []
        threads = [
            threading.Thread(target=lambda: results.append(reader.call(lambda: barrier.wait(10) * 0, 10)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert results == [0] * 8


def test_a_queue_whose_read_hangs_is_passed_over_until_that_has_ended(
    make_controller: MakeController, clock: ManualClock
) -> None:
    release, reads = threading.Event(), list[str]()

    class OneHangs:
        def get_all_queue_stats(self) -> Any:
            return {}

        def get_queue_stats(self, queue_name: str) -> QueueStats:
            reads.append(queue_name)
            if queue_name == "hangs" and not release.is_set():
                overrun(clock, 3)
                release.wait(30)
            return QueueStats(queue_name, len(reads))

    polling = PollingConfig(interval=60, cache_ttl=100, jitter=0)
    controller = make_controller(OneHangs(), BackpressureConfig(polling=polling))
    release.set()
    for name in ("one", "hangs", "two"):
        controller.suggest_throttle("low", name)
    release.clear()
    assert controller._poller.poll()  # the provider answers: one queue does not
    reads.clear()
    for _ in range(3):
        assert controller._poller.poll()
    assert sorted(reads) == ["one"] * 3 + ["two"] * 3
    release.set()
    eventually(lambda: controller._poller.poll() and "hangs" in reads)


class TestRevival:
    def test_a_dead_poller_is_replaced_by_whoever_meets_an_old_sample(
        self, make_controller: MakeController, provider: InMemoryStatsProvider, clock: ManualClock
    ) -> None:
        controller = make_controller()
        poller = controller._poller
        dead = poller._current
        assert dead is not None
        # As after a crash: the thread is gone, and nothing else knows.
        poller._current = None
        dead.wake.set()
        assert dead.thread is not None
        dead.thread.join(10)
        poller._current = dead
        dead.wake.clear()
        controller.suggest_throttle("low", "empty")
        provider.set("empty", 7)
        clock.advance(9)
        controller.suggest_throttle("low", "empty")
        assert poller._current is dead  # no sample is overdue yet
        clock.advance(6)
        controller.suggest_throttle("low", "empty")
        assert poller._current is not dead
        assert controller.health()["polling_errors"] == {"heartbeat": 1}
        eventually(lambda: backlog(controller, "empty") == 7)

    def test_a_poller_that_was_not_seen_in_time_is_woken_before_it_is_called_dead(
        self, make_controller: MakeController, clock: ManualClock
    ) -> None:
        """As after the process was suspended: everything is late, also the thread that checks first."""
        controller = make_controller(None, BackpressureConfig(polling=PollingConfig(jitter=0)))
        poller = controller._poller
        current = poller._current
        assert current is not None
        eventually(lambda: at_rest(controller, clock, 1))
        clock._now_ns += 40_000_000_000  # without waking anybody
        assert not poller.alive()
        assert poller.check()
        eventually(lambda: at_rest(controller, clock, 2))
        assert poller._current is current
        assert poller.alive()
        assert not poller.check()
        assert controller.health()["polling_errors"] == {}

    def test_a_poller_that_polls_too_late_is_no_reason_to_go_by_what_there_is(
        self, make_controller: MakeController, clock: ManualClock
    ) -> None:
        """As after the process was suspended, where the poller wakes up before its callers do."""
        polling, go_on = threading.Event(), threading.Event()
        provider = InMemoryStatsProvider({"jobs": 5_000})
        controller = make_controller(provider, BackpressureConfig(polling=PollingConfig(jitter=0)))
        assert controller.suggest_throttle("low", "jobs").should_shed
        poll = controller._poller.poll

        def poll_slowly() -> bool:
            polling.set()
            go_on.wait(10)
            return poll()

        controller._poller.poll = poll_slowly  # type: ignore[method-assign]
        provider.set("jobs", 0)
        clock.advance(60)
        assert polling.wait(10)
        assert controller.suggest_throttle("low", "jobs").reason is Reason.BACKLOG_GREEN
        go_on.set()
        eventually(lambda: at_rest(controller, clock, 2))
        assert not controller._poller.check()

    def test_all_who_find_that_nobody_can_have_read_read_first(
        self, make_controller: MakeController, clock: ManualClock
    ) -> None:
        provider = InMemoryStatsProvider(dict.fromkeys(("a", "b", "c"), 5000))
        controller = make_controller(provider, BackpressureConfig(polling=PollingConfig(jitter=0)))
        for name in ("a", "b", "c"):
            assert controller.suggest_throttle("low", name).should_shed
        eventually(lambda: at_rest(controller, clock, 1))
        controller._poller.poll = bool  # type: ignore[method-assign]  # it comes late
        for name in ("a", "b", "c"):
            provider.set(name, 0)
        clock._now_ns += 40_000_000_000  # without waking anybody
        for name in ("a", "b"):
            assert controller.suggest_throttle("low", name).reason is Reason.BACKLOG_GREEN
        provider.fail_with(OUTAGE)
        for _ in range(3):  # one read that failed is enough
            assert controller.suggest_throttle("low", "c").reason is Reason.STATS_STALE
        assert controller.health()["polling_errors"] == {OUTAGE.error_type: 1}

    @pytest.mark.parametrize("way", ["suggest", "run", "gate"])
    @pytest.mark.parametrize("stirred", ["thawed", "forked in C"])
    def test_who_finds_that_nobody_can_have_read_reads_first(
        self,
        make_controller: MakeController,
        clock: ManualClock,
        caplog: pytest.LogCaptureFixture,
        way: str,
        stirred: str,
    ) -> None:
        provider = InMemoryStatsProvider({"jobs": 5_000, "others": 5_000})
        controller = make_controller(provider, BackpressureConfig(polling=PollingConfig(jitter=0)))
        gate = controller.gate("low", "jobs")
        for _ in range(2):  # the second answer lay ready
            assert gate.suggest().should_shed
            assert controller.suggest_throttle("low", "jobs").should_shed
            assert controller.suggest_throttle("low", "others").should_shed
        eventually(lambda: at_rest(controller, clock, 1))
        parents = controller._poller._current
        assert parents is not None
        provider.set("jobs", 0)
        provider.set("others", 0)
        if stirred == "thawed":
            clock._now_ns += 65_000_000_000  # without waking anybody
        else:
            clock._now_ns += 14_000_000_000
            parents.pid += 1
            controller._poller.poll = bool  # type: ignore[method-assign]  # the child's poller comes late
        if way == "suggest":
            assert controller.suggest_throttle("low", "jobs").reason is Reason.BACKLOG_GREEN
        elif way == "run":
            assert controller.run("low", "jobs", int) == 0
        else:
            assert gate.run(int) == 0
        if stirred == "forked in C":
            assert controller.suggest_throttle("low", "others").reason is Reason.BACKLOG_GREEN
            parents.pid -= 1
            parents.wake.set()
        assert controller._poller.alive()
        assert controller.health()["polling_errors"] == {}
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    @pytest.mark.parametrize("awaited", [True, False])
    def test_a_thawed_task_reads_first(
        self, engine_name: str, clock: ManualClock, caplog: pytest.LogCaptureFixture, awaited: bool
    ) -> None:
        provider = InMemoryStatsProvider({"jobs": 5_000})

        class Awaited:
            async def get_queue_stats(self, queue_name: str) -> QueueStats:
                return provider.get_queue_stats(queue_name)

            async def get_all_queue_stats(self) -> Any:
                return provider.get_all_queue_stats()

        async def main() -> None:
            config = BackpressureConfig(polling=PollingConfig(jitter=0))
            async with AsyncBackpressureController(
                config,
                Awaited() if awaited else provider,
                clock=clock,
                registry=CollectorRegistry(),
                _engine=engine_name,
            ) as controller:
                assert (await controller.suggest_throttle("low", "jobs")).should_shed
                eventually(lambda: at_rest(controller, clock, 1))
                provider.set("jobs", 0)
                clock._now_ns += 65_000_000_000
                assert (await controller.suggest_throttle("low", "jobs")).reason is Reason.BACKLOG_GREEN
                assert controller.health()["polling_errors"] == {}

        asyncio.run(main())
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    def test_a_poller_that_does_not_show_itself_when_woken_is_replaced(
        self, make_controller: MakeController, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        release = threading.Event()

        class Stuck(InMemoryStatsProvider):
            def get_all_queue_stats(self) -> Any:
                stuck.wait(30)
                return super().get_all_queue_stats()

        stuck = threading.Event()
        stuck.set()
        controller = make_controller(Stuck({"empty": 0}), BackpressureConfig(polling=PollingConfig(jitter=0)))
        poller = controller._poller
        current = poller._current
        assert current is not None
        eventually(lambda: at_rest(controller, clock, 1))
        # It waits for something that never comes, as if by a defect of ours.
        poller.turn = lambda me: (clock, 0.0 * release.wait(30))  # type: ignore[method-assign]
        current.wake.set()
        eventually(lambda: clock.sleeping() == 0)
        clock._now_ns += 11_000_000_000
        assert poller.check()
        clock._now_ns += 5_000_000_000
        assert not poller.check()  # it has its timeout, and some slack, to report
        del poller.turn
        clock._now_ns += 1
        assert poller.check()
        assert poller._current is not current
        assert controller.health()["polling_errors"] == {"heartbeat": 1}
        release.set()

    def test_overdue_samples_have_the_poller_checked_once_per_interval(
        self, make_controller: MakeController, provider: InMemoryStatsProvider, clock: ManualClock
    ) -> None:
        controller = make_controller()
        checks: list[int] = []
        provider.fail_with(OUTAGE)

        def note() -> bool:
            checks.append(clock.monotonic_ns())
            return False

        controller._host.check_poller = note  # type: ignore[method-assign]
        clock.advance(9.001)
        for _ in range(3):
            controller.suggest_throttle("low", "empty")
        assert len(checks) == 1
        clock.advance(4.999)
        controller.suggest_throttle("low", "empty")
        assert len(checks) == 1
        clock.advance(0.001)
        controller.suggest_throttle("low", "empty")
        controller.suggest_throttle("medium", "empty")
        assert len(checks) == 2

    def test_a_thread_that_cannot_be_had_is_asked_for_again(
        self,
        make_controller: MakeController,
        provider: InMemoryStatsProvider,
        clock: ManualClock,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        start, refusing = threading.Thread.start, True

        def start_reader(thread: threading.Thread) -> None:
            if refusing and thread.name == "backpressure-poller":
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_reader)
        controller = make_controller()
        assert controller.suggest_throttle("low", "empty").reason is Reason.BACKLOG_GREEN
        assert "can't start new thread" in caplog.text
        for refusing in (True, False):  # noqa: B007 - read by start_reader
            assert not controller._poller.alive()
            clock.advance(15)
            controller.suggest_throttle("low", "empty")
        assert controller._poller.alive()
        assert controller.health()["polling_errors"] == {"heartbeat": 2}
        eventually(lambda: controller.health()["last_poll_seconds"] is not None)

    def test_an_event_loop_goes_on_without_a_thread_to_read(
        self, make_controller: MakeController, provider: InMemoryStatsProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        async def ask() -> Reason:
            return controller.suggest_throttle("low", "new").reason

        controller = make_controller(provider, BackpressureConfig(polling=PollingConfig(enabled=False)))
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert asyncio.run(ask()) is Reason.COLD_START
        assert being_read(controller) == {}

    @pytest.mark.parametrize("restart", [False, True], ids=["by itself", "by start()"])
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_polls_for_itself(self, make_controller: MakeController, restart: bool) -> None:
        provider = InMemoryStatsProvider({"empty": 0})
        config = BackpressureConfig(
            polling=PollingConfig(interval=0.05, jitter=0, timeout=0.05, cache_ttl=0.2, max_backoff=1)
        )
        controller = make_controller(provider, config, clock=SystemClock())
        controller.suggest_throttle("low", "empty")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            answer = b"failed"
            try:
                provider.set("empty", 77)
                if restart:
                    controller.start()
                eventually(lambda: controller.suggest_throttle("low", "empty").backlog_size == 77)
                controller.stop()
                answer = b"fresh"
            finally:
                os.write(write, answer)
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            assert pipe.read() == b"fresh"
        os.waitpid(child, 0)
        assert controller._poller.alive()
        assert backlog(controller, "empty") == 0

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_child_of_a_parent_that_could_not_read_polls_for_itself(self, make_controller: MakeController) -> None:
        provider = InMemoryStatsProvider({"empty": 0})
        provider.fail_with(OUTAGE)
        config = BackpressureConfig(polling=PollingConfig(interval=0.05, jitter=0, timeout=0.05, max_backoff=0.05))
        controller = make_controller(provider, config, clock=SystemClock())
        assert controller.suggest_throttle("low", "empty").reason is Reason.FALLBACK_CONSERVATIVE
        child = os.fork()
        if child == 0:
            try:
                provider.fail_with(None)
                eventually(lambda: controller.suggest_throttle("low", "empty").reason is Reason.BACKLOG_GREEN)
                controller.stop()
            except BaseException:  # noqa: BLE001 - the child tells by its status
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    @pytest.mark.parametrize("enabled", [True, False])
    def test_a_forked_childs_first_answer_rests_on_a_read_of_its_own(
        self, make_controller: MakeController, clock: ManualClock, enabled: bool
    ) -> None:
        provider = InMemoryStatsProvider({"empty": 0})
        controller = make_controller(provider, BackpressureConfig(polling=PollingConfig(enabled=enabled)))
        if not hasattr(controller._engine, "forget_samples"):
            pytest.skip("this engine forgets nothing yet")
        controller.suggest_throttle("low", "empty")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                provider.set("empty", 77)
                first = controller.suggest_throttle("low", "empty").backlog_size
                status = 0 if (first, controller._poller.alive()) == (77, enabled) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert backlog(controller, "empty") == 0

    def test_where_fork_hooks_do_not_run_the_process_id_has_the_caller_read_first(
        self, make_controller: MakeController, clock: ManualClock
    ) -> None:
        controller = make_controller()
        poller = controller._poller
        parents = poller._current
        assert parents is not None
        assert not poller.check()
        parents.pid += 1  # as if the parent had started it
        assert not poller.alive()
        assert poller.check()
        assert poller.alive()
        assert poller._current is not parents
        assert controller.health()["polling_errors"] == {}
        parents.pid -= 1
        parents.wake.set()


def test_the_interpreter_ends_without_a_poller(engine_name: str, engine_module: object) -> None:
    """What runs at exit after the controller finds no thread: none is left that could log to closed files."""
    script = f"""
        import atexit, threading
        from backpressure import BackpressureController, InMemoryStatsProvider

        atexit.register(lambda: print([thread.name for thread in threading.enumerate()]))
        controller = BackpressureController(None, InMemoryStatsProvider({{"q": 1}}), _engine={engine_name!r})
        controller.start()
        assert any(thread.name == "backpressure-poller" for thread in threading.enumerate())
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "['MainThread']\n", "")
