"""An answer before its admission."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backpressure._engine.border import Answer

if TYPE_CHECKING:
    from datetime import datetime

    from backpressure._engine.border import Host
    from backpressure._engine.pure.breaker import Ticket
    from backpressure._engine.pure.mode import Mode
    from backpressure._model.decision import ThrottleDecision
    from backpressure._model.vocabulary import Priority, Reason, Zone


class Draft(NamedTuple):
    """Advice with where it came from; `until_ns` is how long it stays true, ``None`` where that is not known.

    `until_count` is the count of its priority's like answers up to which it stays true.
    `forced` is the refusal of a circuit that is held open by hand, which observe mode keeps to.
    """

    reason: Reason
    delay_ns: int = 0
    shed: bool = False
    zone: Zone | None = None
    backlog: int | None = None
    timestamp: datetime | None = None
    computed: bool = False
    until_ns: float | None = None
    until_count: float = math.inf
    forced: bool = False

    def decision(
        self,
        host: Host,
        priority: Priority,
        queue_name: str,
        issued_ns: int,
        ticket: Ticket | None = None,
        retry_at_ns: int | None = None,
    ) -> ThrottleDecision:
        """Return the decision that the host makes of it."""
        return host.decision(self._answer(host, priority, queue_name, issued_ns, ticket, retry_at_ns))

    def peeked(
        self, host: Host, mode: Mode, priority: Priority, queue_name: str, issued_ns: int, retry_at_ns: int | None
    ) -> ThrottleDecision:
        """Return what the host makes of it for a caller that only looks."""
        decision = host.peeked(self._answer(host, priority, queue_name, issued_ns, None, retry_at_ns))
        return host.observed(decision) if mode.settings.observes(queue_name) and not self.forced else decision

    def outlined(self, host: Host, now_ns: int, retry_at_ns: int | None) -> dict[str, Any]:
        """Return what the host says of it in words."""
        probe_ns = None if retry_at_ns is None else max(0, retry_at_ns - now_ns)
        return host.outlined(self.zone, self.delay_ns, self.shed, self.reason, probe_ns)

    def _answer(
        self,
        host: Host,
        priority: Priority,
        queue_name: str,
        issued_ns: int,
        ticket: Ticket | None,
        retry_at_ns: int | None,
    ) -> Answer:
        return Answer(
            priority,
            queue_name,
            self.delay_ns,
            self.shed,
            self.reason,
            self.timestamp or host.utc_now(),
            self.backlog,
            self.zone,
            ticket,
            issued_ns,
            retry_at_ns,
            self.computed,
        )
