"""An environment as users have it: the package comes from its own wheel, by the ``pip install`` that a page prints.

What the package needs is taken from the environment of the tests, so that nothing is downloaded.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
#: What of the tests' environment must not reach a user's.
_OURS = ("PYTHON", "PIP_", "VIRTUAL_ENV", "BACKPRESSURE_", "REDIS_URL", "PROMETHEUS_", "AWS_", "COLUMNS", "COVERAGE_")
_SCRIPT = """#!{python}
import sys
from {module} import {name}
sys.exit({call}())
"""


class Program:
    """A program that goes on, in a session of its own. Its output goes into a file, which never fills."""

    def __init__(self, command: str, folder: Path, variables: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["sh", "-c", re.sub(r"^((?:\w+=\S* )*)", r"\1exec ", command, count=1)],
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - background jobs ignore it
            )

    def output(self) -> str:
        """Return what it has printed so far."""
        return self._log.read_text("utf-8")

    def ended(self, sent: signal.Signals | None = None, seconds: float = 30.0) -> int:
        """Send it a signal, if one is given; return its exit code when it has ended."""
        if sent is not None:
            self._process.send_signal(sent)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it did not end within {seconds} s:\n{self.output()}")

    def kill(self) -> None:
        """End it and all that it has started, if it still runs."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class UserEnvironment:
    """A virtual environment, and programs that run in it. They are ended with it."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv" / "bin"
        self._variables = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self._variables |= {
            "PATH": f"{self.bin}{os.pathsep}{os.defpath}",
            "HOME": str(folder),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_FIND_LINKS": str(folder / "wheels"),
            "PIP_NO_INDEX": "1",
            "PYTHONUNBUFFERED": "1",
        }
        #: What the user has exported. It is forgotten when the test ends.
        self.variables: dict[str, str] = {}
        self._started: list[Program] = []
        self._installed: set[str] = set()
        others = folder / "others"
        others.mkdir()
        for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
            for entry in Path(place).iterdir():
                if entry.suffix != ".pth" and not entry.name.startswith(("producer_backpressure", "__editable__")):
                    (others / entry.name).symlink_to(entry)
        _quietly(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"))
        (site,) = (folder / "venv").glob("lib/python*/site-packages")
        (site / "others.pth").write_text(f"{others}\n", "utf-8")
        self._write_scripts(others)

    def _write_scripts(self, others: Path) -> None:
        """Write the commands of what is installed already, as pip would have done."""
        for distribution in importlib.metadata.distributions(path=[str(others)]):
            for entry in distribution.entry_points.select(group="console_scripts"):
                name = entry.attr.partition(".")[0]
                script = _SCRIPT.format(python=self.bin / "python", module=entry.module, name=name, call=entry.attr)
                (self.bin / entry.name).write_text(script, "utf-8")
                (self.bin / entry.name).chmod(0o755)

    def run(
        self, command: str, folder: Path, variables: Mapping[str, str] | None = None, *, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of shell in `folder`; fail unless it exits with `code`."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env={**self._variables, **self.variables, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == code, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def install(self, command: str, folder: Path) -> None:
        """Run the ``pip install`` of a page, unless that was done before."""
        if command not in self._installed:
            self.run(command, folder)
            self._installed.add(command)

    def start(self, command: str, folder: Path, variables: Mapping[str, str] | None = None) -> Program:
        """Start a line of shell that goes on."""
        log = folder / f"output-{len(self._started)}"
        program = Program(command, folder, {**self._variables, **self.variables, **(variables or {})}, log)
        self._started.append(program)
        return program

    def end(self) -> None:
        """End all that was started and still runs."""
        while self._started:
            self._started.pop().kill()
        self.variables = {}


def _quietly(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def installable(tmp_path_factory: pytest.TempPathFactory) -> UserEnvironment:
    """An environment that finds this package's wheel, and has not installed it yet."""
    folder = tmp_path_factory.mktemp("user")
    wheel = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps")
    _quietly(*wheel, "--no-build-isolation", "-Cpure-python=true", "--wheel-dir", str(folder / "wheels"), str(ROOT))
    return UserEnvironment(folder)


@pytest.fixture
def user(installable: UserEnvironment) -> Iterator[UserEnvironment]:
    """A user's environment. What a test has started in it ends with the test."""
    yield installable
    installable.end()
