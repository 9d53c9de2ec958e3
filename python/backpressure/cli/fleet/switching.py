"""`backpressure override`, `emergency` and `circuit`: one switch for all processes of a fleet."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backpressure._fleet.operator import DEFAULT_SECONDS
from backpressure._model.config.fields import seconds_of
from backpressure._model.errors import ConfigurationError, InvalidQueueError
from backpressure.cli._config_options import ConfigFile  # noqa: TC001 - typer looks it up
from backpressure.cli._endings import Refusal, ending
from backpressure.cli._masking import print_json
from backpressure.cli.fleet._reach import AsJson, By, FleetName, FleetUrl, Reason, SignWith, operating, when

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backpressure._fleet.entries import Switch
    from backpressure._fleet.operator import Operator

__all__ = ["CIRCUIT_EXAMPLES", "EMERGENCY_EXAMPLES", "OVERRIDE_EXAMPLES", "circuit", "emergency", "override"]

OVERRIDE_EXAMPLES = """\
backpressure override on --fleet shop --redis-url redis://localhost:6379/0 --for 10m --reason 'sale'
backpressure override on --config backpressure.toml --reason 'sale, ticket 4711'
backpressure override off --config backpressure.toml --reason 'sale is over'
"""
EMERGENCY_EXAMPLES = """\
backpressure emergency on --fleet shop --redis-url redis://localhost:6379/0 --for 1h --reason 'workers redeployed'
backpressure emergency on --config backpressure.toml --reason 'drill' --by on-call
backpressure emergency off --config backpressure.toml --reason 'drill is over'
"""
CIRCUIT_EXAMPLES = """\
backpressure circuit email-queue open --fleet shop --redis-url redis://localhost:6379/0 --for 30m --reason 'no SMTP'
backpressure circuit email-queue close --config backpressure.toml --reason 'SMTP is up'
backpressure circuit email-queue reset --config backpressure.toml --reason 'forget the outage'
"""


class OnOff(StrEnum):
    ON = "on"
    OFF = "off"


class CircuitAction(StrEnum):
    OPEN = "open"
    CLOSE = "close"
    RESET = "reset"


State = Annotated[OnOff, typer.Argument(metavar="on|off", help="Turn it on or off.", show_default=False)]
For = Annotated[
    str | None,
    typer.Option("--for", metavar="DURATION", help="How long it holds: 30s, 10m, 1h30m; 10m by default, 24h at most."),
]


def override(
    state: State,
    *,
    reason: Reason,
    for_: For = None,
    by: By = None,
    fleet: FleetName = None,
    redis_url: FleetUrl = None,
    file: ConfigFile = None,
    sign_with: SignWith = None,
    as_json: AsJson = False,
) -> None:
    """Let everything pass, in a whole fleet.

    Each process does so from its next poll on until the time is up, except for circuits that are forced open. What
    processes have switched on by themselves stays. Exits with 0 when it is written, 1 when the server cannot be reached
    or refuses, 2 for wrong usage.
    """
    with ending("override"):
        _turn("override", state, reason, for_, by, fleet, redis_url, file, sign_with, as_json=as_json)


def emergency(
    state: State,
    *,
    reason: Reason,
    for_: For = None,
    by: By = None,
    fleet: FleetName = None,
    redis_url: FleetUrl = None,
    file: ConfigFile = None,
    sign_with: SignWith = None,
    as_json: AsJson = False,
) -> None:
    """Turn emergency mode on or off, in a whole fleet.

    As the override, under a reason and a metric of its own. Exit codes are the same.
    """
    with ending("emergency"):
        _turn("emergency", state, reason, for_, by, fleet, redis_url, file, sign_with, as_json=as_json)


def circuit(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.", show_default=False)],
    action: Annotated[
        CircuitAction, typer.Argument(metavar="open|close|reset", help="What to do.", show_default=False)
    ],
    *,
    reason: Reason,
    for_: For = None,
    by: By = None,
    fleet: FleetName = None,
    redis_url: FleetUrl = None,
    file: ConfigFile = None,
    sign_with: SignWith = None,
    as_json: AsJson = False,
) -> None:
    """Force a queue's circuit open, or close it, in a whole fleet.

    open refuses all jobs of the queue until the time is up. close and reset are done once by each process that polls
    within that time, and end what open began; reset forgets the failures too. Exits with 0 when it is written, 1 when
    the server cannot be reached or refuses, 2 for wrong usage.
    """
    with ending("circuit"):
        seconds = _seconds(for_)

        def write(operator: Operator) -> Switch:
            name: Literal["open", "close", "reset"] = action.value
            return operator.circuit(queue, name, reason=reason, for_=seconds)

        _write(write, f"circuit of queue {queue!r}", fleet, redis_url, file, sign_with, by, as_json=as_json)


def _turn(
    kind: Literal["override", "emergency"],
    state: OnOff,
    reason: str,
    for_: str | None,
    by: str | None,
    fleet: str | None,
    redis_url: str | None,
    file: Path | None,
    sign_with: str | None,
    *,
    as_json: bool,
) -> None:
    seconds = _seconds(for_)

    def write(operator: Operator) -> Switch | None:
        turn = operator.override if kind == "override" else operator.emergency
        return turn(state is OnOff.ON, reason=reason, for_=seconds)

    _write(write, kind, fleet, redis_url, file, sign_with, by, as_json=as_json)


def _seconds(text: str | None) -> float:
    if text is None:
        return DEFAULT_SECONDS
    seconds = seconds_of(text)
    if seconds is None:
        raise Refusal(f"--for is {text!r}: give a duration such as 30s, 10m or 1h30m")
    return seconds


def _write(
    write: Callable[[Operator], Switch | None],
    what: str,
    fleet: str | None,
    redis_url: str | None,
    file: Path | None,
    sign_with: str | None,
    by: str | None,
    *,
    as_json: bool,
) -> None:
    with operating(file, fleet, redis_url, sign_with, by) as (operator, _):
        try:
            written = write(operator)
        except (ConfigurationError, InvalidQueueError) as error:
            raise Refusal(str(error)) from None
        if as_json:
            print_json({"fleet": operator.name, "switch": None if written is None else written.to_dict()}, indent=None)
        elif written is None:
            print(f"{what} of fleet {operator.name!r} is off")
        elif written.holds:
            print(f"{what} of fleet {operator.name!r} is {written.action} until {when(written.until_ms)}")
        else:
            print(f"{what} of fleet {operator.name!r}: each process is told to {written.action}")
