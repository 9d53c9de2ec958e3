"""The tree of exceptions, pickling, and the three predicates over causes and groups."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any, TypeVar

import pytest

from backpressure._model import errors
from backpressure._model.errors import (
    BackpressureError,
    CircuitOpenError,
    ConfigurationError,
    ControllerNotStartedError,
    ControllerStoppedError,
    InvalidPriorityError,
    InvalidQueueError,
    JobShedError,
    StatsUnavailableError,
    ThrottledError,
    is_circuit_open_error,
    is_retryable,
    is_shed_error,
)
from backpressure._model.vocabulary import Priority

TREE: dict[type[BackpressureError], tuple[type[Exception], ...]] = {
    BackpressureError: (Exception,),
    JobShedError: (BackpressureError,),
    CircuitOpenError: (JobShedError,),
    ThrottledError: (BackpressureError,),
    ControllerNotStartedError: (BackpressureError,),
    ControllerStoppedError: (ControllerNotStartedError,),
    StatsUnavailableError: (BackpressureError,),
    ConfigurationError: (BackpressureError, ValueError),
    InvalidPriorityError: (BackpressureError, ValueError),
    InvalidQueueError: (BackpressureError, ValueError),
}

EXAMPLES = [
    *(
        kind("wait a little", queue_name="mail", priority=Priority.LOW, retry_after=1.5)
        for kind in TREE
        if kind not in (StatsUnavailableError, ConfigurationError)
    ),
    StatsUnavailableError("check the server", error_type="timeout", queue_name="mail"),
    ConfigurationError("polling.jitter is -1: give more", field="polling.jitter", value=-1),
]


E = TypeVar("E", bound=BaseException)


def caused(error: E, cause: BaseException) -> E:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(("kind", "bases"), TREE.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_tree(kind: type[BackpressureError], bases: tuple[type[Exception], ...]) -> None:
    assert kind.__bases__ == bases


def test_every_public_error_is_in_the_tree() -> None:
    classes = {value for name in errors.__all__ if isinstance(value := getattr(errors, name), type)}
    assert classes >= set(TREE)
    assert all(issubclass(kind, BackpressureError) or issubclass(kind, ExceptionGroup) for kind in classes)


def test_examples_cover_the_tree() -> None:
    assert {type(error) for error in EXAMPLES} == set(TREE)


def same(one: BaseException, other: BaseException) -> bool:
    return (type(one), one.args, str(one), vars(one)) == (type(other), other.args, str(other), vars(other))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_pickles_whole(error: BackpressureError, protocol: int) -> None:
    back = pickle.loads(pickle.dumps(error, protocol))
    assert same(back, error)
    assert vars(back) is not vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_copies_whole(error: BackpressureError) -> None:
    assert same(copy.copy(error), error)
    assert same(copy.deepcopy(error), error)


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_pickles_with_nothing_given(kind: type[BackpressureError]) -> None:
    assert same(pickle.loads(pickle.dumps(kind())), kind())


class OwnError(JobShedError):
    """A user's subclass with a signature of its own."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"tenant {tenant} is over its quota", retry_after=3.0)
        self.tenant = tenant


def test_a_subclass_with_its_own_signature_pickles() -> None:
    back = pickle.loads(pickle.dumps(OwnError("acme")))
    assert (type(back), back.tenant, back.retry_after) == (OwnError, "acme", 3.0)
    assert str(back) == "tenant acme is over its quota"


def test_notes_travel() -> None:
    error = JobShedError("wait")
    error.add_note("seen by the web tier")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["seen by the web tier"]


def test_attributes_default_to_unknown() -> None:
    error = BackpressureError("wait")
    assert (error.queue_name, error.priority, error.retry_after) == (None, None, None)
    assert StatsUnavailableError().error_type == "provider"


SHED, OPEN, PLAIN = JobShedError("shed"), CircuitOpenError("open"), ValueError("plain")


