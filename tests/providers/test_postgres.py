"""`PostgresStatsProvider` against a real server: queries, errors, connections, and what must never be shown."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpressure._model.errors import ConfigurationError, InvalidQueueError, StatsUnavailableError
from backpressure._model.stats import MAX_BACKLOG, QueueStats
from backpressure.providers.postgres.provider import PROCRASTINATE, PostgresQuery, PostgresStatsProvider
from backpressure.providers.postgres.queries import Rows
from providers import checks
from providers.checks import sample
from providers.contract.backend import PASSWORD as CANARY
from providers.contract.backend import USER, Backend, Refusal, Wrong
from providers.contract.faults import STRANGERS
from providers.contract.suite import Contract
from support import servers
from support.controller_fixtures import eventually
from support.postgres_server import PASSWORD, Postgres, _fragile, running_postgres, session_postgres  # noqa: F401 - fixtures
from support.redis_fixtures import no_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


pytestmark = pytest.mark.usefixtures("no_log_record")

DATABASE = "shop"
NAMES = "%(queues)s::text[]"
WAITING = f"SELECT queue, count(*) AS backlog FROM jobs WHERE queue = ANY ({NAMES}) GROUP BY queue"
SLOW = "SELECT 'q' AS queue, 1 AS backlog FROM pg_sleep(60)"
LAST_WORDS = "canary"


@pytest.fixture
def no_log_record(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    """The provider leaves logging to the poller, and psycopg has nothing to tell."""
    caplog.set_level(logging.DEBUG)
    yield
    records = [record for record in caplog.records if record.name.startswith(("backpressure", "psycopg"))]
    assert [record for record in records if record.name != "backpressure"] == []
    assert PASSWORD not in caplog.text


@pytest.fixture(scope="session")
def shop(postgres: Postgres) -> Postgres:
    """The server, with a table of jobs that the role ``reader`` may read and no more."""
    postgres.run(f"CREATE DATABASE {DATABASE}")
    postgres.run(
        "CREATE TABLE jobs (queue text, state text DEFAULT 'waiting', created timestamptz DEFAULT now())",
        "CREATE TABLE secrets (word text)",
        "CREATE SCHEMA hidden",
        "CREATE TABLE hidden.jobs (queue text)",
        database=DATABASE,
    )
    postgres.role("reader", "SELECT ON jobs", database=DATABASE)
    return postgres


@pytest.fixture
def jobs(shop: Postgres) -> Iterator[psycopg.Connection]:
    """A superuser's connection to the empty table."""
    with shop.connect(DATABASE) as connection:
        connection.execute("TRUNCATE jobs")
        yield connection


def enqueue(jobs: psycopg.Connection, queue: str, count: int = 1) -> None:
    jobs.execute("INSERT INTO jobs (queue) SELECT %s FROM generate_series(1, %s)", [queue, count])


@contextlib.contextmanager
def opened(conninfo: Any, queues: Any = ("q",), **options: Any) -> Iterator[PostgresStatsProvider]:
    provider = PostgresStatsProvider(conninfo, queues, **{"query": WAITING, "timeout": 10, **options})
    try:
        yield provider
    finally:
        provider.close()


@pytest.fixture
def read(shop: Postgres) -> Callable[..., Any]:
    """Read queues with a query of the test's own."""

    def read(query: Any, queues: Any = ("q",), **options: Any) -> Any:
        with opened(shop.url(DATABASE), queues, query=query, **options) as provider:
            return provider.get_all_queue_stats()

    return read


def failure(read: Callable[[], object]) -> StatsUnavailableError:
    """Return what `read` raises, which carries neither cause nor context, nor a password."""
    error = checks.failure(read)
    assert PASSWORD not in "".join(traceback.format_exception(error))
    return error


def counts(stats: QueueStats) -> tuple[int, int | None, int | None, float | None]:
    return stats.backlog_count, stats.processing_count, stats.delayed_count, stats.oldest_age


def backlogs(outcomes: Any) -> dict[str, int]:
    return {name: sample(outcomes, name).backlog_count for name in outcomes}


