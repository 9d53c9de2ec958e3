"""A fleet on a real server, whose members are what tests write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure._fleet.keys import members_key, presence_key
from backpressure._fleet.presence import Presence

if TYPE_CHECKING:
    import redis

FLEET = "shop"


def tell(client: redis.Redis, member_id: str, **about: Any) -> None:
    """Write what a process of the fleet tells of itself."""
    seconds, _ = client.time()
    usual: dict[str, Any] = {
        "host": "web1",
        "pid": 7,
        "version": "0.1.0",
        "engine": "native",
        "started_ms": (seconds - 60) * 1_000,
        "interval_ms": 5_000,
        "mode": "enforce",
        "law": "three_zone",
        "config_hash": "0123456789ab",
    }
    client.set(presence_key(FLEET, member_id), Presence(id=member_id, **{**usual, **about}).encode(), px=60_000)
    client.zadd(members_key(FLEET), {member_id: seconds * 1_000})
