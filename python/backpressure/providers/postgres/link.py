"""One connection to PostgreSQL, driven through libpq step by step, so that each step is bounded and can be cut."""

from __future__ import annotations

import contextlib
import selectors
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, PGconn, PollingStatus

from backpressure._model.clock import own_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg.pq.abc import PGconn as Connection
    from psycopg.pq.abc import PGresult

    from backpressure.providers.postgres.conninfo import Host, Target

__all__ = ["Link"]

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
# Seconds between two checks whether the link was cut. It is cut by a flag: to close its socket from another thread
# could close one that belongs to someone else by now.
_LOOK = 0.05
# Seconds after the timeout in which the server's own report of it can arrive.
_SLACK = 0.5


class Link:
    """A connection that is made when first used. One thread at a time may use it, except for `cut`."""

    def __init__(self, target: Target, timeout: float) -> None:
        self._target = target
        self._timeout = timeout
        self._connection: Connection | None = None
        self._is_cut = False

    def cut(self) -> None:
        """Make the call that another thread is in fail soon."""
        self._is_cut = True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.finish()

    @property
    def is_lost(self) -> bool:
        """Tell whether the connection has ended."""
        return self._connection is None or self._connection.status != ConnStatus.OK

    def connect(self) -> None:
        """Connect to the first host that accepts us, unless connected.

        Raises:
            psycopg.OperationalError, OSError: no host does; this is the error of the last one.
        """
        if self._connection is None:
            self._connection = self._first()

    def _first(self) -> Connection:
        failure: Exception = psycopg.OperationalError("there is no host to connect to")
        for host in self._target.hosts:
            try:
                return self._any(host)
            except (psycopg.Error, OSError) as error:
                failure = error
        raise failure

    def _any(self, host: Host) -> Connection:
        *others, last = host.addresses()
        for conninfo in others:
            with contextlib.suppress(psycopg.Error, OSError):
                return self._dial(conninfo)
        return self._dial(last)

    def _dial(self, conninfo: bytes) -> Connection:
        deadline = own_time.monotonic() + self._timeout
        connection = PGconn.connect_start(conninfo)
        try:
            status = PollingStatus.WRITING
            while status != PollingStatus.OK:
                _check(connection, status)
                self._wait(connection, _READ if status == PollingStatus.READING else _WRITE, deadline)
                status = PollingStatus(connection.connect_poll())
            connection.nonblocking = 1
        except BaseException:
            connection.finish()
            raise
        return connection

    def run(self, command: str, values: Sequence[str | None] | None = None) -> PGresult:
        """Return the result of `command`, or its last result; `values` are its parameters ``$1``, ``$2`` and so on.

        Raises:
            psycopg.Error: the server refused it, or the connection is lost (`is_lost`).
            TimeoutError: no answer, or cut.
        """
        assert self._connection is not None  # noqa: S101 - connect() comes first
        connection = self._connection
        deadline = own_time.monotonic() + self._timeout + _SLACK
        if values is None:
            connection.send_query(command.encode())
        else:
            connection.send_query_params(
                command.encode(), [None if value is None else value.encode() for value in values]
            )
        while connection.flush():
            if self._wait(connection, _READ | _WRITE, deadline) & _READ:
                connection.consume_input()
        results = list(self._results(connection, deadline))
        for result in results:
            if result.status not in {ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.EMPTY_QUERY}:
                raise _refusal(result)
        return results[-1]

    def _results(self, connection: Connection, deadline: float) -> Iterator[PGresult]:
        while True:
            while connection.is_busy():
                self._wait(connection, _READ, deadline)
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                return
            yield result
            if result.status in {ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH}:
                return  # nothing more would come

    def _wait(self, connection: Connection, events: int, deadline: float) -> int:
        """Return which of `events` has come."""
        with selectors.DefaultSelector() as selector:
            selector.register(connection.socket, events)
            while not self._is_cut:
                left = deadline - own_time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"no answer within {self._timeout:g} s")
                for _, ready in selector.select(min(left, _LOOK)):
                    return ready
        raise TimeoutError("interrupted")


def _check(connection: Connection, status: PollingStatus) -> None:
    if connection.status == ConnStatus.BAD or status == PollingStatus.FAILED:
        raise psycopg.OperationalError(connection.error_message.decode(errors="replace"))


def _refusal(result: PGresult) -> psycopg.Error:
    def field(which: DiagnosticField) -> str:
        return (result.error_field(which) or b"").decode(errors="replace")

    text = field(DiagnosticField.MESSAGE_PRIMARY) or f"unexpected answer {ExecStatus(result.status).name}"
    if hint := field(DiagnosticField.MESSAGE_HINT):
        text += f" ({hint})"
    code = field(DiagnosticField.SQLSTATE)
    try:
        error = psycopg.errors.lookup(code)(text)
    except KeyError:
        error = psycopg.DatabaseError(text)
    error.sqlstate = code
    return error
