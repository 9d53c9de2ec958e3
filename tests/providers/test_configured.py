"""Providers made of a configuration: each queue is read where its section says, and no server spoils another."""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import BackpressureConfig, ConfigurationError, QueueStats, StatsUnavailableError
from backpressure.providers import from_config
from backpressure.providers.several import SeveralProviders
from support import servers

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis

    from support.controller_fixtures import MakeController


def config_of(**queues: dict[str, Any]) -> BackpressureConfig:
    return BackpressureConfig.from_mapping({"queues": queues})


class Fake:
    """A server that answers, fails or hangs until it is interrupted."""

    shares_server = True

    def __init__(self, name: str) -> None:
        self._where = name
        self.failure: Exception | None = None
        self.hangs = False
        self.deaf = False
        self.calls = 0
        self.free = threading.Event()

    def get_many(self, queue_names: Iterable[str]) -> dict[str, Any]:
        self.calls += 1
        if self.hangs:
            self.free.wait()
            raise StatsUnavailableError("interrupted", error_type="deadline")
        if self.failure is not None:
            raise self.failure
        return {name: QueueStats(name, 7) for name in queue_names}

    def interrupt(self) -> None:
        if not self.deaf:
            self.free.set()

    def close(self) -> None:
        self.free.set()

    def __repr__(self) -> str:
        return self._where


class Places:
    """Two servers: queues whose names begin with their letter lie there."""

    def __init__(self) -> None:
        self.by_letter = {letter: Fake(letter) for letter in "ab"}
        self.names = ["a1", "a2", "b1"]

    def member_of(self, queue_name: str) -> Fake:
        return self.by_letter[queue_name[0]]

    def members(self) -> list[Fake]:
        return list(self.by_letter.values())

    def told_of(self, queue_name: str) -> str:
        return queue_name

    def layout_of(self, queue_name: str) -> None:
        return None


@pytest.fixture
def places() -> Iterable[Places]:
    made = Places()
    yield made
    for fake in made.members():
        fake.close()


def types(outcomes: Any) -> dict[str, str]:
    return {name: getattr(outcome, "error_type", "ok") for name, outcome in outcomes.items()}


def test_a_server_that_is_away_spoils_no_other(places: Places) -> None:
    provider = SeveralProviders(places, timeout=10)
    assert types(provider.get_all_queue_stats()) == {"a1": "ok", "a2": "ok", "b1": "ok"}
    places.by_letter["b"].failure = StatsUnavailableError("away", error_type="connect")
    assert types(provider.get_all_queue_stats()) == {"a1": "ok", "a2": "ok", "b1": "connect"}
    places.by_letter["b"].failure = ZeroDivisionError()
    assert types(provider.get_all_queue_stats()) == {"a1": "ok", "a2": "ok", "b1": "provider"}
    places.by_letter["a"].failure = StatsUnavailableError("away too", error_type="connect")
    with pytest.raises(StatsUnavailableError, match="no server could be read: away too; b raised ZeroDivisionError"):
        provider.get_all_queue_stats()
    with pytest.raises(StatsUnavailableError, match="away too") as caught:
        provider.get_queue_stats("a1")
    assert caught.value.error_type == "connect"


@pytest.mark.parametrize("deaf", [False, True])
def test_a_server_that_hangs_holds_up_no_other(places: Places, deaf: bool) -> None:
    provider = SeveralProviders(places, timeout=0.01)
    slow = places.by_letter["b"]
    slow.hangs, slow.deaf = True, deaf
    # A machine that stalls may make the other one late too; then once more.
    for _ in range(20):
        outcomes = provider.get_all_queue_stats()
        assert types(outcomes)["b1"] == "deadline"
        if types(outcomes)["a1"] == "ok":
            break
    else:
        pytest.fail("a was never read")


def test_no_more_reads_hang_than_a_few(places: Places) -> None:
    provider = SeveralProviders(places, timeout=0.01)
    slow = places.by_letter["b"]
    slow.hangs = slow.deaf = True
    for _ in range(6):
        with contextlib.suppress(StatsUnavailableError):
            assert types(provider.get_all_queue_stats())["b1"] == "deadline"
    servers.wait_until(lambda: slow.calls == 2, what="both reads have begun")
    slow.hangs = False
    slow.free.set()
    servers.wait_until(lambda: types(provider.get_all_queue_stats())["b1"] == "ok", what="b is read again")


