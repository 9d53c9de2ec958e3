"""What all integrations share: the queue and priority of a job, and one gate for all that an enqueue publishes.

An integration makes a `Hook`, for asyncio an `AsyncHook`, from its user's arguments. Where the framework enqueues, the
integration asks the hook whether the job `passes`. A job passes inside of `admitted` (it is part of an enqueue that was
let in), in a worker, under `passing`, or for a reason that the integration knows: a retry, a mode that runs jobs at
once, a job due much later. Otherwise the integration publishes inside
``with hook.admitted([hook.place(...) for each job])``, before it takes a connection, and does not catch what that
raises.
"""

from __future__ import annotations

import contextlib
import contextvars
import pickle
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

from backpressure._controller.blocking import BackpressureController
from backpressure._model.arguments import check_max_wait, longest_wait, parse_priority, shown
from backpressure._model.clock import in_event_loop
from backpressure._model.errors import (
    ConfigurationError,
    ControllerNotStartedError,
    ControllerStoppedError,
    InvalidPriorityError,
)
from backpressure._model.tenant import AnyTenant, Place, Tenant, check_tenant, of_place
from backpressure._model.vocabulary import Priority
from backpressure.integrations._shared.context import setting
from backpressure.integrations._shared.controllers import C, check_given, found
from backpressure.integrations._shared.passing import is_passing
from backpressure.integrations._shared.request import current_tenant
from backpressure.integrations._shared.workers import current_task, in_worker

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from backpressure._controller.asynchronous import AsyncBackpressureController
    from backpressure._model.arguments import MaxWait
    from backpressure._telemetry.passed import Why

__all__ = [
    "FAR_AHEAD",
    "MARK",
    "MAX_WAIT",
    "NOT_ENCODABLE",
    "AsyncHook",
    "Hook",
    "Place",
    "PriorityRule",
    "QueueRule",
    "TenantRule",
    "far_ahead",
]

#: The longest sleep of a hook whose user set none, in seconds: hooks are more often in web requests than in batches.
MAX_WAIT = 0.2
#: Jobs that are due in more seconds than this are not judged by the current backlog.
FAR_AHEAD = 60.0

#: What a job that cannot be encoded raises, before anything is sent.
NOT_ENCODABLE: tuple[type[Exception], ...] = (
    TypeError,
    ValueError,
    OverflowError,
    RecursionError,
    pickle.PicklingError,
)

#: The name under which a job, or the function behind it, carries a priority of its own.
MARK = "backpressure_priority"

#: A priority for all jobs; a table by the job's name, its queue's or ``"*"``; or a function of the framework's object.
PriorityRule: TypeAlias = Priority | str | Mapping[str, Priority | str] | Callable[[Any], Priority | str]
#: A table of the framework's queue names to the controller's, or a function of the framework's object.
QueueRule: TypeAlias = Mapping[str, str] | Callable[[Any], str]
#: The name of an argument or header of the job that has its tenant, or a function of the framework's object.
TenantRule: TypeAlias = str | Callable[[Any], AnyTenant | None]

#: A controller, or a function that returns the one to ask now; it is called for each job.
Given: TypeAlias = C | Callable[[], C]


class _Entrance:
    """One `admitted` of a hook. When it is left it is over everywhere, also in contexts that copied it."""

    def __init__(self, hook: object) -> None:
        self.hook = hook
        self.over = False
        self.outer = next(_entrances(), None)


_entered: contextvars.ContextVar[_Entrance | None] = contextvars.ContextVar("_entered", default=None)


def _entrances() -> Iterator[_Entrance]:
    """Yield the entrances that this code runs inside of, the last one first."""
    entrance = _entered.get()
    while entrance is not None:
        if not entrance.over:
            yield entrance
        entrance = entrance.outer


