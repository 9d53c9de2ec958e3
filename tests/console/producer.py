"""A producer process: prints a line whenever it is told something else, until its standard input ends."""

from __future__ import annotations

import json
import sys
import threading
import time

from backpressure import BackpressureConfig, BackpressureController
from backpressure.providers import from_config

config = BackpressureConfig.from_mapping(json.loads(sys.argv[1]))
ended = threading.Event()


def wait_for_the_end() -> None:
    sys.stdin.read()
    ended.set()


threading.Thread(target=wait_for_the_end, daemon=True).start()

with BackpressureController(config, from_config(config)) as controller:
    before = ""
    while not ended.is_set():
        reasons = [str(controller.suggest_throttle(priority, "mail").reason) for priority in ("high", "low")]
        by = [switch["by"] for switch in controller.health()["fleet"]["switches"]]
        told = " ".join((*reasons, *by))
        if told != before:
            print(told, flush=True)
        before = told
        time.sleep(0.02)
