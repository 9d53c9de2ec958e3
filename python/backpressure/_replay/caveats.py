"""What the numbers of a replay do not say, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure._engine.laws.age import AgeLaw
from backpressure._replay.jobs import JOB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from backpressure._replay.settings import ReplaySettings
    from backpressure._replay.values import ReplayParity

__all__ = ["caveats"]

# Parts from which on something is worth a sentence.
_MUCH = 0.05
_OFF = 0.02


def caveats(
    found: Mapping[str, Any], settings: ReplaySettings, parity: ReplayParity | None, unread: int
) -> Iterator[str]:
    """Yield sentences about the result of a replay.

    Args:
        found: what the engine found.
        settings: that it went by.
        parity: with the policy in force.
        unread: policies in force that cannot be replayed.
    """
    judged_ms, offers_ms = found["judged_ms"], found["offers_ms"]
    if not judged_ms:
        yield "there are no two rows without a gap between them: record for longer"
        return
    yield from _of_evidence(found, settings)
    if found["gaps_ms"]:
        yield f"{_seconds(found['gaps_ms'])} lie in gaps between rows, of which nothing is said"
    if found["skipped"]:
        yield f"{found['skipped']:,} rows are left out, as they are not later than the one before: a clock was set back"
    simulated_ms = found["simulated"][0][4]
    if simulated_ms:
        yield from _of_simulation(found, settings, simulated_ms)
    law = settings.law
    if isinstance(law, AgeLaw):
        yield from _of_age(found)
    if found["knows_memory"] and getattr(law, "memory_permille", None) is not None:
        yield "the memory of the queue's server is taken as it was recorded, whatever the policy keeps out"
    if found["refused"]:
        yield (
            f"{found['refused'] // JOB:,} offers were refused by an open circuit, and so would be under any policy: "
            "the failures that opened it are not in the rows"
        )
    if unread and offers_ms:
        yield "a policy that was in force for some time holds an age, or is of another version: it is not compared"
    if parity is not None and parity.off > _OFF:
        yield (
            f"the policy in force, replayed, differs in {100 * parity.off:.1f} % of the offers: rows are further apart "
            "than readings of the queue were, or jobs were spared for their tenants"
        )


def _of_evidence(found: Mapping[str, Any], settings: ReplaySettings) -> Iterator[str]:
    judged_ms, offers_ms, drains_ms = found["judged_ms"], found["offers_ms"], found["drains_ms"]
    if not offers_ms and not drains_ms:
        yield (
            "only the backlog was recorded: shares of time can be told, and no jobs. Give the controllers of producers "
            "a Recorder for more"
        )
    elif not offers_ms and settings.mix_ppm is None:
        yield "offers were not recorded: give the mix of priorities for more than shares of time"
    elif not offers_ms:
        yield (
            "offers were not recorded: all jobs that came in are taken as offers, in the mix of priorities that was "
            "given, and jobs that were refused then are missing"
        )
    elif offers_ms < (1 - _MUCH) * judged_ms:
        yield f"offers are known for {100 * offers_ms / judged_ms:.0f} % of the time, and the rest is not simulated"
    if offers_ms and not drains_ms:
        yield (
            "offers are those of the process that recorded, and what workers took follows from them and from the "
            "backlog: jobs of other processes are taken as workers that took less"
        )


def _of_age(found: Mapping[str, Any]) -> Iterator[str]:
    if found["simulated"][0][4]:
        yield (
            "one process stands for all producers: callers of HIGH do not wait, those of MEDIUM wait for their turn "
            "however long it takes, and those of LOW do not; the budget begins without what it had learned"
        )
    else:
        yield (
            "an age follows from the backlog and from how fast workers are: of times whose offers are not known, "
            "nothing is told"
        )


def _of_simulation(found: Mapping[str, Any], settings: ReplaySettings, simulated_ms: int) -> Iterator[str]:
    counts, *_ = found["simulated"][0]
    jobs = sum(of_priority[0] for of_priority in counts)
    if found["others"] > _MUCH * (jobs + found["others"]):
        part = found["others"] / (jobs + found["others"])
        yield f"{100 * part:.0f} % of the jobs came past the process that recorded: no policy is taken to hold for them"
    if not found["busy_ms"]:
        yield "workers were never busy all along: how much more they could do is not known, and waits may be shorter"
    elif found["busy_ms"] < _MUCH * simulated_ms:
        yield (
            f"workers were busy for {100 * found['busy_ms'] / simulated_ms:.1f} % of the time: how much more they "
            "could do at other times follows from these alone"
        )
    if settings.behaviour is None and any(of_priority[2] for of_priority in counts):
        yield "jobs that are shed are taken as gone: tell how producers behave for a third answer"


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1_000:,.0f} s"
