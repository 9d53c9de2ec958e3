"""The circuit breaker's word: everything that its transitions read, in 64 bits.

From the highest bit: state 2, forced 1, lease outstanding 1, count 10, generation 10, milliseconds 40.
The count is that of consecutive failures when closed, of successful probes when half-open. The milliseconds count
from the engine's first clock reading: end of the last failure of a run, opening, or issue of the last probe's lease;
while forced open they tell when that ends. All ones are no instant: the next probe may go at once, or it is forced open
without an end. Stamps and durations round up, and the instants that they are compared with round down: so nothing
happens early, and everything at most 2 ms late.

The milliseconds last for 34 years. The last stamp stands for all later instants too; readings go on. So from then on a
run of failures never ends by idling, and an open circuit admits probes as if it had opened back then: one that never
did would refuse all jobs for ever.
"""

from __future__ import annotations

from typing import NamedTuple

CLOSED, OPEN, HALF_OPEN = 0, 1, 2

MS = 1_000_000
_MAX_MS = 2**40 - 1
MAX_COUNT = 2**10 - 1
MAX_GENERATION = 2**10 - 1
# The stamp of a word whose next probe may go at once, and that of one that is forced open without an end.
DUE = UNENDING = _MAX_MS
# The last stamp that is an instant: this one, or any later one.
LAST = _MAX_MS - 1
# The word of a circuit that is closed and has no failures to forget, but for its generation.
_PRISTINE = ~(MAX_GENERATION << 40)


class Word(NamedTuple):
    """The breaker's word, unpacked."""

    state: int
    forced: bool
    leased: bool
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    generation: int
    stamp_ms: int

    def pack(self) -> int:
        """Return the 64-bit integer."""
        return (
            self.state << 62
            | self.forced << 61
            | self.leased << 60
            | self.count << 50
            | self.generation << 40
            | self.stamp_ms
        )

    @classmethod
    def unpack(cls, word: int) -> Word:
        """Read a 64-bit integer."""
        return cls(
            state_of(word),
            is_forced(word),
            bool(word >> 60 & 1),
            word >> 50 & MAX_COUNT,
            generation_of(word),
            word & _MAX_MS,
        )

    def to(self, state: int, *, forced: bool = False, leased: bool = False, stamp_ms: int = 0) -> Word:
        """Return the word after a transition: a new generation, counting from zero."""
        return Word(state, forced, leased, 0, (self.generation + 1) & MAX_GENERATION, stamp_ms)


def state_of(word: int) -> int:
    """Return the state in a packed word."""
    return word >> 62


def is_forced(word: int) -> bool:
    """Tell whether a packed word is held open by hand."""
    return bool(word >> 61 & 1)


def generation_of(word: int) -> int:
    """Return the generation in a packed word."""
    return word >> 40 & MAX_GENERATION


def is_pristine(word: int) -> bool:
    """Tell whether a packed word is closed and has no failures to forget."""
    return word & _PRISTINE == 0


def floor_ms(elapsed_ns: int) -> int:
    """Round a reading down to whole milliseconds."""
    return max(elapsed_ns, 0) // MS


def stamp_ms(elapsed_ns: int) -> int:
    """Round a stamp up to whole milliseconds, saturating at the last one."""
    return min(-(-max(elapsed_ns, 0) // MS), LAST)
