"""The console's answers: what it tells, whom it refuses, and what it never tells."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from backpressure import BackpressureConfig, ConfigurationError, InMemoryStatsProvider, StatsUnavailableError
from backpressure.console import app
from console.conftest import URL, asked, served
from support import servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from backpressure.console.application import Console
    from console.conftest import Make

HOSTILE = ["<img src=x onerror=alert(1)>", "a\u202eb", "a\u200bb", "redis://user:hunter2@host/0", "é'\"&\\", "ab"]


def start_of(console: Any) -> str:
    start: str = asked(console, "GET", "/about").json()["start"]
    return start


def get(console: Console, path: str, **parameters: Any) -> httpx.Response:
    return asked(console, "GET", path, params={"start": start_of(console), **parameters})


def frames(url: str, wanted: int) -> list[tuple[str, Any]]:
    """Return the first events of a stream."""
    found: list[tuple[str, Any]] = []
    with httpx.stream("GET", f"{url}stream", timeout=20) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
            if len(found) == wanted:
                return found
    return found


def test_a_stream_tells_all_and_then_what_changes(make: Make) -> None:
    provider = InMemoryStatsProvider({"mail": 1_250, "push": 3})
    with served(make(provider, queues=["mail", "push"])) as url:
        (_, start), (kind, first), (second_kind, second) = frames(url, 3)
        assert (kind, second_kind) == ("all", "look")
        assert isinstance(start, str)
        mail, push = first["queues"]
        assert (mail["name"], mail["backlog"], mail["advice"]["medium"]) == (
            "mail",
            1_250,
            ["yellow", "255 ms", "backlog_yellow"],
        )
        assert push["advice"]["low"] == ["green", "go", "backlog_green"]
        assert (first["problem"], first["fleet"], len(first["ages"])) == (None, None, 2)
        assert second["rows"] == {}
        provider.set("push", 20_000)
        eventually(lambda: frames(url, 2)[1][1]["queues"][1]["advice"]["low"][1] == "shed")


def test_all_viewers_share_one_sampler(make: Make) -> None:
    with served(make()) as url:
        frames(url, 2)
        frames(url, 2)
        samplers = [thread for thread in threading.enumerate() if thread.name == "backpressure-console"]
    assert len(samplers) == 1


def test_viewers_are_bounded_and_a_place_becomes_free(make: Make) -> None:
    with served(make(viewers=1)) as url:
        with httpx.stream("GET", f"{url}stream", timeout=20) as first:
            lines = first.iter_lines()
            assert next(lines) == "event: start"
            refused = httpx.get(f"{url}stream")
            assert (refused.status_code, "1 pages watch already" in refused.text) == (503, True)
        eventually(lambda: len(frames(url, 1)) == 1)


def test_close_ends_streams_and_a_later_request_begins_anew(make: Make) -> None:
    console = make()
    with served(console) as url:
        threading.Timer(0.3, console.close).start()
        assert len(frames(url, 1_000)) < 1_000
        assert len(frames(url, 2)) == 2


def test_names_are_shown_whole_and_without_passwords(make: Make) -> None:
    provider = InMemoryStatsProvider(dict.fromkeys(HOSTILE, 5))
    with served(make(provider, queues=HOSTILE)) as url:
        _, (_, whole) = frames(url, 2)
    shown = [row["name"] for row in whole["queues"]]
    assert shown == [HOSTILE[0], "a\\u202eb", "a\\u200bb", "redis://***@host/0", *HOSTILE[4:]]


def test_one_queue_and_its_hour(make: Make) -> None:
    console = make()
    with served(console) as url:
        frames(url, 2)
        told = get(console, "/queue", queue=0).json()
        histories = get(console, "/histories", queues="1,0").json()
    assert told["bounds"]["medium"] == {"green_max": 500, "yellow_max": 2_000, "red_max": 5_000}
    assert told["bounds"]["low"]["shed_at"] == 900
    assert (len(told["backlogs"]), told["backlogs"][-1]) == (360, 1_250)
    assert (histories["backlogs"]["1"][-1], histories["point"]) == (3, told["point"])


def test_a_backlog_is_explained(make: Make) -> None:
    console = make()
    with served(console) as url:
        frames(url, 2)
        now = get(console, "/explain", queue=0).json()
        then = get(console, "/explain", queue=0, backlog=20_000, circuit="closed").json()
        refused = get(console, "/explain", queue=0, backlog=0, circuit="open").json()
    assert (now["backlog"], now["assumed"]) == (1_250, False)
    assert now["advice"]["medium"][:3] == ["yellow", "255 ms", "backlog_yellow"]
    assert "lies 50 % of the way" in now["advice"]["medium"][3]
    assert (then["backlog"], then["advice"]["low"][1]) == (20_000, "shed")
    assert refused["advice"]["medium"][1] == "reject"
    assert "circuit is open" in refused["advice"]["medium"][3]


@pytest.mark.parametrize(
    ("path", "parameters", "status"),
    [
        ("/queue", {"queue": 2}, 400),
        ("/queue", {"queue": -1}, 400),
        ("/queue", {"queue": "0", "start": "of yesterday"}, 409),
        ("/queue", {}, 400),
        ("/explain", {"queue": 0, "backlog": "many"}, 400),
        ("/explain", {"queue": 0, "backlog": 2**53}, 400),
        ("/explain", {"queue": 0, "circuit": "ajar"}, 400),
        ("/histories", {"queues": ",".join(["0"] * 61)}, 400),
        ("/histories", {"queues": ""}, 400),
        ("/members", {}, 404),
        ("/audit", {}, 404),
        ("/token", {}, 403),
        ("/nothing", {}, 404),
        ("/console.py", {}, 404),
    ],
)
def test_what_is_impossible_is_refused(make: Make, path: str, parameters: dict[str, Any], status: int) -> None:
    assert get(make(), path, **parameters).status_code == status


def test_the_page_and_its_files_are_ours_alone(make: Make) -> None:
    console = make()
    page = asked(console, "GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    for name in ("console.js", "console.css", "icon.svg", "uplot/uPlot.iife.min.js", "uplot/uPlot.min.css"):
        assert f'"{name}"' in page.text, "relative, so that any prefix does"
        assert asked(console, "GET", f"/{name}").status_code == 200
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in page.text.replace("http-equiv", "")
    for name, value in {
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }.items():
        assert page.headers[name] == value


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:1234"}, 200),
        ({"host": "[::1]:8765"}, 200),
        ({"host": "LOCALHOST"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:8765"}, 421),
        ({"host": ""}, 421),
        ({"origin": URL}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:3000"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_who_may_ask(make: Make, headers: dict[str, str], status: int) -> None:
    answer = asked(make(), "GET", "/about", headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")


def test_a_link_elsewhere_may_lead_to_the_page(make: Make) -> None:
    assert asked(make(), "GET", "/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_other_names_are_listed(make: Make) -> None:
    console = make(hosts=["Ops.example"])
    assert asked(console, "GET", "/about", headers={"host": "ops.example"}).status_code == 200
    refused = asked(console, "GET", "/about")
    assert (refused.status_code, "list it in hosts" in refused.text) == (421, True)


def test_only_whom_identify_lets_in_sees_anything(make: Make) -> None:
    def identify(request: Any) -> str | None:
        name: str | None = request.headers.get("x-name")
        if name == "mallory":
            raise PermissionError("you are not of this house")
        return name

    console = make(identify=identify)
    assert asked(console, "GET", "/about", headers={"x-name": "ann"}).json()["who"] == "ann"
    assert asked(console, "GET", "/about").json()["who"] is None
    for path in ("/", "/about", "/stream", "/queue", "/explain", "/histories", "/members", "/audit", "/token"):
        refused = asked(console, "GET", path, headers={"x-name": "mallory"})
        assert (refused.status_code, refused.text) == (403, "you are not of this house\n"), path
    assert asked(console, "POST", "/switch", headers={"x-name": "mallory", "origin": URL}).status_code == 403


def test_identify_may_be_awaited(make: Make) -> None:
    async def identify(_request: Any) -> str:
        return "x" * 500

    assert asked(make(identify=identify), "GET", "/about").json()["who"] == "x" * 128


def test_it_only_shows_unless_told(make: Make) -> None:
    console = make()
    answer = asked(console, "POST", "/switch", headers={"origin": URL}, json={})
    assert (answer.status_code, "--control" in answer.text) == (403, True)
    assert asked(console, "POST", "/about", headers={"origin": URL}).status_code == 405


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"queues": []}, "queues is"),
        ({"queues": "mail"}, "list of names"),
        ({"queues": [f"q{number}" for number in range(2_001)]}, "at most 2,000"),
        ({"queues": ["a"], "interval": 0}, "interval is 0"),
        ({"queues": ["a"], "viewers": 0}, "viewers is 0"),
        ({"queues": ["a"], "hosts": "localhost"}, "hosts is"),
        ({"queues": ["a"], "token": "short"}, "at least 16"),
        ({"queues": ["a"], "control": True}, "give the configuration a section fleet"),
    ],
)
def test_what_no_console_can_be_made_of(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        app(BackpressureConfig(), InMemoryStatsProvider({}), **arguments)
    assert "short" not in str(caught.value)


def test_an_application_may_dispatch_by_hand(make: Make) -> None:
    console = make()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"].startswith("/console")
        await console({**scope, "root_path": "/console"}, receive, send)

    assert asked(application, "GET", "/console/about").status_code == 200
    assert asked(application, "GET", "/console/").text.startswith("<!doctype html>")
    to_page = asked(application, "GET", "/console")
    assert (to_page.status_code, to_page.headers["location"]) == (307, "console/")


def test_no_password_of_a_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"127.0.0.1:{servers.dead_port()}"
    monkeypatch.setenv("QUEUE_URL", f"redis://canary-user:canary-word@{where}/0")
    about = {"queues": {"mail": {"url": "$QUEUE_URL"}}, "fleet": {"name": "shop"}}
    console = app(BackpressureConfig.from_mapping(about), interval=0.1)
    with contextlib.closing(console), served(console) as url:
        eventually(
            lambda: frames(url, 2)[1][1]["problem"] and "not been read" not in frames(url, 2)[1][1]["fleet"]["problem"]
        )
        texts = [str(frames(url, 3)), repr(console)]
        texts += [
            get(console, path, queue=0, queues=0).text for path in ("/queue", "/explain", "/histories", "/members")
        ]
        audit = get(console, "/audit")
    assert (audit.status_code, where in audit.text) == (502, True)
    assert where in texts[0]
    assert [text for text in (*texts, audit.text) if "canary" in text] == []


def test_a_provider_that_is_away_is_told_and_comes_back(make: Make) -> None:
    provider = InMemoryStatsProvider({"mail": 5})
    with served(make(provider, queues=["mail"])) as url:
        eventually(lambda: frames(url, 2)[1][1]["queues"][0]["backlog"] == 5)
        provider.fail_with(StatsUnavailableError("away", error_type="connect"))
        eventually(lambda: frames(url, 2)[1][1]["problem"] is not None)
        provider.fail_with(None)
        eventually(lambda: frames(url, 2)[1][1]["problem"] is None)
