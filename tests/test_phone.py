"""The built documentation fits a phone: no page is wider than its screen, and no table of settings either."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest

from support import site

WIDTH = 390
#: Shows every page in a frame that is as wide as a phone, and writes down how wide it and its tables are.
MEASURE = """<!doctype html>
<body>{frames}<pre id="measured"></pre>
<script>
addEventListener("load", () => {{
  const found = {{}};
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument;
    found[frame.title] = {{
      page: page.documentElement.scrollWidth,
      tables: [...page.querySelectorAll("table")].map((table) => table.parentElement.scrollWidth),
    }};
  }}
  document.getElementById("measured").textContent = JSON.stringify(found);
}});
</script>
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Any]]:
    """How wide each page is, and each of its tables."""
    pages = site.pages()
    frame = '<iframe title="{0}" src="/{0}" width="{1}" height="800" style="border: 0"></iframe>'
    frames = "".join(frame.format(html.escape(page), WIDTH) for page in pages)
    with site.served(MEASURE.format(frames=frames)) as url:
        shown = site.dom(f"{url}/measure")
    (found,) = re.findall(r'<pre id="measured">(.*?)</pre>', shown) or [shown]
    answer: dict[str, dict[str, Any]] = json.loads(html.unescape(found))
    assert sorted(answer) == pages
    return answer


def test_no_page_is_wider_than_a_phone(measured: dict[str, dict[str, Any]]) -> None:
    assert len(measured) > 30
    assert {page: widths["page"] for page, widths in measured.items() if widths["page"] > WIDTH} == {}


def test_tables_of_settings_and_stacks_do_not_scroll_sideways(measured: dict[str, dict[str, Any]]) -> None:
    read_often = [page for page in measured if page.startswith(("index", "guide/configuration", "stacks/"))]
    assert len(read_often) >= 4
    assert {
        page: measured[page]["tables"] for page in read_often if max(measured[page]["tables"], default=0) > WIDTH
    } == {}
