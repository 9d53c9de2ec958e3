"""What all blocking providers except Redis share: names of queues, links to a server, and how a read ends."""

from __future__ import annotations

import abc
import contextlib
import os
from typing import TYPE_CHECKING, ClassVar, Generic, NoReturn, Self, TypeAlias, TypeVar

from backpressure._model.arguments import validate_queue_name
from backpressure._model.errors import StatsUnavailableError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import QueueStats
from backpressure._runtime.reading import owned, owner
from backpressure.providers.failures import ADVICE, NOTHING_SECRET, network_label, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from backpressure.providers.failures import Redactor

__all__ = ["LinkedProvider", "Outcome"]

Outcome: TypeAlias = QueueStats | StatsUnavailableError

S = TypeVar("S")  # where a queue is read
L = TypeVar("L")  # a link: a connection, or anything else that one read at a time uses

# Links kept for the next reads: one for the poller, one for a caller that sees a queue for the first time.
_MAX_IDLE = 2


class _Read(Generic[L]):
    """One call of the provider while it runs."""

    def __init__(self) -> None:
        self.owner = owner()
        self.interrupted = False
        self.link: L | None = None

    def check(self) -> None:
        """Begin nothing more after an interrupt."""
        if self.interrupted:
            raise TimeoutError("interrupted")


class _Links(Generic[L]):
    """The state of one process: links that wait for the next read, and the reads under way."""

    def __init__(self) -> None:
        self.idle: list[L] = []
        self.reads: set[_Read[L]] = set()


