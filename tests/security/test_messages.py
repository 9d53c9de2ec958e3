"""Texts of servers and environments are printed without control characters, and shortened."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import pytest

from backpressure import BackpressureConfig, ConfigurationError, RedisStatsProvider, StatsUnavailableError
from backpressure._model.stats import utc_now
from backpressure.providers import ListKey
from backpressure.providers.redis.layouts import Reading
from support import servers

if TYPE_CHECKING:
    import socket

    from support.controller_fixtures import MakeController

RETITLE = "\x1b]0;owned\x07"


def test_a_servers_words_give_a_terminal_no_orders(
    make_controller: MakeController, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "backpressure")

    def refuse(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(b"-ERR %s\x9b2J \xe2\x80\xae%s\r\n" % (RETITLE.encode(), b"x" * 5_000))

    with (
        servers.Listener(refuse) as server,
        contextlib.closing(
            RedisStatsProvider(f"redis://{servers.HOST}:{server.port}/0?protocol=2", ["mail"], timeout=5.0)
        ) as provider,
    ):
        controller = make_controller(provider)
        controller._poller.poll()
        with pytest.raises(StatsUnavailableError, match="owned") as caught:
            provider.get_queue_stats("mail")
    said = [str(caught.value), *(record.getMessage() for record in caplog.records)]
    assert any("owned" in text for text in said[1:]), "it was not logged"
    assert all(text.isprintable() and len(text) < 600 for text in said)


@pytest.mark.parametrize("kind", [RETITLE.encode(), RETITLE, b"", b"\xff\x00"], ids=repr)
def test_a_type_that_is_no_word(kind: bytes | str) -> None:
    reading = Reading({"mail": ListKey("mail")}, utc_now())
    replies: list[object] = [ValueError("WRONGTYPE no")]
    while commands := reading.commands():
        reading.feed(replies * len(commands))
        replies = [kind]
    outcome = reading.results["mail"]
    assert isinstance(outcome, StatsUnavailableError)
    assert str(outcome).isprintable()


@pytest.mark.parametrize(
    "name", [f"BACKPRESSURE_MODE__{RETITLE}", "BACKPRESSURE_MODE__" + "A" * 10**5, "BACKPRESSURE_\udcff"]
)
@pytest.mark.parametrize("value", ["", "1"])
def test_odd_variables(name: str, value: str) -> None:
    for environ in ({name: value}, {name: value, name.lower(): value}, {f"{name}__A__B__C__D__E__F__G__H": value}):
        with pytest.raises(ConfigurationError) as caught:
            BackpressureConfig.from_env(environ)
        for fault in caught.value.faults or (caught.value,):
            assert str(fault).isprintable()
            assert len(str(fault)) < 2_000
