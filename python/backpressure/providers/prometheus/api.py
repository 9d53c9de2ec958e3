"""Instant queries to a Prometheus-compatible HTTP API, over one connection that another thread can cut."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias
from urllib.parse import unquote, unquote_plus, urlencode

import attrs
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import parse_url

from backpressure._model.errors import ConfigurationError
from backpressure._runtime.pauses import Pauses

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "MAX_BYTES",
    "Headers",
    "Link",
    "PrometheusError",
    "QueryError",
    "Range",
    "Series",
    "Server",
    "headers_from",
    "secrets",
]

#: Bytes of an answer; some 100 000 queues.
MAX_BYTES = 16 * 2**20
_PIECE = 2**16

Headers: TypeAlias = Mapping[str, str]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# Status codes of servers, and of proxies in front of them, that need no body to tell what is wrong.
_LABELS = {401: "auth", 403: "acl", 429: "busy", 502: "connect", 503: "busy", 504: "timeout"}


class PrometheusError(Exception):
    """The server answered, but not with numbers; ``label`` is the `error_type`."""

    def __init__(self, message: str, label: str) -> None:
        super().__init__(message)
        self.label = label


class QueryError(PrometheusError):
    """The server refused or failed this query; it may answer another one."""


@attrs.frozen
class Series:
    """One number of an answer, and the time it was computed for, in Unix seconds of the server's clock."""

    labels: Mapping[str, str]
    at: float
    value: float


@attrs.frozen
class Range:
    """Numbers of one series over time: Unix seconds of the server's clock, and values."""

    labels: Mapping[str, str]
    values: list[tuple[float, float]]


def _refuse(reason: str) -> NoReturn:
    # The value may hold a password, so it is in no message.
    raise ConfigurationError(f"url {reason} (value withheld)", field="url")


