"""A release has every file, and no other."""

from __future__ import annotations

import pytest
from scripts.wheels.expected import INTERPRETERS, PLATFORMS, faults

OLDEST = {
    "manylinux": "2014{0}.manylinux_2_17{0}",
    "musllinux": "_1_2{0}",
    "macosx": "_11_0{0}",
    "win_amd64": "",
    "win_arm64": "",
}


def release(version: str = "1.0.0") -> list[str]:
    start = f"producer_backpressure-{version}"
    wheels = [
        f"{start}-{python}-{begins}{OLDEST[begins].format(ends)}.whl"
        for python in INTERPRETERS
        for begins, ends in PLATFORMS
    ]
    return [f"{start}.tar.gz", f"{start}-py3-none-any.whl", *wheels]


def test_a_whole_release_is_let_through() -> None:
    assert len(release()) == 58
    assert faults(release(), "1.0.0") == []


@pytest.mark.parametrize("place", range(58))
def test_a_missing_file_is_named(place: int) -> None:
    names = release()
    gone = names.pop(place)
    (fault,) = faults(names, "1.0.0")
    assert fault.endswith("missing")
    assert gone.startswith(fault.partition("…")[0])


def test_another_release_and_a_stranger_are_named() -> None:
    assert len(faults(release("1.0.1"), "1.0.0")) == 2 * 58
    stranger = "producer_backpressure-1.0.0-cp310-cp310-win_amd64.whl"
    assert faults([*release(), stranger], "1.0.0") == [f"{stranger}: not expected"]


def test_a_wheel_that_is_there_twice_is_named() -> None:
    second = "producer_backpressure-1.0.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    (fault,) = faults([*release(), second], "1.0.0")
    assert second in fault