def test_an_interrupt_ends_reads_of_all_servers(places: Places) -> None:
    provider = SeveralProviders(places, timeout=60)
    for fake in places.members():
        fake.hangs = True
    ended: list[Any] = []

    def read() -> None:
        try:
            provider.get_all_queue_stats()
        except StatsUnavailableError as error:
            ended.append(error.error_type)

    thread = threading.Thread(target=read)
    thread.start()
    servers.wait_until(lambda: all(fake.calls for fake in places.members()), what="both are read")
    provider.interrupt()
    thread.join(10)
    assert ended == ["deadline"]
    provider.close()
    with pytest.raises(StatsUnavailableError, match="closed"):
        provider.get_queue_stats("a1")
    with pytest.raises(TypeError, match="does not pickle"):
        pickle.dumps(provider)


def test_queues_of_a_pattern_are_read_once_they_are_asked_for(
    redis_client: redis.Redis, redis_url: str, make_controller: MakeController
) -> None:
    config = config_of(**{"mail-*": {"url": redis_url, "key": "jobs:{queue}"}, "orders": {"url": redis_url}})
    redis_client.rpush("jobs:mail-eu", *range(2_000))
    redis_client.rpush("orders", *range(3))
    with contextlib.closing(from_config(config)) as provider:
        assert set(provider.get_all_queue_stats()) == {"orders"}
        controller = make_controller(provider, config, clock=None)
        assert controller.suggest_throttle("medium", "mail-eu").backlog_size == 2_000
        assert len(provider.servers()) == 1
        with pytest.raises(StatsUnavailableError, match="has no section in the configuration") as caught:
            provider.get_queue_stats("unheard-of")
        assert (caught.value.error_type, caught.value.queue_name) == ("missing", "unheard-of")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking a process that has threads
def test_a_forked_child_reads_too(redis_client: redis.Redis, redis_url: str) -> None:
    redis_client.rpush("jobs", 1, 2)
    with contextlib.closing(from_config(config_of(jobs={"url": redis_url}))) as provider:
        assert provider.get_queue_stats("jobs").backlog_count == 2
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = 0 if provider.get_queue_stats("jobs").backlog_count == 2 else 2
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("queue", "said"),
    [
        ({"url": "amqp://shop:hunter2@localhost"}, "without a password"),
        ({"url": "postgresql://localhost/shop?password=hunter2"}, "without a password"),
        ({"url": "kafka://h:1", "options": {"sasl_plain_password": "hunter2"}}, "for a secret"),
        ({"url": "http://h", "options": {"headers": {"Authorization": "hunter2"}}}, "for a secret"),
    ],
)
def test_no_secret_stands_in_a_file(queue: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        config_of(mail=queue)


def test_a_url_of_the_environment_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_URL", "amqp://shop:hunter2@localhost:1/shop")
    config = config_of(mail={"url": "${MAIL_URL}"})
    provider = from_config(config)
    assert "hunter2" not in f"{config} {config.to_dict()} {provider!r} {provider.servers()}"
    with pytest.raises(StatsUnavailableError) as caught:
        provider.get_queue_stats("mail")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("queues", "said"),
    [
        ({"m-*": {"url": "redis://h", "key": "jobs"}}, "put {queue} into it"),
        ({"m": {}}, 'queues."m" has no url'),
        ({"m": {"url": "kafka://h:1"}}, "give the name of a consumer group"),
        ({"m": {"url": "sqs:", "options": {"zones": 1}}}, "zones"),
        ({"m": {"url": "http://h"}}, "options.query is missing"),
        ({"m": {"url": "postgresql://h"}}, "give procrastinate or pgqueuer, or a SELECT as options.query"),
    ],
)
def test_what_a_section_cannot_say(queues: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_config(config_of(**queues))
    assert said in str(caught.value)
    assert caught.value.field.startswith("queues.")