def deep(error: BaseException, links: int = 5_000) -> BaseException:
    for _ in range(links):
        error = caused(RuntimeError(), error)
    return error


def loop(error: BaseException) -> BaseException:
    first, second = RuntimeError("first"), RuntimeError("second")
    caused(first, second)
    caused(second, ExceptionGroup("both", [first, caused(RuntimeError("third"), error)]))
    return first


WRAPPED = {
    "bare": lambda error: error,
    "a cause": lambda error: caused(RuntimeError(), error),
    "a cause of a cause": lambda error: caused(KeyError(), caused(RuntimeError(), error)),
    "a very deep cause": deep,
    "a member": lambda error: ExceptionGroup("", [PLAIN, error]),
    "a member of a member": lambda error: ExceptionGroup("", [PLAIN, ExceptionGroup("", [error])]),
    "a cause of a member": lambda error: ExceptionGroup("", [PLAIN, caused(RuntimeError(), error)]),
    "a cause of a group": lambda error: caused(ExceptionGroup("", [PLAIN]), error),
    "a cause of a group in a group": lambda error: ExceptionGroup("", [caused(ExceptionGroup("", [PLAIN]), error)]),
    "a member of a cause": lambda error: caused(RuntimeError(), ExceptionGroup("", [PLAIN, error])),
    "beside a base exception": lambda error: BaseExceptionGroup("", [KeyboardInterrupt(), error]),
    "in a ring": loop,
}
wrappings = pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)


@wrappings
def test_sheds_are_found_wherever_they_are(wrap: Any) -> None:
    assert is_shed_error(wrap(SHED))
    assert is_shed_error(wrap(OPEN))
    assert not is_shed_error(wrap(ThrottledError("wait")))
    assert not is_shed_error(wrap(PLAIN))


@wrappings
def test_open_circuits_are_found_wherever_they_are(wrap: Any) -> None:
    assert is_circuit_open_error(wrap(OPEN))
    assert not is_circuit_open_error(wrap(SHED))
    assert not is_circuit_open_error(wrap(PLAIN))


@wrappings
@pytest.mark.parametrize(
    "error",
    [
        SHED,
        OPEN,
        ControllerStoppedError("make a new one"),
        ConfigurationError("give more"),
        InvalidPriorityError("give one of three"),
        InvalidQueueError("give a name"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_help_is_not_retryable_wherever_it_is(wrap: Any, error: BackpressureError) -> None:
    assert not is_retryable(wrap(error))


@wrappings
@pytest.mark.parametrize(
    "error",
    [
        PLAIN,
        ConnectionError(),
        ThrottledError("wait"),
        ControllerNotStartedError("start it"),
        StatsUnavailableError("check it"),
        BackpressureError("try again"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_everything_else_is_retryable(wrap: Any, error: Exception) -> None:
    assert is_retryable(wrap(error)) == (wrap is not WRAPPED["beside a base exception"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit(), asyncio.CancelledError()])
def test_what_is_no_exception_is_neither(error: BaseException) -> None:
    assert not is_retryable(error)
    assert not is_retryable(caused(RuntimeError(), error))
    assert not is_shed_error(error)
    assert not is_circuit_open_error(error)


@pytest.mark.parametrize("predicate", [is_retryable, is_shed_error, is_circuit_open_error])
def test_no_error_is_nothing(predicate: Any) -> None:
    assert predicate(None) is False


def test_a_mere_context_is_not_a_cause() -> None:
    error = RuntimeError("raised while handling the shed, not because of it")
    error.__context__ = SHED
    assert not is_shed_error(error)
    assert is_retryable(error)


def test_raise_from_is_followed() -> None:
    def enqueue() -> None:
        try:
            raise OPEN
        except CircuitOpenError as error:
            raise RuntimeError("could not enqueue") from error

    with pytest.raises(RuntimeError) as caught:
        enqueue()
    assert is_circuit_open_error(caught.value)
    assert not is_retryable(caught.value)
