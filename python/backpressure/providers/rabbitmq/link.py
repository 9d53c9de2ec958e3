"""Turns an AMQP URL into a connection that another thread can cut, and never shows a credential."""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import attrs
from amqp import Connection, spec  # type: ignore[import-untyped]
from amqp.exceptions import ChannelError, UnexpectedFrame  # type: ignore[import-untyped]
from amqp.sasl import AMQPLAIN, PLAIN  # type: ignore[import-untyped]

from backpressure._model.errors import ConfigurationError
from backpressure.providers.failures import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Link", "RabbitMQTarget", "parse_target"]

_PORTS = {"amqp": 5672, "amqps": 5671}
_FORMS = "amqp://user:password@host:port/vhost or amqps:// (TLS)"
# User and password where a URL has none; this is not a secret.
_GUEST = "guest"
# Names of options in the brokers' own URLs -> py-amqp's names for them.
_FILES = {"cacertfile": "ca_certs", "certfile": "certfile", "keyfile": "keyfile"}
_VERIFY = {"verify_peer": ssl.CERT_REQUIRED, "verify_none": ssl.CERT_NONE}
_MAX_SHORT_STRING = 255

# Queues asked for in one round trip: their replies fit into any socket's buffer.
_WINDOW = 128

_FAREWELL_SECONDS = 0.1


def _refuse(reason: str) -> NoReturn:
    # The value may hold a password, so it is in no message.
    raise ConfigurationError(f"url {reason} (value withheld)", field="url")


@attrs.frozen(eq=False)
class RabbitMQTarget:
    """Where a URL points. It can be printed: user, password and options are not shown."""

    shown: str
    host: str
    vhost: str
    user: str = attrs.field(repr=False)
    password: str = attrs.field(repr=False)
    tls: dict[str, Any] | None = attrs.field(repr=False)

    def __str__(self) -> str:
        return self.shown

    def __reduce__(self) -> NoReturn:
        raise TypeError("a RabbitMQ target holds credentials and does not pickle: give the URL to each process")

    def redactor(self) -> Redactor:
        """Return a redactor that takes this target's credentials out of messages."""
        return Redactor({self.user, self.password} - {_GUEST})

    def link(self, timeout: float) -> Link:
        """Return a link that is not open yet; `timeout` (seconds) bounds its connect and each reply."""
        return Link(
            _Connection(
                self.host,
                authentication=(PLAIN(self.user, self.password), AMQPLAIN(self.user, self.password)),
                virtual_host=self.vhost,
                ssl=False if self.tls is None else self.tls,
                connect_timeout=timeout,
                heartbeat=0,  # nobody would answer while a link is idle
                client_properties={"connection_name": "producer-backpressure"},
            ),
            timeout,
        )


def parse_target(url: Any) -> RabbitMQTarget:
    """Read a URL.

    Raises:
        ConfigurationError: the URL or one of its options is wrong; the message withholds it, and there is no cause.
    """
    try:
        return _parse(url)
    except ConfigurationError as error:
        refusal = error
    except Exception:  # noqa: BLE001 - any parser's error may quote the URL
        refusal = ConfigurationError(
            "url cannot be read (value withheld): percent-encode user name, password and vhost, and check host, port "
            "and the options after '?'",
            field="url",
        )
    # Outside of the handler, so that the parser's error is not its context.
    raise refusal.with_traceback(None)


def _parse(url: Any) -> RabbitMQTarget:
    scheme, separator, rest = url.partition("://")
    if not separator or (scheme := scheme.lower()) not in _PORTS:
        _refuse(f"has no known scheme: give {_FORMS}")
    parts = urlsplit(f"amqp://{rest}")
    if "#" in rest or "@" in parts.path or "@" in parts.query:
        _refuse("has one of '#', '/', '?', '@' in its user name or password: percent-encode them")
    host = parts.hostname or "localhost"
    if "," in host:
        _refuse("names several hosts: give one, or the address of what balances between them")
    host.encode("idna")  # to resolve it would do this, and raise there
    where = f"[{host}]" if ":" in host else host
    vhost = unquote(parts.path[1:]) or "/"
    if len(vhost.encode()) > _MAX_SHORT_STRING:
        _refuse(f"names a vhost of more than {_MAX_SHORT_STRING} bytes")
    where = f"{where}:{parts.port or _PORTS[scheme]}"
    return RabbitMQTarget(
        shown=f"{scheme}://{where}/{quote(vhost, safe='')}",
        host=where,
        vhost=vhost,
        user=unquote(parts.username or _GUEST),
        password=unquote(_GUEST if parts.password is None else parts.password),
        tls=_tls(scheme, host, dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))),
    )


