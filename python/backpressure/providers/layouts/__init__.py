"""How job frameworks store their queues in Redis. Give one as ``RedisStatsProvider(url, queues, layout=...)``.

Each layout maps a queue's name to commands on single keys, and their replies to a `QueueStats`. A package adds its
own with an entry point of the group ``backpressure.layouts``. It names a callable that takes no argument and returns a
`Layout`.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from backpressure._model.errors import ConfigurationError
from backpressure.providers.layouts._steps import Command, DiscoveringLayout, Layout, Rounds, Steps, ask, together
from backpressure.providers.layouts.arq import ArqLayout
from backpressure.providers.layouts.bullmq import BullMQLayout
from backpressure.providers.layouts.celery import CeleryLayout
from backpressure.providers.layouts.dramatiq import DramatiqLayout
from backpressure.providers.layouts.go_redis_work_queue import GoRedisWorkQueueLayout
from backpressure.providers.layouts.huey import HueyLayout
from backpressure.providers.layouts.plain import ListKey, ZSetKey
from backpressure.providers.layouts.rq import RQLayout
from backpressure.providers.layouts.saq import SAQLayout
from backpressure.providers.layouts.sidekiq import SidekiqLayout
from backpressure.providers.layouts.stream import StreamKey
from backpressure.providers.layouts.streaq import StreaqLayout
from backpressure.providers.layouts.taskiq import TaskiqLayout

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ArqLayout",
    "BullMQLayout",
    "CeleryLayout",
    "Command",
    "DiscoveringLayout",
    "DramatiqLayout",
    "GoRedisWorkQueueLayout",
    "HueyLayout",
    "Layout",
    "ListKey",
    "RQLayout",
    "Rounds",
    "SAQLayout",
    "SidekiqLayout",
    "Steps",
    "StreamKey",
    "StreaqLayout",
    "TaskiqLayout",
    "ZSetKey",
    "ask",
    "layout_named",
    "together",
]

GROUP = "backpressure.layouts"

_BUILT_IN: dict[str, Callable[[], Layout]] = {
    "arq": ArqLayout,
    "bullmq": BullMQLayout,
    "celery": CeleryLayout,
    "dramatiq": DramatiqLayout,
    "go-redis-work-queue": GoRedisWorkQueueLayout,
    "huey": HueyLayout,
    "huey-priority": lambda: HueyLayout(priority=True),
    "rq": RQLayout,
    "saq": SAQLayout,
    "sidekiq": SidekiqLayout,
    "streaq": StreaqLayout,
    "taskiq": TaskiqLayout,
    "taskiq-stream": lambda: TaskiqLayout(group="taskiq"),
}


def layout_named(name: str) -> Layout:
    """Return the layout of a framework with all its defaults.

    Raises:
        ConfigurationError: there is no layout of that name, or its entry point returns something else.

    Example:
        >>> layout_named("sidekiq")
        SidekiqLayout()
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    added = entry_points(group=GROUP)
    for point in added.select(name=name):
        layout = point.load()()
        if not is_layout(layout):
            raise ConfigurationError(
                f"layout {name!r} is {layout!r}, as entry point {point.value!r} gives it: let that return a Layout",
                field="layout",
                value=name,
            )
        return layout  # type: ignore[no-any-return]
    known = ", ".join(sorted({*_BUILT_IN, *added.names}))
    raise ConfigurationError(f"layout is {name!r}: give a Layout, or one of {known}", field="layout", value=name)


def is_layout(value: Any) -> bool:
    """Tell whether `value` is a layout, and not the class of one."""
    return isinstance(value, Layout) and not isinstance(value, type)
