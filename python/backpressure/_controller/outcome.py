"""The outcome of a job: what its work returned or raised, and whether that counts as a failure of its queue.

A promise of work is no success. Generators and awaitables are refused; the outcome of a future is reported when it is
done.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Literal

from backpressure._model.errors import BackpressureError
from backpressure._runtime.foreign import raised_by_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backpressure._model.config.circuit import CircuitConfig
    from backpressure._runtime.foreign import Foreign

__all__ = [
    "UnfinishedWorkError",
    "failure_of",
    "is_excused",
    "is_plain",
    "name_of",
    "note_failure",
    "refuse_generator",
    "runs_on_a_loop",
    "take",
    "unrelated",
    "verdict",
]

# Set on errors that say nothing about the queue, of any class.
_UNRELATED = "_backpressure_unrelated"
# Set on errors that counted against a queue.
_FAILURE = "_backpressure_failure"

# Types known to be plain, by id: a metaclass may make its classes equal, or unhashable. Each type is held here, so that
# no other can get its id.
_plain: dict[int, type] = {}
_MOST = 256


class UnfinishedWorkError(BackpressureError, TypeError):
    """Work that has only begun when it returns. That is a mistake of the caller, so it is no failure of the queue."""


def is_plain(kind: type) -> bool:
    """Tell whether values of a type are results, and not promises of work to come. Thread-safe.

    Promises are generators, awaitables and futures with callbacks. What counts is what the type has or inherits; a
    value that answers to any name, as mocks do, promises nothing.
    """
    return _plain.get(id(kind)) is kind or _look(kind)


def _look(kind: type) -> bool:
    generator = issubclass(kind, GeneratorType | AsyncGeneratorType)
    if generator or _has(kind, "__await__") or _has(kind, "add_done_callback") or _takes_callbacks(kind):
        return False
    if len(_plain) >= _MOST:
        _plain.clear()
    _plain[id(kind)] = kind
    return True


def _has(kind: type, name: str) -> bool:
    return any(name in vars(base) for base in kind.__mro__)


def _takes_callbacks(kind: type) -> bool:
    # As kafka-python's futures have; these are awaitable too, but not by asyncio.
    return _has(kind, "add_callback") and _has(kind, "add_errback")


def runs_on_a_loop(value: object) -> bool:
    """Tell whether an event loop is to await `value` for its outcome."""
    kind = type(value)
    return not is_plain(kind) and inspect.isawaitable(value) and not _takes_callbacks(kind)


def take(
    value: object,
    report: Callable[[BaseException | None], object],
    foreign: Foreign,
    *,
    work: Callable[..., object] | None,
    instead: str,
    awaited: bool = False,
) -> None:
    """Report the outcome of work that returned `value`, exactly once: now, or when `value` is done.

    Args:
        report: called with the error, or with ``None`` for success; for a future, in the thread that completes it.
        work: the function that returned it, for the message.
        instead: what to do with an awaitable.
        awaited: whether an event loop runs here, so that its futures call back when they are done.

    Raises:
        UnfinishedWorkError: it is a generator or an awaitable; it is reported, and closed if possible.
    """
    kind = type(value)
    if is_plain(kind):
        report(None)
        return
    is_future = _has(kind, "add_done_callback") and (awaited or not _has(kind, "__await__"))
    if not (is_future or _takes_callbacks(kind)):
        refusal = _refusal(value, work, instead)
        report(refusal)
        raise refusal
    first = itertools.count().__next__  # atomic, which a test followed by a store is not

    def once(error: BaseException | None) -> None:
        if first() == 0:
            report(error)

    try:
        _watch(value, once)
    except BaseException as error:  # noqa: BLE001 - whatever its class, see `Foreign`
        once(CancelledError())
        message = "%s cannot be asked for its outcome, which says nothing of the queue, then"
        foreign.raised(error, ("future", kind.__qualname__), message, kind.__qualname__)


def _watch(future: Any, report: Callable[[BaseException | None], None]) -> None:
    if _takes_callbacks(type(future)):
        future.add_callback(lambda *_: report(None))
        future.add_errback(lambda error=None, *_: report(_as_error(error)))
        return
    # A future of a loop calls back in the next round of the loop only.
    done = getattr(future, "done", None)
    if callable(done) and done() is True:
        report(_error_of(future))
    else:
        future.add_done_callback(lambda future: report(_error_of(future)))


def _error_of(future: Any) -> BaseException | None:
    """Return the error of a future that is done; if it was cancelled, its cancellation."""
    try:
        if not hasattr(future, "exception"):
            future.result()
            return None
        error = future.exception()
    except BaseException as raised:  # a cancelled future's
        if raised_by_signal(raised):
            raise
        return raised
    return None if error is None else _as_error(error)


def _as_error(error: object) -> BaseException:
    return error if isinstance(error, BaseException) else RuntimeError(f"a future failed with {type(error).__name__}")


def _refusal(value: Any, work: Callable[..., object] | None, instead: str) -> UnfinishedWorkError:
    kind = type(value)
    name = getattr(value, "__qualname__", None)
    if isinstance(value, Coroutine | GeneratorType):
        with contextlib.suppress(Exception):  # if it has begun it may refuse
            value.close()
    if issubclass(kind, GeneratorType | AsyncGeneratorType):
        return UnfinishedWorkError(
            f"{name} is a generator function, whose work happens after the call: use slot() inside it, or run what "
            "consumes it"
        )
    if kind is CoroutineType:
        return UnfinishedWorkError(f"{name} is a coroutine function: {instead}")
    returned = "the work" if work is None else name_of(work)
    return UnfinishedWorkError(f"{returned} returned an awaitable {kind.__qualname__}, not its outcome: {instead}")


def name_of(function: object) -> str:
    """Return the name of a function for a message; also for one without a name of its own, such as a partial."""
    while not isinstance(name := getattr(function, "__qualname__", None), str):
        inner = getattr(function, "func", None)
        if inner is None:
            return type(function).__qualname__
        function = inner
    return name


def refuse_generator(function: Callable[..., object]) -> None:
    """Raise `TypeError` for a generator function, whose work happens after the call."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{name_of(function)} is a generator function, whose work happens after the call: use slot() inside it"
        )


