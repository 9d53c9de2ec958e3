"""What each of these programs tells the test that started it: the split of jobs that it made, by the real package."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Unix times between which the oldest waiting job was enqueued.
OLDEST: list[float] = []


def url() -> str:
    """Return the server to use."""
    return sys.argv[1]


@contextmanager
def oldest() -> Iterator[None]:
    """Enqueue the job whose age is to be told; jobs enqueued later are younger by more than any rounding."""
    OLDEST[:] = [time.time()]
    yield
    OLDEST.append(time.time())
    time.sleep(0.05)


def tell(*queues: dict[str, Any]) -> None:
    """Tell the splits, and stay, with all workers, until the test has read them."""
    print(json.dumps(queues), flush=True)
    sys.stdin.read()


def queue(name: str, waiting: int, running: int | None, delayed: int | None, **more: Any) -> dict[str, Any]:
    """Return what the provider must report; the age is that of the job enqueued under `oldest` if `aged`, else none."""
    aged = OLDEST[:] if more.pop("aged", False) else None
    return {"queue": name, "waiting": waiting, "running": running, "delayed": delayed, "oldest": aged, **more}
