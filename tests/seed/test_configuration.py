"""Every field, JSON name and default that the description gives the configuration."""

from __future__ import annotations

import re
from typing import Any

import attrs
import pytest

from backpressure import (
    BacklogThresholds,
    BacklogWindow,
    BackpressureConfig,
    CircuitConfig,
    PollingConfig,
    RecoveryStrategy,
)
from support.seed_document import CODE, STATEMENTS, snake

# A configuration that uses every JSON name of the description, and differs from the defaults everywhere.
DOCUMENT: dict[str, dict[str, Any]] = {
    "thresholds": {
        "high_priority": {"green_max": 1, "yellow_max": 2, "red_max": 3},
        "medium_priority": {"green_max": 4, "yellow_max": 5, "red_max": 6},
        "low_priority": {"green_max": 7, "yellow_max": 8, "red_max": 9},
    },
    "circuit": {
        "failure_threshold": 6,
        "recovery_threshold": 4,
        "trip_window": 31,
        "recovery_timeout": 61,
        "probe_interval": 6,
    },
    "polling": {"interval": 6, "jitter": 2, "timeout": 4, "max_backoff": 61, "cache_ttl": 31, "enabled": False},
    "recovery": {"fallback_mode": "permissive"},
}
CONFIG = BackpressureConfig.from_mapping(DOCUMENT)

# Each struct of the description: its class, an object loaded from the document, and its part of the document.
STRUCTS: dict[str, tuple[type, Any, dict[str, Any]]] = {
    "BackpressureConfig": (BackpressureConfig, CONFIG, DOCUMENT),
    "BacklogThresholds": (BacklogThresholds, CONFIG.thresholds, DOCUMENT["thresholds"]),
    "BacklogWindow": (BacklogWindow, CONFIG.thresholds.low_priority, DOCUMENT["thresholds"]["low_priority"]),
    "CircuitConfig": (CircuitConfig, CONFIG.circuit, DOCUMENT["circuit"]),
    "PollingConfig": (PollingConfig, CONFIG.polling, DOCUMENT["polling"]),
}


def fields() -> list[tuple[str, str, str]]:
    """Return every struct field of the description with its struct and JSON name."""
    found, struct = [], ""
    for line in CODE.values():
        if header := re.match(r"type (\w+) struct", line):
            struct = header[1]
        elif field := re.match(r'\s+(\w+)\s.*`json:"(\w+)"`', line):
            found.append((struct, field[1], field[2]))
    return found


DEFAULTS = {text: number for number, text in STATEMENTS.items() if 94 < number < 142 and text.startswith("- ")}


def test_all_fields_and_defaults_are_found() -> None:
    assert len(fields()) == 4 + 3 + 3 + 5 + 6
    assert len(DEFAULTS) == 3 + 5 + 6


@pytest.mark.parametrize(("struct", "field", "name"), fields())
def test_every_json_name_sets_its_field(struct: str, field: str, name: str) -> None:
    kind, loaded, said = STRUCTS[struct]
    value = getattr(loaded, name)
    assert name in {snake(field), f"{snake(field)}_max"}
    assert name in said
    assert attrs.has(type(value)) or value == said[name]
    assert kind is BacklogWindow or value != getattr(kind(), name)


def test_the_fallback_mode_is_part_of_the_recovery_strategy() -> None:
    assert CONFIG.recovery == RecoveryStrategy(fallback_mode=False)  # type: ignore[arg-type]  # as the description writes


@pytest.mark.parametrize("text", DEFAULTS)
def test_every_default_is_the_described_one(text: str) -> None:
    config = BackpressureConfig()
    subject, _, described = text.removeprefix("- ").partition(": ")
    if window := re.fullmatch(r"Green=(\d+), Yellow=(\d+), Red=(\d+)", described):
        green, yellow, red = map(int, window.groups())
        expected = BacklogWindow(green_max=green, yellow_max=yellow, red_max=red)
        assert getattr(config.thresholds, subject.lower().replace(" ", "_")) == expected
    else:
        part = config.circuit if DEFAULTS[text] < 120 else config.polling
        number = re.match(r"\d+", described)
        assert getattr(part, snake(subject)) == (int(number[0]) if number else described == "true")
