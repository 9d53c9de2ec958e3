"""RabbitMQ through kombu and py-amqp: what is no failure of the queue."""

from __future__ import annotations

from backpressure.integrations._shared.clients import SERIALISATION, installed

__all__ = ["NOT_FAILURES"]

#: What kombu and py-amqp raise that says nothing of the queue, as a message that is too large or cannot be written
#: down, a pool of connections or channels that is used up. For ``CircuitConfig(excluded_exceptions=NOT_FAILURES)``. A
#: message that the broker returned or refused is a failure.
NOT_FAILURES: tuple[type[BaseException], ...] = (
    *SERIALISATION,
    *installed(
        "amqp.exceptions:ContentTooLarge",
        "kombu.exceptions:EncodeError",
        "kombu.exceptions:SerializerNotInstalled",
        "kombu.exceptions:LimitExceeded",
    ),
)
