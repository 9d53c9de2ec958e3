"""Where a table sheds LOW jobs, sheds fall on the tenants who ask most: others are spared, and wait as before."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, NamedTuple

from backpressure._age.heavy import HeavyHitters
from backpressure._controller.age.shares import askers
from backpressure._engine.laws.three_zone import ThreeZoneLaw
from backpressure._engine.sync import ForkLock
from backpressure._model.arguments import MAX_NAME_BYTES
from backpressure._model.tenant import check_tenant
from backpressure._model.vocabulary import LOW

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backpressure._age.tenants import AnyTenants
    from backpressure._controller.age.shares import Asker
    from backpressure._engine.border import Engine
    from backpressure._engine.settings import EngineSettings
    from backpressure._model.tenant import AnyTenant, Tenant

__all__ = ["Sparing"]

_LOW_NAME = str(LOW)


class _Dealt(NamedTuple):
    """Among whom one queue's places are dealt, since which sample, how long after the last, and in which process."""

    tenants: AnyTenants
    heavy: HeavyHitters[Tenant]
    as_of_ns: int
    gap_ns: int
    process_id: int


class Sparing:
    """Thread-safe.

    From where shedding begins to red_max the part of LOW jobs that is spared falls from all to none. It is dealt among
    tenants by water level, anew with each sample. Who gives no tenant is shed as before.

    Args:
        make_tenants: the engine's.
        weights_of: returns what classes of tenants weigh in a queue.
    """

    def __init__(self, make_tenants: Callable[..., AnyTenants], weights_of: Callable[[str], Mapping[str, int]]) -> None:
        self._make_tenants = make_tenants
        self._weights_of = weights_of
        self._lock = ForkLock()
        self._dealt: dict[str, _Dealt] = {}
        self._settings: EngineSettings
        self._engine: Engine

    def bind(self, engine: Engine, settings: EngineSettings) -> None:
        """Take the engine, which knows the samples, and its settings."""
        self._engine = engine
        self.configure(settings)

    def configure(self, settings: EngineSettings) -> None:
        """Go by other settings."""
        self._settings = settings
        self._dealt.clear()

    def forget(self, queue_name: str) -> None:
        """Drop what is kept of a queue that lost its state."""
        self._dealt.pop(queue_name, None)

    def spares(self, priority: object, queue_name: object, tenant: AnyTenant) -> bool:
        """Tell whether the next job of a tenant is spared, if it would be shed."""
        if not (priority is LOW or (type(priority) is str and priority == _LOW_NAME)):
            return False
        if type(queue_name) is not str or len(queue_name) > MAX_NAME_BYTES:  # only what is short is hashed
            return False
        sample = self._engine.sample(queue_name)
        law = self._settings.law_of(queue_name)
        if sample is None or not isinstance(law, ThreeZoneLaw):
            return False
        spared_ppm = law.spared_ppm(sample[0])
        if spared_ppm is None:
            return False
        dealt, known = self._dealt_at(queue_name, sample[1], spared_ppm), check_tenant(tenant)
        with self._lock():
            dealt.heavy.see(known)
        place = dealt.tenants.place(known)
        return place is not None and dealt.tenants.offer(place)

    def askers(self, queue_name: str) -> list[Asker]:
        """Return the tenants who asked most while LOW was shed, the first of them first."""
        dealt = self._dealt.get(queue_name)
        if dealt is None or not dealt.gap_ns or dealt.process_id != os.getpid():
            return []
        with self._lock():
            return askers(dealt.tenants, dealt.heavy, dealt.gap_ns / 1e9)

    def _dealt_at(self, queue_name: str, as_of_ns: int, spared_ppm: int) -> _Dealt:
        dealt = self._dealt.get(queue_name)
        if dealt is not None and dealt.as_of_ns == as_of_ns and dealt.process_id == os.getpid():
            return dealt
        with self._lock():
            dealt, process_id = self._dealt.get(queue_name), os.getpid()
            if dealt is None or dealt.process_id != process_id:
                tenants = self._make_tenants(secrets.randbits(64), spared_ppm, self._lock)
                tenants.weigh(dict(self._weights_of(queue_name)))
                dealt = _Dealt(tenants, HeavyHitters(), as_of_ns, 0, process_id)
            elif dealt.as_of_ns != as_of_ns:
                dealt.tenants.renew(spared_ppm)
                dealt.heavy.fade()
                dealt = dealt._replace(as_of_ns=as_of_ns, gap_ns=max(0, as_of_ns - dealt.as_of_ns))
            self._dealt[queue_name] = dealt
        return dealt
