"""The first failures of a broker that cannot be reached are answered with 503; faults of the program are not."""

from __future__ import annotations

import errno
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.exceptions

from backpressure import BackpressureConfig, BatchError, BatchJob, CircuitOpenError
from backpressure.integrations._shared import lost
from backpressure.integrations._shared.hook import Hook
from backpressure.integrations.web import refusal
from support import servers

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure import BackpressureController
    from support.controller_fixtures import MakeController

REACHES_NOBODY: list[BaseException] = [
    ConnectionRefusedError(),
    ConnectionResetError(),
    BrokenPipeError(),
    TimeoutError(),
    socket.gaierror(),
    OSError(errno.EHOSTUNREACH, "no route"),
    redis.exceptions.ConnectionError("gone"),
    redis.exceptions.TimeoutError("slow"),
    redis.exceptions.BusyLoadingError("loading"),
    redis.exceptions.ReadOnlyError("another master"),
]
FAULTS: list[BaseException] = [
    KeyError("mail"),
    ValueError(),
    FileNotFoundError(errno.ENOENT, "no such file"),
    PermissionError(errno.EACCES, "no"),
    redis.exceptions.ResponseError("WRONGTYPE"),
    redis.exceptions.AuthenticationError("no"),
    ZeroDivisionError(),
]
# What clients raise for a broker that is away: only those that are installed are tried.
CLIENTS = [
    "aiokafka.errors:KafkaConnectionError",
    "amqp.exceptions:RecoverableConnectionError",
    "asyncpg.exceptions:ConnectionDoesNotExistError",
    "asyncpg.exceptions:CannotConnectNowError",
    "dramatiq.errors:ConnectionClosed",
    "dramatiq.errors:ConnectionFailed",
    "kafka.errors:KafkaConnectionError",
    "kafka.errors:KafkaTimeoutError",
    "kombu.exceptions:OperationalError",
    "pika.exceptions:AMQPConnectionError",
    "pika.exceptions:StreamLostError",
    "psycopg:OperationalError",
    "psycopg.errors:AdminShutdown",
    "valkey.exceptions:ConnectionError",
]


@pytest.fixture(autouse=True)
def _untold() -> None:
    lost._notices.clear()


def fail(error: BaseException) -> None:
    raise error


def again(error: BaseException) -> BaseException:
    """Return another error of the kind: what is noted on one stays there."""
    return type(error)(*error.args)


