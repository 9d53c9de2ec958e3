"""A link to a Kafka cluster: kafka-python's connections, driven by the thread that asks, with nothing in the log.

`kafka.KafkaAdminClient` starts a thread and leaves it behind when it cannot connect, writes the password into the log
at DEBUG, and lets one refused topic or group hide the answers about all others. So this uses the layer below it.
"""

from __future__ import annotations

import logging
import selectors
import threading
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from backpressure.providers.failures import causes, network_label

with warnings.catch_warnings():
    # kafka-python reads its schemas with a function that Python 3.11 and 3.12 call deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import errors as kafka  # type: ignore[import-untyped]

from kafka.future import Future  # type: ignore[import-untyped]
from kafka.net.manager import KafkaConnectionManager  # type: ignore[import-untyped]
from kafka.net.sasl import SASL_MECHANISMS  # type: ignore[import-untyped]
from kafka.net.selector import NetworkSelector  # type: ignore[import-untyped]
from kafka.protocol.admin import ListGroupsRequest  # type: ignore[import-untyped]
from kafka.protocol.consumer import ListOffsetsRequest, OffsetFetchRequest  # type: ignore[import-untyped]
from kafka.protocol.metadata import FindCoordinatorRequest, MetadataRequest  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
    from types import TracebackType

__all__ = ["EARLIEST", "LATEST", "SASL_MECHANISMS", "BrokerError", "Link", "Offset", "Partition"]

#: Special times that `Link.offsets` takes: the oldest message that is kept, and the next that will be written.
EARLIEST, LATEST = -2, -1

_GROUP = 0
# From these versions on one request asks for many groups: Kafka 3.0 (KIP-699, KIP-709).
_MANY_COORDINATORS = 4
_MANY_GROUPS = 8
# From this version on a request can ask for groups of one type: Kafka 3.8 (KIP-848).
_TYPED_GROUPS = 5


class ShareGroupError(Exception):
    """A group's members share its messages (KIP-932), so that it has no committed offset."""


# Most specific first.
_LABELS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    ((kafka.SaslAuthenticationFailedError, kafka.UnsupportedSaslMechanismError, kafka.IllegalSaslStateError), "auth"),
    (kafka.AuthorizationError, "acl"),
    (kafka.UnknownTopicOrPartitionError, "missing"),
    ((kafka.KafkaTimeoutError, kafka.RequestTimedOutError), "timeout"),
    ((kafka.CoordinatorLoadInProgressError, kafka.CoordinatorNotAvailableError), "loading"),
    (
        (
            kafka.NotCoordinatorError,
            kafka.NotLeaderForPartitionError,
            kafka.LeaderNotAvailableError,
            kafka.ReplicaNotAvailableError,
            kafka.BrokerNotAvailableError,
            kafka.OffsetNotAvailableError,
            kafka.KafkaStorageError,
            kafka.UnknownBrokerIdError,
        ),
        "failover",
    ),
    (kafka.NodeNotReadyError, "busy"),  # it wants its clients to slow down
    ((kafka.KafkaProtocolError, kafka.UnsupportedVersionError), "protocol"),
    (ShareGroupError, "config"),
)


def _label(error: BaseException) -> str:
    for link in causes(error):
        for kinds, found in _LABELS:
            if isinstance(link, kinds):
                return found
    if not isinstance(error, kafka.KafkaConnectionError):
        return "provider"
    return network_label(error) or ("dns" if "DNS" in str(error) else "connect")


class BrokerError(Exception):
    """A broker did not answer, or not with a number; has the `error_type` label."""

    def __init__(self, error: BaseException, about: str) -> None:
        name, text = type(error).__name__, str(error.args[0]) if error.args else ""
        if not text.startswith(name):  # kafka-python says it in some texts
            text = f"{name}: {text}" if text else name
        super().__init__(f"{about}: {text}")
        self.label = _label(error)


Partition: TypeAlias = tuple[str, int]
Offset: TypeAlias = int | BrokerError


def _offset(code: int, offset: int, about: str) -> Offset:
    error = kafka.for_code(code)
    return offset if error is kafka.NoError else BrokerError(error(), about)


