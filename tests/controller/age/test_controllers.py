"""Controllers that hold an age: each way to enqueue, ended in each way, while a store answers as the test says."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from backpressure import (
    AgeConfig,
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    BackpressureError,
    BatchJob,
    CircuitOpenError,
    ConfigurationError,
    ControllerStoppedError,
    InMemoryStatsProvider,
    InvalidPriorityError,
    InvalidQueueError,
    JobShedError,
    Priority,
    QueueConfig,
    Reason,
    StatsUnavailableError,
    ThrottledError,
)
from backpressure._age.protocol import MILLION, Answer, Terms
from backpressure._engine.totals import REASONS
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SHUT = Terms(0, 0, 0, 0, 0, 0, 0)
OPEN = Terms(MILLION, 1_000, 0, 1_000 * MILLION, 1, 0, 0)
FAST = Terms(0, 0, 100 * MILLION, 2 * MILLION, 0, 0, 0)
# Places in the arguments of the script, see docs/reference/age-protocol.md.
_AT_LIMIT, _AT_DECIDED, _AT_ENQUEUED = 11, 14, 32


class Store:
    """Answers every call with the same terms, and keeps what it was told."""

    def __init__(self) -> None:
        self.terms = (OPEN, OPEN, OPEN)
        self.is_lost = False
        self.wait_ms = 60_000
        self.told: list[list[int | str]] = []

    def exchange(self, calls: Mapping[str, Sequence[int | str]]) -> dict[str, Answer | StatsUnavailableError]:
        if self.is_lost:
            return {key: StatsUnavailableError("away", error_type="connect") for key in calls}
        self.told += [list(arguments) for arguments in calls.values()]
        answer = Answer(
            now_ms=1,
            ticks=9,
            drain_mjobs_per_s=200_000,
            budget_mjobs_per_s=200_000,
            age_ms=400,
            backlog_jobs=80,
            processes=1,
            spare_mjobs_per_s=0,
            is_sampler=False,
            wait_ms=self.wait_ms,
            terms=self.terms,
        )
        return dict.fromkeys(calls, answer)

    def enqueued(self) -> int:
        return sum(int(told[_AT_ENQUEUED]) for told in self.told)

    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class Provider(InMemoryStatsProvider):
    """One that keeps budgets."""

    def __init__(self, store: Store) -> None:
        super().__init__({"mail": 80, "other": 80})
        self.store = store

    def budget_store(self, queue_name: str) -> Store:
        del queue_name
        return self.store


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("backpressure._controller.age.stores._store", lambda where: where)
    return Store()


def config(**changes: Any) -> BackpressureConfig:
    return BackpressureConfig().evolve(
        {"polling.busy_interval": "100ms", "polling.timeout": "500ms", "age.target": "500ms", **changes}
    )


@pytest.fixture
def make(store: Store, engine_name: str) -> Iterator[Callable[..., BackpressureController]]:
    made: list[BackpressureController] = []

    def make_(**changes: Any) -> BackpressureController:
        controller = BackpressureController(config(**changes), Provider(store), _engine=engine_name)
        made.append(controller)
        controller.start()
        return controller

    yield make_
    for controller in made:
        controller.stop()


def answered(controller: Any, store: Store, *terms: Terms) -> None:
    """Have the controller's budget renewed by these terms."""
    store.terms = terms or store.terms  # type: ignore[assignment]
    budget = controller._budgets.all()["mail"]
    before = budget.answer
    budget.lease.call_at_us = 0
    budget.lease.let_go_anyway(0)
    budget.lease.take_back()
    budget.lease._decided[0] += 1
    controller._poller.note_busy()
    eventually(lambda: budget.answer is not before and not budget.lease.in_flight)


def waiting(controller: Any) -> tuple[int, int, int]:
    counts: tuple[int, int, int] = controller._budgets.all()["mail"].waiting()
    return counts


