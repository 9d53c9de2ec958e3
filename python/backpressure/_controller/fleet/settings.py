"""The settings that operators have pushed, as this process takes them: whole, or not at all."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from backpressure._fleet.entries import EntryError
from backpressure._fleet.pushed import Pushed, laid_over
from backpressure._model.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backpressure._model.config.root import BackpressureConfig

    Adopt = Callable[[Callable[[BackpressureConfig], BackpressureConfig]], object]

__all__ = ["Settings"]


class Settings:
    """Of one process; `take` is called by one thread at a time.

    Args:
        fleet: its name.
        key: what entries are signed with, where the fleet has one.
        adopt: has the controller decide by what the given function makes of its own configuration; raises
            `ConfigurationError`, and changes nothing, where that is not possible.
    """

    def __init__(self, fleet: str, key: bytes | None, adopt: Adopt) -> None:
        self._fleet = fleet
        self._key = key
        self._adopt = adopt
        self._settings: Mapping[str, Any] = {}
        self._tried = 0
        self._raw: object = None
        #: Number of the pushed configuration that is decided by; 0: the process's own.
        self.revision = 0
        #: Why the one that was pushed last is not taken; empty if it is.
        self.error = ""
        #: What is wrong with the entry itself; empty if it is understood.
        self.wrong = ""

    def take(self, raw: bytes | str | None, member_id: str) -> tuple[str, str, str] | None:
        """Take the field of the control hash; return the old and the new state and a sentence, if there is news.

        A field that is lost, or not understood, changes nothing.
        """
        if raw is None or raw == self._raw:
            return None
        self._raw = raw
        try:
            pushed = Pushed.decode(raw, self._fleet, self._key)
        except EntryError as error:
            self.wrong = str(error)
            return None
        self.wrong = ""
        n, settings = pushed.of(member_id)
        if n == self._tried:
            return None
        self._tried = n
        old, who = f"config {self.revision}", f"by {pushed.by}: {pushed.reason}"
        try:
            self._adopt(partial(laid_over, settings))
        except ConfigurationError as error:
            self.error = str(error)
            return old, "config refused", f"configuration {n} is not taken, {who}: {self.error}"
        self._settings, self.revision, self.error = settings, n, ""
        what = f"configuration {n} is taken" if settings else "the own configuration holds again"
        return old, f"config {n}", f"{what}, {who}"

    def forget_parent(self) -> None:
        """Begin again in a forked child: it is another member, and another share may be its."""
        self._raw = None

    def over(self, own: BackpressureConfig) -> BackpressureConfig:
        """Return another own configuration with the settings over it; without them, if they do not fit any more."""
        try:
            return laid_over(self._settings, own)
        except ConfigurationError as error:
            self._settings, self.revision, self.error = {}, 0, str(error)
            return own
