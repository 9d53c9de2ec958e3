"""The page in a real browser: it follows the queues, believes no name, and says what to do when something is away."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

if sys.platform != "linux":
    pytest.skip("playwright is installed on Linux alone", allow_module_level=True)

from playwright.sync_api import expect

from backpressure import BackpressureConfig, InMemoryStatsProvider, StatsUnavailableError
from backpressure._model.stats import QueueStats
from console.conftest import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

    from console.conftest import Make

HOSTILE = ["<img src=x onerror=alert(1)>", "</span><script>alert(2)</script>", "a\u202eb", "{{7*7}}", "x" * 255]
PHONE = {"width": 390, "height": 844}


def row_of(page: Page, name: str) -> Locator:
    return page.locator("#rows > .row").filter(has=page.get_by_role("button", name=name, exact=True))


def open_detail(page: Page, name: str) -> Locator:
    row_of(page, name).get_by_role("button").click()
    return page.locator("#detail")


def width_of(page: Page) -> int:
    width: int = page.evaluate("document.documentElement.scrollWidth")
    return width


def test_a_row_is_live(page: Page, make: Make) -> None:
    provider = InMemoryStatsProvider({"mail": 1_250, "push": 3})
    with served(make(provider, queues=["mail", "push"])) as url:
        page.goto(url)
        expect(page.locator("#link")).to_have_text("live")
        mail = row_of(page, "mail")
        expect(mail).to_contain_text("1,250")
        expect(mail).to_contain_text("yellow 255 ms")
        expect(mail).to_contain_text("red shed")
        expect(row_of(page, "push")).to_contain_text("green go")
        provider.set("mail", 7, oldest_age=90)
        expect(mail.locator(".zone")).to_have_text(["green go"] * 3)
        expect(mail).to_contain_text("90 s")
        expect(page).to_have_title("backpressure")
        provider.set("push", 20_000)
        expect(page).to_have_title("(1) backpressure")


def test_names_are_texts(page: Page, make: Make) -> None:
    provider = InMemoryStatsProvider(dict.fromkeys(HOSTILE, 1))
    with served(make(provider, queues=HOSTILE)) as url:
        page.goto(url)
        expect(page.locator("#rows .name")).to_have_text([HOSTILE[0], HOSTILE[1], "a\\u202eb", *HOSTILE[3:]])
        page.locator("#rows .name").first.click()
        expect(page.locator("#detail table")).to_be_visible()
        assert page.locator("img, script:not([src])").count() == 0
        assert width_of(page) <= 1280


def test_one_queue_in_detail(page: Page, make: Make) -> None:
    provider = InMemoryStatsProvider({"mail": QueueStats("mail", 1_250, processing_count=4, oldest_age=12)})
    with served(make(provider, queues=["mail"])) as url:
        page.goto(url)
        detail = open_detail(page, "mail")
        waiting = detail.get_by_role("img", name=re.compile("Waiting jobs: now 1,250, .*; yellow_max 2,000"))
        expect(waiting.locator("canvas")).to_be_visible()
        expect(detail.get_by_role("img", name=re.compile("oldest job: now 12 s"))).to_be_visible()
        expect(detail).to_contain_text("green_max 500 · yellow_max 2,000 · red_max 5,000")
        detail.get_by_label("Whose thresholds").select_option("low")
        expect(detail).to_contain_text("shed_at 900")
        expect(detail).to_contain_text("running4")
        expect(detail).to_contain_text("unknown, as are delays and sheds")
        expect(detail).to_contain_text("1,250 lies 50 % of the way")
        detail.get_by_label("Waiting jobs", exact=True).fill("20000")
        detail.get_by_label("State of the circuit").select_option("open")
        detail.get_by_role("button", name="Explain").click()
        expect(detail).to_contain_text("if 20,000 jobs wait and the circuit is open")
        expect(detail).to_contain_text("jobs are rejected for recovery_timeout")
        provider.set("mail", 1_999)
        expect(detail.get_by_role("img", name=re.compile("Waiting jobs: now 1,999"))).to_be_visible()


def test_an_age_to_be_held_is_a_line(page: Page, make: Make) -> None:
    config = BackpressureConfig.from_mapping(
        {"queues": {"mail": {"age": {"target": "30s", "store": "redis://127.0.0.1:1/0"}}}}
    )
    provider = InMemoryStatsProvider({"mail": QueueStats("mail", 5, oldest_age=12)})
    with served(make(provider, config)) as url:
        page.goto(url)
        detail = open_detail(page, "mail")
        expect(detail.get_by_role("img", name=re.compile("now 12 s, .*; target 30 s"))).to_be_visible()
        expect(row_of(page, "mail")).to_contain_text("the budget of queue 'mail' cannot be read")
        expect(detail).to_contain_text("an age of 30 s is to be held")


def test_it_is_used_with_the_keyboard(page: Page, make: Make) -> None:
    provider = InMemoryStatsProvider(dict.fromkeys(("alpha", "beta", "gamma"), 1))
    with served(make(provider, queues=["alpha", "beta", "gamma"])) as url:
        page.goto(url)
        expect(row_of(page, "gamma")).to_be_visible()
        page.keyboard.press("/")
        page.keyboard.type("et")
        expect(page.locator("#rows > .row")).to_have_count(1)
        page.get_by_label("Find").fill("")
        expect(page.locator("#rows > .row")).to_have_count(3)
        row_of(page, "alpha").get_by_role("button").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        button = row_of(page, "beta").get_by_role("button")
        expect(button).to_have_attribute("aria-expanded", "true")
        expect(page.locator("#detail table")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#detail")).to_have_count(0)
        expect(button).to_be_focused()
        page.get_by_role("tab", name="Queues").focus()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name="Fleet")).to_be_focused()
        expect(page.get_by_role("tabpanel", name="Fleet")).to_contain_text("there is no fleet")
        expect(page.get_by_role("tabpanel")).to_have_count(1)


def test_queues_are_found_chosen_and_ordered(page: Page, make: Make) -> None:
    backlogs = {"calm": 1, "busy": 700, "full": 20_000, "wrong": 0}
    provider = InMemoryStatsProvider(backlogs)
    provider.fail_with(StatsUnavailableError("it holds a string", error_type="wrongtype"), "wrong")
    names = page.locator("#rows .name")
    with served(make(provider, queues=list(backlogs))) as url:
        page.goto(url)
        expect(names).to_have_text(["calm", "busy", "full", "wrong"])
        expect(row_of(page, "wrong")).to_contain_text("it holds a string")
        page.get_by_label("Order").select_option("worst first")
        expect(names).to_have_text(["wrong", "full", "busy", "calm"])
        page.get_by_label("Order").select_option("most waiting")
        expect(names.first).to_have_text("full")
        page.get_by_role("button", name="1 green").click()
        expect(names).to_have_text(["calm"])
        page.get_by_label("Find").fill("nothing is called so")
        expect(page.locator("#none")).to_contain_text("No queue is like that.")
        page.get_by_role("button", name="Show all queues").click()
        expect(names).to_have_count(4)


def test_a_provider_that_is_away_is_told(page: Page, make: Make) -> None:
    provider = InMemoryStatsProvider({"mail": 5})
    with served(make(provider, queues=["mail"])) as url:
        page.goto(url)
        expect(row_of(page, "mail")).to_contain_text("5")
        provider.fail_with(StatsUnavailableError("nobody listens: check that the server runs", error_type="connect"))
        expect(page.get_by_role("status", name="Problems")).to_contain_text("check that the server runs")
        expect(page.locator("#server")).to_contain_text("statistics connect")
        provider.fail_with(None)
        expect(page.get_by_role("status", name="Problems")).not_to_contain_text("check that the server runs")
        expect(page.get_by_role("status", name="Problems")).to_contain_text("Failed reads since the start: connect")


def test_a_server_that_goes_and_comes_with_other_queues(page: Page, make: Make) -> None:
    with served(make(InMemoryStatsProvider({"mail": 5}), queues=["mail"])) as url:
        page.goto(url)
        expect(page.locator("#link")).to_have_text("live")
        open_detail(page, "mail")
    expect(page.locator("#link")).to_contain_text("no connection since")
    expect(page.locator("#link")).to_contain_text("does backpressure serve run?")
    expect(row_of(page, "mail")).to_contain_text("5")
    port = int(url.rpartition(":")[2].strip("/"))
    with served(make(InMemoryStatsProvider({"push": 6, "sms": 7}), queues=["push", "sms"]), port):
        expect(page.locator("#link")).to_have_text("live")
        expect(page.locator("#rows .name")).to_have_text(["push", "sms"])
        expect(page.locator("#detail")).to_have_count(0)


def test_a_page_that_is_offline_says_so(page: Page, make: Make) -> None:
    provider = InMemoryStatsProvider({"mail": 5})
    with served(make(provider, queues=["mail"])) as url:
        page.goto(url)
        expect(page.locator("#link")).to_have_text("live")
        detail = open_detail(page, "mail")
        expect(detail.locator("table")).to_be_visible()
        page.context.set_offline(True)
        expect(page.locator("#link")).to_contain_text("this device is offline")
        provider.set("mail", 6)
        detail.get_by_role("button", name="Explain").click()
        expect(detail.locator(".stale").first).to_be_visible()
        page.context.set_offline(False)
        expect(page.locator("#link")).to_have_text("live")
        expect(row_of(page, "mail")).to_contain_text("6")


def test_too_many_viewers_are_told_what_to_do(page: Page, make: Make, browser: Browser) -> None:
    with served(make(viewers=1)) as url:
        page.goto(url)
        expect(page.locator("#link")).to_have_text("live")
        other = browser.new_page()
        other.goto(url)
        expect(other.locator("#link")).to_contain_text("1 pages watch already: close one")
        other.close()


def test_a_browser_that_does_not_tell_when_it_is_idle(page: Page, make: Make) -> None:
    page.add_init_script("delete window.requestIdleCallback; delete Window.prototype.requestIdleCallback")
    names = [f"queue-{number:03}" for number in range(200)]
    provider = InMemoryStatsProvider(dict.fromkeys(names, 1))
    with served(make(provider, queues=names)) as url:
        page.goto(url)
        assert page.evaluate("typeof window.requestIdleCallback") == "undefined"
        expect(page.locator("#rows > .row").last.locator(".zone")).to_have_text(["green go"] * 3)


def test_a_thousand_queues(page: Page, make: Make) -> None:
    backlogs = {f"queue-{number:04}": number for number in range(1_000)}
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    provider = InMemoryStatsProvider(backlogs)
    with served(make(provider, queues=list(backlogs), interval=1)) as url:
        page.goto(url)
        rows = page.locator("#rows > .row")
        expect(rows).to_have_count(1_000)
        expect(page.get_by_role("button", name="1,000 all")).to_be_visible()
        # Rows that are not on the screen are neither laid out nor drawn, and their history is not asked for.
        assert page.evaluate("getComputedStyle(document.querySelector('#rows > .row')).contentVisibility") == "auto"
        page.keyboard.press("End")
        expect(rows.last).to_be_in_viewport()
        expect(rows.last).to_contain_text("999")
        histories = [url for url in asked if "/histories" in url]
        assert 0 < len(histories) < 20
        provider.set("queue-0999", 123_456)
        expect(rows.last).to_contain_text("123,456")
        page.get_by_label("Find").fill("0999")
        expect(rows).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_in_dark(page: Page, make: Make, scheme: Any) -> None:
    page.set_viewport_size(PHONE)  # type: ignore[arg-type] # a dict, as it is
    page.emulate_media(color_scheme=scheme)
    provider = InMemoryStatsProvider({"mail": 1_250, "x" * 255: 3})
    with served(make(provider, queues=["mail", "x" * 255])) as url:
        page.goto(url)
        expect(row_of(page, "mail")).to_contain_text("yellow 255 ms")
        assert width_of(page) <= PHONE["width"]
        detail = open_detail(page, "mail")
        expect(detail.locator("table")).to_be_visible()
        expect(detail.locator("canvas").first).to_be_visible()
        assert width_of(page) <= PHONE["width"]
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(19, 23, 22)") == (scheme == "dark")
        for tab in ("Fleet", "Audit"):
            page.get_by_role("tab", name=tab).click()
            assert width_of(page) <= PHONE["width"]


def test_it_works_under_a_prefix_and_keeps_to_itself(page: Page, make: Make) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with served(Starlette(routes=[Mount("/ops/console", make())])) as url:
        page.goto(f"{url}ops/console")
        expect(page.locator("#link")).to_have_text("live")
        expect(open_detail(page, "mail").locator("table")).to_be_visible()
    assert all(request.startswith(f"{url}ops/console") for request in asked)
