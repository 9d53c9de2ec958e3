"""What every hook promises, run over each framework: its test file has a class of `Contract` with its description.

What is peculiar to a framework stays in its file.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from backpressure import (
    BackpressureError,
    CircuitOpenError,
    ConfigurationError,
    ControllerNotStartedError,
    InMemoryStatsProvider,
    InvalidPriorityError,
    JobShedError,
    Tenant,
    ThrottledError,
)
from backpressure.integrations import passing
from backpressure.integrations._shared.request import on_behalf_of
from backpressure.integrations._shared.workers import in_worker
from backpressure.testing import ManualClock
from integrations.contract.driver import done
from integrations.contract.framework import QUEUE
from integrations.contract.shop import CALM, OpenShop
from integrations.jobs import errands, ran
from integrations.overload import CONFIG, HIGH_IS_RED, OVERLOAD

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    import redis

    from backpressure._model.tenant import AnyTenant
    from integrations.contract.driver import Outcome
    from integrations.contract.framework import Framework

    Test = Callable[..., Any]

#: Arguments of promises, and what of a framework each is one of.
ONE_OF = {"way": "ways", "mark": "marks", "later": "later", "many": "many", "fault": "faults"}


def promise(test: Test) -> Test:
    """Run a coroutine as a test, on a loop or without, as the framework does."""

    @functools.wraps(test)
    def run(self: Contract, *args: Any, **kwargs: Any) -> None:
        self.framework.driver.run(test(self, *args, **kwargs))

    return run


def all_shed(told: Mapping[str, Outcome]) -> bool:
    """Tell whether all of these were shed; a framework may have a class of its own for that."""
    return all(kind is not None and issubclass(kind, JobShedError) for kind in told.values())


def raises_out_of_memory() -> pytest.RaisesExc[Exception]:
    """Expect the error of a full server, or one that was raised from it."""
    return pytest.raises(Exception, check=lambda error: "maxmemory" in f"{error} {error.__cause__}")


class Contract:
    """The promises. Derive a test class for each framework, or kind of its brokers."""

    framework: ClassVar[Framework]

    def __init_subclass__(cls) -> None:
        unknown = cls.framework.exempt.keys() - vars(Contract)
        assert not unknown, f"no promises: {unknown}"
        for name in cls.framework.exempt:
            setattr(cls, name, None)  # no test, then

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Try each of the framework's calls by itself."""
        for argument, attribute in ONE_OF.items():
            if argument in metafunc.fixturenames:
                found = getattr(self.framework, attribute)
                assert found, f"{self.framework.title} has no {attribute}: give some, or say in `exempt` why not"
                metafunc.parametrize(argument, found.values(), ids=found.keys())

    @pytest.fixture
    def opening(
        self, engine_name: str, engine_module: object, redis_url: str, redis_client: redis.Redis
    ) -> Iterator[OpenShop]:
        """Open shops, and see that no worker is left behind."""
        yield OpenShop(self.framework, engine_name, redis_url, redis_client)
        assert not in_worker()

    # What is let in, and what is not.

    @promise
    async def test_under_overload_low_is_shed_and_high_goes_once(self, opening: OpenShop) -> None:
        async with opening() as shop:
            await shop.hook_all_but_important()
            with shop.nothing_reaches_the_server(), pytest.raises(JobShedError) as shed:
                await shop.send()
            assert shed.value.queue_name == QUEUE
            assert shop.waiting == OVERLOAD
            await shop.send("important")
            assert shop.waiting == OVERLOAD + 1
            assert shop.failures == 0

    @promise
    async def test_where_nothing_waits_low_goes_at_once(self, opening: OpenShop) -> None:
        async with opening() as shop:
            await shop.hook(queue={QUEUE: CALM})
            before = shop.clock.monotonic_ns()
            await shop.send()
            assert shop.clock.monotonic_ns() == before
            assert shop.waiting == OVERLOAD + 1

    @promise
    async def test_every_way_of_sending_is_gated(self, opening: OpenShop, way: Any) -> None:
        async with opening() as shop:
            await shop.hook()
            with shop.nothing_reaches_the_server(), pytest.raises(JobShedError):
                await done(way(shop.app))
            assert shop.waiting == OVERLOAD
            assert shop.passed == {}

    @promise
    async def test_on_whose_behalf_a_job_is_sent_is_told_by_a_rule_or_else_by_the_request(
        self, opening: OpenShop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[AnyTenant | None] = [("acme", "gold"), None, None]
        seen: list[object] = []

        def rule(given: object) -> AnyTenant | None:
            seen.append(self.framework.name_of(given))
            return told.pop(0)

        def spares(_priority: object, _queue_name: object, tenant: AnyTenant) -> bool:
            seen.append(tenant)
            return False

        async with opening() as shop:
            monkeypatch.setattr(shop.controller._admission.sparing, "spares", spares)
            await shop.hook(tenant=rule)
            for _ in range(2):
                with on_behalf_of(Tenant("web")), pytest.raises(JobShedError):
                    await shop.send()
            with pytest.raises(JobShedError):
                await shop.send()
        work = self.framework.name("work")
        assert seen == [work, ("acme", "gold"), work, ("web", ""), work]

    @promise
    async def test_a_priority_of_its_own_comes_first(self, opening: OpenShop, mark: Any) -> None:
        async with opening() as shop:
            await shop.hook()
            await done(mark(shop.app))
            assert shop.waiting == OVERLOAD + 1
            assert shop.decided == 1
            with pytest.raises(JobShedError):
                await shop.send()

    @promise
    async def test_many_are_gated_once_and_sent_all_or_none(self, opening: OpenShop, many: Any) -> None:
        async with opening() as shop:
            await shop.hook_all_but_important()
            with pytest.raises(JobShedError):
                await done(many(shop.app, ["important", "work"]))
            assert shop.waiting == OVERLOAD
            before = shop.decided
            await done(many(shop.app, ["important"] * 10))
            assert shop.decided == before + 1
            assert shop.waiting == OVERLOAD + 10
            with pytest.raises(JobShedError):  # nothing stays open
                await shop.send()

    @promise
    async def test_jobs_of_another_time_are_not_judged_by_the_backlog_of_now(
        self, opening: OpenShop, later: Any
    ) -> None:
        async with opening() as shop:
            await shop.hook()
            await done(later(shop.app))
            assert shop.waiting == OVERLOAD + 1
            assert shop.passed == {(QUEUE, "scheduled"): 1}
            assert shop.decided == 0

    @promise
    async def test_what_runs_at_once_runs_whatever_the_backlog(self, opening: OpenShop) -> None:
        async with opening() as shop, self.framework.at_once(shop) as send:
            await done(send())
            assert ran == ["at once"]
            assert shop.waiting == OVERLOAD
            assert shop.passed == self.framework.counted_at_once

    @promise
    async def test_in_observe_mode_all_go_at_once_and_are_counted(self, opening: OpenShop) -> None:
        async with opening(config=CONFIG.evolve({"mode": "observe"})) as shop:
            await shop.hook_all_but_important("medium")
            before = shop.clock.monotonic_ns()
            for job in ("work", "important"):
                await shop.send(job)
            assert shop.clock.monotonic_ns() == before
            assert shop.waiting == OVERLOAD + 2
            assert (shop.decided, shop.passed) == (2, {})

    @promise
    async def test_what_is_decided_and_what_passes_is_counted_once(self, opening: OpenShop) -> None:
        async with opening() as shop:
            await shop.hook_all_but_important()
            for _ in range(3):
                with pytest.raises(JobShedError):
                    await shop.send()
            for _ in range(2):
                await shop.send("important")
            assert shop.counted("decisions", "priority", "queue") == {("low", QUEUE): 3, ("high", QUEUE): 2}
            assert shop.counted("shed_events", "priority", "queue") == {("low", QUEUE): 3}
            assert shop.passed == {}
            with passing():
                await shop.send()
            assert (shop.decided, shop.shed) == (5, 3)
            assert shop.counted("passed", "queue", "why") == shop.passed == {(QUEUE, "passing"): 1}
            assert shop.waiting == OVERLOAD + 3

    # Rules.

    @promise
    async def test_rules_may_be_functions_of_the_job(self, opening: OpenShop) -> None:
        async with opening() as shop:
            seen: list[str] = []

            def priority(given: Any) -> str:
                seen.append(self.framework.name_of(given))
                return "low"

            def queue(given: Any) -> str:
                seen.append(self.framework.name_of(given))
                return CALM if len(seen) > 2 else QUEUE

            await shop.hook(priority, queue=queue)
            with pytest.raises(JobShedError):
                await shop.send()
            await shop.send()
            assert seen == [self.framework.name("work")] * 4
            assert shop.waiting == OVERLOAD + 1

    @promise
    async def test_rules_may_be_tables_by_the_queues_name(self, opening: OpenShop) -> None:
        async with opening() as shop:
            await shop.hook({QUEUE: "high"}, queue={QUEUE: CALM})
            with passing():
                await shop.send()
            assert shop.passed == {(CALM, "passing"): 1}
            shop.controller.circuit(CALM).force_open()
            with pytest.raises(CircuitOpenError) as refused:
                await shop.send()
            assert refused.value.queue_name == CALM

    @promise
    async def test_a_job_without_a_priority_is_not_sent(self, opening: OpenShop) -> None:
        async with opening() as shop:
            await shop.hook({"another": "high"})
            with shop.nothing_reaches_the_server(), pytest.raises(BackpressureError, match="has no priority") as raised:
                await shop.send()
            assert isinstance(raised.value.__cause__ or raised.value, InvalidPriorityError)

    @promise
    async def test_what_a_rule_raises_stops_the_job_and_says_nothing_of_the_queue(self, opening: OpenShop) -> None:
        def priority(_: Any) -> str:
            raise LookupError("of the rule's own")

        async with opening() as shop:
            await shop.hook(priority)
            with shop.nothing_reaches_the_server(), pytest.raises(Exception, match="of the rule's own") as raised:
                await shop.send()
            assert isinstance(raised.value.__cause__ or raised.value, LookupError)
            assert shop.failures == 0

    # Waiting.

    @promise
    async def test_who_waits_sends_nothing_before_its_time(self, opening: OpenShop) -> None:
        async with opening(clock=ManualClock()) as shop:
            await shop.hook_all_but_important("medium", max_wait=None)
            await shop.driver.until(lambda: shop.clock.sleeping() == 1)  # the poller, until its next read
            with shop.nothing_reaches_the_server():
                begun = shop.driver.begin(shop.send)
                await shop.driver.until(lambda: shop.clock.sleeping() == 2)
            await shop.send("important")  # for which nothing is held
            assert shop.waiting == OVERLOAD + 1
            shop.clock.advance(5.6)  # five seconds, and up to a tenth
            await shop.driver.end(begun)
            assert shop.waiting == OVERLOAD + 2

    @promise
    async def test_max_wait_bounds_the_wait(self, opening: OpenShop) -> None:
        async with opening() as shop:
            await shop.hook("medium", max_wait=0.1)
            before = shop.clock.monotonic_ns()
            with shop.nothing_reaches_the_server(), pytest.raises(ThrottledError) as throttled:
                await shop.send()
            assert throttled.value.retry_after == 5.0
            assert shop.clock.monotonic_ns() == before
            assert (shop.waiting, shop.failures) == (OVERLOAD, 0)

    @promise
    async def test_the_wait_is_bounded_by_default(self, opening: OpenShop) -> None:
        async with opening() as shop:
            await shop.hook("medium")
            with pytest.raises(ThrottledError):
                await shop.send()
            assert shop.waiting == OVERLOAD

    @promise
    async def test_high_goes_after_the_longest_wait(self, opening: OpenShop) -> None:
        async with opening() as shop:
            shop.controller.reconfigure(CONFIG.evolve(HIGH_IS_RED))
            await shop.hook("high", max_wait={"high": 0.05})
            began = shop.clock.monotonic_ns()
            await shop.send()
            assert shop.clock.monotonic_ns() - began == 50_000_000
            assert shop.waiting == OVERLOAD + 1

    @promise
    async def test_who_gives_up_while_waiting_leaves_nothing_behind(self, opening: OpenShop) -> None:
        clock = self.framework.driver.impatient()
        async with opening(clock=clock) as shop:
            await shop.hook_all_but_important("medium", max_wait=None)
            await shop.driver.until(lambda: clock.sleeping() == 1)  # the poller, until its next read
            with shop.nothing_reaches_the_server():
                await shop.driver.give_up(shop.send, clock)
            assert clock.sleeping() == 1
            assert (shop.waiting, shop.failures) == (OVERLOAD, 0)
            await shop.send("important")
            assert shop.waiting == OVERLOAD + 1

    @promise
    async def test_on_an_event_loop_nothing_sleeps(self, opening: OpenShop) -> None:
        async with opening() as shop:
            await shop.hook_all_but_important("medium", max_wait=None)
            before = shop.clock.monotonic_ns()
            with pytest.raises(ThrottledError), pytest.warns(RuntimeWarning, match="event loop"):
                asyncio.run(shop.send())
            assert shop.clock.monotonic_ns() == before
            assert shop.waiting == OVERLOAD
            asyncio.run(shop.send("important"))
            assert shop.waiting == OVERLOAD + 1

    # The breaker.

    @promise
    async def test_a_server_that_refuses_opens_the_circuit_which_then_sends_nothing(self, opening: OpenShop) -> None:
        async with opening() as shop:
            await shop.hook("high")
            with shop.full_server():
                for failures in range(5):
                    assert shop.failures == failures
                    with raises_out_of_memory():
                        await shop.send()
            with shop.nothing_reaches_the_server(), pytest.raises(CircuitOpenError) as refused:
                await shop.send()
            assert refused.value.queue_name == QUEUE
            assert shop.waiting == OVERLOAD

    @promise
    async def test_a_success_ends_a_row_of_failures(self, opening: OpenShop) -> None:
        async with opening() as shop:
            await shop.hook("high")
            for _ in range(4):
                shop.controller.record_failure(QUEUE)
            await shop.send()
            assert shop.failures == 0
            shop.controller.record_failure(QUEUE)
            assert str(shop.controller.get_circuit_state(QUEUE)) == "closed"

    @promise
    async def test_what_was_not_judged_says_nothing_of_the_queue(self, opening: OpenShop) -> None:
        async with opening() as shop:
            await shop.hook("high")
            shop.controller.record_failure(QUEUE)
            with passing():
                await shop.send()
                assert shop.failures == 1
                with shop.full_server(), raises_out_of_memory():
                    await shop.send()
            assert shop.failures == 1

    @promise
    async def test_what_is_wrong_with_a_job_says_nothing_of_the_queue(self, opening: OpenShop, fault: Any) -> None:
        async with opening() as shop:
            await shop.hook("high")
            keys = set(shop.server.keys())
            for _ in range(5):
                with pytest.raises(fault.error):
                    await done(fault.send(shop.app))
            assert shop.failures == 0
            assert str(shop.controller.get_circuit_state(QUEUE)) == "closed"
            assert set(shop.server.keys()) == keys
            assert shop.waiting == OVERLOAD

    @promise
    async def test_a_probe_that_is_wrong_lets_the_next_one_go(self, opening: OpenShop) -> None:
        fault = next(iter(self.framework.faults.values()))
        async with opening() as shop:
            await shop.hook("high")
            for _ in range(5):
                shop.controller.record_failure(QUEUE)
            with pytest.raises(CircuitOpenError):
                await shop.send()
            shop.clock.advance(61)
            with pytest.raises(fault.error):
                await done(fault.send(shop.app))
            await shop.send()
            assert str(shop.controller.get_circuit_state(QUEUE)) == "half-open"
            assert shop.controller.circuit(QUEUE).stats()["success_count"] == 1
            assert shop.waiting == OVERLOAD + 1

    @promise
    async def test_a_job_that_is_there_already_is_no_failure(self, opening: OpenShop) -> None:
        taken: Any = self.framework.taken
        async with opening() as shop:
            await shop.hook("high")
            await done(taken.send(shop.app))
            shop.controller.record_failure(QUEUE)
            if taken.error is None:
                assert await done(taken.send(shop.app)) is None
            else:
                with pytest.raises(taken.error):
                    await done(taken.send(shop.app))
            assert shop.failures == (0 if taken.is_success else 1)
            assert shop.waiting == OVERLOAD + 1

    # Controllers.

    @promise
    async def test_a_controller_that_is_not_started_stops_producers_and_nobody_else(self, opening: OpenShop) -> None:
        told: list[Mapping[str, Outcome]] = []

        async def errand() -> None:
            told.append(await shop.everywhere())

        async with opening(start=False) as shop:
            errands["errand"] = errand
            await shop.send("errand")
            await shop.hook()
            message = f"low job for queue '{QUEUE}'"
            with (
                shop.nothing_reaches_the_server(),
                pytest.raises(ControllerNotStartedError, match=message) as raised,
            ):
                await shop.send()
            assert raised.value.queue_name == QUEUE
            with passing():
                await shop.send()
            assert shop.waiting == OVERLOAD + 2
            assert shop.passed == {(QUEUE, "passing"): 1}
            with pytest.raises(ControllerNotStartedError):
                await shop.send()
            async with shop.framework.working(shop.app):
                await shop.driver.until(lambda: told)
            assert told == [dict.fromkeys(shop.driver.ways)]

    @promise
    async def test_a_controller_that_was_stopped_is_told(self, opening: OpenShop) -> None:
        async with opening() as shop:
            await shop.hook()
            await done(shop.controller.stop())
            with shop.nothing_reaches_the_server(), pytest.raises(BackpressureError, match="was stopped"):
                await shop.send()

    @promise
    async def test_the_wrong_kind_of_controller_is_refused(self, opening: OpenShop) -> None:
        wrong = self.framework.driver.wrong_controller(None, InMemoryStatsProvider({}))
        async with opening() as shop:
            with pytest.raises(ConfigurationError, match=r"give an? (Async)?BackpressureController") as refused:
                await done(self.framework.hook(shop.app, wrong, priority="low"))
            assert refused.value.field == "controller"
            await shop.hook()  # a refusal leaves it as it was
            with pytest.raises(JobShedError):
                await shop.send()

    @promise
    async def test_rules_that_say_nothing_are_refused(self, opening: OpenShop) -> None:
        async with opening() as shop:
            for options, message in (
                ({"priority": None}, "priority is missing"),
                ({"priority": "urgent"}, "invalid priority 'urgent'"),
                ({"priority": "low", "inside_tasks": "work"}, "give a set of task names"),
                ({"priority": "low", "max_wait": -1}, "max_wait"),
            ):
                with pytest.raises(ValueError, match=message):
                    await done(self.framework.hook(shop.app, shop.controller, **options))
            await shop.hook()  # a refusal leaves it as it was
            with pytest.raises(JobShedError):
                await shop.send()

    @promise
    async def test_an_app_is_hooked_once(self, opening: OpenShop) -> None:
        async with opening() as shop:
            await shop.hook("high")
            with pytest.raises(ConfigurationError, match="protected already"):
                await done(self.framework.hook(shop.app, shop.controller, priority="low"))
            await shop.send()
            assert (shop.decided, shop.waiting) == (1, OVERLOAD + 1)

    @promise
    async def test_a_controller_that_reads_other_keys_is_refused(self, opening: OpenShop) -> None:
        title = self.framework.title
        async with opening() as shop:
            elsewhere = opening.controller(reading={"layout": self.framework.foreign})
            with pytest.raises(ConfigurationError, match=f"but {title} ") as refused:
                await done(self.framework.hook(shop.app, elsewhere, priority="low"))
            assert refused.value.field == "stats_provider"
            await shop.hook()  # a refusal leaves it as it was
            with pytest.raises(JobShedError):
                await shop.send()

    # Workers.

    @promise
    async def test_nothing_of_a_retry_or_of_what_jobs_send_is_lost_under_overload(self, opening: OpenShop) -> None:
        async def errand() -> None:
            await shop.send()
            ran.append("sent")

        async with opening() as shop:
            errands["errand"] = errand
            await shop.send("fail_once")
            await shop.send("errand")
            expected = {"sent", *await self.framework.send_more(shop.app)}
            await shop.hook()
            async with self.framework.working(shop.app):
                await shop.driver.until(lambda: expected <= set(ran) and ran.count("try") == 2)
                with pytest.raises(JobShedError):  # it was an overload all the while, and here is no worker
                    await shop.send()
            assert ran.count("try") == 2
            assert shop.passed[QUEUE, "worker"] >= 1
            assert shop.shed == 1

    @promise
    async def test_a_worker_beside_a_producer_opens_nothing_of_the_producers(self, opening: OpenShop) -> None:
        told: list[Mapping[str, Outcome]] = []
        go: list[None] = []

        async def errand() -> None:
            told.append(await shop.everywhere())
            await shop.driver.until(lambda: go)

        async with opening() as shop:
            errands["errand"] = errand
            await shop.send("errand")
            await shop.hook()
            async with self.framework.working(shop.app):
                try:
                    await shop.driver.until(lambda: told)
                    assert all_shed(await shop.everywhere())
                finally:
                    go.append(None)
            assert told == [dict.fromkeys(shop.driver.ways)]
            assert shop.passed == {(QUEUE, "worker"): len(shop.driver.ways)}
            assert all_shed(await shop.everywhere())  # the worker is over

    @promise
    async def test_what_named_jobs_send_is_judged_and_of_no_others(self, opening: OpenShop) -> None:
        told: dict[str, Mapping[str, Outcome]] = {}

        def sends(name: str) -> Callable[[], Awaitable[None]]:
            async def everywhere() -> None:
                told[name] = await shop.everywhere()

            return everywhere

        async with opening() as shop:
            for job in ("campaign", "errand"):
                errands[job] = sends(job)
                await shop.send(job)
            await shop.hook(inside_tasks={self.framework.name("campaign")})
            async with self.framework.working(shop.app):
                await shop.driver.until(lambda: len(told) == 2)
            assert all_shed({way: told["campaign"][way] for way in shop.driver.judged})
            assert told["errand"] == dict.fromkeys(shop.driver.ways)
            assert shop.passed[QUEUE, "worker"] >= len(shop.driver.ways)
            assert shop.shed >= len(shop.driver.judged)

    @promise
    async def test_a_named_job_waits_no_longer_than_max_wait(self, opening: OpenShop) -> None:
        told: list[Mapping[str, Outcome]] = []

        async def campaign() -> None:
            told.append(await shop.everywhere())

        async with opening() as shop:
            errands["campaign"] = campaign
            await shop.send("campaign")
            await shop.hook("medium", inside_tasks=[self.framework.name("campaign")], max_wait=0.05)
            async with self.framework.working(shop.app):
                await shop.driver.until(lambda: told)
            kinds = {told[0][way] for way in shop.driver.judged}
            assert all(kind is not None and issubclass(kind, ThrottledError) for kind in kinds)
