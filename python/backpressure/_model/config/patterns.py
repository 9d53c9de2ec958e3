"""Which sections of ``queues`` hold for a queue: the one of its name, then patterns, the most specific first.

In a pattern ``*`` stands for any text, also none. Of two patterns the one with more other characters is more specific;
if they have as many, the one that was given first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

__all__ = ["ANY", "is_pattern", "lineage", "matches", "patterns_of"]

#: Stands for any text.
ANY = "*"


def is_pattern(name: str) -> bool:
    """Tell whether a section is for all queues whose names match."""
    return ANY in name


def patterns_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns among `names`, the most specific first."""
    return tuple(sorted(filter(is_pattern, names), key=lambda name: -len(name.replace(ANY, ""))))


def matches(pattern: str, name: str) -> bool:
    """Tell whether a pattern matches a name. The native engine does the same."""
    first, *between, last = pattern.split(ANY)
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for part in between:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def lineage(names: Container[str], patterns: Sequence[str], name: str) -> Iterator[str]:
    """Yield the sections that hold for `name`, from its own on, each lying over the next.

    That is the section of this name; then the most specific pattern that matches, then the most specific of the
    patterns that match all that this one matches, and so on. `name` may be a pattern itself.

    Args:
        names: of all sections.
        patterns: those of `names`, as `patterns_of` returns them.
    """
    if name in names:
        yield name
    begun = not is_pattern(name) or name not in names
    for pattern in patterns:
        if begun and matches(pattern, name):
            yield pattern
            name = pattern  # a section lies over what matches the whole of it: its stars count as any text
        begun = begun or pattern == name
