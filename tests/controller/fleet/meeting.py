"""A fleet's server that tests move by hand: its control hash, its clock, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure import BackpressureConfig, FleetConfig, InMemoryStatsProvider, PollingConfig
from backpressure._fleet.entries import Switch, encode
from backpressure._fleet.presence import Presence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backpressure import QueueStats, StatsUnavailableError
    from backpressure._fleet.ride import Rider
    from backpressure.testing import ManualClock

SERVER_AHEAD_MS = 5_000_000
CONFIG = BackpressureConfig(
    polling=PollingConfig(interval=1, jitter=0, busy_interval=1), fleet=FleetConfig(name="shop")
)


class Meeting(InMemoryStatsProvider):
    """A provider whose polls carry a fleet's commands, as those of Redis do. Its clock is not that of processes."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__({"mail": 5_000, "idle": 0})
        self.clock = clock
        self.control: dict[str, Any] = {}
        self.refused: dict[str, Exception] = {}
        self.away = False
        self.riders: list[Rider] = []
        self.said: list[tuple[str | int, ...]] = []

    def now_ms(self) -> int:
        return self.clock.monotonic_ns() // 1_000_000 + SERVER_AHEAD_MS

    def carry(self, rider: Rider, _target: object = None) -> bool:
        self.riders = [rider]
        return True

    def get_all_queue_stats(self) -> Mapping[str, QueueStats | StatsUnavailableError]:
        for rider in self.riders:
            ride = rider.board()
            if ride is not None and self.away:
                ride.fail(ConnectionError("away"))
            elif ride is not None:
                ride.take([self._reply(*command) for command in ride.commands], lambda error: error)
        return super().get_all_queue_stats()

    def _reply(self, name: Any, *args: str | int) -> Any:
        self.said.append((name, *args))
        if name in self.refused:
            return self.refused[name]
        if name == "HGETALL":
            return {field.encode(): value for field, value in self.control.items()}
        return divmod(self.now_ms() * 1_000, 1_000_000) if name == "TIME" else 1

    def put(self, switch: Switch) -> Switch:
        """Have operators want something."""
        self.control[switch.field] = encode(switch, "shop").encode()
        return switch

    def switch(self, kind: Any, action: Any = "on", *, seconds: float = 60, queue: str | None = None) -> Switch:
        """As `put`, for so many seconds from now."""
        return self.put(
            Switch(
                kind=kind,
                action=action,
                queue_name=queue,
                until_ms=self.now_ms() + round(seconds * 1_000),
                by="ana",
                reason="sale",
                n=len(self.said) + 1,
            )
        )

    def presence(self) -> Presence:
        """Return what the process told last."""
        _, key, told, _, _ = [command for command in self.said if command[0] == "SET"][-1]
        return Presence.of(str(key).rpartition(":")[2], str(told))
