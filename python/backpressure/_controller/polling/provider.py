"""Which kind of provider a controller was given: one that blocks, or one whose methods are to be awaited."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from backpressure._model.arguments import shown
from backpressure._model.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_provider", "gaps_of"]


def check_provider(provider: object, *, may_await: bool) -> bool:
    """Return whether the provider's methods are to be awaited.

    Raises:
        ConfigurationError: it is no provider, it is of both kinds, or awaiting is not for this controller.
    """
    what = f"stats_provider is a {type(provider).__name__}"
    if not all(callable(getattr(provider, name, None)) for name in ("get_queue_stats", "get_all_queue_stats")):
        raise ConfigurationError(
            f"{what}: give an object with get_queue_stats() and get_all_queue_stats()", field="stats_provider"
        )
    methods = {name: getattr(provider, name, None) for name in ("get_queue_stats", "get_all_queue_stats", "get_many")}
    kinds = {name: _is_coroutine_function(method) for name, method in methods.items() if callable(method)}
    awaited = [f"{name}()" for name, is_awaited in kinds.items() if is_awaited]
    if 0 < len(awaited) < len(kinds):
        raise ConfigurationError(
            f"{what}, of which {', '.join(awaited)} is to be awaited and the rest not: give one whose methods are all "
            "alike",
            field="stats_provider",
        )
    if awaited and not may_await:
        raise ConfigurationError(
            f"{what}, whose methods are to be awaited: give it to an AsyncBackpressureController, or give one that "
            "blocks, such as RedisStatsProvider",
            field="stats_provider",
        )
    gap = getattr(provider, "least_gap", 0.0)
    if not (isinstance(gap, int | float) and gap >= 0):
        raise ConfigurationError(
            f"least_gap of the stats_provider is {shown(gap)}: give seconds from 0, or math.inf", field="stats_provider"
        )
    return bool(awaited)


def gaps_of(provider: object) -> Callable[[str], float]:
    """Return what tells a queue's ``least_gap``, see `StatsProvider`; where it depends on the queue, by its name."""
    gap_of: Callable[[str], float] | None = getattr(provider, "least_gap_of", None)
    if gap_of is not None:
        return gap_of
    gap: float = getattr(provider, "least_gap", 0.0)
    return lambda _: gap


def _is_coroutine_function(method: object) -> bool:
    return inspect.iscoroutinefunction(method) or inspect.iscoroutinefunction(getattr(method, "__call__", None))  # noqa: B004
