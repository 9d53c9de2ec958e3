"""The options that say which fleet a command operates and where it meets, and the operator made from them."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from backpressure._fleet.operator import Operator
from backpressure._model.errors import ConfigurationError
from backpressure.cli._config_options import load
from backpressure.cli._endings import Finding, Refusal
from backpressure.providers.configured import resolved

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backpressure._model.config.root import BackpressureConfig
    from backpressure.providers.redis.client import RedisTarget

__all__ = ["AsJson", "By", "FleetName", "FleetUrl", "Reason", "SignWith", "fleet_of", "operating", "telling", "when"]

FleetName = Annotated[
    str | None, typer.Option("--fleet", metavar="NAME", help="The fleet; default the one that the file names.")
]
FleetUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        metavar="URL",
        envvar="REDIS_URL",
        show_envvar=True,
        help="Server in which the fleet meets, where the file names none: redis://[user:password@]host[:port][/db], or "
        "any other URL that RedisStatsProvider takes. A password is better given by the variable than on a command "
        "line, which other users can see.",
    ),
]
SignWith = Annotated[
    str | None,
    typer.Option(
        "--sign-with",
        metavar="VARIABLE",
        help="Environment variable that holds the fleet's key, where the file names none.",
    ),
]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who is named as the author; default user@host.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why: it is shown to everybody.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

# Seconds for each connect and each reply.
_TIMEOUT = 5.0


def fleet_of(file: Path | None, name: str | None, url: str | None) -> tuple[BackpressureConfig, str, str]:
    """Return the configuration, the name of the fleet, and the URL of its server.

    Raises:
        Refusal: one of them is not given.
    """
    config = load(file, False, None)
    chosen = name or config.fleet.name
    if chosen is None:
        raise Refusal("there is no fleet: give --fleet, or --config with a section fleet that has a name")
    if config.fleet.url is not None:
        return config, chosen, resolved(config.fleet.url, "fleet.url")
    if url is not None:
        return config, chosen, url
    servers = {own.url for own in config.queues.values() if own.url is not None}
    if len(servers) == 1:
        return config, chosen, resolved(servers.pop(), "queues.url")
    raise Refusal("there is no server: give --redis-url, or set REDIS_URL, or write url = into the section fleet")


@contextlib.contextmanager
def operating(
    file: Path | None, name: str | None, url: str | None, sign_with: str | None, by: str | None = None
) -> Iterator[tuple[Operator, RedisTarget]]:
    """Give an operator of the fleet that is meant, and its server; connections end with the body.

    Raises:
        Refusal: it is not said which one or where, or the author cannot be shown.
        Finding: the server cannot be reached, or refuses.
    """
    from backpressure.providers.redis.client import disconnect, parse_target  # noqa: PLC0415 - imports redis-py

    try:
        config, chosen, where = fleet_of(file, name, url)
        target = parse_target(where, _TIMEOUT)
        key = None if config.fleet.key is None else resolved(config.fleet.key, "fleet.key")
        if key is None and sign_with is not None:
            key = os.environ.get(sign_with) or ""
    except ConfigurationError as error:
        raise Refusal(str(error)) from None
    with telling(chosen, target):
        client = target.connect()
        try:
            yield _operator(client, chosen, by, key), target
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