def refused(label: str, words: str, conninfo: Callable[[Postgres], str]) -> Refusal:
    return Refusal(label, words, lambda backend: backend.make(["q"], given=conninfo(backend.server), timeout=10))


def at(server: Postgres, login: str = "", database: str = DATABASE, *, port: int = 0) -> str:
    return f"postgresql://{login}{servers.HOST}:{port or server.port}/{database}"


class PostgresBackend(Backend):
    kind = PostgresStatsProvider
    faces = ("plain", "tls")
    secrets = (USER, CANARY, PASSWORD)
    silent = ("backpressure", "psycopg")
    labels: ClassVar = {
        # libpq has one word for all that is no PostgreSQL.
        **dict.fromkeys(("http", "ssh", "garbage", "corrupt", "exaggerate", "speak_http"), "connect"),
    }
    tls_words: ClassVar = {"certificate": "certificate verify failed", "host name": "does not match host name"}
    not_promised: ClassVar = {"test_tls_that_fails[only the server]": "the port is the same, and the server's choice"}
    timeout_words = "no answer within 1 s"
    where = "conninfo"
    malformed = (
        f"postgresql://{USER}:{CANARY}@h:{CANARY}/db",
        f"postgresql://{USER}:{CANARY}/x@h/db",
        f"postgresql://{USER}:{CANARY}?x@h/db",
        f"postgresql://{USER}:x@{CANARY}@h/db",
        f"postgresql://{USER}:%zz{CANARY}@h/db",
        f"postgresql://{USER}:{CANARY}",
        f"postgresql://{USER}:x@h/db?{CANARY}=1",
        f"postgresql://{USER}:x@h/db?sslmode={CANARY}&{CANARY}",
        f"host=h user={USER} password=two {CANARY}",
        f"host=h user={USER} password='{CANARY}",
        f"host=h port={CANARY}",
        f"dbname=postgresql://{USER}:{CANARY}@h/db",
        f"dbname='host=h password={CANARY}'",
        f"mysql://{USER}:{CANARY}@h/db",
        f"{CANARY}\0",
        f"{CANARY}\ud800",
        CANARY.encode(),
    )
    wrong = (
        Wrong("conninfo", lambda: PostgresStatsProvider(None, ["q"], query=WAITING)),  # type: ignore[arg-type]
        Wrong("queues.q", lambda: PostgresStatsProvider("", {"q": ""}, query=WAITING)),
        Wrong("queues", lambda: PostgresStatsProvider("", query=WAITING), "name the queues"),
        *(
            Wrong("query", lambda query=query: PostgresStatsProvider("", ["q"], query=query), words)  # type: ignore[misc]
            for query, words in dict.fromkeys(
                ("procrastinates", "", None, 5, PostgresStatsProvider),
                "give one of 'procrastinate', 'pgqueuer', a SELECT",
            ).items()
        ),
    )
    refusals: ClassVar = {
        "password": refused("auth", "check the user name and password", lambda server: at(server, f"reader:{CANARY}@")),
        "user": refused("auth", "password authentication failed", lambda server: at(server, f"{USER}:{PASSWORD}@")),
        "no password": refused(
            "auth",
            "no password supplied",
            lambda server: f"host={servers.HOST} port={server.port} user=reader dbname={DATABASE} passfile=/dev/null",
        ),
        "host": refused("auth", "pg_hba.conf", lambda server: server.url("refused")),
        "login": refused("auth", "not permitted to log in", lambda server: server.url(DATABASE, "nologin_reader")),
        "limit": refused(
            "maxclients", "max_connections or the role's limit", lambda server: server.url(DATABASE, "single")
        ),
        "permission": refused("acl", "permission denied for database", lambda server: server.url("template1")),
        "database": refused("missing", 'database "missing" does not exist', lambda server: server.url("missing")),
        "socket": refused("connect", "No such file", lambda server: f"host={server.folder} port=1 dbname={DATABASE}"),
    }

    def __init__(self, server: Postgres) -> None:
        super().__init__(server.port, server)
        self.server = server
        self.speaks_tls = False

    def make(
        self, queues: Any, *, face: str = "plain", host: str = "", port: int = 0, given: Any = None, **options: Any
    ) -> Any:
        if face != "plain" and not port:
            self.speak_tls("on")
        trusted = {
            "tls": f"verify-full&sslrootcert={servers.CERTIFICATE}",
            "untrusting": "verify-full&sslrootcert=system",
        }
        url = f"postgresql://reader:{PASSWORD}@{host or servers.HOST}:{port or self.port}/{DATABASE}"
        url = f"{url}?sslmode={trusted.get(face, 'disable')}"
        return PostgresStatsProvider(url if given is None else given, queues, **{"query": SOUND, **options})

    def port_of(self, face: str) -> int:
        if face == "tls":
            self.speak_tls("on")
        return self.port

    def speak_tls(self, word: str) -> None:
        """Let the server offer TLS, or no longer."""
        if self.speaks_tls == (word == "on"):
            return
        self.speaks_tls = word == "on"
        self.server.run(f"ALTER SYSTEM SET ssl = {word}", "SELECT pg_reload_conf()")
        eventually(self._is_told)

    def _is_told(self) -> bool:
        with self.server.connect() as connection:
            return connection.execute("SHOW ssl").fetchone() == ("on" if self.speaks_tls else "off",)

    def fill(self, backlogs: Mapping[str, int]) -> None:
        with self.server.connect(DATABASE) as connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM jobs WHERE queue = ANY (%s)", [list(backlogs)])
            rows = [(name,) for name, backlog in backlogs.items() for _ in range(backlog)]
            cursor.executemany("INSERT INTO jobs (queue) VALUES (%s)", rows)

    def spoil(self, name: str) -> str:
        assert name == "bad", "as the query has it"
        return "invalid_sample"

    def secretive(self) -> Iterator[Any]:
        """Not even where the server quotes them."""
        words = f"password authentication failed for user {USER}, who said {CANARY}".encode()
        with says(b"28P01", words) as server:
            for conninfo in (
                f"postgresql://{USER}:{CANARY}@{{host}}:{{port}}/db",
                f"postgresql://{{host}}:{{port}}/db?user={USER}&password={CANARY}",
                f"postgresql://{USER}@{{host}}:{{port}}/db?sslpassword={CANARY}",
                f"host={{host}} port={{port}} user={USER} password='{CANARY}'",
            ):
                for port in (server.port, self.port, servers.dead_port()):
                    yield self.make(["q"], given=conninfo.format(host=servers.HOST, port=port))

    def inside(self, provider: Any) -> Iterable[object]:
        return [vars(provider), provider._target.hosts, provider._open()]


