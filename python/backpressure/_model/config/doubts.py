"""Settings that are possible and hardly meant: what keeps an age from being held, and what does nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from backpressure._model.budget import budget_of
from backpressure._model.config.age import AgeConfig
from backpressure._model.units import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure._model.config.polling import PollingConfig
    from backpressure._model.config.root import BackpressureConfig

__all__ = ["doubts"]

#: Beyond that, LOW takes so much of the budget whatever the backlog that it is no floor any more.
_HIGH_FLOOR = 0.1


def doubts(config: BackpressureConfig) -> Iterator[str]:
    """Yield a sentence for each doubtful pair of settings, of the shared ones and of each section."""
    yield from _idle_shares(config)
    ages = [("age", config.age)]
    ages += [(f"{_path(name)}.age", own.age) for name, own in config.queues.items() if own.age is not None]
    for path, age in ages:
        yield from _doubts_of(path, age, config.polling)
    if all(age.target is None for _, age in ages):
        yield from (
            f"{path} has no target, so nothing of it is used: set {path}.target, or leave it out"
            for path, age in ages
            if age != AgeConfig(memory=age.memory, tenant_weights=age.tenant_weights)
        )
    for name, own in config.queues.items():
        parts = [part for part in ("thresholds", "curve") if getattr(own, part) is not None]
        if parts and config.age_of(name).target is not None:
            yield (
                f"{_path(name)} has {' and '.join(parts)}, which are not used, because an age is to be held: leave "
                f'them out, or set {_path(name)}.age.target to "none"'
            )


def _idle_shares(config: BackpressureConfig) -> Iterator[str]:
    shares = [("", config.mode, config.enforce_share if config.enforce_share < 1 else None)]
    shares += [(f"{_path(name)}.", config.mode_of(name), own.enforce_share) for name, own in config.queues.items()]
    for path, mode, share in shares:
        if mode == "observe" and share is not None:
            yield f'{path}enforce_share is {share:g}, and mode is observe: none enforces until mode is "enforce"'


def _path(name: str) -> str:
    return f"queues.{json.dumps(name, ensure_ascii=False)}"


def _doubts_of(path: str, age: AgeConfig, polling: PollingConfig) -> Iterator[str]:
    budget = budget_of(age)
    if budget is None or age.target is None:
        return
    oldest = polling.busy_interval + polling.timeout
    if oldest > age.target:
        yield (
            f"{path}.target is {duration(age.target)}, and statistics may be {duration(oldest)} old: the budget "
            "follows slowly: lower polling.busy_interval or polling.timeout"
        )
    if age.calls * budget.tick_ms < 1_000:
        yield (
            f"{path}.calls is {age.calls}, fewer than one for each tick of {budget.tick_ms} ms: the budget changes "
            "more often than any process hears of it: raise it"
        )
    if age.low_floor > _HIGH_FLOOR:
        yield (
            f"{path}.low_floor is {age.low_floor:g}: {100 * age.low_floor:g} % of LOW's jobs pass however long others "
            f"wait: lower it to {_HIGH_FLOOR:g} or less"
        )
