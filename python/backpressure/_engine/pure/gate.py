"""An engine's calls for one priority and queue."""

from __future__ import annotations

from functools import partial
from inspect import Signature
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._engine.border import Host
    from backpressure._engine.pure.engine import Engine
    from backpressure._model.arguments import MaxWait
    from backpressure._model.decision import ThrottleDecision
    from backpressure._model.tenant import AnyTenant
    from backpressure._model.vocabulary import Priority


# Whose job it is is told by `suggest_for`.
_NO_PARAMETERS = Signature()


class Gate:
    """What `Gate` of the border promises: the engine's methods with their arguments already given."""

    suggest: Any
    run: Callable[..., Any]
    suggest_for: Callable[[AnyTenant], ThrottleDecision]
    run_for: Callable[..., Any]

    def __new__(
        cls, engine: Engine, _host: Host, priority: Priority, queue_name: str, max_wait: MaxWait, patient: bool
    ) -> Self:
        """Make a gate; its calls carry its arguments."""
        gate = super().__new__(cls)
        gate.suggest = partial(engine.suggest_throttle, priority, queue_name)
        gate.suggest.__signature__ = _NO_PARAMETERS
        gate.run = partial(engine.run_within, priority, queue_name, max_wait, patient)
        gate.suggest_for = partial(engine.suggest_for, priority, queue_name)
        gate.run_for = partial(engine.run_for, priority, queue_name, max_wait, patient)
        return gate
