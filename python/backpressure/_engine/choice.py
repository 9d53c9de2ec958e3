"""The one place where an engine is chosen."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any, Literal, cast

from backpressure._model.errors import ConfigurationError

if TYPE_CHECKING:
    from backpressure._engine.border import EngineModule

__all__ = ["ENGINE", "load"]

EngineName = Literal["native", "pure"]


def _has_native() -> bool:
    # Asked for without importing, so that a broken extension raises when loaded instead of looking absent.
    return importlib.util.find_spec("backpressure._native") is not None


def _choose() -> EngineName:
    wanted = os.environ.get("BACKPRESSURE_ENGINE", "auto")
    if wanted == "auto":
        return "native" if _has_native() else "pure"
    if wanted in ("native", "pure"):
        return cast("EngineName", wanted)
    raise ConfigurationError(
        f"BACKPRESSURE_ENGINE is {wanted!r}: set it to auto, native or pure", field="BACKPRESSURE_ENGINE", value=wanted
    )


def load(name: str | None = None) -> EngineModule:
    """Import the engine `name`, or the one chosen for this process.

    Raises:
        ImportError: the native extension is absent, broken, or not for this interpreter, which is not the process's
            main one; the pure engine is never taken in its stead.
    """
    name = name or ENGINE
    module: Any
    try:
        # Written as imports, so that programs that freeze an application see both.
        if name == "native":
            import backpressure._native as module  # noqa: PLC0415 - one of the two is enough
        else:
            import backpressure._engine.pure as module  # noqa: PLC0415 - likewise
    except ImportError as error:
        if name == "pure":
            raise
        raise ImportError(
            f"{error}: set BACKPRESSURE_ENGINE=pure before backpressure is imported, to do without the native engine",
            name=error.name,
            path=error.path,
        ) from error
    return cast("EngineModule", module)


#: The engine of this process: ``"native"`` or ``"pure"``, chosen by BACKPRESSURE_ENGINE when first imported.
ENGINE: EngineName = _choose()
load()
