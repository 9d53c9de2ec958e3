"""Fair shares among tenants: who is below the level goes, together they get the share, and both engines agree."""

from __future__ import annotations

import random
import threading
from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from backpressure._age.heavy import COUNTERS, HeavyHitters
from backpressure._age.protocol import MILLION
from backpressure._age.tenants import MOST_CLASSES, Tenants

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backpressure._engine.border import EngineModule

SALT = 0x9E37_79B9_7F4A_7C15
THIRD = MILLION // 3
ONE = 1 << 16

words = st.integers(0, 2**64 - 1)
hashes = st.integers(-(2**63), 2**63 - 1)
classes = st.integers(0, MOST_CLASSES)


def apart(index: int, weight_class: int = 0) -> int:
    """Return a place whose buckets belong to nobody else."""
    return weight_class << 16 | index << 8 | index


def went(tenants: Any, asks: Mapping[int, int], share_ppm: int, *, rounds: int = 20, learned: int = 20) -> Counter[int]:
    """Return how many offers of each place go between two renewals, on the average, once what they ask for is known."""
    goes: Counter[int] = Counter()
    turns = [place for place, times in asks.items() for _ in range(times)]
    rng = random.Random(1)
    for round_ in range(learned + rounds):
        rng.shuffle(turns)
        for place in turns:
            goes[place] += tenants.offer(place) and round_ >= learned
        tenants.renew(share_ppm)
    return Counter({place: count // rounds for place, count in goes.items()})


class TestTheLevel:
    def test_divides_who_gets_all_from_who_gets_the_level(self, engine_module: EngineModule) -> None:
        tenants = engine_module.Tenants(SALT, THIRD)
        asks = {apart(0): 300, apart(1): 60, apart(2): 20, apart(3): 10}
        # A third of 390 are 130: 10 and 20 fit, and 50 are left for each of the others.
        assert went(tenants, asks, THIRD) == {apart(0): 50, apart(1): 50, apart(2): 20, apart(3): 10}

    def test_is_as_much_higher_as_a_class_weighs(self, engine_module: EngineModule) -> None:
        tenants = engine_module.Tenants(SALT, THIRD)
        tenants.weigh({"gold": 4})
        gold, other = apart(0, 1), apart(1)
        goes = went(tenants, {gold: 300, other: 300}, THIRD)
        assert goes[gold] == pytest.approx(160, abs=1)
        assert goes[other] == pytest.approx(40, abs=1)

    def test_gives_a_heavy_class_no_more_than_it_asks_for(self, engine_module: EngineModule) -> None:
        tenants = engine_module.Tenants(SALT, THIRD)
        tenants.weigh({"gold": 4, "best": 100})
        gold, best, other = apart(0, 1), apart(1, 2), apart(2)
        goes = went(tenants, {gold: 10, best: 20, other: 270}, THIRD)
        assert (goes[gold], goes[best]) == (10, 20)
        assert goes[other] == pytest.approx(70, abs=1)

    def test_is_a_new_one_as_soon_as_another_share_is_told(self, engine_module: EngineModule) -> None:
        tenants = engine_module.Tenants(SALT, MILLION)
        assert went(tenants, {apart(0): 50, apart(1): 10}, MILLION) == {apart(0): 50, apart(1): 10}
        tenants.renew(MILLION // 2)
        # 30 may go: 10 and 20.
        assert tenants.share_ppm(apart(1)) == MILLION
        assert tenants.share_ppm(apart(0)) == pytest.approx(400_000, rel=0.02)

    @given(asks=st.lists(st.integers(0, 200), min_size=1, max_size=20), share=st.integers(0, MILLION))
    @settings(max_examples=30)
    def test_lets_the_share_go_and_refuses_nobody_below_it(
        self, engine_modules: Mapping[str, EngineModule], asks: list[int], share: int
    ) -> None:
        tenants = engine_modules.get("native", engine_modules["pure"]).Tenants(SALT, share)
        offers = {apart(index): times for index, times in enumerate(asks)}
        total = sum(asks) * share / MILLION
        goes = went(tenants, offers, share, rounds=40)
        # Rounding each down loses less than a job, and what was carried at the beginning is less than one.
        assert total - len(asks) - 1 <= sum(goes.values()) <= total + 1
        level = max(goes.values(), default=0)
        for place, times in offers.items():
            assert goes[place] >= min(times, level) - 2

    def test_that_all_fits_refuses_nobody(self, engine_module: EngineModule) -> None:
        tenants = engine_module.Tenants(SALT, 0)
        for turn in range(50):
            tenants.offer(apart(turn % 3))
        tenants.renew(MILLION)
        assert all(tenants.take(apart(index)) for index in range(256) for _ in range(5))


def model_shares(asks: dict[int, int], weights: dict[int, int], left: Fraction) -> dict[int, Fraction]:
    """Return the part of each by water level, found by filling up the one that is full next, in exact fractions."""
    got, open_ = dict.fromkeys(asks, Fraction(0)), {place for place in asks if asks[place]}
    while open_ and left > 0:
        weight = sum(weights[place] for place in open_)
        # So much more a unit of weight until the first is full, or nothing is left.
        step = min(*((asks[place] - got[place]) / weights[place] for place in open_), left / weight)
        for place in open_:
            got[place] += step * weights[place]
        left -= step * weight
        open_ = {place for place in open_ if got[place] < asks[place]}
    return {place: got[place] / asks[place] for place in asks if asks[place]}


@given(
    asks=st.lists(st.tuples(st.integers(0, 90), st.sampled_from([0, 1, 2])), min_size=1, max_size=12),
    before=st.integers(0, MILLION),
    share=st.integers(0, MILLION - 1),
)
@settings(max_examples=60)
def test_shares_are_those_of_an_independent_model(
    engine_modules: Mapping[str, EngineModule], asks: list[tuple[int, int]], before: int, share: int
) -> None:
    tenants = engine_modules.get("native", engine_modules["pure"]).Tenants(SALT, before)
    tenants.weigh({"silver": 2, "gold": 7})
    offers = {apart(index, weight_class): times for index, (times, weight_class) in enumerate(asks)}
    weights = {place: (1, 2, 7)[place >> 16] for place in offers}
    goes = sum(tenants.offer(place) for place, times in offers.items() for _ in range(times))
    tenants.renew(share)
    total = sum(offers.values())
    # Half of what went beyond the share before is taken off now, as far as it is no more than all.
    over = goes - Fraction(total * before, MILLION)
    over = min(max(over, Fraction(-2 * total)), Fraction(2 * total))
    wanted = model_shares(offers, weights, max(Fraction(0), Fraction(total * share, MILLION) - over / 2))
    for place, part in wanted.items():
        assert tenants.share_ppm(place) == pytest.approx(float(part * MILLION), abs=60)


class TestBuckets:
    @given(tenant_hash=hashes, salt=words, weight_class=classes)
    def test_are_the_same_in_both_engines(
        self, engine_modules: Mapping[str, EngineModule], tenant_hash: int, salt: int, weight_class: int
    ) -> None:
        places = {module.Tenants(salt, 0).place_of(tenant_hash, weight_class) for module in engine_modules.values()}
        assert len(places) == 1
        assert 0 <= places.pop() < (MOST_CLASSES + 1) << 16

    def test_hold_few_pairs_of_tenants_and_others_under_another_salt(self) -> None:
        rng = random.Random(1)
        names = [rng.getrandbits(64) for _ in range(1_000)]
        pairs: Counter[frozenset[int]] = Counter()
        for _ in range(5):
            tenants = Tenants(rng.getrandbits(64), 0)
            held: dict[int, list[int]] = {}
            for name in names:
                held.setdefault(tenants.place_of(name, 0), []).append(name)
            found = [frozenset(both) for both in held.values() if len(both) > 1]
            assert len(found) < 30  # 7.6 are to be expected of half a million pairs in 65 536 places
            pairs.update(found)
        assert max(pairs.values(), default=1) == 1

    def test_whom_a_flood_meets_in_one_row_goes_by_the_other(self, engine_module: EngineModule) -> None:
        tenants = engine_module.Tenants(SALT, THIRD)
        hog, victim = 7 << 8 | 7, 7 << 8 | 8
        asks = {hog: 200, victim: 4, **{apart(20 + index): 4 for index in range(24)}}
        goes = went(tenants, asks, THIRD)
        assert goes[victim] == pytest.approx(4, abs=1)
        assert goes[hog] < 12

    def test_a_class_that_there_is_not_is_refused(self, engine_module: EngineModule) -> None:
        tenants = engine_module.Tenants(SALT, MILLION)
        with pytest.raises((ValueError, IndexError)):
            tenants.offer(tenants.place_of(1, MOST_CLASSES + 1))


class TestWhatIsAskedFor:
    def test_is_known_of_who_asks_alone_in_a_row(self, engine_module: EngineModule) -> None:
        tenants = engine_module.Tenants(SALT, THIRD)
        went(tenants, {7 << 8 | 7: 90, 7 << 8 | 8: 10}, THIRD)
        assert tenants.ask(7 << 8 | 8) == pytest.approx(10 * ONE, rel=0.01)
        assert tenants.ask(apart(99)) == 0

    def test_is_forgotten_when_the_salt_changes(self, engine_module: EngineModule) -> None:
        tenants = engine_module.Tenants(SALT, THIRD)
        went(tenants, {apart(0): 90, apart(1): 10}, THIRD)
        tenants.rekey(SALT >> 1)
        assert [tenants.ask(apart(index)) for index in range(2)] == [0, 0]
        assert {tenants.share_ppm(apart(index)) for index in range(256)} == {THIRD}
        assert tenants.place_of(1, 0) != engine_module.Tenants(SALT, 0).place_of(1, 0)

    def test_who_was_not_seen_yet_goes(self, engine_module: EngineModule) -> None:
        tenants = engine_module.Tenants(SALT, THIRD)
        went(tenants, {apart(0): 90}, THIRD)
        assert tenants.take(apart(1))
        assert not tenants.take(apart(0))
        assert tenants.ask(apart(0)) == pytest.approx(90 * ONE, rel=0.01)

    def test_what_is_not_taken_leaves_no_trace(self, engine_module: EngineModule) -> None:
        tenants = engine_module.Tenants(SALT, 0)
        assert not any(tenants.take(apart(0)) for _ in range(10))
        tenants.renew(0)
        assert tenants.ask(apart(0)) == 0


class Agree(RuleBasedStateMachine):
    """All engines are asked the same, and must answer the same."""

    modules: Mapping[str, EngineModule]

    @initialize(salt=words, share=st.integers(0, MILLION + 1))
    def begin(self, salt: int, share: int) -> None:
        self.tenants = [module.Tenants(salt, share) for module in self.modules.values()]
        self.hashes = [hash((salt, index)) for index in range(9)]

    def same(self, name: str, *arguments: Any) -> Any:
        answers = [getattr(tenants, name)(*arguments) for tenants in self.tenants]
        assert answers.count(answers[0]) == len(answers), (name, arguments, answers)
        return answers[0]

    @rule(index=st.integers(0, 8), weight_class=st.sampled_from([0, 0, 1, 2, 16]), times=st.integers(1, 300))
    def offer(self, index: int, weight_class: int, times: int) -> None:
        place = self.same("place_of", self.hashes[index], weight_class)
        for turn in range(times):
            self.same("take" if turn % 3 else "offer", place)

    @rule(share=st.one_of(st.integers(0, MILLION), st.sampled_from([0, THIRD, MILLION, MILLION + 5])))
    def renew(self, share: int) -> None:
        self.same("renew", share)
        for tenant in self.hashes:
            for weight_class in (0, 1, 2, 16):
                place = self.same("place_of", tenant, weight_class)
                self.same("share_ppm", place)
                self.same("ask", place)

    @rule(salt=words)
    def rekey(self, salt: int) -> None:
        self.same("rekey", salt)

    @rule(weights=st.dictionaries(st.text(max_size=3), st.integers(1, 100), max_size=MOST_CLASSES))
    def weigh(self, weights: dict[str, int]) -> None:
        self.same("weigh", weights)
        for name in (*weights, "unknown"):
            self.same("class_of", name)


def test_engines_agree(engine_modules: Mapping[str, EngineModule]) -> None:
    machine = type("Machine", (Agree,), {"modules": engine_modules})
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))


def test_threads_lose_no_count(engine_module: EngineModule) -> None:
    lock = threading.RLock()
    tenants = engine_module.Tenants(SALT, MILLION, lambda: lock)
    taken: list[int] = []

    def take() -> None:
        taken.append(sum(tenants.take(apart(0)) for _ in range(3_000)))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tenants.renew(MILLION)
    assert taken == [3_000] * 4
    assert tenants.ask(apart(0)) == 12_000 * ONE


@pytest.mark.parametrize(("processes", "seconds"), [(1, 60), (10, 60), (100, 80)])
def test_each_of_fifty_tenants_gets_its_fair_share_whatever_one_of_them_asks_for(
    engine_module: EngineModule, processes: int, seconds: int
) -> None:
    """Half of 600 offers a second are one tenant's, and 200 may go; renewals come every second."""
    rng = random.Random(processes)
    all_tenants = [engine_module.Tenants(rng.getrandbits(64), THIRD) for _ in range(processes)]
    names = [rng.getrandbits(63) for _ in range(50)]
    places = [[tenants.place_of(name, 0) for name in names] for tenants in all_tenants]
    goes = [0] * 50
    for second in range(seconds):
        for _ in range(600):
            who, where = (0 if rng.random() < 0.5 else rng.randrange(1, 50)), rng.randrange(processes)
            goes[who] += all_tenants[where].offer(places[where][who]) and second >= seconds // 2
        for tenants in all_tenants:
            tenants.renew(THIRD)
    total = sum(goes)
    assert total / (seconds - seconds // 2) == pytest.approx(200, rel=0.04)
    assert total**2 / (50 * sum(count * count for count in goes)) >= 0.95
    assert goes[0] <= 2 * total / 50


class TestHeavyHitters:
    @given(names=st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), max_size=300))
    def test_no_count_is_too_low_nor_too_high_by_more_than_its_bound(self, names: list[str]) -> None:
        hitters = HeavyHitters[str]()
        for name in names:
            hitters.see(name)
        exact, top = Counter(names), hitters.top()
        assert len(top) <= COUNTERS
        assert {name for name, count in exact.items() if count * COUNTERS > len(names)} <= {heavy.who for heavy in top}
        for name, seen, over in top:
            assert exact[name] <= seen <= exact[name] + over
            assert over * COUNTERS <= len(names)

    def test_who_was_heavy_once_makes_room(self) -> None:
        hitters = HeavyHitters[str]()
        for index in range(COUNTERS):
            hitters.see(f"old-{index}", 100)
        for _ in range(10):
            hitters.fade()
            hitters.see("new", 50)
        assert [heavy.who for heavy in hitters.top()] == ["new"]