class TestWays:
    def test_what_fits_goes_by_any_way(self, make: Callable[..., BackpressureController], store: Store) -> None:
        controller = make()
        went: list[str] = []

        @controller.throttled("low", "mail")
        def send(word: str) -> None:
            went.append(word)

        for priority in ("low", "medium", "high"):
            controller.run(priority, "mail", went.append, "run")
            controller.gate(priority, "mail").run(went.append, "gate")
            with controller.slot(priority, "mail") as decision:
                assert decision.reason is Reason.AGE_OPEN
        send("throttled")
        result = controller.process_batch([BatchJob("low", "mail", lambda: went.append("batch"))] * 3)
        assert result.count("succeeded") == 3
        assert len(went) == 10
        answered(controller, store)
        assert store.enqueued() == 13

    def test_memory_cuts_the_budget_and_refusals_say_so(
        self, make: Callable[..., BackpressureController], store: Store
    ) -> None:
        controller = make()
        provider: Any = controller._provider
        for used, limit, reason in ((0.95, 0, "memory"), (0.875, 500, "memory"), (0.84, 1_000, "age_shed")):
            provider.set("mail", 80, memory_used=used)
            controller.refresh("mail")
            answered(controller, store, OPEN, OPEN, SHUT)
            assert store.told[-1][_AT_LIMIT] == limit
            assert controller.suggest_throttle("low", "mail").reason == reason
            assert controller.suggest_throttle("high", "mail").delay == 0

    def test_what_does_not_is_refused_by_priority(
        self, make: Callable[..., BackpressureController], store: Store
    ) -> None:
        store.terms = (SHUT, SHUT, SHUT)
        controller, went = make(), list[str]()
        with pytest.raises(JobShedError) as shed:
            controller.run("low", "mail", went.append, "low")
        with pytest.raises(ThrottledError) as late:
            controller.run("medium", "mail", went.append, "medium", max_wait=0.05)
        controller.run("high", "mail", went.append, "high", max_wait=0.05)
        assert went == ["high"]
        assert (shed.value.reason, late.value.reason) == (Reason.AGE_SHED, Reason.AGE_WAIT)
        assert shed.value.retry_after is not None
        assert shed.value.retry_after > 0
        assert (late.value.retry_after or 0) > 0.05

    def test_medium_is_shed_if_so_wanted(self, make: Callable[..., BackpressureController], store: Store) -> None:
        store.terms = (SHUT, SHUT, SHUT)
        controller = make(**{"age.medium": "shed"})
        with pytest.raises(JobShedError):
            controller.run("medium", "mail", int, max_wait=0.05)

    def test_a_batch_reports_sheds_and_delays(self, make: Callable[..., BackpressureController], store: Store) -> None:
        store.terms = (OPEN, FAST, SHUT)
        controller, went = make(), list[str]()
        jobs = [BatchJob("low", "mail", lambda: went.append("low"))] * 2
        jobs += [BatchJob("medium", "mail", lambda: went.append("medium"))] * 5
        result = controller.process_batch(jobs)
        assert [outcome.status for outcome in result.outcomes] == ["shed"] * 2 + ["succeeded"] * 5
        assert went == ["medium"] * 5

    def test_suggestions_never_wait(self, make: Callable[..., BackpressureController], store: Store) -> None:
        store.terms = (SHUT, Terms(0, 0, MILLION, 2 * MILLION, 0, 0, 0), SHUT)
        controller = make()
        assert controller.suggest_throttle("low", "mail").should_shed
        delays = [controller.suggest_throttle("medium", "mail").delay for _ in range(3)]
        assert delays == sorted(delays)
        assert 0 < delays[-1] <= 0.5
        assert controller.suggest_throttle("high", "mail").delay <= 0.25

    def test_looking_changes_nothing(self, make: Callable[..., BackpressureController], store: Store) -> None:
        store.terms = (OPEN, OPEN, SHUT)
        controller = make()
        seen = [str(controller.peek(priority, "mail").reason) for priority in ("low", "medium", "high") * 2]
        assert seen == ["age_shed", "age_open", "age_open"] * 2
        assert controller.health()["queues"]["mail"]["advice"]["low"]["should_shed"]
        answered(controller, store)
        assert all(int(told[_AT_DECIDED + 2]) == 0 for told in store.told)

    def test_other_queues_keep_the_table(self, store: Store, engine_name: str) -> None:
        held = BackpressureConfig(queues={"mail": QueueConfig(age=AgeConfig(target=5))})
        with BackpressureController(held, Provider(store), _engine=engine_name) as controller:
            assert controller.suggest_throttle("low", "mail").reason is Reason.AGE_OPEN
            assert controller.suggest_throttle("low", "other").reason is Reason.BACKLOG_GREEN


