"""Jobs in their millionths, and how many there are at most."""

from __future__ import annotations

__all__ = ["FLOW", "JOB", "MOST"]

#: One job.
JOB = 1_000_000
#: As many jobs as a queue has, and as many as come or go between two rows, at most: more is a mistake of the source.
MOST = 10**12 * JOB
FLOW = 10**9 * JOB
