"""A controller that follows a file: by what it holds, whole or not at all, and never against an operator."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    BackpressureConfig,
    BackpressureController,
    ConfigurationError,
    FileControl,
    InMemoryStatsProvider,
    PollingConfig,
)
from backpressure._fleet.pushed import Pushed
from controller.fleet.meeting import CONFIG, Meeting

if TYPE_CHECKING:
    from pathlib import Path

    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

PLAIN = BackpressureConfig(polling=PollingConfig(interval=1, jitter=0))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "control.toml"


@pytest.fixture
def controller(make_controller: MakeController, file: Path) -> BackpressureController:
    return make_controller(config=PLAIN, control=FileControl(file))


def mode(controller: BackpressureController) -> str:
    found: str = controller.health()["mode"]
    return found


def test_it_is_followed(controller: BackpressureController, file: Path, clock: ManualClock) -> None:
    assert mode(controller) == "enforce"
    file.write_text('mode = "observe"', "utf-8")
    clock.advance(1)
    assert mode(controller) == "observe"
    assert controller.health()["control"] == {"path": str(file), "taken": True, "error": None}
    file.write_text("", "utf-8")
    clock.advance(1)
    assert mode(controller) == "enforce"


def test_what_is_there_at_the_start_holds_from_the_start(make_controller: MakeController, file: Path) -> None:
    file.write_text('mode = "observe"', "utf-8")
    assert mode(make_controller(config=PLAIN, control=FileControl(file))) == "observe"


def test_its_content_counts_and_not_its_time(
    controller: BackpressureController, file: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "backpressure")
    file.write_text('mode = "observe"', "utf-8")
    clock.advance(1)
    times = file.stat()
    file.touch()
    clock.advance(1)
    assert caplog.text.count("the configuration was changed: by FileControl(") == 1
    file.write_text('mode = "enforce"', "utf-8")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    clock.advance(1)
    assert mode(controller) == "enforce"


def test_a_mount_is_swapped_by_its_link(controller: BackpressureController, file: Path, clock: ManualClock) -> None:
    """As Kubernetes does with a ConfigMap."""
    for number, text in enumerate(('mode = "observe"', 'mode = "enforce"')):
        real = file.with_name(f"data-{number}.toml")
        real.write_text(text, "utf-8")
        link = file.with_name("next")
        link.symlink_to(real)
        link.replace(file)
        clock.advance(1)
        assert mode(controller) in text


@pytest.mark.parametrize(
    "text",
    [
        "mode =",
        'mode = "shrug"',
        "max_queues = 5",
        "[circuit]\nfailure_threshold = 1",
        "[recovery]\nmanual_override = false",
        '[polling]\ntimeout = "3s"',
        '[age]\ntarget = "5s"',
        "\xff\xfe",
        None,
    ],
)
def test_what_cannot_be_taken_changes_nothing_and_is_told_once(
    controller: BackpressureController,
    file: Path,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    text: str | None,
) -> None:
    file.write_text('mode = "observe"', "utf-8")
    clock.advance(1)
    caplog.clear()
    if text is None:
        file.unlink()
    else:
        file.write_text(text, "latin-1")
    for _ in range(3):
        clock.advance(1)
    assert mode(controller) == "observe"
    assert controller.health()["control"]["error"]
    assert caplog.text.count("changes nothing: ") == 1


def test_no_file_turns_an_operators_switch_off(make_controller: MakeController, file: Path, clock: ManualClock) -> None:
    meeting = Meeting(clock)
    controller = make_controller(meeting, CONFIG, control=FileControl(file))
    meeting.switch("override")
    clock.advance(1)
    file.write_text('mode = "enforce"\n[recovery]\nmanual_override = false', "utf-8")
    clock.advance(1)
    assert controller.health()["manual_override"]
    file.write_text("[thresholds.low_priority]\nred_max = 800", "utf-8")
    clock.advance(1)
    assert controller.health()["manual_override"]
    assert controller._config.thresholds.low_priority.red_max == 800


def test_what_operators_push_lies_over_it(make_controller: MakeController, file: Path, clock: ManualClock) -> None:
    meeting = Meeting(clock)
    controller = make_controller(meeting, CONFIG, control=FileControl(file))
    file.write_text('mode = "observe"\n[thresholds.low_priority]\nred_max = 800', "utf-8")
    pushed = Pushed(n=7, share_permille=1_000, settings={"mode": "enforce"}, by="ana", reason="x")
    meeting.control["config"] = pushed.encode("shop")
    clock.advance(1)
    clock.advance(1)
    assert (mode(controller), controller._config.thresholds.low_priority.red_max) == ("enforce", 800)
    controller.reconfigure(CONFIG.evolve({"curve.red_max_delay": 9}))
    assert (mode(controller), controller._config.thresholds.low_priority.red_max) == ("enforce", 800)
    assert controller._config.curve.red_max_delay == 9


@pytest.mark.parametrize("path", ["control.yaml", "control", "", 5, None])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"path is .*: give the path of a \.toml or \.json file"):
        FileControl(path)


def test_controllers_take_a_file_control_and_need_polls(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="control is a PosixPath: give a FileControl"):
        BackpressureController(None, InMemoryStatsProvider(), control=file)  # type: ignore[arg-type]
    config = BackpressureConfig(polling=PollingConfig(enabled=False))
    with pytest.raises(ConfigurationError, match=r"control needs polling\.enabled"):
        BackpressureController(config, InMemoryStatsProvider(), control=FileControl(file))
