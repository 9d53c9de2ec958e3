"""The operator's side of a fleet: turns its switches, and reads what its processes tell."""

from __future__ import annotations

import contextlib
import getpass
import re
import socket
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import attrs

from backpressure._fleet.audit import AUDIT_LENGTH, AuditEntry
from backpressure._fleet.entries import LONGEST_SECONDS, EntryError, Switch, check_key, encode, switches_of
from backpressure._fleet.keys import (
    CONFIG,
    audit_key,
    before_key,
    check_fleet_name,
    circuit_field,
    control_key,
    members_key,
    presence_key,
)
from backpressure._fleet.presence import FORGOTTEN_MS, Presence
from backpressure._fleet.pushed import WHOLE, Pushed, check_pushable
from backpressure._fleet.texts import MAX_AUTHOR, MAX_REASON, check_text, readable, text_of
from backpressure._model.arguments import check_seconds, shown
from backpressure._model.errors import ConfigurationError
from backpressure._model.hidden import hides_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from redis import Redis
    from redis.cluster import RedisCluster

    from backpressure._model.config.root import BackpressureConfig


__all__ = ["DEFAULT_SECONDS", "Control", "Operator", "author"]

T = TypeVar("T")

#: How long a switch holds if nothing is said.
DEFAULT_SECONDS = 600.0
_CIRCUIT_ACTIONS = ("open", "close", "reset")
_HOLDING = ("on", "open")
# Members that are read: more is not a fleet, but somebody who writes ids.
_MOST_MEMBERS = 5_000
_ID = re.compile(r"[\x21-\x7e]{1,200}")
_CHUNK = 500
# Somebody else wrote in between: so often this begins anew.
_ATTEMPTS = 5
_APART = frozenset({CONFIG})


@attrs.frozen(kw_only=True)
class Control:
    """What operators want of a fleet at one moment.

    Attributes:
        now_ms: the server's clock, in milliseconds of Unix time.
        switches: those whose time is not up; such as close or reset a circuit are among them, see `Switch.holds`.
        pushed: the configuration that was pushed last; ``None`` if none was, or it is not understood.
        problems: what is wrong with other fields, a sentence each: processes do not act on these.
    """

    now_ms: int
    switches: tuple[Switch, ...]
    pushed: Pushed | None = None
    problems: tuple[str, ...] = ()


def _next_n(now_ms: int, last: Pushed | None) -> int:
    return now_ms if last is None else max(now_ms, last.n + 1)


