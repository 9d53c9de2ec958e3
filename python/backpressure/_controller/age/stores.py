"""Which Redis or Valkey keeps the budget of a queue."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from backpressure._model.config.patterns import is_pattern
from backpressure._model.errors import ConfigurationError, StatsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backpressure._model.config.age import AgeConfig
    from backpressure._model.config.root import BackpressureConfig
    from backpressure.providers.redis.store import BudgetStore

__all__ = ["Stores"]


class _NoStore:
    """Stands for the store of a queue that lies where no budget can be kept."""

    @staticmethod
    def exchange(calls: Iterable[str]) -> dict[str, StatsUnavailableError]:
        """Fail for each key."""
        missing = StatsUnavailableError(
            "the queue lies where no budget can be kept: set age.store to the URL of a Redis or Valkey",
            error_type="missing",
        )
        return dict.fromkeys(calls, missing)

    look = exchange


class Stores:
    """The stores of a controller, each made once.

    Args:
        provider: its Redis keeps what no other store is named for.
    """

    def __init__(self, provider: object) -> None:
        self._provider: Any = provider
        self._config: BackpressureConfig | None = None
        self._named: dict[str, BudgetStore] = {}
        self._own: dict[object, BudgetStore] = {}

    def configure(self, config: BackpressureConfig) -> None:
        """Keep budgets where `config` says from now on.

        Raises:
            ConfigurationError: nothing is said, and the provider keeps none, or a variable of the environment is
                missing.
        """
        ages: dict[str, tuple[AgeConfig | None, str | None]] = {"age": (config.age, None)}
        for name, own in config.queues.items():
            path = f"queues.{json.dumps(name, ensure_ascii=False)}.age"
            ages[path] = (own.age, None if is_pattern(name) else name)
        for path, (age, queue_name) in ages.items():
            if age is None or age.target is None:
                continue
            if age.store is not None:
                self._store_named(age.store, config.polling.timeout)
            elif not self._keeps(queue_name):
                what = type(self._provider).__name__ if queue_name is None else f"the server of queue {queue_name!r}"
                raise ConfigurationError(
                    f"{path}.store is missing: {what} keeps no budgets: give the URL of a Redis or Valkey that all "
                    "producers reach",
                    field=f"{path}.store",
                )
        self._config = config

    def _keeps(self, queue_name: str | None) -> bool:
        """Tell whether the provider keeps budgets, of this queue."""
        budget_store = getattr(self._provider, "budget_store", None)
        if budget_store is None or queue_name is None:
            return budget_store is not None
        try:
            return budget_store(queue_name) is not None
        except StatsUnavailableError:
            return True  # nobody reads such a queue: its calls tell why

    def by_store(self, queue_names: Iterable[str]) -> list[tuple[BudgetStore | _NoStore, list[str]]]:
        """Return the stores of some queues, each with its queues."""
        grouped: dict[int, tuple[BudgetStore | _NoStore, list[str]]] = {}
        for name in queue_names:
            store = self._store_of(name)
            grouped.setdefault(id(store), (store, []))[1].append(name)
        return list(grouped.values())

    def _store_of(self, queue_name: str) -> BudgetStore | _NoStore:
        assert self._config is not None  # noqa: S101 - it is configured before anything is asked
        named = self._config.age_of(queue_name).store
        if named is not None:
            return self._store_named(named, self._config.polling.timeout)
        try:
            where = self._provider.budget_store(queue_name)
        except StatsUnavailableError:  # nobody reads such a queue, which must not keep others from their calls
            where = None
        if where is None:
            return _NoStore()
        return self._own.get(where) or self._own.setdefault(where, _store(where))

    def _store_named(self, named: str, timeout: float) -> BudgetStore:
        kept = self._named.get(named)
        if kept is None:
            from backpressure.providers.configured import resolved  # noqa: PLC0415 - imports redis, when it is used
            from backpressure.providers.redis.client import parse_target  # noqa: PLC0415 - likewise

            kept = self._named.setdefault(named, _store(parse_target(resolved(named, "age.store"), timeout)))
        return kept

    def interrupt(self) -> None:
        """End calls that are under way."""
        for store in (*self._named.values(), *self._own.values()):
            store.interrupt()

    def close(self) -> None:
        """Close the connections that were opened here."""
        for store in (*self._named.values(), *self._own.values()):
            store.close()


def _store(where: Any) -> BudgetStore:
    from backpressure.providers.redis.store import BudgetStore  # noqa: PLC0415 - imports redis, when it is used

    return BudgetStore(where)
