"""The guide's page of the command line shows what the commands print, and names options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Run

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "command-line.md").read_text("utf-8")
(FILE,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
CONSOLES = re.findall(r"```console\n\$ backpressure (.*?)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("arguments", "printed"), CONSOLES, ids=[arguments for arguments, _ in CONSOLES])
def test_it_prints_that(
    run_on_engine: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, printed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("backpressure.toml").write_text(FILE, "utf-8")
    result = run_on_engine(*shlex.split(arguments), COLUMNS="80")
    assert [line.rstrip() for line in result.output.splitlines()] == printed.splitlines()


def test_options_exist(run: Run) -> None:
    named_commands = (
        "check",
        "explain",
        "top",
        "serve",
        "record",
        "recommend",
        "replay",
        "export",
        "import prometheus",
        "demo",
        "fleet",
        "override",
        "audit",
        "config push",
    )
    helped = "".join(run(*command.split(), "--help").stdout for command in ("", *named_commands))
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert len(named) > 8
    assert named <= set(re.findall(r"--[a-z][a-z-]+", helped))
