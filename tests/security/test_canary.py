"""A password goes in by every possible way and never comes out: the providers' promise, as their users see it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio
from prometheus_client import CollectorRegistry, generate_latest
from redis.backoff import NoBackoff
from redis.retry import Retry

from backpressure import (
    AsyncBackpressureController,
    AsyncRedisStatsProvider,
    BackpressureConfig,
    ConfigurationError,
    PollingConfig,
    RedisStatsProvider,
)

# A fixture of the command line's tests.
from cli.conftest import run  # noqa: F401
from support import redis_fixtures, servers

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from cli.conftest import Run
    from support.controller_fixtures import MakeController

NAME, CANARY = "canary-user", "canary-9f3b-word"
WHO = f"{NAME}:{CANARY}@{servers.HOST}"
CONFIG = BackpressureConfig(polling=PollingConfig(timeout=0.5))
# Nobody listens at {dead}, {server} has another password, and {quoting} repeats its requests.
URLS = {
    "nobody": f"redis://{WHO}:{{dead}}/0",
    "refused": f"redis://{WHO}:{{server}}/0",
    "quoted": f"redis://{WHO}:{{quoting}}/0",
    "quoted in RESP2": f"redis://{WHO}:{{quoting}}/0?protocol=2",
    "in the query": f"redis://{servers.HOST}:{{quoting}}/0?username={NAME}&password={CANARY}",
    "TLS": f"rediss://{WHO}:{{quoting}}/0",
    "Sentinel": f"redis+sentinel://{WHO}:{{quoting}}/main?sentinel_username={NAME}&sentinel_password={CANARY}",
    "cluster": f"redis+cluster://{WHO}:{{quoting}}",
    "malformed": f"redis://{WHO}:{CANARY}/0",
    "unknown option": f"redis://{WHO}:{{dead}}/0?{CANARY}=1",
}


def quote(connection: socket.socket) -> None:
    """Answer each request as servers without HELLO do: with its own words, the password among them."""
    while data := connection.recv(65536):
        words = b" ".join(word for word in data.split(b"\r\n") if word and word[:1] not in b"*$")
        connection.sendall(b"-ERR what is this: %s\r\n" % words * 4)


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    with redis_fixtures.start(requirepass="another") as server, servers.Listener(quote) as quoting:
        yield {"dead": servers.dead_port(), "server": server.port, "quoting": quoting.port}


@pytest.fixture
def shown(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Texts that a test has seen; these and all log records are searched when it ends."""
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    yield texts
    assert texts, "nothing was looked at"
    texts += [str(vars(record)) for record in caplog.get_records("call") if record.name != "asyncio"]
    assert [text for text in texts if CANARY in text or NAME in text] == []


def look(controller: Any, registry: CollectorRegistry) -> list[str]:
    """Return everything that a controller shows about itself."""
    return [repr(controller), str(controller.health()), generate_latest(registry).decode()]


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_a_controller(
    make_controller: MakeController,
    ports: dict[str, int],
    url: str,
    shown: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    try:
        provider = RedisStatsProvider(url.format(**ports), ["mail"], timeout=0.5)
    except ConfigurationError as error:
        shown += [*traceback.format_exception(error, limit=0), repr(vars(error)), repr(pickle.dumps(error))]
        return
    with contextlib.closing(provider):
        _watch(make_controller, provider, shown)
    shown += capfd.readouterr()


@pytest.mark.parametrize("port", ["dead", "server", "quoting"])
def test_a_controller_with_a_client_of_ones_own(
    make_controller: MakeController, ports: dict[str, int], port: str, shown: list[str]
) -> None:
    options: dict[str, Any] = {"username": NAME, "password": CANARY, "retry": Retry(NoBackoff(), 0)}
    with (
        redis.Redis(host=servers.HOST, port=ports[port], **options) as client,
        contextlib.closing(RedisStatsProvider(client, ["mail"], timeout=0.5)) as provider,
    ):
        _watch(make_controller, provider, shown)


def _watch(make_controller: MakeController, provider: RedisStatsProvider, shown: list[str]) -> None:
    registry = CollectorRegistry()
    controller = make_controller(provider, CONFIG, registry=registry)
    controller.add_listener(lambda change: shown.append(repr(change)))
    assert not controller._poller.poll() or controller.health()["polling_errors"], "the read did not fail"
    decision = controller.suggest_throttle("low", "mail")
    shown += [repr(decision), repr(pickle.dumps(decision)), *look(controller, registry)]
    with pytest.raises(TypeError) as caught:
        pickle.dumps(controller)
    shown += traceback.format_exception(caught.value, limit=0)


@pytest.mark.parametrize("way", [way for way in URLS if way not in {"malformed", "unknown option"}])
def test_an_async_controller(
    engine_name: str, engine_module: object, ports: dict[str, int], way: str, shown: list[str]
) -> None:
    async def main() -> None:
        registry = CollectorRegistry()
        provider = AsyncRedisStatsProvider(URLS[way].format(**ports), ["mail"], timeout=0.5)
        try:
            async with AsyncBackpressureController(
                CONFIG, provider, registry=registry, _engine=engine_name
            ) as controller:
                shown.append(repr(await controller.suggest_throttle("low", "mail")))
                shown.extend(look(controller, registry))
        finally:
            await provider.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
@pytest.mark.parametrize(
    "command",
    [
        ("top", "--queue", "mail", "--once"),
        ("top", "--queue", "mail", "--once", "--json"),
        ("explain", "--queue", "mail"),
    ],
)
def test_the_command_line(
    run: Run,  # noqa: F811
    ports: dict[str, int],
    command: tuple[str, ...],
    url: str,
    shown: list[str],
) -> None:
    given = url.format(**ports)
    for result in (run(*command, "--redis-url", given), run(*command, REDIS_URL=given)):
        assert result.exit_code in {1, 2}, result.output
        shown.append(result.output)


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["people", "json"])
def test_a_url_where_no_setting_is(run: Run, form: tuple[str, ...], shown: list[str]) -> None:  # noqa: F811
    for variable in ("BACKPRESSURE_REDIS_URL", "BACKPRESSURE_POLLING__REDIS_URL"):
        result = run("check", "--env", *form, **{variable: f"redis://{WHO}"})
        assert result.exit_code == 1
        shown.append(result.output)


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["people", "json"])
@pytest.mark.parametrize("field", ["mode", "polling.interval", "max_queues", "thresholds.low_priority.red_max"])
def test_a_url_where_another_setting_is(run: Run, form: tuple[str, ...], field: str, shown: list[str]) -> None:  # noqa: F811
    result = run("check", "--set", f"{field}=redis://{WHO}", *form)
    assert result.exit_code in {1, 2}
    shown.append(result.output)