def author() -> str:
    """Return who is at work here: ``user@host``."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user id without a name
        user = "unknown"
    return readable(f"{user}@{socket.gethostname()}", MAX_AUTHOR)


class Operator:
    """Turns a fleet's switches and reads its members, with a client that is used as it is and never closed.

    Args:
        client: a blocking ``redis.Redis`` or ``redis.cluster.RedisCluster``, of the server that the fleet reads.
        name: of the fleet.
        by: who is named as the author; default `author`.
        key: what entries are signed with, where the processes of the fleet have one.

    Thread-safe as its client is. Each method makes a few round trips, and raises what redis-py raises. A switch and its
    line in the audit are written in one transaction.

    Raises:
        ConfigurationError: the name, the author or the key is impossible.
    """

    @hides_arguments
    def __init__(
        self, client: Redis | RedisCluster, name: str, *, by: str | None = None, key: str | bytes | None = None
    ) -> None:
        self.name = check_fleet_name(name)
        self.by = check_text(author() if by is None else by, "by", MAX_AUTHOR)
        self._client: Any = client
        self._key = check_key(key)
        self._control = control_key(self.name)

    def override(
        self, enabled: bool, *, reason: str, for_: float = DEFAULT_SECONDS, by: str | None = None
    ) -> Switch | None:
        """Turn the manual override of all processes on for `for_` seconds, or off.

        Returns:
            The switch that was written; ``None`` if it was turned off.

        Raises:
            ConfigurationError: no reason is given, or one that cannot be shown; or `for_` is not from 1 s to 24 h.
        """
        return self._turn("override", enabled, reason, for_, by)

    def emergency(
        self, enabled: bool, *, reason: str, for_: float = DEFAULT_SECONDS, by: str | None = None
    ) -> Switch | None:
        """As `override`, for emergency mode."""
        return self._turn("emergency", enabled, reason, for_, by)

    def circuit(
        self,
        queue_name: str,
        action: Literal["open", "close", "reset"],
        *,
        reason: str,
        for_: float = DEFAULT_SECONDS,
        by: str | None = None,
    ) -> Switch:
        """Have all processes force a queue's circuit open for `for_` seconds, or close or reset it once.

        Processes that read this within `for_` seconds close or reset it; it also ends what `"open"` began.

        Raises:
            ConfigurationError: as `override`, or the action is another.
            InvalidQueueError: the name cannot name a queue.
        """
        if action not in _CIRCUIT_ACTIONS:
            raise ConfigurationError(
                f"action is {shown(action)}: give open, close or reset", field="action", value=action
            )
        circuit_field(queue_name)
        return self._put("circuit", action, reason, for_, by, queue_name)

    def push(
        self,
        settings: Mapping[str, Any],
        *,
        reason: str,
        share: float = 1.0,
        by: str | None = None,
        over: BackpressureConfig | None = None,
    ) -> Pushed:
        """Have all processes, or a `share` of them from 0.001 to 1, lay settings over their own configuration.

        Whether they fit is tried with the configuration `over`, by default the defaults. They stay until others are
        pushed, or these are rolled back. With a share, what holds for the others stays.

        Raises:
            ConfigurationError: as `override`, or the settings are faulty, too many, or not for running processes; its
                ``faults`` and its message hold all that is wrong.
        """
        checked, (why, who) = check_pushable(settings, over), self._why(reason, by)
        permille = round(check_seconds(share, "share") * WHOLE)
        if not 1 <= permille <= WHOLE:
            raise ConfigurationError(
                f"share is {shown(share)}: give a part from 0.001 to 1", field="share", value=share
            )

        def put(pipeline: Any, now_ms: int, fields: Mapping[str, Any], _before: Any) -> Pushed:
            last = self._known(fields.get(CONFIG))
            others_n, others = (0, dict[str, Any]()) if last is None or permille == WHOLE else last.whole()
            fresh = Pushed(
                n=_next_n(now_ms, last),
                share_permille=permille,
                settings=checked,
                by=who,
                reason=why,
                others_n=others_n,
                others=others,
            )
            return self._put_config(pipeline, fields, fresh, "push")

        return self._write_config(put)

    def rollback(self, *, reason: str, by: str | None = None) -> Pushed:
        """Push again what held before the last push, or before the last rollback.

        Raises:
            ConfigurationError: as `override`, or nothing was ever pushed.
        """
        why, who = self._why(reason, by)

        def put(pipeline: Any, now_ms: int, fields: Mapping[str, Any], before: Any) -> Pushed:
            if fields.get(CONFIG) is None:
                raise ConfigurationError("nothing was pushed: there is nothing to roll back", field=CONFIG)
            last, earlier = self._known(fields[CONFIG]), self._known(before)
            earlier = earlier or Pushed(n=0, share_permille=WHOLE, settings={}, by=who, reason=why)
            fresh = attrs.evolve(earlier, n=_next_n(now_ms, last), by=who, reason=why)
            return self._put_config(pipeline, fields, fresh, "rollback")

        return self._write_config(put)

    def _put_config(self, pipeline: Any, fields: Mapping[str, Any], fresh: Pushed, action: str) -> Pushed:
        pipeline.set(before_key(self.name), fields.get(CONFIG, ""))
        pipeline.hset(self._control, CONFIG, fresh.encode(self.name, self._key))
        share = f"{fresh.share_permille / 10:g} % of the processes" if fresh.share_permille < WHOLE else ""
        told = AuditEntry(
            at_ms=0, field=CONFIG, action=action, by=fresh.by, reason=fresh.reason, n=fresh.n, detail=share
        )
        self._note(pipeline, told)
        return fresh

    def _pushed(self, raw: bytes | str | None) -> Pushed | None:
        return Pushed.decode(raw, self.name, self._key) if raw else None

    def _known(self, raw: bytes | str | None) -> Pushed | None:
        """Return what was pushed, ``None`` where that is not understood."""
        with contextlib.suppress(EntryError):
            return self._pushed(raw)
        return None

    def control(self) -> Control:
        """Return the switches whose time is not up, and what is wrong with other fields."""
        return self._at_node(lambda node: self._judged(*self._read(node)))

    def switches(self) -> list[Switch]:
        """Return the switches whose time is not up."""
        return list(self.control().switches)

    def members(self) -> list[Presence]:
        """Return what the processes tell that have shown a sign of life lately, by their ids."""
        return self._at_node(self._members)

    def _members(self, node: Any) -> list[Presence]:
        seconds, microseconds = node.time()
        since = seconds * 1_000 + microseconds // 1_000 - FORGOTTEN_MS
        listed = node.zrangebyscore(members_key(self.name), since, "+inf", start=0, num=_MOST_MEMBERS)
        ids = sorted(filter(_ID.fullmatch, map(text_of, listed)))
        if not ids:
            return []
        pipeline = node.pipeline(transaction=False)
        for start in range(0, len(ids), _CHUNK):
            pipeline.mget([presence_key(self.name, member_id) for member_id in ids[start : start + _CHUNK]])
        told = [raw for chunk in pipeline.execute() for raw in chunk]
        return [Presence.of(member_id, raw) for member_id, raw in zip(ids, told, strict=True) if raw is not None]

    def audit(self, most: int = 50) -> list[AuditEntry]:
        """Return the last `most` lines of the audit, the latest first."""
        found: Any = self._at_node(lambda node: node.xrevrange(audit_key(self.name), count=most))
        return [AuditEntry.of(entry_id, fields) for entry_id, fields in found if fields is not None]

    def _turn(
        self, kind: Literal["override", "emergency"], enabled: object, reason: str, for_: float, by: str | None
    ) -> Switch | None:
        if not isinstance(enabled, bool):
            raise ConfigurationError(f"enabled is {shown(enabled)}: give True or False", field="enabled", value=enabled)
        written = self._put(kind, "on" if enabled else "off", reason, for_, by)
        return written if enabled else None

    def _put(
        self, kind: Any, action: Any, reason: str, for_: float, by: str | None, queue_name: str | None = None
    ) -> Switch:
        why, who = self._why(reason, by)
        seconds = check_seconds(for_, "for_")
        if not 1 <= seconds <= LONGEST_SECONDS:
            raise ConfigurationError(
                f"for_ is {shown(for_)}: give seconds from 1 to {LONGEST_SECONDS:.0f}, for every switch ends by itself",
                field="for_",
                value=for_,
            )

        def put(pipeline: Any, now_ms: int, fields: Mapping[str, Any]) -> Switch:
            earlier, _ = switches_of(fields, self.name, self._key, _APART)
            field = kind if queue_name is None else circuit_field(queue_name)
            switch = Switch(
                kind=kind,
                queue_name=queue_name,
                action=action,
                # What ends another one has to be there for as long as that.
                until_ms=max(
                    now_ms + round(seconds * 1_000),
                    *(each.until_ms for each in earlier.values() if each.field == field and action not in _HOLDING),
                    0,
                ),
                by=who,
                reason=why,
                # By the clock, so that an entry after a lost key has a larger one too.
                n=max(now_ms, *(1 + each.n for each in earlier.values()), 1),
            )
            pipeline.hset(self._control, switch.field, encode(switch, self.name, self._key))
            told = AuditEntry(
                at_ms=0, field=switch.field, action=action, by=who, reason=why, until_ms=switch.until_ms, n=switch.n
            )
            self._note(pipeline, told)
            return switch

        return self._write(put)

    def _why(self, reason: str, by: str | None) -> tuple[str, str]:
        return check_text(reason, "reason", MAX_REASON), self.by if by is None else check_text(by, "by", MAX_AUTHOR)

    def _note(self, pipeline: Any, entry: AuditEntry) -> None:
        pipeline.xadd(audit_key(self.name), entry.fields(), maxlen=AUDIT_LENGTH, approximate=True)

    def _judged(self, now_ms: int, fields: Mapping[str, Any]) -> Control:
        switches, wrong = switches_of(fields, self.name, self._key, _APART)
        pushed = None
        try:
            pushed = self._pushed(fields.get(CONFIG))
        except EntryError as error:
            wrong[CONFIG] = str(error)
        in_force = [switch for switch in switches.values() if switch.until_ms > now_ms and switch.action != "off"]
        return Control(
            now_ms=now_ms,
            switches=tuple(sorted(in_force, key=lambda switch: switch.field)),
            pushed=pushed,
            problems=tuple(wrong[field] for field in sorted(wrong)),
        )

    def _read(self, node: Any) -> tuple[int, dict[str, Any]]:
        """Return the server's clock and the control hash, by `node`: a client, or a pipeline that watches."""
        seconds, microseconds = node.time()
        fields = node.hgetall(self._control)
        return seconds * 1_000 + microseconds // 1_000, {text_of(name): raw for name, raw in fields.items()}

    def _write_config(self, write: Callable[[Any, int, Mapping[str, Any], Any], T]) -> T:
        """As `_write`; `write` gets what held before, too."""
        before: list[Any] = []

        def look(pipeline: Any) -> None:
            pipeline.watch(before_key(self.name))
            before[:] = [pipeline.get(before_key(self.name))]

        return self._write(lambda pipeline, now_ms, fields: write(pipeline, now_ms, fields, before[0]), look)

    def _write(self, write: Callable[[Any, int, Mapping[str, Any]], T], look: Callable[[Any], object] = bool) -> T:
        """Have `write` add its commands to a transaction that is carried out if nobody else has written meanwhile."""
        from redis.exceptions import WatchError  # noqa: PLC0415 - imports redis, when it is used

        def attempt(node: Any) -> T:
            with node.pipeline(transaction=True) as pipeline:
                pipeline.watch(self._control)
                look(pipeline)
                now_ms, fields = self._read(pipeline)
                pipeline.multi()
                if outdated := self._outdated(now_ms, fields):
                    pipeline.hdel(self._control, *outdated)
                written = write(pipeline, now_ms, fields)
                pipeline.execute()
            return written

        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(WatchError):
                return self._at_node(attempt)
        return self._at_node(attempt)

    def _outdated(self, now_ms: int, fields: Mapping[str, Any]) -> list[str]:
        """Return fields whose time is up, so that the hash does not grow."""
        switches, _ = switches_of(fields, self.name, self._key, _APART)
        return [field for field, switch in switches.items() if switch.until_ms <= now_ms]

    def _at_node(self, work: Callable[[Any], T]) -> T:
        """Have `work` done with a client of the server that holds the fleet's keys."""
        from redis.exceptions import MovedError  # noqa: PLC0415 - imports redis, when it is used

        if not hasattr(self._client, "get_node_from_key"):
            return work(self._client)
        try:
            return work(self._node())
        except MovedError:
            self._client.nodes_manager.initialize()
            return work(self._node())

    def _node(self) -> Any:
        return self._client.get_redis_connection(self._client.get_node_from_key(self._control))

    def __repr__(self) -> str:
        return f"Operator({self.name!r}, by={self.by!r})"
