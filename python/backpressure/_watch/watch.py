"""What `backpressure top` looks at: one controller that polls the queues, and how they stand at each look."""

from __future__ import annotations

import collections
import logging
from typing import TYPE_CHECKING, Any, Self

import attrs
from prometheus_client import CollectorRegistry

from backpressure._controller.blocking import BackpressureController
from backpressure._controller.candidate import candidate_advice, candidate_law
from backpressure._engine.sample import Sample
from backpressure._model.stats import permille_of, utc_now
from backpressure._model.units import nanoseconds
from backpressure._watch.advice import advice_dict, ask
from backpressure._watch.aside import taking_no_part
from backpressure._watch.notes import notes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.stats import StatsProvider
    from backpressure._watch.advice import Advice
    from backpressure._watch.budgets import StoredBudget
    from backpressure._watch.tenants import Heaviest

__all__ = ["Problems", "QueueView", "Snapshot", "Watch", "config_for"]

# Looks kept for the sparkline; no terminal is wide enough for more.
_HISTORY = 200


@attrs.frozen
class QueueView:
    """One queue at one look. Ages in seconds; ``None`` is unknown, or of `budget`: no age is held.

    `candidate` is what a candidate says by priority, ``None`` where there is none.
    """

    queue_name: str
    backlog: int | None
    sample_age: float | None
    processing: int | None
    delayed: int | None
    oldest_age: float | None
    problem: str | None
    advice: Advice
    history: Sequence[int | None] = ()
    budget: StoredBudget | None = None
    tenants: Mapping[str, float] = attrs.field(factory=dict)
    candidate: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts."""
        apart = {"advice", "history", "budget", "tenants"}
        shown = attrs.asdict(self, recurse=False, filter=lambda field, _: field.name not in apart)
        shown["tenants"] = dict(self.tenants)
        if self.budget is not None:
            return shown | dict.fromkeys(map(str, self.advice)) | {"budget": self.budget.to_dict()}
        told = {str(priority): advice_dict(decision) for priority, decision in self.advice.items()}
        return shown | told | {"budget": None}


@attrs.frozen
class Snapshot:
    """Everything at one look."""

    at: datetime
    server: str
    provider: str
    errors: Mapping[str, int]
    problem: str | None
    queues: Sequence[QueueView]
    notes: Sequence[str] = ()

    def problems(self) -> list[str]:
        """Return why samples are not fresh: the problem of the whole provider, else those of queues; then budgets'."""
        budgets = (view.budget for view in self.queues if view.budget is not None)
        lost = [complaint for budget in budgets if (complaint := budget.complaint()) is not None]
        if self.problem is not None:
            return [self.problem, *lost]
        return [*(view.problem for view in self.queues if view.problem is not None), *lost]

    def statistics(self) -> str:
        """Return how reading goes in a word, or how many queues cannot be read."""
        failing = len([view for view in self.queues if view.problem is not None])
        if self.provider != "ok" or not failing:
            return self.provider
        return f"unreadable for {failing} of {len(self.queues)} queues"

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {
            "at": self.at.isoformat(),
            "server": self.server,
            "provider": self.provider,
            "statistics": self.statistics(),
            "errors": dict(self.errors),
            "problem": self.problem,
            "queues": [view.to_dict() for view in self.queues],
        }


class Problems(logging.Handler):
    """Keeps the last thing that the controller said of the provider (``None``) and of each queue."""

    def __init__(self) -> None:
        super().__init__()
        self.current: dict[str | None, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Take a problem, or its end."""
        told: Any = record
        if getattr(record, "change", None) not in {"provider", "queue_stats"}:
            return
        if told.new == "ok":
            self.current.pop(told.queue_name, None)
        else:
            self.current[told.queue_name] = record.getMessage()

    def last(self) -> str:
        """Return what came last of those that still hold; an empty text if all is well."""
        return next(reversed(list(self.current.values())), "")


def config_for(config: BackpressureConfig, interval: float, queues: int) -> BackpressureConfig:
    """Return `config` with statistics read every `interval` seconds, after a failure too, that holds no ages."""
    polling = attrs.evolve(
        config.polling,
        enabled=True,
        interval=interval,
        busy_interval=interval,
        jitter=0.0,
        timeout=min(config.polling.timeout, interval),
        max_backoff=interval,
        cache_ttl=max(config.polling.cache_ttl, 2 * interval),
    )
    return attrs.evolve(taking_no_part(config), polling=polling, max_queues=max(config.max_queues, queues))


class Watch:
    """Polls while it is entered; `look` waits only the first time."""

    def __init__(
        self,
        config: BackpressureConfig,
        provider: StatsProvider,
        server: str,
        queue_names: Sequence[str],
        budgets: Callable[[], Mapping[str, StoredBudget]] = dict,
        tenants: Callable[[], Heaviest] = dict,
        candidate: BackpressureConfig | None = None,
    ) -> None:
        self._config = config
        self._server = server
        self._names = queue_names
        self._budgets = budgets
        self._tenants = tenants
        self._candidate = candidate
        self._history = {name: collections.deque[int | None](maxlen=_HISTORY) for name in queue_names}
        self._problems = Problems()
        logger = logging.Logger("backpressure.top", logging.INFO)  # noqa: LOG001 - known to nobody else
        logger.addHandler(self._problems)
        self._controller = BackpressureController(config, provider, logger=logger, registry=CollectorRegistry())

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._controller.stop()

    def look(self) -> Snapshot:
        """Return how everything stands now."""
        advice = {name: self._ask(name) for name in self._names}
        health = self._controller.health()
        budgets, tenants = self._budgets(), self._tenants()
        return Snapshot(
            at=utc_now(),
            server=self._server,
            provider=health["provider"],
            errors=health["polling_errors"],
            problem=self._problems.current.get(None),
            queues=[
                self._view(name, health["queues"].get(name, {}), advice[name], budgets.get(name), tenants.get(name, {}))
                for name in self._names
            ],
            notes=notes(self._config),
        )

    def _ask(self, name: str) -> Advice:
        """Ask for a queue, which reads what no poll has read; but a server that is away is not waited for by each."""
        lost = None in self._problems.current
        return ask(self._controller.peek if lost else self._controller.suggest_throttle, name)

    def _view(
        self,
        name: str,
        stands: Mapping[str, Any],
        advice: Advice,
        budget: StoredBudget | None,
        tenants: Mapping[str, float],
    ) -> QueueView:
        backlog = stands.get("backlog")
        problem = self._problems.current.get(name)
        if problem is None and backlog is None and None not in self._problems.current:
            problem = f"queue {name!r} has no sample: nothing is told of it"
        # A bar shows what was read, not what was assumed in between.
        self._history[name].append(None if problem or None in self._problems.current else backlog)
        return QueueView(
            queue_name=name,
            backlog=backlog,
            sample_age=stands.get("sample_age"),
            processing=stands.get("processing"),
            delayed=stands.get("delayed"),
            oldest_age=stands.get("oldest_age"),
            problem=problem,
            advice=advice,
            history=tuple(self._history[name]),
            budget=budget,
            tenants=tenants,
            candidate=self._by_candidate(name, stands),
        )

    def _by_candidate(self, name: str, stands: Mapping[str, Any]) -> dict[str, Any] | None:
        law = None if self._candidate is None else candidate_law(self._candidate, name)
        if law is None or stands.get("backlog") is None:
            return None
        oldest_age = stands["oldest_age"]
        oldest_ns = None if oldest_age is None else nanoseconds(oldest_age)
        return candidate_advice(law, Sample(stands["backlog"], 0, oldest_ns, permille_of(stands["memory_used"])))
