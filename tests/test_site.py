"""The built documentation is whole: links lead somewhere, its search finds, code can be copied, pictures are there."""

from __future__ import annotations

import html.parser
import re
from functools import cache
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest

from support import site


class Parts(NamedTuple):
    """What a page has: where it links to, what it loads, and the places in it that can be linked to."""

    links: set[str]
    loads: set[str]
    places: set[str]


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts = Parts(set(), set(), set())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        if "id" in given:
            self.parts.places.add(given["id"])
        if tag == "a" and "href" in given:
            self.parts.links.add(given["href"])
        elif tag in {"img", "script"} and "src" in given:
            self.parts.loads.add(given["src"])
        elif tag == "link" and given.get("rel") in {"stylesheet", "index", "search", "next", "prev"}:
            self.parts.loads.add(given["href"])


@cache
def parts(page: str) -> Parts:
    reader = _Reader()
    reader.feed((site.BUILT / page).read_text("utf-8"))
    return reader.parts


def broken(page: str, target: str) -> bool:
    """Tell whether what a page points to within the site is not there."""
    if urlsplit(target).scheme or target.startswith("//"):
        return False
    path, place = urldefrag(unquote(urljoin(page, target)))
    path = path.partition("?")[0]
    file = site.BUILT / (path or page)
    if not file.is_file():
        return True
    return bool(place) and file.suffix == ".html" and place not in parts(path or page).places


def test_each_link_within_the_site_leads_somewhere() -> None:
    checked = [(page, target) for page in site.pages() for target in sorted(parts(page).links | parts(page).loads)]
    assert len(checked) > 1_000
    assert [(page, target) for page, target in checked if broken(page, target)] == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    site.pages()
    assert broken("index.html", "guide/nowhere.html")
    assert broken("index.html", "guide/metrics.html#nowhere")
    assert not broken("guide/metrics.html", "../index.html")


def test_a_site_needs_nobody_else() -> None:
    """It loads nothing from elsewhere: it is read offline, and tells nobody who reads it."""
    elsewhere = {target for page in site.pages() for target in parts(page).loads if urlsplit(target).netloc}
    assert elsewhere == set()


def test_the_first_page_shows_the_demo() -> None:
    site.pages()
    assert any(target.endswith("demo-backlog.png") for target in parts("index.html").loads)


@pytest.mark.parametrize(
    ("asked", "found"),
    [("backpressurecontroller", "reference/controllers.html"), ("opentelemetry", "guide/opentelemetry.html")],
)
def test_its_search_finds(asked: str, found: str) -> None:
    site.pages()
    with site.served() as url:
        shown = site.dom(f"{url}/search.html?q={asked}", "--virtual-time-budget=10000")
    results = shown.partition('id="search-results"')[2]
    assert re.search(rf'href="{found}', results), results[:2_000]


def test_code_has_a_button_that_copies_it_and_output_has_none() -> None:
    site.pages()
    with site.served() as url:
        shown = site.dom(f"{url}/index.html", "--virtual-time-budget=5000")
    blocks = re.findall(r'<div class="highlight-(\w+) notranslate">(.*?)</pre>(.*?)</div>', shown, re.DOTALL)
    copied = {language for language, _, after in blocks if "copybtn" in after}
    assert "python" in copied
    assert "text" not in copied
    assert "text" in {language for language, _, _ in blocks}
