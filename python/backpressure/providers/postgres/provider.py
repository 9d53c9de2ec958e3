"""`PostgresStatsProvider`: reads queues that lie in tables of PostgreSQL, with one query for all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from backpressure._model.errors import ConfigurationError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.hidden import hides_arguments
from backpressure._runtime.extras import extra
from backpressure.providers.arguments import queue_table, seconds
from backpressure.providers.failures import ADVICE
from backpressure.providers.linked import LinkedProvider

with extra("postgres", "psycopg", what="PostgresStatsProvider"):
    import psycopg

    from backpressure.providers.postgres.conninfo import parse_target
    from backpressure.providers.postgres.link import Link
    from backpressure.providers.postgres.queries import PGQUEUER, PROCRASTINATE, PostgresQuery, Rows, array, parse_query

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backpressure.providers.linked import Outcome

__all__ = ["PGQUEUER", "PROCRASTINATE", "PostgresQuery", "PostgresStatsProvider"]

_LABELS = {
    "28000": "auth",
    "28P01": "auth",
    "42501": "acl",
    "42P01": "missing",
    "53300": "maxclients",
    "57014": "timeout",
    "57P01": "connect",  # the server was told to stop
    "57P02": "connect",
    "57P03": "loading",
}

# When a server refuses a connection, only its message tells why: libpq keeps no code of it. The message is English
# unless the server's lc_messages says otherwise.
_WORDS = (
    (r"password authentication failed|no password supplied|pg_hba\.conf|not permitted to log in", "auth"),
    (r'role ".*" does not exist|authentication failed', "auth"),
    (r"permission denied for database", "acl"),
    (r"too many (clients|connections)|connection slots are reserved|no more connections allowed", "maxclients"),
    (r"is (starting up|shutting down|in recovery mode|not yet accepting connections)", "loading"),
    (r'database ".*" does not exist', "missing"),
    (r"\bSSL\b|(server|root) certificate", "protocol"),
)

# Asks for all queues there are: no queue can have this name.
_ALL: Mapping[str, str] = MappingProxyType({"": ""})


@repr_when_half_built
class PostgresStatsProvider(LinkedProvider[str, Link]):
    """A `StatsProvider` for job tables in PostgreSQL. Needs the extra ``postgres``.

    Args:
        conninfo: as libpq takes it: ``postgresql://[user:password@]host:port/database?options``, or
            ``host=... dbname=...``; what it leaves out may come from the environment (``PGHOST`` and so on), a
            service or a password file. Several hosts are tried in turn.
        queues: what `get_all_queue_stats` reads: names, or a mapping from names to what the database calls them.
            ``None``: those that the query finds.
        query: ``"procrastinate"``, ``"pgqueuer"``, a ``SELECT``, or a `PostgresQuery`.
        timeout: seconds for a connect to each address, and for the query.

    One read is one query for all its queues, in its own read-only transaction with ``timeout`` as its
    ``statement_timeout``. The server ends it after that time, also while it waits for a lock. Nothing is prepared and
    no setting lasts longer than the transaction, so pgbouncer may pool transactions.

    **A queue for which the query returns no row has a backlog of 0**, because a table of jobs has no row for a queue
    without jobs. So a name that is not in `queues` is refused. With ``None`` any name is read, and a misspelled one
    looks empty.

    Thread-safe, and usable in a forked child, which connects by itself. At most two connections are kept between
    reads. It holds credentials, so it does not pickle; they are in no repr, message or log record.

    Raises:
        ConfigurationError: the connection string, the queues, the query or the timeout is impossible.
        InvalidQueueError: a queue's name is impossible.

    Example:
        >>> PostgresStatsProvider("postgresql://bp:secret@localhost/shop", ["mail"], query="procrastinate")
        PostgresStatsProvider('postgres at localhost:5432/shop', 1 queues)
    """

    __module__ = "backpressure.providers"

    # Each read counts rows of a table that others work with.
    least_gap = 1.0

    _advice = MappingProxyType(
        {
            **ADVICE,
            "acl": "grant the role USAGE on the schema and SELECT on the tables of the query",
            "loading": "it answers when it has started or recovered",
            "maxclients": "raise the server's max_connections or the role's limit, or put a pooler before it",
            "missing": "check the name of the database, and that the query's tables are on the role's search_path, "
            "or name their schema",
            "provider": "run the query by hand as the same role",
            "timeout": "see in pg_stat_activity whether the query is slow or waits for a lock, or raise timeout",
        }
    )

    @hides_arguments
    def __init__(
        self,
        conninfo: str,
        queues: Iterable[str] | Mapping[str, str] | None = None,
        *,
        query: str | PostgresQuery,
        timeout: float = 1.0,
    ) -> None:
        self._target = parse_target(conninfo)
        self._query = parse_query(query)
        self._timeout = seconds(timeout)
        if queues is None and not self._query.discovers:
            raise ConfigurationError(
                "queues is None: name the queues, for this query does not say that it finds them "
                "(PostgresQuery(..., discovers=True))",
                field="queues",
            )
        table = _ALL if queues is None else queue_table(queues, _known_as, what="the database's own")
        super().__init__(str(self._target), table, self._target.redactor)
        self._begin = f"BEGIN READ ONLY; SET LOCAL statement_timeout = {max(1, round(self._timeout * 1000))}"

    def _source(self, queue_name: str) -> str | None:
        return queue_name if self._queues is _ALL else None

    def _open(self) -> Link:
        return Link(self._target, self._timeout)

    def _ask(self, link: Link, queues: Mapping[str, str]) -> Mapping[str, Outcome]:
        try:
            link.connect()
            link.run(self._begin)
            result = link.run(self._query.command, self._parameters(queues))
            link.run("COMMIT")
        except psycopg.Error as error:
            if link.is_lost:
                raise
            answer = self._failure(error)
        else:
            return Rows(result).outcomes(None if queues is _ALL else queues)
        raise answer

    def _parameters(self, queues: Mapping[str, str]) -> list[str | None]:
        if not self._query.takes_queues:
            return []
        return [None if queues is _ALL else array(dict.fromkeys(queues.values()))]

    def _cut(self, link: Link) -> None:
        link.cut()

    def _close(self, link: Link) -> None:
        link.close()

    def _label(self, error: Exception) -> str | None:
        if not isinstance(error, psycopg.Error):
            return None
        if error.sqlstate is not None:
            return _LABELS.get(error.sqlstate)
        # A message of libpq itself, or of a server that refuses the connection.
        text = str(error)
        return next((label for words, label in _WORDS if re.search(words, text)), "connect")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._where!r}, all queues)" if self._queues is _ALL else super().__repr__()


def _known_as(name: str, value: Any) -> str:
    if value is None:
        return name
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("give the name that the database knows the queue by")
    return value
