"""What `make wheels` promises of a wheel, on wheels that are made for it: nothing of a machine, and a true record."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from typing import TYPE_CHECKING

import pytest
from scripts.wheels.contents import check_wheel
from scripts.wheels.tidy import tidy

if TYPE_CHECKING:
    from pathlib import Path

INFO = "producer_backpressure-1.dist-info"
BILL = f"{INFO}/sboms/backpressure-native.cyclonedx.json"
NEEDED = (
    "_age/script.lua",
    "_native.pyi",
    *(f"console/page/{name}" for name in ("console.css", "console.js", "icon.svg", "index.html")),
    *(f"console/page/uplot/{name}" for name in ("LICENSE", "uPlot.iife.min.js", "uPlot.min.css")),
    "py.typed",
)


def line(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"


def wheel(path: Path, root: str, **more: bytes) -> Path:
    bill = f'{{"bom-ref": "path+file://{root}/rust/core#core@1", "ref": "path+file://{root}/rust/core#core@1"}}'
    files = {f"backpressure/{name}": b"" for name in NEEDED}
    files |= {"backpressure/_native.so": b"machine code", BILL: bill.encode()}
    files |= {f"{INFO}/sboms/{name}.json": data for name, data in more.items()}
    record = "".join(line(name, data) for name, data in files.items()) + f"{INFO}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (files | {f"{INFO}/RECORD": record.encode()}).items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


def test_two_machines_make_one_wheel(tmp_path: Path) -> None:
    mine, hers = wheel(tmp_path / "mine.whl", "/home/me/tree"), wheel(tmp_path / "hers.whl", "/Users/her/src/tree")
    assert mine.read_bytes() != hers.read_bytes()
    tidy(mine)
    tidy(hers)
    assert mine.read_bytes() == hers.read_bytes()


def test_the_record_is_true(tmp_path: Path) -> None:
    made = wheel(tmp_path / "made.whl", "/home/me/tree")
    tidy(made)
    with zipfile.ZipFile(made) as archive:
        assert b"path+file:///rust/core#core@1" in archive.read(BILL)
        rows = list(csv.reader(io.StringIO(archive.read(f"{INFO}/RECORD").decode())))
        assert {name for name, _, _ in rows} == set(archive.namelist())
        assert [",".join(row) for row in rows if row[1]] == [
            line(row[0], archive.read(row[0])).rstrip() for row in rows if row[1]
        ]


def test_a_tidy_wheel_is_let_through(tmp_path: Path) -> None:
    made = wheel(tmp_path / "made.whl", "/home/me/tree")
    tidy(made)
    check_wheel(made, extensions=1)


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (b"file:///build/tree/rust/core", "file:///build/tree"),
        (b"/root/.cargo/registry", "/root/.cargo"),
        (b'"serialNumber": "urn:uuid:1"', "serialNumber"),
    ],
)
def test_a_wheel_that_tells_of_its_machine_is_refused(tmp_path: Path, told: bytes, shown: str) -> None:
    made = wheel(tmp_path / "made.whl", "/home/me/tree", more=told)
    tidy(made)
    with pytest.raises(SystemExit, match=rf"more\.json in made\.whl tells of the machine: .*{shown}"):
        check_wheel(made, extensions=1)


def test_an_extension_in_a_pure_wheel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected 0 extension modules"):
        check_wheel(wheel(tmp_path / "made.whl", ""), extensions=0)
