"""Providers made from a configuration, whose sections of queues say where each queue lies."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import attrs

from backpressure._model.arguments import shown, validate_queue_name
from backpressure._model.config.patterns import is_pattern, lineage, patterns_of
from backpressure._model.errors import ConfigurationError, StatsUnavailableError
from backpressure._model.hidden import hides_arguments
from backpressure.providers.arguments import seconds
from backpressure.providers.layouts import ListKey, StreamKey, ZSetKey, layout_named
from backpressure.providers.several import SeveralProviders

if TYPE_CHECKING:
    from backpressure._model.config.root import BackpressureConfig, QueueConfig
    from backpressure.providers.layouts import Layout, Steps
    from backpressure.providers.several import Member

__all__ = ["from_config"]

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
# A poll is at most two reads: of what is listed, then of other known queues.
_SHARE = 0.45
# Queues of patterns that are known beside those of the configuration; then all providers are made anew.
_MOST_MET = 10_000


@hides_arguments
def from_config(
    config: BackpressureConfig,
    url: str | None = None,
    *,
    layout: str | None = None,
    key: str | None = None,
    group: str | None = None,
    queues: Iterable[str] | None = None,
    timeout: float | None = None,
) -> SeveralProviders:
    """Return a provider that reads each queue where its section of `config` says.

    Args:
        config: its sections `queues`, of names and of patterns.
        url, layout, key, group: what holds where a section says nothing of it; see `backpressure.QueueConfig`.
        queues: what is polled from the start; default all names that `config` has sections of.
        timeout: seconds for each server, and for each connect and reply; default 45 % of ``polling.timeout``, because a
            poll may read twice.

    The scheme of a queue's ``url`` says what holds it, and so which provider reads it:

    * ``redis://`` and all that `backpressure.RedisStatsProvider` takes. ``layout`` is one of its names, or ``"list"``
      (the default), ``"zset"`` or ``"stream"`` (with ``group``); ``options`` are arguments of the layout.
    * ``amqp://``, ``amqps://``: `RabbitMQStatsProvider`.
    * ``postgresql://``: `PostgresStatsProvider`; ``layout`` is ``"procrastinate"`` or ``"pgqueuer"``, or
      ``options.query`` a SELECT.
    * ``kafka://host:port,host:port``: `KafkaStatsProvider`; ``key`` is the topic.
    * ``sqs://region``, or ``sqs:``: `SQSStatsProvider`; ``key`` is a name, URL or ARN.
    * ``http://``, ``https://``: `PrometheusStatsProvider`; ``options.query`` is the queue's PromQL.

    All other ``options`` of these are arguments of the provider. A text ``"$NAME"`` among them, or as the url, is the
    value of that environment variable. A queue that no section matches is refused, except for those in `queues`.

    Servers are read at the same time; where one is slow or away, only its queues have errors. No connection is opened
    yet. What each system needs installed is an extra of its own.

    Raises:
        ConfigurationError: a section says something impossible, or a queue has no url.
        ModuleNotFoundError: an extra is not installed.

    Example:
        >>> config = BackpressureConfig.from_mapping({"queues": {
        ...     "*": {"url": "redis://localhost:6379/0"},
        ...     "mail": {"layout": "rq"},
        ...     "events": {"layout": "stream", "group": "workers"},
        ...     "orders": {"url": "amqp://localhost/shop"}}})
        >>> from_config(config)
        SeveralProviders(RedisStatsProvider('redis://localhost:6379/0', 2 queues), \
RabbitMQStatsProvider('amqp://localhost:5672/shop', 1 queues))
    """
    defaults = _Place(url=url, layout=layout, key=key, group=group)
    names = [name for name in config.queues if not is_pattern(name)] if queues is None else queues
    limit = _SHARE * config.polling.timeout if timeout is None else seconds(timeout)
    return SeveralProviders(_Places(config, defaults, names, limit), timeout=limit)


@attrs.frozen
class _Place:
    """Where a queue lies, in the words of its section."""

    url: str | None = None
    layout: str | None = None
    key: str | None = None
    group: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)

    def of(self, queue_name: str, own: QueueConfig) -> Self:
        """Return it with what a section says laid over it, its variables and ``{queue}`` filled in."""
        path = f"queues.{json.dumps(queue_name, ensure_ascii=False)}"
        url = self.url if own.url is None else resolved(own.url, f"{path}.url")
        key, group = own.key or self.key, own.group or self.group
        return attrs.evolve(
            self,
            url=url,
            layout=own.layout or self.layout,
            key=None if key is None else key.replace("{queue}", queue_name),
            group=None if group is None else group.replace("{queue}", queue_name),
            options=resolved(dict(own.options or {}), f"{path}.options"),
        )

    def told(self) -> str:
        """Say in a word what is read there."""
        scheme = _SCHEME.match(self.url or "")
        system, _ = _SYSTEMS.get(scheme[1].lower() if scheme else "", ("", None))
        if not system:
            return self.layout or ("stream" if self.group is not None else "list")
        return system if self.layout is None else f"{system} {self.layout}"


def resolved(value: Any, path: str) -> Any:
    """Return a value with the contents of the environment variables that it names."""
    if isinstance(value, Mapping):
        return {name: resolved(inner, f"{path}.{name}") for name, inner in value.items()}
    found = _VARIABLE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return value
    variable = found[1] or found[2]
    content = os.environ.get(variable, "").strip()
    if not content:
        raise ConfigurationError(
            f"{path} is {shown(value)}: set the environment variable {variable}", field=path, value=value
        )
    return content


class _Places:
    """Makes one provider for each server, and knows which queue lies where. Thread-safe as dicts are."""

    def __init__(self, config: BackpressureConfig, defaults: _Place, names: Iterable[str], timeout: float) -> None:
        self._config = config
        self._defaults = defaults
        self._timeout = timeout
        self._patterns = patterns_of(config.queues)
        self.names = list(dict.fromkeys(map(validate_queue_name, names)))
        keys = {"key": defaults.key, **{f'queues."{name}".key': config.queues[name].key for name in self._patterns}}
        for path, key in keys.items():
            if key is not None and "{queue}" not in key:
                raise ConfigurationError(
                    f"{path} is {shown(key)}: it is for several queues, so put {{queue}} into it", field=path, value=key
                )
        self._members: dict[str, Any] = {}
        self._where: dict[str, str] = {}
        self._make()

    def _make(self) -> None:
        members: dict[str, Any] = {}
        where: dict[str, str] = {}
        for name in self.names:
            self._add(name, members, where)
        self._members, self._where = members, where

    def _add(self, name: str, members: dict[str, Any], where: dict[str, str]) -> None:
        made, server = _provider(name, self._place(name), self._timeout)
        if server in members:
            members[server].adopt(made)
        else:
            members[server] = made
        where[name] = server

    def _place(self, queue_name: str) -> _Place:
        return self._defaults.of(queue_name, self._config.of(queue_name))

    def member_of(self, queue_name: str) -> Member:
        """Return the provider that reads a queue, made when its first queue is met.

        Raises:
            StatsUnavailableError: no section matches it, or what that says is impossible.
        """
        if queue_name not in self._where:
            if (
                queue_name not in self.names
                and next(lineage(self._config.queues, self._patterns, queue_name), None) is None
            ):
                raise StatsUnavailableError(
                    f"queue {queue_name!r} has no section in the configuration: add one, or a pattern that matches",
                    error_type="missing",
                    queue_name=queue_name,
                )
            if len(self._where) > len(self.names) + _MOST_MET:
                for outdated in self.members():
                    outdated.close()
                self._make()
            try:
                self._add(queue_name, self._members, self._where)
            except (ConfigurationError, ModuleNotFoundError) as error:
                raise StatsUnavailableError(str(error), error_type="config", queue_name=queue_name) from None
        member: Member = self._members[self._where[queue_name]]
        return member

    def members(self) -> Sequence[Member]:
        """Return all providers that there are by now."""
        return list(self._members.values())

    def told_of(self, queue_name: str) -> str:
        """Say in a word what is read of a queue: ``"rq"``, ``"stream"``, ``"kafka"`` and so on."""
        return self._place(queue_name).told()

    def layout_of(self, queue_name: str) -> Layout | None:
        """Return how a queue lies in Redis; ``None`` if it lies elsewhere, or if no section matches it."""
        try:
            known: Callable[[str], Layout | None] = getattr(self.member_of(queue_name), "_layout_of", lambda _: None)
        except StatsUnavailableError:
            return None
        return known(queue_name)


def _provider(name: str, place: _Place, timeout: float) -> tuple[Any, str]:
    """Return a provider of one queue, and a text that is the same for queues that one provider may read."""
    path = f"queues.{json.dumps(name, ensure_ascii=False)}"
    if place.url is None:
        raise ConfigurationError(f"{path} has no url: say which server holds it", field=f"{path}.url")
    scheme = _SCHEME.match(place.url)
    _, make = _SYSTEMS.get(scheme[1].lower() if scheme else "", ("", _redis))
    options = dict(place.options)
    try:
        made = make(name, place, options, timeout)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}", field=f"{path}.{error.field}", value=error.value) from None
    except TypeError as error:  # an option that nobody takes
        raise ConfigurationError(f"{path}.options: {error}", field=f"{path}.options", value=place.options) from None
    # What is left of the options belongs to the provider.
    return made, json.dumps([make.__name__, place.url, options], sort_keys=True, default=repr)


def _redis(name: str, place: _Place, options: dict[str, Any], timeout: float) -> Any:
    from backpressure.providers.redis.provider import RedisStatsProvider  # noqa: PLC0415 - slow, and others need none

    layout = _layout(name, place, options)
    options.clear()
    return RedisStatsProvider(place.url or "", {name: layout}, timeout=timeout)


def _layout(name: str, place: _Place, options: Mapping[str, Any]) -> Layout:
    kind = place.layout or ("stream" if place.group is not None else "list")
    group = {} if place.group is None else {"group": place.group}
    plain = {"list": ListKey, "zset": ZSetKey, "stream": StreamKey}.get(kind)
    if plain is not None:
        _require_known(plain, {**group, **options}, kind)
        if kind == "stream" and not group:
            raise ConfigurationError("group is missing: give the consumer group of the stream", field="group")
        made: Layout = plain(place.key or name, **group, **options)
        return made
    layout = layout_named(kind)
    changes = {**group, **options}
    _require_known(type(layout), changes, kind)
    if changes:
        layout = attrs.evolve(layout, **changes)  # type: ignore[misc]  # it has fields, for these are some of them
    return layout if place.key in {None, name} else _Renamed(layout, place.key or name)


def _require_known(kind: type[Any], options: Mapping[str, Any], called: str) -> None:
    known = [field.name for field in attrs.fields(kind) if field.name != "key"] if attrs.has(kind) else []
    for option in options:
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ConfigurationError(f"layout {called!r} has no option {option!r}: {takes}", field=option)


@attrs.frozen
class _Renamed:
    """A layout's queue that the controller knows by another name."""

    layout: Layout
    name: str

    def read(self, queue_name: str, now: Any) -> Steps:
        """Read the queue under its own name."""
        stats = yield from self.layout.read(self.name, now)
        return attrs.evolve(stats, queue_name=queue_name)


