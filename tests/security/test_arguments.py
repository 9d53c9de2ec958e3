"""Arguments at and beyond every bound: both engines answer alike, and errors quote them short."""

from __future__ import annotations

import ctypes
import decimal
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from backpressure import (
    BackpressureConfig,
    BackpressureController,
    BackpressureError,
    BatchJob,
    ConfigurationError,
    InMemoryStatsProvider,
    QueueStats,
)
from backpressure._engine.choice import ENGINE
from backpressure._model.arguments import parse_priority, validate_queue_name
from backpressure.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LONG = 10_000_000
#: The longest message, whatever it quotes.
SHORT = 1_000
KINDS = {"returns", "ConfigurationError", "InvalidPriorityError", "InvalidQueueError", "ValueError"}


class OwnText(str):
    __slots__ = ()


class OwnHash(str):
    """A name, or a priority, whose own methods are broken."""

    __slots__ = ()

    def _broken(self, *_: object) -> Any:
        raise LookupError("the class's own method was called")

    __hash__ = __eq__ = __len__ = __str__ = __repr__ = __getitem__ = __iter__ = __contains__ = _broken


class OwnRepr:
    def __repr__(self) -> str:
        raise LookupError("the class's own method was called")


class OwnInt(int):
    __slots__ = ()


VALUES: dict[str, Any] = {
    **{repr(value): value for value in (None, True, False, 0, 1, -1, 0.0, -0.0, 0.5, 2, 2**31, 2**53, 2**63, 2**70)},
    **{repr(value): value for value in (1e9, 1e20, 1e300, 5e-324, math.inf, -math.inf, math.nan)},
    **{repr(value): value for value in ("", "q", "low", "HIGH", "0", "5m", "a\ud800", "a\nb", "__other__", b"low")},
    "10**400": 10**400,
    "10 MB": "x" * LONG,
    "10 MB, not ASCII": "é" * LONG,
    "10 MB of bytes": b"x" * LONG,
    "a long list": [0] * 100_000,
    "lists in lists": [[["x" * LONG]]],
    "an object": object(),
    "a function": len,
    "Decimal": decimal.Decimal("1.5"),
    "numpy int": np.int64(1),
    "numpy float": np.float64(1.5),
    "numpy float32": np.float32(1.5),
    "numpy bool": np.bool_(True),
    "own text": OwnText("q"),
    "own priority": OwnText("low"),
    "own int": OwnInt(1),
}

CALLS: dict[str, Callable[[BackpressureController, Any], object]] = {
    "suggest_throttle priority": lambda c, value: c.suggest_throttle(value, "q").reason,
    "suggest_throttle queue": lambda c, value: c.suggest_throttle("low", value).reason,
    "run priority": lambda c, value: c.run(value, "q", int),
    "run queue": lambda c, value: c.run("low", value, int),
    "run max_wait": lambda c, value: c.run("low", "q", int, max_wait=value),
    "run max_wait by priority": lambda c, value: c.run("low", "q", int, max_wait={"low": value}),
    "slot max_wait": lambda c, value: c.slot("low", "q", max_wait=value).__enter__().reason,
    "gate priority": lambda c, value: c.gate(value, "q").run(int),
    "gate queue": lambda c, value: c.gate("low", value).run(int),
    "gate max_wait": lambda c, value: c.gate("low", "q", max_wait=value).run(int),
    "batch timeout": lambda c, value: c.process_batch([BatchJob("low", "q", int)], timeout=value).outcomes,
    "batch priority": lambda c, value: c.process_batch([BatchJob(value, "q", int)]).outcomes,
    "batch queue": lambda c, value: c.process_batch([BatchJob("low", value, int)]).outcomes,
    "batch jobs": lambda c, value: c.process_batch([value]).outcomes,
    "override": lambda c, value: c.set_manual_override(value),
    "override for_": lambda c, value: _overridden(c, seconds=value),
    "emergency": lambda c, value: c.set_emergency_mode(value),
    "circuit": lambda c, value: c.circuit(value).stats()["state"],
    "circuit state": lambda c, value: str(c.get_circuit_state(value)),
    "force_open for_": lambda c, value: _forced(c, seconds=value),
    "record": lambda c, value: c.record_failure(value),
    "refresh": lambda c, value: c.refresh(value),
    "reconfigure": lambda c, value: c.reconfigure(value),
    "backlog": lambda c, value: _sampled(c, QueueStats("q", value)),
    "processing": lambda c, value: _sampled(c, QueueStats("q", 1, processing_count=value)),
    "oldest age": lambda c, value: _sampled(c, QueueStats("q", 1, oldest_age=value)),
    "last updated": lambda c, value: _sampled(c, QueueStats("q", 1, last_updated=value)),
    "max_queues": lambda c, value: _made(c, BackpressureConfig(max_queues=value)),
    "cache_ttl": lambda c, value: _made(c, BackpressureConfig().evolve({"polling.cache_ttl": value})),
    "timeout": lambda c, value: _made(c, BackpressureConfig().evolve({"polling.timeout": value})),
    "red_max": lambda c, value: _made(c, BackpressureConfig().evolve({"thresholds.low_priority.red_max": value})),
    "failure_threshold": lambda c, value: _made(c, BackpressureConfig().evolve({"circuit.failure_threshold": value})),
    "recovery_timeout": lambda c, value: _made(c, BackpressureConfig().evolve({"circuit.recovery_timeout": value})),
    "graceful_degrade": lambda c, value: _made(c, BackpressureConfig().evolve({"recovery.graceful_degrade": value})),
}

