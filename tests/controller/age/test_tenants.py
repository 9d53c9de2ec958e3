"""Tenants at controllers: each way to enqueue on their behalf, both laws, and what is told of them."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    BatchJob,
    ConfigurationError,
    InMemoryStatsProvider,
    JobShedError,
    Reason,
    Tenant,
)
from backpressure._age.protocol import MILLION, Terms
from backpressure._age.tenants import Tenants
from backpressure.testing import ManualClock
from controller.age.test_controllers import OPEN, Provider, Store, answered, config, make, store

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["make", "store"]

FIFTH = Terms(MILLION // 5, 100_000, 0, 0, 0, 0, 0)
#: What each offers of a round: one half of all, ten others the rest.
ASKS = {"hog": 50, **{f"t{index}": 5 for index in range(10)}}


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no two of them share a bucket: chance alone decides that, and who meets the hog gets less."""

    def salt(bits: int) -> int:
        for found in itertools.count(1, step=0x9E37_79B9_7F4A_7C15):
            places = [Tenants(found % 2**bits, 0).place(name) or 0 for name in ASKS]
            rows = {place >> 8 & 255 for place in places}, {place & 255 for place in places}
            if all(len(row) == len(ASKS) for row in rows):
                return int(found % 2**bits)
        raise AssertionError("unreachable")

    for module in ("sparing", "age.shares"):
        monkeypatch.setattr(f"backpressure._controller.{module}.secrets.randbits", salt)


def turns() -> list[str]:
    """Return who asks, one after the other, in one round."""
    order = [name for name, times in ASKS.items() for _ in range(times)]
    return [order[index * 37 % len(order)] for index in range(len(order))]


def learn(controller: BackpressureController, store: Store, ask: Callable[[str], object], rounds: int = 6) -> None:
    """Have it be known what each asks for."""
    for _ in range(rounds):
        for name in turns():
            ask(name)
        answered(controller, store)


@pytest.fixture
def pressed(make: Callable[..., BackpressureController], store: Store) -> BackpressureController:
    """A controller by which a fifth of LOW goes, and which knows what each tenant asks for."""
    controller = make(**{"age.tenant_weights": {"gold": 4}})
    controller.suggest_throttle("low", "mail")
    answered(controller, store, OPEN, FIFTH, FIFTH)
    learn(controller, store, lambda name: controller.suggest_throttle("low", "mail", tenant=name))
    return controller


class TestWays:
    """A fifth of 100 offers are 20: 10 others that ask for 5 each and the hog get 1.8 each."""

    def goes(self, controller: BackpressureController, store: Store, ask: Callable[[str], bool]) -> Counter[str]:
        went: Counter[str] = Counter()
        for _ in range(10):
            for name in turns():
                went[name] += ask(name)
            answered(controller, store)
        return went

    def check(self, went: Counter[str]) -> None:
        assert went.total() == pytest.approx(200, rel=0.06)
        assert went["hog"] == pytest.approx(18, abs=6)
        assert all(7 <= went[name] <= 29 for name in ASKS)  # the least where two share both of their buckets

    def test_suggestions(self, pressed: BackpressureController, store: Store) -> None:
        ask = lambda name: not pressed.suggest_throttle("low", "mail", tenant=name).should_shed  # noqa: E731
        self.check(self.goes(pressed, store, ask))

    def test_suggestions_of_a_gate(self, pressed: BackpressureController, store: Store) -> None:
        gate = pressed.gate("low", "mail")
        self.check(self.goes(pressed, store, lambda name: not gate.suggest_for(name).should_shed))

    @pytest.mark.parametrize("way", ["run", "gate", "slot", "throttled", "throttled by a function"])
    def test_runs(self, pressed: BackpressureController, store: Store, way: str) -> None:
        gate = pressed.gate("low", "mail")

        def slot(name: str) -> str:
            with pressed.slot("low", "mail", tenant=name):
                return name

        ways: dict[str, Callable[[str], str]] = {
            "run": lambda name: pressed.run("low", "mail", str, name, tenant=name),
            "gate": lambda name: gate.run_for(name, str, name),
            "slot": slot,
            "throttled": lambda name: pressed.throttled("low", "mail", tenant=name)(str)(name),
            "throttled by a function": pressed.throttled("low", "mail", tenant=lambda name: name)(str),
        }

        def ask(name: str) -> bool:
            try:
                return ways[way](name) == name
            except JobShedError:
                return False

        self.check(self.goes(pressed, store, ask))

    def test_batches(self, pressed: BackpressureController, store: Store) -> None:
        went: Counter[str] = Counter()
        for _ in range(10):
            names = turns()
            jobs = [BatchJob("low", "mail", int, tenant=name) for name in names]
            outcomes = pressed.process_batch(jobs).outcomes
            went.update(name for name, outcome in zip(names, outcomes, strict=True) if outcome.status == "succeeded")
            answered(pressed, store)
        self.check(went)

    def test_a_class_of_weights_gets_more(self, pressed: BackpressureController, store: Store) -> None:
        whose = {"hog": Tenant("hog", "gold")}
        learn(pressed, store, lambda name: pressed.suggest_throttle("low", "mail", tenant=whose.get(name, name)))
        went = self.goes(
            pressed,
            store,
            lambda name: not pressed.suggest_throttle("low", "mail", tenant=whose.get(name, name)).should_shed,
        )
        # 4 of 14 parts.
        assert went["hog"] == pytest.approx(200 * 4 / 14, rel=0.15)

    def test_who_gives_no_tenant_gets_the_share(self, pressed: BackpressureController, store: Store) -> None:
        went = self.goes(pressed, store, lambda _: not pressed.suggest_throttle("low", "mail").should_shed)
        assert went.total() == 200
        assert went["hog"] == pytest.approx(100, abs=8)

    def test_they_are_counted_as_by_share(self, pressed: BackpressureController) -> None:
        before = pressed._engine.totals()["mail", 0].reasons
        answers = [pressed.suggest_throttle("low", "mail", tenant=name).reason for name in turns()]
        counts = Counter(answers)
        assert set(counts) == {Reason.AGE_SHARE, Reason.AGE_SHED}
        after = pressed._engine.totals()["mail", 0].reasons
        assert sum(after) - sum(before) == len(answers)