class _Silence(logging.Filter):
    """Drops what kafka-python logs on a thread inside ``with``, and nothing else.

    At DEBUG these are all bytes it sends, the password among them. At ERROR it is a line or more for each failed read,
    which the provider's own error already reports.
    """

    _inside: ClassVar[threading.local] = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the name is logging's
        return not getattr(self._inside, "depth", 0)

    def __enter__(self) -> None:
        self._inside.depth = getattr(self._inside, "depth", 0) + 1

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        self._inside.depth -= 1


SILENCE = _Silence()
# A filter acts on the records of one logger, not on those of the loggers below it.
for _name in list(logging.Logger.manager.loggerDict):
    if _name.startswith("kafka."):
        logging.getLogger(_name).addFilter(SILENCE)


class _Selector(selectors.DefaultSelector):
    """Its `close` also closes the sockets of failed connects and handshakes: kafka-python leaves them open."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[Any] = set()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if fileobj not in self._seen:
            self._seen = {fileobj, *(seen for seen in self._seen if seen.fileno() >= 0)}
        return super().register(fileobj, events, data)

    def close(self) -> None:
        super().close()
        for fileobj in self._seen:
            fileobj.close()


class Link:
    """Connections to the brokers of a cluster, opened when first needed. For one thread at a time, except for `cut`."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._sasl = str(options.get("security_protocol")).startswith("SASL")
        self._timeout: float = options["socket_connection_setup_timeout_ms"] / 1000
        self._open()

    def _open(self) -> None:
        #: The last broker that could not be asked.
        self.failure: BrokerError | None = None
        self._coordinators: dict[str, int] = {}
        self._entry: str | None = None
        self._reached: set[int | str] = set()
        self._future: Any = None
        with SILENCE:
            self._net = NetworkSelector(selector=_Selector, **self._options)
            self._manager = KafkaConnectionManager(self._net, **self._options)

    def run(self, ask: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        """Run `ask` to its end on this thread; return or raise what it does."""
        with SILENCE:
            self._future = self.start(ask, *arguments)
            self._net.poll(future=self._future)
        future = self._future
        if future.exception is not None:
            raise future.exception
        if self.failure is not None:
            # kafka-python remembers which brokers failed, and would refuse to try again.
            self.close()
            self._open()
        return future.value

    def start(self, ask: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        """Let `ask` run beside others; the caller awaits the returned object."""
        return self._manager.call_soon(ask, *arguments)

    def cut(self) -> None:
        """End what `run` awaits, from another thread."""
        self._net.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if self._future is not None and not self._future.is_done:
            self._future.failure(TimeoutError("interrupted"))

    def close(self) -> None:
        """Close the connections."""
        with SILENCE:
            self._manager.close()
            self._net.close()

    def _send(self, node: int | str, request: Any) -> Any:
        try:
            # Without kafka-python's own refresh, which would go on after the read has ended.
            connection = self._manager.get_connection(node, refresh_metadata_on_err=False)
        except kafka.KafkaError as error:
            return Future().failure(error)
        if connection.transport is None:
            # kafka-python bounds connects and replies, but no TLS handshake between them.
            self._net.call_later(self._timeout, lambda: self._give_up(connection))
        return connection.send_request(request)

    def _give_up(self, connection: Any) -> None:
        if connection.initializing and connection.transport is None:
            connection.close(kafka.KafkaTimeoutError(f"no connection within {self._timeout:g} s"))

    async def _reply(self, node: int | str, future: Any) -> Any:
        try:
            reply = await future
        except kafka.KafkaError as error:
            broker = self._manager.cluster.broker_metadata(node)
            about = f"broker {node}" if broker is None else f"broker at {broker.host}:{broker.port}"
            self.failure = BrokerError(error, about)
            if self._sasl and node not in self._reached and error.args == ("socket disconnected",):
                # The broker may have said so, but kafka-python loses a reply that comes with the connection's end.
                self.failure.label = "auth"
        else:
            self._reached.add(node)
            return reply
        raise self.failure

    async def topics(self, names: Collection[str]) -> Mapping[str, dict[int, Offset] | BrokerError]:
        """Return the leader of each partition of each topic."""
        response = await self._ask_any(
            lambda: MetadataRequest(
                topics=[MetadataRequest.MetadataRequestTopic(name=name) for name in names],
                allow_auto_topic_creation=False,
                include_cluster_authorized_operations=False,
                include_topic_authorized_operations=False,
            )
        )
        self._manager.cluster.update_metadata(response)
        return {topic.name: _leaders(topic) for topic in response.topics}

    async def _ask_any(self, request: Callable[[], Any]) -> Any:
        """Ask the bootstrap server that answered last, or else all of them in turn."""
        cluster = self._manager.cluster
        entries = [self._entry] if self._entry else [broker.node_id for broker in cluster.bootstrap_brokers()]
        for entry in entries:
            try:
                response = await self._reply(entry, self._send(entry, request()))
            except BrokerError:
                continue
            self._entry = entry
            self.failure = None
            return response
        assert self.failure is not None  # noqa: S101 - there is at least one server
        raise self.failure

    async def offsets(self, leaders: Mapping[Partition, int], time: int) -> dict[Partition, Offset]:
        """Return an offset of each partition; with one request to each leader."""
        by_leader: dict[int, list[Partition]] = {}
        for partition, leader in leaders.items():
            by_leader.setdefault(leader, []).append(partition)
        sent = [
            (leader, partitions, self._send(leader, _list_offsets(partitions, time)))
            for leader, partitions in by_leader.items()
        ]
        found: dict[Partition, Offset] = {}
        for leader, partitions, future in sent:
            try:
                response = await self._reply(leader, future)
            except BrokerError as error:
                found.update(dict.fromkeys(partitions, error))
                continue
            for topic in response.topics:
                for partition in topic.partitions:
                    index = partition.partition_index
                    found[topic.name, index] = _offset(
                        partition.error_code, partition.offset, f"partition {index} of topic {topic.name!r}"
                    )
        return found

    async def committed(
        self, groups: Mapping[str, Collection[Partition]]
    ) -> Mapping[str, dict[Partition, Offset] | BrokerError]:
        """Return the committed offset, or a negative number, of partitions; with one request to each coordinator."""
        found: dict[str, dict[Partition, Offset] | BrokerError] = dict(await self._find_coordinators(groups))
        by_node: dict[int, list[str]] = {}
        for group in groups:
            if group not in found:
                by_node.setdefault(self._coordinators[group], []).append(group)
        together = self._version(OffsetFetchRequest) >= _MANY_GROUPS
        sent = [
            (node, names, self._send(node, _offset_fetch({name: groups[name] for name in names}, together=together)))
            for node, all_names in by_node.items()
            for names in ([all_names] if together else [[name] for name in all_names])
        ]
        for node, names, future in sent:
            try:
                response = await self._reply(node, future)
            except BrokerError as error:
                found.update(dict.fromkeys(names, error))
                continue
            for name, group in [(group.group_id, group) for group in response.groups or ()] or [(names[0], response)]:
                found[name] = _commits(name, group)
        await self._refuse_share_groups(found)
        for group, answer in found.items():
            if isinstance(answer, BrokerError):
                self._coordinators.pop(group, None)  # it may have moved
        return found

    async def _refuse_share_groups(self, found: dict[str, dict[Partition, Offset] | BrokerError]) -> None:
        """Replace what was found of share groups: brokers answer as if such a group had committed nothing."""
        if self._version(ListGroupsRequest) < _TYPED_GROUPS:
            return  # a broker without share groups
        suspects: dict[int, set[str]] = {}
        for group, commits in found.items():
            if not isinstance(commits, BrokerError) and all(offset == -1 for offset in commits.values()):
                suspects.setdefault(self._coordinators[group], set()).add(group)
        request = ListGroupsRequest(states_filter=[], types_filter=["share"], min_version=_TYPED_GROUPS)
        sent = [(node, groups, self._send(node, request)) for node, groups in suspects.items()]
        for node, groups, future in sent:
            try:
                response = await self._reply(node, future)
            except BrokerError as error:
                found.update(dict.fromkeys(groups, error))
                continue
            for name in groups.intersection(group.group_id for group in response.groups):
                found[name] = BrokerError(
                    ShareGroupError(
                        "it commits no offsets, only kafka-share-groups.sh tells what it has left: name a consumer "
                        "group, or export that number and give a PrometheusStatsProvider"
                    ),
                    f"group {name!r}",
                )

    async def _find_coordinators(self, groups: Iterable[str]) -> dict[str, BrokerError]:
        """Find the brokers that keep the groups' offsets; return the errors."""
        unknown = [group for group in groups if group not in self._coordinators]
        if not unknown:
            return {}
        node = self._entry
        assert node is not None  # noqa: S101 - topics are asked for first
        together = self._version(FindCoordinatorRequest) >= _MANY_COORDINATORS
        sent = [
            (names, self._send(node, _find_coordinator(names, together=together)))
            for names in ([unknown] if together else [[name] for name in unknown])
        ]
        errors: dict[str, BrokerError] = {}
        for names, future in sent:
            response = await self._reply(node, future)
            for group, answer in [(each.key, each) for each in response.coordinators or ()] or [(names[0], response)]:
                found = _offset(answer.error_code, answer.node_id, f"group {group!r}")
                if isinstance(found, BrokerError):
                    errors[group] = found
                else:
                    self._coordinators[group] = found
        return errors

    def _version(self, request: Any) -> int:
        try:
            version: int = self._manager.broker_version_data.api_version(request)
        except kafka.UnsupportedVersionError as error:
            raise BrokerError(error, "the cluster is too old") from None
        return version


def _leaders(topic: Any) -> dict[int, Offset] | BrokerError:
    error = kafka.for_code(topic.error_code)
    if error is kafka.UnknownTopicOrPartitionError:
        return BrokerError(error("create it, or check its name"), f"there is no topic {topic.name!r}")
    if error is not kafka.NoError:
        return BrokerError(error(), f"topic {topic.name!r}")
    return {
        # A partition that lacks one of its replicas has an error too, but can still be read.
        partition.partition_index: partition.leader_id
        if partition.leader_id >= 0
        else BrokerError(kafka.LeaderNotAvailableError(), f"partition {partition.partition_index} of {topic.name!r}")
        for partition in topic.partitions
    }


def _commits(name: str, group: Any) -> dict[Partition, Offset] | BrokerError:
    error = kafka.for_code(group.error_code)
    if error is kafka.GroupIdNotFoundError:
        return {}
    if error is not kafka.NoError:
        return BrokerError(error(), f"group {name!r}")
    return {
        (topic.name, partition.partition_index): _offset(
            partition.error_code,
            partition.committed_offset,
            f"group {name!r} at partition {partition.partition_index} of topic {topic.name!r}",
        )
        for topic in group.topics
        for partition in topic.partitions
    }


def _by_topic(partitions: Iterable[Partition]) -> dict[str, list[int]]:
    topics: dict[str, list[int]] = {}
    for topic, index in partitions:
        topics.setdefault(topic, []).append(index)
    return topics


def _list_offsets(partitions: Iterable[Partition], time: int) -> Any:
    kind = ListOffsetsRequest.ListOffsetsTopic
    return ListOffsetsRequest(
        # To the high watermark: a transaction that hangs must not hide the messages behind it.
        isolation_level=0,
        topics=[
            kind(
                name=topic,
                partitions=[kind.ListOffsetsPartition(partition_index=index, timestamp=time) for index in indexes],
            )
            for topic, indexes in _by_topic(partitions).items()
        ],
        min_version=1,
    )


def _offset_fetch(groups: Mapping[str, Iterable[Partition]], *, together: bool) -> Any:
    if together:
        kind = OffsetFetchRequest.OffsetFetchRequestGroup
        return OffsetFetchRequest(
            groups=[
                kind(
                    group_id=group,
                    topics=[
                        kind.OffsetFetchRequestTopics(name=topic, partition_indexes=indexes)
                        for topic, indexes in _by_topic(partitions).items()
                    ],
                )
                for group, partitions in groups.items()
            ],
            min_version=_MANY_GROUPS,
            max_version=_MANY_GROUPS + 1,  # later ones want topics by their ids
        )
    ((group, partitions),) = groups.items()
    return OffsetFetchRequest(
        group_id=group,
        topics=[
            OffsetFetchRequest.OffsetFetchRequestTopic(name=topic, partition_indexes=indexes)
            for topic, indexes in _by_topic(partitions).items()
        ],
        max_version=_MANY_GROUPS - 1,
    )


def _find_coordinator(groups: list[str], *, together: bool) -> Any:
    if together:
        return FindCoordinatorRequest(key_type=_GROUP, coordinator_keys=groups, min_version=_MANY_COORDINATORS)
    return FindCoordinatorRequest(key_type=_GROUP, key=groups[0], max_version=_MANY_COORDINATORS - 1)
