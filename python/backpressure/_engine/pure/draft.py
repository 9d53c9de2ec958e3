"""An answer before its admission."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backpressure._engine.border import Answer

if TYPE_CHECKING:
    from datetime import datetime

    from backpressure._engine.border import Host
    from backpressure._engine.pure.breaker import Ticket
    from backpressure._model.decision import ThrottleDecision
    from backpressure._model.vocabulary import Priority, Reason, Zone


class Draft(NamedTuple):
    """Advice with where it came from; `until_ns` is how long it stays true, ``None`` where that is not known.

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
        return host.decision(
            Answer(
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
        )
