"""What a policy would have done with what was recorded: `Replay`, and what it tells."""

from __future__ import annotations

from backpressure._replay.behaviour import Behaviour, Loops
from backpressure._replay.replay import Replay
from backpressure._replay.values import ReplayAnswer, ReplayedPriority, ReplayedQueue, ReplayParity

__all__ = ["Behaviour", "Loops", "Replay", "ReplayAnswer", "ReplayParity", "ReplayedPriority", "ReplayedQueue"]

# Tracebacks and pages name them by where users import them from, not by their files.
for _name in __all__:
    globals()[_name].__module__ = __name__
