"""An answer before its admission."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backpressure._model.decision import issued

if TYPE_CHECKING:
    from backpressure._engine.border import Host
    from backpressure._engine.laws.age import Judged
    from backpressure._model.decision import Answer, ThrottleDecision
    from backpressure._model.vocabulary import Priority, Reason, Zone


class Draft(NamedTuple):
    """Advice with where it came from; `until_ns` is how long it stays true, ``None`` where that is not known.

    `finished` is what decisions are made of, where that was computed before; in observe mode, what that makes of it.
    `until_count` is the count of its priority's like answers up to which it stays true.
    `forced` is the refusal of a circuit that is held open by hand, which observe mode keeps to.
    `lent` has the lease that further jobs may go by until `until_ns`.
    """

    reason: Reason
    delay_ns: int = 0
    shed: bool = False
    zone: Zone | None = None
    backlog: int | None = None
    finished: Answer | None = None
    computed: bool = False
    until_ns: float | None = None
    until_count: float = math.inf
    forced: bool = False
    lent: Judged | None = None

    def answer(
        self, host: Host, priority: Priority, queue_name: str, *, observes: bool, retry_at_ns: int | None = None
    ) -> Answer:
        """Return what the host makes of it; `observes` is the mode of the queue."""
        if self.finished is not None:
            return self.finished
        answer = host.answer(
            *(priority, queue_name, self.delay_ns, self.shed, self.reason, self.backlog, self.zone, retry_at_ns)
        )
        return host.observed(answer) if observes and not self.forced else answer

    def peeked(
        self, host: Host, priority: Priority, queue_name: str, *, observes: bool, retry_at_ns: int | None
    ) -> ThrottleDecision:
        """Return the decision of a caller that only looks."""
        answer = self.finished
        if answer is None:
            answer = host.peeked(
                *(priority, queue_name, self.delay_ns, self.shed, self.reason, self.backlog, self.zone, retry_at_ns)
            )
            if observes and not self.forced:
                answer = host.observed(answer)
        return issued(answer, None)

    def outlined(self, host: Host, now_ns: int, retry_at_ns: int | None) -> dict[str, Any]:
        """Return what the host says of it in words."""
        probe_ns = None if retry_at_ns is None else max(0, retry_at_ns - now_ns)
        return host.outlined(self.zone, self.delay_ns, self.shed, self.reason, probe_ns)
