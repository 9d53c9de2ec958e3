"""What metrics there are: names, types, helps, labels, buckets."""

from __future__ import annotations

from typing import Literal, NamedTuple

from backpressure._engine.totals import DELAY_BUCKETS_NS

__all__ = ["FAMILIES", "POLL_BUCKETS_NS", "Family"]

#: Upper bounds of the poll histogram's buckets, in nanoseconds; the last bucket is unbounded.
POLL_BUCKETS_NS = tuple(ms * 1_000_000 for ms in (1, 5, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000))


class Family(NamedTuple):
    """A metric: its name on the page, type, help, labels, and how multiprocess mode merges the gauges of processes."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    # "livemax" leaves a dead process out once `mark_process_dead` was called for it.
    merged: Literal["", "livemax", "livesum", "mostrecent"] = ""
    buckets_ns: tuple[int, ...] = ()


def _counter(name: str, help_: str, *labels: str) -> Family:
    return Family(name, "counter", help_, labels)


def _gauge(name: str, help_: str, merged: Literal["livemax", "livesum", "mostrecent"], *labels: str) -> Family:
    return Family(name, "gauge", help_, labels, merged)


def _histogram(name: str, help_: str, buckets_ns: tuple[int, ...], *labels: str) -> Family:
    return Family(name, "histogram", help_, labels, buckets_ns=buckets_ns)


_ALL = (
    _counter("backpressure_throttle_events_total", "Decisions that advised a delay.", "priority", "queue"),
    _counter("backpressure_shed_events_total", "Jobs shed because of the load.", "priority", "queue"),
    _histogram(
        "backpressure_throttle_delay_seconds", "Delays advised, above zero.", DELAY_BUCKETS_NS, "priority", "queue"
    ),
    _gauge("backpressure_circuit_breaker_state", "Circuit: 0 closed, 1 open, 2 half-open.", "livemax", "queue"),
    _gauge("backpressure_circuit_forced", "Whether the circuit is forced open by hand.", "livemax", "queue"),
    _gauge("backpressure_queue_backlog_size", "Waiting jobs in the latest sample.", "mostrecent", "queue"),
    _gauge("backpressure_running_jobs", "Jobs that workers run, in the latest sample.", "mostrecent", "queue"),
    _gauge("backpressure_delayed_jobs", "Jobs that are not due yet, in the latest sample.", "mostrecent", "queue"),
    _gauge(
        "backpressure_oldest_age_seconds", "Age of the oldest waiting job in the latest sample.", "mostrecent", "queue"
    ),
    _gauge(
        "backpressure_memory_used_ratio",
        "Part of its limit of memory that the queue's server used, in the latest sample.",
        "mostrecent",
        "queue",
    ),
    _gauge(
        "backpressure_threshold_jobs",
        "Backlog at which a zone ends, delays end (red_max) or low jobs begin to be shed (shed_at).",
        "mostrecent",
        "queue",
        "priority",
        "bound",
    ),
    _gauge(
        "backpressure_producer_compliance_ratio",
        "Share of the throttled advice with a reported outcome that was honoured.",
        "mostrecent",
        "queue",
    ),
    _counter("backpressure_polling_errors_total", "Failed reads of queue statistics.", "error_type"),
    _gauge("backpressure_cache_hit_rate", "Share of the decisions by backlog that the cache answered.", "mostrecent"),
    _counter("backpressure_cache_requests_total", "Decisions by backlog: hit if the cache answered.", "result"),
    _counter(
        "backpressure_decisions_total", "Decisions, in observe mode the advised ones.", "priority", "queue", "reason"
    ),
    _counter(
        "backpressure_refusals_total",
        "Jobs refused: shed, by the circuit, or because they would wait longer than max_wait.",
        "queue",
        "priority",
        "result",
    ),
    _counter(
        "backpressure_candidate_offers_total",
        "Decisions that were judged by the candidate policy, too.",
        "queue",
        "priority",
    ),
    _counter(
        "backpressure_candidate_delays_total",
        "Of these, those that the candidate would delay, and those that the real policy delayed.",
        "queue",
        "priority",
        "policy",
    ),
    _counter(
        "backpressure_candidate_sheds_total",
        "Of these, those that the candidate would shed, and those that the real policy shed.",
        "queue",
        "priority",
        "policy",
    ),
    _counter("backpressure_passed_total", "Jobs that hooks let pass without asking.", "queue", "why"),
    _counter(
        "backpressure_producer_advice_total",
        "Throttled advice with a reported outcome: honoured if its delay was waited out, else violated.",
        "queue",
        "result",
    ),
    _histogram("backpressure_poll_duration_seconds", "Time that polls of queue statistics took.", POLL_BUCKETS_NS),
    _gauge("backpressure_sample_age_seconds", "Age of the oldest sample that is decided by.", "livemax", "queue"),
    _gauge("backpressure_manual_override", "1 while the manual override is on.", "livemax"),
    _gauge("backpressure_emergency_mode", "1 while emergency mode is on.", "livemax"),
    _gauge("backpressure_observe_mode", "1 while decisions are only observed.", "livemax"),
    _gauge(
        "backpressure_enforces",
        "1 if this process enforces what it decides: it is not in observe mode, and in enforce_share.",
        "livesum",
    ),
    _gauge("backpressure_target_age_seconds", "How long jobs are to wait in the queue.", "livemax", "queue"),
    _gauge("backpressure_age_seconds", "How long a job that is enqueued now will wait.", "livemax", "queue"),
    _gauge("backpressure_drain_rate", "Jobs a second that workers take from the queue.", "livemax", "queue"),
    _gauge("backpressure_granted_rate", "Jobs a second that all producers may enqueue.", "livemax", "queue"),
    _gauge(
        "backpressure_demand_rate",
        "Jobs a second that all producers want to enqueue, admitted or not.",
        "livemax",
        "queue",
        "priority",
    ),
    _gauge("backpressure_share", "Part of the demand that is granted, 1 if all of it.", "livemax", "queue", "priority"),
    _gauge(
        "backpressure_processes", "About how many producing processes share the queue's budget.", "livemax", "queue"
    ),
    _gauge(
        "backpressure_lease_state",
        "1 for the state of this process's lease: coordinated, new (never had one), local or safe (the store is lost).",
        "livemax",
        "queue",
        "state",
    ),
    _gauge("backpressure_lease_age_seconds", "Time since the budget's store last answered.", "livemax", "queue"),
    _gauge("backpressure_waiting", "Callers of this process that wait for their turn.", "livesum", "queue", "priority"),
    _gauge("backpressure_fleet_members", "About how many processes the fleet has.", "mostrecent"),
    _gauge(
        "backpressure_fleet_config_revision",
        "Number of the pushed configuration that is decided by; 0: the process's own.",
        "livemax",
    ),
    _gauge(
        "backpressure_fleet_switch",
        "Switches of the fleet's operators that hold: override, emergency, circuit (how many).",
        "livemax",
        "switch",
    ),
    _counter("backpressure_lease_calls_total", "Calls of the budgets' store: ok or error.", "result"),
)
#: All that is exported, by name.
FAMILIES = {family.name: family for family in _ALL}