# What the table holds, but for a queue that cannot be counted.
SOUND = f"""SELECT queue, CASE queue WHEN 'bad' THEN -1 ELSE count(*) END AS backlog
            FROM jobs WHERE queue = ANY ({NAMES}) GROUP BY queue"""


@pytest.fixture(scope="session")
def guarded(shop: Postgres) -> Postgres:
    """The server with databases and roles that it does not let in, and what it needs for TLS."""
    shop.run("CREATE DATABASE refused", "REVOKE CONNECT ON DATABASE template1 FROM PUBLIC")
    shop.role("nologin_reader", options="NOLOGIN")
    shop.role("single", options="LOGIN CONNECTION LIMIT 0")
    for name in ("server.crt", "server.key"):
        file = shop.folder / "data" / name
        shutil.copy(servers.CERTIFICATE, file)
        file.chmod(0o600)
        if shop.account is not None:
            os.chown(file, *shop.account)
    return shop


@pytest.fixture
def backend(guarded: Postgres) -> Iterator[PostgresBackend]:
    backend = PostgresBackend(guarded)
    yield backend
    backend.speak_tls("off")


class TestContract(Contract, of=PostgresBackend):
    pass


def test_one_query_reads_all_queues(shop: Postgres, jobs: psycopg.Connection) -> None:
    enqueue(jobs, "a", 3)
    enqueue(jobs, "b", 5)
    enqueue(jobs, "someone else's", 7)
    with opened(shop.url(DATABASE), ["a", "b", "empty"]) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"a": 3, "b": 5, "empty": 0}
        asked_for = ["b", "someone else's", "misspelled"]
        assert checks.backlogs(provider.get_many(asked_for)) == dict(
            zip(asked_for, [5, "missing", "missing"], strict=True)
        )
        with pytest.raises(InvalidQueueError):
            provider.get_queue_stats("a\n")
        (asked,) = jobs.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'backpressure'")
    assert asked == (1,)


