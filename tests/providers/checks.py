"""What tests of providers ask of every provider: how a read fails, and what the queues hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from backpressure._model.errors import StatsUnavailableError
from backpressure._model.stats import QueueStats

if TYPE_CHECKING:
    from collections.abc import Callable


def failure(read: Callable[[], object]) -> StatsUnavailableError:
    """Return what `read` raises, which carries neither cause nor context."""
    with pytest.raises(StatsUnavailableError) as caught:
        read()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def backlogs(outcomes: Any) -> dict[str, int | str]:
    """Return each queue's backlog, or the type of its error."""
    return {
        name: outcome.backlog_count if isinstance(outcome, QueueStats) else outcome.error_type
        for name, outcome in outcomes.items()
    }


def sample(outcomes: Any, name: str = "q") -> QueueStats:
    """Return what was read of a queue that could be read."""
    outcome = outcomes[name]
    assert isinstance(outcome, QueueStats), outcome
    return outcome


def counts(stats: QueueStats) -> tuple[int, int | None, int | None]:
    """Return how many jobs wait, are worked on and are delayed."""
    return stats.backlog_count, stats.processing_count, stats.delayed_count
