"""Each engine held against the golden sequences that the Rust tests read too."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backpressure._age.protocol import Terms
from backpressure._engine.laws.three_zone import ThreeZoneLaw
from backpressure._engine.settings import CircuitSettings, EngineSettings
from backpressure._engine.totals import Totals
from backpressure._engine.word import state_of
from backpressure._model.vocabulary import AGE_REASONS, Reason
from engine.parity.host import FakeHost
from support.breaker_model import shown_word

if TYPE_CHECKING:
    from backpressure._engine.border import EngineModule
    from backpressure._model.decision import ThrottleDecision

ROOT = Path(__file__).resolve().parents[3]
QUEUE = "q"


def read(name: str) -> Any:
    return json.loads((ROOT / "tests" / "vectors" / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", ["breaker", "budget", "decision", "lease"])
def test_vectors_are_what_the_script_writes(name: str) -> None:
    maker = runpy.run_path(str(ROOT / "scripts" / f"make_{name}_vectors.py"))
    written = maker["VECTORS"].read_text("utf-8")
    assert written == maker["text"](), f"run scripts/make_{name}_vectors.py"


def test_vectors_reach_everything() -> None:
    changes = Counter(tuple(change) for life in read("breaker") for change in life["changes"])
    wanted = {("0", "1"), ("1", "2"), ("2", "0"), ("2", "1"), ("0", "1 forced"), ("1 forced", "0")}
    assert min(changes[change] for change in wanted) >= 10, changes
    answers = [step[3] for life in read("decision")["lives"] for step in life["steps"] if step[3]]
    reasons = Counter(answer[0] for answer in answers) + Counter(answer[7][0] for answer in answers if answer[7])
    # A second queue, for which there is no room, is the machine's to try; so are held ages, and servers without memory.
    assert {reason for reason in Reason if reasons[reason] < 10} == {Reason.UNTRACKED, Reason.MEMORY, *AGE_REASONS}
    told = Counter((step[1], bool(step[3])) for life in read("lease") for step in life["steps"])
    asked = ("offer", "offer_stale", "is_used_up", "take_share", "refuse_share", "take_saved", "due_in", "foresee")
    assert min(told[act, answer] for act in asked for answer in (False, True)) >= 10, told
    counts = [step[3] for life in read("lease") for step in life["steps"] if step[1] == "take_counts"]
    assert min(sum(map(bool, column)) for column in zip(*counts, strict=True)) >= 10, counts


def test_breaker(engine_module: Any) -> None:
    for life in read("breaker"):
        now_ns = life["origin_ns"]
        changes: list[list[str]] = []
        breaker = engine_module.Breaker(
            CircuitSettings(**life["circuit"]),
            lambda: now_ns,  # noqa: B023 - it is the time of this life's steps
            origin_ns=life["origin_ns"],
            on_change=lambda old, new: changes.append([shown_word(old), shown_word(new)]),  # noqa: B023
        )
        tickets: list[Any] = []
        for step in life["steps"]:
            now_ns, act, number, word, retry_at_ns, granted, began_ns = step
            if act == "acquire":
                ticket = breaker.try_acquire()
                assert (ticket and [ticket.generation, ticket.probe]) == granted, step
                tickets += [ticket] if ticket else []
            elif act in {"success", "failure", "ignored"}:
                ok = {"success": True, "failure": False}.get(act)
                breaker.record(ok, None if number is None else tickets[number], began_ns)
            elif act == "force_open":
                breaker.force_open(number)
            else:
                getattr(breaker, {"look": "state"}.get(act, act))()
            assert breaker.word == word, step
            assert (breaker.retry_at_ns(word) if state_of(word) else None) == retry_at_ns, step
        assert changes == life["changes"]


def test_lease(engine_module: EngineModule) -> None:
    for life in read("lease"):
        lease: Any = engine_module.Lease(life["phase_ppm"])
        tickets: dict[int, int] = {}  # as the engine tells them, by number
        for step in life["steps"]:
            now_us, act, arguments, answer, state = step
            match act:
                case "renew":
                    share, cap, rate, burst, fill, remainder = arguments
                    got = lease.renew(now_us, Terms(share, cap, rate, burst, fill, 0, remainder))
                case "take_ticket":
                    got, tickets[answer] = answer, lease.take_ticket()
                case "due_in":
                    got = lease.due_in_us(tickets[arguments[0]], now_us) if tickets else answer
                case "foresee":
                    got = lease.foresee_us(now_us)
                case "take_saved":
                    got = lease.take_saved(now_us)
                case "take_counts":
                    got = [*lease.take_counts()]
                case "offer_stale":
                    got = lease.offer_stale(aged=arguments[0])
                case _:
                    got = getattr(lease, act)(*arguments)
            assert got == answer, step
            seen = lease.used, lease.cap_jobs, lease.rate_ujobs_per_s, lease.remainder_ppm
            assert seen == (state[1], state[2], state[5], state[8]), step


def tuples(value: Any) -> Any:
    """Return lists, which JSON has alone, as the tuples that the engines take."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def engine_settings(entry: dict[str, Any]) -> EngineSettings:
    fields = {key: tuples(value) for key, value in entry.items()}
    law = ThreeZoneLaw(**{key: tuples(value) for key, value in entry["law"].items()})
    circuit, reason = CircuitSettings(**entry["circuit"]), Reason(entry["fallback_reason"])
    return EngineSettings(**fields | {"law": law, "circuit": circuit, "fallback_reason": reason})


