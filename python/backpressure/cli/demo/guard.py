"""Runs a server exactly as long as the demo lives. A program of its own: ``python -IS guard.py FOLDER COMMAND…``.

Its standard input is a pipe whose other end the demo alone holds. The kernel closes that end when the demo ends, be it
by return, exception, SIGTERM or SIGKILL; then the server is killed and its folder removed. The alternative, a signal at
the parent's death, exists on Linux only, is tied to the thread that started the server, and removes no folder. The demo
starts this program in a session of its own, so that Ctrl-C reaches the demo and not the server under it.
"""

from __future__ import annotations

import select
import shutil
import signal
import subprocess
import sys

#: What the demo writes to have the server killed but its folder kept, because it will be started again.
KEEP = b"k"
_LOOK_SECONDS = 0.2


def main(folder: str, *command: str) -> int:
    """Keep `command` running until standard input has news; return the server's exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    server = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL)  # noqa: S603 - the demo names it
    try:
        while server.poll() is None:
            if select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
                break
        else:
            return server.returncode  # it ended by itself; the demo reads its log
    finally:
        server.kill()
        server.wait()
    if sys.stdin.buffer.read(1) != KEEP:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
