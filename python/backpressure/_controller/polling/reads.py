"""What to read next: one generator decides it, for polls and for callers.

It does no I/O and waits for nothing: it yields requests, and is sent the answer to each, or is thrown the `Exception`
that came instead. A thread and a task carry the requests out, each in its own way.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from backpressure._model.errors import StatsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

__all__ = ["CutOffError", "ReadAll", "ReadMany", "ReadOne", "Reads", "Request"]


class ReadAll(NamedTuple):
    """Read what the provider lists."""

    def of(self, provider: Any) -> Any:
        """Return what the provider answers; an awaitable of that, where it is asynchronous."""
        return provider.get_all_queue_stats()


class ReadMany(NamedTuple):
    """Read some queues in one go."""

    queue_names: list[str]

    def of(self, provider: Any) -> Any:
        """As `ReadAll.of`."""
        return provider.get_many(self.queue_names)


class ReadOne(NamedTuple):
    """Read one queue."""

    queue_name: str

    def of(self, provider: Any) -> Any:
        """As `ReadAll.of`."""
        return provider.get_queue_stats(self.queue_name)


class CutOffError(StatsUnavailableError):
    """The error of a queue whose own read was under way when the poll's time was over."""


Request = ReadAll | ReadMany | ReadOne


def _never() -> bool:
    return False


class Reads:
    """The reads of one provider. Thread-safe: several may be under way, some of which hang.

    Args:
        known: returns the names of the queues that the engine knows; not called for reads of callers.
        spares: tells whether queues that were slow are to be left out, for others to be read at all.
    """

    def __init__(
        self, provider: object, known: Callable[[], list[str]] = list, spares: Callable[[], bool] = _never
    ) -> None:
        #: Whether several queues can be read in one go.
        self.together = getattr(provider, "get_many", None) is not None
        self._known = known
        self._spares = spares
        self._rotation = 0
        # Queues whose own read was cut off: they are read last, not to use up the others' time.
        self._slow: set[str] = set()
        # Queues whose own reads have not ended yet, by process; some hang for longer than their poll.
        self._unread: dict[int, set[str]] = {}

    def steps(
        self, collected: dict[str, Any], queue_names: list[str] | None = None, is_over: Callable[[], bool] = _never
    ) -> Generator[Request, Any, None]:
        """Read some queues for callers, or everything, into `collected`: samples, and errors of single queues.

        Other errors are raised. Everything is all that the provider lists, and then the known queues that it left out;
        no further one of these is begun once `is_over`.
        """
        if queue_names is None:
            collected.update((yield ReadAll()))
            left_out = [name for name in self._known() if name not in collected]
            if left_out and self.together:
                collected.update((yield ReadMany(left_out)))
            elif left_out:
                yield from self._one_by_one(left_out, collected, is_over)
        elif len(queue_names) == 1:
            collected[queue_names[0]] = yield ReadOne(queue_names[0])
        elif self.together:
            collected.update((yield ReadMany(queue_names)))
        else:
            for name in queue_names:
                if is_over():
                    return
                try:
                    collected[name] = yield ReadOne(name)
                except Exception as error:  # noqa: BLE001 - one queue's error spoils no other
                    collected[name] = error

    def _one_by_one(
        self, queue_names: list[str], collected: dict[str, Any], is_over: Callable[[], bool]
    ) -> Generator[ReadOne, Any, None]:
        """Begin where the last poll was cut off, so that every queue gets its turn; skip what still hangs."""
        unread = self._unread.setdefault(os.getpid(), set())
        self._slow &= set(queue_names)
        first = self._rotation % len(queue_names)
        in_turn = list(enumerate(queue_names[first:] + queue_names[:first], first + 1))
        in_turn.sort(key=lambda turn: turn[1] in self._slow)  # stable
        for position, name in in_turn:
            if is_over():
                return
            self._rotation = position
            if name in unread or (name in self._slow and self._spares()):
                collected[name] = StatsUnavailableError(
                    "an earlier read of it has not ended yet", error_type="deadline"
                )
                continue
            unread.add(name)
            # What stays if it is cut off: that concerns this queue alone.
            collected[name] = CutOffError("its read took too long, and was ended", error_type="deadline")
            try:
                collected[name] = yield ReadOne(name)
            except Exception as error:  # noqa: BLE001 - one queue's error spoils no other
                collected[name] = error
            finally:
                unread.discard(name)
            if not is_over():  # else it ends long after it was cut off
                self._slow.discard(name)

    def quick(self, queue_names: list[str]) -> list[str]:
        """Return those of some queues whose own reads neither hang nor were cut off."""
        unread = self._unread.get(os.getpid(), ())
        return [name for name in queue_names if name not in self._slow and name not in unread]

    def note_slow(self, queue_names: list[str], collected: Mapping[str, Any]) -> None:
        """Note which of some queues was being read as a read before their time was cut short, where that is known."""
        if not self.together:
            self._slow.update([name for name in queue_names if name not in collected][:1])

    def note_cut(self, collected: Mapping[str, Any]) -> bool | None:
        """Note which queue's own read cut a poll short; tell whether that is new, ``None`` if none did."""
        cut = [name for name, outcome in collected.items() if isinstance(outcome, CutOffError)]
        fresh = [name for name in cut if name not in self._slow]
        self._slow.update(cut)
        return bool(fresh) if cut else None
