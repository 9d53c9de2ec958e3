"""Which tenants ask most of the queues, as the processes of the fleet tell: nothing of tenants lies anywhere else."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from backpressure._watch.meeting import Meeting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from backpressure._model.config.root import BackpressureConfig

__all__ = ["Heaviest", "heaviest_of", "heaviest_sentence"]

#: Jobs a second by the names of tenants, the first asks most; by queue.
Heaviest = dict[str, dict[str, float]]

_SHOWN = 8


@contextlib.contextmanager
def heaviest_of(config: BackpressureConfig, provider: object, names: Sequence[str]) -> Iterator[Callable[[], Heaviest]]:
    """Give what asks the fleet of a configuration; where it has none that tells of tenants, nobody is known.

    What cannot be read now is left out: whoever looks at queues sees them without it.
    """
    if config.fleet.name is None or not config.fleet.tenants:
        yield dict
        return
    meeting = Meeting(config, provider, names, None)

    def ask() -> Heaviest:
        try:
            members = meeting.operator().members()
        except (RedisError, OSError):
            return {}
        sums: dict[str, Counter[str]] = {}
        for member in members:
            for queue, tenants in member.tenants.items():
                sums.setdefault(queue, Counter()).update(tenants)
        return {queue: dict(tenants.most_common(_SHOWN)) for queue, tenants in sums.items()}

    with contextlib.closing(meeting):
        yield ask


def heaviest_sentence(tenants: Mapping[str, float]) -> str:
    """Say who asks most; an empty text if nobody is known."""
    if not tenants:
        return ""
    return "tenants that ask most: " + ", ".join(f"{name} {_rate(asks)}/s" for name, asks in tenants.items())


def _rate(asks: float) -> str:
    return f"{asks:,.0f}" if asks >= 100 else f"{asks:.3g}"