def test_what_a_query_does_not_tell_is_not_known(read: Callable[..., Any]) -> None:
    assert counts(sample(read("SELECT 'q' AS queue, 1 AS backlog"))) == (1, None, None, None)
    assert counts(sample(read("SELECT 'x' AS queue, 1 AS backlog"))) == (0, None, None, None)


def test_what_a_query_tells(read: Callable[..., Any]) -> None:
    columns = "0.25 AS oldest_age, 'q' AS queue, 4::numeric AS delayed, 3::smallint AS processing, 2 AS backlog"
    told = read(f"SELECT {columns}", ["q", "without a row"])
    assert counts(sample(told)) == (2, 3, 4, 0.25)
    assert counts(sample(told, "without a row")) == (0, 0, 0, None)
    nulls = "NULL::int AS processing, NULL::int AS delayed, NULL::float AS oldest_age"
    assert counts(sample(read(f"SELECT 'q' AS queue, 2 AS backlog, {nulls}"))) == (2, None, None, None)


def test_what_came_and_went_is_told_where_the_query_does(read: Callable[..., Any]) -> None:
    told = read(
        "SELECT 'q' AS queue, 2 AS backlog, 12::bigint AS entered, NULL::bigint AS left", ["q", "without a row"]
    )
    assert (sample(told).entered, sample(told).left) == (12, None)
    without = sample(told, "without a row")  # a table of jobs has none to count
    assert (without.backlog_count, without.entered, without.left) == (0, None, None)


def test_an_age_before_its_time_is_none(read: Callable[..., Any]) -> None:
    assert sample(read("SELECT 'q' AS queue, 1 AS backlog, -3.5 AS oldest_age")).oldest_age == 0


def test_a_queue_may_have_another_name_in_the_database(shop: Postgres, jobs: psycopg.Connection) -> None:
    enqueue(jobs, "mail_v2", 2)
    with opened(shop.url(DATABASE), {"mail": "mail_v2", "post": "mail_v2", "sms": "sms"}) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"mail": 2, "post": 2, "sms": 0}
        assert provider.get_queue_stats("mail").queue_name == "mail"


def test_queues_that_the_query_finds(shop: Postgres, jobs: psycopg.Connection) -> None:
    for queue, count in (("a", 1), ("b", 2)):
        enqueue(jobs, queue, count)
    jobs.execute("INSERT INTO jobs (queue) VALUES (NULL)")
    every = "SELECT queue, count(*) AS backlog FROM jobs GROUP BY queue"
    with opened(shop.url(DATABASE), None, query=every) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"a": 1, "b": 2}
        assert backlogs(provider.get_many(["b", "c"])) == {"b": 2, "c": 0}
    some = PostgresQuery(
        f"SELECT queue, count(*) AS backlog FROM jobs WHERE {NAMES} IS NULL OR queue = ANY ({NAMES}) GROUP BY queue",
        discovers=True,
    )
    with opened(shop.url(DATABASE), None, query=some) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"a": 1, "b": 2}
        assert backlogs(provider.get_many(["b", "c"])) == {"b": 2, "c": 0}


def test_prefix() -> None:
    query = PostgresQuery("SELECT '{}' AS queue, n AS backlog FROM {prefix}jobs").evolve(prefix='"my shop".v2_')
    assert query.command == "SELECT '{}' AS queue, n AS backlog FROM \"my shop\".v2_jobs"
    for prefix in ("a.b.", "jobs; DROP TABLE", 'a".', "a b", 5):
        with pytest.raises(ConfigurationError) as caught:
            PROCRASTINATE.evolve(prefix=prefix)
        assert caught.value.field == "prefix"
    with pytest.raises(ConfigurationError, match=r"no \{prefix\}"):
        PostgresQuery("SELECT 1 AS backlog", prefix="shop.")


