"""Run the tests with the oldest release of every library that `pyproject.toml` allows, in an environment of its own.

Job frameworks are tried release by release in `tests/matrix.py`; here it is the libraries that this package itself
imports, by itself and by its extras. What those need, and the tools of the tests, are of today. Arguments are pytest's,
such as folders of tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / "target" / "floors"
UV = Path(sys.prefix) / "uv" / "bin" / "uv"  # `make floors` puts it there

#: Extras that are tools of ours, and no part of what users run.
NOT_RUN = {"bench", "dev", "docs", "smoke"}
#: What only tests import: in the release that is locked, or if need be in one that goes with libraries as old as ours.
TOOLS = (
    "confluent-kafka",
    "fakeredis",
    "freezegun",
    "hatchling",
    "httpx",
    "hypothesis",
    "packaging",
    "playwright",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "pyyaml",
    "structlog",
    "trio",
    "django>=5.2",
    "fastapi>=0.115.3",
    "moto[server,sqs]>=5.1",
    "opentelemetry-exporter-otlp-proto-http>=1.24",
    "opentelemetry-sdk>=1.24",
    "setuptools>=80,<81",
)
TESTS = ("console", "cli", "controller", "model", "providers", "recording", "runtime", "telemetry")
LEFT_OUT = (
    # They need job frameworks.
    "--ignore=tests/providers/layouts",
    "--ignore=tests/providers/test_postgres_presets.py",
    # The system's libpq may be too old for sslrootcert=system; the one that is locked comes in a wheel.
    "--deselect=tests/providers/test_postgres.py::TestContract::test_tls_that_fails[certificate]",
)


def run(*command: str | Path, environment: Path = Path(sys.prefix)) -> int:
    """Run a program from the root of the project, with the tools of an environment; return how it ended."""
    environ = {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": str(environment)}
    return subprocess.run([*map(str, command)], cwd=ROOT, check=False, env={**os.environ, **environ}).returncode


def must(*command: str | Path) -> None:
    """Run a program of the project's own environment; end with it if it fails."""
    if ended := run(*command):
        sys.exit(ended)


def tools() -> list[str]:
    """Return the requirements of the tests."""
    lock = (ROOT / "requirements" / "dev.txt").read_text("utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    return [f"{tool}=={locked[tool]}" if tool in locked else tool for tool in TOOLS]


def main(arguments: list[str]) -> int:
    """Make the environment anew, and run the tests in it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [f"--extra={extra}" for extra in project["optional-dependencies"] if extra not in NOT_RUN]
    with tempfile.TemporaryDirectory() as folder:
        needed, chosen = Path(folder, "tools.txt"), Path(folder, "floors.txt")
        needed.write_text("\n".join(tools()), "utf-8")
        lowest = ("--resolution", "lowest-direct", "--python-version", "3.11", "--no-header", "--no-annotate")
        must(UV, "--quiet", "pip", "compile", "pyproject.toml", needed, *extras, *lowest, "--output-file", chosen)
        print(chosen.read_text("utf-8"))
        must(UV, "--quiet", "venv", "--clear", "--python", sys.executable, ENVIRONMENT)
        python = ENVIRONMENT / "bin" / "python"
        must(UV, "--quiet", "pip", "install", "--python", python, "--requirement", chosen)
        # Not editable: that would take the extension of the other environment away, or put it there.
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        must(*pip, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, ".")
        must(UV, "--quiet", "pip", "install", "--python", python, "--no-deps", *Path(folder).glob("*.whl"))
    # Old releases have habits that are deprecated by now, which is no fault of ours.
    usual = ("-n", "auto", "--dist", "loadfile", "-p", "no:cacheprovider", "-o", "filterwarnings=ignore")
    wanted = arguments or [f"tests/{room}" for room in TESTS]
    return run(python, "-m", "pytest", *usual, *LEFT_OUT, *wanted, environment=ENVIRONMENT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
