"""Exception classes of the client libraries that are installed."""

from __future__ import annotations

import importlib
import pickle
import warnings

__all__ = ["SERIALISATION", "installed"]

#: What Python itself raises for a message that cannot be serialised: it never reached the queue.
SERIALISATION: tuple[type[BaseException], ...] = (TypeError, UnicodeError, pickle.PicklingError)


def installed(*names: str) -> tuple[type[BaseException], ...]:
    """Return the exception classes named ``"module:Class"``, without those that are not installed."""
    found: list[type[BaseException]] = []
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the library's own
                kind = getattr(importlib.import_module(module), attribute, None)
        except ImportError:
            continue
        if isinstance(kind, type) and issubclass(kind, BaseException):
            found.append(kind)
    return tuple(found)