def _tls(scheme: str, host: str, options: dict[str, str]) -> dict[str, Any] | None:
    if scheme == "amqp":
        if options:
            _refuse("has options, which amqp:// knows none of: leave them out, or give amqps://")
        return None
    verify = options.pop("verify", "verify_peer")
    if options.keys() - _FILES or verify not in _VERIFY:
        _refuse(f"has an unknown option: give {', '.join(_FILES)} or verify={'|'.join(_VERIFY)}")
    for name, file in options.items():
        if not Path(file).is_file():
            _refuse(f"names no file with {name}")
    files = {_FILES[name]: file for name, file in options.items()}
    # py-amqp checks the host's name only where it is given.
    checked = {"server_hostname": host} if verify == "verify_peer" else {}
    return {"cert_reqs": _VERIFY[verify], **files, **checked}


class _Connection(Connection):  # type: ignore[misc]
    """A connection whose socket can be reached as soon as it exists."""

    wire: Any = None

    def Transport(self, *args: Any, **options: Any) -> Any:  # noqa: N802 - py-amqp's name
        self.wire = super().Transport(*args, **options)
        return self.wire


def _passive_declare(channel: int, queue: bytes) -> bytes:
    """Return a frame with the method ``queue.declare``, which changes nothing: its flag ``passive`` is set."""
    arguments = b"".join((bytes(2), bytes([len(queue)]), queue, b"\x01", bytes(4)))
    method = struct.pack(">HH", *spec.Queue.Declare) + arguments
    return struct.pack(">BHI", 1, channel, len(method)) + method + b"\xce"


class Link:
    """A connection to the broker and its one channel, opened by the first `counts` so that `cut` can end that too."""

    def __init__(self, connection: _Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._channel: Any = None
        self._is_busy = False  # or has been left in the middle of an exchange
        self._is_cut = False

    def counts(self, queues: Sequence[str], tick: Callable[[], None]) -> Iterator[int | ChannelError]:
        """Yield for each queue its ready messages, or why the broker refuses to tell.

        Raises what py-amqp raises about the connection.
        """
        self._is_busy = True
        if self._channel is None:
            self._open()
        told = 0
        window = _WINDOW
        while told < len(queues):
            if self._is_cut:
                raise TimeoutError("interrupted")
            asked = queues[told : told + window]
            window = min(2 * window, _WINDOW)
            self._ask(asked)
            for queue in asked:
                answer = self._answer(queue)
                tick()
                told += 1
                yield answer
                if isinstance(answer, ChannelError):
                    # The broker has closed the channel and ignored the other questions there; py-amqp has opened it
                    # again. Such refusals come together, so only one queue is asked at a time until one is answered.
                    window = 1
                    break
        self._is_busy = False

    def _open(self) -> None:
        self._connection.connect()
        # py-amqp's own timeouts go by the socket's options, and are forgotten within a frame.
        self._connection.wire.sock.settimeout(self._timeout)
        self._channel = self._connection.channel()

    def _ask(self, queues: Sequence[str]) -> None:
        # py-amqp would send each by itself, which takes most of a read's time.
        channel = self._channel.channel_id
        self._connection.wire.write(b"".join(_passive_declare(channel, queue.encode()) for queue in queues))

    def _answer(self, queue: str) -> int | ChannelError:
        try:
            name, messages, _ = self._channel.wait(spec.Queue.DeclareOk, returns_tuple=True)
        except ChannelError as error:
            return error
        if name != queue:
            raise UnexpectedFrame("an answer about another queue")
        count: int = messages
        return count

    def cut(self) -> None:
        """End what another thread does with this link."""
        self._is_cut = True
        wire = self._connection.wire
        if wire is not None and wire.sock is not None:
            # Not the TLS socket's own method: it removes the TLS layer while another thread reads from it.
            socket.socket.shutdown(wire.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, and hardly wait for the broker, which may be frozen."""
        wire = self._connection.wire
        if wire is None or wire.sock is None:
            return
        try:
            if not self._is_busy:
                wire.sock.settimeout(min(self._timeout, _FAREWELL_SECONDS))
                self._connection.close()  # else the broker's log warns of a lost connection
        finally:
            if wire.sock is not None:
                wire.sock.settimeout(0)
            self._connection.collect()
