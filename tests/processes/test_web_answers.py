"""Shops behind a real server: a client's answers while their queue is overloaded, and after."""

from __future__ import annotations

import http.client
import json
import signal
from typing import TYPE_CHECKING, NamedTuple

import pytest

from integrations.frameworks import required
from processes.conftest import end
from support import servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    import redis

    from processes.conftest import Launch, Waiting

SHOPS = {
    "flask": ("--threads=2", "web.flask_shop"),
    "fastapi": ("--worker-class=asgi", "web.fastapi_shop"),
}


class Answer(NamedTuple):
    """The answer that came over the wire."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


def ask(port: int, path: str, method: str = "GET") -> Answer | None:
    """Return a server's answer; ``None`` before it serves."""
    connection = http.client.HTTPConnection(servers.HOST, port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())
    except ConnectionRefusedError:
        return None
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("shop", "path"), [("flask", "/order"), ("flask", "/stream"), ("fastapi", "/order")], ids=lambda value: value
)
def test_a_shop_sheds_and_recovers(
    launch: Launch, waiting: Waiting, redis_client: redis.Redis, shop: str, path: str
) -> None:
    required(shop)
    waiting.add(5)
    port = servers.free_port()
    gunicorn = launch("gunicorn", f"--bind={servers.HOST}:{port}", *SHOPS[shop])
    eventually(lambda: ask(port, path), 30)
    answer = ask(port, path)
    assert answer is not None
    assert answer.status == 503
    assert answer.header("Content-Type") == ["application/problem+json"]
    assert answer.header("Content-Length") == [str(len(answer.body))]
    assert b"jobs" not in answer.body
    after = json.loads(answer.body)["retry_after"]
    assert answer.header("Retry-After") == [str(after)]
    assert 1 <= after <= 8
    head = ask(port, "/order", "HEAD")  # Flask would not begin a stream for it
    assert head is not None
    assert (head.status, head.header("Retry-After"), head.body) == (503, [str(after)], b"")
    redis_client.delete("jobs")
    eventually(lambda: (ask(port, path) or head).status == 202, 30)
    assert end(gunicorn, signal.SIGTERM) == 0
