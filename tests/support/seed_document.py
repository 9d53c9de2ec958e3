"""The description this package was built from, `tests/data/seed.md`, split into its statements, code and names."""

from __future__ import annotations

import re
from pathlib import Path

DATA = Path(__file__).parent.parent / "data"
LINES = (DATA / "seed.md").read_text("utf-8").splitlines()

# Words of Go itself, which need no counterpart.
_GO = re.compile(
    "bool|defer|error|false|func|if|import|int|interface|map|nil|package|return|string|struct|true|type|var|_"
)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_CAMEL_CASE = re.compile(r"\b[A-Z][a-z]+(?:[A-Z]\w+)+")


def _code_lines() -> dict[int, str]:
    inside, found = False, {}
    for number, line in enumerate(LINES, 1):
        if line.startswith("```"):
            inside = not inside
        elif inside:
            found[number] = line
    return found


#: The lines of all code blocks, by number.
CODE = _code_lines()

#: Every line with content, by number and without its indentation: all except headings, fences and lone brackets.
STATEMENTS = {
    number: line.strip()
    for number, line in enumerate(LINES, 1)
    if re.search(r"\w", line) and not line.startswith("```") and (number in CODE or not line.startswith("#"))
}


def block(marker: str) -> list[str]:
    """Return the lines of the code block that holds `marker`."""
    number = next(number for number, line in CODE.items() if marker in line)
    first = last = number
    while first - 1 in CODE:
        first -= 1
    while last + 1 in CODE:
        last += 1
    return [CODE[each].strip() for each in range(first, last + 1)]


def names() -> set[str]:
    """Return every identifier of the code, and every word of the text that is written like one."""
    found: set[str] = set()
    for number, line in enumerate(LINES, 1):
        if number not in CODE:
            text = " ".join([*_CAMEL_CASE.findall(line), *re.findall(r"`([^`]+)`", line)])
        elif line.startswith("backpressure_"):  # a metric
            continue
        else:
            text = re.sub(r'`[^`]*`|"[^"]*"|//.*', " ", line)
        found.update(_IDENTIFIER.findall(text))
    return {name for name in found if not _GO.fullmatch(name)}


def snake(name: str) -> str:
    """Return a Go name in Python's way of writing."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
