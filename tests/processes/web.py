"""The WSGI application that the servers under test serve: one decision per request, and its result.

``TEST_START`` says when its controller is started: when this is imported, which may be once before all forks, or by
each worker's first request.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from backpressure import BackpressureConfig, BackpressureController, PollingConfig, RedisStatsProvider

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

CONFIG = BackpressureConfig(
    polling=PollingConfig(interval=0.1, jitter=0, timeout=0.1, cache_ttl=0.5, max_backoff=0.2),
)
controller = BackpressureController(CONFIG, RedisStatsProvider(os.environ["TEST_REDIS_URL"], ["jobs"]))
if os.environ["TEST_START"] == "import":
    controller.start()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if os.environ["TEST_START"] == "request":
        controller.start()
    decision = controller.suggest_throttle("high", "jobs")
    # A producer's next work; meanwhile another worker gets the next request.
    time.sleep(float(environ["PATH_INFO"].strip("/") or 0))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([os.getpid(), decision.backlog_size, decision.reason]).encode()]