class _Rules(Generic[C]):
    def __init__(
        self,
        controller: C | Callable[[], C],
        kind: type[C],
        priority: PriorityRule | None,
        queue: QueueRule | None,
        max_wait: MaxWait,
        inside_tasks: Collection[str],
        not_failures: tuple[type[BaseException], ...],
        tenant: TenantRule | None,
    ) -> None:
        if priority is None:
            raise ConfigurationError(
                "priority is missing: give one for all jobs, a table by their names, or a function", field="priority"
            )
        if isinstance(priority, Mapping):
            priority = {name: parse_priority(value) for name, value in priority.items()}
        elif not callable(priority):
            priority = parse_priority(priority)
        if isinstance(inside_tasks, str):
            raise ConfigurationError(
                f"inside_tasks is {shown(inside_tasks)}: give a set of task names",
                field="inside_tasks",
                value=inside_tasks,
            )
        check_given(controller, kind)
        self._given = controller
        self._kind = kind
        self._priority = priority
        self._queue = queue
        #: Called with the framework's and the controller's name of each queue, see `check_layout`.
        self.meets: Callable[[str, str], None] | None = None
        self._max_wait = check_max_wait(max_wait)
        self._inside_tasks = frozenset(inside_tasks)
        if not _is_tenant_rule(tenant):
            raise ConfigurationError(
                f"tenant is {shown(tenant)}: give the name of an argument or header that has it, or a function",
                field="tenant",
                value=tenant,
            )
        self._tenant = tenant
        self._not_failures = not_failures

    @property
    def fixed(self) -> C | None:
        """The controller, ``None`` if a function returns it."""
        return self._given if isinstance(self._given, self._kind) else None

    @property
    def controller(self) -> C:
        """The controller that judges now.

        Raises:
            ControllerNotStartedError: a function is to return it, and has none yet.
            ConfigurationError: that function returned something else.
        """
        given: Any = self._given
        return given if isinstance(given, self._kind) else found(given, self._kind)

    def passes(self, queue_name: str, *, task: str | None = None, because: Why | None = None) -> bool:
        """Tell whether a job for the framework's queue passes, so is enqueued without being judged; count it if so.

        Args:
            task: the name of the task that enqueues it, where `current_task` does not tell it; jobs from tasks that are
                named in ``inside_tasks`` are judged.
            because: the reason to let it pass that the integration found.
        """
        if self.entered:
            return True
        why = self.why(task=task, because=because)
        if why is None:
            return False
        self.count_passed(queue_name, why)
        return True

    def why(self, *, task: str | None = None, because: Why | None = None) -> Why | None:
        """Tell why a job outside of `admitted` passes, see `passes`; count nothing."""
        if because is not None:
            return because
        if is_passing():
            return "passing"
        task = task or current_task()
        return "worker" if (in_worker() or task is not None) and task not in self._inside_tasks else None

    def count_passed(self, queue_name: str, why: Why) -> None:
        """Count a job for the framework's queue that passes; workers may have no controller yet."""
        try:
            controller: Any = self.controller
        except Exception:  # noqa: BLE001 - what passes must not fail
            return
        mapped = self._queue.get(queue_name) if isinstance(self._queue, Mapping) else None
        controller._passed.add(mapped or queue_name, why)  # noqa: SLF001 - the controller's own

    def place(
        self,
        job: Any,
        *,
        name: str,
        queue_name: str,
        mark: Priority | str | None = None,
        named: Callable[[], Iterable[object]] = tuple,
    ) -> Place:
        """Return the priority, the controller's queue and the tenant of a framework's job; its own mark comes first.

        Args:
            named: returns its arguments by name, and its headers, in tables: for a rule that names the tenant's.

        Raises:
            InvalidPriorityError: the mark and the rule give no priority.
            ConfigurationError: the rule gives what is no tenant.
        """
        priority = _look_up(self._priority, job, name, queue_name, "*") if mark is None else mark
        if priority is None:
            raise InvalidPriorityError(
                f"job {name!r} has no priority: give it a {MARK}, or its name or '*' a row in the table",
                queue_name=queue_name,
            )
        mapped = _look_up(self._queue, job, queue_name) or queue_name
        if self.meets is not None:
            self.meets(queue_name, mapped)
        tenant = self._tenant_of(job, named)
        place = parse_priority(priority), mapped
        return place if tenant is None else (*place, tenant)

    def _tenant_of(self, job: Any, named: Callable[[], Iterable[object]]) -> Tenant | None:
        """Return on whose behalf a job is: as the rule says, or else the request that this code serves."""
        rule, found = self._tenant, None
        if callable(rule):
            found = rule(job)
        elif rule is not None:
            tables = (table for table in named() if isinstance(table, Mapping))
            found = next((table[rule] for table in tables if rule in table), None)
            if isinstance(found, int) and not isinstance(found, bool):
                found = str(found)
        return current_tenant() if found is None else check_tenant(found)

    @property
    def entered(self) -> bool:
        """Whether this code runs inside `admitted`, also if another hook's `admitted` is inside that."""
        return any(entrance.hook is self for entrance in _entrances())

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        entrance = _Entrance(self)
        try:
            with setting(_entered, entrance):
                yield
        finally:
            entrance.over = True


