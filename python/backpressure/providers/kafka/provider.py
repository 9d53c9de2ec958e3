"""`KafkaStatsProvider`: reads the lag of consumer groups in Apache Kafka."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

import attrs

from backpressure._model.arguments import shown
from backpressure._model.errors import ConfigurationError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.hidden import hides_arguments
from backpressure._model.stats import QueueStats
from backpressure._runtime.extras import extra
from backpressure.providers.arguments import queue_table, seconds
from backpressure.providers.failures import ADVICE, Redactor
from backpressure.providers.linked import LinkedProvider

with extra("kafka", "kafka", what="KafkaStatsProvider"):
    from backpressure.providers.kafka.link import EARLIEST, LATEST, SASL_MECHANISMS, BrokerError, Link

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from backpressure.providers.kafka.link import Offset, Partition
    from backpressure.providers.linked import Outcome

__all__ = ["ConsumerLag", "KafkaStatsProvider"]

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_RESETS = ("earliest", "latest")
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

# Options of kafka-python that say how to reach a cluster; the provider sets the others itself.
_OPTIONS = frozenset(
    {
        "api_version",
        "client_dns_lookup",
        "client_id",
        "proxy_url",
        "sasl_kerberos_domain_name",
        "sasl_kerberos_name",
        "sasl_kerberos_service_name",
        "sasl_mechanism",
        "sasl_oauth_token_provider",
        "sasl_plain_password",
        "sasl_plain_username",
        "security_protocol",
        "socket_options",
        "ssl_cafile",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_context",
        "ssl_crlfile",
        "ssl_keyfile",
        "ssl_password",
    }
)
_SECRETS = ("sasl_plain_password", "sasl_plain_username", "ssl_password")


def _valid_topic(_: object, __: object, topic: Any) -> None:
    if not isinstance(topic, str) or not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise ConfigurationError(
            f"topic is {shown(topic)}: give 1 to 249 letters, digits, '.', '_' or '-'", field="topic", value=topic
        )


def _valid_group(_: object, __: object, group: Any) -> None:
    if not isinstance(group, str) or not group:
        raise ConfigurationError(
            f"group is {shown(group)}: give the name of a consumer group", field="group", value=group
        )


def _valid_reset(_: object, __: object, reset: Any) -> None:
    if reset not in _RESETS:
        raise ConfigurationError(
            f"auto_offset_reset is {shown(reset)}: give 'earliest' or 'latest', as the consumers have it",
            field="auto_offset_reset",
            value=reset,
        )


@repr_when_half_built
@attrs.frozen
class ConsumerLag:
    """A queue that is a topic, read by a consumer group.

    Args:
        topic: name of the topic.
        group: name of the consumer group.
        auto_offset_reset: where the group's consumers begin a partition if they have committed nothing in it, if the
            messages after the committed offset are gone, or if that lies beyond the partition's end, as after a topic
            was made anew: ``"earliest"`` counts all messages that are kept, ``"latest"`` none. Give the value that the
            consumers are configured with; it is often ``"latest"``.

    Immutable.

    Raises:
        ConfigurationError: a name is impossible.

    Example:
        >>> ConsumerLag("emails", group="workers")
        ConsumerLag(topic='emails', group='workers', auto_offset_reset='earliest')
    """

    topic: str = attrs.field(validator=_valid_topic)
    group: str = attrs.field(validator=_valid_group, kw_only=True)
    auto_offset_reset: Literal["earliest", "latest"] = attrs.field(
        default="earliest", validator=_valid_reset, kw_only=True
    )

    def waiting(self, committed: int, start: int, end: int) -> int:
        """Return how many messages of a partition the group has still to read."""
        if not start <= committed <= end:
            committed = start if self.auto_offset_reset == "earliest" else end
        return max(0, end - committed)


class KafkaStatsProvider(LinkedProvider[ConsumerLag, Link]):
    """A `StatsProvider` for Apache Kafka: the backlog is a consumer group's lag. Needs the extra ``kafka``.

    Args:
        bootstrap_servers: ``"host:port"``, several of them after commas, or a list.
        queues: what `get_all_queue_stats` reads: a mapping from names to `ConsumerLag`, or to a topic's name, or just
            the names of topics; the latter two need `group`.
        timeout: seconds for each connect and each reply.
        group: the consumer group of queues that are given without one, and of topics that are asked for by name and are
            not in `queues`. ``None``: a name that is not in `queues` is refused.
        client_options: how to reach the cluster, by kafka-python's names: ``security_protocol``, ``sasl_mechanism``,
            ``sasl_plain_username``, ``sasl_plain_password``, ``sasl_oauth_token_provider``, ``sasl_kerberos_…``,
            ``ssl_context`` or ``ssl_cafile``, ``ssl_certfile``, ``ssl_keyfile``, ``ssl_password``, ``ssl_crlfile``,
            ``ssl_check_hostname``, ``client_id``, ``client_dns_lookup``, ``proxy_url``, ``socket_options``,
            ``api_version``.

    The lag, in messages, is the sum over the topic's partitions of the end offset minus the committed offset. It
    includes messages that a consumer has received and not yet committed: the brokers do not know of them, so
    ``processing_count`` is ``None``. ``delayed_count`` is ``None`` since Kafka has no delayed messages, ``oldest_age``
    since an age would need a message of each partition. Offsets are counted, not messages: a message that compaction
    removed and the marker of a transaction count as one each. The end is the high watermark, also where consumers have
    another isolation level. So a transaction that hangs hides nothing, and messages that will be aborted count until
    passed. Ends and commits are not read at one instant: on a busy topic the lag is as exact as the time between two
    replies. A share group (KIP-932) commits no offsets, and is refused.

    One read is a request for the topics. Then it sends, all at once, one request to each group coordinator and two to
    each leader of a partition; coordinators are looked up when first needed. It needs ``DESCRIBE`` on topics and
    groups, creates no topic, and joins no group. Each broker's share fails alone: a mapping returned by `get_many` and
    `get_all_queue_stats` holds for each queue its sample or the `StatsUnavailableError`; when no broker could be asked,
    that error is raised instead.

    Thread-safe without locks or threads of its own, and usable in a forked child, which opens its own connections. It
    holds credentials, so it does not pickle; they are in no repr, message or log record. What kafka-python logs while
    this provider reads is dropped, because it would show them at ``DEBUG``. The system resolves host names, in its own
    time, which `interrupt` cannot shorten.

    Raises:
        ConfigurationError: an argument is impossible.
        InvalidQueueError: a queue's name is impossible.

    Example:
        >>> queues = {"email-queue": ConsumerLag("emails", group="workers")}
        >>> KafkaStatsProvider("localhost:9092", queues, sasl_mechanism="PLAIN", security_protocol="SASL_SSL",
        ...     sasl_plain_username="me", sasl_plain_password="secret")
        KafkaStatsProvider('kafka at localhost:9092', 1 queues)
    """

    __module__ = "backpressure.providers"

    _advice: ClassVar = {
        **ADVICE,
        "acl": "grant the user describe on the topic and on the group",
        "connect": "check that a broker listens there, under security_protocol, and its advertised.listeners",
    }

    @hides_arguments
    def __init__(
        self,
        bootstrap_servers: str | Iterable[str],
        queues: Mapping[str, ConsumerLag | str] | Iterable[str] = (),
        *,
        timeout: float = 1.0,
        group: str | None = None,
        **client_options: Any,
    ) -> None:
        servers = _servers(bootstrap_servers)
        milliseconds = max(1, round(seconds(timeout) * 1000))
        _check_options(client_options)
        if group is not None:
            _valid_group(None, None, group)
        self._group = group
        super().__init__(
            f"kafka at {','.join(servers)}",
            queue_table(queues, self._lag, what="ConsumerLag"),
            Redactor(_secrets(client_options)),
        )
        self._options = {
            "client_id": "backpressure",
            **client_options,
            "bootstrap_servers": servers,
            "request_timeout_ms": milliseconds,
            "socket_connection_setup_timeout_ms": milliseconds,
            # Allow replies of any length and as many requests at once as there are groups; only the poller backs off.
            "receive_message_max_bytes": 100_000_000,
            "max_in_flight_requests_per_connection": 1_000_000,
            "reconnect_backoff_ms": 0,
        }

    def _lag(self, name: str, value: Any) -> ConsumerLag:
        if isinstance(value, ConsumerLag):
            return value
        topic = name if value is None else value
        if self._group is None or not isinstance(topic, str):
            raise ValueError("give a ConsumerLag, or the name of a topic and group=")
        return ConsumerLag(topic, group=self._group)

    def _source(self, queue_name: str) -> ConsumerLag | None:
        if self._group is None or not _TOPIC.fullmatch(queue_name):
            return None
        return ConsumerLag(queue_name, group=self._group)

    def _open(self) -> Link:
        return Link(self._options)

    def _ask(self, link: Link, queues: Mapping[str, ConsumerLag]) -> Mapping[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        for name, found in link.run(_read, link, queues).items():
            outcomes[name] = (
                self._failure(found, queue_name=name)
                if isinstance(found, BrokerError)
                else QueueStats(name, found.waiting, entered=found.written, left=found.written - found.waiting)
            )
        return outcomes

    def _cut(self, link: Link) -> None:
        link.cut()

    def _close(self, link: Link) -> None:
        link.close()

    def _label(self, error: Exception) -> str | None:
        return error.label if isinstance(error, BrokerError) else None


class _Found(NamedTuple):
    """Of all partitions together: messages that a group has still to read, and that were ever written."""

    waiting: int
    written: int


async def _read(link: Link, queues: Mapping[str, ConsumerLag]) -> dict[str, _Found | BrokerError]:
    topics = await link.topics({lag.topic for lag in queues.values()})
    leaders: dict[Partition, Offset] = {
        (topic, index): leader
        for topic, partitions in topics.items()
        if not isinstance(partitions, BrokerError)
        for index, leader in partitions.items()
    }
    led = {partition: leader for partition, leader in leaders.items() if not isinstance(leader, BrokerError)}
    groups: dict[str, set[Partition]] = {}
    for lag in queues.values():
        groups.setdefault(lag.group, set()).update(partition for partition in led if partition[0] == lag.topic)
    waits = [
        link.start(link.committed, groups),
        link.start(link.offsets, led, EARLIEST),
        link.start(link.offsets, led, LATEST),
    ]
    committed, starts, ends = [await wait for wait in waits]
    # A group may have read and committed new messages after we asked for the end, which is no commit beyond it.
    passed = {
        partition: led[partition]
        for commits in committed.values()
        if not isinstance(commits, BrokerError)
        for partition, offset in commits.items()
        if _is_beyond(offset, ends[partition])
    }
    if passed:
        ends.update(await link.start(link.offsets, passed, LATEST))

    def waiting(lag: ConsumerLag) -> _Found | BrokerError:
        partitions, commits = topics[lag.topic], committed[lag.group]
        if isinstance(partitions, BrokerError):
            return partitions
        if isinstance(commits, BrokerError):
            return commits
        total = written = 0
        for index, leader in partitions.items():
            partition = (lag.topic, index)
            if isinstance(leader, BrokerError):
                return leader
            numbers = commits.get(partition, -1), starts[partition], ends[partition]
            for number in numbers:
                if isinstance(number, BrokerError):
                    return number
            total += lag.waiting(*numbers)
            written += numbers[2]
        return _Found(total, written)

    found: dict[str, _Found | BrokerError] = {name: waiting(lag) for name, lag in queues.items()}
    if link.failure is not None and all(isinstance(number, BrokerError) for number in found.values()):
        raise link.failure
    return found


def _is_beyond(offset: Offset, end: Offset) -> bool:
    return not isinstance(offset, BrokerError) and not isinstance(end, BrokerError) and offset > end


def _servers(given: Any) -> list[str]:
    listed = given.split(",") if isinstance(given, str) else given
    try:
        servers = [server.strip() for server in listed]
    except (TypeError, AttributeError):
        servers = []
    if not servers or not all(re.fullmatch(r"[^\s/@]+", server) for server in servers):
        raise ConfigurationError(
            "bootstrap_servers cannot be read (value withheld): give host:port, several after commas or as a list",
            field="bootstrap_servers",
        )
    return servers


def _check_options(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in _OPTIONS:
            raise ConfigurationError(
                f"{name} is no option of this provider: give one of {', '.join(sorted(_OPTIONS))}", field=name
            )
    protocol = options.get("security_protocol", "PLAINTEXT")
    # kafka-python reads any other word as PLAINTEXT.
    if protocol not in _PROTOCOLS:
        raise ConfigurationError(
            f"security_protocol is {shown(protocol)}: give one of {', '.join(_PROTOCOLS)}",
            field="security_protocol",
            value=protocol,
        )
    for prefix in ("sasl", "ssl"):
        unused = [name for name in options if name.startswith(prefix) and prefix.upper() not in protocol.split("_")]
        if unused:
            raise ConfigurationError(
                f"{unused[0]} is given, but security_protocol is {shown(protocol)}: give one with {prefix.upper()}",
                field="security_protocol",
                value=protocol,
            )
    if not protocol.startswith("SASL"):
        return
    mechanism = options.get("sasl_mechanism", "")
    if mechanism not in SASL_MECHANISMS:
        raise ConfigurationError(
            f"sasl_mechanism is {shown(mechanism)}: give one of {', '.join(sorted(SASL_MECHANISMS))}",
            field="sasl_mechanism",
            value=mechanism,
        )
    if mechanism == "PLAIN" or mechanism.startswith("SCRAM"):
        for name in ("sasl_plain_username", "sasl_plain_password"):
            if not isinstance(options.get(name), str):
                raise ConfigurationError(f"{name} is missing: {mechanism} needs it as a str", field=name)


def _secrets(options: Mapping[str, Any]) -> set[str]:
    found = {str(options[name]) for name in _SECRETS if options.get(name)}
    proxy = urlsplit(str(options.get("proxy_url") or ""))
    return (
        found
        | {unquote(word) for word in (proxy.username, proxy.password) if word}
        | {word for word in (proxy.username, proxy.password) if word}
    )
