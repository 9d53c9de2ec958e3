"""The options that say which queues a command looks at and where they lie, and the provider made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import click

from backpressure._model.arguments import validate_queue_name
from backpressure._model.config.patterns import is_pattern
from backpressure._model.errors import ConfigurationError, InvalidQueueError
from backpressure.cli._command import gathered
from backpressure.cli._endings import Refusal
from backpressure.providers.configured import from_config

if TYPE_CHECKING:
    from backpressure._model.config.root import BackpressureConfig
    from backpressure.providers.several import SeveralProviders

__all__ = ["SHARE", "QueueOptions", "queue_options"]

#: Of the time of a poll, for the slowest server: else those that answer would be lost with it.
SHARE = 0.9


@attrs.frozen
class QueueOptions:
    """What was said of queues."""

    queues: tuple[str, ...]
    redis_url: str | None
    layout: str | None
    key: str | None
    group: str | None

    def chosen(self, config: BackpressureConfig) -> list[str]:
        """Return the queues that were asked for, else all that the configuration names.

        Raises:
            Refusal: a name is impossible.
        """
        try:
            return list(dict.fromkeys(map(validate_queue_name, self.queues))) or [
                name for name in config.queues if not is_pattern(name)
            ]
        except InvalidQueueError as error:
            raise Refusal(f"--queue: {error}") from None

    def provider(
        self, config: BackpressureConfig, queue_names: list[str], timeout: float
    ) -> tuple[SeveralProviders, str]:
        """Return a provider of the queues, and the servers without credentials; `timeout` in seconds, for each server.

        Raises:
            Refusal: a section or an option is impossible, there is no server, or an extra is missing.
        """
        url = self.redis_url
        lying = {"layout": self.layout, "key": self.key, "group": self.group}
        try:
            provider = from_config(config, url, queues=queue_names, timeout=timeout, **lying)
        except (ConfigurationError, InvalidQueueError, ModuleNotFoundError) as error:
            nowhere = (
                url is None and str(getattr(error, "field", "")).endswith(".url") and getattr(error, "value", 0) is None
            )
            hint = ": give --redis-url, or set REDIS_URL, or write url = into its section" if nowhere else ""
            raise Refusal(f"{str(error).partition(':')[0] if nowhere else error}{hint}") from None
        servers = provider.servers()
        return provider, servers[0] if len(servers) == 1 else f"{len(servers)} servers"


#: Gives a command all of them, as its argument `place`.
queue_options = gathered(
    "place",
    QueueOptions,
    click.option(
        "--queue",
        "-q",
        "queues",
        metavar="NAME",
        multiple=True,
        help="A queue; default those that the file has sections of. Repeatable.",
    ),
    click.option(
        "--redis-url",
        metavar="URL",
        envvar="REDIS_URL",
        show_envvar=True,
        help="Server of queues whose section names none: redis://[user:password@]host[:port][/db], or any other URL "
        "that RedisStatsProvider takes. A password is better given by the variable than on a command line, which other "
        "users can see.",
    ),
    click.option(
        "--layout",
        metavar="NAME",
        help="How queues lie there whose section does not say it: rq, celery, arq, saq, list, zset, stream and so on.",
    ),
    click.option("--key", metavar="KEY", help="What such a queue is called there; {queue} stands for its name."),
    click.option("--group", metavar="NAME", help="Consumer group of streams whose section names none."),
)
