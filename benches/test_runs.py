"""A no-op run in green: decided, counted, called and reported, compared with calls through circuit breakers only."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from benches import peers, subjects
from benches.interleave import Timing, across, awaited, interleave, statement
from prometheus_client import CollectorRegistry

from backpressure import AsyncBackpressureController, BackpressureConfig, InMemoryStatsProvider

if TYPE_CHECKING:
    from benches.report import Report


def runs() -> dict[str, Timing]:
    (stored,) = subjects.names(1)
    (key,) = subjects.keys([stored])
    with ExitStack() as stack:
        native, pure = (stack.enter_context(subjects.running(name, {stored: 0})) for name in subjects.ENGINES)
        run = 'controller.run("low", key, nop)'
        given: dict[str, Any] = {"key": key, "nop": subjects.nop}
        gate = native.gate("low", key)
        return interleave(
            statement("native run", run, controller=native, **given),
            statement("pure run", run, controller=pure, **given),
            statement("native gate.run", "gate.run(nop)", gate=gate, nop=subjects.nop),
            statement("native gate, with", "with gate: nop()", gate=gate, nop=subjects.nop),
            statement("native slot, with", 'with controller.slot("low", key): nop()', controller=native, **given),
            statement("the no-op alone", "nop()", nop=subjects.nop),
            *peers.breakers(),
        )


def test_run(report: Report) -> None:
    timings = across(runs)
    report.times("run of a no-op in green", timings, "native run", peers.CIRCUITBREAKER)
    report.ratio("native run of a no-op", timings["native run"], timings[peers.CIRCUITBREAKER], 0.35)


def test_async_run(report: Report) -> None:
    (stored,) = subjects.names(1)
    (key,) = subjects.keys([stored])

    async def nop() -> None: ...

    async def make(engine: str) -> AsyncBackpressureController:
        provider = InMemoryStatsProvider({stored: 0})
        config = BackpressureConfig(thresholds=subjects.WIDE)
        controller = AsyncBackpressureController(config, provider, registry=CollectorRegistry(), _engine=engine)
        await controller.start()
        return controller

    with asyncio.Runner() as runner:
        native, pure = (runner.run(make(engine)) for engine in subjects.ENGINES)
        timings = interleave(
            awaited(runner, "native run, awaited", native.run, "low", key, nop),
            awaited(runner, "pure run, awaited", pure.run, "low", key, nop),
            awaited(runner, "native suggest_throttle, awaited", native.suggest_throttle, "low", key),
            awaited(runner, "the no-op alone, awaited", nop),
            *peers.async_breakers(runner, nop),
        )
        for controller in (native, pure):
            runner.run(controller.stop())
    report.times("asyncio: run of a no-op in green", timings, "native run, awaited")
