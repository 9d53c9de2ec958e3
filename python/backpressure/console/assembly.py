"""How a console is put together from what its user gives."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from backpressure._model.arguments import check_seconds, shown, validate_queue_name
from backpressure._model.config.patterns import is_pattern
from backpressure._model.errors import ConfigurationError
from backpressure._watch.budgets import stored_budgets, stores_of
from backpressure._watch.meeting import Meeting
from backpressure._watch.watch import Watch, config_for
from backpressure.console.application import Console
from backpressure.console.board import Board
from backpressure.console.fleet import Fleet
from backpressure.console.history import History
from backpressure.console.looks import Looks, Place
from backpressure.console.sampler import Sampler
from backpressure.providers.configured import from_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backpressure._model.config.root import BackpressureConfig
    from backpressure.providers.several import SeveralProviders

__all__ = ["MOST_QUEUES", "assemble"]

MOST_QUEUES = 2_000
# Of the time of a poll, for the slowest server: else those that answer would be lost with it.
_SHARE = 0.9
# Seconds that a point of the history stands for, if reads are not further apart.
_STEP = 10.0
# Seconds between two looks at what was read, which cost no round trip; and between two reads of the fleet.
_LOOK = 1.0
_LEAST_TOKEN = 16
_MOST_VIEWERS = 1_000


def assemble(
    config: BackpressureConfig,
    provider: Any,
    *,
    queues: Sequence[str] | None,
    interval: float | None,
    hosts: Sequence[str],
    identify: Any,
    by: str | None,
    control: bool,
    token: str | None,
    viewers: int,
) -> Console:
    """See `backpressure.console.app`."""
    names = _names(config, queues)
    every = check_seconds(config.polling.interval if interval is None else interval, "interval")
    if interval is not None and not 0.1 <= every <= 60:
        raise _fault("interval", interval, "give seconds from 0.1 to 60")
    if token is not None and (not token.isascii() or not token.isprintable() or len(token) < _LEAST_TOKEN):
        raise ConfigurationError(
            f"token is impossible: give at least {_LEAST_TOKEN} printable ASCII characters", field="token"
        )
    if type(viewers) is not int or not 1 <= viewers <= _MOST_VIEWERS:
        raise _fault("viewers", viewers, f"give a whole number from 1 to {_MOST_VIEWERS:,}")
    if isinstance(hosts, str) or not hosts:
        raise _fault("hosts", hosts, "give a list of names")
    watched = config_for(config, every, len(names))

    @contextlib.contextmanager
    def provided() -> Iterator[Any]:
        """Give the provider, or one of the configuration's that ends with the body."""
        if provider is not None:
            yield provider
            return
        with contextlib.closing(from_config(config, queues=names, timeout=_SHARE * watched.polling.timeout)) as own:
            yield own

    @contextlib.contextmanager
    def opened() -> Iterator[Watch]:
        with (
            provided() as reader,
            stores_of(reader, config) as stores,
            Watch(watched, reader, server, names, lambda: stored_budgets(stores, config, names)) as watch,
        ):
            yield watch

    with provided() as reader, stores_of(reader, config):  # what is faulty is told here, not by a thread
        places, server = _places(reader, names)
        meeting = None if config.fleet.name is None else Meeting(config, reader, names, by)
    fleet = None if meeting is None else Fleet(meeting.name, meeting.operator, meeting.trouble)
    if control and fleet is None:
        raise _fault("control", control, "switches are those of a fleet: give the configuration a section fleet")
    looks = Looks(config, names, places, History(len(names), max(_STEP, every)))
    board = Board()

    def show(watch: Watch, now: float) -> None:
        told, producers = (None, {}) if fleet is None else (fleet.told(), fleet.queues())
        board.publish(*looks.take(watch.look(), now, told, producers))

    sampler = Sampler(opened, show, board, min(every, _LOOK), None if fleet is None else fleet.read)
    return Console(
        looks=looks,
        board=board,
        sampler=sampler,
        fleet=fleet,
        closed=() if meeting is None else (meeting.close,),
        hosts=hosts,
        identify=identify,
        control=control,
        token=token,
        viewers=viewers,
    )


def _names(config: BackpressureConfig, queues: Sequence[str] | None) -> list[str]:
    if isinstance(queues, str):
        raise _fault("queues", queues, "give a list of names")
    given = [name for name in config.queues if not is_pattern(name)] if queues is None else queues
    names = list(dict.fromkeys(map(validate_queue_name, given)))
    if not names:
        raise _fault("queues", queues, "there is none to show: name some, or give the configuration sections of queues")
    if len(names) > MOST_QUEUES:
        raise _fault("queues", len(names), f"at most {MOST_QUEUES:,} are shown: name those that matter")
    return names


def _places(reader: Any, names: Sequence[str]) -> tuple[list[Place], str]:
    """Return where queues are read, and all servers in short."""
    if not hasattr(reader, "told_of"):
        return [Place() for _ in names], type(reader).__name__
    several: SeveralProviders = reader
    servers = several.servers()
    where = [Place(several.told_of(name), several.server_of(name)) for name in names]
    return where, servers[0] if len(servers) == 1 else f"{len(servers)} servers"


def _fault(field: str, value: object, rule: str) -> ConfigurationError:
    return ConfigurationError(f"{field} is {shown(value)}: {rule}", field=field, value=value)
