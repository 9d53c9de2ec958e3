"""The page of Flask and RQ: what it shows is built and run."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from integrations.frameworks import required
from support import servers
from support.stacks import Page, Stack

if TYPE_CHECKING:
    from pathlib import Path

FULL = 1_000


def test_it_runs(own_server: servers.Server, tmp_path: Path) -> None:
    for name in ("flask", "gunicorn", "rq"):
        required(name)
    with Stack(Page("flask-rq"), tmp_path, own_server.url, BACKPRESSURE_POLLING__INTERVAL="100ms") as stack:
        stack.set_up()
        stack.run("backpressure check")
        stack.run("rm -rf metrics")
        stack.run("mkdir metrics")
        web = stack.serve("gunicorn")
        assert stack.ask("POST", "/newsletters/first@example.org")[0] == 202
        others = [str(number) for number in range(1, FULL)]
        stack.store.rpush("rq:queue:mail", *others)
        stack.sees(FULL, processes=2)
        stack.run("curl -i -X POST http://localhost:8000/newsletters")
        stack.scrape()
        stack.run("backpressure explain")
        top = stack.start("backpressure top")
        stack.says("R shed")
        assert stack.end(top, signal.SIGINT) == 0
        stack.run("curl -i -X POST http://localhost:8000/receipts")
        servers.wait_until(lambda: stack.counted("refusals_total", result="shed") == 1, what="the count")
        stack.run("curl http://localhost:8000/metrics")
        assert stack.end(web) == 0

        stack.run("rm -rf metrics")
        stack.run("mkdir metrics")
        stack.serve("BACKPRESSURE_MODE=observe gunicorn")
        assert stack.ask("POST", "/newsletters/second@example.org")[0] == 202
        servers.wait_until(lambda: stack.counted("decisions_total", reason="backlog_red_shed") == 1, what="the count")
        stack.run("curl http://localhost:8000/metrics")

        before = stack.store.llen("rq:queue:mail")
        cron = stack.start("rq cron")
        servers.wait_until(lambda: stack.store.llen("rq:queue:mail") > before, what="the schedule")
        assert stack.end(cron) == 0
        stack.store.ltrim("rq:queue:mail", FULL, -1)
        stack.start("rq worker")
        for said in ("newsletter to all", "receipt to me@example.org", "newsletter to me@example.org"):
            stack.says(said)
        own_server.kill()
        assert stack.ask("POST", "/receipts/me@example.org")[0] == 503
        assert stack.left() == []
