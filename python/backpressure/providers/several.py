"""Several providers as one: each queue is read where it lies, and a server that hangs holds up no other."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from backpressure._model.arguments import validate_queue_name
from backpressure._model.clock import own_time
from backpressure._model.errors import StatsUnavailableError
from backpressure._runtime.reading import owner, owning
from backpressure._runtime.threads import spawn

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Mapping, Sequence

    from backpressure._fleet.ride import Rider
    from backpressure._model.stats import QueueStats
    from backpressure.providers.layouts import Layout
    from backpressure.providers.linked import Outcome

__all__ = ["Member", "Places", "SeveralProviders"]

# Seconds in which an interrupted read may still end by itself.
_GRACE = 0.01
# Reads of one server that may hang at one time: each has a thread.
_MAX_HUNG = 2


class Member(Protocol):
    """The provider of one server's queues."""

    def get_many(self, queue_names: Iterable[str], /) -> Mapping[str, Outcome]:
        """Read several queues."""
        ...

    def interrupt(self) -> None:
        """End the reads under way."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class Places(Protocol):
    """Knows which server each queue lies on."""

    @property
    def names(self) -> Sequence[str]:
        """The queues that are read from the start."""
        ...

    def member_of(self, queue_name: str) -> Member:
        """Return the provider that reads a queue, or raise a `StatsUnavailableError`."""
        ...

    def members(self) -> Sequence[Member]:
        """Return all providers that there are by now."""
        ...

    def told_of(self, queue_name: str) -> str:
        """Say in a word what is read of a queue."""
        ...

    def layout_of(self, queue_name: str) -> Layout | None:
        """Return how a queue lies in Redis; ``None`` if it lies elsewhere."""
        ...


class _Share:
    """What one member reads in one call, perhaps on a thread of its own."""

    def __init__(self, member: Member, names: Sequence[str]) -> None:
        self.member = member
        self.names = names
        self.done = False
        self.failure: StatsUnavailableError | None = None
        self._owner = owner()
        self._outcomes: Mapping[str, Any] = {}

    def run(self) -> None:
        try:
            self._outcomes = owning(self._owner, lambda: self.member.get_many(self.names))
        except StatsUnavailableError as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001 - one member must not spoil the others
            self.failure = StatsUnavailableError(f"{self.member!r} raised {type(error).__name__}")
        finally:
            self.done = True

    def interrupt(self) -> None:
        with contextlib.suppress(Exception):
            owning(self._owner, self.member.interrupt)

    def outcomes(self) -> dict[str, Any]:
        """Return what is known of each of its queues."""
        failure = self.failure
        return dict(self._outcomes) if failure is None else dict.fromkeys(self.names, failure)


def _where(member: Member) -> str:
    return str(getattr(member, "_where", member))


class SeveralProviders:
    """A `StatsProvider` of queues on several servers; `backpressure.providers.from_config` makes it.

    Servers are read at the same time, each on a thread. One that takes longer than `timeout` seconds is interrupted,
    and only its queues have errors. Thread-safe; a forked child opens connections of its own.
    """

    def __init__(self, places: Places, *, timeout: float) -> None:
        self._places = places
        self._timeout = timeout
        # By process.
        self._unfinished: dict[int, set[_Share]] = {}
        self._closed = False

    @property
    def shares_server(self) -> bool:
        """See `backpressure.StatsProvider`."""
        return all(getattr(member, "shares_server", False) for member in self._places.members())

    def least_gap_of(self, queue_name: str) -> float:
        """Return ``least_gap`` of the provider that reads a queue, see `backpressure.StatsProvider`."""
        try:
            member = self._places.member_of(queue_name)
        except StatsUnavailableError:
            return 0.0  # a read tells why
        gap: float = getattr(member, "least_gap", 0.0)
        return gap

    def budget_store(self, queue_name: str) -> Any:
        """Return what keeps the budget of a queue whose age is held: its own Redis, or ``None``."""
        keeps = getattr(self._places.member_of(queue_name), "budget_store", None)
        return None if keeps is None else keeps(queue_name)

    def carry(self, rider: Rider, target: Any = None) -> bool:
        """Have the reads of a member carry a fleet's commands; tell whether one does.

        It is the one whose server is `target`, or without a target the only one that lies in Redis.
        """
        able = [carry for member in self._places.members() if (carry := getattr(member, "carry", None)) is not None]
        if target is None and len(able) != 1:
            return False
        return any(carry(rider, target) for carry in able)

    def memory_cautions(self) -> list[tuple[int, str]]:
        """Return what users should know of the servers' limits of memory, with levels of the log."""
        told: list[tuple[int, str]] = []
        for member in self._places.members():
            told += getattr(member, "memory_cautions", tuple)()
        return told

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        """Read one queue.

        Raises:
            StatsUnavailableError: it could not be read; ``error_type`` tells why.
            InvalidQueueError: the name cannot name a queue.
        """
        outcome = self.get_many([queue_name])[queue_name]
        if isinstance(outcome, StatsUnavailableError):
            raise outcome
        return outcome

    def get_all_queue_stats(self) -> Mapping[str, Outcome]:
        """Read the queues that the configuration names.

        Raises:
            StatsUnavailableError: nothing could be read.
        """
        return self.get_many(self._places.names)

    def get_many(self, queue_names: Iterable[str]) -> Mapping[str, Outcome]:
        """Read several queues.

        Raises:
            StatsUnavailableError: nothing could be read.
            InvalidQueueError: a name cannot name a queue.
        """
        if self._closed:
            raise StatsUnavailableError("this provider is closed: make a new one")
        outcomes: dict[str, Any] = {}
        by_member: dict[Member, list[str]] = {}
        for name in map(validate_queue_name, queue_names):
            try:
                by_member.setdefault(self._places.member_of(name), []).append(name)
            except StatsUnavailableError as error:
                outcomes[name] = error
        shares = [_Share(member, names) for member, names in by_member.items()]
        if len(shares) == 1:
            shares[0].run()
        else:
            self._run(shares)
        failures = [share.failure for share in shares if share.failure is not None]
        if shares and not outcomes and len(failures) == len(shares):
            if len(failures) == 1:
                raise failures[0]
            raise StatsUnavailableError(
                f"no server could be read: {'; '.join(map(str, failures))}", error_type=failures[0].error_type
            )
        for share in shares:
            outcomes |= share.outcomes()
        return outcomes

    def _run(self, shares: Sequence[_Share]) -> None:
        """Run each share on a thread of its own, until the time is up."""
        unfinished = self._unfinished.setdefault(os.getpid(), set())
        unfinished -= {share for share in unfinished.copy() if share.done}
        threads: list[tuple[_Share, threading.Thread]] = []
        for share in shares:
            if sum(other.member is share.member for other in unfinished.copy()) >= _MAX_HUNG:
                share.failure = self._late(share, "hangs: an earlier read of it has not ended yet")
                continue
            unfinished.add(share)
            try:
                threads.append((share, spawn(share.run, "read")))
            except RuntimeError as error:
                unfinished.discard(share)
                share.failure = StatsUnavailableError(f"no thread is left to read on: {error}")
        end = own_time.monotonic() + self._timeout
        for _, thread in threads:
            thread.join(max(0.0, end - own_time.monotonic()))
        late = [(share, thread) for share, thread in threads if not share.done]
        for share, _ in late:
            share.interrupt()
        for share, thread in late:
            thread.join(_GRACE)
            if not share.done:
                share.failure = self._late(share, f"took longer than {self._timeout:g} s")
        unfinished -= {share for share in shares if share.done}

    def _late(self, share: _Share, what: str) -> StatsUnavailableError:
        return StatsUnavailableError(
            f"{share.member!r} {what}: look at the server, or raise polling.timeout", error_type="deadline"
        )

    def servers(self) -> list[str]:
        """Return the servers as messages show them, without credentials."""
        return list(map(_where, self._places.members()))

    def server_of(self, queue_name: str) -> str:
        """Return that of one queue.

        Raises:
            StatsUnavailableError: it is not read.
        """
        return _where(self._places.member_of(queue_name))

    def told_of(self, queue_name: str) -> str:
        """Say in a word what is read of a queue: ``"rq"``, ``"stream"``, ``"kafka"`` and so on."""
        return self._places.told_of(queue_name)

    def interrupt(self) -> None:
        """End the reads under way, from another thread. Raises nothing."""
        for member in self._places.members():
            with contextlib.suppress(Exception):
                member.interrupt()

    def close(self) -> None:
        """Close all connections; later reads raise `StatsUnavailableError`. Idempotent."""
        self._closed = True
        for member in self._places.members():
            with contextlib.suppress(Exception):
                member.close()

    def _names(self) -> list[str]:
        """See `RedisProvider`: hooks compare where it reads with where their framework writes."""
        return list(self._places.names)

    def _layout_of(self, queue_name: str) -> Layout | None:
        return self._places.layout_of(queue_name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._places.members()))})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} does not pickle, for it holds credentials and connections: make one per process"
        )
