"""The one list of laws, and which of them holds for a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._engine.laws.age import AgeLaw
from backpressure._engine.laws.three_zone import ThreeZoneLaw

if TYPE_CHECKING:
    from backpressure._engine.laws.law import Law
    from backpressure._model.config.root import BackpressureConfig

#: Every law that judges samples. Of those that a configuration has sections of, the first holds; the last has its
#: sections always. An age to be held goes before all of them.
LAWS: tuple[type[Law], ...] = (ThreeZoneLaw,)


def law_of(config: BackpressureConfig, queue_name: str | None = None) -> Law | AgeLaw:
    """Return the law that holds for a queue: each part its own, or else the shared one; without a name, all shared."""
    age = config.age if queue_name is None else config.age_of(queue_name)
    return AgeLaw.of(age) if age.target is not None else sampled_law_of(config, queue_name)


def sampled_law_of(config: BackpressureConfig, queue_name: str | None = None) -> Law:
    """As `law_of`, where no age is to be held: the law that judges samples."""
    own = None if queue_name is None else config.of(queue_name)
    kind = next(kind for owner in (own, config) for kind in LAWS if _has_any(owner, kind))
    parts = ((getattr(own, section, None), getattr(config, section)) for section in kind.sections)
    age = config.age if queue_name is None else config.age_of(queue_name)
    given = (shared if of_queue is None else of_queue for of_queue, shared in parts)
    return kind.of(*given, memory_permille=age.memory_permille)


def has_own_law(config: BackpressureConfig, queue_name: str) -> bool:
    """Tell whether a queue, or a pattern that matches it, has parts of its own that set its law."""
    own = config.of(queue_name)
    return own.age is not None or any(_has_any(own, kind) for kind in LAWS)


def _has_any(owner: object, kind: type[Law]) -> bool:
    return any(getattr(owner, section, None) is not None for section in kind.sections)
