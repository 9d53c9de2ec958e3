"""Jobs that a rate limit of RQ 3 holds back: they wait, though they are in no list."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rq import Queue
from rq.rate_limit import RateLimit

from backpressure import RedisStatsProvider

if TYPE_CHECKING:
    import redis


def backlogs(url: str, *names: str) -> list[int]:
    with contextlib.closing(RedisStatsProvider(url, names, layout="rq", timeout=10)) as provider:
        found = provider.get_all_queue_stats()
        return [found[name].backlog_count for name in names]  # type: ignore[union-attr]


def test_jobs_that_are_held_back_wait(redis_url: str, redis_client: redis.Redis) -> None:
    mail = Queue("mail", connection=redis_client)
    for _ in range(300):
        mail.enqueue(print, rate_limit=RateLimit("smtp", concurrency=2))
    assert redis_client.llen("rq:queue:mail") == 2
    assert backlogs(redis_url, "mail", "reports") == [300, 0]
    redis_client.delete("rq:rl:smtp:rate_limited")
    assert backlogs(redis_url, "mail", "reports") == [2, 0]


def test_a_limit_may_hold_jobs_of_several_queues(redis_url: str, redis_client: redis.Redis) -> None:
    mail, reports = (Queue(name, connection=redis_client) for name in ("mail", "reports"))
    for number in range(40):
        (reports if number % 4 else mail).enqueue(print, rate_limit=RateLimit("api", concurrency=1))
    reports.enqueue(print, rate_limit=RateLimit("other", concurrency=1))
    last = reports.enqueue(print, rate_limit=RateLimit("other", concurrency=1))
    assert backlogs(redis_url, "mail", "reports") == [10, 32]
    for number in range(160):
        (reports if number % 4 else mail).enqueue(print, rate_limit=RateLimit("api", concurrency=1))
    estimated = backlogs(redis_url, "mail", "reports")
    assert 25 <= estimated[0] <= 100
    assert 100 <= estimated[1] <= 190
    redis_client.delete(last.key)  # a job that expired is dropped by RQ, too
    redis_client.delete("rq:rl:api:rate_limited")
    assert backlogs(redis_url, "mail", "reports") == [1, 1]


def test_limits_beyond_what_is_looked_at_cost_nothing(redis_url: str, redis_client: redis.Redis) -> None:
    for number in range(60):
        redis_client.sadd("rq:rl-keys", f"{number:03}")
        redis_client.zadd(f"rq:rl:{number:03}:rate_limited", {f"job-{number}": 1.0})
        redis_client.hset(f"rq:job:job-{number}", "origin", "mail")
    assert backlogs(redis_url, "mail") == [50]
