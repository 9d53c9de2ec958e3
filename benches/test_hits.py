"""A decision that lies ready, against look-ups in caches, limiters, and a call that does nothing."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from benches import peers, subjects
from benches.interleave import Case, each, interleave

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


@pytest.mark.parametrize("count", [1, 1_000], ids=lambda count: f"{count} queues")
def test_hit(report: Report, count: int) -> None:
    stored = subjects.names(count)
    # As many passes through the inner loop, whatever the number of queues.
    keys = subjects.keys(stored) * (1_000 // count)
    with ExitStack() as stack:
        native, pure = (
            stack.enter_context(subjects.running(name, dict.fromkeys(stored, 0))) for name in subjects.ENGINES
        )
        gates = [native.gate("low", name) for name in stored] * (1_000 // count)
        timings = interleave(
            each("native suggest_throttle", SUGGEST, keys, controller=native),
            each("pure suggest_throttle", SUGGEST, keys, controller=pure),
            each("native gate.suggest", "key.suggest()", gates),
            *floors(keys),
            *peers.caches(stored, keys),
            *peers.limiters(keys),
        )
    of = "1 queue" if count == 1 else f"{count:,} queues in rotation"
    hit, gate, slow = (
        timings[name] for name in ("native suggest_throttle", "native gate.suggest", "pure suggest_throttle")
    )
    box = timings[peers.CACHEBOX]
    report.times(f"A decision that lies ready: {of}", timings, "native suggest_throttle", peers.CACHEBOX)
    report.target(f"native hit, {of}", hit.ratio_to(box), 0.6, f"× {peers.CACHEBOX}")
    report.target(f"native gate.suggest, {of}", gate.ratio_to(box), 0.4, f"× {peers.CACHEBOX}")
    report.target(f"pure hit, {of}", slow.ratio_to(hit), 4, "× native hit", least=True)
    report.target(f"pure hit, {of}", slow.ns, 400, "ns")
    if count == 1:
        empty = timings["empty native method, two arguments"]
        report.target("native hit, 1 queue (stretch)", hit.ratio_to(empty), 1.4, "× empty native method")
