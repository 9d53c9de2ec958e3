"""Write ops/dashboard.json, the Grafana dashboard. Run it after a change here; a test notices when the file differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backpressure import BackpressureConfig

DASHBOARD = Path(__file__).resolve().parent.parent / "ops" / "dashboard.json"

Json = dict[str, Any]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# A queue that is evicted adds its whole past to __other__, which would look like a burst.
QUEUE = 'queue=~"$queue", queue!="__other__"'
BOTH = f'{QUEUE}, priority=~"$priority"'
HIGH = f'{QUEUE}, priority="high"'
COLUMNS = 24


def total(counter: str, labels: str = "", by: str = "") -> str:
    """Return the rate of a counter over all instances."""
    chosen = f"{{{labels}}}" if labels else ""
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate(backpressure_{counter}{chosen}[$__rate_interval]))"


def share(result: str, counter: str, labels: str = "", by: str = "") -> str:
    """Return the share of a counter that has this result."""
    part = ", ".join(filter(None, [f'result="{result}"', labels]))
    return f"{total(counter, part, by)} / {total(counter, labels, by)}"


def highest(gauge: str) -> str:
    """Return the highest value that any instance has for a queue."""
    return f"max by (queue) (backpressure_{gauge}{{{QUEUE}}})"


def quantiles(histogram: str, labels: str = "", by: str = "le", legend: str = "") -> dict[str, str]:
    """Return the median and the 99th percentile, by legend."""
    buckets = total(f"{histogram}_bucket", labels, by)
    return {f"{legend}p{percent}": f"histogram_quantile(0.{percent}, {buckets})" for percent in (50, 99)}


LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True}
# Kind of panel -> its height, the source of its colours, how it draws, and its options.
KINDS: dict[str, tuple[int, str, Json, Json]] = {
    "stat": (4, "thresholds", {}, {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area"}),
    "state-timeline": (8, "thresholds", {"fillOpacity": 80}, {"legend": LEGEND, "mergeValues": True}),
    "timeseries": (
        8,
        "palette-classic",
        {"fillOpacity": 10, "showPoints": "never"},
        {"legend": LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
    ),
}


def panel(title: str, description: str, targets: dict[str, str], **more: Any) -> Json:
    """Return a panel of expressions by legend.

    `more`: its `kind` and `width`; `limits`, where colours begin; `states`, names and colours of 0, 1, ...; `colors` of
    series; `stack`; a `dashed` expression for legends of lines that are only bounds; and fields that Grafana knows.
    """
    kind = more.pop("kind", "timeseries")
    height, color, custom, options = KINDS[kind]
    steps, states = more.pop("limits", {None: "green"}), more.pop("states", ())
    if len(steps) > 1 and kind == "timeseries":
        custom = custom | {"thresholdsStyle": {"mode": "dashed"}}
    if "stack" in more:
        custom = custom | {"fillOpacity": 60, "stacking": {"mode": more.pop("stack")}}
    mapped = {str(value): {"text": text, "color": hue, "index": value} for value, (text, hue) in enumerate(states)}
    overrides = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": hue}}],
        }
        for name, hue in more.pop("colors", {}).items()
    ]
    if "dashed" in more:
        dashes = {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}}
        no_area = {"id": "custom.fillOpacity", "value": 0}
        matcher = {"id": "byRegexp", "options": more.pop("dashed")}
        overrides.append({"matcher": matcher, "properties": [dashes, no_area]})
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"w": more.pop("width", 12), "h": height},
        "targets": [
            {"refId": chr(ord("A") + position), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
            for position, (legend, expr) in enumerate(targets.items())
        ],
        "fieldConfig": {
            "defaults": {
                "color": {"mode": color},
                "custom": custom,
                "mappings": [{"type": "value", "options": mapped}] if mapped else [],
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": [{"value": at, "color": hue} for at, hue in steps.items()]},
                **more,
            },
            "overrides": overrides,
        },
        "options": options,
    }


def stat(title: str, description: str, expr: str, **more: Any) -> Json:
    """Return a panel of one number."""
    return panel(title, description, {"": expr}, kind="stat", width=4, **more)


def rows() -> dict[str, list[Json]]:
    """Return all panels, by their row."""
    config = BackpressureConfig()  # limits are drawn at the defaults
    cache_ttl = config.polling.cache_ttl
    circuit = (("closed", "green"), ("open", "red"), ("half-open", "yellow"))
    percent = {"unit": "percentunit", "max": 1}
    bad_below_90 = {None: "red", 0.9: "green"}
    # Only __other__ counts queues without a state of their own.
    untracked = total("decisions_total", 'reason="untracked", priority=~"$priority"', "reason")
    return {
        "Overview": [
            stat("Decisions", "Decisions a second.", total("decisions_total", BOTH), unit="ops"),
            stat(
                "High refused",
                "Jobs of high priority that were refused, a minute. The load never does that.",
                f"60 * {total('refusals_total', HIGH)}",
                unit="opm",
                limits={None: "green", 0.001: "red"},
            ),
            stat(
                "Circuits not closed",
                "Queues whose circuit is open or half-open in at least one process.",
                f"count({highest('circuit_breaker_state')} > 0) or vector(0)",
                limits={None: "green", 1: "red"},
            ),
            stat(
                "Compliance",
                "Share of the throttled advice that producers waited out, of that whose outcome they report.",
                share("honoured", "producer_advice_total", QUEUE),
                **percent,
                limits=bad_below_90,
            ),
            stat(
                "Oldest sample",
                "Age of the oldest sample that is decided by.",
                f"max({highest('sample_age_seconds')})",
                unit="s",
                limits={None: "green", cache_ttl: "red"},
            ),
            stat(
                "Cache hit rate",
                "Share of the decisions by backlog that the cache answered. Below 80 % there are few decisions a poll.",
                share("hit", "cache_requests_total"),
                **percent,
                limits={None: "orange", 0.8: "green"},
            ),
            panel(
                "Decisions by reason",
                "In observe mode: what would be decided. untracked: there are more queues than max_queues.",
                {"{{reason}}": f"{total('decisions_total', BOTH, 'reason')} or {untracked}"},
                unit="ops",
                stack="normal",
            ),
            panel(
                "Refusals",
                "Jobs that callers were refused, by priority and what refused them. In observe mode: none.",
                {"{{priority}} {{result}}": total("refusals_total", BOTH, "priority, result")},
                unit="ops",
            ),
            panel(
                "Sheds by queue",
                "Jobs shed because of the backlog, a minute. In observe mode: those that would be.",
                {"{{queue}}": f"60 * {total('shed_events_total', BOTH, 'queue')}"},
                unit="opm",
                limits={None: "green", 10: "red"},
            ),
            panel(
                "Sheds by a candidate",
                "Share of the jobs that the candidate policy would shed, beside the real one's. Empty without one.",
                {
                    "{{policy}}": f"{total('candidate_sheds_total', BOTH, 'policy')} / ignoring (policy) group_left "
                    f"{total('candidate_offers_total', BOTH)}"
                },
                **percent,
            ),
            panel(
                "Advised delay",
                "Median and 99th percentile of the delays above zero, by priority.",
                quantiles("throttle_delay_seconds", BOTH, "priority, le", "{{priority}} "),
                unit="s",
            ),
            panel(
                "Throttled decisions",
                "Decisions that advised a delay, by priority.",
                {"{{priority}}": total("throttle_events_total", BOTH, "priority")},
                unit="ops",
            ),
        ],
        "Backlog": [
            panel(
                "Backlog",
                "Waiting jobs in the latest sample, with the bounds of the chosen priorities. Choose one queue and one "
                "priority to see the bounds at which it turns yellow and red, and sheds.",
                {
                    "{{queue}}": highest("queue_backlog_size"),
                    "{{queue}} {{priority}} {{bound}}": (
                        f"max by (queue, priority, bound) (backpressure_threshold_jobs{{{BOTH}}})"
                    ),
                },
                dashed="/ (green_max|yellow_max|red_max|shed_at)$/",
            ),
            panel(
                "Oldest job",
                "Age of the oldest waiting job in the latest sample, where what holds the queue tells it.",
                {"{{queue}}": highest("oldest_age_seconds")},
                unit="s",
            ),
            panel(
                "Running and delayed",
                "Jobs that workers run, and jobs that are not due yet, where they are known.",
                {"{{queue}} running": highest("running_jobs"), "{{queue}} delayed": highest("delayed_jobs")},
            ),
            panel(
                "Zones",
                "In which zone decisions by backlog were made; each priority has bounds of its own.",
                {"{{reason}}": total("decisions_total", f'{BOTH}, reason=~"backlog_.+"', "reason")},
                unit="ops",
                stack="percent",
                colors={
                    "backlog_green": "green",
                    "backlog_yellow": "yellow",
                    "backlog_red": "red",
                    "backlog_red_shed": "dark-red",
                },
            ),
        ],
        "Held ages": [
            panel(
                "Age",
                "How long a job that is enqueued now will wait, and how long it is meant to.",
                {"{{queue}}": highest("age_seconds"), "{{queue}} target": highest("target_age_seconds")},
                unit="s",
                dashed="/ target$/",
            ),
            panel(
                "Budget",
                "Jobs a second that workers take, that producers may enqueue, and that they want to.",
                {
                    "{{queue}} drain": highest("drain_rate"),
                    "{{queue}} granted": highest("granted_rate"),
                    "{{queue}} demand": (
                        f"sum by (queue) (max by (queue, priority) (backpressure_demand_rate{{{QUEUE}}}))"
                    ),
                },
                unit="ops",
            ),
            panel(
                "Share of the demand that is granted",
                "By priority. Below 1, HIGH alone is more than the workers can take.",
                {"{{queue}} {{priority}}": f"max by (queue, priority) (backpressure_share{{{BOTH}}})"},
                **percent,
                width=8,
            ),
            panel(
                "Waiting callers",
                "In all producing processes, by priority.",
                {"{{queue}} {{priority}}": f"sum by (queue, priority) (backpressure_waiting{{{BOTH}}})"},
                width=8,
            ),
            panel(
                "Producing processes",
                "That share the budget, by its store; and those here without it.",
                {
                    "{{queue}}": highest("processes"),
                    "{{queue}} {{state}}": (
                        f'sum by (queue, state) (backpressure_lease_state{{{QUEUE}, state!="coordinated"}})'
                    ),
                },
                width=8,
            ),
            panel(
                "Calls of the budgets' store",
                "By how they ended.",
                {"{{result}}": total("lease_calls_total", by="result")},
                unit="ops",
            ),
            panel(
                "Age of leases",
                "Since the store last answered, of the process where that is longest. One that enqueues nothing does "
                "not ask.",
                {"{{queue}}": highest("lease_age_seconds")},
                unit="s",
            ),
        ],
        "Circuits": [
            panel(
                "Circuits",
                "The worst state that any process has.",
                {"{{queue}}": highest("circuit_breaker_state")},
                kind="state-timeline",
                states=circuit,
            ),
            panel(
                "Rejected by circuits",
                "Jobs of any priority that an open or half-open circuit did not let through.",
                {"{{queue}}": total("refusals_total", f'{BOTH}, result="circuit"', "queue")},
                unit="ops",
            ),
        ],
        "Producers": [
            panel(
                "Compliance by queue",
                "Share of the throttled advice that producers waited out; it should be above 90 %.",
                {"{{queue}}": share("honoured", "producer_advice_total", QUEUE, "queue")},
                **percent,
                limits=bad_below_90,
            ),
            panel(
                "Passed",
                "Jobs that hooks of frameworks let pass without asking, by why.",
                {"{{why}}": total("passed_total", QUEUE, "why")},
                unit="ops",
            ),
            panel(
                "Switches",
                "On in at least one process.",
                {
                    "manual override": "max(backpressure_manual_override)",
                    "emergency mode": "max(backpressure_emergency_mode)",
                    "observe mode": "max(backpressure_observe_mode)",
                },
                kind="state-timeline",
                states=(("off", "green"), ("on", "orange")),
            ),
        ],
        "Statistics": [
            panel(
                "Age of samples",
                "The oldest that any process decides by. Beyond the line, polling.cache_ttl's default, it is stale.",
                {"{{queue}}": highest("sample_age_seconds")},
                unit="s",
                limits={None: "green", cache_ttl: "red"},
                width=8,
            ),
            panel(
                "Duration of polls",
                "Median and 99th percentile.",
                quantiles("poll_duration_seconds"),
                unit="s",
                width=8,
            ),
            panel(
                "Polling errors",
                "Failed reads of queue statistics.",
                {"{{error_type}}": total("polling_errors_total", by="error_type")},
                unit="ops",
                width=8,
            ),
        ],
    }


def placed() -> list[Json]:
    """Return rows and panels with their numbers and places, from left to right and from top to bottom."""
    panels: list[Json] = []
    y = 0
    for title, members in rows().items():
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": []})
        panels[-1]["gridPos"] = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        x, y, height = 0, y + 1, 0
        for member in members:
            place = member["gridPos"]
            if x + place["w"] > COLUMNS:
                x, y, height = 0, y + height, 0
            place |= {"x": x, "y": y}
            x, height = x + place["w"], max(height, place["h"])
            panels.append(member)
        y += height
    return [{"id": number, **member} for number, member in enumerate(panels, 1)]


def variables() -> list[Json]:
    """Return the choices at the top."""
    every = {"includeAll": True, "multi": True, "allValue": ".+", "current": {"text": ["All"], "value": ["$__all"]}}
    queues = "label_values(backpressure_decisions_total, queue)"
    return [
        {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus"},
        {
            "type": "query",
            "name": "queue",
            "label": "Queue",
            "datasource": SOURCE,
            "query": {"query": queues, "refId": "queue"},
            "definition": queues,
            "regex": "/^(?!__other__$)/",
            "refresh": 2,
            "sort": 1,
            **every,
        },
        {"type": "custom", "name": "priority", "label": "Priority", "query": "high,medium,low", **every},
    ]


def text() -> str:
    """Return the file."""
    dashboard = {
        "uid": "producer-backpressure",
        "title": "Producer backpressure",
        "description": "What producers are told before they enqueue, and why.",
        "tags": ["backpressure"],
        "schemaVersion": 42,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables()},
        "panels": placed(),
    }
    return json.dumps(dashboard, indent=2) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(text(), "utf-8")
    print(f"wrote {DASHBOARD}")
