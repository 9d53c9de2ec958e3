"""Names of queues as a page shows them: without credentials, and with all that is in them."""

from __future__ import annotations

import unicodedata

from backpressure._model.arguments import masked

__all__ = ["visible"]

# Categories of characters that a page would not show, or that turn the order of others round.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(name: str) -> str:
    """Return `name` with what is not seen written out, as in Python's source."""
    return "".join(f"\\u{ord(char):04x}" if unicodedata.category(char) in _UNSEEN else char for char in masked(name))
