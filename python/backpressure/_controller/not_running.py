"""The error of a controller that is not running: what probably happened, by what can be told in this process."""

from __future__ import annotations

import os
import sys

from backpressure._model.clock import in_event_loop
from backpressure._model.errors import ControllerNotStartedError, ControllerStoppedError

__all__ = ["not_running"]


def not_running(*, stopped_in: int | None, made_in: int) -> ControllerNotStartedError:
    """Return the error for a call outside of start() and stop(), with its likely cause in one line.

    Args:
        stopped_in: the process that stopped the controller, ``None`` if none has.
        made_in: the process that made it.
    """
    if stopped_in is not None:
        return ControllerStoppedError(f"the controller was stopped: {_after_stop(stopped_in)}")
    causes = [*_of_fork(made_in), *_of_django(), *_of_lifespan()]
    told = f" ({'; '.join(causes)})" if causes else ""
    return ControllerNotStartedError(
        f"the controller is not started{told}: call start() in this process, or use it in a with statement"
    )


def _after_stop(stopped_in: int) -> str:
    again = "make a new one and start it"
    if stopped_in != os.getpid():
        return f"process {stopped_in} did it before it forked this one: {again} here"
    if _serves():
        return f"{again}; for a lifespan that runs again, as in tests, use backpressure.integrations.Restartable"
    return again


def _of_fork(made_in: int) -> list[str]:
    if made_in != os.getpid():
        return [f"this process was forked from process {made_in}, which made it and had not started it by then"]
    # It cannot have been loaded by a process of its own without this.
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        return ["multiprocessing started this process, which imported the program anew and did not start it"]
    return []


def _of_django() -> list[str]:
    """Say where Django starts things, if its settings are in use."""
    conf, registry = sys.modules.get("django.conf"), sys.modules.get("django.apps")
    if conf is None or registry is None or not conf.settings.configured:
        return []
    if not registry.apps.ready:
        return ["Django is still loading its apps: start it in AppConfig.ready(), or enqueue later"]
    where = "AppConfig.ready(), which also runs before gunicorn --preload forks"
    return [f"in Django start it in {where}, or give it to BackpressureDjango"]


def _serves() -> bool:
    return "starlette" in sys.modules or ("uvicorn" in sys.modules and in_event_loop())


def _of_lifespan() -> list[str]:
    """Say why a lifespan has not run, if this may be an application that has one."""
    if not _serves():
        return []
    if "starlette.testclient" in sys.modules:
        return ["the lifespan that starts it has not run: write `with TestClient(app) as client:`"]
    if "httpx" in sys.modules and "uvicorn" not in sys.modules:
        return ["the lifespan that starts it has not run: httpx.ASGITransport runs none, asgi-lifespan does"]
    return ["the lifespan that starts it has not run: start it there, or give it to BackpressureASGI"]
