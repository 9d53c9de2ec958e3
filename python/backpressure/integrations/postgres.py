"""PostgreSQL through psycopg, asyncpg, procrastinate and PgQueuer: what is no failure of the queue."""

from __future__ import annotations

from backpressure.integrations._shared.clients import SERIALISATION, installed

__all__ = ["NOT_FAILURES"]

#: What these raise that says nothing of the queue, as the job is there already, it cannot be written down, or too many
#: wait for the client's pool. For ``CircuitConfig(excluded_exceptions=NOT_FAILURES)``. ``psycopg_pool.PoolTimeout`` is
#: not among them, for it is also all that a pool says of a server that is dead.
NOT_FAILURES: tuple[type[BaseException], ...] = (
    *SERIALISATION,
    *installed(
        "procrastinate.exceptions:AlreadyEnqueued",
        "procrastinate.exceptions:UniqueViolation",
        "pgqueuer.domain.errors:DuplicateJobError",
        "psycopg.errors:UniqueViolation",
        "psycopg.errors:DataError",
        "psycopg_pool:TooManyRequests",
        "asyncpg.exceptions:UniqueViolationError",
        "asyncpg.exceptions:DataError",
    ),
)
