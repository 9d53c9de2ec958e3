"""Reads many queues of any layouts in common rounds; a driver makes the exchange with the servers.

reading = Reading(layouts, now, redact=...)
while commands := reading.commands():
    reading.feed(replies_to(commands))
reading.results
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure._model.errors import StatsUnavailableError
from backpressure.providers.failures import NOTHING_SECRET, Redactor
from backpressure.providers.layouts._steps import COUNTED, Command, ErrorReply, Layout, text
from backpressure.providers.layouts.plain import ListKey, ZSetKey
from backpressure.providers.layouts.stream import StreamKey
from backpressure.providers.redis.errors import error_type, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from backpressure._model.stats import QueueStats
    from backpressure.providers.layouts._steps import Key, Steps

__all__ = ["Command", "Layout", "Reading"]

_SPECS = {"list": "ListKey({key!r})", "zset": "ZSetKey({key!r})", "stream": "StreamKey({key!r}, group=...)"}


class Reading:
    """One read of several queues, in rounds.

    Args:
        layouts: queue name -> where it lies.
        now: aware wall time at which the read began: the date of its samples and the limit of due scores.
        redact: takes credentials out of messages.
        types: queue name -> key with a wrong type and that type, as earlier reads found them; this read updates it.
        tick: called once per queue and round, so that a driver can let others run; does nothing by default.
    """

    def __init__(
        self,
        layouts: Mapping[str, Layout],
        now: datetime,
        *,
        redact: Redactor = NOTHING_SECRET,
        types: dict[str, tuple[Key, str]] | None = None,
        tick: Callable[[], object] = tuple,
    ) -> None:
        self.results: dict[str, QueueStats | StatsUnavailableError] = {}
        #: The first key of each queue, which tells the node of a cluster where it lies.
        self.keys: dict[str, Key] = {}
        self._layouts = layouts
        self._redact = redact
        self._tick = tick
        self._types: dict[str, tuple[Key, str]] = {} if types is None else types
        self._open: list[tuple[str, Steps, tuple[Command, ...]]] = []
        for name, layout in layouts.items():
            self._advance(name, layout.read(name, now), None)

    def commands(self) -> list[Command]:
        """Return what to send now; empty when every queue has its result."""
        return [command for *_, commands in self._open for command in commands]

    def feed(self, replies: Sequence[Any]) -> None:
        """Take the replies to `commands()`, in its order."""
        waiting, self._open = self._open, []
        replies = list(replies)
        position = 0
        for name, steps, commands in waiting:
            end = position + len(commands)
            self._advance(name, steps, replies[position:end])
            position = end

    def _advance(self, name: str, steps: Steps, replies: list[Any] | None) -> None:
        self._tick()
        try:
            # send(None) is how a generator starts; its type does not say so.
            commands = steps.send(replies)  # type: ignore[arg-type]
        except StopIteration as finished:
            self.results[name] = finished.value
            if self._types:
                self._types.pop(name, None)
        except ErrorReply as reply:
            self._advance(name, self._explain(name, reply.command, reply.error), None)
        except StatsUnavailableError as error:
            error.queue_name = error.queue_name or name
            # Drop context and frames: they hold redis-py's exceptions, which may quote credentials.
            error.__context__ = None
            self.results[name] = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - a layout may be foreign code, and must not harm other queues
            what = f"queue {name!r} by {self._layouts[name]!r}"
            self.results[name] = unavailable(error, what=what, queue_name=name, redact=self._redact)
        else:
            self._open.append((name, steps, commands))
            if replies is None and commands:
                self.keys[name] = commands[0].key

    def _explain(self, name: str, command: Command, error: BaseException) -> Steps:
        """Find out what is wrong with a queue, and raise it."""
        key = text(command.key)
        if error_type(error) != "wrongtype":
            raise unavailable(error, what=f"key {key!r} of queue {name!r}", queue_name=name, redact=self._redact)
        known, found = self._types.get(name, (None, ""))
        if known != command.key:
            (probe,) = yield (Command("type", command.key),)
            word = "" if isinstance(probe, BaseException) else text(probe)[:32]
            found = word if word and word.isprintable() else "something else"
            self._types[name] = command.key, found
        wanted = "set" if command.method == "smembers" else COUNTED.get(command.method, "stream")
        layout = self._layouts[name]
        if not isinstance(layout, (ListKey, ZSetKey, StreamKey)):
            advice = f"give the layout= of what keeps this queue, {layout!r} is not"
        elif found in _SPECS and found != wanted:
            advice = f'give {_SPECS[found].format(key=key)} for this queue, or layout = "{found}" in its section'
        else:
            advice = "it is no queue: correct the key"
        raise StatsUnavailableError(
            f"key {key!r} of queue {name!r} holds a {found}, not a {wanted}: {advice}",
            error_type="wrongtype",
            queue_name=name,
        )