class TestHealth:
    def test_names_who_asks_most(self, pressed: BackpressureController, store: Store) -> None:
        learn(pressed, store, lambda name: pressed.suggest_throttle("low", "mail", tenant=name))
        told = pressed.health()["queues"]["mail"]["tenants"]
        assert set(told) == {"low"}
        assert len(told["low"]) <= 8
        first, *others = told["low"]
        assert first["tenant"] == "hog"
        assert first["class"] == ""
        assert all(first["asks"] == pytest.approx(10 * other["asks"], rel=0.3) for other in others)
        assert all(first["share"] < other["share"] < 1 for other in others)

    def test_says_nothing_without_tenants(self, make: Callable[..., BackpressureController]) -> None:
        controller = make()
        controller.suggest_throttle("low", "mail")
        assert controller.health()["queues"]["mail"]["tenants"] == {}


def test_asyncio(store: Store, engine_name: str) -> None:
    async def main() -> None:
        async with AsyncBackpressureController(config(), Provider(store), _engine=engine_name) as controller:
            store.terms = (OPEN, FIFTH, FIFTH)
            await controller.suggest_throttle("low", "mail")
            budget = controller._budgets.all()["mail"]
            budget.renew(attrs_answer(store))
            gate = controller.gate("low", "mail")

            @controller.throttled("low", "mail", tenant=lambda name: name)
            async def throttled(name: str) -> str:
                return name

            async def slot(name: str) -> str:
                async with controller.slot("low", "mail", tenant=name):
                    return name

            for ask in (
                lambda name: controller.run("low", "mail", str, name, tenant=name),
                lambda name: gate.run_for(name, str, name),
                throttled,
                slot,
            ):
                for name in ("a", "b"):
                    outcomes = [await went(ask(name)) for _ in range(25)]
                    assert 3 <= sum(outcomes) <= 7, outcomes
            decisions = [await controller.suggest_throttle("low", "mail", tenant="c") for _ in range(10)]
            decisions += [await gate.suggest_for("c") for _ in range(10)]
            assert sum(decision.should_shed for decision in decisions) == pytest.approx(16, abs=1)
            result = await controller.process_batch([BatchJob("low", "mail", int, tenant="d")] * 20)
            assert sum(outcome.status == "shed" for outcome in result.outcomes) == pytest.approx(16, abs=1)

    async def went(job: Any) -> bool:
        try:
            await job
        except JobShedError:
            return False
        return True

    def attrs_answer(store: Store) -> Any:
        return store.exchange({"mail": []})["mail"]

    asyncio.run(main())


