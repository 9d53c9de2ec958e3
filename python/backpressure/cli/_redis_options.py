"""The options that say where queues are, and the provider made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from backpressure._model.errors import ConfigurationError, InvalidQueueError
from backpressure.cli._endings import Refusal
from backpressure.providers.redis.client import parse_target
from backpressure.providers.redis.provider import RedisStatsProvider

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["KeyTemplate", "RedisUrl", "open_provider"]

RedisUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="REDIS_URL",
        help="redis://[user:password@]host[:port][/db], or any other URL that RedisStatsProvider takes. A password is "
        "better given by the variable than on a command line, which other users can see.",
    ),
]
KeyTemplate = Annotated[
    str, typer.Option("--key", metavar="KEY", help="Where a queue's list lies; {queue} stands for its name.")
]


def open_provider(url: str, queue_names: Sequence[str], key: str, timeout: float) -> tuple[RedisStatsProvider, str]:
    """Return a provider of the queues and its URL without credentials; `timeout` in seconds.

    Raises:
        Refusal: the URL, the key or a name is impossible.
    """
    try:
        return RedisStatsProvider(url, queue_names, key=key, timeout=timeout), str(parse_target(url, timeout))
    except (ConfigurationError, InvalidQueueError) as error:
        raise Refusal(str(error)) from None
