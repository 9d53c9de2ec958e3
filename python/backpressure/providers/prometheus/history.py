"""What a Prometheus knows of queues over days: windows that its limits allow, gaps kept as gaps."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from backpressure.providers.prometheus.api import Link, PrometheusError, QueryError, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure.providers.prometheus.api import Range

__all__ = ["History", "Window"]

#: The server answers with 11 000 points of a series at most.
_MOST_POINTS = 10_000
_LEAST_POINTS = 10
# A metric and its labels, of which the server can be asked for samples in the place of an expression.
_SELECTOR = re.compile(r"\s*[a-zA-Z_:][a-zA-Z0-9_:]*\s*(\{[^{}]*\})?\s*")
# A server that is busy is asked again, so often.
_ATTEMPTS = 3


class Window:
    """What was found from one instant to another.

    Attributes:
        begin, end: Unix seconds.
        values: by queue, Unix seconds and values.
        warnings: what the server had to say.
    """

    def __init__(self, begin: float, end: float) -> None:
        self.begin = begin
        self.end = end
        self.values: dict[str, list[tuple[float, float]]] = {}
        self.warnings: list[str] = []


class History:
    """Asks one server, window by window. Where the server cannot answer for a window, halves of it are asked for.

    Args:
        url: of the server, as `PrometheusStatsProvider` takes it.
        step: seconds between two numbers.
        timeout: seconds for the connect, for each wait for bytes, and for one query.
        headers: sent along.
    """

    def __init__(self, url: str, *, step: float, timeout: float, headers: dict[str, str]) -> None:
        self._server = Server.parse(url, timeout, None)
        self._step = step
        self._headers = {**self._server.headers, **headers}
        # A sample is found for two steps: beyond that there is a gap. Servers before 2.44 do not know this parameter.
        self._lookback = lookback = f"{round(2_000 * step)}ms"
        limits = {"timeout": f"{round(1_000 * timeout)}ms", "lookback_delta": lookback, "max_lookback": lookback}
        self._link = Link(self._server, {**limits, "nocache": "1"})
        self._points = _MOST_POINTS

    @property
    def shown(self) -> str:
        """Where it is, without credentials."""
        return self._server.shown

    def windows(self, query: str, label: str, begin: float, end: float) -> Iterator[Window]:
        """Yield what an expression gave from one Unix second to another, for each value of a label.

        Raises:
            PrometheusError: the server does not answer, or two series are of the same queue.
        """
        if _SELECTOR.fullmatch(query):
            query = f"last_over_time({query.strip()}[{self._lookback}])"
        at = begin
        while at < end:
            window = Window(at, min(end, at + self._step * (self._points - 1)))
            try:
                found, window.warnings = self._ask(query, window)
            except QueryError as error:
                if self._points <= _LEAST_POINTS or not _is_too_much(error):
                    raise
                self._points //= 2
                continue
            window.values = _by_queue(found, label)
            yield window
            at = window.end + self._step

    def _ask(self, query: str, window: Window) -> tuple[list[Range], list[str]]:
        for attempt in range(_ATTEMPTS):
            try:
                return self._link.query_range(query, self._headers, window.begin, window.end, self._step)
            except PrometheusError as error:
                if isinstance(error, QueryError) or error.label not in {"busy", "timeout"} or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Free the connection."""
        self._link.close()


def _is_too_much(error: QueryError) -> bool:
    """Tell whether a shorter window may be answered: the answer was too long, or the server gave up."""
    text = str(error)
    return error.label in {"timeout", "protocol"} or any(part in text for part in ("too many", "exceed", "limit"))


def _by_queue(found: list[Range], label: str) -> dict[str, list[tuple[float, float]]]:
    queues: dict[str, list[tuple[float, float]]] = {}
    for it in found:
        name = it.labels.get(label, "")
        if not name:
            known = ", ".join(sorted(it.labels)) or "none"
            raise QueryError(
                f"a series has no label {label!r}: give --by one of its labels ({known})", "invalid_sample"
            )
        if name in queues:
            raise QueryError(
                f"two series are of queue {name!r}: aggregate them, as in sum by ({label}) (…)", "invalid_sample"
            )
        queues[name] = [(at, value) for at, value in it.values if 0 <= value < math.inf]
    return queues
