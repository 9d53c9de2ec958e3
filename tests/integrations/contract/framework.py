"""What the contract of hooks is to know of one framework."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    from backpressure.providers.layouts import Layout
    from integrations.contract.driver import Driver
    from integrations.contract.shop import Shop

    #: Calls by their names, each of which sends by the app that it is given.
    Ways: TypeAlias = Mapping[str, Callable[[Any], Any]]
    #: As `Ways`, of jobs of these names.
    WaysOfMany: TypeAlias = Mapping[str, Callable[[Any, list[str]], Any]]
    Faults: TypeAlias = Mapping[str, "Fault"]
    #: Why promises do not apply, by the names of their tests.
    Exempt: TypeAlias = Mapping[str, str]

QUEUE = "mail"
#: Why hooks of asyncio do not promise what those that block do on an event loop.
ON_LOOPS = "it lives on an event loop, where its hook waits without blocking it"


class Fault(NamedTuple):
    """A call that fails by a fault of its own, and what it raises."""

    send: Callable[[Any], Any]
    error: type[Exception] | tuple[type[Exception], ...]


class Taken(NamedTuple):
    """What a framework says to a job that is there already.

    Attributes:
        send: sends the same job each time.
        error: what a second call raises, if it does not return ``None``.
        is_success: whether the queue is known to work then.
    """

    send: Callable[[Any], Any]
    error: type[Exception] | None
    is_success: bool


class Framework(abc.ABC):
    """One framework: how its app is made, hooked and sent by, what works for it, and what cannot apply to it.

    An app is whatever its methods take. It has the jobs of `jobs.JOBS`, each sent to the queue ``mail``. Of a blocking
    framework no coroutine here may wait.

    Attributes:
        title: as errors call it.
        driver: runs its tests.
        keys: where jobs of the queue ``mail`` lie on the server.
        foreign: the name of another framework's layout.
        ways: calls that send one LOW job, or one at once of several: all that the framework has.
        marks: calls that send one job with a priority HIGH of its own.
        later: calls that send one job for a time of which the backlog of now tells nothing.
        many: calls that send jobs of these names as one.
        faults: calls whose failure says nothing of the queue.
        taken: what it says to a job that is there already.
        exempt: the promises that do not apply, by the name of their test, and why.
    """

    title: ClassVar[str]
    driver: ClassVar[Driver]
    keys: ClassVar[tuple[str, ...]]
    foreign: ClassVar[str] = "rq"
    ways: ClassVar[Ways]
    marks: ClassVar[Ways] = {}
    later: ClassVar[Ways] = {}
    many: ClassVar[WaysOfMany] = {}
    faults: ClassVar[Faults] = {}
    taken: ClassVar[Taken | None] = None
    exempt: ClassVar[Exempt] = {}

    @abc.abstractmethod
    def layout(self, queue_name: str) -> Layout:
        """Return how the framework keeps a queue."""

    @abc.abstractmethod
    def open(self, url: str) -> AbstractAsyncContextManager[Any]:
        """Open an app that is not hooked, and send an overload to ``mail``."""

    @abc.abstractmethod
    def hook(self, app: Any, controller: Any, **options: Any) -> Any:
        """Put a controller before an app; return what sends from now on, or what that is awaited by."""

    @abc.abstractmethod
    def send(self, app: Any, job: str) -> Any:
        """Send one job, in the plainest way. One of ``fail_once`` is to be tried twice."""

    @abc.abstractmethod
    def working(self, app: Any) -> AbstractAsyncContextManager[None]:
        """Run a worker of the queue beside the body; it may end as soon as the queue is empty."""

    def name(self, job: str) -> str:
        """Return the name of a job, as tables of priorities and `inside_tasks` have it."""
        return job

    @abc.abstractmethod
    def name_of(self, given: Any) -> str:
        """Return the name of what a function of priorities is given."""

    async def send_more(self, app: Any) -> set[str]:
        """Send what a worker will send more for; return what jobs will have told then."""
        return set()

    def at_once(self, shop: Shop) -> AbstractAsyncContextManager[Callable[[], Awaitable[object]]]:
        """Hook an app whose jobs run as they are sent; yield what sends one that tells of ``at once``."""
        raise NotImplementedError

    #: What `at_once` is counted as.
    counted_at_once: ClassVar[Mapping[tuple[str, str], int]] = {(QUEUE, "immediate"): 1}
