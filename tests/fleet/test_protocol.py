"""The page for other languages says what this package writes and takes: keys, members, signatures, commands."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from pathlib import Path

import attrs
import pytest

from backpressure._fleet import keys
from backpressure._fleet.audit import AUDIT_LENGTH, AuditEntry
from backpressure._fleet.entries import Switch, decode, encode
from backpressure._fleet.presence import Presence
from backpressure._fleet.pushed import Pushed
from backpressure._fleet.ride import Rider

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "fleet-protocol.md").read_text("utf-8")
SWITCH, CONFIG = (json.loads(block) for block in re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL))
KEY = b"0123456789abcdef"


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def members(title: str) -> set[str]:
    """Return what the first column of a section's tables names."""
    first = re.findall(r"^\| (`.*?) \|", section(title), re.MULTILINE)
    return {name for cell in first for name in re.findall(r"`(\w+)`", cell)}


def test_keys() -> None:
    made = {
        keys.control_key("<fleet>"),
        keys.before_key("<fleet>"),
        keys.audit_key("<fleet>"),
        keys.members_key("<fleet>"),
        keys.presence_key("<fleet>", "<id>"),
    }
    assert set(re.findall(r"^\| `(bp:[^`]+)`", PAGE, re.MULTILINE)) == made
    assert f"`MAXLEN ~ {AUDIT_LENGTH}`" in PAGE


def test_the_example_of_a_switch_is_taken() -> None:
    switch = decode("override", json.dumps(SWITCH), "shop")
    assert json.loads(encode(switch, "shop")) == SWITCH
    assert members("Switches") >= SWITCH.keys() - {"v"}


def test_the_example_of_a_configuration_is_taken() -> None:
    pushed = Pushed.decode(json.dumps(CONFIG), "shop")
    assert json.loads(pushed.encode("shop")) == CONFIG
    assert members("Configuration") >= CONFIG.keys() - {"v", "by", "reason"}


def signed(*parts: object) -> str:
    return hmac.new(KEY, "\n".join(map(str, parts)).encode(), hashlib.sha256).hexdigest()


def test_signatures_are_made_as_it_says() -> None:
    switch = Switch(kind="circuit", queue_name="é", action="open", until_ms=5, by="ana", reason="x", n=3)
    assert json.loads(encode(switch, "shop", KEY))["mac"] == signed(1, "shop", "circuit:é", "open", 5, 3, "ana", "x")
    told = json.loads(Pushed(n=3, share_permille=10, settings={"a": 1}, by="ana", reason="x").encode("shop", KEY))
    digests = [hashlib.sha256(told[name].encode()).hexdigest() for name in ("settings", "others")]
    assert told["mac"] == signed(1, "shop", "config", 10, 3, 0, "ana", "x", *digests)


def test_shares_are_dealt_as_it_says() -> None:
    for number in range(50):
        place = int(hashlib.sha256(f"host-{number}".encode()).hexdigest()[:8], 16) % 1_000
        for share in (place, place + 1):
            pushed = Pushed(n=3, share_permille=max(1, share), settings={}, by="a", reason="x")
            assert (pushed.of(f"host-{number}")[0] == 3) == (place < max(1, share))


def test_what_a_process_tells() -> None:
    told = {field.name for field in attrs.fields(Presence)} - {"id", "problem"}
    assert members("Presence") == told


def test_what_the_audit_holds() -> None:
    entry = AuditEntry(at_ms=5, field="override", action="on", by="ana", reason="x")
    named = set(re.findall(r"`(\w+)`", section("Audit").partition("; its id")[0]))
    assert named == set(entry.fields())


def test_the_commands_of_a_poll() -> None:
    rider = Rider("shop", lambda: 0)
    rider.arm("told", 5_000, 5)
    ride = rider.board()
    assert ride is not None
    said = " ".join(section("Reading").split())
    for name, *_ in ride.commands[:3]:
        assert f"`{name}`" in said


@pytest.mark.parametrize("word", [4_096, 65_536, 16_384])
def test_bounds(word: int) -> None:
    assert f"{word:,}".replace(",", " ") in PAGE or str(word) in PAGE
