"""The way from a recording to enforcing works as the guide prints it, on the week that is shipped."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backpressure import ENGINE, BackpressureConfig

if TYPE_CHECKING:
    from cli.conftest import Run

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide"
WEEK = ROOT / "examples" / "week" / "week.bpr"
PAGE = (GUIDE / "migration.md").read_text("utf-8")
#: A command, and what stands below it.
COMMAND = re.compile(r"^(?:\$ )?backpressure (.*)\n((?:(?!backpressure ).*\n)*)", re.MULTILINE)
FENCES = re.findall(r"^```(console|sh|toml)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.skipif(ENGINE == "pure", reason="replays of a week take minutes in Python")
@pytest.mark.timeout(180)
def test_migration_from_the_first_command_to_the_last(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(WEEK, "week.bpr")
    commands = 0
    for language, text in FENCES:
        if language == "toml":
            continue
        for command, printed in re.findall(
            r"^(?:\$ )?backpressure (.*)\n((?:(?!backpressure ).*\n)*)", text, re.MULTILINE
        ):
            result = run(*shlex.split(command), COLUMNS="80")
            assert result.exit_code == 0, result.output
            commands += 1
            if language == "console":
                assert [line.rstrip() for line in result.stdout.splitlines()] == printed.splitlines()
    assert commands == 5
    assert Path("report.html").stat().st_size > 5_000
    reasons, share = (text for language, text in FENCES if language == "toml")
    assert reasons in Path("policy.toml").read_text("utf-8")
    in_a_share = BackpressureConfig.from_mapping(
        tomllib.loads(Path("policy.toml").read_text("utf-8")) | tomllib.loads(share)
    )
    assert (in_a_share.mode, in_a_share.enforce_share) == ("enforce", 0.1)


@pytest.mark.parametrize("page", ["migration", "recommend", "replay", "recording", "command-line"])
def test_options_of_recordings_exist(run: Run, page: str) -> None:
    text = (GUIDE / f"{page}.md").read_text("utf-8")
    checked = 0
    for name in ("recommend", "replay", "export"):
        helped = set(re.findall(r"--[a-z][a-z-]+", run(name, "--help").stdout))
        for line in re.findall(rf"^(?:\$ )?backpressure {name} .*$", text, re.MULTILINE):
            assert set(re.findall(r"--[a-z][a-z-]+", line)) <= helped
            checked += 1
    assert checked
