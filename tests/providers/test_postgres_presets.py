"""What `PostgresStatsProvider` reads of procrastinate and PgQueuer, which fill their tables and work them off here."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from backpressure import AsyncBackpressureController, BackpressureConfig, PollingConfig, StatsUnavailableError
from backpressure._model.stats import QueueStats
from backpressure.providers.postgres.provider import PGQUEUER, PROCRASTINATE, PostgresStatsProvider
from integrations.frameworks import required
from support.postgres_server import session_postgres  # noqa: F401 - a fixture

procrastinate = required("procrastinate")
pgqueuer = required("pgqueuer")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from backpressure.providers.postgres.provider import PostgresQuery
    from support.postgres_server import Postgres

QUEUES = ["mail", "sms", "empty"]
RUNNING, WAITING, DELAYED, FINISHED = 3, 5, 2, 4
LATER = timedelta(hours=1)
#: What the guide lets a role select: no arguments of jobs are among it.
NEEDED = {
    "procrastinate": {
        "procrastinate_jobs": "id, queue_name, status, scheduled_at",
        "procrastinate_events": "job_id, type, at",
    },
    "pgqueuer": {"pgqueuer": "entrypoint, status, execute_after"},
}


def described(outcomes: Mapping[str, Any]) -> dict[str, tuple[int, int | None, int | None]]:
    """Return backlog, processing and delayed of each queue."""
    assert all(isinstance(outcome, QueueStats) for outcome in outcomes.values()), outcomes
    return {
        name: (stats.backlog_count, stats.processing_count, stats.delayed_count) for name, stats in outcomes.items()
    }


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


class Store:
    """A database with one package's tables in a schema, and a role that may read what the guide says."""

    def __init__(self, server: Postgres, preset: PostgresQuery, schema: str, role: str) -> None:
        self.server = server
        self.database = role
        self.query = preset.evolve(prefix="" if schema == "public" else f"{schema}.")
        self.schema = schema
        self.role = role

    @property
    def conninfo(self) -> str:
        return f"{self.server.superuser(self.database)} options='-c search_path={self.schema}'"

    def run(self, *commands: str) -> None:
        self.server.run(f"SET search_path = {self.schema}", *commands, database=self.database)

    @contextlib.contextmanager
    def provider(self, queues: Any = QUEUES) -> Iterator[PostgresStatsProvider]:
        provider = PostgresStatsProvider(
            self.server.url(self.database, self.role), queues, query=self.query, timeout=30
        )
        with contextlib.closing(provider):
            yield provider

    async def read(self, queues: Any = QUEUES) -> Mapping[str, Any]:
        with self.provider(queues) as provider:
            return await asyncio.to_thread(provider.get_all_queue_stats)

    async def counts(self) -> dict[str, tuple[int, int | None, int | None]]:
        return described(await self.read())