PRESSED = Terms(1_000, 1_000, 100 * MILLION, 2 * MILLION, 0, 0, 0)  # of the impatient one in 1,000 goes


def _shed(call: Callable[[], object]) -> None:
    with pytest.raises(JobShedError) as refused:
        call()
    assert (refused.value.reason, str(refused.value.priority)) == (Reason.AGE_SHED, "low")


def _enter(slot: Any) -> None:
    with slot:
        pass


def _batch(controller: BackpressureController, **how: Any) -> None:
    (outcome,) = controller.process_batch([BatchJob("low", "mail", int, **how)]).outcomes
    assert outcome.status == "shed"


# What an impatient LOW job may come by.
IMPATIENT: dict[str, Callable[[BackpressureController], object]] = {
    "suggest": lambda it: it.suggest_throttle("low", "mail"),
    "gate's suggest": lambda it: it.gate(Priority.LOW, "mail").suggest(),
    "run": lambda it: _shed(lambda: it.run("low", "mail", int)),
    "run, max_wait 0": lambda it: _shed(lambda: it.run(Priority.LOW, "mail", int, max_wait=0)),
    "run, short max_wait": lambda it: _shed(lambda: it.run("low", "mail", int, max_wait=0.05)),
    "gate": lambda it: _shed(lambda: it.gate("low", "mail").run(int)),
    "gate, max_wait 0": lambda it: _shed(lambda: it.gate("low", "mail", max_wait=0).run(int)),
    "slot": lambda it: _shed(lambda: _enter(it.slot("low", "mail", max_wait=0))),
    "batch": _batch,
}


