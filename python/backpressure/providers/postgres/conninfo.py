"""Turns a PostgreSQL connection string into the addresses to connect to, and never shows a credential."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from backpressure._model.errors import ConfigurationError
from backpressure.providers.failures import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Host", "Target", "parse_target"]

_SCHEME = re.compile(r"postgres(?:ql)?://", re.IGNORECASE)
_FORMS = "postgresql://[user:password@]host:port/database, or host=... port=... dbname=... user=... password=..."


def _refuse(reason: str) -> NoReturn:
    # The value may hold a password, so it is in no message.
    raise ConfigurationError(f"conninfo {reason} (value withheld)", field="conninfo")


@attrs.frozen(eq=False, repr=False)
class Host:
    """One of the hosts to try, with all other options for libpq."""

    options: dict[str, str]

    def addresses(self) -> Iterator[bytes]:
        """Yield a connection string for each address, looked up here because libpq's own lookup has no time limit."""
        name = self.options.get("host", "")
        if not name or name.startswith(("/", "@")) or "hostaddr" in self.options:
            yield self._conninfo()
            return
        port = self.options.get("port") or None
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        for address in dict.fromkeys(str(entry[4][0]) for entry in found):
            yield self._conninfo(hostaddr=address)

    def _conninfo(self, **more: str) -> bytes:
        return make_conninfo(**{**self.options, **more}).encode()


@attrs.frozen(eq=False)
class Target:
    """Where a connection string points. It can be printed: the hosts, which hold the credentials, are not shown."""

    shown: str
    hosts: tuple[Host, ...] = attrs.field(repr=False)
    redactor: Redactor = attrs.field(repr=False)

    def __str__(self) -> str:
        return self.shown


def parse_target(conninfo: Any) -> Target:
    """Read a connection string: a URL, or keywords and values.

    Raises:
        ConfigurationError: it is not one. The message withholds it, and the error has no cause.
    """
    try:
        return _parse(conninfo)
    except ConfigurationError as error:
        refusal = error
    except Exception:  # noqa: BLE001 - any parser's error may quote the password
        refusal = ConfigurationError(
            f"conninfo cannot be read (value withheld): give {_FORMS}; percent-encode user name and password in a URL, "
            "quote values with spaces, and check the names of options",
            field="conninfo",
        )
    # Outside of the handler, so that the parser's error is not its context.
    raise refusal.with_traceback(None)


def _parse(conninfo: Any) -> Target:
    if not isinstance(conninfo, str) or "\0" in conninfo:
        _refuse(f"is no connection string: give {_FORMS}")
    if scheme := _SCHEME.match(conninfo):
        authority, *rest = re.split(r"[/?]", conninfo[scheme.end() :], maxsplit=1)
        # libpq would take what follows for a host or a database, which are shown.
        if authority.count("@") > 1 or "@" in "".join(rest):
            _refuse("has one of '/', '?', '@' in its user name or password: percent-encode them")
    options = _values(Conninfo.parse(conninfo.encode()))
    defaults = {} if "service" in options else _values(Conninfo.get_defaults())
    for name in ("host", "hostaddr", "port"):
        if name not in options and name in defaults:
            options[name] = defaults[name]
    if not re.fullmatch(r"[\d,]*", options.get("port", "")):
        _refuse("has a port that is no number: check that a URL has an '@' before the host")
    if re.search(r"=|://", options.get("dbname", "")):
        _refuse("has a connection string as its database: give the name alone")
    secrets = {option.keyword.decode() for option in Conninfo.get_defaults() if option.dispchar == b"*"}
    secrets |= {"user", "scram_client_key", "scram_server_key"}
    password = _values(Conninfo.get_defaults()).get("password", "")
    redactor = Redactor({password, *(value for name, value in options.items() if name in secrets)})
    shown = _shown(options)
    options.pop("connect_timeout", None)  # the provider has its own
    options.setdefault("application_name", "backpressure")
    options["client_encoding"] = "utf8"
    return Target(shown, tuple(Host(host) for host in _hosts(options)), redactor)


def _values(options: Iterable[Any]) -> dict[str, str]:
    return {option.keyword.decode(): option.val.decode() for option in options if option.val}


def _shown(options: dict[str, str]) -> str:
    database = f"/{options['dbname']}" if "dbname" in options else ""
    hosts = [
        f"{host.get('host') or host.get('hostaddr') or 'socket'}:{host.get('port') or 5432}" for host in _hosts(options)
    ]
    if "service" in options and "host" not in options:
        return f"postgres service {options['service']}{database}"
    return f"postgres at {','.join(hosts)}{database}"


def _hosts(options: dict[str, str]) -> list[dict[str, str]]:
    """Return the options of each host of a list, as libpq pairs them."""
    lists = {name: options.get(name, "").split(",") for name in ("host", "hostaddr", "port")}
    size = max(map(len, (lists["host"], lists["hostaddr"])))
    hosts = []
    for index in range(size):
        own = {name: values[index % len(values)] for name, values in lists.items()}
        hosts.append({**options, **own})
        for name, value in own.items():
            if not value:
                del hosts[-1][name]
    return hosts
