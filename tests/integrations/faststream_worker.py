"""What FastStream's command is to run, see `commands`."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from faststream import FastStream
from faststream.redis import RedisBroker

from backpressure import AsyncBackpressureController, InMemoryStatsProvider
from backpressure.integrations.faststream import BackpressureMiddleware
from integrations.everywhere import from_everywhere

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

controller = AsyncBackpressureController(None, InMemoryStatsProvider({}))
middleware = BackpressureMiddleware(controller, priority="low")
broker = RedisBroker(os.environ["SERVER_URL"])
later = RedisBroker(os.environ["SERVER_URL"], middlewares=[middleware])


async def send(where: str) -> None:
    """Publish what nobody subscribes to."""
    await later.publish(where, list="later")


@contextlib.asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Send as the process begins and ends."""
    await later.connect()
    await send("lifespan")
    yield
    await send("end")
    await later.stop()


app = FastStream(broker, lifespan=lifespan)


@app.on_startup
async def on_startup() -> None:
    """Send before the broker is started."""
    await send("on_startup")


@app.after_startup
async def after_startup() -> None:
    """Send once it is."""
    await send("after_startup")


@app.on_shutdown
async def on_shutdown() -> None:
    """Send before it is stopped."""
    await send("on_shutdown")


@broker.subscriber(list="jobs")
async def work(_: str) -> None:
    """Send from everywhere."""
    await from_everywhere(send)


producer = FastStream(RedisBroker(os.environ["SERVER_URL"]), lifespan=lifespan)
