"""The `backpressure` command. Nothing of it is loaded by ``import backpressure``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

__all__ = ["main"]

_EXTRA = frozenset({"rich", "typer"})
_MISSING = "the backpressure command needs typer and rich: pip install 'producer-backpressure[cli]'"


def main() -> int:
    """Run the command line; return its exit code where it is known before a command runs."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a sparkline is to show a question mark, not a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app = _application()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print(_MISSING, file=sys.stderr)
        return 2
    app()
    return 0


def _application() -> typer.Typer:
    import typer  # noqa: PLC0415 - the extra may be missing, which `main` explains

    from backpressure.cli.demo import demo  # noqa: PLC0415 - likewise

    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,  # they could show a URL's password among the local variables
        rich_markup_mode=None,  # brackets in a help text are brackets
    )
    app.callback()(_about)
    app.command()(demo)
    return app


def _about() -> None:
    """Slow down and shed job producers by priority as queues fill."""
