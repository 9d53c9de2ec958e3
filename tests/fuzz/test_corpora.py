"""Every input worth keeping still meets its target's promise; `run.py` looks for more."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import fuzz_configuration, fuzz_replies

CORPUS = Path(__file__).parent / "corpus"
TARGETS = {"configuration": fuzz_configuration.check, "replies": fuzz_replies.check}


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_of_the_corpus(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_there_is_a_corpus_for_each_target() -> None:
    assert {name: len(list((CORPUS / name).iterdir())) >= 10 for name in TARGETS} == dict.fromkeys(TARGETS, True)
