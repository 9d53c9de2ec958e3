"""`PrometheusStatsProvider`: reads queues whose lengths are in Prometheus, or in a server that answers like it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import timedelta
from http.client import HTTPException, IncompleteRead
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import attrs

from backpressure._model.arguments import shown, validate_queue_name
from backpressure._model.errors import ConfigurationError, InvalidQueueError, StatsUnavailableError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.hidden import hides_arguments
from backpressure._model.stats import MAX_BACKLOG, QueueStats, utc_now
from backpressure._runtime.extras import extra
from backpressure._runtime.pauses import Pauses
from backpressure.providers.arguments import queue_table, seconds
from backpressure.providers.failures import ADVICE, Redactor, causes, network_label
from backpressure.providers.linked import LinkedProvider

with extra("http", "urllib3", what="PrometheusStatsProvider"):
    from urllib3.exceptions import HTTPError

    from backpressure.providers.prometheus.api import (
        Headers,
        Link,
        PrometheusError,
        QueryError,
        Server,
        headers_from,
        secrets,
    )

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from backpressure.providers.linked import Outcome
    from backpressure.providers.prometheus.api import Series

__all__ = ["PrometheusStatsProvider"]

# Stands for all queues that a query finds; no queue can have this name.
_ALL = ""
# Seconds by which clocks that write times may be ahead of the one that reads them.
_SKEW = 60.0
# Only a metric and its labels: such samples know when they were scraped.
_SELECTOR = re.compile(
    r"""\s*(?:[A-Za-z_:][\w:]*\s*)?(?:\{(?:[^{}"'`]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)*\}\s*)?""", re.ASCII
)

_Numbers: TypeAlias = dict[str, list[float]]


@attrs.frozen(eq=False)
class _Queries:
    """The queries for one queue, or for many at once by `label`."""

    backlog: str
    label: str | None = None
    processing: str | None = None
    delayed: str | None = None
    oldest_age: str | None = None
    last_updated: str | None = None

    def more(self) -> Iterable[tuple[str, str]]:
        """Yield the queries that follow once the backlog is known."""
        for role in ("processing", "delayed", "oldest_age"):
            if (query := getattr(self, role)) is not None:
                yield role, query
        if self.last_updated is not None:
            yield "last_updated", self.last_updated
        elif _SELECTOR.fullmatch(self.backlog):
            yield "last_updated", f"timestamp({self.backlog})"


@repr_when_half_built
class PrometheusStatsProvider(LinkedProvider[_Queries, Link]):
    """A `StatsProvider` for Prometheus and servers that answer like it: Thanos, Mimir, VictoriaMetrics. Needs urllib3.

    Args:
        url: ``http://[user:password@]host:port/prefix``, or ``https://``; ``/api/v1/query`` is added. Parameters after
            a ``?``, such as Thanos' ``partial_response=false``, are sent along and shown nowhere.
        query: PromQL that gives one series per queue; its value is the waiting jobs. ``None``: only `queues` are read.
        label: the label of its series that holds the queue's name.
        queues: what `get_all_queue_stats` reads: names, or a mapping from names to queries that return one series or a
            scalar; the value ``None`` stands for `query`. Without `queues`: all queues that `query` finds.
        processing, delayed, oldest_age: more queries with `label`: jobs in progress, jobs scheduled for later, seconds
            since the oldest due job was enqueued. Where one has no series for a queue, or no finite number from 0 up,
            that number is ``None``.
        last_updated: a query with `label` for the time at which the backlog was true, in Unix seconds, such as
            ``min by (queue) (timestamp(rabbitmq_queue_messages_ready))`` or ``push_time_seconds``. Without it, a query
            that is only a metric and its labels tells the time of its scrape. A query that computes tells only the time
            at which it did: the samples it computes with may be older, up to `lookback`.
        lookback: seconds: the age up to which a sample is found at all, instead of the server's 5 minutes. Give more
            than the interval between scrapes. Prometheus before 2.44 and Mimir before 2026 do not know this parameter.
        timeout: seconds for the connect, for each wait for bytes, and for the server to evaluate one query.
        headers: sent along, such as ``{"Authorization": "Bearer <token>"}`` or ``{"X-Scope-OrgID": "tenant"}``; or a
            function that returns them, called before each read, for tokens that change. They come before what the URL
            says.
        ssl_context: for a server with an authority that the machine does not know, or that asks for a certificate.

    A backlog that is a fraction is rounded up. A backlog that is NaN, infinite or negative, and two series for one
    queue, are that queue's error, of type ``invalid_sample``. A queue without a series never counts as empty: it is not
    found, and has an error where it was asked for by name.

    One read is one request per query, one after the other over a connection that is kept, all for the same instant of
    the server's clock. A query in `queues` is one or two requests. No proxy and no netrc of the environment is used,
    and no redirect is followed. Answers are at most 16 MiB.

    Thread-safe without locks of its own, and usable in a forked child, which opens its own connections. It holds
    credentials, so it does not pickle; they, and the values of `headers`, are in no repr, message or log record.

    Raises:
        ConfigurationError: the URL, a query, a header or a number is impossible.
        InvalidQueueError: a queue's name is impossible.

    Example:
        >>> PrometheusStatsProvider("http://:secret@localhost:9090", "rabbitmq_queue_messages_ready")
        PrometheusStatsProvider('http://localhost:9090', all queues)
    """

    __module__ = "backpressure.providers"

    # What it tells changes when it scrapes.
    least_gap = math.inf

    #: The server that holds the queues is not the one that watches them.
    shares_server = False

    _advice: ClassVar[Mapping[str, str]] = {
        **ADVICE,
        "acl": "the server knows the user, but does not let it query",
        "auth": "check the user name and password, or the token in headers=",
        "busy": "the server refuses work: read less often, or raise its limits",
        "protocol": "check that this is the URL of a Prometheus API, with its prefix, and http or https as it speaks",
    }

    @hides_arguments
    def __init__(
        self,
        url: str,
        query: str | None = None,
        *,
        label: str = "queue",
        queues: Iterable[str] | Mapping[str, str | None] | None = None,
        processing: str | None = None,
        delayed: str | None = None,
        oldest_age: str | None = None,
        last_updated: str | None = None,
        lookback: float = 90.0,
        timeout: float = 1.0,
        headers: Headers | Callable[[], Headers] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._server = Server.parse(url, seconds(timeout), ssl_context)
        self._limits = {
            "timeout": _milliseconds(timeout),
            "lookback_delta": _milliseconds(seconds(lookback, "lookback", most=86_400)),
            # For VictoriaMetrics: its own name for the same, and an answer for now instead of for 30 seconds ago.
            "max_lookback": _milliseconds(lookback),
            "nocache": "1",
        }
        more = {"processing": processing, "delayed": delayed, "oldest_age": oldest_age, "last_updated": last_updated}
        self._common = _common(query, label, more)
        self._discovers = queues is None
        if self._discovers and self._common is None:
            raise ConfigurationError("query and queues are both missing: give one of them", field="query")
        self._give_headers = headers if callable(headers) else None
        self._headers: Headers = self._server.headers
        if headers is not None and not callable(headers):
            self._headers = {**self._headers, **_static(headers)}
        super().__init__(
            self._server.shown,
            {} if queues is None else queue_table(queues, self._own, what="queries"),
            self._redactor(self._headers),
        )

    def _own(self, _: str, query: Any) -> _Queries:
        if query is not None:
            return _Queries(_text(query))
        if self._common is None:
            raise ValueError("give its query, or query= for all")
        return self._common

    def _source(self, queue_name: str) -> _Queries | None:  # noqa: ARG002 - a query finds any
        return self._common

    def get_all_queue_stats(self) -> Mapping[str, Outcome]:
        """Read the queues this provider was made for, or those that its query finds.

        Raises:
            StatsUnavailableError: nothing could be read.
        """
        if self._discovers and self._common is not None:
            return self._read({_ALL: self._common})
        return super().get_all_queue_stats()

    def _open(self) -> Link:
        return Link(self._server, self._limits)  # it connects when it asks, where it can be cut

    def _cut(self, link: Link) -> None:
        link.cut()

    def _close(self, link: Link) -> None:
        link.close()

    def _label(self, error: Exception) -> str | None:
        if isinstance(error, PrometheusError):
            return error.label
        chain = list(causes(error))
        if any(isinstance(cause, IncompleteRead) for cause in chain):
            return "connect"
        http = any(isinstance(cause, (HTTPError, HTTPException)) for cause in chain)
        return network_label(error) or ("protocol" if http else None)

    def _ask(self, link: Link, queues: Mapping[str, _Queries]) -> Mapping[str, Outcome]:
        headers = self._headers_now()
        names_by_queries: dict[_Queries, list[str]] = {}
        for name, queries in queues.items():
            names_by_queries.setdefault(queries, []).append(name)
        outcomes: dict[str, Outcome] = {}
        for queries, names in names_by_queries.items():
            try:
                found = self._samples(link, headers, queries, names)
            except PrometheusError as error:
                if queries is self._common or not isinstance(error, QueryError):
                    raise self._failure(error) from None  # an answer: a new link would bring the same
                found = {name: self._failure(error, queue_name=name) for name in names}
            if names != [_ALL]:
                found = {name: found.get(name) or self._absent(name) for name in names}
            outcomes.update(found)
        return outcomes

    def _headers_now(self) -> Headers:
        if self._give_headers is None:
            return self._headers
        try:
            given = self._give_headers()
        except Exception as error:  # noqa: BLE001 - other people's code, and its text may hold the token
            message = f"the function given as headers raised {type(error).__name__}: look there"
            raise StatsUnavailableError(message, error_type="auth") from None
        headers = {**self._server.headers, **headers_from(given)}
        if headers != self._headers:
            # Another thread's answer may still quote what was sent last.
            self._redact = self._redactor(self._headers, headers)
            self._headers = headers
        return headers

    def _redactor(self, *headers: Headers) -> Redactor:
        return Redactor(self._server.secrets.union(*map(secrets, headers)))

    def _samples(self, link: Link, headers: Headers, queries: _Queries, names: list[str]) -> dict[str, Outcome]:
        now = utc_now()  # before the question: a sample may look older than it is, never younger
        role = "backlog"
        try:
            series = link.query(queries.backlog, headers)
            if not series:
                return {}
            at = series[0].at
            answers = {role: _by_queue(series, queries.label, names)}
            for role, query in queries.more():
                answers[role] = _by_queue(link.query(query, headers, at=at), queries.label, names)
        except QueryError as error:
            raise QueryError(f"the query for {role}: {error}", error.label) from None
        tick = Pauses().tick
        outcomes: dict[str, Outcome] = {}
        for name in filter(_is_name, answers["backlog"]):
            outcomes[name] = self._sample(name, answers, now, at)
            tick()
        return outcomes

    def _sample(self, name: str, answers: Mapping[str, _Numbers], now: datetime, at: float) -> Outcome:
        for role, found in answers.items():
            if len(found.get(name, ())) > 1:
                return self._invalid(name, f"{len(found[name])} series give its {role}: aggregate them, e.g. by max")
        numbers = {role: found[name][0] if name in found else math.nan for role, found in answers.items()}
        backlog = _count(numbers["backlog"])
        if backlog is None:
            return self._invalid(name, f"its backlog is {numbers['backlog']:g}: give a query that counts jobs")
        updated = numbers.get("last_updated", at)
        if not 0 <= updated <= at + _SKEW:
            return self._invalid(name, f"its last_updated is {updated:g}: give Unix seconds for each queue")
        age = numbers.get("oldest_age", math.nan)
        return QueueStats(
            name,
            backlog,
            processing_count=_count(numbers.get("processing", math.nan)),
            delayed_count=_count(numbers.get("delayed", math.nan)),
            oldest_age=age if 0 <= age < math.inf else None,
            # Only by the server's clock, so that ours may differ.
            last_updated=now - timedelta(seconds=max(0.0, at - updated)),
        )

    def _invalid(self, name: str, fault: str) -> StatsUnavailableError:
        return StatsUnavailableError(
            f"queue {name!r} at {self._where}: {fault}", error_type="invalid_sample", queue_name=name
        )

    def _absent(self, name: str) -> StatsUnavailableError:
        what = f"queue {name!r} has no series at {self._where}"
        return StatsUnavailableError(
            f"{what}: check the query, and that its exporter is scraped more often than lookback says",
            error_type="missing",
            queue_name=name,
        )

    def __repr__(self) -> str:
        queues = "all queues" if self._discovers else f"{len(self._queues)} queues"
        return f"{type(self).__name__}({self._where!r}, {queues})"


def _by_queue(series: list[Series], label: str | None, names: list[str]) -> _Numbers:
    """Return the numbers of each queue: one, if all is well."""
    if label is None:
        return {names[0]: [number.value for number in series]} if series else {}
    found: _Numbers = {}
    for number in series:
        if label in number.labels:
            found.setdefault(number.labels[label], []).append(number.value)
    if series and not found:
        raise QueryError(
            f"none of its series has the label {label!r}, the first has {', '.join(series[0].labels) or 'none'}: "
            f"give label=, or keep it, as in sum by ({label}) (...)",
            "provider",
        )
    return found


def _count(value: float) -> int | None:
    return math.ceil(value) if 0 <= value <= MAX_BACKLOG else None


def _is_name(name: str) -> bool:
    try:
        validate_queue_name(name)
    except InvalidQueueError:
        return False
    return True


def _milliseconds(duration: float) -> str:
    return f"{math.ceil(duration * 1000)}ms"


def _text(query: Any) -> str:
    if not isinstance(query, str) or not query.strip():
        raise ValueError("give PromQL, as a str")
    return query


def _common(query: Any, label: Any, more: Mapping[str, Any]) -> _Queries | None:
    """Return the queries for all queues at once, or ``None``."""
    for field, given in {"query": query, "label": label, **more}.items():
        if given is None and field != "label":
            continue
        if query is None and field in more:
            raise ConfigurationError(f"{field} is given without query: give both", field=field, value=given)
        try:
            _text(given)
        except ValueError as error:
            raise ConfigurationError(f"{field} is {shown(given)}: {error}", field=field, value=given) from None
    return None if query is None else _Queries(query, label, **more)


def _static(headers: Any) -> Headers:
    try:
        return headers_from(headers)
    except ValueError as error:
        raise ConfigurationError(f"headers is {error}", field="headers") from None
