"""The error of a controller that is not running names what probably happened, by what can be told in its process."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import ControllerNotStartedError, ControllerStoppedError
from backpressure._controller.not_running import not_running

if TYPE_CHECKING:
    from backpressure import BackpressureController
    from support.controller_fixtures import MakeController

MODULES = (
    "django.apps",
    "django.conf",
    "httpx",
    "multiprocessing.process",
    "starlette",
    "starlette.testclient",
    "uvicorn",
)


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)


def django(*, configured: bool = True, ready: bool = True) -> dict[str, Any]:
    return {
        "django.conf": SimpleNamespace(settings=SimpleNamespace(configured=configured)),
        "django.apps": SimpleNamespace(apps=SimpleNamespace(ready=ready)),
    }


def spawned(parent: object) -> dict[str, Any]:
    return {"multiprocessing.process": SimpleNamespace(parent_process=lambda: parent)}


LOADED: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    (spawned(None), ""),
    (spawned("parent"), "multiprocessing started this process, which imported the program anew"),
    (django(configured=False), ""),
    (django(), "in Django start it in AppConfig.ready(), which also runs before gunicorn --preload forks"),
    (django(ready=False), "Django is still loading its apps"),
    ({"starlette": 1, "starlette.testclient": 1}, "write `with TestClient(app) as client:`"),
    ({"starlette": 1, "httpx": 1}, "httpx.ASGITransport runs none"),
    ({"starlette": 1, "uvicorn": 1}, "start it there, or give it to BackpressureASGI"),
    ({"uvicorn": 1}, ""),
]


@pytest.mark.parametrize(("modules", "cause"), LOADED)
def test_what_is_loaded_tells_the_cause(
    modules: dict[str, Any], cause: str, make_controller: MakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    controller = make_controller(start=False)
    with pytest.raises(ControllerNotStartedError) as error:
        controller.run("low", "mail", int)
    message = str(error.value)
    assert cause in message
    assert ("(" in message.partition(":")[0]) == bool(cause)
    assert message.endswith(": call start() in this process, or use it in a with statement")
    assert "\n" not in message


@pytest.mark.parametrize("call", ["suggest_throttle", "peek"])
def test_every_call_tells_it(make_controller: MakeController, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    controller = make_controller(start=False)
    made_in = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: made_in + 1)
    with pytest.raises(ControllerNotStartedError, match=f"this process was forked from process {made_in}, which made"):
        getattr(controller, call)("low", "mail")


def test_a_fork_is_the_one_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    error = not_running(stopped_in=None, made_in=-1)
    assert "forked from process -1" in str(error)


def test_after_a_stop(controller: BackpressureController, monkeypatch: pytest.MonkeyPatch) -> None:
    controller.stop()
    with pytest.raises(ControllerStoppedError, match=r"^the controller was stopped: make a new one and start it$"):
        controller.run("low", "mail", int)
    monkeypatch.setitem(sys.modules, "starlette", SimpleNamespace())
    with pytest.raises(ControllerStoppedError, match=r"as in tests, use backpressure\.integrations\.Restartable$"):
        controller.run("low", "mail", int)
    stopped_in = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: stopped_in + 1)
    with pytest.raises(ControllerStoppedError, match=f"process {stopped_in} did it before it forked this one: make"):
        controller.run("low", "mail", int)
