"""A host name that only this process knows. It can be forgotten, and its resolution can hang."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

from support import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

NAME = "queues.invalid"  # the system's resolver never knows it


class Resolver:
    """Replaces the system's resolver, and asks it for other names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._known = True
        self._answering = threading.Event()
        self._answering.set()
        self._system: Any = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._resolve)

    def _resolve(self, host: Any, *args: Any, **options: Any) -> Any:
        if host == NAME:
            self._answering.wait()
            if self._known:
                host = servers.HOST
        return self._system(host, *args, **options)

    @contextlib.contextmanager
    def forgetting(self) -> Iterator[None]:
        """Forget the name during the body."""
        self._known = False
        try:
            yield
        finally:
            self._known = True

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Never answer a question for the name during the body."""
        self._answering.clear()
        try:
            yield
        finally:
            self._answering.set()
