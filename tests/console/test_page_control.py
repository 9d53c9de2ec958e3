"""Switches on the page, in a real browser: who may turn them, what is asked for, and what everybody then sees."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright", reason="playwright is installed on Linux alone")

from playwright.sync_api import expect

from backpressure._fleet.operator import Operator
from console.conftest import served
from console.fleets import FLEET, tell

if TYPE_CHECKING:
    import redis
    from playwright.sync_api import Locator, Page

    from console.conftest import Make

TOKEN = "canary-token-5e1f"


@pytest.fixture
def operator(redis_client: redis.Redis) -> Operator:
    return Operator(redis_client, FLEET)


def banner_of(page: Page) -> Locator:
    return page.get_by_role("status", name="Switches")


def test_an_override_is_turned_on_and_off(page: Page, make: Make, operator: Operator) -> None:
    with served(make(operator=operator, control=True, token=TOKEN)) as url:
        page.goto(url)
        page.get_by_role("button", name="Switch…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("of the fleet shop will let every job go at once until")
        dialog.get_by_label("Reason").fill("<b>sale</b>")
        dialog.get_by_label("For").select_option("5 minutes")

        dialog.get_by_label("Token").fill("wrong")
        dialog.get_by_role("button", name="Switch", exact=True).click()
        expect(dialog.get_by_role("alert")).to_contain_text("the token is wrong")
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


def test_nothing_goes_without_a_reason(page: Page, make: Make, operator: Operator) -> None:
    with served(make(operator=operator, control=True, token=TOKEN)) as url:
        page.goto(f"{url}#token={TOKEN}")
        page.get_by_role("button", name="Switch…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Switch", exact=True).click()
        expect(dialog.get_by_label("Reason")).to_be_focused()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert operator.audit() == []


def test_the_token_leaves_the_address_and_a_reload_keeps_it(page: Page, make: Make, operator: Operator) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    with served(make(operator=operator, control=True, token=TOKEN)) as url:
        page.goto(f"{url}#token={TOKEN}")
        expect(page.locator("#link")).to_have_text("live")
        assert page.url == url
        page.reload()
        page.get_by_role("button", name="Switch…").click()
        expect(page.get_by_role("dialog").get_by_label("Token")).to_be_hidden()
        assert TOKEN not in page.content()
    assert [url for url in sent if TOKEN in url.partition("#")[0]] == []


def test_a_circuit_is_forced_open_from_its_queue(
    page: Page, make: Make, operator: Operator, redis_client: redis.Redis
) -> None:
    tell(redis_client, "web1-7-a", circuits={"push": "forced"}, circuits_open=1)
    tell(redis_client, "web1-8-b")
    with served(make(operator=operator, control=True, token=TOKEN)) as url:
        page.goto(f"{url}#token={TOKEN}")
        expect(page.locator("#rows > .row").nth(1)).to_contain_text("forced in 1 of 2")
        expect(page.locator("#rows > .row").nth(0)).to_contain_text("closed")
        page.get_by_role("button", name="push", exact=True).click()
        page.get_by_role("button", name="Force circuit open…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("All 2 processes of the fleet shop will refuse this queue's jobs until")
        dialog.get_by_label("Reason").fill("the workers are broken")
        dialog.get_by_role("button", name="Switch", exact=True).click()
        expect(banner_of(page)).to_contain_text("The circuit of push is forced open: its jobs are refused")
        (switch,) = operator.switches()
        assert (switch.queue_name, switch.action) == ("push", "open")


def test_who_may_look_and_not_act(page: Page, make: Make, operator: Operator) -> None:
    operator.emergency(True, reason="outage", by="bob")
    with served(make(operator=operator)) as url:
        page.goto(url)
        expect(banner_of(page)).to_contain_text("Emergency mode is on")
        expect(banner_of(page)).to_contain_text("by bob: “outage”")
        assert page.get_by_role("button", name=re.compile("Switch|End|Force")).count() == 0


def test_whom_the_application_does_not_name_is_told(page: Page, make: Make, operator: Operator) -> None:
    who: list[str | None] = [None]
    with served(make(operator=operator, control=True, identify=lambda _: who[0])) as url:
        page.goto(url)
        page.get_by_role("button", name="Switch…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Reason").fill("sale")
        dialog.get_by_role("button", name="Switch", exact=True).click()
        expect(dialog.get_by_role("alert")).to_contain_text("you may look and not act: sign in")
        who[0] = "ann"
        dialog.get_by_role("button", name="Switch", exact=True).click()
        expect(banner_of(page)).to_contain_text("by ann: “sale”")


def test_members_are_a_table(page: Page, make: Make, operator: Operator, redis_client: redis.Redis) -> None:
    for number in range(30):
        tell(redis_client, f"web1-{number}-a", offers=2.0, sheds=0.5, last_error="<script>alert(1)</script>")
    with served(make(operator=operator)) as url:
        page.goto(url)
        page.get_by_role("tab", name="Fleet (30)").click()
        panel = page.get_by_role("tabpanel", name="Fleet")
        expect(panel).to_contain_text("30 processes: 60/s jobs offered, 0/s delayed, 15/s shed")
        expect(panel.get_by_role("row")).to_have_count(31)
        expect(panel.get_by_role("row").nth(1)).to_contain_text("<script>alert(1)</script>")
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
