"""Kafka clients: what is no failure of the queue, and deliveries of confluent-kafka as futures.

Those of kafka-python and aiokafka are futures already, whose outcome `run` reports when they are done.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from backpressure.integrations._shared.clients import SERIALISATION, installed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NOT_FAILURES", "is_failure", "produce"]

#: What confluent-kafka, kafka-python and aiokafka raise that says nothing of the topic, as a full buffer of the
#: client's own, a message that is too large or cannot be written down. For
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

# librdkafka's, by name: they are in no class of their own.
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
    """Tell whether an error of any of the three clients says something of the topic.

    For ``CircuitConfig(is_failure=is_failure)``: it knows `NOT_FAILURES` and, besides, the codes that confluent-kafka
    has within one ``KafkaException``. Thread-safe.
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
    """Call ``producer.produce`` of confluent-kafka; return a future of what its delivery callback is told.

    ``gate.run(produce, producer, "clicks", b"x")``, as `BackpressureController.run`, then reports the delivery's
    outcome. The future holds the message, or a ``KafkaException``; it cannot be cancelled.

    Args:
        producer: a ``confluent_kafka.Producer``, to be polled as ever: ``poll`` and ``flush`` are what call callbacks.
        on_delivery: your own, called as without this.
        options: what else ``produce`` takes, such as ``partition``, ``timestamp`` and ``headers``.

    Thread-safe as far as the producer is.

    Raises:
        BufferError: the producer's own queue is full: poll, and try again. No failure, see `NOT_FAILURES`.
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
