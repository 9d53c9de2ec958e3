"""The script is in every artefact, is loaded when it is needed, and its key keeps to one slot."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis.crc import key_slot

from backpressure._age.script import budget_key, source, source_sha1

if TYPE_CHECKING:
    import redis

ROOT = Path(__file__).parent.parent.parent
LUA = "backpressure/_age/script.lua"


def test_the_digest_is_the_servers(redis_client: redis.Redis) -> None:
    assert redis_client.script_load(source()) == source_sha1()


def test_importing_the_package_does_not_read_it() -> None:
    code = "import backpressure; from backpressure._age.script import source; print(source.cache_info().misses)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_what_a_producer_loads_needs_no_client_library() -> None:
    code = (
        "import sys; from backpressure._age import lease, protocol, script; script.source_sha1()\n"
        "print({'redis', 'asyncio', 'prometheus_client', 'cattrs'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("target", ["sdist", "wheel"])
def test_the_script_is_in_what_is_built_without_rust(target: str, tmp_path: Path) -> None:
    # The native wheel is looked into by `make wheels`, as it takes a compiler.
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = tmp_path.iterdir()
    if target == "wheel":
        held = zipfile.ZipFile(built).read(LUA)
    else:
        with tarfile.open(built) as archive:
            file = archive.extractfile(f"{built.name.removesuffix('.tar.gz')}/python/{LUA}")
            assert file is not None
            held = file.read()
    assert held.decode() == source()


def test_a_key_is_named_after_its_queue() -> None:
    assert budget_key("mail") == "bp:{mail}:age"


@pytest.mark.parametrize("name", ["{", "}", "{mail}", "a{b}c", "{}"])
def test_a_name_with_braces_has_a_tag_all_the_same(name: str) -> None:
    tag = hashlib.sha1(name.encode()).hexdigest()
    assert budget_key(name) == f"bp:{{{tag}}}:age"
    assert key_slot(budget_key(name).encode()) == key_slot(tag.encode())


def test_the_page_tells_the_version() -> None:
    page = (ROOT / "docs" / "reference" / "age-protocol.md").read_text("utf-8")
    assert "| 1 | version | | 2 |" in page
    assert "-- Version 2." in source()
    assert "local VERSION = 2\n" in source()
