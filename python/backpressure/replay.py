"""What a policy would have done with what was recorded: `Replay`; and which one suits it: `recommend`."""

from __future__ import annotations

from backpressure._recommend.recommend import recommend
from backpressure._recommend.recommendation import Recommendation
from backpressure._recommend.values import Candidate, RecommendedQueue
from backpressure._replay.behaviour import Behaviour, Loops
from backpressure._replay.replay import Replay
from backpressure._replay.values import ReplayAnswer, ReplayedPriority, ReplayedQueue, ReplayParity

__all__ = [
    "Behaviour",
    "Candidate",
    "Loops",
    "Recommendation",
    "RecommendedQueue",
    "Replay",
    "ReplayAnswer",
    "ReplayParity",
    "ReplayedPriority",
    "ReplayedQueue",
    "recommend",
]

# Tracebacks and pages name them by where users import them from, not by their files.
for _name in __all__:
    globals()[_name].__module__ = __name__
