"""`SQSStatsProvider`: reads queues of Amazon SQS, and of servers that speak its protocol."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from backpressure._model.errors import ConfigurationError, StatsUnavailableError
from backpressure._model.hidden import hides_arguments
from backpressure._model.stats import QueueStats
from backpressure._runtime.extras import extra
from backpressure._runtime.threads import spawn
from backpressure.providers.arguments import queue_table, seconds
from backpressure.providers.failures import ADVICE
from backpressure.providers.linked import LinkedProvider, Outcome
from backpressure.providers.sqs.client import cut, make_client
from backpressure.providers.sqs.errors import CodesAlone, label

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Mapping

__all__ = ["SQSStatsProvider"]

_NAME = r"(?:[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo)"
_ARN = re.compile(rf"arn:[\w-]+:sqs:(?P<region>[\w-]+):(?P<account>\d{{12}}):(?P<name>{_NAME})", re.ASCII)
_URL = re.compile(r"https?://([^\s/?#]+)/\S+")

# A call takes 10 to 50 ms within a region, and a poll has three seconds: a few queues need no thread of their own.
_QUEUES_PER_THREAD = 8
_MAX_THREADS = 8

_WAITING = "ApproximateNumberOfMessages"
_RUNNING = "ApproximateNumberOfMessagesNotVisible"
_DELAYED = "ApproximateNumberOfMessagesDelayed"

# Failures of one queue that say nothing about the next one.
_OF_ONE_QUEUE = frozenset({"acl", "missing", "provider"})


class _Place(NamedTuple):
    """A queue in SQS: its URL, or its name and, if another account owns it, that account."""

    name: str = ""
    account: str = ""
    url: str = ""


class _Round:
    """One read: the queues still to read, the results of the others, and the error that ended it early."""

    def __init__(self, client: Any, connections: set[Any]) -> None:
        self.client = client
        self.connections = connections
        self.cut = False
        self.left: deque[tuple[str, _Place]] = deque()
        self.outcomes: dict[str, Outcome] = {}
        self.failure: StatsUnavailableError | None = None

    def call(self, operation: str, **parameters: str | list[str]) -> Any:
        """Send a request; send it again if the server had closed the kept connection."""
        for attempt in range(2):
            if self.cut:
                raise TimeoutError("interrupted")
            try:
                return getattr(self.client, operation)(**parameters)
            except Exception as error:
                if attempt or type(error).__name__ != "ConnectionClosedError":
                    raise
        raise AssertionError("unreachable")


class SQSStatsProvider(LinkedProvider[_Place, _Round]):
    """A `StatsProvider` for Amazon SQS, standard and FIFO queues. Needs the extra ``sqs``.

    Args:
        queues: names of queues, or a mapping from the controller's names to names, URLs or ARNs in SQS.
        client: a ``boto3.client("sqs")``, which is used as it is and never closed. Give it ``Config(connect_timeout=1,
            read_timeout=1, retries={"total_max_attempts": 1})``: by default botocore waits a minute and tries five
            times. An interrupt ends reads with a given client only between requests. With ``None`` the provider makes
            its own client when it first reads, from its own session, with the credentials that boto3 finds.
        timeout: seconds for each connect and each reply, where no client is given.
        region_name: where the queues are; ``None``: as boto3 is configured, e.g. by ``AWS_REGION``.
        endpoint_url: of a VPC endpoint, or of another server that speaks SQS.

    Waiting messages are the backlog, invisible ones are in progress, delayed ones are delayed. SQS calls all three
    approximate: they come from a distributed system and are right within about a minute after producers and workers
    stop. Only CloudWatch knows the age of the oldest message, so `oldest_age` is ``None``.

    SQS answers for one queue at a time: a read is one ``GetQueueAttributes`` a queue, and one ``GetQueueUrl`` the first
    time for queues not given by URL. Up to eight queues are read one after the other. More queues take one more thread
    for each eight, at most eight threads in all; the threads end with the read. Requests cost money, see the guide. It
    needs ``sqs:GetQueueAttributes`` and ``sqs:GetQueueUrl`` on the queues, and no other queue is asked for.

    Errors have these types: ``auth``, ``busy`` (throttled), ``config`` (no region, no such profile), ``connect``,
    ``dns``, ``timeout``, ``protocol`` and ``server``, which end a read; ``acl`` and ``missing``, of a single queue; and
    ``deadline`` after an interrupt. A request is tried again only if the server had closed the kept connection.

    Thread-safe, and usable in a forked child, which makes a client of its own. A given client that has been read with
    is refused there, because two processes would share its connections. Credentials are in no repr, message or log
    record
    of this library; botocore's own loggers show much at level DEBUG. Tested against moto, not against AWS itself.

    Raises:
        ConfigurationError: a queue, the client, the timeout or the endpoint is impossible.
        InvalidQueueError: a queue's name is impossible.
        ImportError: boto3 is not installed, and no client is given.

    Example:
        >>> queues = {"mail": "prod-mail", "orders": "https://sqs.eu-west-1.amazonaws.com/123456789012/orders.fifo"}
        >>> SQSStatsProvider(queues, region_name="eu-west-1")
        SQSStatsProvider('SQS (eu-west-1)', 2 queues)
    """

    __module__ = "backpressure.providers"

    # Each read costs money.
    least_gap = math.inf

    _advice = {  # noqa: RUF012 - as the base class declares it
        **ADVICE,
        "acl": "allow sqs:GetQueueAttributes and sqs:GetQueueUrl on it",
        "auth": "check that boto3 finds credentials, that they have not expired, and the clock",
        "busy": "it is asked too often: raise polling.interval",
        "provider": "set AWS_REGION or region_name, and check the AWS configuration",
        "connect": "check the network, the proxy and endpoint_url",
        "dns": "check the region and endpoint_url",
        "missing": "create it, or check its name, account and region",
        "protocol": "check that endpoint_url and the proxy lead to SQS",
    }

    @hides_arguments
    def __init__(
        self,
        queues: Iterable[str] | Mapping[str, str],
        *,
        client: Any = None,
        timeout: float = 1.0,
        region_name: str | None = None,
        endpoint_url: str | None = None,
    ) -> None:
        self._timeout = seconds(timeout)
        self._region = region_name
        self._endpoint = endpoint_url
        self._given = client
        # The process that has read with the given client: its connections would not survive a fork.
        self._given_to: int | None = None
        # One per process: a forked child must not touch what its parent's threads were using. setdefault is atomic.
        self._clients: dict[int, tuple[Any, set[Any]]] = {}
        self._urls: dict[_Place, str] = {}
        if client is None:
            with extra("sqs", "boto3", what="SQSStatsProvider"):
                import boto3.session  # type: ignore[import-untyped] # noqa: F401, PLC0415 - slow, and not everyone needs it

            where = _checked_host(endpoint_url) or region_name
        else:
            where, region_name = _checked_client(client, region_name, endpoint_url)
        table = queue_table(
            queues, lambda name, given: _place(name, given, region_name), what="names, URLs or ARNs in SQS"
        )
        super().__init__(f"SQS ({where})" if where else "SQS", table, CodesAlone())

    def _open(self) -> _Round:
        pid = os.getpid()
        if self._given is not None:
            self._given_to = self._given_to or pid
            if self._given_to != pid:
                raise StatsUnavailableError(
                    "the client given to this provider was used before the fork: make both in each process",
                    error_type="provider",
                )
            return _Round(self._given, set())
        # Two first readers may each make one; both work, and the one not kept is collected.
        held = self._clients.get(pid) or self._clients.setdefault(
            pid,
            make_client(
                timeout=self._timeout,
                region_name=self._region,
                endpoint_url=self._endpoint,
                connections=2 * _MAX_THREADS,
            ),
        )
        return _Round(*held)

    def _keep(self, _: object, link: _Round) -> None:
        # The client is kept instead. A link is one read, so that no read is repeated: requests cost money.
        self._close_quietly(link)

    def _cut(self, link: _Round) -> None:
        link.cut = True
        cut(link.connections)

    def _close(self, link: _Round) -> None:
        if self._closed and self._given is None:
            link.client.close()

    def close(self) -> None:
        """Close this provider's own connections; reads then raise `StatsUnavailableError`. Idempotent."""
        super().close()
        self._drop_client()

    def _drop_client(self) -> None:
        held = self._clients.pop(os.getpid(), None)
        if held is not None:
            held[0].close()

    def _ask(self, link: _Round, queues: Mapping[str, _Place]) -> Mapping[str, Outcome]:
        link.left.extend(queues.items())
        more = min(_MAX_THREADS, -(-len(queues) // _QUEUES_PER_THREAD)) - 1
        threads: list[threading.Thread] = []
        try:
            for _ in range(more):
                with contextlib.suppress(RuntimeError):  # no thread can be started: go on with fewer
                    threads.append(spawn(partial(self._work, link), "backpressure-sqs"))
            self._work(link)
        finally:
            link.left.clear()
            for thread in threads:
                thread.join()
        return self._result(link, queues)

    def _result(self, link: _Round, queues: Mapping[str, _Place]) -> Mapping[str, Outcome]:
        if link.cut:
            raise TimeoutError("interrupted")
        failure, outcomes = link.failure, link.outcomes
        if failure is not None:
            if failure.error_type == "auth":
                # The next read looks for credentials again: a client never replaces missing or old ones.
                self._drop_client()
            if not any(isinstance(outcome, QueueStats) for outcome in outcomes.values()):
                raise failure
            for name in queues.keys() - outcomes.keys():
                outcomes[name] = self._failure(failure, queue_name=name)
        return {name: outcomes[name] for name in queues}

    def _work(self, link: _Round) -> None:
        """Read one queue after the other, until none is left or a failure concerns them all."""
        while link.failure is None:
            try:
                name, place = link.left.popleft()
            except IndexError:
                return
            try:
                link.outcomes[name] = self._sample(link, name, place)
            except Exception as error:  # noqa: BLE001 - clients may be anyone's
                failure = self._failure(error)
                if failure.error_type in _OF_ONE_QUEUE:
                    link.outcomes[name] = self._failure(error, queue_name=name)
                else:
                    link.failure = failure

    def _sample(self, link: _Round, name: str, place: _Place) -> QueueStats:
        try:
            reply = link.call(
                "get_queue_attributes",
                QueueUrl=place.url or self._urls.get(place) or self._find(link, place),
                AttributeNames=[_WAITING, _RUNNING, _DELAYED],
            )
        except Exception as error:
            if self._label(error) == "missing":
                self._urls.pop(place, None)
            raise
        try:
            attributes = reply["Attributes"]
            waiting, running, delayed = (int(attributes[key]) for key in (_WAITING, _RUNNING, _DELAYED))
        except (LookupError, TypeError, ValueError):
            raise self._nonsense() from None
        return QueueStats(name, waiting, processing_count=running, delayed_count=delayed)

    def _find(self, link: _Round, place: _Place) -> str:
        account = {"QueueOwnerAWSAccountId": place.account} if place.account else {}
        url = link.call("get_queue_url", QueueName=place.name, **account).get("QueueUrl")
        if not isinstance(url, str):
            raise self._nonsense()
        self._urls[place] = url
        return url

    def _label(self, error: Exception) -> str | None:
        return label(error)

    def _nonsense(self) -> StatsUnavailableError:
        return StatsUnavailableError(
            f"{self._where} answers, but not as SQS does; {self._advice['protocol']}", error_type="protocol"
        )


def _checked_host(endpoint_url: object) -> str:
    """Return the host and port of an endpoint, or nothing where there is none."""
    if endpoint_url is None:
        return ""
    found = re.fullmatch(r"https?://([^\s/?#]+)/?", endpoint_url) if isinstance(endpoint_url, str) else None
    if found is None:
        raise ConfigurationError(
            "endpoint_url is no URL of a server: give one like https://sqs.eu-west-1.amazonaws.com",
            field="endpoint_url",
        )
    if "@" in found[1]:
        raise ConfigurationError(
            "endpoint_url holds a user name or password: leave it out, requests are signed", field="endpoint_url"
        )
    return found[1]


def _checked_client(client: Any, region_name: str | None, endpoint_url: str | None) -> tuple[str, str | None]:
    """Return where a given client points: host and region."""
    if not callable(getattr(client, "get_queue_attributes", None)):
        raise ConfigurationError(
            f'client is a {type(client).__module__}.{type(client).__name__}: give a boto3.client("sqs")', field="client"
        )
    if region_name is not None or endpoint_url is not None:
        raise ConfigurationError("client has its region and endpoint already: give either", field="client")
    meta = getattr(client, "meta", None)
    host = urlsplit(str(getattr(meta, "endpoint_url", ""))).netloc.rpartition("@")[2]
    return host, getattr(meta, "region_name", None)


def _place(name: str, given: object, region: str | None) -> _Place:
    """Return where a queue is read, as `queue_table` asks for it."""
    text = name if given is None else given
    if not isinstance(text, str):
        raise ValueError("give the name, URL or ARN of a queue in SQS")  # noqa: TRY004 - told as a ConfigurationError
    if re.fullmatch(_NAME, text):
        return _Place(name=text)
    if arn := _ARN.fullmatch(text):
        if region not in {None, arn["region"]}:
            raise ValueError(f"it is not in {region}: make a provider for each region")
        return _Place(name=arn["name"], account=arn["account"])
    if found := _URL.fullmatch(text):
        if "@" in found[1]:
            # Said without the value, which holds a secret.
            raise ConfigurationError(
                f"queues[{name!r}] is a URL with a user name or password: leave it out, requests are signed",
                field=f"queues.{name}",
            )
        return _Place(url=text)
    raise ValueError("give a name in SQS (up to 80 letters, digits, - and _, perhaps .fifo), a URL or an ARN")
