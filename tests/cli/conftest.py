"""How tests call the command line: in this process, without the caller's environment, and on each engine if wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest
from click.testing import CliRunner

from backpressure._engine import choice
from backpressure.cli import application

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from backpressure._engine.border import EngineModule


class Run(Protocol):
    """Calls ``backpressure`` with these arguments."""

    def __call__(self, *arguments: str | Path | float, **environ: str) -> Result: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("REDIS_URL", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str | Path | float, **environ: str) -> Result:
        result = CliRunner().invoke(application(), list(map(str, arguments)), env=environ, prog_name="backpressure")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def run_on_engine(run: Run, engine_name: str, engine_module: EngineModule, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run`, on each engine in turn."""
    monkeypatch.setattr(choice, "ENGINE", engine_name)
    return run
