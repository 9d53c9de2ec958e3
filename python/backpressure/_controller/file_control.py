"""`FileControl`: settings in a file, such as a mounted ConfigMap, that a running controller follows."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backpressure._model.arguments import shown
from backpressure._model.errors import ConfigurationError
from backpressure._model.half_built import repr_when_half_built

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FileControl"]

_MAX_BYTES = 1 << 20


@repr_when_half_built
class FileControl:
    """A TOML or JSON file of settings that a controller lays over its own, whenever the file says something else.

    Each poll reads it, and compares what it holds: not its time, which a mounted ConfigMap does not keep. What holds is
    taken whole, or what was there is kept and the log says why. A file that is away changes nothing. It may hold what
    `backpressure config push` takes: no switch, so that no file turns an operator's off, and nothing that only a new
    controller can change. What the operators of a fleet have pushed lies over it.

    Args:
        path: of the file, which need not be there yet; its suffix is ``.toml`` or ``.json``.

    Not for several controllers: each reads on its poller's thread, and needs one of its own.

    Raises:
        ConfigurationError: the path is no path, or has another suffix.

    Example:
        >>> FileControl("/etc/backpressure/control.toml")
        FileControl('/etc/backpressure/control.toml')
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given: object = path
        if not isinstance(given, str | os.PathLike) or Path(path).suffix.lower() not in {".toml", ".json"}:
            raise ConfigurationError(
                f"path is {shown(path)}: give the path of a .toml or .json file", field="path", value=path
            )
        self.path = Path(path)
        self._digest = b""

    def read(self) -> Mapping[str, Any] | None:
        """Return the settings of the file; ``None`` if it holds what it did when this was last called.

        Raises:
            ConfigurationError: it cannot be read, or holds none. Told once for each content.
        """
        from backpressure._model.config.loading import read_tables  # noqa: PLC0415 - cattrs is slow to load

        try:
            with self.path.open("rb") as stream:
                digest = hashlib.sha256(stream.read(_MAX_BYTES + 1)).digest()
        except OSError as error:
            digest = type(error).__name__.encode()
            if digest == self._digest:
                return None
            self._digest = digest
            reason = error.strerror or type(error).__name__
            raise ConfigurationError(f"control file {str(self.path)!r} cannot be read: {reason}") from None
        if digest == self._digest:
            return None
        self._digest = digest
        tables, faults = read_tables(self.path)
        if faults:
            raise faults[0]
        return tables

    def __repr__(self) -> str:
        return f"FileControl({str(self.path)!r})"
