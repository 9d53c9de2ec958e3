"""Switches on the page, in a real browser: who may turn them, what is asked for, and what everybody then sees."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if sys.platform != "linux":
    pytest.skip("playwright is installed on Linux alone", allow_module_level=True)

from playwright.sync_api import expect

from backpressure import BackpressureConfig
from backpressure._fleet.operator import Operator
from backpressure.console import app
from console.conftest import served
from console.fleets import FLEET, tell
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis
    from playwright.sync_api import Locator, Page

    from console.conftest import Make

# As servers make them, and as people may.
PLAIN, TOKEN = "canary-token-5e1f", 'canary token-5e1f %41"<'


@pytest.fixture
def operator(redis_client: redis.Redis) -> Operator:
    return Operator(redis_client, FLEET)


def banner_of(page: Page) -> Locator:
    return page.get_by_role("status", name="Switches")


def test_an_override_is_turned_on_and_off(page: Page, make: Make, operator: Operator, redis_url: str) -> None:
    with served(make(fleet=redis_url, control=True, token=TOKEN)) as url:
        page.goto(url)
        page.get_by_role("button", name="Switch…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("of the fleet shop will let every job go at once until")
        dialog.get_by_label("Reason").fill("<b>sale</b>")
        dialog.get_by_label("For").select_option("5 minutes")

        for wrong in ("", "wrong", "wröng", TOKEN[:-1]):
            dialog.get_by_label("Token").fill(wrong)
            dialog.get_by_role("button", name="Switch", exact=True).click()
            expect(dialog.get_by_role("alert")).to_contain_text("the token is wrong")
            expect(dialog.get_by_role("button", name="Switch", exact=True)).to_be_enabled()
        assert operator.switches() == []

        dialog.get_by_label("Token").fill(TOKEN)
        dialog.get_by_role("button", name="Switch", exact=True).click()
        expect(dialog).to_be_hidden()
        expect(banner_of(page)).to_contain_text(
            "Manual override is on: every job goes at once in the fleet shop, until"
        )
        expect(banner_of(page)).to_contain_text(f"by {operator.by}: “<b>sale</b>”")
        expect(banner_of(page).locator(".left")).to_have_text(re.compile(r"\d+ min left"))
        (switch,) = operator.switches()
        assert (switch.kind, switch.reason) == ("override", "<b>sale</b>")

        banner_of(page).get_by_role("button", name="End…").click()
        expect(dialog.get_by_label("Turn it")).to_have_value("off")
        expect(dialog.get_by_label("Token")).to_be_hidden()  # it was right, and is kept while the page is open
        dialog.get_by_label("Reason").fill("sold out")
        dialog.get_by_role("button", name="Switch", exact=True).click()
        expect(banner_of(page)).to_be_empty()
        assert operator.switches() == []
        assert [line.reason for line in operator.audit()] == ["sold out", "<b>sale</b>"]

        page.get_by_role("tab", name="Audit").click()
        panel = page.get_by_role("tabpanel", name="Audit")
        expect(panel.get_by_role("row")).to_have_count(3)
        expect(panel).to_contain_text("<b>sale</b>")


@contextlib.contextmanager
def producing(about: dict[str, Any]) -> Iterator[Callable[[], str]]:
    """Run a producer process; give what returns what it was told last."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("producer.py")), json.dumps(about)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines = [""]
    output = process.stdout
    reader = threading.Thread(target=lambda: lines.extend(output))
    reader.start()
    try:
        yield lambda: lines[-1].strip()  # noqa: PLW0108 - the last line is another one each time
        process.stdin.close()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        reader.join(20)
        process.stdout.close()


def test_what_is_switched_on_the_page_reaches_a_producer(page: Page, redis_client: redis.Redis, redis_url: str) -> None:
    redis_client.rpush("mail", *range(1_250))
    about = {"fleet": {"name": FLEET}, "polling": {"interval": 0.1}, "queues": {"mail": {"url": redis_url}}}
    console = app(BackpressureConfig.from_mapping(about), control=True, token=PLAIN, by="ann@desk")

    def switch(reason: str) -> None:
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Reason").fill(reason)
        dialog.get_by_role("button", name="Switch", exact=True).click()
        expect(dialog).to_be_hidden()

    with producing(about) as told, contextlib.closing(console), served(console) as url:
        eventually(lambda: told() == "backlog_yellow backlog_red_shed")
        page.goto(f"{url}#token={PLAIN}")
        # The console is no member of the fleet that it shows.
        expect(page.get_by_role("tab", name="Fleet (1)")).to_be_visible()
        page.get_by_role("button", name="Switch…").click()
        switch("sale")
        eventually(lambda: told() == "manual_override manual_override ann@desk")
        banner_of(page).get_by_role("button", name="End…").click()
        switch("sold out")
        eventually(lambda: told() == "backlog_yellow backlog_red_shed")

        page.get_by_role("button", name="mail", exact=True).click()
        page.get_by_role("button", name="Force circuit open…").click()
        switch("the workers are broken")
        eventually(lambda: told() == "circuit_open circuit_open ann@desk")
        expect(page.locator("#rows > .row").first).to_contain_text("forced in 1 of 1")
        expect(page.locator("#detail")).to_contain_text("forced in 1 of 1")


