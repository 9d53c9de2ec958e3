"""`backpressure override`, `emergency` and `circuit`: one switch for all processes of a fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs
import click

from backpressure._fleet.operator import DEFAULT_SECONDS
from backpressure._model.config.fields import seconds_of
from backpressure._model.errors import ConfigurationError, InvalidQueueError
from backpressure.cli._command import argument, command, gathered, json_option
from backpressure.cli._endings import Refusal, ending
from backpressure.cli._masking import print_json
from backpressure.cli.fleet._reach import FleetOptions, operating, operator_options, reason, when

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._fleet.entries import Switch
    from backpressure._fleet.operator import Operator

__all__ = ["circuit", "emergency", "override"]

_OVERRIDE_EXAMPLES = """\
backpressure override on --fleet shop --redis-url redis://localhost:6379/0 --for 10m --reason 'sale'
backpressure override on --config backpressure.toml --reason 'sale, ticket 4711'
backpressure override off --config backpressure.toml --reason 'sale is over'
"""
_EMERGENCY_EXAMPLES = """\
backpressure emergency on --fleet shop --redis-url redis://localhost:6379/0 --for 1h --reason 'workers redeployed'
backpressure emergency on --config backpressure.toml --reason 'drill' --by on-call
backpressure emergency off --config backpressure.toml --reason 'drill is over'
"""
_CIRCUIT_EXAMPLES = """\
backpressure circuit email-queue open --fleet shop --redis-url redis://localhost:6379/0 --for 30m --reason 'no SMTP'
backpressure circuit email-queue close --config backpressure.toml --reason 'SMTP is up'
backpressure circuit email-queue reset --config backpressure.toml --reason 'forget the outage'
"""


@attrs.frozen
class _Order:
    """How a switch is to be turned."""

    reason: str
    for_: str | None
    reach: FleetOptions
    as_json: bool


_state = argument("state", type=click.Choice(["on", "off"]), metavar="{on|off}", explained="Turn it on or off.")
_order = gathered(
    "order",
    _Order,
    reason,
    click.option(
        "--for",
        "for_",
        metavar="DURATION",
        help="How long it holds: 30s, 10m, 1h30m; 10m by default, 24h at most.",
    ),
    operator_options,
    json_option("Print one JSON object."),
)


@command(_OVERRIDE_EXAMPLES)
@_state
@_order
def override(state: str, order: _Order) -> None:
    """Let everything pass, in a whole fleet.

    Each process does so from its next poll on until the time is up, except for circuits that are forced open. What
    processes have switched on by themselves stays. Exits with 0 when it is written, 1 when the server cannot be reached
    or refuses, 2 for wrong usage.
    """
    with ending("override"):
        _turn("override", state, order)


@command(_EMERGENCY_EXAMPLES)
@_state
@_order
def emergency(state: str, order: _Order) -> None:
    """Turn emergency mode on or off, in a whole fleet.

    As the override, under a reason and a metric of its own. Exit codes are the same.
    """
    with ending("emergency"):
        _turn("emergency", state, order)


@command(_CIRCUIT_EXAMPLES)
@argument("queue", metavar="QUEUE", explained="The queue.")
@argument(
    "action", type=click.Choice(["open", "close", "reset"]), metavar="{open|close|reset}", explained="What to do."
)
@_order
def circuit(queue: str, action: Literal["open", "close", "reset"], order: _Order) -> None:
    """Force a queue's circuit open, or close it, in a whole fleet.

    open refuses all jobs of the queue until the time is up. close and reset are done once by each process that polls
    within that time, and end what open began; reset forgets the failures too. Exits with 0 when it is written, 1 when
    the server cannot be reached or refuses, 2 for wrong usage.
    """
    with ending("circuit"):
        seconds = _seconds(order.for_)

        def write(operator: Operator) -> Switch:
            return operator.circuit(queue, action, reason=order.reason, for_=seconds)

        _write(write, f"circuit of queue {queue!r}", order)


def _turn(kind: Literal["override", "emergency"], state: str, order: _Order) -> None:
    seconds = _seconds(order.for_)

    def write(operator: Operator) -> Switch | None:
        turn = operator.override if kind == "override" else operator.emergency
        return turn(state == "on", reason=order.reason, for_=seconds)

    _write(write, kind, order)


def _seconds(text: str | None) -> float:
    if text is None:
        return DEFAULT_SECONDS
    seconds = seconds_of(text)
    if seconds is None:
        raise Refusal(f"--for is {text!r}: give a duration such as 30s, 10m or 1h30m")
    return seconds


def _write(write: Callable[[Operator], Switch | None], what: str, order: _Order) -> None:
    with operating(order.reach) as (operator, _):
        try:
            written = write(operator)
        except (ConfigurationError, InvalidQueueError) as error:
            raise Refusal(str(error)) from None
        if order.as_json:
            print_json({"fleet": operator.name, "switch": None if written is None else written.to_dict()}, indent=None)
        elif written is None:
            print(f"{what} of fleet {operator.name!r} is off")
        elif written.holds:
            print(f"{what} of fleet {operator.name!r} is {written.action} until {when(written.until_ms)}")
        else:
            print(f"{what} of fleet {operator.name!r}: each process is told to {written.action}")