@pytest.mark.parametrize("sql", ["", " \n", "SELECT '\0'", None])
def test_impossible_sql(sql: Any) -> None:
    with pytest.raises(ConfigurationError, match="give a SELECT"):
        PostgresQuery(sql)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("1 AS backlog", "no column 'queue'"),
        ("'q' AS queue, 1 AS waiting", "no column 'backlog'"),
        ("'q' AS queue, 1 AS backlog, 1 AS proccessing", "'proccessing' that is unknown or there twice"),
        ("'q' AS queue, 1 AS backlog, 2 AS backlog", "'backlog' that is unknown or there twice"),
    ],
)
def test_columns_that_do_not_fit(read: Callable[..., Any], columns: str, words: str) -> None:
    error = failure(lambda: read(f"SELECT {columns}"))
    assert (error.error_type, words in str(error)) == ("provider", True), error


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("-1 AS backlog", "'-1' as backlog"),
        ("NULL::int AS backlog", "NULL as backlog"),
        ("1.5 AS backlog", "'1.5' as backlog"),
        ("'many' AS backlog", "'many' as backlog"),
        ("'1_0' AS backlog", "'1_0' as backlog"),
        ("true AS backlog", "'t' as backlog"),
        (f"{MAX_BACKLOG + 1} AS backlog", "as backlog: give a count from 0 to 2**53 - 1"),
        ("1 AS backlog, -1 AS processing", "'-1' as processing"),
        ("1 AS backlog, 'x' AS delayed", "'x' as delayed"),
        ("1 AS backlog, interval '5 s' AS oldest_age", "'00:00:05' as oldest_age: give seconds"),
        ("1 AS backlog, 'NaN'::float AS oldest_age", "'NaN' as oldest_age"),
        ("generate_series(1, 2) AS backlog", "2 rows: add GROUP BY queue"),
    ],
)
def test_values_that_do_not_fit(read: Callable[..., Any], columns: str, words: str) -> None:
    error = read(f"SELECT 'q' AS queue, {columns}")["q"]
    assert isinstance(error, StatsUnavailableError)
    assert (error.error_type, error.queue_name, words in str(error)) == ("invalid_sample", "q", True), error


class Result:
    """What libpq could have received."""

    def __init__(self, names: list[bytes | None], rows: list[list[bytes | None]]) -> None:
        self.names, self.rows = names, rows
        self.nfields, self.ntuples = len(names), len(rows)

    def fname(self, column: int) -> bytes | None:
        return self.names[column]

    def get_value(self, row: int, column: int) -> bytes | None:
        return self.rows[row][column]


VALUES = st.none() | st.binary(max_size=20) | st.integers().map(lambda n: b"%d" % n) | st.sampled_from([b"q", b"inf"])
COLUMN_NAMES = st.sampled_from(
    [b"queue", b"backlog", b"processing", b"delayed", b"oldest_age", b"entered", b"left"]
) | st.binary(max_size=9)


@given(st.data())
@settings(max_examples=300)
def test_no_answer_gives_anything_but_a_sound_sample_or_the_error(data: st.DataObject) -> None:
    more = data.draw(st.lists(COLUMN_NAMES, max_size=3))
    names: list[bytes | None] = [b"queue", b"backlog", *more]
    rows = data.draw(st.lists(st.lists(VALUES, min_size=len(names), max_size=len(names)), max_size=4))
    result: Any = Result(names, rows)
    queues = data.draw(st.none() | st.just({"q": "q", "other": "\N{REPLACEMENT CHARACTER}"}))
    try:
        outcomes = Rows(result).outcomes(queues)
    except StatsUnavailableError:
        return
    assert queues is None or list(outcomes) == list(queues)
    for name, outcome in outcomes.items():
        if isinstance(outcome, QueueStats):
            assert outcome.fault() is None
            assert outcome.oldest_age is None or 0 <= outcome.oldest_age < float("inf")
        else:
            assert (outcome.queue_name, outcome.error_type) == (name, "invalid_sample")


