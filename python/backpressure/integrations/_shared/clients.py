"""Exception classes of client libraries, of those that are installed."""

from __future__ import annotations

import importlib
import pickle
import warnings

__all__ = ["SERIALISATION", "installed"]

#: What Python itself raises of a message that cannot be written down: it never came near the queue.
SERIALISATION: tuple[type[BaseException], ...] = (TypeError, UnicodeError, pickle.PicklingError)


def installed(*names: str) -> tuple[type[BaseException], ...]:
    """Return the exception classes named ``"module:Class"``, without those that this environment has not."""
    found: list[type[BaseException]] = []
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of the library's own making
                kind = getattr(importlib.import_module(module), attribute, None)
        except ImportError:
            continue
        if isinstance(kind, type) and issubclass(kind, BaseException):
            found.append(kind)
    return tuple(found)
