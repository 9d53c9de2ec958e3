"""How a failed read is reported, for every kind of server: an `error_type` label, and a message without a secret."""

from __future__ import annotations

import re
import socket
import ssl
from typing import TYPE_CHECKING

from backpressure._model.errors import StatsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["ADVICE", "NOTHING_SECRET", "Redactor", "causes", "network_label", "unavailable"]

_MAX_TEXT = 200
_SHORT_SECRET = 4

#: What to do about each label, for every kind of server.
ADVICE = {
    "auth": "check the user name and password",
    "connect": "check that the server runs and that host and port are right",
    "deadline": "the read was ended because it took too long: check the server and the network",
    "dns": "check the host name",
}

# Most specific first. TimeoutError, gaierror and SSLError are OSErrors too.
_CLASSES: tuple[tuple[type[BaseException], str], ...] = (
    (TimeoutError, "timeout"),
    (ssl.SSLError, "protocol"),
    (socket.gaierror, "dns"),
    (OSError, "connect"),
)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, its cause, the cause of that, and so on; each once."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def network_label(error: BaseException) -> str | None:
    """Return the label of the first network error among `error` and its causes."""
    labels = (label for link in causes(error) for kind, label in _CLASSES if isinstance(link, kind))
    return next(labels, None)


class Redactor:
    """Takes credentials out of texts; its own repr shows none."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in (secret, repr(secret)[1:-1]) if form}
        # Longest first: a secret that contains another one then goes as a whole. A short secret goes only where it is a
        # word of its own: a user called "u" must not garble every word with a u in it.
        patterns = [
            re.escape(form) if len(form) >= _SHORT_SECRET else rf"(?<!\w){re.escape(form)}(?!\w)"
            for form in sorted(forms, key=len, reverse=True)
        ]
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def __call__(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub("***", text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


NOTHING_SECRET = Redactor()


def _shown(text: str, redact: Redactor) -> str:
    # A terminal that shows a log would obey the control characters in it.
    text = "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(redact(text).split())
    )
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def unavailable(
    error: BaseException,
    *,
    what: str,
    label: str,
    redact: Redactor,
    advice: Mapping[str, str] = ADVICE,
    text: str | None = None,
    queue_name: str | None = None,
) -> StatsUnavailableError:
    """Return the error to raise for a failed read of `what`; `text` replaces the text of `error`.

    It has no cause and no context, because clients quote servers, and servers may quote credentials. So raise it
    outside of an ``except`` block.
    """
    if isinstance(error, StatsUnavailableError):  # a connection's failure is that of each of its queues
        return StatsUnavailableError(str(error), error_type=error.error_type, queue_name=queue_name)
    message = f"cannot read {what}: {type(error).__name__}"
    if shown := _shown(str(error) if text is None else text, redact):
        message += f": {shown}"
    if label in advice:
        message += f"; {advice[label]}"
    return StatsUnavailableError(message, error_type=label, queue_name=queue_name)
