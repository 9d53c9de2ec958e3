"""Checks of what calls are given: priorities, names of queues, seconds."""

from __future__ import annotations

import re
import reprlib
import sys
import unicodedata
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from typing import Any, TypeAlias

from backpressure._model.errors import ConfigurationError, InvalidPriorityError, InvalidQueueError
from backpressure._model.units import Stated, doubt
from backpressure._model.vocabulary import OTHER_QUEUES, Priority

__all__ = [
    "MAX_NAME_BYTES",
    "WITHHELD",
    "MaxWait",
    "check_jobs",
    "check_max_wait",
    "check_patient",
    "check_seconds",
    "holds_credentials",
    "longest_wait",
    "masked",
    "parse_priority",
    "shown",
    "validate_queue_name",
]

#: Jobs that one slot may enqueue.
MAX_JOBS = 10_000
#: The longest name of a queue; no more characters than that need be looked at.
MAX_NAME_BYTES = 255
_MAX_SHOWN = 500
_MAX_QUOTED = 64  # of a text that is longer than `_MAX_SHOWN`
_MAX_ITEMS = 100
#: What messages show instead of a URL with credentials.
WITHHELD = "a URL with user name or password (withheld)"
_MAX_URL = 2_000
# User and password, also where a slash in the password was not escaped; and what is given among a URL's parameters.
_CREDENTIALS = re.compile(r"(?<=://)(?:[^/\s]*|[^/\s]*:(?!\d+/)\S*)@")
_PARAMETERS = re.compile(r"(?i)(?<=[?&])([\w-]*(?:password|passwd|pwd|secret|token)=)[^&#\s]+")
_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = _SHORT.maxfrozenset = _MAX_ITEMS
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _MAX_SHOWN
_PRIORITIES = {str(priority): priority for priority in Priority}
_LONGEST_PRIORITY = max(map(len, _PRIORITIES))

# The longest `max_wait` in bare seconds that is believed of a job that asks once: no default delay is longer than 8 s.
_LONGEST_WAIT = 60.0
# From here on it means "as long as it takes".
_NO_LIMIT = 1e9

_Wait: TypeAlias = float | timedelta | None
#: The longest sleep accepted, in seconds or as a timedelta; or a mapping of these by priority. ``None``, or a priority
#: that is left out, accepts any.
MaxWait: TypeAlias = _Wait | Mapping[Priority, _Wait] | Mapping[str, _Wait]


def holds_credentials(text: str) -> bool:
    """Tell whether there is a URL with a user name or password in a text."""
    return any(pattern.search(text) is not None for pattern in (_CREDENTIALS, _PARAMETERS))


def masked(text: str) -> str:
    """Return a text with ``***`` in the place of user names and passwords of the URLs in it."""
    return _PARAMETERS.sub(r"\1***", _CREDENTIALS.sub("***@", text))


def _shown_text(kind: type[Any], value: Any) -> str:
    """Return a text, or bytes, as messages show it, whatever methods its class has of its own."""
    length, start = kind.__len__(value), kind.__getitem__(value, slice(_MAX_URL))
    if holds_credentials(start if kind is str else start.decode("latin-1")):
        return WITHHELD
    if length > _MAX_SHOWN:
        return f"{start[:_MAX_QUOTED]!r}… ({length:,} {'characters' if kind is str else 'bytes'})"
    return repr(start)


def shown(value: object) -> str:
    """Return `value` as messages show it: short, though it be long or deep, and without a URL's user and password."""
    for kind in (str, bytes, bytearray):
        if isinstance(value, kind) and not isinstance(value, Enum):
            return _shown_text(kind, value)
    try:
        text = _SHORT.repr(value) if isinstance(value, list | tuple | dict | set | frozenset) else repr(value)
    except (ValueError, RecursionError):
        return f"<{type(value).__name__} too large to show>"
    except Exception:  # noqa: BLE001 - it is a class of the caller's, whose repr may raise anything
        return f"<{type(value).__name__} that cannot be shown>"
    if holds_credentials(text[:_MAX_URL]):
        return WITHHELD
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def parse_priority(value: object) -> Priority:
    """Return the member for a `Priority` or its lower-case name.

    Raises:
        InvalidPriorityError: anything else, plain integers and bools included.
    """
    if type(value) is Priority:
        return value
    # The length first: a text is hashed as a whole.
    if isinstance(value, str) and str.__len__(value) <= _LONGEST_PRIORITY and str.__str__(value) in _PRIORITIES:
        return _PRIORITIES[str.__str__(value)]
    meant = f'did you mean "{near}"? ' if isinstance(value, str) and (near := _near_priority(value)) else ""
    msg = f'invalid priority {shown(value)}: {meant}give a Priority or one of "low", "medium", "high"'
    raise InvalidPriorityError(msg)


