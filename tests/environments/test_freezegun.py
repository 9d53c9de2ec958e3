"""Under freezegun monotonic time goes on, on both engines, and dates are those that the test has set."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

PROGRAM = """
import sys, threading
from freezegun import freeze_time
freezer = freeze_time("2030-01-01", tick={tick})
if {where!r} == "before":
    freezer.start()
import backpressure as bp
from backpressure._model.clock import SystemClock
if {where!r} == "made":
    freezer.start()
config = bp.BackpressureConfig(polling=bp.PollingConfig(interval=0.3, jitter=0, timeout=0.3, cache_ttl=0.6))
provider = bp.InMemoryStatsProvider({{"q": 700}})
controller = bp.BackpressureController(config, provider)
controller.start()
if {where!r} == "started":
    freezer.start()
rest = threading.Event().wait

def look():
    decision = controller.suggest_throttle("medium", "q")
    return str(decision.reason), decision.backlog_size

def until(wanted):
    for _ in range(400):
        if look() == wanted:
            return
        rest(0.01)
    sys.exit(f"{{look()}} is not {{wanted}}, {{controller.health()}}")

until(("backlog_yellow", 700))
provider.set("q", 5)
until(("backlog_green", 5))  # polls go on
controller.set_manual_override(True, for_=0.05)
until(("backlog_green", 5))  # and so does the time of switches
breaker = bp.CircuitBreaker(bp.CircuitConfig(failure_threshold=1, recovery_timeout=60))
breaker.record_failure()
stats = breaker.stats()
assert 59 < stats["time_until_recovery"] <= 60.01, stats
assert controller.health()["last_poll_seconds"] >= 0
print(controller.suggest_throttle("medium", "q").timestamp.year, controller.health()["polling_errors"])
freezer.stop()
rest(0.7)
until(("backlog_green", 5))
assert controller.health()["poller_alive"] and not controller.health()["polling_errors"]
controller.stop()
"""


@pytest.mark.parametrize("where", ["before", "made", "started"])
@pytest.mark.parametrize("tick", [False, True])
def test_it_goes_on(engine_name: str, where: str, tick: bool) -> None:
    code = PROGRAM.format(where=where, tick=tick)
    environment = {"BACKPRESSURE_ENGINE": engine_name}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=50
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2030 {}\n", "")


def test_its_clock_is_not_the_one_that_others_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from backpressure._model.clock import SystemClock

    monkeypatch.setattr(time, "monotonic_ns", lambda: 0)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    assert SystemClock.monotonic_ns() > 0
    assert abs(SystemClock.utc_now() - datetime.now(UTC)).total_seconds() < 60
