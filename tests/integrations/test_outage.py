"""A FastAPI shop with the stack page's settings, whose Redis is away for 20 s. Time is moved."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from backpressure import AsyncBackpressureController, AsyncRedisStatsProvider, BackpressureConfig
from backpressure.integrations.web import BackpressureASGI
from backpressure.testing import ManualClock
from integrations.frameworks import required
from support import redis_fixtures
from support.stacks import Page

for framework in ("fastapi", "httpx"):
    required(framework)

import fastapi  # noqa: E402
import httpx  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.servers import Server

QUEUE = "mail"
AWAY = 20


def shop(controller: AsyncBackpressureController, url: str) -> Any:
    client = redis.asyncio.Redis.from_url(url, socket_timeout=0.5, retry=Retry(NoBackoff(), 0))  # a machine may stall

    @asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        yield
        await client.aclose()

    app = fastapi.FastAPI(lifespan=lifespan)
    app.add_middleware(BackpressureASGI)

    @app.post("/order", status_code=202)
    async def order() -> None:
        await controller.run("low", QUEUE, client.rpush, QUEUE, "one", max_wait=0.2)
        await client.delete(QUEUE)

    return app


async def statuses(server: Server, config: BackpressureConfig, engine_name: str, way: str) -> list[int]:
    """Return what each second's order is answered; Redis is away from the sixth on."""
    clock = ManualClock()
    provider = AsyncRedisStatsProvider(server.url, [QUEUE], timeout=0.1)
    controller = AsyncBackpressureController(
        config, provider, clock=clock, registry=CollectorRegistry(), _engine=engine_name
    )
    app = shop(controller, server.url)
    answers: list[int] = []
    async with (
        controller,
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client,
    ):
        for second in range(6 + AWAY + 60):
            if second == 6:
                server.freeze() if way == "frozen" else server.kill()
            if second == 6 + AWAY:
                server.resume() if way == "frozen" else server.start()
            answers.append((await client.post("/order")).status_code)
            await clock.advance_async(1)
    await provider.aclose()
    return answers


@pytest.mark.parametrize("way", ["killed", "frozen"])
@pytest.mark.parametrize("seed", [0, 1])
def test_redis_is_away_for_twenty_seconds(engine_name: str, tmp_path: Path, seed: int, way: str) -> None:
    random.seed(seed)
    (file,) = (file for file in Page("fastapi").files if file.section == "Configure")
    path = tmp_path / file.name
    path.write_text(file.text, "utf-8")
    config = BackpressureConfig.from_file(path)
    with redis_fixtures.start() as server:
        answers = asyncio.run(statuses(server, config, engine_name, way))
    assert set(answers) == {202, 503}, "an error, or a refusal by load"
    assert answers[:6] == [202] * 6
    assert answers[-10:] == [202] * 10
    refused = answers.count(503)
    assert AWAY - 1 <= refused <= 40
