"""The command line as a whole: help, version, completion, colours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import backpressure

if TYPE_CHECKING:
    from pathlib import Path

    from cli.conftest import Run

COMMANDS = (
    *("check", "explain", "top", "record", "recommend", "replay", "export", "serve", "demo"),
    *("fleet", "override", "emergency", "circuit", "audit"),
)
COLOUR = re.compile(r"\x1b\[[\d;]*3\d")


@pytest.mark.parametrize("command", [*COMMANDS, "import prometheus"])
def test_help_has_examples_that_parse(run: Run, command: str) -> None:
    result = run(*command.split(), "--help")

    assert result.exit_code == 0
    _, _, examples = result.stdout.partition("Examples:\n")
    lines = [line for line in examples.splitlines() if line.strip()]
    assert len(lines) >= 3
    options = re.findall(r"--[a-z-]+", result.stdout.partition("Examples:")[0])
    for line in lines:
        assert f"backpressure {command} " in f"{line} ", "an example is a line of its own"
        assert set(re.findall(r"--[a-z-]+", line)) <= set(options)


def test_help_keeps_brackets(run: Run) -> None:
    assert "redis://[user:password@]host[:port][/db]" in " ".join(run("top", "--help").stdout.split())


def test_help_shows_no_environment(run: Run) -> None:
    assert "hunter2" not in run("top", "--help", REDIS_URL="redis://:hunter2@localhost").stdout


def test_root_help_names_commands_and_exit_codes(run: Run) -> None:
    said = run("--help").stdout
    assert re.findall(r"^  ([a-z]+) ", said.partition("Commands:")[2], re.MULTILINE) == [*COMMANDS, "config", "import"]
    assert "..." not in said.partition("Commands:")[2], "no summary is cut short"
    assert "0 good, 1 a finding, 2 wrong usage" in " ".join(said.split())


def test_version(run: Run) -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (
        0,
        f"producer-backpressure {backpressure.__version__}, {backpressure.ENGINE} engine\n",
    )


@pytest.mark.parametrize("missing", [None, "click"])
def test_it_is_a_module_too(missing: str | None) -> None:
    code = f"import runpy, sys; sys.argv[1:] = ['--version']; sys.modules[{missing!r}] = None\n"
    code += "runpy.run_module('backpressure', run_name='__main__', alter_sys=True)"
    command = [sys.executable, *(["-m", "backpressure", "--version"] if missing is None else ["-c", code])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if missing is None:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("producer-backpressure ")
    else:
        assert done.returncode == 2
        assert "pip install 'producer-backpressure[cli]'" in done.stderr


@pytest.mark.parametrize("variable", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_it_counts_nothing_among_the_producers(tmp_path: Path, variable: str) -> None:
    command = [sys.executable, "-m", "backpressure", "explain", "--backlog", "3000"]
    subprocess.run(command, env={**os.environ, variable: str(tmp_path)}, check=True, capture_output=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("--nonsense",), ("check", "--nonsense")])
def test_wrong_usage_exits_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


MAIN = "import sys; from backpressure.cli import main; sys.exit(main())"


def backpressure_command(*arguments: str, **environ: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    ).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_takes_the_script_of_completion(tmp_path: Path, shell: str) -> None:
    script = backpressure_command("--show-completion", shell)
    assert f"_BACKPRESSURE_COMPLETE={shell}_complete" in script
    if shell != "bash":
        return
    # The function that the script defines completes what is typed: this package's command must be on the path.
    (tmp_path / "backpressure").write_text(f"#!{sys.executable}\n{MAIN}\n", "utf-8")
    (tmp_path / "backpressure").chmod(0o755)
    typed = "COMP_WORDS=(backpressure explain --circuit ''); COMP_CWORD=3; _backpressure_completion backpressure"
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{typed}\nprintf '%s ' \"${{COMPREPLY[@]}}\""],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["closed", "open", "half-open"]


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("backpressure ", [*COMMANDS, "config", "import"]),
        ("backpressure exp", ["explain", "export"]),
        ("backpressure explain --circuit ", ["closed", "open", "half-open"]),
        ("backpressure top --on", ["--once"]),
    ],
)
def test_completion_knows_commands_options_and_values(typed: str, completed: list[str]) -> None:
    words = backpressure_command(
        _BACKPRESSURE_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(typed.count(" "))
    )
    assert words.split() == [f"plain,{word}" for word in completed]


@pytest.mark.parametrize(
    "arguments", [("check", "--env"), ("explain", "--backlog", "750"), ("explain", "--backlog", "0")]
)
def test_no_color_is_honoured(arguments: tuple[str, ...]) -> None:
    plain = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    assert COLOUR.search(backpressure_command(*arguments, **plain)), "a terminal gets colours"
    assert not COLOUR.search(backpressure_command(*arguments, **plain, NO_COLOR="1"))


def test_a_pipe_gets_no_escapes() -> None:
    assert "\x1b" not in backpressure_command("explain", "--backlog", "750")
