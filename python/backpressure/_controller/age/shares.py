"""Among which tenants the leases of one queue are dealt, and who of them asks most."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from backpressure._age.heavy import HeavyHitters
from backpressure._age.protocol import HIGH, LEVELS, MILLION
from backpressure._model.tenant import Tenant, check_tenant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backpressure._age.lease import AnyLease
    from backpressure._age.tenants import AnyTenants
    from backpressure._model.tenant import AnyTenant

__all__ = ["Asker", "Shares", "askers"]

#: So long the same tenants share a bucket.
_SALT_US = 3_600 * 1_000_000
#: After so many renewals what was seen counts half.
_FADES_AFTER = 64


class Asker(NamedTuple):
    """One of those who ask most, as this process sees them.

    Attributes:
        tenant: who.
        asks: jobs a second that it offers, smoothed; not less than it does.
        share: part of them that may go.
    """

    tenant: Tenant
    asks: float
    share: float


def askers(tenants: AnyTenants, heavy: HeavyHitters[Tenant], seconds: float) -> list[Asker]:
    """Return those who ask most where a level is set every so many seconds, the first of them first."""
    found = []
    for who, _, _ in heavy.top():
        place = tenants.place(who)
        if place is not None:
            asks = tenants.ask(place) / 65_536 / seconds
            found.append(Asker(who, asks, tenants.share_ppm(place) / MILLION))
    return sorted(found, key=lambda asker: -asker.asks)


class Shares:
    """Its user brings a lock.

    Args:
        leases: of the queue, by level.
        weights: of classes of tenants, by their names.
    """

    def __init__(self, leases: Sequence[AnyLease], weights: Mapping[str, int]) -> None:
        self._leases = leases
        self._weights = dict(weights)
        self._tenants: list[AnyTenants | None] = [None for _ in LEVELS]
        self._heavy = [HeavyHitters[Tenant]() for _ in LEVELS]
        self._salted_us: int | None = None
        self._renewals = 0
        self._renewed_us: int | None = None
        self._gap_us = 0

    def place(self, level: int, tenant: AnyTenant, *, dealt: bool = True) -> int | None:
        """Return the place of a tenant whose job is `dealt` with by share; ``None`` where that is not so."""
        known = check_tenant(tenant)
        if level == HIGH or not dealt:  # HIGH goes always, and who waits goes in the order of the line
            return None
        tenants = self._tenants[level]
        if tenants is None:
            tenants = self._tenants[level] = self._leases[level].deal(secrets.randbits(64))
            tenants.weigh(self._weights)
        self._heavy[level].see(known)
        return tenants.place(known)

    def keep_up(self, now_us: int) -> None:
        """Have other tenants share buckets once an hour, and forget slowly who asked most. Called at each renewal."""
        self._renewals += 1
        if self._renewed_us is not None:
            gap_us = now_us - self._renewed_us
            self._gap_us += (gap_us - self._gap_us) // 4 if self._gap_us else gap_us
        self._renewed_us = now_us
        if self._renewals % _FADES_AFTER == 0:
            for heavy in self._heavy:
                heavy.fade()
        if self._salted_us is None:
            self._salted_us = now_us
        elif now_us - self._salted_us >= _SALT_US:
            self._salted_us = now_us
            for tenants in self._tenants:
                if tenants is not None:
                    tenants.rekey(secrets.randbits(64))

    def weigh(self, weights: Mapping[str, int]) -> None:
        """Take other weights."""
        self._weights = dict(weights)
        for tenants in self._tenants:
            if tenants is not None:
                tenants.weigh(self._weights)

    def askers(self, level: int) -> list[Asker]:
        """Return those who ask most, the first of them first."""
        tenants = self._tenants[level]
        if tenants is None or not self._gap_us:
            return []
        return askers(tenants, self._heavy[level], self._gap_us / MILLION)