@pytest.mark.parametrize(
    "bad", ["", "x" * 256, "ä" * 128, "\ud800", 7, b"acme", ("a",), ("a", "b", "c"), ("", "gold"), ["a"]]
)
def test_bad_tenants_are_refused_everywhere(pressed: BackpressureController, bad: Any) -> None:
    gate, message = pressed.gate("low", "mail"), "^tenant is .*: give a name of 1 to 255 UTF-8 bytes, or a pair of "
    for _ in range(2):
        for call in (
            lambda: pressed.suggest_throttle("low", "mail", tenant=bad),
            lambda: pressed.run("low", "mail", int, tenant=bad),
            lambda: gate.suggest_for(bad),
            lambda: gate.run_for(bad, int),
            lambda: pressed.slot("low", "mail", tenant=bad).__enter__(),
            lambda: pressed.throttled("low", "mail", tenant=bad),
            lambda: BatchJob("low", "mail", int, tenant=bad),
            lambda: pressed.suggest_throttle("high", "mail", tenant=bad),
        ):
            with pytest.raises(ConfigurationError, match=message) as caught:
                call()
            assert caught.value.field == "tenant"


def test_names_at_their_bounds(pressed: BackpressureController) -> None:
    for name in ("x", "x" * 255, "ä" * 127, "\x00", "😀" * 63):
        assert pressed.suggest_throttle("low", "mail", tenant=name).reason in {Reason.AGE_SHARE, Reason.AGE_SHED}
        assert pressed.suggest_throttle("medium", "mail", tenant=(name, "unknown")).queue_name == "mail"


class TestTheTable:
    """LOW is shed above 900 of 1,000: at 920 jobs four fifths of tenants' jobs are spared, at 980 a fifth."""

    @pytest.fixture
    def controller(self, engine_name: str) -> Any:
        self.clock = ManualClock()
        self.provider = InMemoryStatsProvider({"mail": 0})
        # The poller would read within the rounds, and so make two of one.
        polling = {"polling.jitter": 0, "polling.busy_interval": "5s"}
        changed = BackpressureConfig().evolve({"age.tenant_weights": {"gold": 4}, **polling})
        with BackpressureController(changed, self.provider, clock=self.clock, _engine=engine_name) as controller:
            yield controller

    def spared(self, controller: BackpressureController, backlog: int, rounds: int = 12) -> Counter[str]:
        went: Counter[str] = Counter()
        for round_ in range(rounds):
            self.provider.set("mail", backlog)
            self.clock.advance(0.1)
            controller.refresh("mail")
            for name in turns():
                decision = controller.suggest_throttle("low", "mail", tenant=name)
                if not decision.should_shed:
                    assert decision.reason is Reason.BACKLOG_RED
                    assert decision.delay > 6
                    went[name] += round_ >= rounds - 5
        return went

    def test_sheds_fall_on_who_asks_most(self, controller: BackpressureController) -> None:
        went = self.spared(controller, 960)
        # 40 of 100: all get at most 3.6.
        assert went.total() == pytest.approx(200, rel=0.05)
        assert went["hog"] <= 30
        assert min(went[name] for name in ASKS) >= 7  # as two have that share both of their buckets

    def test_nobody_below_the_level_is_shed(self, controller: BackpressureController) -> None:
        went = self.spared(controller, 940)
        # 60 of 100: 5 for each of ten, and 10 for the hog.
        assert went["hog"] == pytest.approx(50, abs=6)
        assert all(went[name] >= 23 for name in ASKS)

    @pytest.mark.parametrize(("backlog", "sheds"), [(900, False), (1_000, True), (5_000, True)])
    def test_outside_of_the_zone_all_are_told_the_same(
        self, controller: BackpressureController, backlog: int, sheds: bool
    ) -> None:
        self.provider.set("mail", backlog)
        controller.refresh("mail")
        for name in (*turns(), None):
            assert controller.suggest_throttle("low", "mail", tenant=name).should_shed is sheds

    def test_who_gives_no_tenant_is_shed_as_before(self, controller: BackpressureController) -> None:
        self.spared(controller, 920, rounds=2)
        assert all(controller.suggest_throttle("low", "mail").should_shed for _ in range(20))
        assert not controller.suggest_throttle("medium", "mail", tenant="hog").should_shed

    def test_health_names_who_asks_most(self, controller: BackpressureController) -> None:
        self.spared(controller, 960)
        first, *others = controller.health()["queues"]["mail"]["tenants"]["low"]
        assert first["tenant"] == "hog"
        assert first["asks"] == pytest.approx(500, rel=0.1)
        assert all(other["asks"] == pytest.approx(50, rel=0.2) for other in others)

    def test_what_is_spared_counts_as_a_delay(self, controller: BackpressureController) -> None:
        went = self.spared(controller, 940, rounds=5)
        totals = dict(zip(Reason, controller._engine.totals()["mail", 0].reasons, strict=False))
        assert totals[Reason.BACKLOG_RED] == went.total()
