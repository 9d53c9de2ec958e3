"""Windows of one priority above those of another: nobody means that, so it is said at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backpressure import BackpressureConfig
from backpressure._engine.laws.order import inversions

if TYPE_CHECKING:
    from support.controller_fixtures import MakeController

ABOVE = {"green_max": 20_000, "yellow_max": 30_000, "red_max": 40_000}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"thresholds.low_priority.red_max": 2_000}, []),
        (
            {"thresholds.low_priority": ABOVE},
            ["thresholds: with 1,000 jobs waiting, low jobs wait less than medium ones"],
        ),
        # Its own bounds are below, but it then waits less than the others for all its red zone.
        ({"thresholds.low_priority.red_max": 50_000}, ["low jobs wait less than medium ones"]),
        ({"thresholds.medium_priority": ABOVE}, ["medium jobs wait less than high ones"]),
        ({"queues.mail.thresholds.low_priority": ABOVE}, ["thresholds of mail: with 1,000 jobs"]),
        ({'queues."m-*".thresholds.low_priority': ABOVE, "queues.m-1.mode": "observe"}, ["thresholds of m-*: with"]),
    ],
)
def test_who_waits_less_is_found(changes: dict[str, object], said: list[str]) -> None:
    found = list(inversions(BackpressureConfig().evolve(changes)))
    assert len(found) == len(said)
    assert all(part in sentence for part, sentence in zip(said, found, strict=True))


def test_it_is_logged_when_it_is_loaded(make_controller: MakeController, caplog: pytest.LogCaptureFixture) -> None:
    config = BackpressureConfig()
    controller = make_controller(config=config)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    above = config.evolve({"thresholds.low_priority": ABOVE})
    controller.reconfigure(above)
    make_controller(config=above)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert "low jobs wait less than medium ones" in warnings[0]
