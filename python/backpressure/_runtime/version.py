"""Which release of this package is installed. Slow to load, and seldom asked for."""

from __future__ import annotations

import importlib.metadata

__all__ = ["version"]


def version() -> str:
    """Return its number, as its metadata tell it."""
    return importlib.metadata.version("producer-backpressure")