def raised(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - the tests look at it
        return error
    raise AssertionError("it did not raise")


def by_run(controller: BackpressureController, error: BaseException) -> None:
    controller.run("high", "empty", fail, error)


def by_gate_run(controller: BackpressureController, error: BaseException) -> None:
    controller.gate("high", "empty").run(fail, error)


def by_slot(controller: BackpressureController, error: BaseException) -> None:
    with controller.slot("high", "empty"):
        raise error


def by_gate(controller: BackpressureController, error: BaseException) -> None:
    with controller.gate("high", "empty"):
        raise error


def by_throttled(controller: BackpressureController, error: BaseException) -> None:
    controller.throttled("high", "empty")(fail)(error)


def by_hook(controller: BackpressureController, error: BaseException) -> None:
    hook = Hook(controller, "high")
    with hook.admitted([hook.place(0, name="", queue_name="empty")]):
        raise error


WAYS = pytest.mark.parametrize("way", [by_run, by_gate_run, by_slot, by_gate, by_throttled, by_hook])


@WAYS
def test_the_first_failures_are_answered_as_the_later_ones(controller: BackpressureController, way: Any) -> None:
    answers = []
    for _ in range(7):
        error = raised(lambda: way(controller, redis.exceptions.ConnectionError("gone")))
        answer = refusal(error)
        assert answer is not None
        answers.append((type(error).__name__, answer.status, answer.headers["Retry-After"]))
    first, fifth, later = ("ConnectionError", 503, "5"), ("ConnectionError", 503, "60"), ("CircuitOpenError", 503, "60")
    assert answers == [first] * 4 + [fifth] + [later] * 2


@pytest.mark.parametrize("error", REACHES_NOBODY, ids=lambda error: type(error).__name__)
def test_what_reaches_nobody(controller: BackpressureController, error: BaseException) -> None:
    error = again(error)
    assert refusal(error) is None, "it came from elsewhere"
    error = raised(lambda: controller.run("high", "empty", fail, again(error)))
    answer = refusal(error)
    assert answer is not None
    problem = json.loads(answer.body)
    assert problem["detail"] == "the job could not be handed over: try again in 5 s"
    assert "empty" not in answer.body.decode()
    shown = refusal(error, show_queue=True)
    assert shown is not None
    assert json.loads(shown.body)["queues"] == ["empty"]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
@WAYS
def test_faults_stay_errors(controller: BackpressureController, way: Any, error: BaseException) -> None:
    assert refusal(raised(lambda: way(controller, again(error)))) is None


def test_what_a_program_raises_meanwhile_stays_an_error(controller: BackpressureController) -> None:
    def careless() -> None:
        try:
            controller.run("high", "empty", fail, ConnectionError())
        except ConnectionError:
            {}["no such key"]  # type: ignore[index]

    assert refusal(raised(careless)) is None

    def wrapping() -> None:
        try:
            controller.run("high", "empty", fail, ConnectionError())
        except ConnectionError as error:
            raise RuntimeError("could not sell") from error

    assert refusal(raised(wrapping)) is not None
    away = raised(lambda: controller.run("high", "empty", fail, ConnectionError()))
    assert refusal(BaseExceptionGroup("…", [away, CircuitOpenError()])) is not None
    assert refusal(BaseExceptionGroup("…", [away, KeyError()])) is None, "a 503 would hide the other"


def test_in_a_batch(controller: BackpressureController) -> None:
    away = BatchJob("high", "empty", lambda: fail(ConnectionError()))
    faulty = BatchJob("high", "empty", lambda: fail(KeyError()))
    answers = []
    for jobs in ([away, away], [away, faulty]):
        with pytest.raises(BatchError) as failed:
            controller.process_batch(jobs)
        answers.append(refusal(failed.value) is not None)
    assert answers == [True, False]


@pytest.mark.parametrize(
    "circuit", [{"circuit.excluded_exceptions": (OSError,)}, {"circuit.is_failure": lambda _: False}]
)
def test_what_is_no_failure_stays_an_error(make_controller: MakeController, circuit: Any) -> None:
    controller = make_controller(None, BackpressureConfig().evolve(circuit))
    assert refusal(raised(lambda: controller.run("high", "empty", fail, ConnectionError()))) is None


@pytest.mark.parametrize("name", CLIENTS)
def test_clients_errors_are_known(name: str) -> None:
    module, _, kind = name.partition(":")
    error = getattr(pytest.importorskip(module), kind)
    instance = error.__new__(error)
    assert lost._is_of_connection(instance), [kind.__module__ for kind in error.__mro__]


def test_confluents_codes_are_known() -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka")
    kinds = confluent_kafka.KafkaError
    away, large = kinds(kinds._TRANSPORT), kinds(kinds.MSG_SIZE_TOO_LARGE)
    assert lost._is_of_connection(confluent_kafka.KafkaException(away))
    assert not lost._is_of_connection(confluent_kafka.KafkaException(large))


def test_it_is_logged_at_once_and_then_now_and_then(
    controller: BackpressureController, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(lost, "_now", lambda: now)
    error = raised(lambda: controller.run("high", "empty", fail, redis.exceptions.ConnectionError("canary")))
    caplog.clear()
    for _ in range(650):
        refusal(error)
        now += 1
    lines = [record.getMessage() for record in caplog.records]
    begin, end = (
        "jobs for queue 'empty' cannot be handed over: redis.exceptions.ConnectionError",
        "; requests are told to come again",
    )
    assert lines == [begin + times + end for times in ("", *[", 300 times since this was last told"] * 2)]


def test_a_real_client_without_its_server(controller: BackpressureController) -> None:
    client = redis.Redis(host=servers.HOST, port=servers.free_port())
    statuses = []
    for _ in range(7):
        answer = refusal(raised(lambda: controller.run("high", "empty", client.rpush, "mail", "x")))
        statuses.append(answer and answer.status)
    assert statuses == [503] * 7