def _no_layout(place: _Place, system: str, *, group: bool = False) -> None:
    if place.layout is not None:
        raise ConfigurationError(f"layout is {place.layout!r}: leave it out, {system} needs none", field="layout")
    if place.group is not None and not group:
        raise ConfigurationError(f"group is {place.group!r}: leave it out, {system} has none", field="group")


def _rabbitmq(name: str, place: _Place, options: dict[str, Any], timeout: float) -> Any:
    from backpressure.providers.rabbitmq.provider import RabbitMQStatsProvider  # noqa: PLC0415 - an extra

    _no_layout(place, "RabbitMQ")
    return RabbitMQStatsProvider(place.url or "", {name: place.key or name}, timeout=timeout, **options)


def _postgres(name: str, place: _Place, options: dict[str, Any], timeout: float) -> Any:
    from backpressure.providers.postgres.provider import (  # noqa: PLC0415 - an extra
        PGQUEUER,
        PROCRASTINATE,
        PostgresQuery,
        PostgresStatsProvider,
    )

    prefix = {"prefix": options["prefix"]} if "prefix" in options else {}
    more = {option: value for option, value in options.items() if option not in {"query", "prefix"}}
    presets = {"procrastinate": PROCRASTINATE, "pgqueuer": PGQUEUER}
    query: PostgresQuery
    if "query" in options:
        query = PostgresQuery(options["query"], **prefix)
    elif place.layout in presets:
        query = presets[place.layout].evolve(**prefix) if prefix else presets[place.layout]
    else:
        raise ConfigurationError(
            f"layout is {shown(place.layout)}: give procrastinate or pgqueuer, or a SELECT as options.query",
            field="layout",
            value=place.layout,
        )
    options["layout"] = place.layout
    return PostgresStatsProvider(place.url or "", {name: place.key or name}, query=query, timeout=timeout, **more)


