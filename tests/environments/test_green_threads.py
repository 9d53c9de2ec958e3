"""Under gevent and eventlet, whose threads are cooperative: polls, sleeps and `stop` let all others run."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
if {library!r} == "gevent":
    from gevent import monkey
    monkey.patch_all()
    from gevent import sleep, spawn
else:
    import warnings
    warnings.simplefilter("ignore")
    import eventlet
    eventlet.monkey_patch()
    from eventlet import sleep, spawn
import threading
import backpressure as bp

config = bp.BackpressureConfig(polling=bp.PollingConfig(interval=0.5, jitter=0, timeout=0.5))
provider = bp.InMemoryStatsProvider({{"q": 400}})
ticks, done = [], []

def tick():
    while not done:
        ticks.append(1)
        sleep(0.005)

with bp.BackpressureController(config, provider) as controller:
    spawn(tick)
    sleep(0)
    controller.run("low", "q", done.append, "job")  # it sleeps for half a second
    print("others ran:", len(ticks) > 20)
    provider.set("q", 0)
    for _ in range(400):
        if controller.suggest_throttle("low", "q").backlog_size == 0:
            break
        sleep(0.01)
    print("polled:", controller.suggest_throttle("low", "q").backlog_size == 0)
    print("errors:", controller.health()["polling_errors"])
    print("first sight:", controller.suggest_throttle("low", "new").reason)
print("left:", [thread.name for thread in threading.enumerate() if thread.name.startswith("backpressure")])
"""


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_they_are_cooperative(engine_name: str, library: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(library=library)],
        env={"BACKPRESSURE_ENGINE": engine_name},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "others ran: True",
        "polled: True",
        "errors: {}",
        "first sight: fallback_conservative",
        "left: []",
    ]
