"""What the page of FastAPI shows for arq, built and run: in an environment of its own, see ``tests/matrix.py``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from integrations.frameworks import required
from support.stacks import Page, Stack

for _name in ("arq", "fastapi", "uvicorn"):
    required(_name)

if TYPE_CHECKING:
    from pathlib import Path

    from support import servers

FULL = 1_000


def test_arq(own_server: servers.Server, tmp_path: Path) -> None:
    soon = {"BACKPRESSURE_POLLING__INTERVAL": "100ms"}
    with Stack(Page("fastapi"), tmp_path, own_server.url, "arq", **soon, REDIS_URL=own_server.url) as stack:
        stack.set_up("producer-backpressure[cli]")
        stack.serve("uvicorn")
        assert stack.ask("POST", "/newsletters/first@example.org")[0] == 202
        others = [str(number) for number in range(1, FULL)]
        stack.store.zadd("mail", dict.fromkeys(others, int(time.time() * 1_000)))
        stack.sees(FULL)
        assert stack.ask("POST", "/newsletters/me@example.org")[0] == 503
        assert stack.ask("POST", "/receipts/me@example.org")[0] == 202
        stack.store.zrem("mail", *others)
        stack.start("arq")
        for said in ("newsletter to all", "newsletter to first", "receipt to me@", "newsletter to me@"):
            stack.says(said)
        own_server.kill()
        assert stack.ask("POST", "/receipts/me@example.org")[0] == 503
        assert stack.left() == []
