"""PostgreSQL through psycopg, asyncpg, procrastinate and PgQueuer: errors that are not failures of the queue."""

from __future__ import annotations

from backpressure.integrations._shared.clients import SERIALISATION, installed

__all__ = ["NOT_FAILURES"]

#: Errors that say nothing about the queue. The job exists already, it cannot be serialised, or too many wait for the
#: client's pool. For ``CircuitConfig(excluded_exceptions=NOT_FAILURES)``. ``psycopg_pool.PoolTimeout`` is not among
#: them, because a pool raises it also when the server is dead.
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
