"""Fuzz one target with Atheris: ``python tests/fuzz/run.py configuration`` (or ``replies``), then libFuzzer's options.

It begins with the committed corpus. It ends after 60 seconds (``-max_total_time=``), or at the first input that breaks
the target's promise; this is written to ``target/fuzz``. An input worth keeping goes into ``corpus/``, where the
tests replay it.
"""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOUND = HERE.parent.parent / "target" / "fuzz"

# It has no types, and no wheel for some platforms of the tests.
atheris: Any = importlib.import_module("atheris")


def main(name: str, *options: str) -> None:
    """Never returns: libFuzzer ends the process."""
    logging.disable()
    corpus, found, words = HERE / "corpus" / name, FOUND / name, FOUND / f"{name}.dict"
    with atheris.instrument_imports(include=["backpressure", "redis", "tomllib", "cattrs"]):
        target = importlib.import_module(f"fuzz_{name}")
        for path in corpus.iterdir():  # imports modules that are imported on first use
            target.check(path.read_bytes())
    found.mkdir(parents=True, exist_ok=True)
    words.write_text("".join(f'"{word}"\n' for word in target.WORDS))
    arguments = [
        *(sys.argv[0], "-max_total_time=60", "-timeout=10", "-rss_limit_mb=1024", "-max_len=4096", f"-dict={words}"),
        *(f"-artifact_prefix={found}-", *options, str(found), str(corpus)),
    ]
    atheris.Setup(arguments, target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
