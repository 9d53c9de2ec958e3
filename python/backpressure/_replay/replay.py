"""A recording under another policy: reads what is recorded of a queue, has it replayed, and tells what was found."""

from __future__ import annotations

from itertools import pairwise
from statistics import median_low
from typing import TYPE_CHECKING, Any

from backpressure._engine.choice import ENGINE
from backpressure._engine.laws.age import AgeLaw
from backpressure._engine.laws.registry import law_of
from backpressure._model.config.root import BackpressureConfig
from backpressure._model.errors import ConfigurationError, RecordingError
from backpressure._model.vocabulary import Priority, Zone
from backpressure._recording.book import Book
from backpressure._recording.columns import first_column_of
from backpressure._recording.row import HOUR_MS
from backpressure._replay.behaviour import Behaviour, parts_ppm
from backpressure._replay.caveats import caveats
from backpressure._replay.jobs import JOB
from backpressure._replay.settings import PolicyInForce, ReplaySettings
from backpressure._replay.values import ReplayAnswer, ReplayedPriority, ReplayedQueue, ReplayParity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from backpressure._engine.laws.law import Law
    from backpressure._recording.recording import Recording

__all__ = ["Replay"]

#: Stretches of time whose peaks a trail tells.
_STRETCHES = 480
#: Hours that are read at once.
_DAY = 24
#: So many hours, and rows of each of their blocks, show how far apart rows are.
_FIRST, _ENOUGH = 3, 200
#: Rows are apart as usual; so many times that, and at least a minute, is a gap. Its length has a limit.
_USUAL, _LEAST_GAP_MS, _MOST_GAP_MS = 5, 60_000, 2 * HOUR_MS


