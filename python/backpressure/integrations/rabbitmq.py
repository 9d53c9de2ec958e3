"""RabbitMQ through kombu and py-amqp: errors that are not failures of the queue."""

from __future__ import annotations

from backpressure.integrations._shared.clients import SERIALISATION, installed

__all__ = ["NOT_FAILURES"]

#: Errors of kombu and py-amqp that say nothing about the queue, such as a message that is too large or cannot be
#: serialised, or a pool of connections or channels that is used up. For
#: ``CircuitConfig(excluded_exceptions=NOT_FAILURES)``. A message that the broker returned or refused is a failure.
NOT_FAILURES: tuple[type[BaseException], ...] = (
    *SERIALISATION,
    *installed(
        "amqp.exceptions:ContentTooLarge",
        "kombu.exceptions:EncodeError",
        "kombu.exceptions:SerializerNotInstalled",
        "kombu.exceptions:LimitExceeded",
    ),
)
