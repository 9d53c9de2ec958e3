"""The pages of ``docs/stacks``: their files and commands are taken out of the text, and run as a reader would.

A block whose first line is ``# name.py`` (or of another ending) is a file. Each line of a block ``sh`` is a command. A
block ``text`` after one with a single command holds lines that it prints.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, NamedTuple, Self

import redis

from support import doc_examples, redis_fixtures, servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "stacks"
ALERTS = ROOT / "ops" / "alerts.yml"
SERVER = "redis://localhost:6379/0"
SITE = "localhost:8000"
#: In this order on every page.
SECTIONS = (
    "Install",
    "Configure",
    "Where the controller lives",
    "The code that enqueues",
    "What workers and schedulers do",
    "What users see",
    "See it",
    "Roll it out",
    "What can go wrong",
)
SECONDS = 30
_FILE = re.compile(r"# ([\w./-]+\.\w+)\n")


class File(NamedTuple):
    """A file that a page shows."""

    section: str
    name: str
    text: str


class Command(NamedTuple):
    """A command that a page shows, and the lines that it says are printed."""

    section: str
    line: str
    printed: tuple[str, ...]


class Page:
    """A page of a stack."""

    def __init__(self, name: str) -> None:
        self.path = PAGES / f"{name}.md"
        self.text = self.path.read_text("utf-8")
        self.sections = re.findall(r"^## (.*)$", self.text, re.MULTILINE)
        self.files: list[File] = []
        self.commands: list[Command] = []
        self.printed: list[str] = []
        command: Command | None = None
        for block in doc_examples.blocks(self.path):
            above = "\n".join(self.text.splitlines()[: block.line])
            section = (re.findall(r"^## (.*)$", above, re.MULTILINE) or [""])[-1]
            lines = tuple(block.text.splitlines())
            if block.language == "sh":
                commands = [Command(section, line, ()) for line in lines]
                self.commands += commands
                command = commands[0] if len(commands) == 1 else None
                continue
            if block.language == "text":
                self.printed += lines
                if command is not None:
                    self.commands[-1] = command._replace(printed=lines)
            elif (name_line := _FILE.match(block.text)) is not None:
                self.files.append(File(section, name_line[1], block.text[name_line.end() :].lstrip("\n")))
            command = None

    def installs(self) -> Iterator[str]:
        """Yield what the page tells to install."""
        for command in self.commands:
            if command.line.startswith("pip install "):
                yield from shlex.split(command.line)[2:]


def is_installed(requirement: str) -> bool:
    """Tell whether a requirement, with its extras, is installed here, as a page tells to do."""
    name, extras = re.fullmatch(r"([\w-]+)(?:\[([\w,]+)\])?", requirement).groups()  # type: ignore[union-attr]
    try:
        offered = metadata.metadata(name).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return False
    return set(extras.split(",") if extras else ()) <= set(offered)


class Stack:
    """What a page builds, in a folder of its own, on servers of its own; it ends with the ``with`` block."""

    def __init__(self, page: Page, folder: Path, redis_url: str, *sections: str, **env: str) -> None:
        self.page = page
        self.folder = folder
        self.sections = sections
        self.store = redis.Redis.from_url(redis_url, decode_responses=True)
        self.port = servers.free_port()
        self._replaced = {SERVER: redis_url, SITE: f"{servers.HOST}:{self.port}", "8000": str(self.port)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # Variables of the tests are no settings of the page's.
        ours = {k: v for k, v in os.environ.items() if not k.startswith("BACKPRESSURE_") or k.endswith("_ENGINE")}
        self._env = {
            **ours,
            "PATH": path,
            "COLUMNS": "80",
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "HOME": str(folder),
            **env,
        }
        self._left = [command for command in page.commands if self._is_ours(command.section)]
        self._started: list[subprocess.Popen[bytes]] = []
        for file in page.files:
            if self._is_ours(file.section):
                target = folder / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(self._here(file.text), "utf-8")

    def _is_ours(self, section: str) -> bool:
        return not self.sections or section in self.sections

    def _here(self, text: str) -> str:
        for old, new in self._replaced.items():
            text = text.replace(old, new)
        return text

    def left(self) -> list[str]:
        """Return the commands of the page that were not run."""
        return [command.line for command in self._left]

    def _take(self, begin: str) -> tuple[Command, list[str], dict[str, str]]:
        """Return the page's next command that begins so, its words here and its environment."""
        command = next(command for command in self._left if f" {command.line}".find(f" {begin}") >= 0)
        self._left.remove(command)
        env = dict(self._env)
        words = [Template(word).safe_substitute(env) for word in shlex.split(self._here(command.line))]
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        if (found := shutil.which(words[0], path=env["PATH"])) is None:
            redis_fixtures.no_server(f"no {words[0]}")
        return command, [str(found), *words[1:]], env

    def set_up(self, *elsewhere: str) -> None:
        """Do what the commands ``export`` and ``pip install`` tell: of the last, see that it was done.

        What is `elsewhere` is the tree that is tested, in an environment that does not have it installed.
        """
        for command in self._left.copy():
            words = shlex.split(self._here(command.line))
            if words[0] == "export":
                name, _, value = words[1].partition("=")
                self._env[name] = value
            elif words[:2] == ["pip", "install"]:
                missing = [word for word in words[2:] if word not in elsewhere and not is_installed(word)]
                assert missing == []
            else:
                continue
            self._left.remove(command)

    def every(self, rarely: str, often: str) -> None:
        """Change how often a scheduler does its work, for which no test can wait."""
        changed = 0
        for file in self.folder.glob("*.py"):
            text = file.read_text("utf-8")
            changed += text.count(rarely)
            file.write_text(text.replace(rarely, often), "utf-8")
        assert changed == 1

    def start(self, begin: str, *options: str) -> subprocess.Popen[bytes]:
        """Start the page's next command that begins so; it runs until it is ended, or the stack is."""
        _, words, env = self._take(begin)
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                servers.dying_with_parent(*words, *options),
                env=env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def run(self, begin: str) -> str:
        """Run the page's next command that begins so, see that it prints the page's lines, and return its output."""
        command, words, env = self._take(begin)
        done = subprocess.run(
            words, env=env, cwd=self.folder, capture_output=True, check=False, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, f"{command.line}: {done.stdout}{done.stderr}"
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        missing = [line for line in map(self._here, command.printed) if line and line not in lines]
        assert missing == [], f"{command.line} prints\n{done.stdout}"
        return done.stdout

    def log(self) -> str:
        """Return what all started commands have printed."""
        return (self.folder / "log").read_text(errors="replace")

    def says(self, text: str) -> None:
        """Wait until a started command has printed a text."""
        servers.wait_until(lambda: text in self.log(), seconds=SECONDS, what=f"{text!r} in\n{self.log()}")

    def serve(self, begin: str, *options: str) -> subprocess.Popen[bytes]:
        """Start the command of a web server, and return once the site answers."""
        process = self.start(begin, *options)

        def answers() -> bool:
            assert process.poll() is None, self.log()
            try:
                return self.ask("GET", "/health")[0] == HTTPStatus.OK
            except OSError:
                return False

        servers.wait_until(answers, seconds=SECONDS, what="the site")
        return process

    def scrape(self) -> None:
        """Start the page's Prometheus with the repository's alerts, where it is installed; see that it takes both."""
        shutil.copy(ALERTS, self.folder)
        if shutil.which("prometheus") is None and os.environ.get("CI", "").lower() not in {"1", "true"}:
            self._take("prometheus")
            return
        self.start("prometheus", f"--web.listen-address={servers.HOST}:{servers.free_port()}")
        self.says("Server is ready to receive web requests")

    def sees(self, backlog: int, *, processes: int = 1) -> None:
        """Wait until this many processes of the site have told that they know of a backlog."""
        told: set[int | None] = set()

        def look(_: object) -> None:
            health = json.loads(self.ask("GET", "/health")[1])
            if any(queue["backlog"] == backlog for queue in health["queues"].values()):
                told.add(health.get("pid"))

        def all_know() -> bool:
            list(pool.map(look, range(2 * processes)))
            return len(told) == processes

        with ThreadPoolExecutor(2 * processes) as pool:
            servers.wait_until(all_know, seconds=SECONDS, what=f"a backlog of {backlog}")

    def ask(self, method: str, path: str) -> tuple[int, str]:
        """Return status and body of the site's answer."""
        connection = http.client.HTTPConnection(servers.HOST, self.port, timeout=SECONDS)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def counted(self, name: str, **labels: str) -> float:
        """Return what the site's metrics page says of a counter, over all its processes."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        lines = re.findall(rf"^backpressure_{name}{{([^}}]*)}} (\S+)$", self.ask("GET", "/metrics")[1], re.MULTILINE)
        return sum(float(value) for found, value in lines if wanted <= set(found.split(",")))

    def end(self, process: subprocess.Popen[bytes], signal_number: int = signal.SIGTERM) -> int:
        """End a command, and return its exit code."""
        process.send_signal(signal_number)
        return process.wait(SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._started:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            finally:
                process.wait()
        self.store.close()
        if (self.folder / "log").exists():
            print(self.log())
