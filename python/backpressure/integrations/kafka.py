"""Kafka clients: errors that are not failures of the queue, and deliveries of confluent-kafka as futures.

Deliveries of kafka-python and aiokafka are futures already; `run` reports their outcome when they are done.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from backpressure.integrations._shared.clients import SERIALISATION, installed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NOT_FAILURES", "is_failure", "produce"]

#: Errors of confluent-kafka, kafka-python and aiokafka that say nothing about the topic, such as a full buffer of the
#: client's own, or a message that is too large or cannot be serialised. For
#: ``CircuitConfig(excluded_exceptions=NOT_FAILURES)``.
NOT_FAILURES: tuple[type[BaseException], ...] = (
    BufferError,  # confluent-kafka's for its own full queue
    *SERIALISATION,
    *installed(
        "confluent_kafka.serialization:SerializationError",
        "kafka.errors:MessageSizeTooLargeError",
        "kafka.errors:RecordListTooLargeError",
        "kafka.errors:InvalidRecordError",
        "aiokafka.errors:MessageSizeTooLargeError",
        "aiokafka.errors:RecordListTooLargeError",
        "aiokafka.errors:RecordTooLargeError",
    ),
)

# librdkafka's, by name: they have no class of their own.
_NOT_FAILURES = frozenset(
    {
        "_INVALID_ARG",
        "_KEY_SERIALIZATION",
        "_PURGE_INFLIGHT",
        "_PURGE_QUEUE",
        "_QUEUE_FULL",
        "_VALUE_SERIALIZATION",
        "INVALID_RECORD",
        "MSG_SIZE_TOO_LARGE",
        "RECORD_LIST_TOO_LARGE",
    }
)


def is_failure(error: Exception) -> bool:
    """Tell whether an error of any of the three clients says something about the topic.

    For ``CircuitConfig(is_failure=is_failure)``: it knows `NOT_FAILURES` and also the codes that confluent-kafka has
    within one ``KafkaException``. Thread-safe.
    """
    if isinstance(error, NOT_FAILURES):
        return False
    code = error.args[0] if error.args and type(error).__module__.startswith(("cimpl", "confluent_kafka")) else None
    name = getattr(code, "name", None)
    return not (callable(name) and name() in _NOT_FAILURES)


def produce(
    producer: Any,
    topic: str,
    value: Any = None,
    key: Any = None,
    *,
    on_delivery: Callable[[Any, Any], object] | None = None,
    **options: Any,
) -> Future[Any]:
    """Call ``producer.produce`` of confluent-kafka; return a future of what its delivery callback receives.

    ``gate.run(produce, producer, "clicks", b"x")``, as `BackpressureController.run`, then reports the delivery's
    outcome. The future holds the message, or a ``KafkaException``; it cannot be cancelled.

    Args:
        producer: a ``confluent_kafka.Producer``, to be polled as usual: ``poll`` and ``flush`` call the callbacks.
        on_delivery: your own callback, called as usual.
        options: other arguments of ``produce``, such as ``partition``, ``timestamp`` and ``headers``.

    Thread-safe as far as the producer is.

    Raises:
        BufferError: the producer's own queue is full: poll, and try again. Not a failure, see `NOT_FAILURES`.
        Exception: what ``produce`` raises.
    """
    from confluent_kafka import KafkaException  # noqa: PLC0415 - one of three clients that may be there

    delivered: Future[Any] = Future()
    delivered.set_running_or_notify_cancel()
    theirs = on_delivery or options.pop("callback", None)

    def settle(error: Any, message: Any) -> None:
        with contextlib.ExitStack() as stack:
            if theirs is not None:
                stack.callback(theirs, error, message)
            if error is None:
                delivered.set_result(message)
            else:
                delivered.set_exception(KafkaException(error))

    producer.produce(topic, value=value, key=key, on_delivery=settle, **options)
    return delivered
