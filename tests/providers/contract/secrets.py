"""What no provider shows: the credentials that it holds."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import pickle
import threading
import traceback
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from backpressure._model.errors import StatsUnavailableError
from providers.contract.reading import held_by, reading, ways_to_read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from providers.contract.backend import Backend
    from providers.contract.reading import Face
    from support.controller_fixtures import MakeController


def shown_by(backend: Backend, face: Face) -> Iterator[str]:
    """Give all that a provider, its answers and its failures can be seen to say."""
    provider = held_by(face)
    for read in ways_to_read(face):
        try:
            yield repr(read())
        except StatsUnavailableError as error:
            yield "".join(traceback.format_exception(error))
            yield from (repr(error), repr(vars(error)), repr(pickle.dumps(error)))
    yield from (repr(provider), str(provider), provider._where, repr(provider._redact))
    for thing in (*backend.inside(provider), getattr(provider, "_target", None)):
        yield from (repr(thing), str(thing))
    face.interrupt()
    for holder in filter(None, (provider, *(getattr(provider, name) for name in backend.holders))):
        for refuse in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="does not pickle") as caught:
                refuse(holder)
            yield str(caught.value)


def hidden(backend: Backend, shown: list[str]) -> bool:
    return [text for text in shown for secret in backend.secrets if secret in text] == []


class Secrets:
    # Some clients leave the socket of a failed connect to the garbage collector.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_credentials_are_shown_nowhere(
        self, backend: Backend, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG, logger=backend.listened_to)
        texts: list[str] = []
        for made in backend.secretive():
            with contextlib.closing(reading(made)) as provider:
                shown = list(shown_by(backend, provider))
                assert len(shown) > 10
                assert hidden(backend, shown)
                texts += shown
        assert any("***" in text for text in texts) is backend.quotes
        records = [record for record in caplog.records if record.name.startswith(backend.listened_to)]
        records = [record for record in records if not record.name.startswith("asyncio")]
        assert hidden(backend, [*(str(vars(record)) for record in records), *capfd.readouterr()])
        mine = [record.name for record in records if record.thread == threading.get_ident()]
        assert [name for name in mine if name.startswith(backend.silent)] == []

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_nor_by_a_controller(
        self, backend: Backend, make_controller: MakeController, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, logger="backpressure")
        failed = 0
        for made in backend.secretive():
            with contextlib.closing(Polled(reading(made), make_controller)) as polled:
                shown = polled.shown()
                failed += polled.failed
                assert hidden(backend, shown)
        assert failed >= 2, "the reads did not fail"
        # Clients log what they send where somebody has asked them to, even for all libraries at once.
        ours = [record for record in caplog.records if record.levelno > logging.DEBUG or "backpressure" in record.name]
        assert hidden(backend, [str(vars(record)) for record in ours])


class Polled:
    """A controller that polls a provider once, and all that it tells."""

    def __init__(self, provider: Face, make_controller: MakeController) -> None:
        self.provider = provider
        self.registry = CollectorRegistry()
        self.changes: list[object] = []
        self.controller = make_controller(provider, registry=self.registry)
        self.controller.add_listener(self.changes.append)
        self.controller.refresh("q")
        self.failed = bool(self.controller.health()["polling_errors"])

    def shown(self) -> list[str]:
        health = json.dumps(self.controller.health(), default=str)
        return [health, repr(self.controller), generate_latest(self.registry).decode(), repr(self.changes)]

    def close(self) -> None:
        self.controller.stop()
        self.provider.close()
