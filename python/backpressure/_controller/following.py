"""A controller that follows a file: what that holds is taken whole, or what was there is kept and told of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure._fleet.pushed import laid_over
from backpressure._model.errors import ConfigurationError, StatsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backpressure._controller.file_control import FileControl
    from backpressure._model.config.root import BackpressureConfig
    from backpressure._telemetry.events import Announcer

__all__ = ["Following"]


class Following:
    """Of one controller; `follow` is called by one thread at a time.

    Args:
        control: the file.
        announcer: is told of what cannot be taken.
        adopt: has the controller decide by what the given function makes of its own configuration; raises
            `ConfigurationError`, and changes nothing, where that is not possible.
    """

    def __init__(
        self,
        control: FileControl,
        announcer: Announcer,
        adopt: Callable[[Callable[[BackpressureConfig], BackpressureConfig]], object],
    ) -> None:
        self._control = control
        self._announcer = announcer
        self._adopt = adopt
        self._settings: Mapping[str, Any] = {}
        self._error = ""

    def follow(self, call: Callable[[Callable[[], object]], object]) -> None:
        """Read the file, and take what is new; `call` has a function end within the time of a poll."""
        found: list[Mapping[str, Any] | None] = []
        read = self._control.read  # a read that hangs is not to hold the controller
        try:
            call(lambda: found.append(read()))
            settings = found[0]
            if settings is None:
                return
            self._adopt(lambda own: laid_over(settings, own))
        except StatsUnavailableError:
            return  # it took too long: the next poll tries again
        except ConfigurationError as error:
            self._error = str(error)
            self._announcer.caution(f"{self._control!r} changes nothing: {error}")
        else:
            self._settings, self._error = settings, ""

    def over(self, own: BackpressureConfig) -> BackpressureConfig:
        """Return another own configuration with the settings over it; without them, if they do not fit any more."""
        try:
            return laid_over(self._settings, own)
        except ConfigurationError as error:
            self._settings, self._error = {}, str(error)
            return own

    def as_dict(self) -> dict[str, Any]:
        """Return what is known of it, for health."""
        return {"path": str(self._control.path), "taken": bool(self._settings), "error": self._error or None}
