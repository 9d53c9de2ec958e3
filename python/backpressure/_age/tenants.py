"""Fair shares within one priority of a queue: one tenant's flood does not take the others' part of what may go.

Every process deals what its lease lets go among the tenants that it sees itself: no I/O, nothing shared. Their names
are hashed into buckets, so that what is kept does not grow with their number. With each renewal of the lease a *water
level* is set: who asks for less than the level gets all, who asks for more gets the level, and together they get the
lease's part of what all ask for. The level of a tenant of weight 4 is four times as high.

There are two rows of buckets, and a tenant has one in each: it goes by the one that grants more, which is the one that
it has more to itself. So a flood hurts only whom it meets in both rows. The salt decides who that is, is known to
nobody outside, and is replaced now and then. Whole numbers throughout: parts of a job are millionths, smoothed offers
65536ths.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from backpressure._age.protocol import MILLION
from backpressure._model.tenant import MOST_BYTES, parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["MOST_CLASSES", "AnyTenants", "Tenants"]

#: Classes of weights, beside the one of those who have none.
MOST_CLASSES = 16
_ROW = 256
_WORD = (1 << 64) - 1
_MOST_COUNTED = (1 << 22) - 1
_ONE = 1 << 16
#: Offers are smoothed over 2 to the power of so many renewals: the more, the fewer of them a bucket gets in one.
_LEAST_SHIFT, _MOST_SHIFT = 2, 6
#: 2 to the power of so many offers of a bucket are to be in what is smoothed.
_OFFERS_BITS = 5


class AnyTenants(Protocol):
    """The shares of one priority's tenants: `Tenants`, or the native engine's."""

    def place(self, tenant: object) -> int | None: ...
    def place_of(self, tenant_hash: int, weight_class: int) -> int: ...
    def offer(self, place: int) -> bool: ...
    def take(self, place: int) -> bool: ...
    def refuse(self, place: int) -> bool: ...
    def renew(self, share_ppm: int) -> None: ...
    def rekey(self, salt: int) -> None: ...
    def weigh(self, weights: dict[str, int]) -> None: ...
    def class_of(self, name: str) -> int: ...
    def share_ppm(self, place: int) -> int: ...
    def ask(self, place: int) -> int: ...


def _shift(ask: int) -> int:
    """Return over how many renewals the offers of a bucket are smoothed that asks so much, as a power of 2."""
    return min(max(_OFFERS_BITS + 17 - ask.bit_length(), _LEAST_SHIFT), _MOST_SHIFT)


def _no_lock() -> AbstractContextManager[object]:
    return contextlib.nullcontext()


class _Bucket:
    """What is kept of the tenants of one bucket.

    Attributes:
        share_ppm: part of their offers that may go.
        carry_ppm: what the offers so far left over, below a million.
        asked, went: offers since the last renewal, and those of them that went by this bucket.
        ask: offers between two renewals, smoothed, in 65536ths.
    """

    __slots__ = ("ask", "asked", "carry_ppm", "share_ppm", "went")

    def __init__(self, share_ppm: int, carry_ppm: int) -> None:
        self.share_ppm = share_ppm
        self.carry_ppm = carry_ppm
        self.asked = self.went = self.ask = 0


class Tenants:
    """The buckets of one priority of a queue. Thread-safe by the lock that it is given.

    A *place* is a tenant's class of weights with its two buckets, as one number. Class 0 is that of tenants without
    one.
    """

    __slots__ = (
        "_classes",
        "_lock",
        "_new_ppm",
        "_numbers",
        "_over",
        "_renewals",
        "_salt",
        "_share_ppm",
        "_weights",
    )

    def __init__(
        self, salt: int, share_ppm: int, lock: Callable[[], AbstractContextManager[object]] = _no_lock
    ) -> None:
        """Begin with the same share for all.

        Args:
            salt: 64 bits that nobody outside knows; see `rekey`.
            share_ppm: what the lease says now.
            lock: keeps all calls apart.
        """
        self._lock = lock
        self._weights: tuple[int, ...] = (1,) * (MOST_CLASSES + 1)
        self._numbers: dict[str, int] = {}
        self._share_ppm = self._new_ppm = min(share_ppm, MILLION)
        self._over = 0
        self._begin(salt)

    def _begin(self, salt: int) -> None:
        self._salt = salt
        self._classes: list[list[_Bucket] | None] = [None] * (MOST_CLASSES + 1)
        self._renewals = 0

    # Offers.

    def place(self, tenant: object) -> int | None:
        """Return the place of a tenant; ``None`` if that is none."""
        if type(tenant) is str and 0 < len(tenant) <= MOST_BYTES and tenant.isascii():  # nearly all
            return (hash(tenant) * (self._salt | 1) & _WORD) >> 48
        known = parsed(tenant)
        if known is None:
            return None
        return self.place_of(hash(known.name), self.class_of(known.weight_class) if known.weight_class else 0)

    def place_of(self, tenant_hash: int, weight_class: int) -> int:
        """Return the place of a tenant: the high bits of a product are its buckets.

        That is multiplicative hashing: Dietzfelbinger, Hagerup, Katajainen and Penttonen, "A reliable randomized
        algorithm for the closest-pair problem", Journal of Algorithms 25, 1997.

        Args:
            tenant_hash: of its name: 64 bits, of any sign.
            weight_class: the number of its class.
        """
        return weight_class << 16 | (tenant_hash * (self._salt | 1) & _WORD) >> 48

    def offer(self, place: int) -> bool:
        """Tell whether the next offer of a tenant may go: its part of them, evenly, without chance or time."""
        return self.step(place, lets_go=True, refuses=True)[1]

    def take(self, place: int) -> bool:
        """Take what `offer` would let go, and tell so; else nothing has happened, and the offer is to be decided."""
        return self.step(place, lets_go=True, refuses=False)[0]

    def refuse(self, place: int) -> bool:
        """Take the refusal that `offer` would give, and tell so; else nothing has happened."""
        return self.step(place, lets_go=False, refuses=True)[0]

    def step(self, place: int, *, lets_go: bool, refuses: bool) -> tuple[bool, bool]:
        """Take an offer if what becomes of it is wanted; return whether it was, and whether the offer goes."""
        buckets = self._classes[place >> 16] or self._make(place >> 16)
        mine, other = buckets[place >> 8 & 255], buckets[256 + (place & 255)]
        # Without a call under the lock, as in `Lease.take_share`.
        with self._lock():
            if other.share_ppm > mine.share_ppm:
                mine, other = other, mine
            carry_ppm = mine.carry_ppm + mine.share_ppm
            goes = carry_ppm >= MILLION
            if not (lets_go if goes else refuses):
                return False, goes
            if goes:
                carry_ppm -= MILLION
            mine.carry_ppm = carry_ppm
            if mine.asked < _MOST_COUNTED:
                mine.asked += 1
                mine.went += goes
            if other.asked < _MOST_COUNTED:
                other.asked += 1
        return True, goes

    def _make(self, weight_class: int) -> list[_Bucket]:
        # Each begins at another part of a job: else who asks seldom would go at the same offer in all processes.
        carries = ((self._salt * (2 * index + 1) & _WORD) >> 32 for index in range(2 * _ROW))
        buckets = [_Bucket(self._new_ppm, carry * MILLION >> 32) for carry in carries]
        with self._lock():
            made = self._classes[weight_class]
            if made is None:
                made = self._classes[weight_class] = buckets
        return made

    # Renewals.

    def renew(self, share_ppm: int) -> None:
        """Set the water level anew, so that this part of what is asked for goes from now on."""
        with self._lock():
            self._renewals += 1
            most = self._renewals.bit_length() - 1
            self._fetch_counts(most)
            self._share_ppm = min(share_ppm, MILLION)
            self._level(most)

    def rekey(self, salt: int) -> None:
        """Draw others into each bucket. Until it is known what tenants ask for, all have the same share."""
        with self._lock():
            self._fetch_counts(0)
            self._new_ppm = self._share_ppm
            self._begin(salt)

    def weigh(self, weights: dict[str, int]) -> None:
        """Say what classes weigh, `MOST_CLASSES` at most; others weigh 1. It holds from the next renewal."""
        with self._lock():
            self._weights = (1, *weights.values(), *(1,) * (MOST_CLASSES - len(weights)))
            self._numbers = {name: number for number, name in enumerate(weights, 1)}

    def class_of(self, name: str) -> int:
        """Return the number of a class; 0 for one that is not known."""
        return self._numbers.get(name, 0)

    def _rows(self) -> Iterator[list[tuple[int, _Bucket]]]:
        """Yield the buckets of each row with what they weigh."""
        made = [(self._weights[index], buckets) for index, buckets in enumerate(self._classes) if buckets is not None]
        for row in (slice(_ROW), slice(_ROW, None)):
            yield [(weight, bucket) for weight, buckets in made for bucket in buckets[row]]

    def _fetch_counts(self, most: int) -> None:
        """Smooth what was asked for since the last renewal, and note by how much more went than the share of it."""
        asked = went = 0
        for row in self._rows():
            asked = 0  # every offer is counted in both rows
            for _, bucket in row:
                asked += bucket.asked
                went += bucket.went
                bucket.ask += (bucket.asked * _ONE - bucket.ask) >> min(_shift(bucket.ask), most)
                bucket.asked = bucket.went = 0
        self._over += went * _ONE - asked * _ONE * self._share_ppm // MILLION

    def _level(self, most: int) -> None:
        first, second = self._rows()
        total, many = sum(bucket.ask for _, bucket in first), sum(bucket.ask > 0 for _, bucket in first)
        # What went beyond the share is taken off again sooner than offers are smoothed, as far as that can be.
        shift = max(min(_shift(total // max(many, 1)), most) - 3, 1)
        self._over = 0 if self._share_ppm >= MILLION else min(max(self._over, -total << shift), total << shift)
        left = max(0, total * self._share_ppm // MILLION - (self._over >> shift))
        self._new_ppm = MILLION if total else self._share_ppm
        for row in (first, second):
            self._fill(row, left)

    def _fill(self, row: list[tuple[int, _Bucket]], left: int) -> None:
        """Pour what may go into a row: it is used up at the level, which those get who ask for more."""
        asking = [(bucket.ask * _ONE // own, own, bucket) for own, bucket in row if bucket.ask]
        asking.sort(key=lambda it: it[0])
        weight = sum(own for _, own, _ in asking)
        for _, bucket in row:
            bucket.share_ppm = self._new_ppm
        under = True
        for _, own, bucket in asking:
            under = under and bucket.ask * weight <= left * own
            if under:
                left -= bucket.ask
                weight -= own
            else:
                bucket.share_ppm = min(MILLION, left * own * MILLION // (weight * bucket.ask))

    # To look at.

    def share_ppm(self, place: int) -> int:
        """Return which part of a tenant's offers may go."""
        buckets = self._classes[place >> 16]
        return max(it.share_ppm for it in _of(buckets, place)) if buckets else self._new_ppm

    def ask(self, place: int) -> int:
        """Return how many offers a tenant makes between two renewals, smoothed, in 65536ths; not less than it does."""
        buckets = self._classes[place >> 16]
        return min(it.ask for it in _of(buckets, place)) if buckets else 0


def _of(buckets: list[_Bucket], place: int) -> tuple[_Bucket, _Bucket]:
    return buckets[place >> 8 & 255], buckets[256 + (place & 255)]
