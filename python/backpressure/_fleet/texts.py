"""Texts that people write and other people's terminals and browsers show: bounded, on one line, without secrets."""

from __future__ import annotations

import unicodedata

from backpressure._model.arguments import masked, shown
from backpressure._model.errors import ConfigurationError

__all__ = ["MAX_AUTHOR", "MAX_REASON", "check_text", "is_plain_text", "readable", "text_of"]

MAX_AUTHOR = 128
MAX_REASON = 500
# They turn the direction of what follows, and so can make one text look like another.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSHOWN = frozenset({"Cc", "Cs", "Zl", "Zp"})


def is_plain_text(value: object, longest: int) -> bool:
    """Tell whether a value is a text of 1 to `longest` characters, all of which can be shown on one line."""
    return (
        isinstance(value, str)
        and 1 <= len(value) <= longest
        and not any(char in _TURNING or unicodedata.category(char) in _UNSHOWN for char in value)
    )


def check_text(value: object, name: str, longest: int) -> str:
    """Return `value` stripped, with ``***`` in the place of passwords in URLs.

    Raises:
        ConfigurationError: it is no text that can be shown on one line, or it is empty or too long.
    """
    text = masked(str(value).strip()) if isinstance(value, str) else None
    if not is_plain_text(text, longest):
        raise ConfigurationError(
            f"{name} is {shown(value)}: give 1 to {longest} characters on one line", field=name, value=value
        )
    assert text is not None  # noqa: S101 - it is plain
    return text


def text_of(raw: object) -> str:
    """Return what a client gives as bytes, or as text where it decodes replies."""
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)


def readable(text: str, longest: int) -> str:
    """Return a text of other people's as it may be shown: cut, and with ``?`` for what would not stay on its line."""
    return "".join(
        "?" if char in _TURNING or unicodedata.category(char) in _UNSHOWN else char for char in text[:longest]
    )
