"""Which kind of provider a controller was given: one that blocks, or one whose methods are to be awaited."""

from __future__ import annotations

import inspect

from backpressure._model.errors import ConfigurationError

__all__ = ["check_provider"]


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
    return bool(awaited)


def _is_coroutine_function(method: object) -> bool:
    return inspect.iscoroutinefunction(method) or inspect.iscoroutinefunction(getattr(method, "__call__", None))  # noqa: B004
