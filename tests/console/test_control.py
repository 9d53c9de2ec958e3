"""Switches that are turned from the console: who may, what is written, and what is shown of the fleet."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import InMemoryStatsProvider
from backpressure._fleet.operator import Operator, author
from console.conftest import URL, asked, served
from console.fleets import FLEET, tell
from console.test_application import frames, start_of
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    import httpx
    import redis

    from backpressure.console.application import Console
    from console.conftest import Make
    from support import servers

TOKEN = "canary-token-5e1f"
OVERRIDE = {"kind": "override", "action": "on", "reason": "sale", "for": 600}


@pytest.fixture
def operator(redis_client: redis.Redis) -> Operator:
    return Operator(redis_client, FLEET)


def post(console: Console, wish: Any, token: str | None = TOKEN, **headers: str) -> httpx.Response:
    about: dict[str, str | bytes] = {"origin": URL, "content-type": "application/json", **headers}
    if token is not None:
        about["x-backpressure-token"] = token.encode()
    body = json.dumps({"start": start_of(console), **wish}) if isinstance(wish, dict) else wish
    return asked(console, "POST", "/switch", headers=about, content=body)


def test_a_switch_is_written_and_shown(make: Make, operator: Operator, redis_url: str) -> None:
    console = make(fleet=redis_url, control=True, token=TOKEN)
    answer = post(console, OVERRIDE)
    assert answer.status_code == 200, answer.text
    (switch,) = operator.switches()
    assert (switch.kind, switch.by, switch.reason) == ("override", author(), "sale")
    (told,) = answer.json()["fleet"]["switches"]
    assert (told["kind"], told["by"], told["reason"]) == ("override", author(), "sale")
    with served(console) as url:
        _, (_, whole) = frames(url, 2)
        assert whole["fleet"]["switches"][0]["kind"] == "override"
    assert post(console, {**OVERRIDE, "action": "off", "reason": "over"}).json()["fleet"]["switches"] == []
    assert operator.switches() == []
    assert [line.reason for line in operator.audit()] == ["over", "sale"]


@pytest.mark.parametrize("action", ["open", "close", "reset"])
def test_a_circuit_is_that_of_the_place(make: Make, operator: Operator, action: str, redis_url: str) -> None:
    names = ["redis://user:hunter2@host/0", "a\u202eb", "mail"]
    console = make(
        InMemoryStatsProvider(dict.fromkeys(names, 1)), queues=names, fleet=redis_url, control=True, token=TOKEN
    )
    wish = {"kind": "circuit", "action": action, "queue": 1, "reason": "migration", "for": 60}
    answer = post(console, wish)
    assert answer.status_code == 200, answer.text
    (switch,) = operator.switches()
    assert (switch.queue_name, switch.action) == (names[1], action)
    assert answer.json()["fleet"]["switches"][0]["queue"] == "a\\u202eb"
    post(console, {**wish, "queue": 0})
    assert "hunter2" not in asked(console, "GET", "/audit").text + post(console, wish).text


@pytest.mark.parametrize(
    ("wish", "status", "said"),
    [
        ({**OVERRIDE, "reason": ""}, 400, "reason is"),
        ({**OVERRIDE, "reason": None}, 400, "reason is"),
        ({**OVERRIDE, "reason": "a\nb"}, 400, "reason is"),
        ({**OVERRIDE, "for": 0}, 400, "for_ is"),
        ({**OVERRIDE, "for": 86_401}, 400, "for_ is"),
        ({**OVERRIDE, "for": "long"}, 400, "for_ is"),
        ({**OVERRIDE, "kind": "everything"}, 400, "no such switch"),
        ({**OVERRIDE, "action": "open"}, 400, "no such switch"),
        ({**OVERRIDE, "kind": ["override"]}, 400, "no such switch"),
        ({**OVERRIDE, "kind": "circuit", "action": "open", "queue": 2}, 400, "load the page anew"),
        ({**OVERRIDE, "kind": "circuit", "action": "open", "queue": True}, 400, "load the page anew"),
        ({**OVERRIDE, "kind": "circuit", "action": "open", "queue": -1}, 400, "load the page anew"),
        ({**OVERRIDE, "start": "yesterday"}, 409, "earlier start"),
        ("[]", 400, "JSON object"),
        ("{", 400, "JSON object"),
        ("[" * 4_000, 400, "JSON object"),
        ('{"a": "' + "x" * 5_000 + '"}', 413, "at most"),
    ],
)
def test_a_wrong_wish_changes_nothing(
    make: Make, operator: Operator, wish: Any, status: int, said: str, redis_url: str
) -> None:
    answer = post(make(fleet=redis_url, control=True, token=TOKEN), wish)
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert operator.switches() == []
    assert operator.audit() == []


@pytest.mark.parametrize(
    ("token", "headers", "status"),
    [
        (None, {}, 401),
        ("", {}, 401),
        (TOKEN[:-1], {}, 401),
        (TOKEN + "x", {}, 401),
        ("ünïcode", {}, 401),
        (TOKEN, {"origin": "http://evil.example"}, 403),
        (TOKEN, {"origin": "null"}, 403),
        (TOKEN, {"host": "evil.example", "origin": "http://evil.example"}, 421),
        (TOKEN, {"sec-fetch-site": "same-site"}, 403),
        (TOKEN, {"content-type": "text/plain"}, 415),
        (TOKEN, {"content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_who_may_not(
    make: Make, operator: Operator, token: str | None, headers: dict[str, str], status: int, redis_url: str
) -> None:
    console = make(fleet=redis_url, control=True, token=TOKEN)
    assert post(console, OVERRIDE, token, **headers).status_code == status
    assert operator.audit() == []


def test_a_page_without_an_origin_may_not(make: Make, operator: Operator, redis_url: str) -> None:
    console = make(fleet=redis_url, control=True, token=TOKEN)
    headers = {"x-backpressure-token": TOKEN, "content-type": "application/json"}
    body = json.dumps({"start": start_of(console), **OVERRIDE})
    assert asked(console, "POST", "/switch", headers=headers, content=body).status_code == 403
    assert operator.audit() == []


def test_each_start_has_a_token_of_its_own(make: Make, operator: Operator, redis_url: str) -> None:
    tokens = {make(fleet=redis_url, control=True).token for _ in range(3)}
    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 40


def test_who_acted_is_whom_identify_names(make: Make, operator: Operator, redis_url: str) -> None:
    console = make(fleet=redis_url, control=True, identify=lambda request: request.headers.get("x-name"))
    assert asked(console, "GET", "/about").json()["token"] == "asked"
    given = asked(console, "GET", "/token", headers={"x-name": "ann"}).json()["token"]
    assert post(console, OVERRIDE, given, **{"x-name": "ann"}).status_code == 200
    assert operator.audit()[0].by == "ann"
    assert asked(console, "GET", "/token").status_code == 403
    assert post(console, OVERRIDE, given).status_code == 403
    assert len(operator.audit()) == 1


def test_without_control_the_fleet_is_only_shown(make: Make, operator: Operator, redis_url: str) -> None:
    operator.emergency(True, reason="outage", by="bob")
    console = make(fleet=redis_url, token=TOKEN)
    assert post(console, OVERRIDE).status_code == 403
    with served(console) as url:
        eventually(lambda: (frames(url, 2)[1][1]["fleet"]["switches"] or [{}])[0].get("by") == "bob")
    assert asked(console, "GET", "/audit").json()["lines"][0]["reason"] == "outage"


def test_members_and_their_circuits_are_shown(
    make: Make, operator: Operator, redis_client: redis.Redis, redis_url: str
) -> None:
    tell(
        redis_client,
        "web1-7-a",
        offers=10.0,
        delays=2.5,
        sheds=0.5,
        circuits={"mail": "open"},
        circuits_open=1,
        probes_ms={"mail": 9_000},
        queues={"mail": (0.0, 1.0, 1.5, 0.0, 0.0, 0.5)},
    )
    tell(
        redis_client,
        "web1-8-b",
        offers=5.0,
        circuits={"mail": "half_open"},
        circuits_open=1,
        queues={"mail": (0.25, 0.0, 0.0, 0.0, 0.0, 1.0), "push": (0.0, 0.0, 0.0, 0.0, 0.0, 3.0)},
    )
    tell(redis_client, "web1-9-c", host="<b>web</b>")
    redis_client.set("bp:{shop}:m:web1-9-d", "{garbage")
    redis_client.zadd("bp:{shop}:members", {"web1-9-d": 9e15})
    console = make(fleet=redis_url)
    with served(console) as url:
        eventually(lambda: frames(url, 2)[1][1]["fleet"]["members"] == 4)
        _, (_, whole) = frames(url, 2)
    assert whole["fleet"]["rates"] == {"offers": 15.0, "delays": 2.5, "sheds": 0.5}
    mail, push = whole["queues"]
    probe = mail["producers"].pop("probe")
    assert 0 < probe - time.time() < 12
    rates = [0.2, 1.0, 1.5, 0.0, 0.0, 1.5]
    assert mail["producers"] == {"states": {"open": 1, "half_open": 1}, "of": 4, "rates": rates}
    assert push["producers"]["states"] == {}
    told = asked(console, "GET", "/members").json()
    assert told["count"] == 4
    assert [member["id"] for member in told["members"]][-1] == "web1-9-d"
    assert "JSON" in told["members"][-1]["problem"]


def test_a_fleet_that_cannot_be_read_is_not_off(make: Make, own_server: servers.Server) -> None:
    with own_server.client() as first:
        Operator(first, FLEET).override(True, reason="sale", by="ann")
    console = make(fleet=own_server.url, control=True, token=TOKEN)
    with served(console) as url:
        eventually(lambda: frames(url, 2)[1][1]["fleet"]["switches"])
        own_server.kill()
        eventually(lambda: frames(url, 2)[1][1]["fleet"]["problem"])
        _, (_, whole) = frames(url, 2)
        assert whole["fleet"]["switches"][0]["by"] == "ann"
        answer = post(console, OVERRIDE)
        assert (answer.status_code, "did not take it" in answer.text) == (502, True)
        assert asked(console, "GET", "/audit").status_code == 502


def test_who_may_only_read_is_told_so_by_the_server(
    make: Make, redis_client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_client.acl_setuser(
        "console",
        enabled=True,
        passwords="+canary-password",
        keys=["bp:{shop}:*"],
        categories=["+@read", "+@connection", "+@transaction"],
        commands=["+time", "+info"],
    )
    monkeypatch.setenv("FLEET_URL", redis_url.replace("://", "://console:canary-password@"))
    try:
        console = make(fleet="$FLEET_URL", control=True, token=TOKEN)
        answer = post(console, OVERRIDE)
        assert answer.status_code == 502
        assert "no permissions" in answer.text
        assert "canary" not in answer.text
        assert asked(console, "GET", "/audit").status_code == 200
    finally:
        redis_client.acl_deluser("console")


def test_the_token_is_nowhere_to_be_read(
    make: Make, operator: Operator, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], redis_url: str
) -> None:
    caplog.set_level(logging.DEBUG)
    console = make(fleet=redis_url, control=True, token=TOKEN)
    texts = [repr(console)]
    with served(console) as url:
        texts += [str(frames(url, 4))]
        texts += [post(console, OVERRIDE).text, post(console, OVERRIDE, TOKEN + "x").text]
    texts += [
        asked(console, "GET", path).text for path in ("/", "/about", "/token", "/members", "/audit", "/console.js")
    ]
    texts += [*capfd.readouterr(), *(str(vars(record)) for record in caplog.records if record.name != "asyncio")]
    assert [text for text in texts if TOKEN in text] == []
