"""Recommends policies for the queues of a recording."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from backpressure._engine.choice import ENGINE
from backpressure._model.arguments import shown
from backpressure._model.config.root import BackpressureConfig
from backpressure._model.errors import ConfigurationError
from backpressure._model.units import duration
from backpressure._model.vocabulary import Priority
from backpressure._recommend.candidates import AGE_AIMS, Sketch, first_sketches, held_age, nearer_sketches
from backpressure._recommend.measured import BUSY_MINUTES, DAY_MS, WEEK_MS, Measured, measured
from backpressure._recommend.ranking import is_good, judged, ordered
from backpressure._recommend.recommendation import Recommendation
from backpressure._recommend.values import Candidate, RecommendedQueue
from backpressure._replay.behaviour import Behaviour, parts_ppm
from backpressure._replay.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Literal

    from backpressure._recording.recording import Recording

__all__ = ["recommend"]

#: From so many times on a backlog says little of an age.
_VARIES = 3
_NO_DRAIN = "how fast workers are is not known: "


def recommend(
    recording: Recording,
    *,
    queues: Sequence[str] | None = None,
    target_age: float | Mapping[str, float] | None = None,
    behaviour: Behaviour | Mapping[str, Behaviour] | None = None,
    mix: Mapping[str, float] | None = None,
    base: BackpressureConfig | None = None,
    progress: Callable[[str, float], object] | None = None,
    _engine: str = ENGINE,
) -> Recommendation:
    """Recommend policies for the queues of a recording.

    For each queue some twenty policies are made from what was recorded, and replayed. With a target age, the one is
    best that sheds least among those under which no job waits longer. Without, it is the one under which jobs wait for
    the shortest time, of those that shed no more than thresholds at twice the usual peak would. Thread-safe.

    Args:
        recording: of queues, with what producers offered or, with `mix`, what came in.
        queues: those to recommend for; ``None``: all.
        target_age: seconds that jobs may wait in the queue; or by priority, as in ``{"low": 600, "medium": 900}``:
            how much work may wait before jobs of each are held back. Of LOW alone, that of the others follows.
        behaviour: what producers do about advice, for all queues or by the name of one.
        mix: parts of the priorities among jobs, for times of which no offers were recorded.
        base: what else is configured, above all how often queues are read; ``None``: the defaults.
        progress: called with a queue and with how much of its work is done, from 0 to 1.

    Raises:
        RecordingError: the recording cannot be read, or has no such queue.
        ConfigurationError: an argument is impossible.

    Example:
        >>> import tempfile
        >>> path = f"{tempfile.mkdtemp()}/week.bpr"
        >>> with BackpressureController(None, InMemoryStatsProvider({"mail": 120}), recorder=Recorder(path)):
        ...     pass
        >>> recommend(Recording(path)).queues[0].missing.partition(":")[0]
        'how fast workers are is not known'
    """
    targets = _targets(target_age)
    mix_ppm = None if mix is None else parts_ppm("mix", mix)
    base = base or BackpressureConfig()
    told = []
    for name in sorted(recording.queues() if queues is None else set(queues)):
        behaves = behaviour.get(name) if isinstance(behaviour, Mapping) else behaviour
        found = measured(recording.queue(name), mix_ppm)
        search = _Search(recording, name, found, base, targets, behaves, mix, progress or _nobody, _engine)
        told.append(search.recommended())
    return Recommendation(source=recording.path.name, queues=tuple(told))


def _nobody(_queue: str, _part: float) -> None:
    """Be told how far it is."""


def _targets(given: object) -> dict[str, float]:
    names = [str(priority) for priority in Priority]
    # What LOW is shed for holds the whole queue: the others need no windows that are as narrow.
    targets = given if isinstance(given, Mapping) else {} if given is None else {"low": given}
    for name, seconds in targets.items():
        if name not in names:
            told = 'give priorities "low", "medium" and "high"'
            raise ConfigurationError(f"target_age names {shown(name)}: {told}", field="target_age", value=given)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 7 * 86_400:
            told = "give seconds, above 0 and up to a week"
            raise ConfigurationError(f"target_age is {shown(seconds)}: {told}", field="target_age", value=given)
    return dict(targets)


@attrs.frozen
class _Search:
    """The search for one queue."""

    recording: Recording
    name: str
    found: Measured
    base: BackpressureConfig
    targets: Mapping[str, float]
    behaviour: Behaviour | None
    mix: Mapping[str, float] | None
    progress: Callable[[str, float], object]
    engine: str

    def recommended(self) -> RecommendedQueue:
        confidence, come_back_ms = _confidence(self.found)
        missing = _missing(self.found, mix=self.mix is not None)
        if missing is not None or self.found.drain is None:
            return RecommendedQueue(
                queue_name=self.name,
                confidence="none",
                missing=missing,
                come_back_ms=_when_known(self.found),
                candidates=(),
                facts=(),
                notes=(),
            )
        tried = self._tried(first_sketches(self.found, self.base, self.name, self.targets), 0.0, 0.7)
        by_name = {candidate.name: sketch for sketch, candidate in tried}
        best = by_name[ordered(candidate for _, candidate in tried)[0].name]
        tried += self._tried(nearer_sketches(self.found, self.base, best, self.targets), 0.7, 0.9)
        candidates = ordered({candidate.name: candidate for _, candidate in tried}.values())
        notes = [*self._about_target(candidates[0])]
        if self.found.varies >= _VARIES:
            candidates, told = self._with_age_law(candidates)
            notes.append(told)
        self.progress(self.name, 1.0)
        return RecommendedQueue(
            queue_name=self.name,
            confidence=confidence,
            missing=None,
            come_back_ms=come_back_ms,
            candidates=tuple(candidates),
            facts=tuple(_facts(self.found)),
            notes=(*notes, *self._caveats(candidates[0])),
        )

    def _tried(self, sketches: Iterable[Sketch], done: float, then: float) -> list[tuple[Sketch, Candidate]]:
        every = list(sketches)
        tried: list[tuple[Sketch, Candidate]] = []
        for place, sketch in enumerate(every):
            self.progress(self.name, done + (then - done) * place / len(every))
            if all(sketch.settings != other.settings for other, _ in tried):
                tried.append((sketch, self._replayed(sketch)))
        return tried

    def _replayed(self, sketch: Sketch) -> Candidate:
        told = self._replay(sketch.settings).queue(self.name)
        answer = told.behaviour or told.feedback or told.recorded
        target = max(self.targets.values()) if self.targets else None
        return judged(sketch, answer, self.found.drain or 1, target)

    def _replay(self, settings: Mapping[str, object]) -> Replay:
        policy = self.base.evolve({f"queues.{_quoted(self.name)}.{part}": value for part, value in settings.items()})
        return Replay(self.recording, policy, behaviour=self.behaviour, mix=self.mix, _engine=self.engine)

    def _caveats(self, best: Candidate) -> tuple[str, ...]:
        return self._replay(best.settings).queue(self.name).caveats

    def _about_target(self, best: Candidate) -> Iterator[str]:
        if not self.targets:
            yield "no target age was given: for jobs that wait less, at the price of more that are shed, give one"
        elif not best.keeps:
            yield f"no thresholds keep the target age: under the best of them a job waited {_time(best.longest_wait)}"
        if self.found.away_seconds:
            yield (
                f"workers were away for up to {_time(self.found.away_seconds)}: what has been let in waits for as "
                "long, whatever the policy"
            )

    def _with_age_law(self, candidates: list[Candidate]) -> tuple[list[Candidate], str]:
        """Return candidates with one that holds an age, and what is to be said of that."""
        found = self.found
        varies = (
            f"workers take from {found.slow:.3g} to {found.quick:.3g} jobs a second, so the same backlog means "
            f"{found.varies:.1f} times as long a wait at one time as at another: thresholds in jobs cannot hold an "
            "age, the age law can"
        )
        target = max(self.targets.values()) if self.targets else candidates[0].longest_wait
        sketches = [sketch for aim in AGE_AIMS if (sketch := held_age(target * aim)) is not None]
        if not sketches:
            return candidates, f"{varies}, for targets from 0.5 s to an hour"
        aged = [self._replayed(sketch) for sketch in sketches]
        every = ordered([*candidates, *aged])
        good = next((it for it in every if it in aged and is_good(it, every)), None)
        if good is None:
            return every, f"{varies}; replayed, it does not do so well here either"
        return [good, *(it for it in every if it is not good)], f"{varies}, and is recommended"


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _confidence(found: Measured) -> tuple[Literal["none", "low", "normal"], int | None]:
    """Return how sure a recommendation is, and when it will be surer."""
    seen_ms = found.ended_ms - found.began_ms
    if found.busy_minutes < BUSY_MINUTES:
        # As often as workers were busy so far, they will be.
        needed_ms = round(seen_ms * BUSY_MINUTES / max(1.0, found.busy_minutes))
        return "none", max(found.began_ms + max(needed_ms, DAY_MS), found.ended_ms + 1)
    if seen_ms < DAY_MS:
        return "none", found.began_ms + DAY_MS
    # A minute less is a week, too: the last reading is the one before its end.
    if seen_ms < WEEK_MS - 60_000:
        return "low", found.began_ms + WEEK_MS
    return "normal", None


def _missing(found: Measured, *, mix: bool) -> str | None:
    if found.drain is not None:
        return None
    if found.drains and not found.offers and not mix:
        return f"{_NO_DRAIN}what came in was recorded, and not of which priorities: give their mix"
    if found.drains or found.offers:
        return f"{_NO_DRAIN}workers never had jobs for a whole minute, so nothing had to be held back yet"
    return f"{_NO_DRAIN}only the backlog was recorded: give the controllers of producers a Recorder"


def _when_known(found: Measured) -> int:
    """Return when there will be a week of what is missing."""
    whole_ms = found.began_ms + WEEK_MS
    return whole_ms if found.offers and whole_ms > found.ended_ms else found.ended_ms + WEEK_MS


def _facts(found: Measured) -> Iterator[str]:
    began, ended = (
        datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")
        for at_ms in (found.began_ms, found.ended_ms)
    )
    yield f"recorded from {began} to {ended} UTC"
    yield f"the highest backlog is {found.peak:,}, and that of a usual day {found.usual_peak:,}"
    yield (
        f"workers take {found.drain:.3g} jobs a second when they have some, and from {found.slow:.3g} to "
        f"{found.quick:.3g} for most of that time, which is {found.busy_minutes:,.0f} minutes"
    )


def _time(seconds: float) -> str:
    return duration(seconds, 3)