def row(decision: ThrottleDecision) -> list[Any]:
    """Return a decision as the vectors hold it."""
    ticket, advised = decision._ticket, decision.advised
    delay = (decision._answer.retry_delay or 0) if decision.should_shed else decision.delay
    return [
        decision.reason,
        round(delay * 1e9),
        decision.should_shed,
        decision.zone,
        decision.backlog_size,
        ticket and [ticket.generation, ticket.probe],
        decision._answer.retry_at_ns,
        advised and row(advised),
    ]


class Life:
    """One engine led through a sequence of the vectors."""

    def __init__(self, module: EngineModule, vectors: dict[str, Any], first: int) -> None:
        self.now_ns = vectors["origin_ns"]
        entries = vectors["settings"]
        self.entries = entries
        self.host = FakeHost(lambda: self.now_ns)
        self.engine = self.host.engine = module.Engine(engine_settings(entries[first]), self.host)
        self.engine.set_running(True)
        self.breaker: Any = self.engine.breaker(QUEUE, True)
        self.decisions: list[ThrottleDecision] = []

    def act(self, act: str, arguments: list[Any]) -> ThrottleDecision | None:
        engine = self.engine
        match act, arguments:
            case "suggest", [priority]:
                return engine.suggest_throttle(priority, QUEUE)
            case "plan", [priority]:
                return engine.plan(priority, QUEUE)
            case "admit", [number]:
                return engine.admit(self.decisions[number])
            case "record", [number, ok, began_ns]:
                engine.record(self.decisions[number], ok, began_ns)
            case "report", [ok]:
                engine.record_queue(QUEUE, ok)
            case "sample", [backlog, as_of_ns]:
                engine.put_sample(QUEUE, backlog, as_of_ns)
            case "reads", [outcome, backlog]:
                self.host.next_read = outcome, backlog
            case "override", [enabled, until_ns]:
                engine.set_override(enabled, until_ns)
            case "emergency", [enabled]:
                engine.set_emergency(enabled)
            case "forget", []:
                engine.forget_samples()
            case "suspend", [read_first]:
                self.host.read_first = read_first
            case "configure", [number]:
                engine.configure(engine_settings(self.entries[number]))
            case _:
                getattr(self.breaker, act)(*arguments)
        return None


def test_whole_decision(engine_module: EngineModule) -> None:
    vectors = read("decision")
    for entry in vectors["lives"]:
        life = Life(engine_module, vectors, entry["settings"])
        for step in entry["steps"]:
            life.now_ns, act, arguments, answer, told, word = step
            decision = life.act(act, arguments)
            assert (decision and row(decision)) == answer, step
            assert [what[0] for what in life.host.told] == told, step
            assert life.breaker.word == word, step
            life.decisions += [decision] if decision else []
            life.host.told.clear()
        totals = life.engine.totals()
        for index, expected in enumerate(entry["totals"]):
            assert totals.get((QUEUE, index)) == (expected and Totals(*tuples(expected)))
