"""What a process tells its fleet of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from backpressure._controller.enforcing import enforces_here
from backpressure._engine.totals import REASONS
from backpressure._engine.word import CLOSED, is_forced
from backpressure._fleet.presence import MAX_CIRCUITS, MAX_QUEUES, Presence
from backpressure._model.arguments import masked
from backpressure._model.config.fields import CODE_ONLY
from backpressure._model.vocabulary import SHEDS, CircuitState, Priority
from backpressure._runtime.pauses import paced
from backpressure._runtime.version import version

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._controller.fleet.settings import Settings
    from backpressure._engine.border import Engine
    from backpressure._model.clock import Clock
    from backpressure._model.config.root import BackpressureConfig

__all__ = ["Telling", "config_hash"]

_NONE = (0, 0)
_FIRST = Priority.HIGH.value
_SHED = [position for position, reason in enumerate(REASONS) if reason in SHEDS]


class Telling:
    """Makes signs of life; called by one thread at a time.

    Args:
        engine: whose decisions are counted, and whose circuits are told.
        engine_name: which engine it is.
        config: returns the configuration that holds.
        clock: tells the time.
        tenants: returns who asks most, see `Presence`; asked where the fleet is to be told.
    """

    def __init__(
        self,
        engine: Engine,
        engine_name: str,
        config: Callable[[], BackpressureConfig],
        clock: Clock,
        tenants: Callable[[], Mapping[str, Mapping[str, float]]],
    ) -> None:
        self._engine = engine
        self._engine_name = engine_name
        self._config = config
        self._clock = clock
        self._tenants = tenants
        self._counted: tuple[int, int, int] = (0, 0, 0)
        self._counted_ns: int | None = None
        # Delays and sheds by queue and priority, when they were counted; and a second since then.
        self._by_queue: dict[tuple[str, int], tuple[int, int]] = {}
        self._queues: dict[str, tuple[float, ...]] = {}
        self._hashed: tuple[object, str] = (None, "")
        self._version = ""

    def forget_parent(self) -> None:
        """Begin anew in a forked child."""
        self._counted_ns = None

    def presence(
        self, member_id: str, started_ms: int, switches: tuple[str, ...], last_error: str, settings: Settings
    ) -> Presence:
        """Return what is to be told now."""
        config = self._config()
        self._version = self._version or version()  # it is slow
        offers, delays, sheds = self._rates()
        circuits = self._circuits()
        host, pid, _ = member_id.rsplit("-", 2)
        return Presence(
            id=member_id,
            host=host,
            pid=int(pid),
            version=self._version,
            engine=self._engine_name,
            started_ms=started_ms,
            interval_ms=round(config.polling.interval * 1_000),
            mode=config.mode,
            enforces="yes" if enforces_here(config) else "no",
            law=_law(config),
            config_revision=settings.revision,
            config_hash=self._hash(config),
            config_error=masked(settings.error),
            switches=switches,
            offers=offers,
            delays=delays,
            sheds=sheds,
            queues=self._queues,
            circuits=dict(list(circuits.items())[:MAX_CIRCUITS]),
            probes_ms=self._probes(list(circuits)[:MAX_CIRCUITS]),
            circuits_open=len(circuits),
            tenants=self._tenants() if config.fleet.tenants else {},
            last_error=masked(last_error),
        )

    def _rates(self) -> tuple[float, float, float]:
        """Return offers, delays and sheds a second since this was last asked."""
        offers = delays = sheds = 0
        by_queue: dict[tuple[str, int], tuple[int, int]] = {}
        for key, total in paced(self._engine.totals().items()):
            offers += sum(total.reasons)
            delayed, shed = sum(total.delays), sum([total.reasons[position] for position in _SHED])
            delays += delayed
            sheds += shed
            if delayed or shed:
                by_queue[key] = (delayed, shed)
        counted, now_ns = (offers, delays, sheds), self._clock.monotonic_ns()
        before, since_ns = self._counted, self._counted_ns
        self._counted, self._counted_ns = counted, now_ns
        earlier, self._by_queue = self._by_queue, by_queue
        if since_ns is None or now_ns <= since_ns:
            self._queues = {}
            return 0.0, 0.0, 0.0
        self._queues = _rates_by_queue(by_queue, earlier, (now_ns - since_ns) / 1e9)
        first, second, third = (
            round(max(0, now - then) * 1e9 / (now_ns - since_ns), 3) for now, then in zip(counted, before, strict=True)
        )
        return first, second, third

    def _circuits(self) -> dict[str, str]:
        """Return the circuits that are not closed."""
        found: dict[str, str] = {}
        for name in paced(self._engine.queue_names()):
            breaker = self._engine.breaker(name, False)
            if breaker is not None and (state := breaker.state()) != CLOSED:
                found[name] = "forced" if is_forced(breaker.word) else str(CircuitState(state))
        return found

    def _probes(self, queue_names: list[str]) -> dict[str, int]:
        """Return in how many milliseconds circuits let a job through again, where that is known."""
        now_ns, found = self._clock.monotonic_ns(), {}
        for name in queue_names:
            breaker = self._engine.breaker(name, False)
            probe_ns = None if breaker is None else breaker.retry_at_ns(breaker.word)
            if probe_ns is not None:
                found[name] = max(0, probe_ns - now_ns) // 1_000_000
        return found

    def _hash(self, config: BackpressureConfig) -> str:
        if self._hashed[0] is not config:
            self._hashed = config, config_hash(config)
        return self._hashed[1]


def _rates_by_queue(
    now: Mapping[tuple[str, int], tuple[int, int]], before: Mapping[tuple[str, int], tuple[int, int]], seconds: float
) -> dict[str, tuple[float, ...]]:
    """Return delays and sheds a second, HIGH's first, of those queues that have most of them."""
    found: dict[str, list[int]] = {}
    for key, counts in now.items():
        earlier = before.get(key, _NONE)
        if counts == earlier:
            continue
        name, priority = key
        more = found.get(name)
        if more is None:
            more = found[name] = [0] * 6
        place = _FIRST - priority
        more[place], more[place + 3] = max(0, counts[0] - earlier[0]), max(0, counts[1] - earlier[1])
    most = sorted(found, key=lambda name: sum(found[name]), reverse=True)[:MAX_QUEUES]
    return {name: tuple([round(count / seconds, 3) for count in found[name]]) for name in most}


def config_hash(config: BackpressureConfig) -> str:
    """Return what is the same in all processes that decide by the same settings, but for those that only code holds."""
    text = json.dumps(_plain(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    # Not `to_dict`, which loads cattrs.
    if attrs.has(type(value)):
        fields = (field for field in attrs.fields(type(value)) if CODE_ONLY not in field.metadata)
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _law(config: BackpressureConfig) -> str:
    targets = {
        config.age.target is not None,
        *(own.age.target is not None for own in config.queues.values() if own.age),
    }
    if len(targets) == 2:
        return "both"
    return "age" if True in targets else "three_zone"
