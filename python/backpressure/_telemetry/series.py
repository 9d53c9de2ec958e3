"""Counts and the present state of controllers as lines of a metrics page: a family, its labels, a value."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, NamedTuple, Self

from backpressure._engine.totals import REASONS
from backpressure._model.vocabulary import SHEDS
from backpressure._telemetry.ages import age_series, worse
from backpressure._telemetry.ledger import Details, Durations, FleetNow, totals_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from backpressure._telemetry.ages import HeldAge
    from backpressure._telemetry.ledger import Bounds, Counts, MetricsSource

__all__ = ["HIT_RATE", "Now", "Series", "count_series", "ratio_series"]

_SHEDS = [position for position, reason in enumerate(REASONS) if reason in SHEDS]
_REFUSED = ("shed", "circuit", "max_wait")  # in the order of `Totals.refused`
_COMPARED = (("delays", "candidate"), ("sheds", "candidate"), ("delays", "real"), ("sheds", "real"))
_NO_DETAILS = Details(None, None, None, None)
_NO_POLLS = (*Durations().counts, 0)


class Series(NamedTuple):
    family: str
    labels: tuple[str, ...]
    value: float
    buckets: tuple[int, ...] = ()  # of a histogram, whose sum is the value


def count_series(counts: Counts) -> Iterator[Series]:
    """Yield counters and histograms."""
    hits = misses = 0
    for (kind, *labels), numbers in counts.items():
        if kind == "decisions":
            queue, priority = labels
            total = totals_of(numbers)
            throttled = sum(total.delays)
            yield Series("backpressure_throttle_events_total", (priority, queue), throttled)
            yield Series(
                "backpressure_shed_events_total", (priority, queue), sum(total.reasons[shed] for shed in _SHEDS)
            )
            if throttled:
                yield Series(
                    "backpressure_throttle_delay_seconds", (priority, queue), total.delay_sum_ns / 1e9, total.delays
                )
            for reason, count in zip(REASONS, total.reasons, strict=True):
                if count:
                    yield Series("backpressure_decisions_total", (priority, queue, str(reason)), count)
            for result, count in zip(_REFUSED, numbers[-len(_REFUSED) :], strict=True):
                if count:
                    yield Series("backpressure_refusals_total", (queue, priority, result), count)
            hit, miss = total.cache_requests()
            hits, misses = hits + hit, misses + miss
        elif kind == "passed":
            yield Series("backpressure_passed_total", (labels[0], labels[1]), numbers[0])
        elif kind == "advice":
            for result, count in zip(("honoured", "violated"), numbers, strict=True):
                yield Series("backpressure_producer_advice_total", (labels[0], result), count)
        elif kind == "errors":
            yield Series("backpressure_polling_errors_total", (labels[0],), numbers[0])
        elif kind == "candidate":
            offers, *compared = numbers
            yield Series("backpressure_candidate_offers_total", (*labels,), offers)
            for (result, policy), count in zip(_COMPARED, compared, strict=True):
                yield Series(f"backpressure_candidate_{result}_total", (*labels, policy), count)
        elif kind == "calls":
            yield Series("backpressure_lease_calls_total", (labels[0],), numbers[0])
    yield Series("backpressure_cache_requests_total", ("hit",), hits)
    yield Series("backpressure_cache_requests_total", ("miss",), misses)
    *polls, polls_ns = counts.get(("polls",), _NO_POLLS)
    yield Series("backpressure_poll_duration_seconds", (), polls_ns / 1e9, tuple(polls))


HIT_RATE = ("backpressure_cache_hit_rate", ())


def ratio_series(counts: Counts) -> Iterator[Series]:
    """Yield ratios of counts over the whole life of a process; nothing for what never happened."""
    hits = misses = 0
    for (kind, *labels), numbers in counts.items():
        if kind == "decisions":
            hit, miss = totals_of(numbers).cache_requests()
            hits, misses = hits + hit, misses + miss
        elif kind == "advice" and any(numbers):
            yield Series("backpressure_producer_compliance_ratio", (labels[0],), numbers[0] / sum(numbers))
    if hits + misses:
        yield Series(*HIT_RATE, hits / (hits + misses))


class Now(NamedTuple):
    """The present state of all sources: circuits, the newest sample, bounds, the oldest sample's age, budgets."""

    circuits: dict[str, tuple[int, bool]]
    backlogs: dict[str, tuple[int, float]]
    details: dict[str, Details]
    thresholds: dict[str, Bounds]
    ages: dict[str, float]
    held: dict[str, HeldAge]
    switches: tuple[bool, ...]
    fleet: FleetNow | None
    enforces: bool | None

    @classmethod
    def of(cls, sources: Iterable[MetricsSource]) -> Self:
        now = cls({}, {}, {}, {}, {}, {}, (False, False, False), None, None)
        for source in sources:
            for queue, (state, forced) in source.circuits().items():
                worst, also_forced = now.circuits.get(queue, (0, False))
                now.circuits[queue] = max(state, worst), forced or also_forced
            details = source.details()
            for queue, (backlog, age) in source.backlogs().items():
                if queue not in now.backlogs or age < now.backlogs[queue][1]:
                    now.backlogs[queue] = backlog, age
                    if queue in details:
                        now.details[queue] = details[queue]
                now.ages[queue] = max(age, now.ages.get(queue, 0.0))
            now.thresholds.update(source.thresholds())
            for queue, held in source.held_ages().items():
                now.held[queue] = worse(now.held[queue], held) if queue in now.held else held
            switches = tuple(map(operator.or_, now.switches, source.switches()))
            enforces = source.enforces() or bool(now.enforces)
            now = now._replace(switches=switches, fleet=_either(now.fleet, source.fleet()), enforces=enforces)
        return now

    def of_queues(self, names: Container[str]) -> Now:
        """Return the same, of some queues only."""
        return self._replace(
            circuits={name: state for name, state in self.circuits.items() if name in names},
            backlogs={name: backlog for name, backlog in self.backlogs.items() if name in names},
            details={name: details for name, details in self.details.items() if name in names},
            thresholds={name: bounds for name, bounds in self.thresholds.items() if name in names},
            ages={name: age for name, age in self.ages.items() if name in names},
            held={name: held for name, held in self.held.items() if name in names},
        )

    def backlog_series(self) -> Iterator[Series]:
        for queue in self.backlogs:
            yield from self.sample_series(queue)

    def sample_series(self, queue: str) -> Iterator[Series]:
        """Yield what the latest sample of one queue tells."""
        yield Series("backpressure_queue_backlog_size", (queue,), self.backlogs[queue][0])
        running, delayed, oldest_age, memory_used = self.details.get(queue, _NO_DETAILS)
        if running is not None:
            yield Series("backpressure_running_jobs", (queue,), running)
        if delayed is not None:
            yield Series("backpressure_delayed_jobs", (queue,), delayed)
        if oldest_age is not None:
            yield Series("backpressure_oldest_age_seconds", (queue,), oldest_age)
        if memory_used is not None:
            yield Series("backpressure_memory_used_ratio", (queue,), memory_used)

    def threshold_series(self) -> Iterator[Series]:
        for queue, bounds in self.thresholds.items():
            for (priority, bound), jobs in bounds.items():
                yield Series("backpressure_threshold_jobs", (queue, priority, bound), jobs)

    def worst_series(self) -> Iterator[Series]:
        for queue, (state, forced) in self.circuits.items():
            yield Series("backpressure_circuit_breaker_state", (queue,), state)
            yield Series("backpressure_circuit_forced", (queue,), int(forced))
        for queue, age in self.ages.items():
            yield Series("backpressure_sample_age_seconds", (queue,), age)
        for queue, held in self.held.items():
            for name, labels, value in age_series(held):
                yield Series(f"backpressure_{name}", (queue, *labels), value)
        for name, on in zip(("manual_override", "emergency_mode", "observe_mode"), self.switches, strict=True):
            yield Series(f"backpressure_{name}", (), float(on))
        if self.enforces is not None:
            yield Series("backpressure_enforces", (), float(self.enforces))
        if self.fleet is not None:
            if self.fleet.members is not None:
                yield Series("backpressure_fleet_members", (), self.fleet.members)
            yield Series("backpressure_fleet_config_revision", (), self.fleet.config_revision)
            for switch, count in self.fleet.switched.items():
                yield Series("backpressure_fleet_switch", (switch,), count)


def _either(one: FleetNow | None, other: FleetNow | None) -> FleetNow | None:
    """Merge what two controllers know of the fleet of one process."""
    if one is None or other is None:
        return one or other
    return FleetNow(
        max((members for members in (one.members, other.members) if members is not None), default=None),
        max(one.config_revision, other.config_revision),
        {switch: max(count, other.switched.get(switch, 0)) for switch, count in one.switched.items()},
    )
