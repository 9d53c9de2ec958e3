"""A recommendation as a file of settings: TOML, with the reason beside each number."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from backpressure._recommend.values import RecommendedQueue

__all__ = ["toml_of"]

_HEAD = """\
# Made by backpressure recommend from {source}.
# To begin with it only observes. Replay it, observe it, enforce it for a share, then for all.
mode = "observe"
"""


def toml_of(source: str, queues: Sequence[RecommendedQueue]) -> str:
    """Return the file."""
    return "\n".join([_HEAD.format(source=_one_line(source)), *map(_queue, queues)])


def _queue(queue: RecommendedQueue) -> str:
    lines = [f"# {queue.queue_name}: confidence {queue.confidence}", *(f"# {fact}" for fact in queue.facts)]
    best = queue.best
    if best is None:
        return "\n".join([*lines, f"# nothing is recommended: {queue.missing}", ""])
    lines.append(f"# chosen of {len(queue.candidates)} that were replayed: {best.name}")
    tables = _tables(("queues", queue.queue_name), best.settings)
    for path, values in tables:
        lines.append(f"[{'.'.join(map(_key, path))}]")
        for key, value in values.items():
            reason = best.reasons.get(".".join((*path[2:], key)))
            lines.append(f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}" + (f"  # {reason}" if reason else ""))
    return "\n".join([*map(_one_line, lines), ""])


def _tables(path: tuple[str, ...], section: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    plain = {key: value for key, value in section.items() if not isinstance(value, dict)}
    if plain:
        yield path, plain
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _tables((*path, key), value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_]+", key) else json.dumps(key, ensure_ascii=False)


def _one_line(text: str) -> str:
    """Return a text without what would end a comment, or what TOML has none of."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)
