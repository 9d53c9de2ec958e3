"""What viewers are told of each look: all of it, what changed since the last one, and what one queue has besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from backpressure._engine.laws.registry import sampled_law_of
from backpressure._engine.laws.three_zone import ThreeZoneLaw
from backpressure._engine.sample import Sample
from backpressure._engine.sync import ForkLock
from backpressure._model.units import nanoseconds
from backpressure._watch.advice import PRIORITIES, Circuit, told
from backpressure._watch.answer import Answer, assumed
from backpressure._watch.masking import masked_tree
from backpressure._watch.notes import notes
from backpressure.console.names import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from backpressure._model.config.root import BackpressureConfig
    from backpressure._watch.budgets import StoredBudget
    from backpressure._watch.watch import QueueView, Snapshot
    from backpressure.console.history import History

__all__ = ["Looks", "Place"]

_LONGEST = 500


@attrs.frozen
class Place:
    """Where a queue is read: as what, and on which server, without credentials."""

    read_as: str | None = None
    server: str | None = None


class Looks:
    """Thread-safe.

    Args:
        config: whose thresholds and ages hold.
        names: the queues, by their places from now on.
        places: where they are read.
        history: what was seen of them.
    """

    def __init__(
        self, config: BackpressureConfig, names: Sequence[str], places: Sequence[Place], history: History
    ) -> None:
        self._config = config
        self.names = names
        self._places = places
        self._history = history
        self._lock = ForkLock()
        self._views: Sequence[QueueView] = ()
        self._fixed = [self._fixed_of(name) for name in names]
        self._rows: list[dict[str, Any]] = [{} for _ in names]

    def _fixed_of(self, name: str) -> dict[str, Any]:
        return {
            "name": visible(name),
            "mode": self._config.mode_of(name),
            "target": self._config.age_of(name).target,
        }

    def take(
        self, snapshot: Snapshot, now: float, fleet: Mapping[str, Any] | None, producers: Mapping[str, Any]
    ) -> tuple[Callable[[], Any], dict[str, Any]]:
        """Return what makes all that is known, and what changed, both as JSON.

        Args:
            snapshot: a look.
            now: seconds, by a clock that never goes back.
            fleet: what the fleet told, if there is one.
            producers: what its members told of queues, by name.
        """
        rows = [
            self._row(view, fixed, producers.get(view.queue_name))
            for view, fixed in zip(snapshot.queues, self._fixed, strict=True)
        ]
        read = [
            (None, None) if snapshot.problem or view.problem else (view.backlog, view.oldest_age)
            for view in snapshot.queues
        ]
        with self._lock():
            point = self._history.note(now, read)
            self._views = snapshot.queues
        changed = {
            str(place): row for place, (row, before) in enumerate(zip(rows, self._rows, strict=True)) if row != before
        }
        self._rows = rows
        about = masked_tree(
            {
                "at": snapshot.at.timestamp(),
                "point": point,
                "server": snapshot.server,
                "statistics": snapshot.statistics(),
                "problem": _short(snapshot.problem),
                "errors": dict(snapshot.errors),
                "notes": list(snapshot.notes),
                "fleet": fleet,
            }
        )
        about["ages"] = [None if view.sample_age is None else round(view.sample_age, 1) for view in snapshot.queues]
        kept = {"step": self._history.step, "points": self._history.points}
        return lambda: {**about, **kept, "queues": rows}, {**about, "rows": changed}

    @staticmethod
    def _row(view: QueueView, fixed: Mapping[str, Any], producers: Any) -> dict[str, Any]:
        return {
            **fixed,
            "backlog": view.backlog,
            "oldest": None if view.oldest_age is None else round(view.oldest_age, 1),
            "processing": view.processing,
            "delayed": view.delayed,
            "problem": masked_tree(_short(view.problem or (view.budget.complaint() if view.budget else None))),
            "advice": {str(priority): _cell(view, priority) for priority in PRIORITIES},
            "producers": producers,
        }

    def histories(self, queues: Sequence[int]) -> dict[str, Any]:
        """Return the last hour's backlogs of queues."""
        with self._lock():
            found = {str(queue): self._history.of(queue)[0] for queue in queues}
            return {"point": self._history.last, "backlogs": found}

    def queue(self, queue: int) -> dict[str, Any]:
        """Return where a queue is read, its bounds, and its last hour."""
        name, place = self.names[queue], self._places[queue]
        with self._lock():
            backlogs, oldest = self._history.of(queue)
            point = self._history.last
        return {
            "read_as": place.read_as,
            "server": place.server,
            "bounds": self._bounds(name),
            "notes": notes(self._config, name),
            "point": point,
            "backlogs": backlogs,
            "oldest": oldest,
        }

    def _bounds(self, name: str) -> dict[str, dict[str, int]] | None:
        """Return the zones' bounds by priority, in jobs; ``None`` where an age is held, or another law decides."""
        law = sampled_law_of(self._config, name)
        if self._config.age_of(name).target is not None or not isinstance(law, ThreeZoneLaw):
            return None
        bounds = {
            str(priority): dict(zip(("green_max", "yellow_max", "red_max"), law.windows[priority.value], strict=True))
            for priority in PRIORITIES
        }
        limit, (_, _, red_max) = law.shed_limit(), law.windows[PRIORITIES[-1].value]
        return bounds if limit >= red_max else bounds | {"low": {**bounds["low"], "shed_at": limit}}

    def explain(self, queue: int, circuit: Circuit, backlog: int | None) -> dict[str, Any]:
        """Return what jobs are told and why, at the backlog that was read last or at an assumed one."""
        name = self.names[queue]
        with self._lock():
            view = self._views[queue] if self._views else None
        if backlog is not None:
            answer = assumed(self._config, name, circuit, backlog)
        else:
            answer = Answer(config=self._config, queue_name=name, circuit=circuit, sample=_sample(view))
        budget = None if view is None or backlog is not None else view.budget
        answer = attrs.evolve(answer, budget=budget).advised()
        why = answer.why()
        told_each = {
            str(priority): [*_word(decision, answer.budget_of(decision)), why[priority]]
            for priority, decision in answer.advice.items()
        }
        return {
            "backlog": None if answer.sample is None else answer.sample.backlog,
            "assumed": backlog is not None,
            "circuit": str(circuit),
            "advice": told_each,
            "budget": [] if answer.budget is None else answer.budget.sentences(),
        }


def _sample(view: QueueView | None) -> Sample | None:
    if view is None or view.backlog is None:
        return None
    return Sample(view.backlog, 0, None if view.oldest_age is None else nanoseconds(view.oldest_age))


def _cell(view: QueueView, priority: Any) -> list[str | None]:
    return _word(view.advice[priority], view.budget)


def _word(decision: Any, budget: StoredBudget | None) -> list[str | None]:
    """Return zone, advice and reason."""
    if budget is not None:
        return [budget.zone(), budget.told(decision.priority), "age"]
    return [decision.zone, told(decision, 3), str(decision.reason)]


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
