"""The page of FastAPI: what it shows is built and run, with taskiq and with SAQ. For arq see ``test_arq_page``."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from integrations.frameworks import required
from support import servers
from support.stacks import SECTIONS, Page, Stack

if TYPE_CHECKING:
    from pathlib import Path

# Backlogs are noticed within a tenth of a second, not within five.
SOON = {"BACKPRESSURE_POLLING__INTERVAL": "100ms"}
FULL = 1_000


def test_taskiq(own_server: servers.Server, tmp_path: Path) -> None:
    for name in ("fastapi", "uvicorn", "taskiq_redis"):
        required(name)
    with Stack(Page("fastapi"), tmp_path, own_server.url, *SECTIONS, **SOON) as stack:
        stack.set_up()
        stack.run("backpressure check")
        web = stack.serve("uvicorn")
        assert stack.ask("POST", "/newsletters/first@example.org")[0] == 202
        (job,) = stack.store.lrange("mail", 0, -1)
        stack.store.rpush("mail", *[job] * (FULL - 1))
        stack.sees(FULL)
        stack.run("curl -i -X POST http://localhost:8000/newsletters")
        stack.scrape()
        stack.run("backpressure explain")
        top = stack.start("backpressure top")
        stack.says("R shed")
        assert stack.end(top, signal.SIGINT) == 0
        stack.run("curl -i -X POST http://localhost:8000/receipts")
        stack.run("curl http://localhost:8000/metrics")
        stack.end(web)
        stack.says("Application shutdown complete")

        stack.serve("BACKPRESSURE_MODE=observe uvicorn")
        assert stack.ask("POST", "/newsletters/second@example.org")[0] == 202
        stack.run("curl http://localhost:8000/metrics")

        stack.start("taskiq scheduler")
        servers.wait_until(lambda: "all" in stack.store.lrange("mail", 0, 0)[0], seconds=20, what="the scheduler")
        stack.store.ltrim("mail", 0, 2)
        stack.start("taskiq worker")
        for said in ("newsletter to all", "receipt to me@example.org", "newsletter to me@example.org"):
            stack.says(said)
        own_server.kill()
        assert stack.ask("POST", "/receipts/me@example.org")[0] == 503
        assert stack.left() == []


def test_saq(own_server: servers.Server, tmp_path: Path) -> None:
    for name in ("fastapi", "uvicorn", "saq"):
        required(name)
    with Stack(Page("fastapi"), tmp_path, own_server.url, "SAQ", **SOON, REDIS_URL=own_server.url) as stack:
        stack.every("0 * * * *", "* * * * * */1")
        stack.set_up()
        stack.serve("uvicorn")
        assert stack.ask("POST", "/newsletters/first@example.org")[0] == 202
        others = [f"saq:job:mail:{number}" for number in range(1, FULL)]
        stack.store.rpush("saq:mail:queued", *others)
        stack.sees(FULL)
        assert stack.ask("POST", "/newsletters/me@example.org")[0] == 503
        assert stack.ask("POST", "/receipts/me@example.org")[0] == 202
        for other in others:
            stack.store.lrem("saq:mail:queued", 1, other)
        stack.start("saq")
        for said in ("newsletter to all", "newsletter to first", "receipt to me@", "newsletter to me@"):
            stack.says(said)
        own_server.kill()
        assert stack.ask("POST", "/receipts/me@example.org")[0] == 503
        assert stack.left() == []
