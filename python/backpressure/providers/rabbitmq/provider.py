"""`RabbitMQStatsProvider`: reads queues of RabbitMQ over AMQP 0-9-1."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, ClassVar

from backpressure._model.arguments import validate_queue_name
from backpressure._model.hidden import hides_arguments
from backpressure._model.stats import QueueStats
from backpressure._runtime.extras import extra
from backpressure._runtime.pauses import Pauses
from backpressure.providers.arguments import queue_table, seconds
from backpressure.providers.failures import ADVICE, unavailable
from backpressure.providers.linked import LinkedProvider

with extra("rabbitmq", "amqp", what="RabbitMQStatsProvider"):
    from amqp import exceptions as amqp  # type: ignore[import-untyped]

    from backpressure.providers.rabbitmq.link import Link, parse_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from backpressure._model.errors import StatsUnavailableError
    from backpressure.providers.linked import Outcome

__all__ = ["RabbitMQStatsProvider"]

# Errors about the whole connection, and those that show that the server is not a broker. Most specific first.
_LABELS: tuple[tuple[type[Exception], str], ...] = (
    (amqp.AccessRefused, "auth"),
    (amqp.FrameError, "protocol"),
    (amqp.FrameSyntaxError, "protocol"),
    (amqp.UnexpectedFrame, "protocol"),
    (amqp.AMQPNotImplementedError, "protocol"),
    (amqp.RecoverableConnectionError, "connect"),
    (LookupError, "protocol"),  # py-amqp raises the last three when it reads nonsense
    (ValueError, "protocol"),
    (struct.error, "protocol"),
)

# Words of a refusal to enter a vhost that name another reason than a missing permission.
_NOT_ALLOWED = {"limit": "maxclients", "not found": "missing"}

# Refusals to tell of one queue: label, and what to do.
_REFUSALS: dict[type[Exception], tuple[str, str]] = {
    amqp.AccessRefused: ("acl", "grant the user a permission on the queue"),
    amqp.NotFound: ("missing", "declare the queue first, or check its name and the vhost"),
    amqp.ResourceLocked: ("provider", "only the connection that owns an exclusive queue can read it: leave it out"),
}


class RabbitMQStatsProvider(LinkedProvider[str, Link]):
    """A `StatsProvider` for RabbitMQ (tested with 3.10), and for brokers that speak AMQP 0-9-1 as it does.

    Args:
        url: ``amqp://user:password@host:port/vhost``, or ``amqps://`` (TLS). By default, user and password are
            ``guest``, the port is 5672 (TLS: 5671), the vhost ``/``. ``amqps://`` checks the broker's certificate;
            ``?cacertfile=``, ``certfile=``, ``keyfile=`` and ``verify=verify_none`` may follow.
        queues: what `get_all_queue_stats` reads: names, or a mapping from names to the broker's names. A queue that is
            not among them is read under its own name.
        timeout: seconds for the connect and for each reply.

    One read is a passive ``queue.declare`` for each queue, many to a round trip, over one connection that is kept for
    the next one. It creates no queue and takes no message, and needs only the permission to enter the vhost.

    ``backlog_count`` is the number of the queue's ready messages; AMQP tells nothing else. Messages that consumers have
    taken and not acknowledged are not counted, and ``processing_count``, ``delayed_count`` and ``oldest_age`` are
    ``None``. With a large prefetch, most of a short backlog is with the consumers. Messages that wait in a
    delayed-message exchange, or in another queue for their time to expire, are not counted either. For a stream, and
    for a quorum queue without a leader, RabbitMQ says that 0 messages are ready: give no streams.

    A queue that does not exist is an error of that queue, never 0: declare it before it is read. Each read of a missing
    queue costs a round trip, and a line in the broker's log.

    A mapping returned by `get_many` and `get_all_queue_stats` holds for each queue its sample or, where the broker
    refuses to tell, the `StatsUnavailableError`; when nothing could be read, that error is raised instead.

    Thread-safe without locks of its own, and usable in a forked child, which opens its own connections. It holds
    credentials, so it does not pickle; they are in no repr, message or log record. Needs the extra ``rabbitmq``.

    Raises:
        ConfigurationError: the URL, a queue or the timeout is impossible.
        InvalidQueueError: a queue's name is impossible.

    Example:
        >>> queues = {"email-queue": "mail.outgoing", "reports": "reports"}
        >>> RabbitMQStatsProvider("amqp://shop:secret@localhost/shop", queues, timeout=0.5)
        RabbitMQStatsProvider('amqp://localhost:5672/shop', 2 queues)
    """

    __module__ = "backpressure.providers"

    _advice: ClassVar[Mapping[str, str]] = {
        **ADVICE,
        "acl": "grant the user a permission on the vhost",
        "connect": f"{ADVICE['connect']}, and TLS (amqps://) on both sides or on neither",
        "missing": "check the vhost in the URL, with / in its name written as %2F",
        "maxclients": "raise the limit, or close idle connections",
        "protocol": "check that this is an AMQP port, and TLS (amqps://) on both sides or on neither",
    }

    @hides_arguments
    def __init__(self, url: str, queues: Iterable[str] | Mapping[str, str], *, timeout: float = 1.0) -> None:
        self._timeout = seconds(timeout)
        self._target = parse_target(url)
        table = queue_table(queues, _brokers_name, what="the broker's queue names")
        super().__init__(str(self._target), table, self._target.redactor())

    def _source(self, queue_name: str) -> str:
        return queue_name

    def _open(self) -> Link:
        return self._target.link(self._timeout)

    def _ask(self, link: Link, queues: Mapping[str, str]) -> dict[str, Outcome]:
        answers = link.counts(list(queues.values()), Pauses().tick)
        return {
            name: QueueStats(name, answer) if isinstance(answer, int) else self._refusal(name, answer)
            for name, answer in zip(queues, answers, strict=True)
        }

    def _refusal(self, name: str, error: amqp.ChannelError) -> StatsUnavailableError:
        label, advice = _REFUSALS.get(type(error), ("provider", ""))
        if isinstance(error, amqp.NotFound) and "is down" in str(error):
            label, advice = "masterdown", "bring back the node that holds the queue"
        return unavailable(
            error,
            what=f"queue {name!r} at {self._where}",
            label=label,
            redact=self._redact,
            advice={label: advice} if advice else {},
            queue_name=name,
        )

    def _label(self, error: Exception) -> str | None:
        if isinstance(error, amqp.NotAllowed):  # one code for all that is wrong with a vhost
            return next((label for words, label in _NOT_ALLOWED.items() if words in str(error)), "acl")
        return next((label for kind, label in _LABELS if isinstance(error, kind)), None)

    def _cut(self, link: Link) -> None:
        link.cut()

    def _close(self, link: Link) -> None:
        link.close()


def _brokers_name(name: str, given: Any) -> str:
    return name if given is None else validate_queue_name(given)
