"""A page that shows queues, producers and operators' switches: an ASGI application, alone or inside of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._model.hidden import hides_arguments
from backpressure._runtime.extras import extra

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request

    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.stats import StatsProvider
    from backpressure.console.application import Console

__all__ = ["HOSTS", "app"]

#: Names by which a console is asked if nothing is said: those of the loopback interface.
HOSTS = ("localhost", "127.0.0.1", "[::1]")


@hides_arguments
def app(
    config: BackpressureConfig,
    provider: StatsProvider | None = None,
    *,
    queues: Sequence[str] | None = None,
    interval: float | None = None,
    hosts: Sequence[str] = HOSTS,
    identify: Callable[[Request], str | Awaitable[str | None] | None] | None = None,
    by: str | None = None,
    control: bool = False,
    token: str | None = None,
    viewers: int = 50,
) -> Console:
    """Return the console as an ASGI application, to be mounted under any prefix.

    It looks at the queues on a thread of its own, from the first request on or while its lifespan runs, once for all
    viewers: run it in one process. It keeps an hour of them in memory, and writes nothing but what operators ask it to.

    Args:
        config: the producers' configuration, whose thresholds and ages are shown.
        provider: reads the queues; default by the sections of `config`. It is not closed.
        queues: which, at most 2,000; default all that `config` has sections of.
        interval: seconds between two reads, from 0.1 to 60; default that of ``config.polling``.
        hosts: names by which browsers ask it, without a port. Others are refused, because a page elsewhere could give
            its own name this address.
        identify: is called with each request and returns the name of who sent it, which stands in the audit, or
            ``None`` for somebody who may look and not act; or an awaitable of that. Whom it raises ``PermissionError``
            for sees nothing.
        by: who is named as the author of switches where there is no `identify`; default user and host.
        control: whether switches of ``config.fleet`` may be turned from the page.
        token: what a request that writes must bring, at least 16 characters; default a new one, which is that of this
            process alone. With `identify` the page fetches it, else people type it.
        viewers: pages that may watch at the same time.

    Returns:
        An application with ``close()``, which looks no more and ends all streams; thread-safe.

    Raises:
        ConfigurationError: there is no queue, or too many, or a value is impossible.
        ModuleNotFoundError: the extra ``console`` is not installed.
    """
    with extra("console", "starlette", what="the console"):
        from backpressure.console.assembly import assemble  # noqa: PLC0415 - the extra may be missing

    return assemble(
        config,
        provider,
        queues=queues,
        interval=interval,
        hosts=hosts,
        identify=identify,
        by=by,
        control=control,
        token=token,
        viewers=viewers,
    )
