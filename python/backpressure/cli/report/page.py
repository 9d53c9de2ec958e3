"""The page: one section for each queue, with a picture, a table, and what to mind."""

from __future__ import annotations

import html
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from backpressure._engine.laws.registry import sampled_law_of
from backpressure._engine.laws.three_zone import ThreeZoneLaw
from backpressure._model.units import duration
from backpressure._model.vocabulary import Priority
from backpressure.cli._format import span
from backpressure.cli.report.known import with_gaps
from backpressure.cli.report.picture import Bound, Line, picture
from backpressure.cli.report.style import STYLE
from backpressure.console.names import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backpressure._model.config.root import BackpressureConfig
    from backpressure._replay.values import ReplayAnswer, ReplayedPriority, ReplayedQueue

__all__ = ["EVIDENCE", "Compared", "answers_of", "page", "policy_bounds", "simulated", "time_of"]

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
"""
#: What was recorded, by its grade.
EVIDENCE = {
    "L0": "the backlog alone was recorded",
    "L1": "the backlog was recorded, and what came in or left",
    "L2": "the backlog was recorded, and what producers offered",
}
_COLUMNS = ("", "", "priority", "offers", "delayed", "held", "shed", "", "peak", "longest wait")


class Compared(NamedTuple):
    """A queue under one policy, and under another where there is one."""

    told: ReplayedQueue
    against: ReplayedQueue | None
    known: Sequence[bool]


def page(source: str, policy: tuple[str, BackpressureConfig], against: str | None, queues: Sequence[Compared]) -> str:
    """Return the page of a replay.

    Args:
        source: the recording's name.
        policy: the name of the policy that was tried, and the policy.
        against: the name of the one that it is compared with.
        queues: what was replayed.
    """
    name, config = policy
    compared = "" if against is None else f", against <b>{_text(against)}</b>"
    return "".join(
        [
            _HEAD.format(title=f"Replay of {_text(source)}", style=STYLE),
            f"<h1>Replay of {_text(source)}</h1>",
            f"<p>What <b>{_text(name)}</b> would have done{compared}. Times are UTC.</p>",
            *(part for queue in queues for part in _section(queue, name, config, against)),
            "</body>\n</html>\n",
        ]
    )


def policy_bounds(config: BackpressureConfig, name: str) -> list[Bound]:
    """Return the backlogs at which a policy begins to do something; none where it holds an age."""
    law = sampled_law_of(config, name)
    if config.age_of(name).target is not None or not isinstance(law, ThreeZoneLaw):
        return []
    bounds = {f"{priority} waits": law.windows[priority.value][0] for priority in reversed(Priority)}
    every: dict[int, list[str]] = {}
    for told, backlog in {**bounds, f"{Priority.LOW} is shed": law.shed_limit()}.items():
        every.setdefault(backlog, []).append(told)
    return [Bound(backlog, f"{backlog:,}: {', '.join(told)}") for backlog, told in every.items()]


def _text(text: str) -> str:
    return html.escape(visible(text))


def _section(queue: Compared, name: str, config: BackpressureConfig, against: str | None) -> Iterator[str]:
    told, known = queue.told, queue.known
    yield f"<section><h2><bdi>{_text(told.queue_name)}</bdi></h2>"
    days = span((told.ended_ms - told.began_ms) / 1_000)
    yield (
        f'<p class="soft"><span class="tag">{told.evidence}</span> {EVIDENCE[told.evidence]}, from '
        f"{time_of(told.began_ms)} to {time_of(told.ended_ms)}: {days}, {told.rows:,} rows, workers busy "
        f"{100 * told.busy:.1f} % of the time"
        + (f", {span(told.gap_seconds)} in gaps" if told.gap_seconds else "")
        + ".</p>"
    )
    lines = [Line("recorded", with_gaps(told.recorded.trail, known))]
    keys = ['<span><i class="recorded"></i>recorded</span>']
    if queue.against is not None and against is not None and (other := simulated(queue.against)) is not None:
        lines.append(Line("old", with_gaps(other.trail, known)))
        keys.append(f'<span><i class="old"></i>simulated under {_text(against)}</span>')
    if (mine := simulated(told)) is not None:
        lines.append(Line("new", with_gaps(mine.trail, known)))
        keys.append(f'<span><i class="new"></i>simulated under {_text(name)}</span>')
    bounds = policy_bounds(config, told.queue_name)
    if bounds:
        keys.append(f'<span><i class="bound"></i>thresholds of {_text(name)}</span>')
    target = config.age_of(told.queue_name).target
    if target is not None:
        keys.append(f"<span>{_text(name)} holds an age of {span(target)}</span>")
    yield f'<div class="key">{"".join(keys)}</div><div class="wide">'
    label = f"waiting jobs of {visible(told.queue_name)} over time"
    yield picture(lines, bounds, told.began_ms, 1_000 * told.trail_seconds, label)
    yield '</div><p class="soft">Waiting jobs, on a logarithmic scale: the highest of each '
    yield f"{span(told.trail_seconds)}.</p>"
    yield from _table(queue, name, against)
    if told.parity is not None:
        yield f'<p class="soft">Parity: {html.escape(str(told.parity))}.</p>'
    if told.caveats:
        yield "<ul>"
        yield from (f"<li>{html.escape(caveat)}</li>" for caveat in told.caveats)
        yield "</ul>"
    yield "</section>\n"


def simulated(told: ReplayedQueue) -> ReplayAnswer | None:
    """Return the best of its answers that follows the backlog; ``None``: too little is known for one."""
    return told.behaviour or told.feedback


def _table(queue: Compared, name: str, against: str | None) -> Iterator[str]:
    answers = [(name, *it) for it in answers_of(queue.told)]
    if queue.against is not None and against is not None:
        answers += [(against, *it) for it in answers_of(queue.against)]
    most = max((it.sheds or 0 for _, _, answer in answers for it in answer.priorities.values()), default=0)
    yield '<div class="wide"><table><tr>' + "".join(f"<th>{column}</th>" for column in _COLUMNS) + "</tr>"
    for policy, what, answer in answers:
        offered = {name: it for name, it in answer.priorities.items() if it.offers != 0} or answer.priorities
        for place, (priority, it) in enumerate(offered.items()):
            first = place == 0
            yield f'<tr class="{"first" if first else ""}">'
            yield f"<td>{_text(policy) if first else ''}</td><td>{what if first else ''}</td><td>{priority}</td>"
            yield "".join(_cells(it, most))
            wait = "–" if answer.longest_wait is None else span(answer.longest_wait)
            yield (f"<td>{answer.peak_backlog:,}</td><td>{wait}</td></tr>" if first else "<td></td><td></td></tr>")
    yield "</table></div>"


def answers_of(told: ReplayedQueue) -> Iterator[tuple[str, ReplayAnswer]]:
    """Yield the answers that there are, with their names."""
    for what in ("recorded", "feedback", "behaviour"):
        answer: ReplayAnswer | None = getattr(told, what)
        if answer is not None:
            yield what, answer


def _cells(it: ReplayedPriority, most: int) -> Iterator[str]:
    if it.offers is None or it.sheds is None or it.delays is None:
        shed = f"{span(it.shed_seconds)} long"
        waits = f"{span(it.delay_seconds)} long"
        yield f'<td>–</td><td>{waits}</td><td>–</td><td>{shed}</td><td class="bar"></td>'
        return
    held = (it.delayed_job_seconds or 0.0) / it.delays if it.delays else 0.0
    yield f"<td>{it.offers:,}</td><td>{it.delays:,}</td><td>{duration(held, 2) if it.delays else '–'}</td>"
    width = 7.0 * it.sheds / max(1, most)
    bar = f'<i style="width:{max(width, 0.1):.2f}rem"></i>' if it.sheds else ""
    yield f'<td>{it.sheds:,}</td><td class="bar">{bar}</td>'


def time_of(at_ms: int) -> str:
    """Return an instant, in UTC."""
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")
