"""Checks that a provider reads queues where a hook's framework puts them. A gate that watches other keys is useless.

Keys and their kinds are compared, as layouts would read them; names of classes say too little. Providers of other
servers, and layouts and providers from other packages, are not checked.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from backpressure._model.errors import ConfigurationError
from backpressure._model.stats import utc_now
from backpressure.providers.layouts import ListKey, StreamKey, ZSetKey, layout_named
from backpressure.providers.layouts._steps import COUNTED, text

if TYPE_CHECKING:
    from backpressure.integrations._shared.hook import AsyncHook, Hook
    from backpressure.providers.layouts import Layout

__all__ = ["check_layout"]

#: A function that tells where a framework keeps its queues: its layout, or the name of its server if that is not
#: Redis; ``None`` while the framework is not configured.
Written: TypeAlias = Callable[[], "Layout | str | None"]

# Kind and key, in the order in which a layout reads them.
_Keys: TypeAlias = dict[tuple[str, str], None]

_PLAIN = (ListKey, ZSetKey, StreamKey)
# Stands for any queue if no name is known.
_ANY = "queue"
# Pairs of names that are checked after the hook was made; later ones are not.
_MOST = 1000
# Framework -> its own spelling of its name, and how to make a provider from its object.
_FRAMEWORKS = {
    "arq": ("arq", "from_arq(pool)"),
    "celery": ("Celery", "from_celery(app)"),
    "dramatiq": ("Dramatiq", "from_dramatiq(broker)"),
    "huey": ("Huey", "from_huey(huey)"),
    "rq": ("RQ", "from_rq(connection)"),
    "saq": ("SAQ", "from_saq(queue)"),
    "taskiq": ("taskiq", "from_taskiq(broker)"),
}


def check_layout(hook: Hook | AsyncHook, framework: str, written: Written, queues: Iterable[str] = ()) -> None:
    """Refuse a provider that reads another layout now; let `hook` warn once for each queue that comes later.

    Args:
        framework: its name as a layout.
        queues: the framework's queues, where it is known that the hook is only for these.

    Raises:
        ConfigurationError: none of the queues lies where the provider reads it.
    """
    if hook.fixed is None:
        hook.meets = _Late(hook, framework, written).meet
        return
    check = _check(hook, hook.fixed, framework, written)
    if check is not None:
        check.refuse_all(tuple(queues))
        hook.meets = check.meet


def _check(hook: Hook | AsyncHook, controller: Any, framework: str, written: Written) -> _Check | None:
    provider = controller._provider  # noqa: SLF001 - the controller's own
    if not hasattr(provider, "_layout_of"):
        return None
    return _Check(controller, provider, framework, written, hook._queue)  # noqa: SLF001 - the hook's own


class _Late:
    """Checks the queues of a controller that a function returns, when jobs are for them."""

    def __init__(self, hook: Hook | AsyncHook, framework: str, written: Written) -> None:
        self._hook = hook
        self._about = framework, written
        self._checked: tuple[weakref.ref[Any], _Check | None] | None = None

    def meet(self, queue: str, name: str) -> None:
        """Warn if a queue of the framework, the controller's `name`, does not fit; once for each controller."""
        try:
            controller = self._hook.controller
        except Exception:  # noqa: BLE001 - who is about to ask it will see that
            return
        checked = self._checked
        if checked is None or checked[0]() is not controller:
            checked = weakref.ref(controller), _check(self._hook, controller, *self._about)
            self._checked = checked
        if checked[1] is not None:
            checked[1].meet(queue, name)


class _Check:
    def __init__(self, controller: Any, provider: Any, framework: str, written: Written, rule: Any) -> None:
        self._foreign = controller._foreign  # noqa: SLF001 - the controller's own
        self._provider = provider
        self._framework = framework
        self._written = written
        self._rule = rule
        self._met: set[tuple[str, str]] = set()

    def refuse_all(self, queues: tuple[str, ...]) -> None:
        """Raise if no queue known so far fits."""
        written = self._written()
        faults = [self._fault(written, queue, name) for queue, name in self._pairs(queues)]
        if faults and all(faults):
            raise ConfigurationError(str(faults[0]), field="stats_provider")

    def meet(self, queue: str, name: str) -> None:
        """Warn if a queue of the framework, the controller's `name`, does not fit; once."""
        if (queue, name) in self._met or len(self._met) >= _MOST:
            return
        self._met.add((queue, name))
        written = self._written()
        if written is not None and (fault := self._fault(written, queue, name)):
            fields = {"change": None, "queue_name": name}
            self._foreign.log(logging.WARNING, "%s", fault, kind="layout", extra=fields)

    def _pairs(self, queues: tuple[str, ...]) -> Iterator[tuple[str | None, str]]:
        """Yield queues of the framework with the controller's names for them; ``None`` where a function decides."""
        if callable(self._rule):
            for name in self._provider._names() or (_ANY,):  # noqa: SLF001 - a provider of ours
                yield None, name
            return
        table = self._rule if isinstance(self._rule, Mapping) else {}
        if not queues:
            names = [name for name in self._provider._names() if name not in table.values()]  # noqa: SLF001
            queues = (*table, *names) or (_ANY,)
        for queue in queues:
            yield queue, table.get(queue) or queue

    def _fault(self, written: Layout | str | None, queue: str | None, name: str) -> str:
        """Return what is wrong with a queue, or an empty text if nothing is known to be wrong."""
        reads = self._provider._layout_of(name)  # noqa: SLF001 - a provider of ours
        if reads is None or not _is_ours(reads):
            return ""
        title, maker = _FRAMEWORKS[self._framework]
        if isinstance(written, str):
            if isinstance(reads, _PLAIN):  # a plain key may be right
                return ""
            return (
                f"stats_provider reads queue {name!r} in Redis, as {reads!r} has it, but the broker of {title} is "
                f"{written}: give a provider that reads it"
            )
        if written is None:  # even so, another framework's layout is known to be wrong
            if isinstance(reads, (*_PLAIN, type(layout_named(self._framework)))):
                return ""
            theirs, ours = _keys(reads, name), {}
        elif queue is None and isinstance(reads, _PLAIN):
            return ""
        else:
            theirs, ours = _keys(reads, name), _keys(written, queue or name)
            # A rule of the hook may rightly judge one queue by the backlog of another.
            if any(_meet(reads, theirs, written, _keys(written, each)) for each in {queue or name, name}):
                return ""
        place = f"keeps it in {_shown(ours)}" if ours else "does not"
        layout = f'"{self._framework}"' if written is None else repr(written)
        return (
            f"stats_provider reads queue {name!r} in {_shown(theirs)}, as {reads!r} has it, but {title} {place}: "
            f"give it layout={layout}, or make it by {type(self._provider).__name__}.{maker}"
        ) + ("; or correct the hook's queue=" if self._rule is not None else "")


def _meet(reads: Layout, theirs: _Keys, written: Layout, ours: _Keys) -> bool:
    return theirs == ours if type(reads) is type(written) else not theirs.keys().isdisjoint(ours)


def _is_ours(layout: Layout) -> bool:
    return type(layout).__module__.startswith("backpressure.")


def _keys(layout: Layout, name: str) -> _Keys:
    """Return the keys that a layout counts first, each with its kind."""
    commands = next(layout.read(name, utc_now()))
    kinds = {**COUNTED, "xinfo_groups": "stream"}
    return {(kinds[method], text(key)): None for method, key, _ in commands if method in kinds}


def _shown(keys: _Keys) -> str:
    found = list(keys)
    return ", ".join(f"{kind} {key!r}" for kind, key in found[:3]) + (", …" if len(found) > 3 else "")
