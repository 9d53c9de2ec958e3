"""When objects go: with their last reference where these are counted, else when garbage was collected."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import weakref

COUNTS_REFERENCES = sys.implementation.name == "cpython"


def is_gone(reference: weakref.ref[Any]) -> bool:
    """Tell whether an object has gone; `CPython` gets no collection for that, so that nothing can hide in a cycle."""
    if not COUNTS_REFERENCES:
        gc.collect()
    return reference() is None
