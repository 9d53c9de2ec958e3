"""Both engines replay any recording under any policy to the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpressure._engine.laws.age import AgeLaw
from backpressure._engine.laws.three_zone import ThreeZoneLaw
from backpressure._model.budget import BudgetSettings
from backpressure._recording.columns import plain
from backpressure._recording.row import COLUMNS, Row
from backpressure._replay.pure import QueueReplay
from backpressure._replay.settings import BehaviourSettings, LoopSettings, PolicyInForce, ReplaySettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HUGE = 2**63 - 1
BEGIN_MS = 1_800_000_000_000

windows = st.lists(st.integers(0, 300), min_size=3, max_size=3, unique=True).map(lambda it: tuple(sorted(it)))
delays = st.lists(st.integers(0, 40_000_000_000) | st.integers(0, 9_000), min_size=3, max_size=3).map(sorted)
laws = st.builds(
    lambda windows, delays, scales, shed, yellow, memory: ThreeZoneLaw(
        windows=tuple(windows),
        yellow_min_ns=delays[0],
        yellow_max_ns=delays[1],
        red_max_ns=delays[2],
        scales=tuple(scales),
        shed_permille=shed,
        scale_yellow=yellow,
        memory_permille=memory,
    ),
    st.lists(windows, min_size=3, max_size=3),
    delays,
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 10)), min_size=3, max_size=3),
    st.integers(0, 1_000),
    st.booleans(),
    st.none() | st.just((850, 900)),
)
ages = st.builds(
    lambda target, low_floor, calls, sheds, memory: AgeLaw(
        BudgetSettings.of(target, low_floor=low_floor, calls=calls), sheds, 0, memory
    ),
    st.sampled_from([0.5, 1.0, 5.0, 60.0, 3_600.0]),
    st.sampled_from([0, 0.005, 0.3]),
    st.sampled_from([1, 100, 2_000]),
    st.booleans(),
    st.none() | st.just((850, 900)),
)
counts = st.none() | st.integers(0, 60) | st.integers(0, 3_000)
backlogs = st.integers(0, 400) | st.integers(0, 10**6)
parts = st.integers(0, 1_000_000)
pauses = st.none() | st.integers(0, 10_000_000)
loops = st.none() | st.builds(LoopSettings, st.integers(1, 1_000_000), pauses, st.booleans(), st.booleans())
behaviours = st.builds(
    BehaviourSettings,
    st.tuples(parts, parts, parts),
    st.none() | st.integers(0, 10**10),
    st.tuples(loops, loops, loops),
)


def settings_of(law: st.SearchStrategy[Any]) -> st.SearchStrategy[ReplaySettings]:
    any_settings = st.builds(
        ReplaySettings,
        law=law,
        poll_ms=st.integers(1_000, 10_000),
        busy_poll_ms=st.integers(50, 3_000),
        sleep_permille=st.integers(1_000, 1_500),
        gap_ms=st.sampled_from([3_000, 60_000]),
        trail_ms=st.integers(1_000, 20_000),
        mix_ppm=st.none() | st.just((500_000, 300_000, 200_000)),
        in_force=st.dictionaries(st.integers(1, 2), st.builds(PolicyInForce, st.none() | laws, st.booleans())),
        behaviour=st.none() | behaviours,
    )
    others = st.builds(PolicyInForce, laws, st.booleans())
    # The policy that was in force may be the one that is tried.
    return (
        any_settings
        | st.builds(lambda it, other: attrs.evolve(it, in_force={1: other}), any_settings, others)
        | any_settings.map(
            lambda it: it if isinstance(it.law, AgeLaw) else attrs.evolve(it, in_force={1: PolicyInForce(it.law, True)})
        )
    )


settings = settings_of(laws | ages)
spans = st.integers(900, 1_100) | st.integers(-100, 400) | st.integers(0, 90_000)
rows = st.builds(
    lambda span, backlog, entered, left, *more: (span, backlog, entered, left, more),
    spans,
    backlogs,
    st.none() | st.integers(-5, 3_000),
    st.none() | st.integers(-5, 3_000),
    st.none() | st.integers(0, 1_000_000),
    st.none() | st.integers(700, 1_000),
    *[counts] * 9,
    st.sampled_from([None, 0, 1, 1, 2]),
    st.sampled_from([None, 1, 1, 1, 2, 3]),
)


def recorded(
    told: Sequence[tuple[int, int, int | None, int | None, Sequence[int | None]]],
) -> list[tuple[int | None, ...]]:
    at_ms, entered_so_far, left_so_far = BEGIN_MS, 1_000, 900
    made: list[tuple[int | None, ...]] = []
    for span, backlog, entered, left, (oldest, memory, *rest) in told:
        at_ms += span
        entered_so_far += entered or 0
        left_so_far += left or 0
        totals = (None if entered is None else entered_so_far, None if left is None else left_so_far)
        made.append((at_ms, backlog, oldest, *totals, memory, *rest))
    return made


@pytest.fixture(scope="session")
def kinds(engine_modules: Mapping[str, Any]) -> list[type[Any]]:
    """This run's replays of a queue."""
    return [QueueReplay if name == "pure" else module.QueueReplay for name, module in engine_modules.items()]


def both(
    kinds: list[type[Any]], given_settings: ReplaySettings, blocks: Sequence[Sequence[tuple[int | None, ...]]]
) -> None:
    told = []
    for kind in kinds:
        replay = kind(given_settings)
        for block in blocks:
            content = plain([*zip(*block, strict=True)])
            replay.feed(content, len(block))
        told.append(replay.result())
    assert told[0] == told[-1]