@pytest.mark.parametrize(
    ("query", "label", "words"),
    [
        ("SELECT queue, 1 AS backlog FROM missing", "missing", 'UndefinedTable: relation "missing" does not exist'),
        ("SELECT queue, 1 AS backlog FROM jobs WHERE quue = ''", "provider", "Perhaps you meant"),
        ("SELEKT queue FROM jobs", "provider", "SyntaxError"),
        ("SELECT 1; SELECT 2", "provider", "cannot insert multiple commands"),
        ("COPY jobs TO STDOUT", "provider", "COPY_OUT"),
        ("SELECT word AS queue, 1 AS backlog FROM secrets", "acl", "permission denied for table secrets"),
        ("SELECT queue, 1 AS backlog FROM hidden.jobs", "acl", "grant the role USAGE on the schema and SELECT"),
        (SLOW, "timeout", "statement timeout; see in pg_stat_activity"),
    ],
)
def test_refused_queries(read: Callable[..., Any], query: str, label: str, words: str) -> None:
    error = failure(lambda: read(query, timeout=1 if label == "timeout" else 10))
    assert (error.error_type, words in str(error)) == (label, True), error


def test_a_query_cannot_write(shop: Postgres, jobs: psycopg.Connection) -> None:
    """Not even as a role that may, or within a function."""
    superuser = shop.superuser(DATABASE)
    jobs.execute("""CREATE OR REPLACE FUNCTION sneak() RETURNS text LANGUAGE plpgsql
                    AS $$ BEGIN INSERT INTO jobs VALUES ('sneaked'); RETURN 'q'; END $$""")
    for query in (
        "INSERT INTO jobs VALUES ('written') RETURNING queue, 1 AS backlog",
        "SELECT sneak() AS queue, 1 AS backlog",
    ):
        with opened(superuser, query=query) as provider:
            error = failure(provider.get_all_queue_stats)
        assert (error.error_type, "read-only transaction" in str(error)) == ("provider", True)
    assert jobs.execute("SELECT * FROM jobs").fetchall() == []


def test_settings_last_no_longer_than_the_transaction(read: Callable[..., Any], shop: Postgres) -> None:
    setting = "SELECT 'q' AS queue, extract(epoch FROM current_setting('statement_timeout')::interval)::int AS backlog"
    assert sample(read(setting, timeout=7)).backlog_count == 7
    with opened(shop.url(DATABASE)) as provider:
        provider.get_all_queue_stats()
        (link,) = provider._links().idle
        for name, value in (("statement_timeout", b"0"), ("transaction_read_only", b"off")):
            assert link.run(f"SHOW {name}").get_value(0, 0) == value


def test_what_a_query_raises_as_notice_is_not_printed(
    read: Callable[..., Any], jobs: psycopg.Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs.execute("""CREATE OR REPLACE FUNCTION tell() RETURNS text LANGUAGE plpgsql
                    AS $$ BEGIN RAISE WARNING 'look'; RETURN 'q'; END $$""")
    assert sample(read("SELECT tell() AS queue, 1 AS backlog")).backlog_count == 1
    assert capfd.readouterr() == ("", "")


def test_all_connections_taken(fragile_postgres: Postgres) -> None:
    with contextlib.ExitStack() as taken:
        for _ in range(4):
            taken.enter_context(fragile_postgres.connect())
        with opened(fragile_postgres.url()) as provider:
            error = failure(provider.get_all_queue_stats)
            assert error.error_type == "maxclients", error


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def says(code: bytes, text: bytes) -> servers.Listener:
    """Return a server that answers a startup with an error."""

    def handle(connection: socket.socket) -> None:
        for _ in range(2):  # perhaps a request for TLS or GSSAPI, then the startup
            start = connection.recv(65536)
            if not start:
                return
            if struct.unpack("!i", start[4:8])[0] >> 16 == 1234:
                connection.sendall(b"N")
            else:
                connection.sendall(message(b"E", b"SFATAL\0VFATAL\0C" + code + b"\0M" + text + b"\0\0"))
                return

    return servers.Listener(handle)


@pytest.mark.parametrize(
    ("code", "text", "label"),
    [
        (b"57P03", b"the database system is starting up", "loading"),
        (b"57P03", b"the database system is not yet accepting connections", "loading"),
        (b"53300", b"sorry, too many clients already", "maxclients"),
        (b"08P01", b"no more connections allowed (max_client_conn)", "maxclients"),
        (b"28P01", b"Passwort-Authentifizierung fehlgeschlagen", "connect"),  # libpq keeps no code of it
        (b"XX000", b"\xff\xfe what", "connect"),
    ],
)
def test_words_of_a_server_that_does_not_let_us_in(code: bytes, text: bytes, label: str) -> None:
    with says(code, text) as server, opened(f"postgresql://a:b@{servers.HOST}:{server.port}/c") as provider:
        error = failure(provider.get_all_queue_stats)
        assert error.error_type == label, error


def test_several_hosts_are_tried_in_turn(shop: Postgres, jobs: psycopg.Connection) -> None:
    enqueue(jobs, "q", 2)
    with servers.Listener(STRANGERS["silent"][0]) as hung:
        hosts = (
            f"nobody.invalid:1,{servers.HOST}:{servers.dead_port()},{servers.HOST}:{hung.port},localhost:{shop.port}"
        )
        with opened(f"postgresql://reader:{PASSWORD}@{hosts}/{DATABASE}", timeout=1) as provider:
            assert backlogs(provider.get_all_queue_stats()) == {"q": 2}
            assert repr(provider) == f"PostgresStatsProvider('postgres at {hosts}/{DATABASE}', 1 queues)"


def test_all_addresses_of_a_host_are_tried(
    shop: Postgres, jobs: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(jobs, "q", 2)
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, shop.port)) for address in ("127.0.0.2", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: {"twofold": found}[host])
    with opened(f"postgresql://reader:{PASSWORD}@twofold:{shop.port}/{DATABASE}") as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"q": 2}


