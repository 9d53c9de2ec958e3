"""How a process reaches its fleet: with the reads of its provider, else by connections of the fleet's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure._fleet.entries import check_key
from backpressure._fleet.ride import Rider
from backpressure._model.errors import ConfigurationError, StatsUnavailableError
from backpressure._model.units import nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._fleet.ride import Heard
    from backpressure._model.clock import Clock
    from backpressure._model.config.root import BackpressureConfig
    from backpressure.providers.redis.carrier import Carrier
    from backpressure.providers.redis.client import RedisTarget

__all__ = ["Link", "key_of"]

# A sign of life lasts for so many of the longest gaps between polls, and for no less than this.
_GAPS = 3
_LEAST_TTL_MS = 10_000


def key_of(config: BackpressureConfig) -> bytes | None:
    """Return what switches are signed with.

    Raises:
        ConfigurationError: its variable is missing, or too short.
    """
    if config.fleet.key is None:
        return None
    from backpressure.providers.configured import resolved  # noqa: PLC0415 - it is needed by few

    return check_key(resolved(config.fleet.key, "fleet.key"))


class Link:
    """Thread-safe; `exchange` is called by one thread at a time.

    Raises:
        ConfigurationError: no URL is given, and the provider does not lie in one Redis; or the URL is impossible.
    """

    def __init__(self, config: BackpressureConfig, provider: object, clock: Clock) -> None:
        name = config.fleet.name
        assert name is not None  # noqa: S101 - whoever belongs to none has no link
        self._provider: Any = provider
        self._clock = clock
        self._polling = config.polling
        self.rider = Rider(name, clock.monotonic_ns)
        self._target: RedisTarget | None = None
        self._carrier: Carrier | None = None
        self._due_ns: float = 0.0
        self._failures = 0
        if config.fleet.url is not None:
            from backpressure.providers.configured import resolved  # noqa: PLC0415 - imports redis, when it is used
            from backpressure.providers.redis.client import parse_target  # noqa: PLC0415 - likewise

            self._target = parse_target(resolved(config.fleet.url, "fleet.url"), config.polling.timeout)
        elif not self._rides():
            raise ConfigurationError(
                f"fleet.url is missing: {type(provider).__name__} does not read one Redis alone: give the URL of the "
                "Redis or Valkey in which the fleet meets",
                field="fleet.url",
            )
        self.configure(config)

    def configure(self, config: BackpressureConfig) -> None:
        """Poll as `config` says."""
        self._polling = config.polling

    def _rides(self) -> bool:
        """Have the reads of the provider carry the rider, if they go to the fleet's server; tell whether they do."""
        carry = getattr(self._provider, "carry", None)
        return carry is not None and bool(carry(self.rider, self._target))

    def _arm(self, presence: str) -> None:
        polling = self._polling
        longest = polling.interval + polling.jitter + polling.timeout
        ttl_ms = max(_LEAST_TTL_MS, round(_GAPS * longest * 1_000))
        self.rider.arm(presence, ttl_ms, round(self._clock.utc_now().timestamp() * 1_000))

    def prepare(self, presence: Callable[[], str]) -> None:
        """Have the poll that begins now carry the fleet's commands, if it goes there."""
        if self._rides():
            self._arm(presence())

    def exchange(self, presence: Callable[[], str], call: Callable[[Callable[[], object]], object]) -> None:
        """Send what no poll has carried, if it is time, by connections of the fleet's own.

        `call` has a function end within the time of a poll, and may raise.
        """
        polling, now_ns = self._polling, self._clock.monotonic_ns()
        if self._target is None or now_ns < self._due_ns:
            return
        # Of a server that is away, each attempt holds up the polls of others.
        pause = min(polling.max_backoff, polling.interval * 2.0 ** min(self._failures, 64))
        self._due_ns = now_ns + nanoseconds(pause)
        if self._is_carried():
            return
        if not self.rider.is_armed():
            self._arm(presence())
        ride = self.rider.board()
        if ride is not None:
            carrier = self._own_carrier()
            try:
                call(lambda: carrier.carry(ride))
            except StatsUnavailableError as error:  # it took too long
                ride.fail(error)
            self._failures = 0 if ride.error is None else self._failures + 1
            if ride.error is None:
                self._due_ns = now_ns + nanoseconds(polling.interval)

    def _is_carried(self) -> bool:
        """Tell whether the polls carry the rider, and the last one did."""
        return self._rides() and not self.rider.is_armed()

    def _own_carrier(self) -> Carrier:
        if self._carrier is None:
            from backpressure.providers.redis.carrier import Carrier  # noqa: PLC0415 - imports redis, when it is used

            assert self._target is not None  # noqa: S101 - it is checked before
            self._carrier = Carrier(self._target)
        return self._carrier

    def due_ns(self) -> float:
        """Return when `exchange` is to be called again."""
        return self._due_ns if self._target is not None else float("inf")

    def heard(self) -> Heard | None:
        """Return what was heard last."""
        return self.rider.heard()

    def interrupt(self) -> None:
        """End an exchange under way."""
        if self._carrier is not None:
            self._carrier.interrupt()

    def close(self) -> None:
        """Close the connections that were opened here."""
        if self._carrier is not None:
            self._carrier.close()
