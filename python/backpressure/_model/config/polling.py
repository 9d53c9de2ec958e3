"""How statistics are read in the background."""

from types import MappingProxyType
from typing import Any

import attrs

from backpressure._model.config.fields import DAY, HOUR, MINUTE, TICK, Section, Unset, boolean, duration
from backpressure._model.half_built import repr_when_half_built

__all__ = ["PollingConfig"]


def _longest_gap(polling: Any) -> Any:
    # Rounded to nanoseconds, or 0.1 + 0.2 would be more than 0.3.
    return round(polling.interval + polling.jitter + polling.timeout, 9)


@repr_when_half_built
@attrs.frozen(kw_only=True)
class PollingConfig(Section):
    """How statistics are read in the background. All durations in seconds. Immutable.

    Args:
        interval: between two polls.
        busy_interval: between two reads of a queue that lies outside of green. When more jobs were let in since the
            sample than lie between it and the next zone, its queue is read at once, up to every 50 ms.
        jitter: a poll comes up to this much earlier or later, so that producers do not poll together.
        timeout: longest a whole poll, or the first read of a queue, may take.
        max_backoff: longest wait after failed polls.
        cache_ttl: age up to which a sample is used. One that was read for the decision itself is used up to the age of
            an interval: with 0 and without polling, each decision reads.
        enabled: ``False`` reads on the caller's path whenever a sample has expired.

    What is not set follows `interval`: `busy_interval`, `jitter` and `timeout` a shorter one, `max_backoff` and
    `cache_ttl` a longer.

    Raises:
        ConfigurationError: a value is impossible, or does not fit another.

    Example:
        >>> polling = PollingConfig(interval="500ms")
        >>> polling.jitter, polling.timeout, polling.cache_ttl
        (0.25, 0.5, 30.0)
    """

    _path = "polling"

    interval: float = duration(5.0)
    busy_interval: float = duration(1.0)
    jitter: float = duration(1.0)
    timeout: float = duration(3.0, doubt_above=MINUTE)
    max_backoff: float = duration(60.0)
    cache_ttl: float = duration(30.0)
    enabled: bool = boolean(default=True)

    _own_rules = (
        ("interval", lambda interval: 0.050 <= interval <= DAY or "must be from 50 ms to 24 h"),
        ("busy_interval", lambda busy: busy >= 0.050 or "must be at least 50 ms"),
        ("jitter", lambda jitter: jitter >= 0 or "must not be negative"),
        ("timeout", lambda timeout: timeout >= TICK or "must be at least 10 ms"),
        ("max_backoff", lambda longest: longest <= DAY or "must be at most 24 h"),
        ("cache_ttl", lambda ttl: 0 <= ttl <= HOUR or "must be from 0 to 1 h"),
    )
    _follow = MappingProxyType(
        {
            "busy_interval": lambda default, it: min(default, it.interval),
            "jitter": lambda default, it: min(default, it.interval / 2),
            "timeout": lambda default, it: min(default, it.interval),
            "max_backoff": lambda default, it: max(default, it.interval),
            "cache_ttl": lambda default, it: max(default, _longest_gap(it)) if it.enabled else default,
        }
    )
    _rules = (
        (
            "interval",
            lambda it: (
                not it.enabled
                or isinstance(it.interval, Unset)
                or _longest_gap(it) <= HOUR
                or f"with jitter and timeout ({_longest_gap(it)} s) it must be at most 1 h, the longest cache_ttl"
            ),
        ),
        (
            "busy_interval",
            lambda it: it.busy_interval <= it.interval or f"must be from 50 ms to the interval ({it.interval} s)",
        ),
        (
            "jitter",
            lambda it: it.jitter <= it.interval / 2 or f"must be from 0 to half the interval ({it.interval / 2} s)",
        ),
        (
            "timeout",
            lambda it: it.timeout <= it.interval or f"must be from 10 ms to the interval ({it.interval} s)",
        ),
        (
            "max_backoff",
            lambda it: it.interval <= it.max_backoff or f"must be from the interval ({it.interval} s) to 24 h",
        ),
        (
            "cache_ttl",
            lambda it: (
                not it.enabled
                or it.cache_ttl >= _longest_gap(it)
                or f"must be at least interval + jitter + timeout ({_longest_gap(it)} s), "
                "or samples expire between polls"
            ),
        ),
    )
