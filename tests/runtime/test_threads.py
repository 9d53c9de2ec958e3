"""Threads of ours start; what a signal handler raises while one starts reaches its `except`."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from backpressure._runtime.threads import spawn


class SoftTimeLimitError(Exception):
    """What a signal handler raises."""


def test_what_interrupts_a_start_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython raises a KeyError instead where the thread has already begun."""
    begun = threading.Event()
    name = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
    start: Any = getattr(threading, name)

    def interrupted(*given: Any, **more: Any) -> None:
        start(*given, **more)
        assert begun.wait(5)
        raise SoftTimeLimitError

    monkeypatch.setattr(threading, name, interrupted)
    with pytest.raises(SoftTimeLimitError):
        spawn(begun.set, "test")


def test_other_errors_of_a_start_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _: {"another": 1}["a key"])
    with pytest.raises(KeyError, match="a key"):
        spawn(int, "test")
