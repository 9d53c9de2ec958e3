"""When queues are read: all once an interval, those outside of green more often, and some in a hurry."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    BackpressureConfig,
    ConfigurationError,
    CurveConfig,
    InMemoryStatsProvider,
    PollingConfig,
    QueueConfig,
    QueueStats,
    StatsUnavailableError,
)
from backpressure._controller.polling.drain import Drain
from backpressure._controller.polling.own_loop import LoopReads
from backpressure._controller.polling.provider import gaps_of
from backpressure._controller.polling.schedule import Schedule
from backpressure.providers import (
    PostgresStatsProvider,
    PrometheusStatsProvider,
    SQSStatsProvider,
    from_config,
)
from backpressure.testing import ManualClock
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from support.controller_fixtures import MakeController

POLLING = PollingConfig(jitter=0)
CONFIG = BackpressureConfig(polling=POLLING)


class Counted(InMemoryStatsProvider):
    """Notes which queues were read, and by which method."""

    def __init__(self, backlogs: Mapping[str, int]) -> None:
        super().__init__(backlogs)
        self.polls = 0
        self.least_gap: Any = 0.0
        self.read: list[list[str]] = []

    def get_all_queue_stats(self) -> Any:
        self.polls += 1
        return super().get_many(self._samples)

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        self.read.append([queue_name])
        sample = super().get_many([queue_name])[queue_name]
        if isinstance(sample, StatsUnavailableError):
            raise sample
        return sample

    def get_many(self, queue_names: Iterable[str]) -> Mapping[str, QueueStats | StatsUnavailableError]:
        self.read.append(sorted(queue_names))
        return super().get_many(self.read[-1])


class TestSchedule:
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def schedule(self, clock: ManualClock) -> Schedule:
        schedule = Schedule(clock, uniform=lambda _, most: most)
        assert schedule.due() is None
        schedule.polled(5.0)
        return schedule

    def test_everything_is_due_once_an_interval(self, schedule: Schedule, clock: ManualClock) -> None:
        assert schedule.rest(POLLING, {}) == 5.0
        clock.advance(4.999)
        assert schedule.due() == []
        clock.advance(0.001)
        assert schedule.due() is None

    def test_what_was_asked_for_while_everything_was_read_is_read_again(self, schedule: Schedule) -> None:
        schedule.poll_now()
        assert schedule.due() is None
        schedule.poll_now()
        schedule.polled(5.0)
        assert schedule.rest(POLLING, {}) == 0
        assert schedule.due() is None

    def test_busy_queues_are_due_more_often(self, schedule: Schedule, clock: ManualClock) -> None:
        for _ in range(3):
            assert schedule.rest(POLLING, {"mail": math.inf}) == 1.0
            clock.advance(1)
            assert schedule.due() == ["mail"]
        assert schedule.rest(POLLING, {}) == 2.0  # until everything is

    def test_others_that_become_busy_do_not_put_them_off(self, schedule: Schedule, clock: ManualClock) -> None:
        assert schedule.rest(POLLING, {"mail": math.inf}) == 1.0
        clock.advance(0.6)
        assert schedule.due() == []
        assert schedule.rest(POLLING, {"mail": math.inf, "sms": math.inf}) == pytest.approx(0.4)
        clock.advance(0.4)
        assert schedule.due() == ["mail"]
        assert schedule.rest(POLLING, {"mail": math.inf, "sms": math.inf}) == pytest.approx(0.6)

    def test_one_that_may_soon_be_empty_is_due_before(self, schedule: Schedule, clock: ManualClock) -> None:
        clock.advance(1)
        now_ns = clock.monotonic_ns()
        assert schedule.rest(POLLING, {"mail": now_ns + 3e8, "sms": math.inf}) == pytest.approx(0.3)
        clock.advance(0.3)
        assert schedule.due() == ["mail"]
        assert schedule.rest(POLLING, {"mail": now_ns + 3e8, "sms": math.inf}) == pytest.approx(0.05)

    def test_its_jitter_is_as_large_a_part_of_the_busy_interval(self, schedule: Schedule) -> None:
        polling = PollingConfig(interval=10, busy_interval=2, jitter=1)
        assert schedule.rest(polling, {"mail": math.inf}) == pytest.approx(2.2)

    def test_queues_in_a_hurry_are_due_at_once_and_then_every_50_ms(
        self, schedule: Schedule, clock: ManualClock
    ) -> None:
        clock.advance(1)
        schedule.hurry("mail")
        schedule.hurry("sms")
        schedule.hurry("mail")
        assert schedule.rest(POLLING, {}) == 0
        assert schedule.due() == ["mail", "sms"]
        schedule.hurry("mail")
        assert schedule.rest(POLLING, {}) == pytest.approx(0.05)
        assert schedule.due() == []
        clock.advance(0.05)
        assert schedule.due() == ["mail"]

    def test_a_queue_is_not_read_before_its_least_gap(self, clock: ManualClock) -> None:
        schedule = Schedule(clock, {"mail": 2.0, "sms": 0.0, "orders": math.inf}.__getitem__)
        assert schedule.due() is None
        schedule.polled(9.0)
        clock.advance(1)
        for name in ("mail", "sms", "orders"):
            schedule.hurry(name)
        assert schedule.due() == ["mail", "sms"]
        schedule.hurry("mail")
        assert schedule.rest(POLLING, {"mail": -math.inf, "orders": -math.inf}) == 2.0
        clock.advance(2)
        assert schedule.due() == ["mail"]

    def test_while_nothing_can_be_read_only_polls_are_due(self, schedule: Schedule, clock: ManualClock) -> None:
        schedule.hurry("mail")
        schedule.rest(POLLING, {"mail": math.inf})
        for _ in range(2):
            schedule.hurry("mail")
            assert schedule.rest_from_failure() == 5.0
        clock.advance(4)
        assert schedule.due() == []


class TestDrain:
    def test_it_is_what_came_and_is_not_there_any_more(self) -> None:
        drain = Drain()
        drain.note(100, 0, None)
        assert drain.half_empty_ns() == math.inf
        drain.note(150, 10**9, (100, 0, None, 200, None))  # 150 in a second
        assert drain.half_empty_ns() == pytest.approx(1.5e9)

    def test_what_was_long_ago_is_forgotten(self) -> None:
        drain, backlog = Drain(), 100_000
        for second in range(1, 60):
            before, backlog = backlog, backlog - (10 if second < 20 else 1_000)
            drain.note(backlog, second * 10**9, (before, (second - 1) * 10**9, None, 0, None))
        assert (drain.half_empty_ns() - 59e9) / 1e9 == pytest.approx(backlog / 2 / 1_000, rel=0.01)

    def test_what_others_let_in_and_samples_out_of_order_do_no_harm(self) -> None:
        drain = Drain()
        drain.note(100, 10**9, (50, 0, None, 10, None))
        assert drain.half_empty_ns() == math.inf
        drain.note(0, 10**9, (100, 10**9, None, 0, None))
        drain.note(0, 5 * 10**8, (100, 10**9, None, 0, None))
        assert drain.half_empty_ns() == math.inf


class TestPoller:
    def test_a_queue_outside_of_green_is_read_each_busy_interval(self, make_controller: MakeController) -> None:
        provider, clock = Counted({"green": 1, "yellow": 200, "red": 900, "never asked for": 900}), ManualClock()
        controller = make_controller(provider, CONFIG, clock=clock)
        for name in ("green", "yellow", "red"):
            controller.suggest_throttle("low", name)
        polls, provider.read = provider.polls, []
        for seconds in range(1, 5):
            clock.advance(1)
            assert provider.read == [["red", "yellow"]] * seconds
        clock.advance(1)
        assert provider.polls == polls + 1

    def test_what_is_busy_for_no_priority_that_is_asked_for_is_not(self, make_controller: MakeController) -> None:
        provider, clock = Counted({"mail": 400}), ManualClock()
        controller = make_controller(provider, CONFIG, clock=clock)
        controller.suggest_throttle("high", "mail")  # green for HIGH alone
        provider.read = []
        clock.advance(4)
        assert provider.read == []

    def test_a_queue_that_nobody_asks_for_any_more_is_not(self, make_controller: MakeController) -> None:
        provider, clock = Counted({"mail": 900}), ManualClock()
        controller = make_controller(
            provider, BackpressureConfig(polling=PollingConfig(jitter=0, cache_ttl=10)), clock=clock
        )
        controller.suggest_throttle("low", "mail")
        for _ in range(200):  # more than the ten lifetimes of a sample after which a queue is idle
            clock.advance(1)
        provider.read = []
        clock.advance(1)
        clock.advance(1)
        clock.advance(1)
        assert provider.read == []

    def test_while_the_provider_fails_it_is_left_in_peace(self, make_controller: MakeController) -> None:
        provider, clock = Counted({"mail": 900}), ManualClock()
        controller = make_controller(provider, CONFIG, clock=clock)
        controller.suggest_throttle("low", "mail")
        provider.fail_with(StatsUnavailableError("no server"))
        clock.advance(5)
        provider.read, polls = [], provider.polls
        for _ in range(4):
            clock.advance(1)
        assert (provider.read, provider.polls) == ([], polls)

    def test_one_that_hangs_is_left_to_polls(self, make_controller: MakeController) -> None:
        clock, release, reads = ManualClock(), threading.Event(), list[str]()

        class OneByOne:
            def get_all_queue_stats(self) -> dict[str, QueueStats]:
                return {name: QueueStats(name, 900) for name in ("hangs", "mail")}

            def get_queue_stats(self, queue_name: str) -> QueueStats:
                reads.append(queue_name)
                if queue_name == "hangs":
                    release.wait(30)
                return QueueStats(queue_name, 900)

        controller = make_controller(OneByOne(), CONFIG, clock=clock)
        for name in ("hangs", "mail"):
            controller.suggest_throttle("low", name)
        clock.advance(1)
        assert reads == ["hangs"]
        clock.advance(3)  # polling.timeout
        for _ in range(4):
            clock.advance(1)
        release.set()
        assert reads.count("hangs") == 1
        assert reads.count("mail") >= 2

    def test_one_that_cannot_be_read_spoils_no_poll(self, make_controller: MakeController) -> None:
        provider, clock = Counted({"mail": 900, "sms": 900}), ManualClock()
        controller = make_controller(provider, CONFIG, clock=clock)
        for name in ("mail", "sms"):
            controller.suggest_throttle("low", name)
        provider.fail_with(StatsUnavailableError("gone"), "mail")
        clock.advance(1)
        provider.set("sms", 901)
        clock.advance(1)
        assert controller._engine.sample("sms")[0] == 901  # type: ignore[index]
        assert controller.health()["provider"] == "ok"

    def test_more_jobs_than_the_advice_is_good_for_have_their_queue_read(self, make_controller: MakeController) -> None:
        provider, clock = Counted({"mail": 90}), ManualClock()
        controller = make_controller(provider, CONFIG, clock=clock)
        gate = controller.gate("low", "mail")
        gate.suggest()
        clock.advance(1)  # the poll is over, and the least time between two reads
        provider.read = []
        for _ in range(10):  # one was let in, and after these the eleventh could be the 101st
            gate.suggest()
        clock.advance(0)
        assert provider.read == []
        provider.set("mail", 101)
        gate.suggest()
        eventually(lambda: provider.read == [["mail"]])
        clock.advance(0)
        assert gate.peek().zone == "yellow"

    @pytest.mark.parametrize("mode", ["enforce", "observe"])
    def test_a_loop_of_low_jobs_meets_the_table(self, make_controller: MakeController, mode: Any) -> None:
        """A job each ms into an empty queue that nobody drains: it is slowed, and shed, as its backlog says."""
        provider, clock = Counted({"mail": 0}), ManualClock(sleep_advances=True)
        config = BackpressureConfig(
            polling=POLLING, queues={"mail": QueueConfig(mode=mode)}, curve=CurveConfig(yellow_max_delay=0.02)
        )
        controller = make_controller(provider, config, clock=clock)
        gate = controller.gate("low", "mail")
        seen: dict[str, int] = {}
        for let_in in range(5_000):
            clock.advance(0.001)
            decision = gate.suggest()
            advised = decision.advised or decision
            if advised.reason not in seen:
                seen[str(advised.reason)] = let_in
            if decision.should_shed:
                break
            clock.advance(decision.delay)
            provider.set("mail", let_in + 1)
        assert 100 <= seen["backlog_yellow"] <= 155  # at most what came in 50 ms, and while it was read
        assert 500 <= seen["backlog_red"] <= 555
        assert 900 <= seen["backlog_red_shed"] <= 955

    def test_without_a_poller_a_caller_reads(self, make_controller: MakeController) -> None:
        provider = Counted({"mail": 90})
        clock = ManualClock()
        config = BackpressureConfig(polling=PollingConfig(enabled=False, cache_ttl=30))
        controller = make_controller(provider, config, clock=clock)
        gate = controller.gate("low", "mail")
        for _ in range(11):
            gate.suggest()
        provider.set("mail", 101)
        assert gate.suggest().zone == "yellow"

    def test_a_failure_in_between_lets_no_job_in_unseen(self, make_controller: MakeController) -> None:
        """Its word makes another answer; once it is forgotten, the one from before must not lie ready again."""
        provider = Counted({"mail": 95})
        polling = PollingConfig(enabled=False, cache_ttl=30)
        controller = make_controller(provider, BackpressureConfig(polling=polling), clock=ManualClock())

        def fail() -> None:
            raise ConnectionError

        for _ in range(4):
            controller.run("low", "mail", int)
        with pytest.raises(ConnectionError):
            controller.run("low", "mail", fail)
        controller.run("low", "mail", int)
        reads = len(provider.read)
        controller.run("low", "mail", int)
        assert len(provider.read) == reads + 1


class TestLeastGap:
    def test_a_queue_whose_reads_cost_money_is_read_at_its_interval(self, make_controller: MakeController) -> None:
        provider, clock = Counted({"mail": 900}), ManualClock()
        provider.least_gap = math.inf
        controller = make_controller(provider, CONFIG, clock=clock)
        for _ in range(9):
            controller.suggest_throttle("low", "mail")
            clock.advance(0.5)
        assert (provider.polls, provider.read) == (1, [])

    @pytest.mark.parametrize("gap", [-1, math.nan, "1s", None])
    def test_one_that_is_no_time_is_refused(self, make_controller: MakeController, gap: Any) -> None:
        provider = Counted({})
        provider.least_gap = gap
        with pytest.raises(ConfigurationError, match="least_gap"):
            make_controller(provider)

    def test_each_of_several_providers_has_its_own(self) -> None:
        config = BackpressureConfig(
            queues={
                "mail": QueueConfig(url="redis://localhost"),
                "jobs": QueueConfig(url="postgresql://localhost/jobs", layout="procrastinate"),
            }
        )
        provider = from_config(config)
        assert [provider.least_gap_of(name) for name in ("mail", "jobs", "unknown")] == [0.0, 1.0, 0.0]

    def test_where_each_read_costs_or_brings_nothing_new_there_is_none_before_its_time(self) -> None:
        assert SQSStatsProvider.least_gap == PrometheusStatsProvider.least_gap == math.inf
        assert PostgresStatsProvider.least_gap > 0

    def test_an_asynchronous_provider_says_it_too(self) -> None:
        class Jobs:
            least_gap = 7.0

            async def get_queue_stats(self, queue_name: str) -> QueueStats:
                return QueueStats(queue_name, 0)

            async def get_all_queue_stats(self) -> dict[str, QueueStats]:
                return {}

        assert gaps_of(LoopReads(Jobs()))("mail") == 7.0


def test_no_worker_idles_while_jobs_are_refused(make_controller: MakeController) -> None:
    """At the defaults: 200 LOW jobs/s offered, those that are to wait go away, and 150/s are drained."""
    clock, backlog, idle = ManualClock(), 0.0, 0

    class Queue(InMemoryStatsProvider):
        def get_queue_stats(self, queue_name: str) -> QueueStats:
            return QueueStats(queue_name, math.floor(backlog))

        def get_all_queue_stats(self) -> Any:
            return {"mail": self.get_queue_stats("mail")}

    controller = make_controller(Queue(), clock=clock)
    gate, refused = controller.gate("low", "mail"), 0
    for step in range(6_000):  # 30 s
        clock.advance(0.005)
        backlog = max(0.0, backlog - 0.75)
        idle += step > 200 and backlog == 0
        if gate.suggest().delay:
            refused += 1
        else:
            backlog += 1
    assert refused > 500
    assert idle == 0
