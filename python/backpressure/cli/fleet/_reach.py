"""The options that say which fleet a command operates and where it meets, and the operator made from them."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs
import click

from backpressure._fleet.operator import Operator
from backpressure._model.errors import ConfigurationError
from backpressure.cli._command import gathered
from backpressure.cli._config_options import ConfigOptions, config_file
from backpressure.cli._endings import Finding, Refusal
from backpressure.providers.configured import resolved

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backpressure._model.config.root import BackpressureConfig
    from backpressure.providers.redis.client import RedisTarget

__all__ = [
    "FleetOptions",
    "author",
    "fleet_name",
    "fleet_url",
    "operating",
    "operator_options",
    "reader_options",
    "reason",
    "sign_with",
    "telling",
    "when",
]

# Seconds for each connect and each reply.
_TIMEOUT = 5.0


@attrs.frozen
class FleetOptions:
    """What was said of a fleet, and of who operates it."""

    fleet: str | None
    redis_url: str | None
    file: Path | None
    sign_with: str | None = None
    by: str | None = None

    def load(self) -> BackpressureConfig:
        """Return the configuration that names the fleet."""
        return ConfigOptions(self.file).load()


def _found(reach: FleetOptions) -> tuple[BackpressureConfig, str, str]:
    """Return the configuration, the name of the fleet, and the URL of its server.

    Raises:
        Refusal: one of them is not given.
    """
    config = reach.load()
    chosen = reach.fleet or config.fleet.name
    if chosen is None:
        raise Refusal("there is no fleet: give --fleet, or --config with a section fleet that has a name")
    if config.fleet.url is not None:
        return config, chosen, resolved(config.fleet.url, "fleet.url")
    if reach.redis_url is not None:
        return config, chosen, reach.redis_url
    servers = {own.url for own in config.queues.values() if own.url is not None}
    if len(servers) == 1:
        return config, chosen, resolved(servers.pop(), "queues.url")
    raise Refusal("there is no server: give --redis-url, or set REDIS_URL, or write url = into the section fleet")


@contextlib.contextmanager
def operating(reach: FleetOptions) -> Iterator[tuple[Operator, RedisTarget]]:
    """Give an operator of the fleet that is meant, and its server; connections end with the body.

    Raises:
        Refusal: it is not said which one or where, or the author cannot be shown.
        Finding: the server cannot be reached, or refuses.
    """
    from backpressure.providers.redis.client import disconnect, parse_target  # noqa: PLC0415 - imports redis-py

    try:
        config, chosen, where = _found(reach)
        target = parse_target(where, _TIMEOUT)
        key = None if config.fleet.key is None else resolved(config.fleet.key, "fleet.key")
        if key is None and reach.sign_with is not None:
            key = os.environ.get(reach.sign_with) or ""
    except ConfigurationError as error:
        raise Refusal(str(error)) from None
    with telling(chosen, target):
        client = target.connect()
        try:
            yield _operator(client, chosen, reach.by, key), target
        finally:
            disconnect(client)


@contextlib.contextmanager
def telling(fleet: str, target: RedisTarget) -> Iterator[None]:
    """Turn what redis-py raises into a `Finding`, which holds no password."""
    # Both import redis-py.
    from redis.exceptions import RedisClusterException, RedisError  # noqa: PLC0415

    from backpressure.providers.redis.errors import unavailable  # noqa: PLC0415

    try:
        yield
    except BrokenPipeError:  # of our own output
        raise
    except (RedisError, RedisClusterException, OSError) as error:
        told = unavailable(error, what=f"fleet {fleet!r} at {target}", redact=target.redactor())
        raise Finding(str(told)) from None


def _operator(client: object, name: str, by: str | None, key: str | None) -> Operator:
    try:
        return Operator(client, name, by=by, key=key)  # type: ignore[arg-type]  # a target makes one of the two
    except ConfigurationError as error:
        raise Refusal(str(error)) from None


def when(at_ms: int) -> str:
    """Write an instant of the server's clock for people."""
    try:
        return f"{datetime.fromtimestamp(at_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{at_ms} ms"


fleet_name = click.option("--fleet", metavar="NAME", help="The fleet; default the one that the file names.")
fleet_url = click.option(
    "--redis-url",
    metavar="URL",
    envvar="REDIS_URL",
    show_envvar=True,
    help="Server in which the fleet meets, where the file names none: redis://[user:password@]host[:port][/db], or "
    "any other URL that RedisStatsProvider takes. A password is better given by the variable than on a command "
    "line, which other users can see.",
)
sign_with = click.option(
    "--sign-with",
    metavar="VARIABLE",
    help="Environment variable that holds the fleet's key, where the file names none.",
)
author = click.option("--by", metavar="NAME", help="Who is named as the author; default user@host.")
reason = click.option("--reason", metavar="TEXT", required=True, help="Why: it is shown to everybody.")

#: Give a command what says which fleet is meant, as its argument `reach`: to read, and to write in somebody's name.
reader_options = gathered("reach", FleetOptions, fleet_name, fleet_url, config_file, sign_with)
operator_options = gathered("reach", FleetOptions, author, fleet_name, fleet_url, config_file, sign_with)
