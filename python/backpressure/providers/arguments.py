"""Arguments that providers have in common, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from backpressure._model.arguments import shown, validate_queue_name
from backpressure._model.errors import ConfigurationError
from backpressure._model.units import doubt

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["queue_table", "seconds"]

S = TypeVar("S")


# The longest timeout that is believed: a read that takes longer is of no use to anybody who waits for it.
_LONGEST_TIMEOUT = 60.0


def seconds(value: Any, field: str = "timeout", *, most: float = _LONGEST_TIMEOUT) -> float:
    """Return `value` as a duration; `field` names the argument in messages.

    Raises:
        ConfigurationError: it is not a number of seconds above 0, or is above `most`, so that it was hardly meant so.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(f"{field} is {shown(value)}: give seconds above 0", field=field, value=value)
    if asked := doubt(value, most, f"write {{}}, or at most {most:g}"):
        raise ConfigurationError(f"{field} is {shown(value)}: {asked}", field=field, value=value)
    return float(value)


def queue_table(queues: Any, source: Callable[[str, Any], S], *, what: str) -> dict[str, S]:
    """Return the place where each of `queues` is read.

    Args:
        queues: names, or a mapping from names to `what`, as the user gave them.
        source: called with a name and its value in the mapping, ``None`` where the name was given alone. It returns the
            place where the queue is read, or raises `ValueError` that says what to do instead.
        what: names the values of the mapping in messages, in the plural.

    Raises:
        ConfigurationError: `queues` is something else.
        InvalidQueueError: a name cannot name a queue.
    """
    if isinstance(queues, (str, bytes)) or not isinstance(queues, Iterable):
        raise ConfigurationError(
            f"queues is {shown(queues)}: give a list of names, or a mapping from names to {what}",
            field="queues",
            value=queues,
        )
    given = queues if isinstance(queues, Mapping) else dict.fromkeys(queues)
    table: dict[str, S] = {}
    for name, value in given.items():
        checked = validate_queue_name(name)
        try:
            table[checked] = source(checked, value)
        except ConfigurationError:
            raise
        except ValueError as error:
            raise ConfigurationError(
                f"queues[{checked!r}] is {shown(value)}: {error}", field=f"queues.{checked}", value=value
            ) from None
    return table