@contextlib.contextmanager
def unrelated() -> Iterator[None]:
    """Mark what the body raises: errors of the user's own code within an enqueue say nothing about the queue."""
    try:
        yield
    except Exception as error:
        vars(error)[_UNRELATED] = True  # its class may be frozen
        raise


def note_failure(error: BaseException, queue_name: str, retry_after: float) -> None:
    """Note on an error that it counted against a queue, for who answers requests; `retry_after` in seconds."""
    vars(error)[_FAILURE] = queue_name, retry_after  # its class may be frozen


def failure_of(error: BaseException) -> tuple[str, float] | None:
    """Return what `note_failure` noted on an error."""
    noted = vars(error).get(_FAILURE)
    return noted if isinstance(noted, tuple) else None


def is_excused(error: BaseException, not_failures: tuple[type[BaseException], ...]) -> bool:
    """Tell whether `error` says nothing about the queue: it is one of `not_failures`, or came out of `unrelated`."""
    # A broken connection is a failure even if its error is of another class too: a certificate's is a ValueError.
    excused = isinstance(error, not_failures) and not isinstance(error, OSError)
    return excused or getattr(error, _UNRELATED, False) is True


def verdict(error: BaseException, circuit: CircuitConfig, foreign: Foreign) -> Literal[False] | None:
    """Return what to tell a breaker about `error`, raised by a job: ``False`` for a failure, ``None`` for nothing.

    A group is a failure if one of its leaves is. Cancellations, interrupts and exits say nothing about the queue; nor
    do this package's own errors, excluded ones, and those for which `CircuitConfig.is_failure` returns ``False``.
    """
    try:
        failed = any(_judge(leaf, circuit) for leaf in _leaves(error, circuit.excluded_exceptions))
    except BaseException as raised:  # noqa: BLE001 - whatever its class, see `Foreign`
        message = "is_failure raised; what it is asked about counts as a failure then"
        foreign.raised(raised, ("is_failure", id(circuit)), message)
        failed = True
    return False if failed else None


def _judge(error: Exception, circuit: CircuitConfig) -> bool:
    return circuit.is_failure is None or bool(circuit.is_failure(error))


def _leaves(error: BaseException, excluded: tuple[type[BaseException], ...]) -> Iterator[Exception]:
    """Yield the errors that may count, out of `error` and of the groups within."""
    pending = [error]
    while pending:
        link = pending.pop()
        if isinstance(link, (BackpressureError, CancelledError, *excluded)):
            continue
        if isinstance(link, BaseExceptionGroup):
            pending.extend(link.exceptions)
        elif isinstance(link, Exception):
            yield link
