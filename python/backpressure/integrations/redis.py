"""redis-py: errors that are not failures of the queue."""

from __future__ import annotations

from backpressure.integrations._shared.clients import SERIALISATION, installed

__all__ = ["NOT_FAILURES", "is_failure"]

#: Errors of redis-py that say nothing about the queue, such as a full pool or a value that cannot be serialised.
#: For ``CircuitConfig(excluded_exceptions=NOT_FAILURES)``.
NOT_FAILURES: tuple[type[BaseException], ...] = (
    *SERIALISATION,
    *installed("redis.exceptions:MaxConnectionsError", "redis.exceptions:DataError"),
)

# Messages of pools that have no class for it: `BlockingConnectionPool`'s, and any pool's before redis-py 6.
_POOL = {"No connection available.", "Too many connections"}


def is_failure(error: Exception) -> bool:
    """Tell whether an error says something about the queue.

    For ``CircuitConfig(is_failure=is_failure)``: it knows `NOT_FAILURES` and also pools that raise a plain
    ``ConnectionError`` when they are used up. Thread-safe.
    """
    return not (isinstance(error, NOT_FAILURES) or (type(error).__name__ == "ConnectionError" and str(error) in _POOL))
