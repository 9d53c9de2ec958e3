"""The fleet of one process: reads what operators want, does it, tells of it, and ends it in time.

All of it happens on the poller's thread, between polls. No caller waits for it.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from backpressure._controller.fleet.circuits import Circuits
from backpressure._controller.fleet.link import Link, key_of
from backpressure._controller.fleet.settings import Settings
from backpressure._controller.fleet.telling import Telling
from backpressure._controller.fleet.wanted import Wanted
from backpressure._fleet.keys import CONFIG
from backpressure._model.errors import StatsUnavailableError
from backpressure._model.units import duration
from backpressure._telemetry.ledger import FleetNow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backpressure._controller.fleet.settings import Adopt
    from backpressure._controller.fleet.wanted import Change, Wish
    from backpressure._controller.polling.samples import Samples
    from backpressure._controller.switches import Switches
    from backpressure._engine.border import Engine
    from backpressure._fleet.ride import Heard
    from backpressure._model.clock import Clock
    from backpressure._model.config.root import BackpressureConfig
    from backpressure._telemetry.events import Announcer

__all__ = ["Fleet"]

_KINDS = ("override", "emergency")


class Fleet:
    """Of one controller. `prepare` and `follow` are called by one thread at a time; all else by any.

    Args:
        config: with the name of the fleet.
        provider: whose reads carry the fleet's commands, if they go to its server.
        adopt: see `Settings`.
        tenants: see `Telling`.
        release: called when everything may pass: nobody needs to sleep any more.

    Raises:
        ConfigurationError: the fleet cannot be reached as the configuration says.
    """

    def __init__(
        self,
        config: BackpressureConfig,
        provider: object,
        clock: Clock,
        announcer: Announcer,
        engine: Engine,
        engine_name: str,
        switches: Switches,
        samples: Samples,
        *,
        current: Callable[[], BackpressureConfig],
        adopt: Adopt,
        release: Callable[[], object],
        tenants: Callable[[], Mapping[str, Mapping[str, float]]],
    ) -> None:
        self.name = str(config.fleet.name)
        self._clock = clock
        self._announcer = announcer
        self._switches = switches
        self._samples = samples
        self._release = release
        self._wanted = Wanted(self.name, key_of(config))
        self._settings = Settings(self.name, key_of(config), adopt)
        self._link = Link(config, provider, clock)
        self._circuits = Circuits(engine.breaker, clock.monotonic_ns)
        self._telling = Telling(engine, engine_name, current, clock, tenants)
        self._taken = 0
        self._started_ms = 0
        self._read_ns: int | None = None
        self._failing = self._unseen = ""
        self._told: set[str] = set()
        #: About how many processes the fleet has; ``None`` before that is known.
        self.members: int | None = None

    def configure(self, config: BackpressureConfig) -> None:
        """Follow another configuration, of the same fleet."""
        self._link.configure(config)

    def over(self, own: BackpressureConfig) -> BackpressureConfig:
        """Return a configuration with what was pushed over it; without it where that does not fit."""
        return self._settings.over(own)

    def prepare(self) -> None:
        """Have the poll that begins now carry the fleet's commands."""
        self._link.prepare(self._presence)

    def follow(self, call: Callable[[Callable[[], object]], object]) -> None:
        """Do what operators want, as far as it is known; `call` has a function end within the time of a poll."""
        self._link.exchange(self._presence, call)
        heard = self._link.heard()
        changes: list[Change] = []
        if heard is not None and heard.number != self._taken:
            self._taken = heard.number
            changes += self._take(heard)
        changes += self._wanted.expire(self._clock.monotonic_ns())
        self._act()
        if changes and self._switches.is_passing():
            self._release()
        for change in changes:
            self._announce(change)

    def due_in(self) -> float:
        """Return seconds until `follow` is to be called again."""
        now_ns, end_ns = self._clock.monotonic_ns(), self._wanted.next_end_ns()
        due_ns = min(self._link.due_ns(), math.inf if end_ns is None else end_ns)
        return max(0.0, (due_ns - now_ns) / 1e9)

    def _take(self, heard: Heard) -> list[Change]:
        """Take over what was heard; return what has changed by it."""
        self._report("read", heard.error)
        if heard.error is None:
            self._report("told", heard.presence_error)
        if heard.members is not None:
            self.members = heard.members
        if heard.control is None or heard.now_ms is None:
            return []
        self._read_ns = heard.at_ns
        self._started_ms = self._started_ms or heard.now_ms
        changes = self._wanted.take(heard.control, heard.now_ms, heard.at_ns)
        if (told := self._settings.take(heard.control.get(CONFIG), self._link.rider.member_id)) is not None:
            level = logging.WARNING if self._settings.error else logging.INFO
            old, new, message = told
            self._announcer.announce("fleet", old, new, f"fleet {self.name!r}: {message}", level=level)
        for sentence in (*self._wanted.wrong.values(), *filter(None, [self._settings.wrong])):
            self._caution(f"fleet {self.name!r}: {sentence}")
        return changes

    def _act(self) -> None:
        known = self._wanted.known()
        for kind in _KINDS:
            wish = known.get(kind)
            self._switches.set_of_fleet(kind, None if wish is None else wish.until_ns)  # type: ignore[arg-type]
        self._circuits.follow({wish.switch.queue_name: wish for wish in known.values() if wish.switch.queue_name})
        for queue_name in self._circuits.without_room:
            self._caution(
                f"fleet {self.name!r}: queue {queue_name!r} has no circuit breaker to open: max_queues is reached, so "
                "raise it"
            )

    def _caution(self, sentence: str) -> None:
        if sentence not in self._told and len(self._told) < 1_000:
            self._told.add(sentence)
            self._announcer.caution(sentence)

    def _announce(self, change: Change) -> None:
        wish = change.now or change.before
        assert wish is not None  # noqa: S101 - one of the two is there
        switch = wish.switch
        what = f"circuit of queue {switch.queue_name!r}" if switch.queue_name else switch.kind
        old = "off" if change.before is None else change.before.switch.action
        who = f"by {switch.by}: {switch.reason}"
        if change.now is None:
            if not switch.holds:
                return  # it was done, and is forgotten
            new, message = "off", f"fleet {self.name!r}: {what} is off: its time is up"
        elif switch.action == "off":
            new, message = "off", f"fleet {self.name!r}: {what} is off, {who}"
        elif switch.holds:
            new = switch.action
            left = duration(max(0.0, (wish.until_ns - self._clock.monotonic_ns()) / 1e9), 3)
            message = f"fleet {self.name!r}: {what} is {new} for {left}, {who}"
        else:
            new = switch.action
            message = f"fleet {self.name!r}: {what} was told to {new}, {who}"
        self._announcer.announce(
            "fleet",
            f"{switch.kind} {old}",
            f"{switch.kind} {new}",
            message,
            queue_name=switch.queue_name,
            level=logging.WARNING,
            switch=switch.field,
            by=switch.by,
            reason=switch.reason,
        )

    def _report(self, what: str, error: Exception | None) -> None:
        """Tell once that the fleet cannot be read, or that it is not told of this process; and when it is again."""
        # Of other errors the text is other people's, and may hold credentials.
        known = isinstance(error, StatsUnavailableError)
        cause = "" if error is None else str(error) if known else type(error).__name__
        before = self._failing if what == "read" else self._unseen
        if what == "read":
            self._failing = cause
        else:
            self._unseen = cause
        if bool(before) == bool(cause):
            return
        bad, good = "does not see this process", "sees this process again"
        if what == "read":
            bad, good = "cannot be read", "is read again"
        message = f"fleet {self.name!r} {bad}: {cause}" if cause else f"fleet {self.name!r} {good}"
        old, new = (f"{what} ok", f"{what} failing") if cause else (f"{what} failing", f"{what} ok")
        self._announcer.announce("fleet", old, new, message, level=logging.WARNING if cause else logging.INFO)

    def _presence(self) -> str:
        failing = self._samples.failing
        error = self._failing or ("" if failing is None else failing.cause)
        switches = tuple(field for field, wish in sorted(self._wanted.known().items()) if wish.switch.holds)
        return self._telling.presence(
            self._link.rider.member_id, self._started_ms, switches, error, self._settings
        ).encode()

    def now(self) -> FleetNow:
        """Return how it stands, for metrics."""
        known = self._wanted.known()
        switched = {**{kind: int(kind in known) for kind in _KINDS}, "circuit": self._circuits.count()}
        return FleetNow(self.members, self._settings.revision, switched)

    def as_dict(self) -> dict[str, Any]:
        """Return what is known of it, for health."""
        now_ns, read_ns = self._clock.monotonic_ns(), self._read_ns
        return {
            "name": self.name,
            "member": self._link.rider.member_id,
            "members": self.members,
            "read_age": None if read_ns is None else max(0, now_ns - read_ns) / 1e9,
            "problem": self._failing or self._unseen or None,
            "not_understood": [*self._wanted.wrong.values(), *filter(None, [self._settings.wrong])],
            "config_revision": self._settings.revision,
            "config_error": self._settings.error or None,
            "switches": [_told(wish, now_ns) for _, wish in sorted(self._wanted.known().items()) if wish.switch.holds],
        }

    def forget_parent(self) -> None:
        """Begin again in a forked child, by what its parent knew: that lasts until its own time."""
        self._telling.forget_parent()
        self._settings.forget_parent()
        self._started_ms = 0

    def interrupt(self) -> None:
        """End an exchange under way."""
        self._link.interrupt()

    def close(self) -> None:
        """Close connections of the fleet's own."""
        self._link.close()


def _told(wish: Wish, now_ns: int) -> dict[str, Any]:
    switch = wish.switch
    return {
        "switch": switch.kind,
        "queue": switch.queue_name,
        "action": switch.action,
        "by": switch.by,
        "reason": switch.reason,
        "seconds_left": max(0, wish.until_ns - now_ns) / 1e9,
    }
