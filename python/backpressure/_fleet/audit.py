"""Who wanted what of a fleet, when and why: a stream, written in one transaction with what it tells of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import attrs

from backpressure._fleet.entries import VERSION
from backpressure._fleet.texts import readable, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AUDIT_LENGTH", "AuditEntry"]

#: Entries that the stream keeps, about.
AUDIT_LENGTH = 10_000
_LONGEST = 600


@attrs.frozen(kw_only=True)
class AuditEntry:
    """One line of the audit.

    Attributes:
        at_ms: by the server's clock, in milliseconds of Unix time.
        field: of the control hash: ``"override"``, ``"emergency"``, ``"circuit:QUEUE"``, ``"config"``.
        action: what was done: ``"on"``, ``"off"``, ``"open"``, ``"close"``, ``"reset"``, ``"push"``, ``"rollback"``.
        by, reason: who did it, and why.
        until_ms: until when it holds; 0 where that says nothing.
        n: the number of the entry that was written.
        detail: what else there is to know, such as the part of the fleet that a configuration is for.
    """

    at_ms: int
    field: str
    action: str
    by: str
    reason: str
    until_ms: int = 0
    n: int = 0
    detail: str = ""

    def fields(self) -> dict[str, str | int]:
        """Return what is written; the stream itself keeps the time."""
        told = attrs.asdict(self, filter=lambda field, _: field.name != "at_ms")
        return {"v": VERSION, **told}

    @classmethod
    def of(cls, entry_id: object, fields: Mapping[Any, Any]) -> Self:
        """Return what an entry of the stream says, whoever wrote it: what cannot be read is empty or 0."""
        told = {text_of(name): readable(text_of(value), _LONGEST) for name, value in fields.items()}
        texts = {name: told.get(name, "") for name in ("field", "action", "by", "reason", "detail")}
        return cls(
            at_ms=_whole(text_of(entry_id).partition("-")[0]),
            until_ms=_whole(told.get("until_ms", "")),
            n=_whole(told.get("n", "")),
            **texts,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts and pages."""
        return attrs.asdict(self)


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else 0
