"""What a law judges: everything that was read of a queue at one moment."""

from __future__ import annotations


class Sample:
    """What was read of a queue: waiting jobs, the monotonic instant at which that was true, the oldest job's age then.

    `oldest_age_ns` is ``None`` where the queue cannot tell. So is `memory_permille`, the thousandths of its limit of
    memory that the queue's server used, and where it has no limit. Each object is a snapshot number of its own.
    """

    __slots__ = ("as_of_ns", "backlog", "memory_permille", "oldest_age_ns")

    def __init__(
        self, backlog: int, as_of_ns: int, oldest_age_ns: int | None, memory_permille: int | None = None
    ) -> None:
        self.backlog = backlog
        self.as_of_ns = as_of_ns
        self.oldest_age_ns = oldest_age_ns
        self.memory_permille = memory_permille

    def age_ns(self, now_ns: int) -> int:
        """Return how old the sample is."""
        return max(0, now_ns - self.as_of_ns)
