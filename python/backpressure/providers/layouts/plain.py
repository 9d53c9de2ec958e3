"""A queue that is a list or a sorted set, without any framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

from backpressure._model.arguments import shown
from backpressure._model.errors import ConfigurationError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import QueueStats
from backpressure.providers.layouts._steps import Command, Key, Steps, ask, count, valid_key

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["ListKey", "ZSetKey"]


@repr_when_half_built
@attrs.frozen
class ListKey:
    """A queue that is a LIST.

    Args:
        key: the list of waiting jobs.
        processing_key: the list workers move jobs to while they run (``LMOVE``), if any.

    Immutable.

    Raises:
        ConfigurationError: a key is impossible.

    Example:
        >>> ListKey("jobs:email", processing_key="jobs:email:running")
        ListKey(key='jobs:email', processing_key='jobs:email:running')
    """

    key: Key = attrs.field(validator=valid_key)
    processing_key: Key | None = attrs.field(default=None, validator=attrs.validators.optional(valid_key))

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count waiting jobs and, where there is a second list, running ones."""
        if self.processing_key is None:
            command = Command("llen", self.key)
            (reply,) = yield (command,)  # without `ask`, which takes as long as the rest: most queues are such lists
            return QueueStats(queue_name, count(reply, command), last_updated=now)
        waiting, running = yield from ask(Command("llen", self.key), Command("llen", self.processing_key))
        return QueueStats(queue_name, waiting, running, last_updated=now)


@repr_when_half_built
@attrs.frozen
class ZSetKey:
    """A queue that is a sorted set.

    Args:
        key: the sorted set.
        due: ``None`` when every member waits; ``"seconds"`` or ``"milliseconds"`` when the score is the Unix time
            at which a job is due: members due by now wait, later ones are delayed. *Now* is this machine's clock,
            so keep it in step with those of the producers.

    Immutable.

    Raises:
        ConfigurationError: the key or the unit is impossible.

    Example:
        >>> ZSetKey("jobs:scheduled", due="seconds")
        ZSetKey(key='jobs:scheduled', due='seconds')
    """

    key: Key = attrs.field(validator=valid_key)
    due: Literal["seconds", "milliseconds"] | None = attrs.field(default=None)

    @due.validator
    def _known_unit(self, _: Any, value: Any) -> None:
        if value not in {None, "seconds", "milliseconds"}:
            raise ConfigurationError(
                f'due is {shown(value)}: give None, "seconds" or "milliseconds"', field="due", value=value
            )

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count the members, or those due and those not."""
        if self.due is None:
            (waiting,) = yield from ask(Command("zcard", self.key))
            return QueueStats(queue_name, waiting, last_updated=now)
        limit = f"{now.timestamp():.6f}" if self.due == "seconds" else str(int(now.timestamp() * 1000))
        waiting, delayed = yield from ask(
            Command("zcount", self.key, ("-inf", limit)),
            Command("zcount", self.key, (f"({limit}", "+inf")),
        )
        return QueueStats(queue_name, waiting, delayed_count=delayed, last_updated=now)