@pytest.fixture(params=["public", "shop"])
def schema(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def new_store(server: Postgres, name: str, schema: str) -> Store:
    preset, ddl = {"procrastinate": (PROCRASTINATE, procrastinate_ddl), "pgqueuer": (PGQUEUER, pgqueuer_ddl)}[name]
    role = f"{name}_{schema}"
    server.run(f"CREATE DATABASE {role}")
    server.run(f"CREATE SCHEMA IF NOT EXISTS {schema}", f"SET search_path = {schema}", ddl(schema), database=role)
    selects = [f"SELECT ({columns}) ON {schema}.{table}" for table, columns in NEEDED[name].items()]
    server.role(role, f"USAGE ON SCHEMA {schema}", *selects, database=role)
    return Store(server, preset, schema, role)


def procrastinate_ddl(_: str) -> str:
    ddl: str = procrastinate.schema.SchemaManager.get_schema()
    return ddl


def pgqueuer_ddl(schema: str) -> str:
    from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment
    from pgqueuer.domain.settings import DBSettings

    ddl: str = QueryBuilderEnvironment(DBSettings(db_schema=schema)).build_install_query()
    return ddl


@pytest.fixture(scope="session")
def stores(postgres: Postgres) -> Callable[[str, str], Store]:
    """Return the store of a package in a schema, made when first asked for."""
    return functools.cache(lambda name, schema: new_store(postgres, name, schema))


@pytest.fixture
def procrastinate_store(stores: Callable[[str, str], Store], schema: str) -> Store:
    return stores("procrastinate", schema)


@pytest.fixture
def pgqueuer_store(stores: Callable[[str, str], Store], schema: str) -> Store:
    return stores("pgqueuer", schema)


class Procrastinate:
    """An app with a task for each way to end."""

    def __init__(self, conninfo: str) -> None:
        self.app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=conninfo, min_size=1))
        self.release = asyncio.Event()

        async def end() -> None: ...

        async def fail() -> None:
            raise ValueError("on purpose")

        async def hold() -> None:
            await self.release.wait()

        for task in (end, fail, hold):
            self.app.task(task, name=task.__name__)

    async def defer(self, task: str, count: int = 1, queue: str = "mail", **options: Any) -> list[int]:
        deferrer = self.app.configure_task(task, queue=queue, **options)
        return [await deferrer.defer_async() for _ in range(count)]

    async def work(self, queue: str = "mail") -> None:
        """Work a queue off."""
        options = {"wait": False, "install_signal_handlers": False, "listen_notify": False}
        await self.app.run_worker_async(queues=[queue], concurrency=RUNNING, **options)


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Packages may log as they like."""
    caplog.set_level(logging.CRITICAL, logger="procrastinate")
    caplog.set_level(logging.CRITICAL, logger="pgqueuer")


@contextlib.asynccontextmanager
async def procrastinate_at(store: Store) -> AsyncIterator[Procrastinate]:
    store.run("TRUNCATE procrastinate_jobs, procrastinate_events CASCADE")
    jobs = Procrastinate(store.conninfo)
    async with jobs.app.open_async():
        yield jobs


def age(store: Store, job: int, seconds: float) -> None:
    """Let a job be deferred, or be due, that long ago."""
    store.run(
        f"UPDATE procrastinate_events SET at = now() - interval '{seconds} s' WHERE job_id = {job}",
        f"UPDATE procrastinate_jobs SET scheduled_at = now() - interval '{seconds} s' "
        f"WHERE id = {job} AND scheduled_at IS NOT NULL",
    )


@pytest.mark.usefixtures("quiet")
def test_procrastinate(procrastinate_store: Store) -> None:
    store = procrastinate_store

    async def main() -> None:
        async with procrastinate_at(store) as jobs:
            assert await store.counts() == dict.fromkeys(QUEUES, (0, 0, 0))
            assert await store.read(None) == {}
            await jobs.defer("end", FINISHED - 1)
            await jobs.defer("fail")
            await jobs.work()
            assert await store.counts() == dict.fromkeys(QUEUES, (0, 0, 0))

            await jobs.defer("hold", RUNNING)
            worker = asyncio.create_task(jobs.work())
            await until(lambda: counted(store, (0, RUNNING, 0)))
            first, *_ = await jobs.defer("end", WAITING - 2)
            (locked,) = await jobs.defer("end", lock="behind another")
            (due,) = await jobs.defer("end", schedule_at=datetime.now(UTC) - timedelta(minutes=1))
            await jobs.defer("end", DELAYED, schedule_in={"hours": 1})
            (cancelled,) = await jobs.defer("end")
            assert await jobs.app.job_manager.cancel_job_by_id_async(cancelled)
            await jobs.defer("end", queue="sms")
            await jobs.defer("end", queue="sms", schedule_in={"hours": 1})
            expected = {"mail": (WAITING, RUNNING, DELAYED), "sms": (1, 0, 1)}
            assert await store.counts() == {**expected, "empty": (0, 0, 0)}
            assert described(await store.read(None)) == expected

            assert (await store.read())["mail"].oldest_age == pytest.approx(60, abs=20)
            age(store, locked, 200)
            assert (await store.read())["mail"].oldest_age == pytest.approx(60, abs=20)  # not the first
            age(store, first, 100)
            assert (await store.read())["mail"].oldest_age == pytest.approx(100, abs=20)
            age(store, due, 300)
            outcomes = await store.read()
            assert outcomes["mail"].oldest_age == pytest.approx(300, abs=20)
            assert outcomes["sms"].oldest_age == pytest.approx(0, abs=20)
            assert outcomes["empty"].oldest_age is None

            jobs.release.set()
            await worker
            assert (await store.counts())["mail"] == (0, 0, DELAYED)
            assert (await store.read())["mail"].oldest_age is None

    asyncio.run(main())


async def counted(store: Store, expected: tuple[int, int, int]) -> bool:
    return (await store.counts())["mail"] == expected


@pytest.mark.usefixtures("quiet")
def test_a_retry_of_procrastinate_waits_for_its_time(procrastinate_store: Store) -> None:
    store = procrastinate_store

    async def main() -> None:
        async with procrastinate_at(store) as jobs:
            jobs.app.tasks["fail"].retry_strategy = procrastinate.RetryStrategy(max_attempts=3, wait=3_600)
            (job,) = await jobs.defer("fail")
            age(store, job, 500)
            await jobs.work()
            assert (await store.counts())["mail"] == (0, 0, 1)
            store.run("UPDATE procrastinate_jobs SET scheduled_at = now() - interval '7 s'")
            outcome = (await store.read())["mail"]
            assert (outcome.backlog_count, outcome.oldest_age) == (1, pytest.approx(7, abs=5))

    asyncio.run(main())


@pytest.fixture
def pgqueuer_settings(monkeypatch: pytest.MonkeyPatch, schema: str) -> Iterator[None]:
    """PgQueuer has its own word for a schema, which it keeps for the process."""
    from pgqueuer.domain.settings import db_settings

    monkeypatch.setenv("PGQUEUER_SCHEMA", schema)
    db_settings.cache_clear()
    yield
    db_settings.cache_clear()


@contextlib.asynccontextmanager
async def pgqueuer_at(store: Store) -> AsyncIterator[Any]:
    store.run("TRUNCATE pgqueuer")
    async with await psycopg.AsyncConnection.connect(store.conninfo, autocommit=True) as connection:
        yield pgqueuer.Queries.from_psycopg_connection(connection)


@contextlib.asynccontextmanager
async def working(store: Store, hold: asyncio.Event, patch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Work off ``mail``, up to `RUNNING` jobs at a time; what a job does is its payload."""
    async with await psycopg.AsyncConnection.connect(store.conninfo, autocommit=True) as connection:
        # It keeps the connection to itself for a second whenever it listens, which makes tests slow.
        notifies: Any = connection.notifies
        patch.setattr(connection, "notifies", lambda **options: notifies(**{**options, "timeout": 0.02}))
        worker = pgqueuer.PgQueuer.from_psycopg_connection(connection)

        async def mail(job: Any) -> None:
            if job.payload == b"hold":
                await hold.wait()
            if job.payload == b"fail":
                raise ValueError("on purpose")

        worker.entrypoint("mail", concurrency_limit=RUNNING, on_failure="hold")(mail)
        running = asyncio.create_task(worker.qm.run(timedelta(seconds=0.1), heartbeat_timeout=timedelta(seconds=8)))
        try:
            yield
        finally:
            worker.shutdown.set()
            await running


