"""Failed enqueues whose broker cannot be reached: told from faults of the program, and logged now and then."""

from __future__ import annotations

import errno
import logging
import socket
from typing import NamedTuple

from backpressure._controller.outcome import failure_of
from backpressure._model.clock import own_time
from backpressure._runtime.foreign import Foreign

__all__ = ["Lost", "lost", "tell"]

# Seconds after which the same failure is logged again.
_REMIND = 300.0
_MOST = 1_000

# What clients raise, by the package and the name of the class, so that none is imported.
_LOST = frozenset(
    {
        *(f"{client}.{name}" for client in ("redis", "valkey") for name in (
            "ConnectionError", "TimeoutError", "ReadOnlyError", "ClusterDownError", "MasterDownError", "TryAgainError",
        )),
        *(f"{client}.{name}" for client in ("kafka", "aiokafka") for name in (
            "KafkaConnectionError", "KafkaTimeoutError", "NoBrokersAvailable", "NodeNotReadyError",
            "RequestTimedOutError", "BrokerNotAvailableError", "LeaderNotAvailableError", "NotLeaderForPartitionError",
        )),
        "amqp.RecoverableConnectionError",
        "asyncpg.CannotConnectNowError",
        "asyncpg.PostgresConnectionError",
        "asyncpg.TooManyConnectionsError",
        "botocore.ConnectionError",
        "botocore.HTTPClientError",
        "dramatiq.BrokerConnectionError",
        "kombu.OperationalError",
        "nats.ConnectionClosedError",
        "nats.NoServersError",
        "pika.AMQPConnectionError",
        "psycopg.OperationalError",
        "psycopg2.OperationalError",
        "pymongo.ConnectionFailure",
    }
)  # fmt: skip
# Of these classes, but a person has to change something.
_MISCONFIGURED = frozenset(
    {
        *(f"{client}.{name}" for client in ("redis", "valkey") for name in (
            "AuthenticationError", "AuthorizationError",
        )),
        "botocore.SSLError",
        "pika.AuthenticationError",
        "pika.ProbableAccessDeniedError",
        "pika.ProbableAuthenticationError",
    }
)  # fmt: skip
# librdkafka's, by name: they have no class of their own.
_LOST_CODES = frozenset(
    {
        "_ALL_BROKERS_DOWN",
        "_MSG_TIMED_OUT",
        "_RESOLVE",
        "_TIMED_OUT",
        "_TRANSPORT",
        "BROKER_NOT_AVAILABLE",
        "LEADER_NOT_AVAILABLE",
        "NOT_ENOUGH_REPLICAS",
        "NOT_LEADER_FOR_PARTITION",
        "REQUEST_TIMED_OUT",
    }
)
_ERRNOS = frozenset({errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENOTCONN})


class Lost(NamedTuple):
    """An enqueue that failed because its broker could not be reached."""

    queue_name: str
    retry_after: float | None
    kind: type[BaseException]


class _Notice:
    """When a failure was logged last, and how often it came since."""

    def __init__(self) -> None:
        self.at = -_REMIND
        self.count = 0


_foreign = Foreign()
_now = own_time.monotonic
_notices: dict[tuple[str, type], _Notice] = {}


def lost(error: BaseException) -> Lost | None:
    """Return what `error` says of an enqueue that a controller let go, and that failed for want of a broker.

    ``None`` for an error that did not pass through a controller's ``run``, slot, gate, batch or hook, that does not
    count against the queue there, or that is not one of connections.
    """
    failure = failure_of(error)
    if failure is None or not _is_of_connection(error):
        return None
    return Lost(*failure, type(error))


def _is_of_connection(error: BaseException | None) -> bool:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, BaseExceptionGroup):
            return all(map(_is_of_connection, error.exceptions))
        names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
        if names & _MISCONFIGURED:
            return False
        if names & _LOST or _is_of_network(error) or _has_code(error):
            return True
        error = error.__cause__
    return False


def _is_of_network(error: BaseException) -> bool:
    return isinstance(error, ConnectionError | TimeoutError | socket.gaierror) or (
        isinstance(error, OSError) and error.errno in _ERRNOS
    )


def _has_code(error: BaseException) -> bool:
    ours = type(error).__module__.startswith(("cimpl", "confluent_kafka"))
    name = getattr(error.args[0], "name", None) if ours and error.args else None
    return callable(name) and name() in _LOST_CODES


def tell(failed: Lost) -> None:
    """Log the first of such failures, and then one in five minutes: the answer hides them from the server's log."""
    if len(_notices) >= _MOST:
        _notices.clear()
    queue_name, _, kind = failed
    notice = _notices.setdefault((queue_name, kind), _Notice())
    notice.count += 1
    now = _now()
    if now - notice.at < _REMIND:
        return
    count, notice.count, notice.at = notice.count, 0, now
    times = "" if count == 1 else f", {count} times since this was last told"
    _foreign.log(
        logging.WARNING,
        "jobs for queue %r cannot be handed over: %s.%s%s; requests are told to come again",
        queue_name,
        kind.__module__,
        kind.__qualname__,  # not its text, which may hold credentials
        times,
        kind="lost",
        extra={"change": None, "queue_name": queue_name},
    )
