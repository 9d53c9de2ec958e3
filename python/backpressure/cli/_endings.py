"""How commands end: 0 good, 1 a finding, 2 wrong usage; and what is cleaned up when SIGTERM ends them."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, ClassVar

import click

from backpressure._model.arguments import masked
from backpressure._model.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FINDING", "USAGE", "Ending", "Finding", "Refusal", "complain", "ending", "terminable"]

FINDING, USAGE = 1, 2
_TERMINATED = 143


class Ending(Exception):  # noqa: N818 - commands end by it; not always is something wrong
    """A command ends early; the message says what to do, after `details`, a line each."""

    code: ClassVar[int]

    def __init__(self, message: str, *details: str) -> None:
        super().__init__(message)
        self.details = details


class Finding(Ending):
    """Something is wrong with what the command looked at."""

    code = FINDING


class Refusal(Ending):
    """Something is wrong with how the command was called; nothing was done."""

    code = USAGE


def complain(command: str, text: str) -> None:
    """Say on stderr why `command` ends."""
    click.echo(masked(f"backpressure {command}: {text}"), err=True)


@contextlib.contextmanager
def ending(command: str) -> Iterator[None]:
    """Turn an `Ending`, or what no controller can be made of, into its lines on stderr and its exit code."""
    try:
        yield
    except Ending as end:
        for line in end.details:
            click.echo(masked(line), err=True)
        complain(command, str(end))
        raise click.exceptions.Exit(end.code) from None
    except ConfigurationError as error:
        complain(command, str(error))
        raise click.exceptions.Exit(FINDING) from None


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM run the clean-up, as Ctrl-C does: terminals are restored, and keys removed from servers."""

    def terminate(*_: object) -> None:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
