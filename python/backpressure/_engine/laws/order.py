"""Whether a lower priority is ever better off than a higher one: thresholds that were set one by one may say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._engine.laws.age import AgeLaw
from backpressure._engine.laws.registry import has_own_law, law_of
from backpressure._model.vocabulary import HIGH, LOW, MEDIUM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure._engine.laws.law import Law
    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.vocabulary import Priority

__all__ = ["inversions"]


def inversions(config: BackpressureConfig) -> Iterator[str]:
    """Yield a sentence for the shared law, and for each that a section has of its own, where one is out of order."""
    seen: set[Law] = set()
    for name in (None, *(name for name in config.queues if has_own_law(config, name))):
        law = law_of(config, name)
        if isinstance(law, AgeLaw) or law in seen or "thresholds" not in law.sections:
            continue
        seen.add(law)
        where = "thresholds" if name is None else f"thresholds of {name}"
        for lower, higher in ((LOW, MEDIUM), (MEDIUM, HIGH), (LOW, HIGH)):
            backlog = _first(law, lower, higher)
            if backlog is not None:
                yield (
                    f"{where}: with {backlog:,} jobs waiting, {lower} jobs wait less than {higher} ones: lower the "
                    f"bounds of {lower}_priority, or raise those of {higher}_priority"
                )
                break


def _first(law: Law, lower: Priority, higher: Priority) -> int | None:
    """Return the smallest backlog of those tried at which `lower` waits less than `higher`."""
    for sample in law.turning_points():
        mine, theirs = (law.advise(sample, priority.value, law.new_state()) for priority in (lower, higher))
        if not mine.shed and mine.delay_ns < theirs.delay_ns:
            return sample.backlog
    return None