@attrs.frozen(eq=False)
class Server:
    """Where a URL points. It can be printed: the credentials are not shown."""

    shown: str
    host: str
    port: int
    path: str = attrs.field(repr=False)  # its query may hold a token
    range_path: str = attrs.field(repr=False)
    context: ssl.SSLContext | None = attrs.field(repr=False)
    timeout: float
    headers: Headers = attrs.field(repr=False)
    secrets: frozenset[str] = attrs.field(repr=False)

    @classmethod
    def parse(cls, url: Any, timeout: float, context: ssl.SSLContext | None) -> Server:
        """Read a URL; `timeout` (seconds) bounds the connect and each wait for bytes.

        Raises:
            ConfigurationError: the URL is wrong; the message withholds it, and there is no cause.
        """
        try:
            return cls._parse(url, timeout, context)
        except ConfigurationError as error:
            refusal = error
        except Exception:  # noqa: BLE001 - any parser's error may quote the URL
            refusal = ConfigurationError(
                "url cannot be read (value withheld): percent-encode user name and password, and check host and port",
                field="url",
            )
        # Outside of the handler, so that the parser's error is not its context.
        raise refusal.with_traceback(None)

    @classmethod
    def _parse(cls, url: Any, timeout: float, context: ssl.SSLContext | None) -> Server:
        if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
            _refuse("has no known scheme: give http://[user:password@]host:port/prefix, or https://")
        parts = parse_url(url)
        if "#" in url or "@" in (parts.path or "") or "@" in (parts.query or ""):
            _refuse("has one of '#', '/', '?', '@' in its user name or password: percent-encode them")
        if not parts.host:
            _refuse("names no host: give http://host:port")
        tls = parts.scheme == "https"
        if context is not None and not tls:
            raise ConfigurationError("ssl_context is given, but url is http://: give https://", field="ssl_context")
        prefix = (parts.path or "").rstrip("/")
        user, _, password = map(unquote, (parts.auth or "").partition(":"))
        headers = {}
        if parts.auth is not None:
            headers["authorization"] = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
        parameters = f"?{parts.query}" if parts.query else ""
        values = [parameter.partition("=")[2] for parameter in (parts.query or "").split("&")]
        return cls(
            shown=f"{parts.scheme}://{parts.netloc}{prefix}",
            host=parts.host.strip("[]"),
            port=parts.port or (443 if tls else 80),
            path=f"{prefix}/api/v1/query{parameters}",
            range_path=f"{prefix}/api/v1/query_range{parameters}",
            # One for all connections, because it takes a while to read the certificate authorities.
            context=(context or ssl.create_default_context()) if tls else None,
            timeout=timeout,
            headers=headers,
            secrets=frozenset({user, password, *values, *map(unquote_plus, values)}),
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a server holds credentials and does not pickle: give the URL to each process")


def headers_from(given: Any) -> Headers:
    """Return headers as they are sent.

    Raises:
        ValueError: they cannot be sent; the message shows no value.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"a {type(given).__name__}: give a mapping from names to values")  # noqa: TRY004 - one kind
    for name, value in given.items():
        if not (isinstance(name, str) and _HEADER_NAME.fullmatch(name)):
            raise ValueError("an impossible name in it: give letters, digits and '-'")
        if not (isinstance(value, str) and _HEADER_VALUE.fullmatch(value)):
            raise ValueError(
                f"an impossible value for {name!r}: give a str of Latin-1 without line ends, e.g. strip a file's"
            )
    return {name.lower(): value for name, value in given.items()}


def secrets(headers: Headers) -> set[str]:
    """Return the parts of headers that must never be shown: servers may quote a token without the word before it."""
    return {form for value in headers.values() for form in (value, value.rpartition(" ")[2])}


class _Wired:
    """Keeps its own descriptor of each connection, so that another thread can cut it.

    http.client gives its socket away before the body is read, and TLS takes it over. Then it cannot be reached.
    """

    wire: socket.socket | None = None
    is_cut = False

    def _new_conn(self) -> socket.socket:
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]
        self.end()
        self.wire = connected.dup()
        if self.is_cut:  # while it was connecting
            connected.close()
            raise TimeoutError("interrupted")
        return connected

    def cut(self) -> None:
        """End the call under way, from another thread, and every later one."""
        self.is_cut = True
        if self.wire is not None:
            self.wire.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Give the descriptor back."""
        if self.wire is not None:
            self.wire.close()


class _Connection(_Wired, HTTPConnection):
    pass


class _SecureConnection(_Wired, HTTPSConnection):
    pass


class Link:
    """One connection, made by the first query. It follows no redirect and uses no proxy of the environment."""

    def __init__(self, server: Server, limits: Mapping[str, str]) -> None:
        self._server = server
        self._limits = limits
        self._connection: _Connection | _SecureConnection
        if server.context is None:
            self._connection = _Connection(server.host, server.port, timeout=server.timeout)
        else:
            self._connection = _SecureConnection(
                server.host, server.port, timeout=server.timeout, ssl_context=server.context
            )

    def query(self, text: str, headers: Headers, *, at: float | None = None) -> list[Series]:
        """Return the value of an expression now, or `at` Unix seconds; an empty list where it has none.

        Raises:
            QueryError: the server does not answer this query, or a series is not one number.
            PrometheusError: the server cannot answer now, or is not of this kind.
        """
        form = {"query": text, **self._limits, **({} if at is None else {"time": repr(at)})}
        data, _ = self._ask(self._server.path, form, headers)
        return _series(data)

    def query_range(
        self, text: str, headers: Headers, begin: float, end: float, step: float
    ) -> tuple[list[Range], list[str]]:
        """Return the values of an expression at each step from one Unix second to another, both counted, and warnings.

        Raises:
            QueryError: the server does not answer this query, or a series has no numbers.
            PrometheusError: the server cannot answer now, or is not of this kind.
        """
        form = {"query": text, **self._limits, "start": repr(begin), "end": repr(end), "step": repr(step)}
        data, warnings = self._ask(self._server.range_path, form, headers)
        return _ranges(data), warnings

    def _ask(self, path: str, form: Mapping[str, str], headers: Headers) -> tuple[Any, list[str]]:
        self._connection.request(
            "POST",
            path,
            body=urlencode(form),
            headers={**headers, "content-type": "application/x-www-form-urlencoded"},
            preload_content=False,
            decode_content=False,
        )
        response = self._connection.getresponse()
        body = bytearray()
        while piece := response.read(_PIECE):
            body += piece
            if len(body) > MAX_BYTES:
                limit = f"{MAX_BYTES >> 20} MiB"
                raise QueryError(f"the answer has more than {limit}: narrow or aggregate the query", "protocol")
        if self._connection.is_cut:  # a cut may look like the end of an answer
            raise TimeoutError("interrupted")
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        status = response.status
        if isinstance(document, dict) and document.get("status") == "error":
            raise _refusal(status, str(document.get("errorType")), str(document.get("error")))
        if status == 200 and isinstance(document, dict) and document.get("status") == "success":
            warnings = document.get("warnings")
            return document.get("data"), [str(it) for it in warnings] if isinstance(warnings, list) else []
        what = f"HTTP {status} {response.reason or ''}".strip()
        if response.headers.get("content-type", "").startswith("text/plain"):
            what += f": {body[:500].decode(errors='replace')}"
        raise PrometheusError(what, _LABELS.get(status, "protocol"))

    def cut(self) -> None:
        """End the query under way, from another thread."""
        self._connection.cut()

    def close(self) -> None:
        """Free the connection."""
        with contextlib.suppress(Exception):
            self._connection.close()
        self._connection.end()


def _refusal(status: int, kind: str, message: str) -> PrometheusError:
    text = f"{kind}: {message}"
    # A timeout while series are read comes as an error of the execution, with Go's own words.
    if kind == "timeout" or message.endswith("context deadline exceeded"):
        return QueryError(text, "timeout")
    if status in _LABELS:
        return PrometheusError(text, _LABELS[status])
    return QueryError(text, "provider")


def _series(data: Any) -> list[Series]:
    try:
        kind, result = data["resultType"], data["result"]
        if kind == "scalar":
            result = [{"metric": {}, "value": result}]
        elif kind != "vector":
            raise QueryError(f"it gives a {kind}: give one that gives a number a series, without [a range]", "provider")
        return list(_numbers(result))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        malformed = PrometheusError("the answer is not one of Prometheus", "protocol")
    raise malformed


def _ranges(data: Any) -> list[Range]:
    try:
        if data["resultType"] != "matrix":
            raise QueryError(f"it gives a {data['resultType']}: give one that gives a number a series", "provider")
        return [
            Range(dict(item["metric"]), [(float(at), float(value)) for at, value in item.get("values", ())])
            for item in data["result"]
        ]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        malformed = PrometheusError("the answer is not one of Prometheus", "protocol")
    raise malformed


def _numbers(result: Any) -> Iterator[Series]:
    tick = Pauses().tick
    for item in result:
        # A native histogram is not a number.
        at, value = item["value"] if "value" in item else (item["histogram"][0], "NaN")
        yield Series(dict(item["metric"]), float(at), float(value))
        tick()