class Replay:
    """What a policy would have done with what was recorded.

    Every offer is judged by the law that decides in producers, three times: at the backlog that was recorded, at a
    simulated backlog into which nothing comes that is shed or delayed, and at one whose producers behave as they are
    said to. Between two rows jobs come and go evenly, in steps of about a second.

    Thread-safe; holds nothing open, and reads the recording when it is asked.

    Args:
        recording: of queues.
        policy: the policy to try.
        behaviour: what producers do about advice, for the third answer; ``None``: there is none.
        mix: parts of the priorities among jobs, for times of which no offers were recorded but what came in or left:
            ``{"low": 0.5, "medium": 0.3, "high": 0.2}``. ``None``: such times are not simulated.

    Raises:
        ConfigurationError: `mix` is no such mapping, or does not add up to 1.

    Example:
        >>> import tempfile
        >>> path = f"{tempfile.mkdtemp()}/week.bpr"
        >>> with BackpressureController(None, InMemoryStatsProvider({"mail": 120}), recorder=Recorder(path)):
        ...     pass
        >>> Replay(Recording(path), BackpressureConfig()).queue("mail").recorded.peak_backlog
        120
    """

    def __init__(
        self,
        recording: Recording,
        policy: BackpressureConfig,
        *,
        behaviour: Behaviour | None = None,
        mix: Mapping[str, float] | None = None,
        _engine: str = ENGINE,
    ) -> None:
        self._engine = _engine
        self._recording = recording
        self._policy = policy
        self._were_in_force: dict[int, BackpressureConfig | None] = {}
        self._behaviour = behaviour
        self._mix_ppm = None if mix is None else parts_ppm("mix", mix)
        if self._mix_ppm is not None and abs(sum(self._mix_ppm) - JOB) > len(self._mix_ppm):
            told = f"mix is {dict(mix or {})}: give parts that add up to 1"
            raise ConfigurationError(told, field="mix", value=mix)

    def queue(self, name: str) -> ReplayedQueue:
        """Return what the policy would have done with a queue.

        Raises:
            RecordingError: the recording cannot be read, or has no such queue.
        """
        law = law_of(self._policy, name)
        book = Book(self._recording.path)
        hours = book.hours(name)
        if not hours:
            book.rows(name, 0, 0)  # raises if there is no such queue
        in_force, unread = self._in_force(name)
        try:
            settings = self._settings(name, law, hours, _gap_ms(_blocks(book, name, hours[:_FIRST])), in_force)
            replay = _engine(self._engine)(settings)
            for content, rows in _blocks(book, name, hours):
                replay.feed(content, rows)
        except ValueError as error:  # of columns: what is compressed is whole
            raise RecordingError(f"recording {book.path} is damaged in queue {name!r}: {error}") from None
        return _told(name, replay.result(), settings, unread)

    def _settings(
        self, name: str, law: Law | AgeLaw, hours: list[int], gap_ms: int, in_force: dict[int, PolicyInForce]
    ) -> ReplaySettings:
        polling = self._policy.polling
        poll = polling.interval if polling.enabled else polling.cache_ttl
        return ReplaySettings(
            law=law,
            poll_ms=_milliseconds(poll),
            busy_poll_ms=_milliseconds(polling.busy_interval if polling.enabled else poll),
            sleep_permille=1_000 + round(500 * self._policy.curve_of(name).delay_jitter),
            gap_ms=gap_ms,
            trail_ms=max(1_000, HOUR_MS * (hours[-1] - hours[0] + 1) // _STRETCHES) if hours else HOUR_MS,
            mix_ppm=self._mix_ppm,
            in_force=in_force,
            behaviour=None if self._behaviour is None else self._behaviour.settings(),
        )

    def _in_force(self, name: str) -> tuple[dict[int, PolicyInForce], int]:
        """Return the policies that were in force, and how many of them cannot be replayed."""
        found: dict[int, PolicyInForce] = {}
        for number, told in self._recording.policies().items():
            config = self._read(number, told)
            law = None if config is None else law_of(config, name)
            enforces = told.get("mode") != "observe" if config is None else config.mode == "enforce"
            found[number] = PolicyInForce(None if isinstance(law, AgeLaw) else law, enforces)
        return found, sum(policy.law is None for policy in found.values())

    def _read(self, number: int, told: Mapping[str, Any]) -> BackpressureConfig | None:
        """Return a policy of the recording, which is read once for all queues; ``None`` for one of another version."""
        if number not in self._were_in_force:
            try:
                self._were_in_force[number] = BackpressureConfig.from_mapping(told)
            except ConfigurationError:
                self._were_in_force[number] = None
        return self._were_in_force[number]


def _engine(engine_name: str) -> Any:
    if engine_name == "native":
        import backpressure._native as module  # noqa: PLC0415 - one of the two is enough
    else:
        import backpressure._replay.pure as module  # type: ignore[no-redef]  # noqa: PLC0415 - likewise
    return module.QueueReplay


def _milliseconds(seconds: float) -> int:
    return max(1, round(1_000 * seconds))


def _blocks(book: Book, name: str, hours: list[int]) -> Iterator[tuple[bytes, int]]:
    for day in range(0, len(hours), _DAY):
        some = hours[day : day + _DAY]
        yield from book.blocks(name, some[0], some[-1])


def _gap_ms(blocks: Iterator[tuple[bytes, int]]) -> int:
    """Return how far rows are apart that have a gap between them, from the first of them."""
    times = [at_ms or 0 for content, rows in blocks for at_ms in first_column_of(content, rows, _ENOUGH)]
    apart = [later - earlier for earlier, later in pairwise(times) if later > earlier]
    usual = median_low(apart) if apart else 0
    return min(max(_USUAL * usual, _LEAST_GAP_MS), _MOST_GAP_MS)


def _told(name: str, found: dict[str, Any], settings: ReplaySettings, unread: int) -> ReplayedQueue:
    judged_ms, offers_ms = found["judged_ms"], found["offers_ms"]
    parity = _parity(found["parity"])
    knows_jobs = bool(found["simulated"][0][4])
    answers = [_answer(told, knows_jobs=True) if told[4] else None for told in found["simulated"]]
    return ReplayedQueue(
        queue_name=name,
        evidence="L2" if offers_ms else "L1" if found["drains_ms"] else "L0",
        began_ms=found["first_ms"],
        ended_ms=found["last_ms"],
        rows=found["rows"],
        gap_seconds=found["gaps_ms"] / 1_000,
        busy=found["busy_ms"] / judged_ms if judged_ms else 0.0,
        recorded=_answer(found["recorded"], knows_jobs=knows_jobs),
        feedback=answers[0],
        behaviour=answers[1] if len(answers) > 1 else None,
        parity=parity,
        trail_seconds=settings.trail_ms / 1_000,
        caveats=tuple(caveats(found, settings, parity, unread)),
    )


def _answer(told: tuple[Any, ...], *, knows_jobs: bool) -> ReplayAnswer:
    counts, peak, peak_at_ms, longest_wait_ms, told_ms, trail = told
    priorities = {str(it): _priority(counts[it.value], knows_jobs=knows_jobs) for it in reversed(Priority)}
    return ReplayAnswer(
        seconds=told_ms / 1_000,
        priorities=priorities,
        peak_backlog=_whole(peak),
        peak_at_ms=peak_at_ms,
        longest_wait=None if longest_wait_ms is None else longest_wait_ms / 1_000,
        trail=tuple(map(_whole, trail)),
    )


def _priority(told: tuple[int, ...], *, knows_jobs: bool) -> ReplayedPriority:
    offers, delays, sheds, held, green_ms, yellow_ms, red_ms, waits_ms, shed_ms = told
    zones_ms = zip(Zone, (green_ms, yellow_ms, red_ms), strict=True)
    return ReplayedPriority(
        offers=_whole(offers) if knows_jobs else None,
        delays=_whole(delays) if knows_jobs else None,
        sheds=_whole(sheds) if knows_jobs else None,
        delayed_job_seconds=held / JOB / 1_000_000 if knows_jobs else None,
        seconds={str(zone): milliseconds / 1_000 for zone, milliseconds in zones_ms},
        delay_seconds=waits_ms / 1_000,
        shed_seconds=shed_ms / 1_000,
    )


def _parity(told: tuple[int, ...]) -> ReplayParity | None:
    offers, off, *counts = told
    if not offers:
        return None
    recorded, replayed = ({str(it): _pair(half, it.value) for it in Priority} for half in (counts[:6], counts[6:]))
    return ReplayParity(offers=_whole(offers), recorded=recorded, replayed=replayed, off=off / offers)


def _pair(counts: list[int], priority: int) -> tuple[int, int]:
    delays, sheds = counts[2 * priority : 2 * priority + 2]
    return _whole(delays), _whole(sheds)


def _whole(millionths: int) -> int:
    """Return whole jobs, to the nearest."""
    return (millionths + JOB // 2) // JOB
