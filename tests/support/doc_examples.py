"""Runs examples of the documentation: with the public names, on one engine and on a clock that sleeps move."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import re
import sys
import types
from typing import TYPE_CHECKING, Any, NamedTuple

import backpressure
from backpressure import providers, replay, testing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ON_AN_ENGINE = ("AsyncBackpressureController", "BackpressureController", "CircuitBreaker")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a Markdown page."""
    text = page.read_text("utf-8")
    for fence in _FENCE.finditer(text):
        yield Block(fence[1], fence[2], text.count("\n", 0, fence.start()) + 1)


def on_engine(engine_name: str) -> dict[str, Any]:
    """Return the classes that run on an engine, changed so that they run on this one and sleep no real time."""

    def pinned(kind: type[Any]) -> type[Any]:
        def init(self: Any, *args: Any, **options: Any) -> None:
            kind.__init__(
                self, *args, **{"clock": testing.ManualClock(sleep_advances=True), "_engine": engine_name, **options}
            )

        return type(kind.__name__, (kind,), {"__init__": init, "__module__": kind.__module__})

    return {name: pinned(getattr(backpressure, name)) for name in _ON_AN_ENGINE}


def namespace(engine_name: str) -> dict[str, Any]:
    """Return the names that examples in docstrings may use without an import."""
    modules = (backpressure, providers, replay, testing)
    names = {name: getattr(module, name) for module in modules for name in module.__all__}
    return {**names, "asyncio": asyncio, **on_engine(engine_name)}


def run_page(page: Path, replaced: Mapping[str, str]) -> None:
    """Run the Python blocks of a page in order, as one program; each output must be the ``text`` block after it."""
    module = types.ModuleType("__page__")
    sys.modules[module.__name__] = module  # frameworks look here for the functions that they get
    names = module.__dict__
    fences = [*blocks(page), Block("", "", 0)]
    for block, after in itertools.pairwise(fences):
        if block.language != "python":
            continue
        code = block.text
        for old, new in replaced.items():
            code = code.replace(old, new)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            # The newlines make a traceback tell the line of the page.
            exec(compile("\n" * block.line + code, str(page), "exec"), names)
        shown = after.text if after.language == "text" else ""
        assert output.getvalue() == shown, f"{page}:{block.line} does not print that, but\n{output.getvalue()}"