def test_nothing_goes_without_a_reason(page: Page, make: Make, operator: Operator, redis_url: str) -> None:
    with served(make(fleet=redis_url, control=True, token=PLAIN)) as url:
        page.goto(f"{url}#token={PLAIN}")
        page.get_by_role("button", name="Switch…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Switch", exact=True).click()
        expect(dialog.get_by_label("Reason")).to_be_focused()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert operator.audit() == []


def test_the_token_leaves_the_address_and_a_reload_keeps_it(
    page: Page, make: Make, operator: Operator, redis_url: str
) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    with served(make(fleet=redis_url, control=True, token=PLAIN)) as url:
        page.goto(f"{url}#token={PLAIN}")
        expect(page.locator("#link")).to_have_text("live")
        assert page.url == url
        page.reload()
        page.get_by_role("button", name="Switch…").click()
        expect(page.get_by_role("dialog").get_by_label("Token")).to_be_hidden()
        assert PLAIN not in page.content()
    assert [url for url in sent if PLAIN in url.partition("#")[0]] == []


def test_a_circuit_is_forced_open_from_its_queue(
    page: Page, make: Make, operator: Operator, redis_client: redis.Redis, redis_url: str
) -> None:
    told = {"queues": {"push": (0.0, 1.5, 0.0, 0.0, 0.0, 12.0)}, "probes_ms": {"push": 86_000_000}}
    tell(redis_client, "web1-7-a", circuits={"push": "forced"}, circuits_open=1, **told)
    tell(redis_client, "web1-8-b")
    with served(make(fleet=redis_url, control=True, token=PLAIN)) as url:
        page.goto(f"{url}#token={PLAIN}")
        expect(page.locator("#rows > .row").nth(1)).to_contain_text(
            re.compile(r"forced in 1 of 2, a job goes at \d\d:")
        )
        expect(page.locator("#rows > .row").nth(0)).to_contain_text("closed")
        page.get_by_role("button", name="push", exact=True).click()
        expect(page.locator("#detail")).to_contain_text("delayedhigh 0/s, medium 1.5/s, low 0/s")
        expect(page.locator("#detail")).to_contain_text("shedhigh 0/s, medium 0/s, low 12/s")
        page.get_by_role("button", name="Force circuit open…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("All 2 processes of the fleet shop will refuse this queue's jobs until")
        dialog.get_by_label("Reason").fill("the workers are broken")
        dialog.get_by_role("button", name="Switch", exact=True).click()
        expect(banner_of(page)).to_contain_text("The circuit of push is forced open: its jobs are refused")
        (switch,) = operator.switches()
        assert (switch.queue_name, switch.action) == ("push", "open")


def test_who_may_look_and_not_act(page: Page, make: Make, operator: Operator, redis_url: str) -> None:
    operator.emergency(True, reason="outage", by="bob")
    with served(make(fleet=redis_url)) as url:
        page.goto(url)
        expect(banner_of(page)).to_contain_text("Emergency mode is on")
        expect(banner_of(page)).to_contain_text("by bob: “outage”")
        assert page.get_by_role("button", name=re.compile("Switch|End|Force")).count() == 0


def test_whom_the_application_does_not_name_is_told(page: Page, make: Make, operator: Operator, redis_url: str) -> None:
    who: list[str | None] = [None]
    with served(make(fleet=redis_url, control=True, identify=lambda _: who[0])) as url:
        page.goto(url)
        page.get_by_role("button", name="Switch…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Reason").fill("sale")
        dialog.get_by_role("button", name="Switch", exact=True).click()
        expect(dialog.get_by_role("alert")).to_contain_text("you may look and not act: sign in")
        who[0] = "ann"
        dialog.get_by_role("button", name="Switch", exact=True).click()
        expect(banner_of(page)).to_contain_text("by ann: “sale”")


def test_members_are_a_table(
    page: Page, make: Make, operator: Operator, redis_client: redis.Redis, redis_url: str
) -> None:
    for number in range(30):
        tell(redis_client, f"web1-{number}-a", offers=2.0, sheds=0.5, last_error="<script>alert(1)</script>")
    with served(make(fleet=redis_url)) as url:
        page.goto(url)
        page.get_by_role("tab", name="Fleet (30)").click()
        panel = page.get_by_role("tabpanel", name="Fleet")
        expect(panel).to_contain_text("30 processes: 60/s jobs offered, 0/s delayed, 15/s shed")
        expect(panel.get_by_role("row")).to_have_count(31)
        expect(panel.get_by_role("row").nth(1)).to_contain_text("<script>alert(1)</script>")
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
