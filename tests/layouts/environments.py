"""Where the real job frameworks run: an environment each, for their requirements exclude each other.

``python tests/layouts/environments.py`` makes them all under ``target/matrix`` and runs the tests in them;
``... rq-3 arq`` only those. Frameworks of JavaScript need node and npm.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "target" / "matrix"
PAGE = ROOT / "docs" / "guide" / "queues.md"
BEGIN, END = "<!-- releases: written by make matrix -->", "<!-- end of releases -->"
PROGRAMS = Path(__file__).parent / "frameworks"


class Environment(NamedTuple):
    """One release of one framework: what is installed, and the program that fills its queues."""

    framework: str
    requirements: tuple[str, ...]
    program: str


ENVIRONMENTS = {
    "rq-1": Environment("rq", ("rq==1.16.2", "redis<6"), "rq_jobs.py"),
    "rq-2": Environment("rq", ("rq==2.12.0",), "rq_jobs.py"),
    "rq-3": Environment("rq", ("rq==3.0.0",), "rq_jobs.py"),
    "celery": Environment("celery", ("celery[redis]==5.7.0",), "celery_jobs.py"),
    "celery-5.4": Environment("celery", ("celery[redis]==5.4.0", "kombu[redis]<5.5"), "celery_jobs.py"),
    "dramatiq": Environment("dramatiq", ("dramatiq[redis]==2.2.1",), "dramatiq_jobs.py"),
    "dramatiq-1": Environment("dramatiq", ("dramatiq[redis]==1.17.1",), "dramatiq_jobs.py"),
    "arq": Environment("arq", ("arq==0.28.0",), "arq_jobs.py"),
    "huey": Environment("huey", ("huey==3.5.4", "redis"), "huey_jobs.py"),
    "saq": Environment("saq", ("saq[redis]==0.26.4", "typing-extensions"), "saq_jobs.py"),
    "taskiq": Environment("taskiq", ("taskiq-redis==1.2.4", "taskiq==0.13.0"), "taskiq_jobs.py"),
    "streaq": Environment("streaq", ("streaq==7.2.0",), "streaq_jobs.py"),
    "bullmq-5": Environment("bullmq", ("bullmq@5.81.5", "ioredis"), "bullmq_jobs.mjs"),
    "bullmq-6": Environment("bullmq", ("bullmq@6.2.0", "ioredis"), "bullmq_jobs.mjs"),
}


def command(name: str, url: str) -> list[str]:
    """Return what fills the queues of an environment's framework on a server."""
    folder, program = FOLDER / name, ENVIRONMENTS[name].program
    if program.endswith(".mjs"):
        return ["node", str(PROGRAMS / program), url, str(folder / "package.json")]
    return [str(folder / "bin" / "python"), str(PROGRAMS / program), url]


def make(name: str) -> None:
    """Make an environment, unless it is there with the same requirements."""
    environment, folder = ENVIRONMENTS[name], FOLDER / name
    stamp = folder / "requirements"
    wanted = "\n".join(environment.requirements)
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return
    print(f"making {folder.relative_to(ROOT)}: {', '.join(environment.requirements)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    if environment.program.endswith(".mjs"):
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true}', "utf-8")
        install = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder)]
    else:
        venv.create(folder, with_pip=True)
        install = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*install, *environment.requirements], check=True)
    stamp.write_text(wanted, "utf-8")


def releases() -> str:
    """Return the table of what was tested."""
    by_framework: dict[str, list[str]] = {}
    for environment in ENVIRONMENTS.values():
        # Of its requirements the framework itself comes first, then what it would leave out or get too new.
        by_framework.setdefault(environment.framework, []).append(environment.requirements[0])
    rows = [f"| {name} | {', '.join(f'`{one}`' for one in tested)} |" for name, tested in by_framework.items()]
    return "\n".join(["| framework | releases |", "|---|---|", *rows])


def write_releases() -> None:
    """Put the table into the guide."""
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{releases()}\n\n{END}{rest.split(END)[1]}", "utf-8")


def main(names: list[str]) -> int:
    """Make the environments and run the tests in them; if all pass, tell so in the guide."""
    for name in names or ENVIRONMENTS:
        make(name)
    tests = str(Path(__file__).parent / "test_frameworks.py")
    chosen = {**os.environ, "BACKPRESSURE_MATRIX": ",".join(names or ENVIRONMENTS)}
    status = subprocess.run([sys.executable, "-m", "pytest", tests], cwd=ROOT, env=chosen, check=False).returncode
    if not (status or names):
        write_releases()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
