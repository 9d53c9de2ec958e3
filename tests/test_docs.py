"""The guide runs as printed, on both engines, and agrees with what it describes."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest

import backpressure
from backpressure import AsyncBackpressureController, BackpressureConfig, BackpressureController, QueueConfig
from backpressure._model.config.fields import CODE_ONLY
from backpressure._telemetry.families import FAMILIES
from support import doc_examples

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GUIDE = [DOCS / "index.md", *sorted((DOCS / "guide").glob("*.md")), DOCS / "reference" / "testing.md"]
SERVER = "redis://localhost:6379/0"


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_a_page_runs(
    page: Path, engine_name: str, engine_module: object, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for name, value in doc_examples.on_engine(engine_name).items():
        monkeypatch.setattr(backpressure, name, value)
    replaced = {}
    if SERVER in page.read_text("utf-8"):
        request.getfixturevalue("redis_client")  # empties it
        replaced[SERVER] = request.getfixturevalue("redis_url")
    doc_examples.run_page(page, replaced)


def test_every_test_that_the_guide_names_is_there() -> None:
    named = [name for page in GUIDE for name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text("utf-8"))]
    assert len(named) > 10
    for file, test in named:
        assert re.search(rf"def {test}\(", (ROOT / file).read_text("utf-8")), f"{file} has no {test}"


def test_configuration_files_and_variables_are_valid() -> None:
    checked = 0
    for page in GUIDE:
        if page.stem == "command-line":  # shows a faulty file, and what is said of it
            continue
        for block in doc_examples.blocks(page):
            if block.language == "toml":
                BackpressureConfig.from_mapping(tomllib.loads(block.text))
                checked += 1
            elif block.language == "sh" and "BACKPRESSURE_" in block.text:
                BackpressureConfig.from_env(dict(word.split("=", 1) for word in shlex.split(block.text)))
                checked += 1
    assert checked >= 3


def test_the_configuration_page_shows_every_default() -> None:
    first = next(
        block for block in doc_examples.blocks(DOCS / "guide" / "configuration.md") if block.language == "toml"
    )
    shown = tomllib.loads(first.text)
    assert BackpressureConfig.from_mapping(shown) == BackpressureConfig()

    def names(table: object) -> object:
        return {key: names(value) for key, value in table.items()} if isinstance(table, dict) else ...

    assert names(shown) == names({k: v for k, v in BackpressureConfig().to_dict().items() if k != "queues"})


CONFIGURATION = (DOCS / "guide" / "configuration.md").read_text("utf-8")
SECTIONS: dict[str, type[Any]] = {
    **{field.name: type(getattr(BackpressureConfig(), field.name)) for field in attrs.fields(BackpressureConfig)},
    "queues": QueueConfig,
}


def rows_of(heading: str) -> dict[str, str]:
    """Return the names and defaults of the table below a heading of the configuration page."""
    text = CONFIGURATION.partition(f"\n### {heading}\n")[2].partition("\n##")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \| (?:`([^`]*)`|not set) \| .* \|$", text, re.MULTILINE))


@pytest.mark.parametrize("section", [name for name, kind in SECTIONS.items() if attrs.has(kind)])
def test_the_configuration_page_has_a_row_for_each_setting(section: str) -> None:
    defaults = SECTIONS[section]()
    if section == "thresholds":
        windows = attrs.asdict(defaults).items()
        values = {f"{name}.{bound}": at for name, window in windows for bound, at in window.items()}
    else:
        values = attrs.asdict(defaults, recurse=False)
    code_only = {field.name for field in attrs.fields(SECTIONS[section]) if CODE_ONLY in field.metadata}
    rows = rows_of(section)
    assert set(rows) == set(values)
    for name, shown in rows.items():
        if name in code_only:
            assert shown == repr(values[name])
        elif not shown:
            assert values[name] is None
        else:
            given = tomllib.loads(f"{section}.{name} = {shown}")
            assert BackpressureConfig.from_mapping(given) == BackpressureConfig()


def test_the_configuration_page_has_the_settings_of_the_whole() -> None:
    rows = rows_of("The whole")
    assert set(rows) == {name for name, kind in SECTIONS.items() if not attrs.has(kind)}
    given = tomllib.loads("".join(f"{name} = {shown}\n" for name, shown in rows.items()))
    assert BackpressureConfig.from_mapping(given) == BackpressureConfig()


@pytest.mark.parametrize("kind", [BackpressureController, AsyncBackpressureController], ids=lambda kind: kind.__name__)
def test_the_configuration_page_has_the_arguments_of_controllers(kind: type[object]) -> None:
    arguments = {
        name: repr(parameter.default)
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and not name.startswith("_")
    }
    outside = rows_of("Outside of the configuration")
    assert {name: shown for name, shown in outside.items() if name.islower()} == arguments


def test_the_metrics_page_lists_every_family() -> None:
    page = (DOCS / "guide" / "metrics.md").read_text("utf-8")
    rows = re.findall(r"^\| `(backpressure_\w+)` \| (\w+) \| ?([\w, ]*?) ?\| (.*) \|$", page, re.MULTILINE)
    assert rows == [(family.name, family.kind, ", ".join(family.labels), family.help) for family in FAMILIES.values()]


def test_the_door_leads_to_every_page() -> None:
    door = (DOCS / "index.md").read_text("utf-8").splitlines()
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")} - {"index"}
    assert {page for page in pages if not page.startswith("stacks/")} - set(door) == set()


def test_the_index_of_stacks_names_every_page() -> None:
    stacks = DOCS / "stacks"
    index = (stacks / "index.md").read_text("utf-8")
    assert [page.stem for page in stacks.glob("*.md") if page.stem != "index" and page.stem not in index] == []


def test_links_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in DOCS.rglob("*.md")
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_picture_of_the_law_is_what_the_engine_says(tmp_path: Path) -> None:
    drawn = tmp_path / "delay.svg"
    subprocess.run([sys.executable, str(ROOT / "scripts" / "draw_law.py"), str(drawn)], check=True)
    assert drawn.read_bytes() == (DOCS / "pictures" / "delay.svg").read_bytes(), "run python scripts/draw_law.py"
