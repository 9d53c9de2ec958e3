"""Completion: what teaches a shell our commands, options and their values."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

__all__ = ["completion_option"]

#: Completes by asking the command itself, which click answers where this variable is set.
_VARIABLE = "_BACKPRESSURE_COMPLETE"
_SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


def _print_script(ctx: click.Context, _option: click.Parameter, shell: str | None) -> None:
    if shell is not None and not ctx.resilient_parsing:
        print(_SHELLS[shell](ctx.command, {}, "backpressure", _VARIABLE).source())
        ctx.exit()


completion_option = click.option(
    "--show-completion",
    type=click.Choice([*_SHELLS]),
    metavar="SHELL",
    is_eager=True,
    expose_value=False,
    callback=_print_script,
    help="Print what teaches a shell (bash, zsh, fish) the commands, to be saved where it looks for such scripts.",
)
