"""Every kind of decision on both engines, compared with the cheapest kind, and open circuits with those of others."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from benches import peers, subjects
from benches.interleave import Case, Timing, across, each, interleave, prepared, statement

from backpressure import (
    BackpressureConfig,
    BackpressureController,
    CircuitConfig,
    CircuitOpenError,
    InMemoryStatsProvider,
    JobShedError,
    PollingConfig,
)

if TYPE_CHECKING:
    from benches.report import Report

SUGGEST = 'controller.suggest_throttle("{}", key)'
OF_A_TENANT = 'controller.suggest_throttle("low", key, tenant="acme")'
BACKLOGS = {"empty": 0, "slowed": 1_250, "full": 2 * subjects.ROOM - 1, "broken": 0}
FRESH = subjects.names(1_000)


def kinds(engine: str, stack: ExitStack) -> list[Case]:
    """Return the cases of one engine."""
    config = subjects.rarely(2_000, circuit=CircuitConfig(recovery_timeout=3_600.0))
    backlogs = {**BACKLOGS, **dict.fromkeys(FRESH, 0)}
    controller = stack.enter_context(subjects.running(engine, backlogs, config))
    for _ in range(5):
        controller.record_failure("broken")
    passing = stack.enter_context(subjects.running(engine, BACKLOGS, config))
    passing.set_manual_override(True)
    empty, slowed, full, broken = subjects.keys([*BACKLOGS])
    refused = 'try: controller.run("low", key, nop)\nexcept error: pass'

    def sample() -> None:
        now_ns = controller._engine.now_ns()
        for name in FRESH:
            controller._engine.put_sample(name, 0, now_ns)

    def case(kind: str, code: str, key: str, controller: BackpressureController = controller) -> Case:
        given: dict[str, Any] = {"nop": subjects.nop, "error": CircuitOpenError}
        return statement(f"{engine}: {kind}", code, controller=controller, key=key, **given)

    return [
        case("green, ready", SUGGEST.format("low"), empty),
        case("green, ready, of a tenant", OF_A_TENANT, empty),
        case("throttled, a decision each", SUGGEST.format("medium"), slowed),
        case("shed by load", SUGGEST.format("low"), full),
        case("circuit open", SUGGEST.format("low"), broken),
        case("circuit open, run raises", refused, broken),
        case("manual override", SUGGEST.format("low"), empty, passing),
        prepared(
            f"{engine}: first on a new sample",
            sample,
            SUGGEST.format("low"),
            subjects.keys(FRESH),
            controller=controller,
        ),
        expired(engine, stack),
        *leased(engine, stack),
    ]


def expired(engine: str, stack: ExitStack) -> Case:
    """Return decisions on a sample that nobody renews."""
    provider = InMemoryStatsProvider()
    provider.set("stale", 0, last_updated=datetime.now(UTC) - timedelta(seconds=40))
    controller = stack.enter_context(subjects.running(engine, {}, provider=provider))
    (key,) = subjects.keys(["stale"])
    assert controller.suggest_throttle("low", key).reason == "stats_stale"
    return each(f"{engine}: expired sample", SUGGEST.format("low"), [key] * 100, controller=controller)


def leased(engine: str, stack: ExitStack) -> list[Case]:
    """Return decisions of queues whose ages are held: gos by share and by a free place in the line, and refusals."""
    config = BackpressureConfig(age=subjects.HELD, polling=PollingConfig(cache_ttl=3_600.0))
    controller = stack.enter_context(subjects.running(engine, {"held": 0, "pressed": 0}, config))
    renew, press = subjects.granting(controller, "held"), subjects.granting(controller, "pressed", share_ppm=5_000)
    held, pressed = subjects.keys(["held", "pressed"])
    assert {controller.suggest_throttle(priority, held).reason for priority in ("low", "medium")} == {"age_open"}
    assert "age_shed" in {controller.suggest_throttle("low", pressed).reason for _ in range(2)}  # one of 200 goes
    for key in (held, pressed):  # the first has its queue deal among tenants
        assert {controller.suggest_throttle("low", key, tenant="acme").reason for _ in range(2)}
    given = {"controller": controller, "nop": subjects.nop, "error": JobShedError}
    refused = 'try: controller.run("low", key, nop, max_wait=0)\nexcept error: pass'
    return [
        # Anew before each pass, as what is granted is used up.
        prepared(f"{engine}: go by share", renew, SUGGEST.format("low"), [held] * 10_000, **given),
        prepared(f"{engine}: go by line", renew, SUGGEST.format("medium"), [held] * 10_000, **given),
        prepared(f"{engine}: refused by share", press, SUGGEST.format("low"), [pressed] * 10_000, **given),
        prepared(f"{engine}: go by share, of a tenant", renew, OF_A_TENANT, [held] * 10_000, **given),
        prepared(f"{engine}: refused by share, of a tenant", press, OF_A_TENANT, [pressed] * 10_000, **given),
        prepared(f"{engine}: refused by share, run raises", press, refused, [pressed] * 1_000, **given),
    ]


def measure() -> dict[str, Timing]:
    with ExitStack() as stack:
        cases = [case for engine in subjects.ENGINES for case in kinds(engine, stack)]
        return interleave(*cases, *peers.open_breakers())


def test_kinds(report: Report) -> None:
    timings = across(measure)
    report.times("Decisions by kind", timings, "native: green, ready")
    hit, refused, first = (
        timings[f"native: {kind}"] for kind in ("green, ready", "circuit open", "first on a new sample")
    )
    report.ratio("native, circuit open, no exception", refused, hit, 1.2)
    for by in ("share", "line"):
        report.ratio(f"go by {by}, native", timings[f"native: go by {by}"], hit, 2)
    for engine in subjects.ENGINES:
        ready, delayed = (timings[f"{engine}: {kind}"] for kind in ("green, ready", "throttled, a decision each"))
        report.ratio(f"throttled decision, {engine}", delayed, ready, 8)
        report.ratio(f"refused by share, {engine}", timings[f"{engine}: refused by share"], ready, 8)
        for kind in ("green, ready", "go by share", "refused by share"):
            of_a_tenant = timings[f"{engine}: {kind}, of a tenant"]
            report.ratio(f"{kind}, of a tenant, {engine}", of_a_tenant, timings[f"{engine}: {kind}"], 3)
    report.target("native, first decision on a new sample", first.ns / 1e3, 2, "µs")
