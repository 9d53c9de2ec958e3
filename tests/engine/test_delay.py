"""A delay that lies ready: what its callers share, and what each has for itself."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from backpressure import BackpressureConfig, Reason, ThrottleDecision
from support.garbage import COUNTS_REFERENCES, is_gone

if TYPE_CHECKING:
    from backpressure import BackpressureController
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController


def test_each_caller_has_its_own_decision_of_one_answer(controller: BackpressureController, clock: ManualClock) -> None:
    first = controller.suggest_throttle("medium", "yellow")
    clock.advance(0.5)
    second = controller.suggest_throttle("medium", "yellow")
    assert type(second) is ThrottleDecision
    assert (second, hash(second), repr(second)) == (first, hash(first), repr(first))
    assert second._answer is first._answer
    assert second._ticket is not first._ticket
    assert (first._issued_ns, first._ticket.issued_ns) == (clock.monotonic_ns() - 500_000_000,) * 2
    assert (second._issued_ns, second._ticket.issued_ns) == (clock.monotonic_ns(),) * 2
    assert (first._computed, second._computed) == (True, False)


def test_a_gate_and_a_name_give_the_same(controller: BackpressureController) -> None:
    gate = controller.gate("medium", "yellow")
    decisions = [gate.suggest(), gate.suggest(), controller.suggest_throttle("medium", "yellow")]
    assert len({id(decision) for decision in decisions}) == 3
    assert {decision._answer for decision in decisions} == {decisions[0]._answer}


def test_a_decision_is_freed_with_its_last_caller(controller: BackpressureController) -> None:
    controller.suggest_throttle("medium", "yellow")
    decision = controller.suggest_throttle("medium", "yellow")
    answer, gone = decision._answer, weakref.ref(decision)
    if COUNTS_REFERENCES:
        assert gc.is_tracked(decision)
    assert answer in gc.get_referents(decision)
    del decision
    assert is_gone(gone)
    assert controller.suggest_throttle("medium", "yellow")._answer is answer


def test_what_observe_mode_lets_go_carries_the_real_one(make_controller: MakeController) -> None:
    controller = make_controller(config=BackpressureConfig(mode="observe"))
    for _ in range(2):
        decision = controller.suggest_throttle("medium", "yellow")
        assert (decision.reason, decision.delay, decision.retry_after) == (Reason.OBSERVE_ONLY, 0.0, None)
        assert decision.advised == decision.advised
        assert decision.advised is not None
        assert (decision.advised.reason, decision.advised.delay > 0) == (Reason.BACKLOG_YELLOW, True)
        assert decision.advised._ticket is decision._ticket


@pytest.mark.parametrize("after", ["sample", "failure", "override"])
def test_what_it_was_made_of_ends_it(controller: BackpressureController, clock: ManualClock, after: str) -> None:
    first = [controller.suggest_throttle("medium", "yellow") for _ in range(2)][-1]
    if after == "sample":
        controller._engine.put_sample("yellow", 0, clock.monotonic_ns())
    elif after == "failure":
        for _ in range(5):
            controller.record_failure("yellow")
    else:
        controller.set_manual_override(True)
    assert controller.suggest_throttle("medium", "yellow").reason is not first.reason


def test_a_report_belongs_to_the_decision_that_was_issued(controller: BackpressureController) -> None:
    decisions = [controller.suggest_throttle("medium", "yellow") for _ in range(5)]
    for decision in decisions:
        controller.record_failure(decision)
    assert controller.suggest_throttle("medium", "yellow").reason is Reason.CIRCUIT_OPEN