class Hook(_Rules["BackpressureController"]):
    """The hook of a framework whose enqueues block. Thread-safe.

    Raises:
        ConfigurationError: the controller is of the wrong kind, or there is no priority.
        InvalidPriorityError: the priority, or one in the table, is not a priority.
    """

    def __init__(
        self,
        controller: Given[BackpressureController],
        priority: PriorityRule | None,
        queue: QueueRule | None = None,
        max_wait: MaxWait = MAX_WAIT,
        inside_tasks: Collection[str] = (),
        not_failures: tuple[type[BaseException], ...] = (),
        tenant: TenantRule | None = None,
    ) -> None:
        super().__init__(
            controller, BackpressureController, priority, queue, max_wait, inside_tasks, not_failures, tenant
        )

    @contextlib.contextmanager
    def slots(self, places: Iterable[Place]) -> Iterator[None]:
        """Wait once, as long as any place needs, then run the body, whose outcome is reported to all places.

        On an event loop nothing waits: if a wait is needed, a HIGH job goes at once and others raise `ThrottledError`.
        """
        max_wait, in_order = self._max_wait, _in_order(places)
        with contextlib.ExitStack() as stack:
            with _naming(in_order):
                controller = self.controller
                if in_event_loop():
                    limits = (longest_wait(max_wait, priority) for priority, *_ in in_order)
                    controller._host.warn_of_loop(*limits)  # noqa: SLF001
                    max_wait = 0
                slots = controller._slots(in_order, max_wait, self._not_failures)  # noqa: SLF001
                stack.enter_context(slots)
            yield

    @contextlib.contextmanager
    def admitted(self, places: Iterable[Place]) -> Iterator[None]:
        """As `slots`, and let what the body enqueues pass."""
        with self.slots(places), self._inside():
            yield


class AsyncHook(_Rules["AsyncBackpressureController"]):
    """As `Hook`, for asyncio. Usable by several tasks."""

    def __init__(
        self,
        controller: Given[AsyncBackpressureController],
        priority: PriorityRule | None,
        queue: QueueRule | None = None,
        max_wait: MaxWait = MAX_WAIT,
        inside_tasks: Collection[str] = (),
        not_failures: tuple[type[BaseException], ...] = (),
        tenant: TenantRule | None = None,
    ) -> None:
        from backpressure._controller.asynchronous import AsyncBackpressureController  # noqa: PLC0415 - loads asyncio

        super().__init__(
            controller, AsyncBackpressureController, priority, queue, max_wait, inside_tasks, not_failures, tenant
        )

    async def turn(self, place: Place) -> AbstractContextManager[None]:
        """Wait for one place; return a context manager to send in, which reports the outcome."""
        with _naming([place]):
            controller = self.controller
            turn = controller._host.turn  # noqa: SLF001 - as `_slots`
            decision = await turn(place[0], place[1], self._max_wait, tenant=of_place(place))
        return controller._admission.reporting([decision], self._not_failures)  # noqa: SLF001

    @contextlib.asynccontextmanager
    async def slots(self, places: Iterable[Place]) -> AsyncIterator[None]:
        """Wait once, as long as any place needs, then run the body, whose outcome is reported to all places."""
        in_order = _in_order(places)
        async with contextlib.AsyncExitStack() as stack:
            with _naming(in_order):
                slots = self.controller._slots(in_order, self._max_wait, self._not_failures)  # noqa: SLF001
                await stack.enter_async_context(slots)
            yield

    @contextlib.asynccontextmanager
    async def admitted(self, places: Iterable[Place]) -> AsyncIterator[None]:
        """As `slots`, and let what the body enqueues pass."""
        async with self.slots(places):
            with self._inside():
                yield


def far_ahead(seconds: float | None) -> Why | None:
    """Return why a job that is due in `seconds` passes, if it does."""
    return "scheduled" if seconds is not None and seconds > FAR_AHEAD else None


def _is_tenant_rule(rule: object) -> bool:
    return rule is None or callable(rule) or (isinstance(rule, str) and bool(rule))


def _look_up(rule: Any, job: Any, *names: str) -> Any:
    if callable(rule):
        return rule(job)
    if isinstance(rule, Mapping):
        return next((rule[name] for name in names if name in rule), None)
    return rule


def _in_order(places: Iterable[Place]) -> list[Place]:
    """Return the distinct places. Those that may be shed come first, so that no wait is for nothing."""
    return sorted(set(places), key=lambda place: (place[0].value, place[1], of_place(place) or ()))


@contextlib.contextmanager
def _naming(places: Sequence[Place]) -> Iterator[None]:
    """Name the places in the error of a controller that was not started: a hook's user sees no controller."""
    try:
        yield
    except ControllerStoppedError:
        raise
    except ControllerNotStartedError as error:
        priority, queue_name, *_ = places[0]
        raise ControllerNotStartedError(
            f"{priority} job for queue {queue_name!r} was not enqueued: {error}; or let start-up code and schedulers "
            "of your own enqueue in a `with backpressure.integrations.passing():`",
            queue_name=queue_name,
            priority=priority,
        ) from error.__cause__
