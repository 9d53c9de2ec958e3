"""What users would pick instead, each set up as its own documentation does, warm, and with the same keys.

None of them does what a decision does; each does one part of it. NOTES.md says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cachebox
import cachetools
import circuitbreaker  # type: ignore[import-untyped]
import interlock
import limits
import moka_py
import prometheus_client
import purgatory
import pybreaker
import throttled
from benches.interleave import Case, awaited, each, statement
from benches.subjects import nop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

CACHEBOX = "cachebox.TTLCache.get"
CIRCUITBREAKER = "circuitbreaker.call"
HOUR = 3_600.0
# Limiters must never refuse here, because a refusal is another path.
NEVER_FULL = 10**9


def caches(stored: Sequence[str], keys: Sequence[str]) -> list[Case]:
    """Look-ups in caches that expire, each holding `stored`, as `keys` ask for them; and in a dict."""
    values = dict.fromkeys(stored, object())
    room = len(stored) + 1
    box: cachebox.TTLCache[str, object] = cachebox.TTLCache(room, HOUR, values)
    tools: cachetools.TTLCache[str, object] = cachetools.TTLCache(room, HOUR)
    moka: moka_py.Moka[str, object] = moka_py.Moka(room, ttl=HOUR)
    for key, value in values.items():
        tools[key] = value
        moka.set(key, value)
    assert all(box.get(key) is tools.get(key) is moka.get(key) is values[key] for key in keys)
    return [
        each(CACHEBOX, "cache.get(key)", keys, cache=box),
        each("cachetools.TTLCache.get", "cache.get(key)", keys, cache=tools),
        each("moka_py.Moka.get", "cache.get(key)", keys, cache=moka),
        each("dict.get, which never expires", "cache.get(key)", keys, cache=values),
    ]


def limiters(keys: Sequence[str]) -> list[Case]:
    """Rate limiters in memory, and one count of a labelled counter."""
    window = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
    hourly = limits.parse(f"{NEVER_FULL}/hour")
    bucket = throttled.Throttled(quota=f"{NEVER_FULL}/s burst {NEVER_FULL}")
    counter = prometheus_client.Counter("jobs", "Jobs.", ["priority", "queue"], registry=None)
    return [
        each("limits, fixed window, hit", "limiter.hit(item, key)", keys, limiter=window, item=hourly),
        each("throttled-py, token bucket, limit", "limiter.limit(key)", keys, limiter=bucket),
        each("prometheus-client, labels().inc()", 'counter.labels("low", key).inc()', keys, counter=counter),
    ]


def breakers() -> list[Case]:
    """Calls of a no-op through a closed circuit breaker."""
    return [
        statement(CIRCUITBREAKER, "breaker.call(nop)", breaker=circuitbreaker.CircuitBreaker(), nop=nop),
        statement("pybreaker.call", "breaker.call(nop)", breaker=pybreaker.CircuitBreaker(), nop=nop),
        statement("purgatory, with", "with breaker: nop()", breaker=_purgatory(), nop=nop),
        statement("interlock-cb.call", "breaker.call(nop)", breaker=interlock.CircuitBreaker(name="peer"), nop=nop),
    ]


def open_breakers() -> list[Case]:
    """Calls that an open circuit breaker refuses by raising."""
    ours = circuitbreaker.CircuitBreaker(failure_threshold=1, recovery_timeout=HOUR)
    pybreakers = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=HOUR)
    locked = interlock.CircuitBreaker(name="open peer")
    locked.force_open()
    for breaker in (ours, pybreakers):
        _fail(breaker.call)
    refused = "try: breaker.call(nop)\nexcept error: pass"
    return [
        statement("circuitbreaker, open", refused, breaker=ours, nop=nop, error=circuitbreaker.CircuitBreakerError),
        statement("pybreaker, open", refused, breaker=pybreakers, nop=nop, error=pybreaker.CircuitBreakerError),
        statement("interlock-cb, open", refused, breaker=locked, nop=nop, error=interlock.CircuitOpenError),
    ]


def async_breakers(runner: asyncio.Runner, work: Callable[[], object]) -> list[Case]:
    """Calls of a coroutine function through a closed circuit breaker."""
    return [
        awaited(runner, "circuitbreaker.call_async", circuitbreaker.CircuitBreaker().call_async, work),
        awaited(runner, "interlock-cb.call, awaited", interlock.CircuitBreaker(name="async peer").call, work),
    ]


def _purgatory() -> AbstractContextManager[object]:
    return purgatory.SyncCircuitBreakerFactory().get_breaker("peer")


def _fail(call: Callable[[Callable[[], object]], object]) -> None:
    def fail() -> None:
        raise ConnectionError

    try:
        call(fail)
    except (ConnectionError, pybreaker.CircuitBreakerError):
        return