@pytest.mark.usefixtures("quiet", "pgqueuer_settings")
def test_pgqueuer(pgqueuer_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store = pgqueuer_store

    async def main() -> None:
        hold = asyncio.Event()
        async with pgqueuer_at(store) as queue:
            assert await store.counts() == dict.fromkeys(QUEUES, (0, 0, 0))
            for payload in [b"end"] * (FINISHED - 1) + [b"fail"]:
                await queue.enqueue("mail", payload)
            async with working(store, hold, monkeypatch):
                await until(lambda: counted(store, (0, 0, 0)))
            assert len(await queue.list_failed_jobs()) == 1  # which is still in the table

            for _ in range(RUNNING):
                await queue.enqueue("mail", b"hold")
            async with working(store, hold, monkeypatch):
                await until(lambda: counted(store, (0, RUNNING, 0)))
                for _ in range(WAITING - 1):
                    await queue.enqueue("mail", b"end")
                (due,) = await queue.enqueue("mail", b"end", execute_after=timedelta(minutes=-1))
                for _ in range(DELAYED):
                    await queue.enqueue("mail", b"end", execute_after=LATER)
                await queue.enqueue("sms", b"end")
                await queue.enqueue("sms", b"end", execute_after=LATER)
                expected = {"mail": (WAITING, RUNNING, DELAYED), "sms": (1, 0, 1)}
                assert await store.counts() == {**expected, "empty": (0, 0, 0)}
                assert described(await store.read(None)) == expected

                outcomes = await store.read()
                assert outcomes["mail"].oldest_age == pytest.approx(60, abs=20)
                assert outcomes["sms"].oldest_age == pytest.approx(0, abs=20)
                assert outcomes["empty"].oldest_age is None
                store.run(f"UPDATE pgqueuer SET execute_after = now() - interval '300 s' WHERE id = {due}")
                assert (await store.read())["mail"].oldest_age == pytest.approx(300, abs=20)

                hold.set()
                await until(lambda: counted(store, (0, 0, DELAYED)))
            assert (await store.read())["mail"].oldest_age is None

    asyncio.run(main())


@pytest.mark.usefixtures("quiet", "pgqueuer_settings")
def test_an_asyncio_controller_before_pgqueuer(pgqueuer_store: Store, engine_name: str) -> None:
    store = pgqueuer_store

    async def main() -> None:
        config = BackpressureConfig(polling=PollingConfig(timeout=5))
        async with pgqueuer_at(store) as queue:
            count = 2_000
            await queue.enqueue(["mail"] * count, [b"end"] * count, [0] * count)
            with store.provider() as provider:
                async with AsyncBackpressureController(config, provider, _engine=engine_name) as controller:
                    assert (await controller.suggest_throttle("low", "mail")).should_shed
                    assert not (await controller.suggest_throttle("high", "mail")).should_shed
                    await controller.run("low", "sms", lambda: queue.enqueue("sms", b"end"))
                    assert (await store.counts())["sms"] == (1, 0, 0)
                    store.run("DELETE FROM pgqueuer WHERE id % 100 <> 0")
                    assert await controller.refresh("mail")
                    assert (await controller.suggest_throttle("low", "mail")).delay == 0

    asyncio.run(main())


def test_the_role_may_do_nothing_else(procrastinate_store: Store, pgqueuer_store: Store) -> None:
    for store, table, payload in (
        (procrastinate_store, "procrastinate_jobs", "args"),
        (pgqueuer_store, "pgqueuer", "payload"),
    ):
        url = store.server.url(store.database, store.role)
        with psycopg.connect(url, autocommit=True) as connection:
            for command in (f"SELECT {payload} FROM {store.schema}.{table}", f"DELETE FROM {store.schema}.{table}"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(command.encode())


def test_without_the_tables_the_error_says_where_to_look(postgres: Postgres) -> None:
    provider = PostgresStatsProvider(postgres.superuser("template1"), QUEUES, query="pgqueuer")
    with contextlib.closing(provider), pytest.raises(StatsUnavailableError) as caught:
        provider.get_all_queue_stats()
    assert caught.value.error_type == "missing"
    assert 'UndefinedTable: relation "pgqueuer" does not exist; check the name of the database' in str(caught.value)


JOBS = 30_000
UNFINISHED = JOBS // 49
FILL = {
    # Jobs of 50 queues, of which one in 49 is not finished.
    "procrastinate": f"""
        ALTER TABLE procrastinate_jobs DISABLE TRIGGER USER;
        INSERT INTO procrastinate_jobs (queue_name, task_name, status, scheduled_at)
        SELECT 'queue' || n % 50, 'end', CASE WHEN n % 49 > 0 THEN 'succeeded' WHEN n % 5 = 0 THEN 'doing' ELSE 'todo'
               END::procrastinate_job_status, CASE WHEN n % 3 = 0 THEN now() + (n % 7 - 3) * interval '1 s' END
          FROM generate_series(1, {JOBS}) AS n;
        INSERT INTO procrastinate_events (job_id, type) SELECT id, 'deferred' FROM procrastinate_jobs;
        ALTER TABLE procrastinate_jobs ENABLE TRIGGER USER;
        VACUUM ANALYZE procrastinate_jobs, procrastinate_events
    """,
    # The same of PgQueuer, where failed jobs are held and others go.
    "pgqueuer": f"""
        INSERT INTO pgqueuer (priority, entrypoint, status, execute_after)
        SELECT 0, 'queue' || n % 50, CASE WHEN n % 49 > 0 THEN 'failed' WHEN n % 5 = 0 THEN 'picked' ELSE 'queued'
               END::pgqueuer_status, now() + (n % 7 - 3) * interval '1 s'
          FROM generate_series(1, {JOBS}) AS n;
        VACUUM ANALYZE pgqueuer
    """,
}


@pytest.mark.parametrize("name", FILL)
def test_finished_jobs_are_not_looked_at(stores: Callable[[str, str], Store], name: str) -> None:
    store = stores(name, "public")
    store.run(*FILL[name].split(";"))
    explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {store.query.sql.replace('{prefix}', '')}".encode()
    with store.server.connect(store.database) as connection, psycopg.ClientCursor(connection) as cursor:
        for queues in (["queue1", "queue2"], None):
            (((plan,),),) = cursor.execute(explain, {"queues": queues}).fetchall()
            nodes = list(walk(plan["Plan"]))
            assert [node for node in nodes if node["Node Type"] == "Seq Scan"] == []
            assert sum(rows(node) for node in nodes if "Relation Name" in node) < UNFINISHED * 2


def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from walk(child)


def rows(node: dict[str, Any]) -> float:
    """Return how many rows of a table were touched."""
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + removed) * node["Actual Loops"])
