"""What controllers make of a queue that their provider knows nothing of."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from backpressure import (
    AsyncBackpressureController,
    AsyncRedisStatsProvider,
    BackpressureController,
    Reason,
    RedisStatsProvider,
)

if TYPE_CHECKING:
    import redis

    from backpressure import ThrottleDecision


def is_unknown(decision: ThrottleDecision) -> bool:
    return (decision.reason, decision.backlog_size) == (Reason.FALLBACK_CONSERVATIVE, None)


def warns_once(caplog: pytest.LogCaptureFixture) -> bool:
    (record,) = [record for record in caplog.records if "queue 'other'" in record.getMessage()]
    return record.levelno == logging.WARNING and 'give key="{queue}"' in record.getMessage()


@pytest.mark.parametrize("layout", [None, "celery"])
def test_it_is_unknown_with_one_warning(
    layout: str | None,
    engine_name: str,
    redis_url: str,
    redis_client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider = RedisStatsProvider(redis_url, ["mail"], layout=layout)
    with caplog.at_level(logging.WARNING), BackpressureController(None, provider, _engine=engine_name) as controller:
        for _ in range(3):
            assert is_unknown(controller.suggest_throttle("low", "other"))
            assert not controller.refresh("other")
        assert controller.suggest_throttle("low", "mail").backlog_size == 0
    provider.close()
    assert warns_once(caplog)


def test_asyncio_has_the_same(
    engine_name: str, redis_url: str, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        provider = AsyncRedisStatsProvider(redis_url, ["mail"])
        async with AsyncBackpressureController(None, provider, _engine=engine_name) as controller:
            for _ in range(3):
                assert is_unknown(await controller.suggest_throttle("low", "other"))
                assert not await controller.refresh("other")
        await provider.aclose()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert warns_once(caplog)