def _near_priority(text: str) -> str | None:
    """Return the name of the priority that a text was probably meant for, such as ``"HIGH"``."""
    if str.__len__(text) > _MAX_QUOTED:
        return None
    import difflib  # noqa: PLC0415 - rarely needed

    plain = str.__str__(text)  # a subclass may have methods of its own
    return next(iter(difflib.get_close_matches(plain.strip().lower(), _PRIORITIES, 1)), None)


def validate_queue_name(name: object) -> str:
    """Return `name` if it may name a queue.

    Control characters and surrogates are refused: they would break log lines and a whole metrics page.

    Raises:
        InvalidQueueError: not a ``str``, empty, over 255 UTF-8 bytes, a character of category Cc or Cs, or
            the reserved ``__other__``.
    """
    if not isinstance(name, str):
        msg = f"invalid queue name {shown(name)}: give a str, not {type(name).__name__}"
        raise InvalidQueueError(msg)
    # The length first: to copy a long text, and to look at each character, takes long.
    if str.__len__(name) > MAX_NAME_BYTES:
        msg = f"invalid queue name {shown(name)}: give 1 to {MAX_NAME_BYTES} UTF-8 bytes"
        raise InvalidQueueError(msg)
    # A str subclass could compare or hash as it likes; engines only ever see exact strings.
    name = str.__str__(name)
    if name and name.isascii() and name.isprintable() and name != OTHER_QUEUES:
        return name  # nearly all names end here
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in name):
        msg = f"invalid queue name {shown(name)}: remove control characters and surrogates"
    elif not 1 <= len(name.encode()) <= MAX_NAME_BYTES:
        msg = f"invalid queue name {shown(name)}: give 1 to {MAX_NAME_BYTES} UTF-8 bytes"
    elif name == OTHER_QUEUES:
        msg = f"invalid queue name {name!r}: it is reserved for queues beyond max_queues"
    else:
        return name
    raise InvalidQueueError(msg)


def check_seconds(value: object, name: str = "max_wait") -> float:
    """Return `value` if it is a number of seconds from 0, or raise `ConfigurationError` about `name`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise ConfigurationError(f"{name} is {shown(value)}: give seconds from 0", field=name, value=value)
    return value


def _check_wait(value: object, name: str, *, patient: bool) -> float:
    """Return `value` in seconds; a bare number that nobody can mean is questioned, unless the job is `patient`."""
    seconds = check_seconds(Stated(value.total_seconds()) if isinstance(value, timedelta) else value, name)
    instead = f"write {{}}, or for so long a wait timedelta(seconds={value}) or patient=True"
    if not patient and seconds < _NO_LIMIT and (asked := doubt(seconds, _LONGEST_WAIT, instead)):
        raise ConfigurationError(f"{name} is {shown(value)}: {asked}", field=name, value=value)
    return seconds


def check_max_wait(value: object, *, patient: bool = False) -> float | dict[Priority, float | None] | None:
    """Return `value` if it can be a ``max_wait``, its priorities parsed, or raise `ConfigurationError`.

    A `patient` job may wait for long; of others, a bare number of minutes was hardly meant as seconds.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return _check_wait(value, "max_wait", patient=patient)
    limits: dict[Priority, float | None] = {}
    for given, limit in value.items():
        try:
            priority = parse_priority(given)
        except InvalidPriorityError as error:
            raise ConfigurationError(f"max_wait has an {error}", field="max_wait", value=value) from None
        name = f"max_wait[{str(priority)!r}]"
        limits[priority] = None if limit is None else _check_wait(limit, name, patient=patient)
    return limits


def check_patient(value: object) -> bool:
    """Return `value` if it is a bool, or raise `ConfigurationError`."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"patient is {shown(value)}: give True or False", field="patient", value=value)
    return value


def check_jobs(value: object) -> int:
    """Return `value` if so many jobs may go at once, or raise `ConfigurationError`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_JOBS:
        raise ConfigurationError(f"jobs is {shown(value)}: give 1 to {MAX_JOBS:,}", field="jobs", value=value)
    return value


def longest_wait(max_wait: object, priority: Priority, *, patient: bool = False) -> float | None:
    """Return the longest sleep that a job of `priority` accepts, in seconds; ``None`` for any."""
    limits = check_max_wait(max_wait, patient=patient)
    return limits.get(priority) if isinstance(limits, dict) else limits
