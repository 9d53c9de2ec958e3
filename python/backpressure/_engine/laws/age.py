"""The law of ages: it says nothing of samples. A budget that all producers share decides, which the host asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

import attrs

from backpressure._model.budget import BudgetSettings, budget_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backpressure._age.lease import AnyLease
    from backpressure._model.config.age import AgeConfig
    from backpressure._model.vocabulary import Reason, Zone

__all__ = ["AgeLaw", "Judged"]


class Judged(NamedTuple):
    """What the budget says of one job.

    Attributes:
        zone: of the age, for display; ``None`` where it is not known.
        delay_ns: nanoseconds to wait; where shedding is advised, those until another attempt makes sense.
        shed: whether the job is to be refused.
        reason: why, as the decision and its count tell.
        lease: by what further jobs of the same priority may go without asking; ``None``: each is to ask.
        patient: whether they go by the line's word, not by the share's.
        until_ns: last monotonic instant at which they may.
        renewal: of the lease, by whose terms this was said.
        other: what jobs are told by the same terms whom the share's word does not treat as this one, if that is
            known: a refusal beside a go, a go beside a refusal. Without it a refusal is this job's alone.
    """

    zone: Zone | None
    delay_ns: int
    shed: bool
    reason: Reason
    lease: AnyLease | None = None
    patient: bool = False
    until_ns: int = 0
    renewal: int = 0
    other: Judged | None = None

    def goes(self) -> bool:
        """Tell whether the job may be enqueued at once."""
        return not self.shed and self.delay_ns == 0


@attrs.frozen
class AgeLaw:
    """How long jobs may wait; see `backpressure._model.budget` for what follows from it.

    Attributes:
        budget: what every producer of the queue sends with its report.
        sheds_medium: whether MEDIUM jobs beyond the budget are refused as LOW ones, where their callers will not wait.
        safe_rate: jobs a second that a process lets pass which never reached the store; 0 is the fallback.
        memory_permille: thousandths of its limit of memory that the queue's server uses when the budget begins to
            shrink, and when nothing of it is left; ``None``: it does not matter.
        weights: of classes of tenants, by their names.
    """

    sections: ClassVar[tuple[str, ...]] = ("age",)

    budget: BudgetSettings
    sheds_medium: bool
    safe_rate: float
    memory_permille: tuple[int, int] | None = None
    weights: Mapping[str, int] = attrs.field(factory=dict, hash=False)

    @classmethod
    def of(cls, age: AgeConfig) -> AgeLaw:
        """Make the law of a section that has a target."""
        budget = budget_of(age)
        if budget is None:
            raise ValueError("no target")
        return cls(budget, age.medium == "shed", age.safe_rate, age.memory_permille, age.tenant_weights)

    def limit_permille(self, used_permille: int | None) -> int:
        """Return the part of the budget that is left where the queue's server uses so much of its memory.

        It falls from all to nothing between the two bounds, in proportion, so that the queue settles between them.
        """
        if self.memory_permille is None or used_permille is None:
            return 1_000
        low, high = self.memory_permille
        return min(1_000, max(0, 1_000 * (high - used_permille) // (high - low)))