def test_what_the_environment_says(
    shop: Postgres, jobs: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    enqueue(jobs, "q", 2)
    for name, value in {
        "PGHOST": servers.HOST,
        "PGPORT": str(shop.port),
        "PGUSER": "reader",
        "PGPASSWORD": PASSWORD,
        "PGDATABASE": DATABASE,
    }.items():
        monkeypatch.setenv(name, value)
    with opened("") as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"q": 2}
        assert repr(provider) == f"PostgresStatsProvider('postgres at {servers.HOST}:{shop.port}', 1 queues)"
    services = tmp_path / "services"
    services.write_text(f"[here]\nhost={servers.HOST}\nport={shop.port}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("PGPORT", "1")
    with opened("service=here") as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"q": 2}
        assert repr(provider) == "PostgresStatsProvider('postgres service here', 1 queues)"


def test_a_kept_link_that_died_is_replaced(shop: Postgres, jobs: psycopg.Connection) -> None:
    enqueue(jobs, "q", 2)
    with opened(shop.url(DATABASE)) as provider:
        provider.get_all_queue_stats()
        ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'backpressure'"
        assert jobs.execute(ended).fetchall() == [(True,)]
        assert backlogs(provider.get_all_queue_stats()) == {"q": 2}


def test_an_answer_is_not_asked_for_again(
    shop: Postgres, jobs: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time limit least of all: the query would run for twice as long."""
    with opened(shop.url(DATABASE), timeout=1) as provider:
        provider.get_all_queue_stats()
        with shop.connect(DATABASE, autocommit=False) as locker, monkeypatch.context() as patch:
            patch.setattr(provider, "_open", lambda: pytest.fail("asked again"))
            locker.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            assert failure(provider.get_all_queue_stats).error_type == "timeout"
        assert backlogs(provider.get_all_queue_stats()) == {"q": 0}


def interrupted(provider: PostgresStatsProvider, under_way: Callable[[], object]) -> None:
    """Interrupt a read once it is under way; it ends within a part of its timeout."""
    errors: list[StatsUnavailableError] = []
    reading = threading.Thread(target=lambda: errors.append(failure(provider.get_all_queue_stats)))
    reading.start()
    eventually(under_way)
    began = time.monotonic()
    provider.interrupt()
    reading.join()
    assert time.monotonic() - began < 5
    assert [error.error_type for error in errors] == ["deadline"]


def test_interrupt_ends_a_read_that_waits_for_a_lock(shop: Postgres, jobs: psycopg.Connection) -> None:
    waits = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'backpressure' AND wait_event_type = 'Lock'"
    with opened(shop.url(DATABASE), timeout=30) as provider:
        with shop.connect(DATABASE, autocommit=False) as locker:
            locker.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            interrupted(provider, lambda: jobs.execute(waits).fetchone())
        assert backlogs(provider.get_all_queue_stats()) == {"q": 0}


def test_a_question_too_long_for_a_frozen_server_can_be_cut(fragile_postgres: Postgres) -> None:
    with opened(fragile_postgres.url(), timeout=30) as provider:
        link = provider._open()
        link.connect()
        fragile_postgres.freeze()
        try:
            errors: list[Exception] = []

            def ask() -> None:
                try:
                    link.run("SELECT $1", ["x" * 50_000_000])
                except TimeoutError as error:
                    errors.append(error)

            asking = threading.Thread(target=ask, daemon=True)
            asking.start()
            link.cut()
            asking.join(10)
            assert [str(error) for error in errors] == ["interrupted"]
        finally:
            fragile_postgres.resume()
            link.close()


def test_a_forked_child_leaves_its_parents_connection_alone(shop: Postgres) -> None:
    code = """
import gc, os, sys
from backpressure.providers.postgres.provider import PostgresStatsProvider

backend = "SELECT 'q' AS queue, pg_backend_pid() AS backlog"
provider = PostgresStatsProvider(sys.argv[1], ["q"], query=backend)
mine = provider.get_queue_stats("q").backlog_count
for goes_on in (True, False):
    child = os.fork()
    if child == 0:
        if goes_on:
            assert provider.get_queue_stats("q").backlog_count != mine
        provider.close()
        del provider
        gc.collect()
        sys.exit(0)  # by the long way, which frees all that is left
    assert os.waitpid(child, 0)[1] == 0
assert provider.get_queue_stats("q").backlog_count == mine
provider.close()
print("all ended")
"""
    command = [sys.executable, "-W", "error", "-c", code, shop.url(DATABASE)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "all ended\n", "")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((servers.HOST, port)) == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that other users may enter, where they may read what is in it."""
    with tempfile.TemporaryDirectory(prefix="bp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_pgbouncer_may_pool_transactions(shop: Postgres, jobs: psycopg.Connection, folder: Path) -> None:
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        no_server("no pgbouncer: apt-get install pgbouncer")
    assert program is not None
    enqueue(jobs, "q", 2)
    port = servers.free_port()
    # One server connection for all clients, and no startup parameter forgiven.
    (folder / "users").write_text(f'"reader" "{PASSWORD}"\n')
    (folder / "ini").write_text(f"""
[databases]
{DATABASE} = host={servers.HOST} port={shop.port} pool_size=1
[pgbouncer]
listen_addr = {servers.HOST}
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {folder}/users
pool_mode = transaction
""")
    command = servers.dying_with_parent(program, "-q", f"{folder}/ini", account=shop.account)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        servers.wait_until(lambda: listens(port), what="pgbouncer")
        url = f"postgresql://reader:{PASSWORD}@{servers.HOST}:{port}/{DATABASE}"
        with opened(url) as one, opened(url, query=SLOW, timeout=1) as slow:
            for _ in range(3):
                assert backlogs(one.get_all_queue_stats()) == {"q": 2}
                assert failure(slow.get_all_queue_stats).error_type == "timeout"
        with psycopg.connect(url, autocommit=True) as other:
            assert other.execute("SHOW statement_timeout").fetchone() == ("0",)
    finally:
        process.kill()
        process.wait()


def test_the_password_of_the_environment_is_not_shown_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    server = says(b"28P01", f"who said {PASSWORD}".encode())
    with server, opened(f"host={servers.HOST} port={server.port}") as provider:
        assert "who said ***" in str(failure(provider.get_all_queue_stats))


def test_control_characters_of_a_server_are_not_passed_on(read: Callable[..., Any]) -> None:
    error = failure(lambda: read("SELECT 'q' AS queue, E'\\x1b[2J'::int AS backlog"))
    assert "\x1b" not in str(error)
    error = read("SELECT 'q' AS queue, E'\\x1b[2J' AS backlog")["q"]
    assert "\x1b" not in str(error)