#: Those that are given a name or a priority.
NAMED = [name for name in CALLS if name.endswith((" queue", " priority")) and "max_wait" not in name]


def _sampled(controller: BackpressureController, sample: QueueStats) -> object:
    controller._samples.take({"q": sample})
    decision = controller.suggest_throttle("low", "q")
    queue = controller.health()["queues"]["q"]
    return decision.reason, decision.delay, decision.backlog_size, queue["backlog"], queue["oldest_age"]


def _overridden(controller: BackpressureController, seconds: Any) -> object:
    controller.set_manual_override(True, for_=seconds)
    return controller.suggest_throttle("low", "q").reason


def _forced(controller: BackpressureController, seconds: Any) -> object:
    controller.circuit("q").force_open(for_=seconds)
    return controller.circuit("q").stats()


def _made(controller: BackpressureController, config: BackpressureConfig) -> object:
    provider = InMemoryStatsProvider({"q": 5_000})
    engine: Any = controller._engine_name
    with BackpressureController(
        config, provider, clock=ManualClock(), registry=CollectorRegistry(), _engine=engine
    ) as made:
        made.record_failure("q")
        return made.suggest_throttle("low", "q").reason, str(made.get_circuit_state("q"))


def outcomes(engine: str, name: str, values: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yield what one controller does with each value: what it returns, or the error."""
    clock = ManualClock(sleep_advances=True)
    provider = InMemoryStatsProvider({"q": 0, "low": 0, "HIGH": 0, "0": 0, "5m": 0})
    with BackpressureController(
        None, provider, clock=clock, registry=CollectorRegistry(), _engine=engine
    ) as controller:
        for value in values:
            try:
                yield "returns", repr(CALLS[name](controller, value))
            except (BackpressureError, ConfigurationError, TypeError, ValueError) as error:
                yield type(error).__name__, str(error)


@pytest.mark.skipif(ENGINE != "native", reason="there is but one engine")
@pytest.mark.parametrize("name", CALLS)
def test_both_engines_answer_alike(name: str) -> None:
    both = (outcomes(engine, name, VALUES.values()) for engine in ("pure", "native"))
    for shown, pure, native in zip(VALUES, *both, strict=True):
        assert pure == native, shown
        assert len(pure[1]) < SHORT, shown
        assert pure[0] in KINDS, (shown, pure)


@pytest.mark.parametrize("value", [0, 1e300, OwnInt(2), np.float64(0.5)], ids=repr)
def test_seconds_that_are_long_or_odd_but_seconds(engine_name: str, engine_module: object, value: Any) -> None:
    for name in ("run max_wait", "gate max_wait", "batch timeout", "override for_", "slot max_wait"):
        assert [kind for kind, _ in outcomes(engine_name, name, [value])] == ["returns"], name


def test_a_batch_without_time_still_runs_what_is_due(engine_name: str, engine_module: object) -> None:
    ((kind, text),) = outcomes(engine_name, "batch timeout", [0])
    assert kind == "returns"
    assert "'succeeded'" in text


@pytest.mark.parametrize("given", [VALUES["10 MB"], VALUES["10 MB, not ASCII"], VALUES["10 MB of bytes"]], ids=len)
def test_a_long_name_is_not_looked_through(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unicodedata.category", lambda _: pytest.fail("each character is looked at"))
    checks: tuple[Callable[[object], object], ...] = (validate_queue_name, parse_priority)
    for check in checks:
        with pytest.raises(ValueError, match="10,000,000"):
            check(given)


def kept_hash(text: str) -> int:
    """Return the hash that a string keeps since it was asked for it; -1 where nobody did."""
    return ctypes.c_ssize_t.from_address(id(text) + object.__basicsize__ + ctypes.sizeof(ctypes.c_ssize_t)).value


@pytest.mark.parametrize("character", ["x", "é"], ids=["ASCII", "not ASCII"])
@pytest.mark.parametrize("name", NAMED)
def test_a_long_text_is_neither_hashed_nor_encoded(
    engine_name: str, engine_module: object, name: str, character: str
) -> None:
    short, long = character * 5, character * 10_000
    size = sys.getsizeof(long)
    hash(short)
    assert (kept_hash(short), kept_hash(long)) == (hash(short), -1), "the interpreter keeps no hashes where we look"
    ((kind, _),) = outcomes(engine_name, name, [long])
    assert kind != "returns"
    assert kept_hash(long) == -1
    assert sys.getsizeof(long) == size, "it keeps an encoded copy"


@pytest.mark.parametrize("place", ["queue", "priority"])
def test_nobody_asks_a_text_of_a_class_of_its_own_for_its_hash(
    engine_name: str, engine_module: object, place: str
) -> None:
    given = OwnHash("low")
    for name in (name for name in NAMED if name.endswith(place)):
        assert [kind for kind, _ in outcomes(engine_name, name, [given, given])] == ["returns", "returns"], name


def test_what_cannot_be_shown_is_refused_all_the_same(engine_name: str, engine_module: object) -> None:
    for name in NAMED:
        for kind, text in outcomes(engine_name, name, [OwnRepr(), OwnHash("x" * 300), OwnHash("a\nb")]):
            assert kind in {"InvalidQueueError", "InvalidPriorityError"}, (name, kind, text)
