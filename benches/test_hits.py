"""A decision that is ready, compared with look-ups in caches, limiters, and a call that does nothing."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from benches import peers, subjects
from benches.interleave import Case, Timing, across, each, interleave

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.report import Report

SUGGEST = 'controller.suggest_throttle("low", key)'


def floors(keys: Sequence[str]) -> list[Case]:
    floor = subjects.floor()
    return [
        each("empty native method, two arguments", 'floor.two("low", key)', keys, floor=floor),
        each("empty native method, none", "floor.none()", keys, floor=floor),
    ]


def hits(count: int) -> dict[str, Timing]:
    stored = subjects.names(count)
    # The same number of passes through the inner loop for any number of queues.
    keys = subjects.keys(stored) * (1_000 // count)
    with ExitStack() as stack:
        native, pure = (stack.enter_context(subjects.running(it, dict.fromkeys(stored, 0))) for it in subjects.ENGINES)
        gates = [native.gate("low", name) for name in stored] * (1_000 // count)
        return interleave(
            each("native suggest_throttle", SUGGEST, keys, controller=native),
            each("pure suggest_throttle", SUGGEST, keys, controller=pure),
            each("native gate.suggest", "key.suggest()", gates),
            *floors(keys),
            *peers.caches(stored, keys),
            *peers.limiters(keys),
        )


@pytest.mark.parametrize("count", [1, 1_000], ids=lambda count: f"{count} queues")
def test_hit(report: Report, count: int) -> None:
    timings = across(hits, count)
    of = "1 queue" if count == 1 else f"{count:,} queues in rotation"
    hit, pure = (timings[f"{engine} suggest_throttle"] for engine in subjects.ENGINES)
    gate = timings["native gate.suggest"]
    box = timings[peers.CACHEBOX]
    report.times(f"A decision that lies ready: {of}", timings, hit.name, peers.CACHEBOX)
    report.ratio(f"native hit, {of}", hit, box, 0.6)
    report.ratio(f"native gate.suggest, {of}", gate, box, 0.4)
    report.ratio(f"pure hit, {of}", pure, hit, 4, least=True)
    report.target(f"pure hit, {of}", pure.ns, 400, "ns")
    if count == 1:
        report.ratio("native hit, 1 queue (stretch)", hit, timings["empty native method, two arguments"], 1.4)
