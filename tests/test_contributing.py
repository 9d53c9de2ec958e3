"""What contributors read is true: the files that pages name are there, and so are the commands of the forms."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from backpressure.providers.layouts import GROUP

ROOT = Path(__file__).parent.parent
PAGES = ("docs/first-change.md", "docs/architecture.md", "CONTRIBUTING.md", ".github/pull_request_template.md")
FORMS = sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml"))
INPUTS = {"textarea", "input", "checkboxes"}


def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def test_the_first_change_names_files_that_are_there() -> None:
    named = re.findall(
        r"`((?:python|rust|tests|docs|scripts)/[\w./]+\.\w+|pyproject\.toml)`", text("docs/first-change.md")
    )
    assert len(named) > 35
    assert [file for file in named if not (ROOT / file).is_file()] == []


def test_the_entry_point_group_is_that_of_the_code() -> None:
    assert re.findall(r"entry point group `([^`]+)`", text("docs/first-change.md")) == [GROUP]


def test_a_law_touches_eight_files_at_most() -> None:
    section = text("docs/first-change.md").partition("\n## A law\n")[2].partition("These are the eight.")[0]
    assert len(re.findall(r"^\| `", section, re.MULTILINE)) == 8


def test_every_room_is_in_the_architecture() -> None:
    package = ROOT / "python" / "backpressure"
    rooms = {path.parent for path in package.glob("_*/**/*.py")}
    page = text("docs/architecture.md")
    assert [room.name for room in rooms if f"{room.name}/" not in page] == []
    files = [path.stem for path in package.glob("_*/**/*.py") if path.stem != "__init__"]
    assert [name for name in files if f"`{name}`" not in page] == []


def test_the_sdist_brings_what_its_tests_read() -> None:
    included = tomllib.loads(text("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    read = {Path(page).parts[0] for page in (*PAGES, "Makefile", ".github/ISSUE_TEMPLATE")}
    assert {f"/{place}" for place in read} <= set(included)


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    makefile = text("Makefile")
    commands = re.findall(r"`(?:\w+=\w+ )?make ([a-z-]+)", text(page))
    assert [command for command in commands if f"\n{command}:" not in makefile] == []


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_a_form_can_be_filled_in(form: Path) -> None:
    described = yaml.safe_load(form.read_text("utf-8"))
    if form.stem == "config":
        assert described == {"blank_issues_enabled": True}
        return
    fields = [field for field in described["body"] if field["type"] in INPUTS]
    assert described["name"]
    assert described["description"]
    assert len({field["id"] for field in fields}) == len(fields) > 0
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_forms_are_found() -> None:
    assert {form.stem for form in FORMS} == {"bug", "config", "idea", "queue"}
