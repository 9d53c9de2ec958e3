"""The query that PostgreSQL is asked, one for all queues, here for two job packages; and the rows it must return."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Self

import attrs

from backpressure._model.arguments import shown
from backpressure._model.errors import ConfigurationError, StatsUnavailableError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import MAX_BACKLOG, QueueStats
from backpressure._runtime.pauses import Pauses

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psycopg.pq.abc import PGresult

    from backpressure.providers.linked import Outcome

__all__ = ["PGQUEUER", "PROCRASTINATE", "PostgresQuery", "Rows", "array", "parse_query"]

_QUEUES = "%(queues)s"
_PREFIX = "{prefix}"
_NEEDED = ("queue", "backlog")
_COLUMNS = (*_NEEDED, "processing", "delayed", "oldest_age", "entered", "left")
# What a queue without a row does not have.
_NOT_OF_NONE = frozenset({"oldest_age", "entered", "left"})


@repr_when_half_built
@attrs.frozen
class PostgresQuery:
    """A query for `PostgresStatsProvider`: one ``SELECT`` that gives a row for each queue.

    Args:
        sql: its columns are, by name, ``queue``, ``backlog`` and, where they can be told, ``processing``, ``delayed``
            (counts of jobs, as in `backpressure.QueueStats`), ``oldest_age`` (seconds), ``entered`` and ``left`` (jobs
            that ever came and left, if the table counts them). ``%(queues)s::text[]`` in it stands for the names of the
            queues asked for; ``{prefix}`` for `prefix`. No other ``%`` is special.
        prefix: the text before the names of tables: ``"shop."`` for tables in the schema ``shop``, ``"shop.my_"`` where
            the tables' own names also begin with ``my_``.
        discovers: whether the query returns all queues there are when it is asked for ``NULL``; a query without
            ``%(queues)s`` always does.

    Immutable.

    Raises:
        ConfigurationError: one of these is impossible.

    Example:
        >>> PROCRASTINATE.evolve(prefix="shop.").prefix
        'shop.'
    """

    sql: str = attrs.field()
    prefix: str = attrs.field(default="", kw_only=True)
    discovers: bool = attrs.field(kw_only=True)

    @discovers.default
    def _discovers(self) -> bool:
        return _QUEUES not in str(self.sql)

    @sql.validator
    def _check_sql(self, _: object, value: Any) -> None:
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise ConfigurationError(f"sql is {shown(value)}: give a SELECT", field="sql", value=value)

    @prefix.validator
    def _check_prefix(self, _: object, value: Any) -> None:
        fault = None
        if not isinstance(value, str) or not re.fullmatch(r'((\w+|"[^"\0]+")\.)?\w*', value):
            fault = 'give what stands before the names of tables, e.g. "schema."'
        elif value and _PREFIX not in self.sql:
            fault = f"the query has no {_PREFIX} where it could stand"
        if fault:
            raise ConfigurationError(f"prefix is {shown(value)}: {fault}", field="prefix", value=value)

    @property
    def takes_queues(self) -> bool:
        """Tell whether the query asks for the names of queues."""
        return _QUEUES in self.sql

    @property
    def command(self) -> str:
        """What the server is sent."""
        return self.sql.replace(_PREFIX, self.prefix).replace(_QUEUES, "$1")

    def evolve(self, **changes: Any) -> Self:
        """Return a changed copy.

        Raises:
            ConfigurationError: the changed query would be invalid.
        """
        return attrs.evolve(self, **changes)


# Both conditions on the status match partial indexes, so that the server does not even look at finished jobs.

#: Waiting, running and delayed jobs of procrastinate 3. Its jobs store no time of their creation: for a job without a
#: scheduled time, the age comes from its first event. Only the one with the lowest number is looked up, since numbers
#: grow with time.
PROCRASTINATE = PostgresQuery(
    """
    WITH queues AS (
        SELECT queue_name AS queue,
               count(*) FILTER (WHERE status = 'todo' AND coalesce(scheduled_at <= now(), true)) AS backlog,
               count(*) FILTER (WHERE status = 'doing') AS processing,
               count(*) FILTER (WHERE status = 'todo' AND scheduled_at > now()) AS delayed,
               min(scheduled_at) FILTER (WHERE status = 'todo' AND scheduled_at <= now()) AS due,
               min(id) FILTER (WHERE status = 'todo' AND scheduled_at IS NULL) AS first
          FROM {prefix}procrastinate_jobs
         WHERE status IN ('todo', 'doing')
           AND (%(queues)s::text[] IS NULL OR queue_name = ANY (%(queues)s::text[]))
         GROUP BY queue_name
    )
    SELECT queue, backlog, processing, delayed,
           extract(epoch FROM now() - least(due, (
               SELECT min(at) FROM {prefix}procrastinate_events WHERE job_id = first AND type = 'deferred'
           ))) AS oldest_age
      FROM queues
    """,
    discovers=True,
)

#: Waiting, running and delayed jobs of PgQueuer 1; a queue is an entrypoint. Failed jobs that it keeps do not count.
PGQUEUER = PostgresQuery(
    """
    SELECT queue,
           count(*) FILTER (WHERE NOT picked AND execute_after <= now()) AS backlog,
           count(*) FILTER (WHERE picked) AS processing,
           count(*) FILTER (WHERE NOT picked AND execute_after > now()) AS delayed,
           extract(epoch FROM now() - min(execute_after) FILTER (WHERE NOT picked AND execute_after <= now()))
               AS oldest_age
      FROM (
          SELECT entrypoint AS queue, execute_after, false AS picked FROM {prefix}pgqueuer WHERE status = 'queued'
          UNION ALL
          SELECT entrypoint, execute_after, true FROM {prefix}pgqueuer WHERE status = 'picked'
      ) AS jobs
     WHERE %(queues)s::text[] IS NULL OR queue = ANY (%(queues)s::text[])
     GROUP BY queue
    """,
    discovers=True,
)

_PRESETS = {"procrastinate": PROCRASTINATE, "pgqueuer": PGQUEUER}


def parse_query(query: Any) -> PostgresQuery:
    """Return the query for the name of a preset, for SQL, or for a `PostgresQuery`.

    Raises:
        ConfigurationError: it is none of these.
    """
    if isinstance(query, PostgresQuery):
        return query
    if isinstance(query, str) and query in _PRESETS:
        return _PRESETS[query]
    if isinstance(query, str) and len(query.split()) > 1:
        return PostgresQuery(query)
    names = ", ".join(map(repr, _PRESETS))
    raise ConfigurationError(
        f"query is {shown(query)}: give one of {names}, a SELECT, or a PostgresQuery", field="query", value=query
    )


def array(names: Iterable[str]) -> str:
    """Return names as a literal of ``text[]``."""
    return "{" + ",".join('"' + re.sub(r'(["\\])', r"\\\1", name) + '"' for name in names) + "}"


class Rows:
    """The checked rows that a query returned.

    Raises:
        StatsUnavailableError: a column is missing or unknown.
    """

    def __init__(self, result: PGresult) -> None:
        names = [(result.fname(column) or b"").decode(errors="replace") for column in range(result.nfields)]
        for name in _NEEDED:
            if name not in names:
                raise StatsUnavailableError(f"the query gives no column {name!r}: name it with AS {name}")
        for name in names:
            if name not in _COLUMNS or names.count(name) > 1:
                raise StatsUnavailableError(
                    f"the query gives a column {name[:64]!r} that is unknown or there twice: give {', '.join(_COLUMNS)}"
                )
        self._told = frozenset(names)
        self._rows: dict[str, list[dict[str, bytes | None]]] = {}
        tick = Pauses().tick
        for number in range(result.ntuples):
            tick()
            row = {name: result.get_value(number, column) for column, name in enumerate(names)}
            if (queue := row["queue"]) is not None:
                self._rows.setdefault(queue.decode(errors="replace"), []).append(row)

    def outcomes(self, queues: Mapping[str, str] | None) -> dict[str, Outcome]:
        """Return the sample of each queue, or what is wrong with it.

        Args:
            queues: queue -> its name in the database; ``None`` for all queues that the query returned.
        """
        tick = Pauses().tick
        outcomes: dict[str, Outcome] = {}
        for name, known_as in (queues or dict.fromkeys(self._rows, "")).items():
            tick()
            try:
                outcomes[name] = self._sample(name, self._rows.get(known_as or name, []))
            except ValueError as error:
                outcomes[name] = StatsUnavailableError(
                    f"the query gives for queue {name!r} {error}", error_type="invalid_sample", queue_name=name
                )
        return outcomes

    def _sample(self, name: str, rows: list[dict[str, bytes | None]]) -> QueueStats:
        if len(rows) > 1:
            raise ValueError(f"{len(rows)} rows: add GROUP BY queue")
        # A table of jobs has no row for a queue without jobs.
        row = rows[0] if rows else dict.fromkeys(self._told - _NOT_OF_NONE, b"0")
        backlog = _count("backlog", row)
        if backlog is None:
            raise ValueError("NULL as backlog: give a number")
        running, later = _count("processing", row), _count("delayed", row)
        entered, left = _count("entered", row), _count("left", row)
        return QueueStats(name, backlog, running, later, _age(row), entered=entered, left=left)


def _count(column: str, row: Mapping[str, bytes | None]) -> int | None:
    value = row.get(column)
    if value is None:
        return None
    if not re.fullmatch(rb"\d{1,16}", value) or int(value) > MAX_BACKLOG:
        raise ValueError(f"{_shown(value)} as {column}: give a count from 0 to 2**53 - 1")
    return int(value)


def _age(row: Mapping[str, bytes | None]) -> float | None:
    value = row.get("oldest_age")
    if value is None:
        return None
    try:
        age = float(value)
    except ValueError:
        age = math.nan
    if not math.isfinite(age):
        raise ValueError(f"{_shown(value)} as oldest_age: give seconds, e.g. extract(epoch FROM now() - min(created))")
    return max(0.0, age)  # a job may come from a machine whose clock is ahead


def _shown(value: bytes) -> str:
    return repr(value.decode(errors="replace")[:64])
