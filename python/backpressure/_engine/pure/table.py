"""The table of queues: which names have state of their own, who is evicted for them, where the others are counted."""

from __future__ import annotations

import math
from functools import partial, reduce
from typing import TYPE_CHECKING

from backpressure._engine.pure.breaker import Breaker
from backpressure._engine.pure.counters import Counters
from backpressure._engine.pure.draft import Draft
from backpressure._engine.pure.queue import Queue
from backpressure._engine.sync import ForkLock, value_of
from backpressure._engine.totals import Totals
from backpressure._engine.word import CLOSED, state_of
from backpressure._model.vocabulary import OTHER_QUEUES, Priority, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._engine.border import Host
    from backpressure._engine.pure.mode import Mode, Switches
    from backpressure._engine.pure.queue import Ready
    from backpressure._model.decision import ThrottleDecision

# Queues idle for this many cache lifetimes may be evicted when there is no room.
_IDLE_TTLS = 10


class Table:
    """An engine's queues by name, with the answers that lie ready for them. Thread-safe."""

    def __init__(self, host: Host, switches: Switches, now_ns: Callable[[], int], origin_ns: int) -> None:
        self._host = host
        self._switches = switches
        self._now_ns = now_ns
        self._origin_ns = origin_ns
        self.queues: dict[str, Queue] = {}
        by_priority: list[dict[str, Ready]] = [{}, {}, {}]
        # A priority's text finds its answers too, which it equals; integers and bools equal none.
        self.ready: dict[object, dict[str, Ready]] = {priority: by_priority[priority.value] for priority in Priority}
        self._lock = ForkLock()
        self._next_eviction_ns: float = 0
        # What queues without state of their own are counted under: those beyond max_queues, and evicted ones.
        self._untracked = (Counters(), Counters(), Counters())
        self._evicted = [Totals(), Totals(), Totals()]
        # Evicted queues, for calls that found one of them before and count there.
        self._aside: list[Queue] = []

    def track(self, name: str, now_ns: int, *, evict: bool) -> Queue | None:
        """Return the queue of a valid name, made if there is room; `evict` makes room by forgetting idle ones."""
        evicted: list[str] = []
        with self._lock():
            queue = self.queues.get(name)
            settings = self._switches.mode.settings
            if queue is None and len(self.queues) >= settings.max_queues and evict:
                evicted = self._evict(now_ns)
            if queue is None and len(self.queues) < settings.max_queues:
                breaker = Breaker(
                    settings.circuit_of(name),
                    self._now_ns,
                    origin_ns=self._origin_ns,
                    on_change=partial(self._host.circuit_changed, name),
                )
                queue = self.queues.setdefault(name, Queue(name, breaker, now_ns, self._lock))
        for gone in evicted:
            self._host.evicted(gone)
        return queue

    def has_room(self, now_ns: int) -> bool:
        """Tell whether `track` would make room for one more queue now; changes nothing."""
        settings = self._switches.mode.settings
        if len(self.queues) < settings.max_queues:
            return True
        idle_ns = _IDLE_TTLS * settings.cache_ttl_ns
        return now_ns >= self._next_eviction_ns and any(_is_idle(queue, now_ns, idle_ns) for queue in self.all())

    def keep(self, priority: Priority, ready: Ready) -> None:
        """Let an answer lie ready for whoever asks next."""
        name = ready.queue.name
        self.ready[priority][name] = ready
        if self.queues.get(name) is not ready.queue:
            self.ready[priority].pop(name, None)  # evicted meanwhile

    def untracked(self, mode: Mode, priority: Priority) -> Draft:
        """Return the answer for a name that has no state and gets none, counted."""
        draft = without_state(mode, priority)
        self._untracked[priority.value].count(draft.reason, goes=True, delay_ns=draft.delay_ns, computed=False)
        return draft

    def count(self, planned: ThrottleDecision) -> Counters:
        """Count a planned decision that is acted upon; return where."""
        answer, computed = planned._answer, planned._computed  # noqa: SLF001 - the engine itself made it
        queue = self.queues.get(answer.queue_name)
        counters = (self._untracked if queue is None else queue.counters)[answer.priority.value]
        if answer.reason is not Reason.UNTRACKED:  # else it was counted when made
            counters.count(answer.reason, goes=True, delay_ns=round(answer.delay * 1e9), computed=computed)
            self.look_at_count(answer.priority, answer.queue_name)
        return counters

    def look_at_count(self, priority: Priority, name: str) -> None:
        """Void what lies ready, if enough jobs were let in beside it; its own callers look themselves."""
        ready = self.ready[priority].get(name)
        if ready is not None and ready.last_count < math.inf and value_of(ready.count) > ready.last_count:
            ready.until_ns = -math.inf

    def all(self) -> list[Queue]:
        """Return all queues, in the order in which they got their state."""
        return list(self.queues.values())

    def awake(self, now_ns: int) -> list[Queue]:
        """Return the queues that were asked for not long ago, in the order in which they got their state."""
        idle_ns = _IDLE_TTLS * self._switches.mode.settings.cache_ttl_ns
        return [queue for queue in self.all() if now_ns - queue.touched_ns <= idle_ns]

    def totals(self) -> dict[tuple[str, int], Totals]:
        """Return all counts by (queue, priority), those without a queue of their own under ``__other__``."""
        with self._lock():
            queues, aside, evicted = self.all(), list(self._aside), list(self._evicted)
        totals = {
            (queue.name, index): counters.totals() for queue in queues for index, counters in enumerate(queue.counters)
        }
        for index, counters in enumerate(self._untracked):
            others = [queue.counters[index].totals() for queue in aside]
            totals[OTHER_QUEUES, index] = reduce(Totals.plus, others, counters.totals().plus(evicted[index]))
        return {key: value for key, value in totals.items() if any(value.reasons)}

    def _evict(self, now_ns: int) -> list[str]:
        """Forget the queues that nobody asked for in a long time, keeping their counts; return their names."""
        if now_ns < self._next_eviction_ns:
            return []  # nothing has become idle since the last look at all of them
        cache_ttl_ns = self._switches.mode.settings.cache_ttl_ns
        idle_ns = _IDLE_TTLS * cache_ttl_ns
        evicted = []
        self._next_eviction_ns = now_ns + idle_ns + 1  # of the queue that takes the room
        self._settle(now_ns - idle_ns)
        for name, queue in list(self.queues.items()):
            if state_of(queue.breaker.word) != CLOSED:
                self._next_eviction_ns = min(self._next_eviction_ns, now_ns + cache_ttl_ns)
            elif now_ns - queue.touched_ns <= idle_ns:
                self._next_eviction_ns = min(self._next_eviction_ns, queue.touched_ns + idle_ns + 1)
            else:
                self.queues.pop(name, None)
                if state_of(queue.breaker.word) != CLOSED:  # forced open meanwhile
                    self.queues.setdefault(name, queue)
                    continue
                evicted.append(name)
                for priority in Priority:
                    self.ready[priority].pop(name, None)
                queue.touched_ns = now_ns  # from now on it lies aside
                self._aside.append(queue)
        if evicted:
            self._switches.void_ready()  # as the native engine must
        return evicted

    def _settle(self, since_ns: int) -> None:
        """Let go of evicted queues that nobody has asked for since, and keep their counts."""
        kept = []
        for queue in self._aside:
            if queue.touched_ns >= since_ns:
                kept.append(queue)
                continue
            for index, counters in enumerate(queue.counters):
                self._evicted[index] = self._evicted[index].plus(counters.totals())
        self._aside = kept


def without_state(mode: Mode, priority: Priority) -> Draft:
    """Return the answer for a name that has no state and gets none."""
    switch = mode.switch()
    return Draft(switch) if switch else Draft(Reason.UNTRACKED, mode.settings.fallback_ns[priority.value])


def _is_idle(queue: Queue, now_ns: int, idle_ns: int) -> bool:
    return state_of(queue.breaker.word) == CLOSED and now_ns - queue.touched_ns > idle_ns
