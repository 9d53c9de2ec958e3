"""The options that say what producers do about advice, by priority and by queue."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs
import click

from backpressure._model.arguments import shown
from backpressure._model.config.fields import seconds_of
from backpressure._model.errors import ConfigurationError, RecordingError
from backpressure._recording.recording import Recording
from backpressure._replay.behaviour import Behaviour, Loops
from backpressure.cli._command import argument, gathered
from backpressure.cli._endings import Finding, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "BehaviourOptions",
    "behaviour_options",
    "opened",
    "queues_option",
    "readable",
    "recording_argument",
    "seconds",
]

_PRIORITIES = ("low", "medium", "high")
#: Fields of errors that stand for options.
_OPTIONS = ("mix", "target_age")
_INTERRUPTED = 130
_T = TypeVar("_T")

recording_argument = argument(
    "path", metavar="RECORDING", type=click.Path(path_type=Path), explained="As backpressure record makes one."
)
queues_option = click.option(
    "--queue", "-q", "queues", metavar="NAME", multiple=True, help="A queue; default all that are recorded. Repeatable."
)


@attrs.frozen
class BehaviourOptions:
    """What was said of producers."""

    returns: str | None
    return_after: str | None
    loops: tuple[str, ...]
    mix: str | None

    def of(self, name: str) -> Behaviour | None:
        """Return how producers of a queue behave; ``None``: nothing was said of them.

        Raises:
            Refusal: what was said is impossible.
        """
        loops = {priority: it for queue, priority, it in map(_loops, self.loops) if queue in (None, name)}
        if self.returns is None and self.return_after is None and not loops:
            return None
        returns = 0.0 if self.returns is None else by_priority("--return", self.returns, _part)
        after = None if self.return_after is None else seconds("--return-after", self.return_after)
        try:
            return Behaviour(returns=returns, return_after=after, loops=loops)
        except ConfigurationError as error:
            raise Refusal(str(error)) from None

    def parts(self) -> dict[str, float] | None:
        """Return the mix of priorities; ``None``: it was not given.

        Raises:
            Refusal: what was said is impossible.
        """
        if self.mix is None:
            return None
        given = by_priority("--mix", self.mix, _part)
        if not isinstance(given, dict):
            raise Refusal(
                f"--mix is {shown(self.mix)}: give a part for each priority, as in low=0.5,medium=0.4,high=0.1"
            )
        return given

    def check(self, queues: Sequence[str]) -> None:
        """Refuse loops of queues that are not there.

        Raises:
            Refusal: there are such.
        """
        for text in self.loops:
            queue, _, _ = _loops(text)
            if queue is not None and queue not in queues:
                raise Refusal(f"--loops names queue {shown(queue)}, which is not among {', '.join(queues)}")


#: Gives a command all of them, as its argument `producers`.
behaviour_options = gathered(
    "producers",
    BehaviourOptions,
    click.option(
        "--return",
        "returns",
        metavar="PART",
        help="Part of shed jobs that are offered again: 0.5, or by priority: low=0.5,medium=0.1.",
    ),
    click.option(
        "--return-after",
        metavar="TIME",
        help="When they are: 60, or 1m; default after the time that they were told.",
    ),
    click.option(
        "--loops",
        metavar="[QUEUE/]PRIORITY=N[:PAUSE][:paced][:skips]",
        multiple=True,
        help="So many producers wait for one job before they offer the next: mail/medium=30, or with the pause between "
        "the two: mail/medium=30:1s. With :paced that is a timer; with :skips they drop what is shed. Without a queue "
        "it holds for all. Repeatable.",
    ),
    click.option(
        "--mix",
        metavar="PARTS",
        help="Parts of the priorities where offers were not recorded: low=0.5,medium=0.4,high=0.1.",
    ),
)


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Turn what is wrong with a recording, or with an option, into how a command ends."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    except RecordingError as error:
        raise Finding(str(error)) from None
    except ConfigurationError as error:
        if error.field not in _OPTIONS:
            raise
        raise Refusal(f"--{str(error).replace('_', '-', 1)}") from None


def opened(file: Path, queues: Sequence[str]) -> tuple[Recording, list[str]]:
    """Return a recording, and the names of the queues that were asked for.

    Raises:
        RecordingError: it cannot be read.
        Finding: it has no queue, or not one that was asked for.
    """
    recording = Recording(file)
    there = recording.queues()
    missing = [name for name in queues if name not in there]
    if missing or not there:
        told = f"it has {', '.join(there)}" if there else "it has none"
        raise Finding(f"recording {file} has no queue {shown(missing[0]) if missing else ''}: {told}")
    return recording, sorted(set(queues)) or there


def by_priority(option: str, text: str, read: Callable[[str, str], _T]) -> _T | dict[str, _T]:
    """Return one value for all priorities, or those by priority.

    Raises:
        Refusal: the text is neither.
    """
    if "=" not in text:
        return read(option, text)
    values: dict[str, _T] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in _PRIORITIES or name in values:
            raise Refusal(f"{option} is {shown(text)}: give low=…, medium=… and high=…, each once")
        values[name] = read(option, value)
    return values


def seconds(option: str, text: str) -> float:
    """Return the seconds of a text such as ``90``, ``10m`` or ``1m30s``.

    Raises:
        Refusal: it is no such text.
    """
    if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", text.strip()):
        return float(text)
    found = seconds_of(text)
    if found is None:
        raise Refusal(f"{option} is {shown(text)}: give seconds, or a time such as 90s, 10m or 1h")
    return found


def _part(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Refusal(f"{option} is {shown(text)}: give a part from 0 to 1") from None


def _loops(text: str) -> tuple[str | None, str, Loops]:
    whose, _, count = text.rpartition("=")
    queue, _, priority = whose.rpartition("/")
    found = re.fullmatch(r"(\d{1,7})(?::(?!paced|skips)([^:]+))?(:paced)?(:skips)?", count)
    if priority not in _PRIORITIES or found is None:
        raise Refusal(
            f"--loops is {shown(text)}: write it as mail/medium=30, or mail/medium=30:1s with the pause, "
            "and :paced:skips if they are so"
        )
    pause = None if found[2] is None else seconds("--loops", found[2])
    try:
        return queue or None, priority, Loops(int(found[1]), pause, paced=bool(found[3]), skips=bool(found[4]))
    except ConfigurationError as error:
        raise Refusal(f"--loops: {error}") from None