@given(settings, st.lists(rows, max_size=60), st.integers(0, 60))
def test_any_recording_gives_the_same(
    kinds: list[type[Any]], given_settings: ReplaySettings, told: list[tuple[int, ...]], at: int
) -> None:
    made = recorded(told)  # type: ignore[arg-type]
    both(kinds, given_settings, [made[:at], made[at:]])


# Most recorded hours are like this: backlog and offers change, all else stays.
few = st.integers(0, 60) | st.integers(0, 3_000)
offers = st.tuples(few, few, few) | st.just((None, None, None)) | st.tuples(st.none(), few, st.just(0))
seconds = st.just(1_000) | st.just(1_000) | spans
low_backlogs = st.integers(0, 20) | backlogs
at_rest = st.tuples(st.just(1_000), st.integers(0, 20), st.tuples(few, few, few))
changing = st.lists(at_rest, min_size=8, max_size=30) | st.lists(
    st.tuples(seconds, low_backlogs, offers), min_size=2, max_size=40
)
oldest = st.none() | st.integers(0, 1_000_000)
memory = st.none() | st.integers(700, 1_000)
in_force_then = st.sampled_from([None, 1, 1, 1, 2, 3])
seldom = st.sampled_from([None, None, 0, 0, 0, 3])
unchanged = st.tuples(oldest, st.just((None, None)), memory, st.just([0] * 6), st.just(0), in_force_then)
delayed = st.tuples(st.none(), st.just((None, None)), st.none(), st.just([3, 0] * 3), st.just(0), st.just(1))
staying = (
    unchanged
    | unchanged
    | delayed
    | st.tuples(
        oldest,
        st.tuples(*[st.none() | st.integers(0, 9)] * 2),
        memory,
        st.lists(seldom, min_size=6, max_size=6),
        st.sampled_from([None, 0, 0, 1, 2]),
        in_force_then,
    )
)


def hour(
    changing: Sequence[tuple[int, int, tuple[int | None, ...]]], staying: tuple[Any, ...], begin_ms: int
) -> list[tuple[int | None, ...]]:
    oldest, totals, memory, (one, two, three, four, five, six), circuit, policy = staying
    at_ms = begin_ms
    made: list[tuple[int | None, ...]] = []
    for span, backlog, (high, medium, low) in changing:
        at_ms += span
        counts = (high, one, two, medium, three, four, low, five, six)
        made.append((at_ms, backlog, oldest, *totals, memory, *counts, circuit, policy))
    return made


def law(green: int, yellow: int, red: int) -> ThreeZoneLaw:
    return ThreeZoneLaw(
        windows=((green, yellow, red),) * 3,
        yellow_min_ns=10**9,
        yellow_max_ns=2 * 10**9,
        red_max_ns=5 * 10**9,
        scales=((1, 1),) * 3,
        shed_permille=800,
        scale_yellow=True,
        memory_permille=None,
    )


# What is tried stays green where the policy in force does not.
apart = st.builds(
    lambda it, enforces: attrs.evolve(it, law=law(18, 300, 600), in_force={1: PolicyInForce(law(4, 8, 16), enforces)}),
    settings_of(laws),
    st.booleans(),
)


@given(
    settings_of(laws) | apart,
    st.lists(rows, max_size=5),
    st.lists(st.tuples(changing, staying), min_size=1, max_size=3),
)
def test_quiet_hours_give_the_same(
    kinds: list[type[Any]], given_settings: ReplaySettings, earlier: list[Any], hours: list[tuple[Any, Any]]
) -> None:
    blocks = [recorded(earlier)]
    for changes, stays in hours:
        begin_ms: int = blocks[-1][-1][0] if blocks[-1] else BEGIN_MS  # type: ignore[assignment]
        blocks.append(hour(changes, stays, begin_ms))
    both(kinds, given_settings, blocks)


numbers = st.none() | st.integers(-HUGE, HUGE) | st.integers(-10, 2**46) | st.integers(BEGIN_MS, BEGIN_MS + 10_000)


@given(settings, st.lists(st.tuples(*[numbers] * len(COLUMNS)), max_size=4))
def test_so_do_numbers_that_mean_nothing(
    kinds: list[type[Any]], given_settings: ReplaySettings, told: list[tuple[int | None, ...]]
) -> None:
    both(kinds, given_settings, [told])


@given(settings, st.lists(st.tuples(*[st.integers(0, 10**15)] * 14), max_size=8))
def test_so_do_numbers_beyond_all_bounds(
    kinds: list[type[Any]], given_settings: ReplaySettings, told: list[tuple[int, ...]]
) -> None:
    made = [(BEGIN_MS + 1_000 * place, *many, 0, 1) for place, many in enumerate(told)]
    both(kinds, given_settings, [made])


@given(st.binary(max_size=40), st.integers(0, 3))
def test_so_do_damaged_bytes(kinds: list[type[Any]], content: bytes, count: int) -> None:
    said = []
    given_settings = ReplaySettings(LAW, 5_000, 1_000, 1_000, 60_000, 60_000, None, {}, None)
    for kind in kinds:
        try:
            kind(given_settings).feed(content, count)
            said.append("")
        except ValueError as error:
            said.append(str(error))
    assert said[0] == said[-1]


LAW = ThreeZoneLaw(((100, 500, 1_000),) * 3, 0, 10, 100, ((1, 1),) * 3, 800, True)


def test_a_row_has_as_many_numbers_as_the_native_engine_reads() -> None:
    assert len(Row._fields) == 17