def _kafka(name: str, place: _Place, options: dict[str, Any], timeout: float) -> Any:
    from backpressure.providers.kafka.provider import ConsumerLag, KafkaStatsProvider  # noqa: PLC0415 - an extra

    _no_layout(place, "Kafka", group=True)
    reset = {"auto_offset_reset": options.pop("auto_offset_reset")} if "auto_offset_reset" in options else {}
    lag = ConsumerLag(place.key or name, group=place.group, **reset)  # type: ignore[arg-type]  # it checks the group
    servers = (place.url or "").partition("://")[2].rstrip("/")
    return KafkaStatsProvider(servers, {name: lag}, timeout=timeout, **options)


def _sqs(name: str, place: _Place, options: dict[str, Any], timeout: float) -> Any:
    from backpressure.providers.sqs.provider import SQSStatsProvider  # noqa: PLC0415 - an extra

    _no_layout(place, "SQS")
    region = (place.url or "").partition(":")[2].strip("/")
    where = {"region_name": region} if region else {}
    return SQSStatsProvider({name: place.key or name}, timeout=timeout, **where, **options)


def _prometheus(name: str, place: _Place, options: dict[str, Any], timeout: float) -> Any:
    from backpressure.providers.prometheus.provider import PrometheusStatsProvider  # noqa: PLC0415 - needs urllib3

    _no_layout(place, "Prometheus")
    query = options.pop("query", None)
    if query is None:
        raise ConfigurationError("options.query is missing: give the PromQL of the queue's backlog", field="options")
    return PrometheusStatsProvider(place.url or "", queues={name: query}, timeout=timeout, **options)


# Scheme of a URL -> the system, and what makes its provider.
_SYSTEMS: Mapping[str, tuple[str, Callable[[str, _Place, dict[str, Any], float], Any]]] = {
    "amqp": ("rabbitmq", _rabbitmq),
    "amqps": ("rabbitmq", _rabbitmq),
    "postgres": ("postgres", _postgres),
    "postgresql": ("postgres", _postgres),
    "kafka": ("kafka", _kafka),
    "sqs": ("sqs", _sqs),
    "http": ("prometheus", _prometheus),
    "https": ("prometheus", _prometheus),
}