@repr_when_half_built
class LinkedProvider(abc.ABC, Generic[S, L]):
    """A `StatsProvider` whose reads take a link each. Subclasses say how to open, ask, cut and close one.

    Thread-safe without locks; a forked child opens links of its own. It may hold credentials, so it does not pickle.
    """

    #: See `backpressure.StatsProvider`.
    shares_server: ClassVar[bool] = True
    least_gap: ClassVar[float] = 0.0

    #: What to do about the labels of this provider's errors.
    _advice: ClassVar[Mapping[str, str]] = ADVICE

    def __init__(self, where: str, queues: Mapping[str, S], redact: Redactor = NOTHING_SECRET) -> None:
        self._where = where
        self._queues = queues
        self._redact = redact
        self._by_process: dict[int, _Links[L]] = {}
        self._closed = False

    def adopt(self, other: Self) -> None:
        """Read, from now on, what `other` was made for too: a provider of the same server that has not read yet."""
        self._queues = {**self._queues, **other._queues}

    @abc.abstractmethod
    def _open(self) -> L:
        """Return a new link. Only the client's own timeout bounds this, because it cannot be interrupted yet."""

    @abc.abstractmethod
    def _ask(self, link: L, queues: Mapping[str, S]) -> Mapping[str, Outcome]:
        """Read queues over a link; return the error of one queue as its value, and raise an error that concerns all.

        A kept link may have died while it was idle, so after an error the read is tried once more over a new one. It is
        not tried again after a `StatsUnavailableError`: raise that, as `_failure` makes it, where the server has
        answered.
        """

    @abc.abstractmethod
    def _cut(self, link: L) -> None:
        """End what a link is doing, from another thread. The thread that uses it closes it afterwards."""

    @abc.abstractmethod
    def _close(self, link: L) -> None:
        """Free a link that nobody uses."""

    def _source(self, queue_name: str) -> S | None:
        """Return where to read a queue that was not given, or ``None`` to refuse it."""

    def _label(self, error: Exception) -> str | None:
        """Return the ``error_type`` of what a read raised, or ``None`` where the client's errors say nothing."""

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        """Read one queue.

        Raises:
            StatsUnavailableError: it could not be read; ``error_type`` tells why.
            InvalidQueueError: the name cannot name a queue.
        """
        name = validate_queue_name(queue_name)
        outcome = self.get_many([name])[name]
        if isinstance(outcome, StatsUnavailableError):
            raise outcome
        return outcome

    def get_all_queue_stats(self) -> Mapping[str, Outcome]:
        """Read the queues this provider was made for.

        Raises:
            StatsUnavailableError: nothing could be read.
        """
        return self._read(self._queues)

    def get_many(self, queue_names: Iterable[str]) -> Mapping[str, Outcome]:
        """Read several queues.

        Raises:
            StatsUnavailableError: nothing could be read.
            InvalidQueueError: a name cannot name a queue.
        """
        sources: dict[str, S] = {}
        refused: dict[str, Outcome] = {}
        for queue_name in queue_names:
            name = validate_queue_name(queue_name)
            source = self._queues.get(name) or self._source(name)
            if source is None:
                refused[name] = StatsUnavailableError(
                    f"queue {name!r} is not among the queues of this provider: add it to queues=",
                    error_type="missing",
                    queue_name=name,
                )
            else:
                sources[name] = source
        return {**refused, **self._read(sources)}

    def _read(self, queues: Mapping[str, S]) -> Mapping[str, Outcome]:
        if self._closed:
            raise StatsUnavailableError("this provider is closed: make a new one")
        if not queues:
            return {}
        links = self._links()
        read: _Read[L] = _Read()
        links.reads.add(read)
        try:
            return self._answers(links, read, queues)
        except Exception as error:  # noqa: BLE001 - a link cut under its client shows as anything
            failure = self._failure(error, interrupted=read.interrupted)
        finally:
            links.reads.discard(read)
        raise failure

    def _answers(self, links: _Links[L], read: _Read[L], queues: Mapping[str, S]) -> Mapping[str, Outcome]:
        while True:
            kept = True
            try:
                link = links.idle.pop()
            except IndexError:
                kept = False
                link = self._open()
            read.link = link
            try:
                read.check()
                answers = self._ask(link, queues)
            except BaseException as error:
                read.link = None
                self._close_quietly(link)
                # A kept link may have died since the last read, so its failure proves nothing. The failure of a new one
                # does, and so does an answer that the subclass has turned into an error.
                answered = isinstance(error, StatsUnavailableError)
                if kept and not read.interrupted and isinstance(error, Exception) and not answered:
                    continue
                raise
            read.link = None
            self._keep(links, link)
            return answers

    def _keep(self, links: _Links[L], link: L) -> None:
        if self._closed or len(links.idle) >= _MAX_IDLE:
            self._close_quietly(link)
        else:
            links.idle.append(link)

    def _failure(
        self, error: Exception, *, interrupted: bool = False, queue_name: str | None = None
    ) -> StatsUnavailableError:
        """Return the error for an exception of the client, to raise or to give as a queue's value."""
        label = "deadline" if interrupted else self._label(error) or network_label(error) or "provider"
        what = self._where if queue_name is None else f"queue {queue_name!r} at {self._where}"
        return unavailable(
            error, what=what, label=label, redact=self._redact, advice=self._advice, queue_name=queue_name
        )

    def _links(self) -> _Links[L]:
        # One per process: a forked child must not touch links that its parent's threads use. setdefault is atomic.
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, _Links())

    def interrupt(self) -> None:
        """End the reads under way, from another thread; each of them then fails with ``error_type="deadline"``.

        Raises nothing. A link that is still being opened ends by its own timeout.
        """
        for read in owned(self._links().reads.copy()):
            read.interrupted = True
            link = read.link
            if link is not None:
                with contextlib.suppress(Exception):
                    self._cut(link)

    def close(self) -> None:
        """Close idle links now and the others after use; later reads raise `StatsUnavailableError`. Idempotent."""
        self._closed = True
        idle = self._links().idle
        while idle:
            self._close_quietly(idle.pop())

    def _close_quietly(self, link: L) -> None:
        with contextlib.suppress(Exception):
            self._close(link)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._where!r}, {len(self._queues)} queues)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} does not pickle, for it holds credentials and connections: make one per process"
        )
