"""Write tests/vectors/decision.json: sequences of whole decisions on one queue, to check both engines.

The answers come from the tests' model and not from an engine. Run it after a change of a decision; the tests notice
when the file is out of date.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import attrs

from backpressure._engine.laws.three_zone import ThreeZoneLaw
from backpressure._engine.settings import CircuitSettings, EngineSettings
from backpressure._model.vocabulary import Priority, Reason

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from engine.parity.model import Answer, DecisionModel  # noqa: E402 - found by the line above

VECTORS = TESTS / "vectors" / "decision.json"
MS = 1_000_000
SECOND = 1_000 * MS
ORIGIN_NS = 7_000 * SECOND + 123_456
QUEUE = "q"

STRICT = EngineSettings(
    law=ThreeZoneLaw(
        windows=((10, 20, 120), (100, 200, 400), (1_000, 2_000, 4_000)),
        yellow_min_ns=10 * MS,
        yellow_max_ns=500 * MS,
        red_max_ns=5 * SECOND,
        scales=((3, 2), (1, 1), (1, 2)),
        shed_permille=800,
        scale_yellow=True,
    ),
    circuit=CircuitSettings(
        failure_threshold=2,
        recovery_threshold=2,
        trip_window_ms=3_000,
        recovery_timeout_ms=700,
        probe_interval_ms=300,
        high_attempts=True,
    ),
    laws={},
    circuits={},
    observed={},
    patterns=(),
    one_mode=True,
    cache_ttl_ns=2 * SECOND,
    check_after_ns=SECOND,
    check_every_ns=400 * MS,
    degrade_ns=3 * SECOND,
    fallback_ns=(SECOND, 500 * MS, 100 * MS),
    fallback_reason=Reason.FALLBACK_CONSERVATIVE,
    polling=True,
    observe=False,
    max_queues=1,
)
SETTINGS = [
    STRICT,
    attrs.evolve(STRICT, polling=False, fallback_reason=Reason.FALLBACK_PERMISSIVE, fallback_ns=(0, 0, 0)),
    attrs.evolve(STRICT, observe=True, degrade_ns=0),
    attrs.evolve(STRICT, fallback_reason=Reason.FALLBACK_CIRCUIT_ONLY, fallback_ns=(0, 0, 0)),
]
BACKLOGS = [0, 10, 11, 15, 20, 21, 100, 101, 120, 150, 200, 201, 400, 1_000, 1_500, 2_000, 2_001, 4_000]
ACTS = {
    "suggest": 40,
    "plan": 12,
    "admit": 12,
    "record": 24,
    "report": 10,
    "sample": 16,
    "reads": 8,
    "override": 6,
    "emergency": 6,
    "configure": 4,
    "force_open": 1,
    "force_close": 2,
    "reset": 1,
    "hasten": 3,
    "forget": 2,
    "suspend": 4,
}


def row(answer: Answer) -> list[Any]:
    """Return an answer as the file holds it; the delay of a refused job is the one it would have had."""
    ticket = answer.ticket
    return [
        answer.reason,
        answer.retry_ns or 0,
        answer.shed,
        answer.zone,
        answer.backlog,
        ticket and [ticket.generation, ticket.probe],
        answer.retry_at_ns,
        answer.advised and row(answer.advised),
    ]


class Life:
    """One engine's sequence. A step: instant, act, its arguments; then answer, news to the host, and breaker's word."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._now_ns = ORIGIN_NS
        self._settings = dice.randrange(len(SETTINGS))
        self._model = DecisionModel(SETTINGS[self._settings], lambda: self._now_ns)
        self._model.set_running(True)
        self._breaker = self._model.breaker(QUEUE, True)
        self._answers: list[Answer] = []

    def entry(self, steps: int) -> dict[str, Any]:
        """Live `steps` steps; return their entry in the file."""
        rows = [self._step() for _ in range(steps)]
        totals = self._model.totals()
        return {
            "settings": self._settings,
            "steps": rows,
            "totals": [totals.get((QUEUE, priority.value)) for priority in Priority],
        }

    def _step(self) -> list[Any]:
        self._pass_time()
        act = self._dice.choices([*ACTS], [*ACTS.values()])[0]
        arguments: list[Any] = getattr(self, f"_{act}", list)()
        if not arguments and act in {"admit", "record"}:
            act, arguments = "suggest", self._suggest()
        answered = len(self._answers)
        self._do(act, arguments)
        answers = [row(answer) for answer in self._answers[answered:]]
        told = [what[0] for what in self._model.told]
        self._model.told.clear()
        assert self._breaker is not None  # noqa: S101 - there is room for one queue
        return [self._now_ns, act, arguments, answers[0] if answers else None, told, self._breaker.word()]

    def _pass_time(self) -> None:
        dice = self._dice
        edges = [edge_ns for edge_ns in self._model.edges() if edge_ns < self._now_ns + 6 * SECOND]
        if edges and dice.random() < 0.3:
            self._now_ns = max(self._now_ns, dice.choice(edges[:2]) + dice.choice([-1, 0, 0, 1]))
        else:
            self._now_ns += dice.choice([0, 0, 0, 1, MS, 50 * MS, 200 * MS])

    # The next methods choose the arguments of an act.

    def _suggest(self) -> list[Any]:
        return [str(self._dice.choice([*Priority]))]

    _plan = _suggest

    def _admit(self) -> list[Any]:
        planned = [n for n, answer in enumerate(self._answers) if not answer.shed]
        return [self._dice.choice(planned[-2:])] if planned else []

    def _record(self) -> list[Any]:
        count = len(self._answers)
        if not count:
            return []
        ok = self._dice.choices([True, False, None], [5, 4, 1])[0]
        began_ns = self._now_ns - self._dice.choice([0, 3 * SECOND]) if ok is False else None
        return [max(0, count - self._dice.randint(1, 4)), ok, began_ns]

    def _report(self) -> list[Any]:
        return [self._dice.random() < 0.3]

    def _sample(self) -> list[Any]:
        return [self._dice.choice(BACKLOGS), self._now_ns - self._dice.choice([0, 0, 0, 0, SECOND, 2 * SECOND, -MS])]

    def _reads(self) -> list[Any]:
        return [self._dice.choice(["sample", "fail", "cold", "cold", "cold"]), self._dice.choice(BACKLOGS)]

    def _override(self) -> list[Any]:
        return [self._dice.random() < 0.5, self._now_ns + self._dice.choice([0, MS, 300 * MS])]

    def _emergency(self) -> list[Any]:
        return [self._dice.random() < 0.2]

    def _force_open(self) -> list[Any]:
        return [self._dice.choice([None, self._now_ns + 300 * MS])]

    def _suspend(self) -> list[Any]:
        return [self._dice.random() < 0.5]

    def _configure(self) -> list[Any]:
        return [self._dice.randrange(len(SETTINGS))]

    def _do(self, act: str, arguments: list[Any]) -> None:
        model = self._model
        match act, arguments:
            case "suggest", [priority]:
                self._answers.append(model.suggest_throttle(priority, QUEUE))
            case "plan", [priority]:
                self._answers.append(model.plan(priority, QUEUE))
            case "admit", [number]:
                self._answers.append(model.admit(self._answers[number]))
            case "record", [number, ok, began_ns]:
                model.record(self._answers[number], ok, began_ns)
            case "report", [ok]:
                model.record_queue(QUEUE, ok)
            case "sample", [backlog, as_of_ns]:
                model.put_sample(QUEUE, backlog, as_of_ns)
            case "reads", [outcome, backlog]:
                model.next_read = outcome, backlog
            case "override", [enabled, until_ns]:
                model.set_override(enabled, until_ns)
            case "emergency", [enabled]:
                model.set_emergency(enabled)
            case "forget", []:
                model.forget_samples()
            case "suspend", [read_first]:
                model.read_first = read_first
            case "configure", [number]:
                # Another object each time, because that is another configuration.
                model.configure(attrs.evolve(SETTINGS[number]))
            case _:
                getattr(self._breaker, act)(*arguments)


def text() -> str:
    """Return the file: the configurations, and an array of sequences, one step a line."""
    dice = random.Random(23)  # noqa: S311 - the file must come out the same each time
    entries = []
    for _ in range(40):
        entry = Life(dice).entry(steps=80)
        rows = ",\n".join(json.dumps(row) for row in entry.pop("steps"))
        entries.append(f'{json.dumps(entry)[:-1]},\n"steps": [\n{rows}\n]}}')
    settings = ",\n".join(json.dumps(attrs.asdict(settings)) for settings in SETTINGS)
    return f'{{"origin_ns": {ORIGIN_NS},\n"settings": [\n{settings}\n],\n"lives": [\n' + ",\n".join(entries) + "\n]}\n"


if __name__ == "__main__":
    VECTORS.write_text(text(), "utf-8")
    print(f"wrote {VECTORS}")