class TestRefusals:
    """What a lease refuses without asking."""

    @staticmethod
    def _judged(controller: Any, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        """Return where it is written down whom the budget is asked for."""
        judge, asked = controller._budgets.judge, list[object]()

        def written(*job: object) -> object:
            asked.append(job)
            return judge(*job)

        monkeypatch.setattr(controller._budgets, "judge", written)
        return asked

    @staticmethod
    def _decided(store: Store) -> int:
        return sum(int(told[_AT_DECIDED + 2]) for told in store.told)

    @pytest.mark.parametrize("way", IMPATIENT)
    def test_a_thousand_ask_the_budget_a_few_times(
        self, make: Callable[..., BackpressureController], store: Store, monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        store.terms = (SHUT, SHUT, attrs.evolve(PRESSED, share_ppm=0))
        controller = make()
        asked = self._judged(controller, monkeypatch)
        for _ in range(1_000):
            IMPATIENT[way](controller)
        assert 1 <= len(asked) <= 20  # a new sample of the queue is one more
        shed = controller._engine.totals()["mail", 0]
        assert sum(shed.reasons) == shed.reasons[REASONS.index(Reason.AGE_SHED)] == 1_000
        answered(controller, store)
        assert self._decided(store) == 1_000
        assert store.enqueued() == 0

    def test_a_part_goes_between_them(
        self, make: Callable[..., BackpressureController], store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.terms = (SHUT, SHUT, attrs.evolve(PRESSED, share_ppm=10_000))
        controller = make()
        asked = self._judged(controller, monkeypatch)
        went = sum(not controller.suggest_throttle("low", "mail").should_shed for _ in range(2_000))
        assert 20 <= went <= 21  # it begins somewhere in a job
        assert len(asked) <= 20
        answered(controller, store)
        assert (self._decided(store), store.enqueued()) == (2_000, went)

    @pytest.mark.parametrize("how", [{"max_wait": 1}, {"max_wait": {"low": 1}}, {"patient": True}, {"max_wait": 0.2}])
    def test_who_can_wait_is_not_refused_by_it(
        self, make: Callable[..., BackpressureController], store: Store, how: dict[str, Any]
    ) -> None:
        store.terms = (SHUT, SHUT, attrs.evolve(PRESSED, share_ppm=0))
        controller = make()
        assert controller.suggest_throttle("low", "mail").should_shed
        assert controller.run("low", "mail", int, **how) == 0
        with controller.slot("low", "mail", **how):
            pass
        assert controller.process_batch([BatchJob("low", "mail", int, **how)]).count("succeeded") == 1

    def test_several_jobs_are_each_decided(
        self, make: Callable[..., BackpressureController], store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.terms = (SHUT, SHUT, attrs.evolve(PRESSED, share_ppm=0))
        controller = make()
        controller.suggest_throttle("low", "mail")
        asked = self._judged(controller, monkeypatch)
        for _ in range(2):
            _shed(lambda: _enter(controller.slot("low", "mail", jobs=10)))
        assert len(asked) == 2
        answered(controller, store)
        assert (self._decided(store), store.enqueued()) == (21, 0)

    def test_what_is_given_is_checked_as_ever(self, make: Callable[..., BackpressureController], store: Store) -> None:
        store.terms = (SHUT, SHUT, SHUT)
        controller = make()
        controller.suggest_throttle("low", "mail")
        for max_wait in (-1, math.nan, "soon", True, {"lower": 1}):
            with pytest.raises(ConfigurationError):
                controller.run("low", "mail", int, max_wait=max_wait)  # type: ignore[arg-type]
        with pytest.raises(InvalidQueueError):
            controller.run("low", ["mail"], int, max_wait=0)  # type: ignore[arg-type]
        with pytest.raises(InvalidPriorityError):
            controller.run("lower", "mail", int, max_wait=0)

    def test_jobs_of_tasks_are_refused_so_too(
        self, store: Store, engine_name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.terms = (SHUT, SHUT, attrs.evolve(PRESSED, share_ppm=0))

        async def refuse() -> int:
            async with AsyncBackpressureController(config(), Provider(store), _engine=engine_name) as controller:
                asked = self._judged(controller, monkeypatch)
                for _ in range(200):
                    with pytest.raises(JobShedError):
                        await controller.run("low", "mail", int, max_wait=0)
                assert await controller.run("low", "mail", int, max_wait=1) == 0
                return len(asked)

        assert 2 <= asyncio.run(refuse()) <= 20


class TestSeveralJobs:
    def test_a_slot_counts_them_all(self, make: Callable[..., BackpressureController], store: Store) -> None:
        controller = make()
        for _ in range(2):  # the engine lets the second one go by itself
            with controller.slot("low", "mail", jobs=100):
                pass
            with pytest.raises(ZeroDivisionError), controller.slot("medium", "mail", jobs=100):
                divmod(1, 0)
        answered(controller, store)
        assert store.enqueued() == 200

    def test_none_goes_before_the_last(self, make: Callable[..., BackpressureController], store: Store) -> None:
        store.terms = (SHUT, FAST, SHUT)
        controller = make()
        with controller.slot("medium", "mail", jobs=10) as decision:
            assert decision.reason is Reason.AGE_WAIT
        with pytest.raises(ThrottledError), controller.slot("medium", "mail", jobs=1_000, max_wait=1):
            pass
        assert waiting(controller) == (0, 0, 0)

    @pytest.mark.parametrize("jobs", [0, -1, 1.5, True, "2", 10_001, None])
    def test_impossible_numbers_are_refused(
        self, make: Callable[..., BackpressureController], store: Store, jobs: Any
    ) -> None:
        del store
        with (
            pytest.raises(ConfigurationError, match=r"jobs is .*: give 1 to 10,000"),
            make().slot("low", "mail", jobs=jobs),
        ):
            pass


class TestLine:
    def line_up(self, controller: BackpressureController, count: int, went: list[Any]) -> list[threading.Thread]:
        def enqueue(place: int) -> None:
            try:
                controller.run("medium", "mail", went.append, place)
            except BaseException as error:  # noqa: BLE001 - it is looked at
                went.append(error)

        threads = []
        for place in range(count):
            threads.append(threading.Thread(target=enqueue, args=(place,)))
            threads[-1].start()
            eventually(lambda place=place: waiting(controller)[1] == place + 1)  # type: ignore[misc]
        return threads

    def test_all_go_as_fast_as_it_grows(self, make: Callable[..., BackpressureController], store: Store) -> None:
        store.terms = (SHUT, SHUT, SHUT)
        controller, went = make(), list[Any]()
        threads = self.line_up(controller, 10, went)
        answered(controller, store, SHUT, FAST, SHUT)
        for thread in threads:
            thread.join(10)
        assert sorted(went) == list(range(10))  # threads that are woken together run in any order
        assert waiting(controller) == (0, 0, 0)

    def test_a_stop_ends_it(self, make: Callable[..., BackpressureController], store: Store) -> None:
        store.terms = (SHUT, SHUT, SHUT)
        controller, went = make(), list[Any]()
        threads = self.line_up(controller, 3, went)
        controller.stop()
        for thread in threads:
            thread.join(10)
        assert [type(it) for it in went] == [ControllerStoppedError] * 3
        assert waiting(controller) == (0, 0, 0)

    def test_the_override_lets_all_go(self, make: Callable[..., BackpressureController], store: Store) -> None:
        store.terms = (SHUT, SHUT, SHUT)
        controller, went = make(), list[Any]()
        threads = self.line_up(controller, 3, went)
        controller.set_manual_override(True)
        for thread in threads:
            thread.join(10)
        assert sorted(went) == [0, 1, 2]
        assert waiting(controller) == (0, 0, 0)

    def test_the_table_takes_over_where_no_age_is_held_any_more(
        self, make: Callable[..., BackpressureController], store: Store
    ) -> None:
        store.terms = (SHUT, SHUT, SHUT)
        controller, went = make(), list[Any]()
        threads = self.line_up(controller, 3, went)
        controller.reconfigure(config(**{"age.target": None}))
        for thread in threads:
            thread.join(10)
        assert sorted(went) == [0, 1, 2]
        assert controller.suggest_throttle("low", "mail").reason is Reason.BACKLOG_GREEN
        controller.reconfigure(config())
        assert controller.suggest_throttle("medium", "mail").reason in {Reason.AGE_WAIT, Reason.FALLBACK_CONSERVATIVE}

    def test_a_circuit_that_opens_meanwhile_refuses(
        self, make: Callable[..., BackpressureController], store: Store
    ) -> None:
        store.terms = (SHUT, SHUT, SHUT)
        controller, went = make(), list[Any]()
        threads = self.line_up(controller, 2, went)
        controller.circuit("mail").force_open()
        answered(controller, store, SHUT, FAST, SHUT)
        for thread in threads:
            thread.join(10)
        assert [type(it) for it in went] == [CircuitOpenError] * 2
        answered(controller, store)
        assert store.enqueued() == 0

    def test_a_patient_low_job_waits_for_its_turn(
        self, make: Callable[..., BackpressureController], store: Store
    ) -> None:
        store.terms = (SHUT, SHUT, SHUT)
        controller, went = make(), list[str]()
        thread = threading.Thread(
            target=controller.run, args=("low", "mail", went.append, "a"), kwargs={"patient": True}
        )
        thread.start()
        eventually(lambda: waiting(controller)[2] == 1)
        answered(controller, store, SHUT, SHUT, FAST)
        thread.join(10)
        assert went == ["a"]

    def test_nothing_waits_on_an_event_loop(self, make: Callable[..., BackpressureController], store: Store) -> None:
        store.terms = (SHUT, SHUT, SHUT)
        controller = make()

        async def main() -> None:
            with pytest.warns(RuntimeWarning), pytest.raises(BackpressureError, match="event loop"):
                controller.run("medium", "mail", int)
            controller.run("high", "mail", int)

        asyncio.run(main())
        assert waiting(controller) == (0, 0, 0)


class TestOutcomes:
    def test_work_that_fails_was_not_enqueued(self, make: Callable[..., BackpressureController], store: Store) -> None:
        controller = make()
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                controller.run("low", "mail", divmod, 1, 0)
            with pytest.raises(ZeroDivisionError), controller.slot("medium", "mail"):
                divmod(1, 0)
        controller.run("low", "mail", int)
        answered(controller, store)
        assert store.enqueued() == 1

    def test_nor_was_what_is_under_way(self, make: Callable[..., BackpressureController], store: Store) -> None:
        controller = make()
        with controller.slot("medium", "mail", max_wait=0.4):
            answered(controller, store)
            assert store.enqueued() == 0
        answered(controller, store)
        assert store.enqueued() == 1

    def test_nor_was_what_fails_in_observe_mode(
        self, make: Callable[..., BackpressureController], store: Store
    ) -> None:
        store.terms = (SHUT, SHUT, SHUT)
        controller = make(mode="observe")
        with pytest.raises(ZeroDivisionError):
            controller.run("low", "mail", divmod, 1, 0)
        controller.run("low", "mail", int)
        answered(controller, store)
        assert store.enqueued() == 1

    def test_nor_was_what_a_circuit_refuses_after_all(
        self, make: Callable[..., BackpressureController], store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        controller = make(**{"circuit.recovery_timeout": "10ms", "circuit.failure_threshold": 1})
        with pytest.raises(ZeroDivisionError):
            controller.run("low", "mail", divmod, 1, 0)
        eventually(lambda: controller.peek("low", "mail").reason is Reason.AGE_OPEN)
        judge = controller._budgets.judge

        def probed_meanwhile(queue_name: str, priority: Any) -> Any:
            judged = judge(queue_name, priority)
            if (breaker := controller._engine.breaker("mail", False)) is not None:
                breaker.try_acquire()
            return judged

        monkeypatch.setattr(controller._budgets, "judge", probed_meanwhile)
        with pytest.raises(CircuitOpenError):
            controller.run("low", "mail", int, max_wait=0.4)
        monkeypatch.undo()
        answered(controller, store)
        assert store.enqueued() == 0

    def test_observe_mode_refuses_nothing_and_counts_all(
        self, make: Callable[..., BackpressureController], store: Store
    ) -> None:
        store.terms = (SHUT, SHUT, SHUT)
        controller, went = make(mode="observe"), list[int]()
        for place in range(5):
            controller.run("low", "mail", went.append, place)
        decision = controller.suggest_throttle("low", "mail")
        assert decision.reason is Reason.OBSERVE_ONLY
        assert decision.advised is not None
        assert decision.advised.reason is Reason.AGE_SHED
        answered(controller, store)
        assert (len(went), store.enqueued()) == (5, 6)


class TestStores:
    def test_a_lost_store_is_told_and_does_not_end_anything(self, store: Store, engine_name: str) -> None:
        store.is_lost, store.wait_ms = True, 100
        controller = BackpressureController(config(), Provider(store), _engine=engine_name)
        changes: list[tuple[str, str, str]] = []
        controller.add_listener(lambda change: changes.append((change.kind, change.old, change.new)))
        with controller:
            assert controller.suggest_throttle("low", "mail").reason is Reason.FALLBACK_CONSERVATIVE
            store.is_lost = False
            eventually(lambda: ("lease", "new", "coordinated") in changes)
            assert controller.suggest_throttle("low", "mail").reason is Reason.AGE_OPEN
            budget = controller._budgets.all()["mail"]

            def offers(state: str) -> bool:
                controller.suggest_throttle("low", "mail")
                return budget.state == state

            store.is_lost = True
            eventually(lambda: offers("local"))
            store.is_lost = False
            eventually(lambda: offers("coordinated"))

    def test_a_provider_that_keeps_none_is_refused(self, engine_name: str) -> None:
        with pytest.raises(ConfigurationError, match=r"age\.store is missing: InMemoryStatsProvider keeps no budgets"):
            BackpressureController(config(), InMemoryStatsProvider(), _engine=engine_name)
        controller = BackpressureController(
            config(**{"age.target": None}), InMemoryStatsProvider(), _engine=engine_name
        )
        with pytest.raises(ConfigurationError, match=r"age\.store is missing"):
            controller.reconfigure(config())
        assert controller.get_circuit_state("mail") == "closed"  # it goes on

    def test_a_queue_that_nobody_reads_keeps_no_other_from_its_calls(self, store: Store, engine_name: str) -> None:
        class Choosy(Provider):
            def budget_store(self, queue_name: str) -> Store:
                if queue_name == "other":
                    raise StatsUnavailableError("no section matches", error_type="missing")
                return self.store

        with BackpressureController(config(), Choosy(store), _engine=engine_name) as controller:
            assert controller.suggest_throttle("low", "mail").reason is Reason.AGE_OPEN
            assert controller.suggest_throttle("low", "other").reason is Reason.FALLBACK_CONSERVATIVE

    def test_a_store_in_a_variable_that_is_missing_is_named(self, engine_name: str) -> None:
        with pytest.raises(ConfigurationError, match="NO_SUCH_STORE"):
            BackpressureController(
                config(**{"age.store": "$NO_SUCH_STORE"}), InMemoryStatsProvider(), _engine=engine_name
            )

    def test_doubtful_settings_are_logged(
        self, store: Store, engine_name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        BackpressureController(config(**{"age.low_floor": 0.9}), Provider(store), _engine=engine_name)
        assert "low_floor is 0.9" in caplog.text

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_child_is_a_producer_of_its_own(
        self, make: Callable[..., BackpressureController], store: Store
    ) -> None:
        controller = make()
        controller.run("low", "mail", int)
        mine, budget = controller._budgets._producer_id, controller._budgets.all()["mail"]
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                eventually(lambda: controller.suggest_throttle("low", "mail").reason is Reason.AGE_OPEN)
                os.write(write, controller._budgets._producer_id.encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as told:
            other = told.read()
        os.waitpid(child, 0)
        assert other
        assert other != mine
        assert controller._budgets.all()["mail"] is budget  # what the parent was granted stays its own


class TestAsync:
    def run(self, main: Callable[[AsyncBackpressureController], Any], store: Store, engine_name: str) -> None:
        async def run() -> None:
            async with AsyncBackpressureController(config(), Provider(store), _engine=engine_name) as controller:
                await main(controller)
                assert waiting(controller) == (0, 0, 0)
                assert controller._budgets.all()["mail"].lease.unfinished == 0

        asyncio.run(run())

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not is_so():
                await asyncio.sleep(0.005)

    async def renew(self, controller: Any, store: Store, *terms: Terms) -> None:
        await asyncio.to_thread(answered, controller, store, *terms)

    def test_all_ways(self, store: Store, engine_name: str) -> None:
        async def main(controller: AsyncBackpressureController) -> None:
            went: list[str] = []
            await controller.run("low", "mail", went.append, "run")
            await controller.run("medium", "mail", asyncio.sleep, 0)
            async with controller.slot("low", "mail"):
                went.append("slot")
            async with controller.gate("medium", "mail"):
                went.append("gate")
            result = await controller.process_batch([BatchJob("low", "mail", lambda: went.append("batch"))] * 2)
            assert result.count("succeeded") == 2
            assert went == ["run", "slot", "gate", "batch", "batch"]
            store.terms = (SHUT, SHUT, SHUT)
            await self.renew(controller, store)
            with pytest.raises(JobShedError):
                await controller.run("low", "mail", int)
            with pytest.raises(ThrottledError):
                await controller.run("medium", "mail", int, max_wait=0.05)

        self.run(main, store, engine_name)

    def test_many_tasks_go_as_fast_as_the_budget_grows(self, store: Store, engine_name: str) -> None:
        store.terms = (SHUT, SHUT, SHUT)

        async def main(controller: AsyncBackpressureController) -> None:
            went: list[int] = []

            async def enqueue(place: int) -> None:
                await controller.run("medium", "mail", went.append, place)

            tasks = [asyncio.create_task(enqueue(place)) for place in range(300)]
            await self.until(lambda: waiting(controller)[1] == 300)
            await self.renew(controller, store, SHUT, Terms(0, 0, 2_000 * MILLION, 2 * MILLION, 0, 0, 0), SHUT)
            await asyncio.gather(*tasks)
            assert sorted(went) == list(range(300))  # they are let go in order, and then run in any

        self.run(main, store, engine_name)

    def test_a_cancelled_task_hands_its_place_on(self, store: Store, engine_name: str) -> None:
        store.terms = (SHUT, SHUT, SHUT)

        async def main(controller: AsyncBackpressureController) -> None:
            went: list[int] = []
            tasks = [asyncio.create_task(controller.run("medium", "mail", went.append, place)) for place in range(10)]
            await self.until(lambda: waiting(controller)[1] == 10)
            for task in tasks[:9]:
                task.cancel()
            await self.until(lambda: waiting(controller)[1] == 1)
            await self.renew(controller, store, SHUT, Terms(0, 0, 10 * MILLION, 2 * MILLION, 0, 0, 0), SHUT)
            await tasks[9]
            assert went == [9]

        self.run(main, store, engine_name)

    def test_a_task_that_is_cancelled_at_its_work_is_taken_back(self, store: Store, engine_name: str) -> None:
        async def main(controller: AsyncBackpressureController) -> None:
            for way in ("run", "slot"):
                began = asyncio.Event()

                async def work(began: asyncio.Event = began) -> None:
                    began.set()
                    await asyncio.sleep(60)

                async def slot(work: Any = work) -> None:
                    async with controller.slot("medium", "mail"):
                        await work()

                task = asyncio.create_task(controller.run("medium", "mail", work) if way == "run" else slot())
                await began.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await self.renew(controller, store)
            assert store.enqueued() == 0

        self.run(main, store, engine_name)
