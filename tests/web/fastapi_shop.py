"""The FastAPI shop that servers under test serve. It takes orders while its queue in Redis has room."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request

from backpressure import AsyncBackpressureController, AsyncRedisStatsProvider
from backpressure.integrations.web import BackpressureASGI
from web.config import CONFIG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    provider = AsyncRedisStatsProvider(os.environ["TEST_REDIS_URL"], ["jobs"])
    async with AsyncBackpressureController(CONFIG, provider) as controller:
        app.state.controller = controller
        yield
    await provider.aclose()


application = FastAPI(lifespan=lifespan)
application.add_middleware(BackpressureASGI)


@application.api_route("/order", methods=["GET", "HEAD"], status_code=202)
async def order(request: Request) -> str:
    await request.app.state.controller.run("low", "jobs", asyncio.sleep, 0, max_wait=0.2)
    return "sold"
