"""The `backpressure` command. ``import backpressure`` loads none of it."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import TYPE_CHECKING

from backpressure._runtime.extras import extra

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import typer

__all__ = ["application", "main"]

_EXTRA = ("typer", "rich")
# In a shell of the producers these name their metrics' directory: what is decided here is not to be counted there.
_METRICS = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


def main() -> int:
    """Run the command line; return its exit code where it is known before a command runs."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a sparkline shows a question mark, and no traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    for name in _METRICS:
        os.environ.pop(name, None)
    try:
        app = application()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print(error, file=sys.stderr)
        return 2
    app(prog_name="backpressure")
    return 0


def application() -> typer.Typer:
    """Return the command line.

    Raises:
        ModuleNotFoundError: its extra is not installed.
    """
    with extra("cli", *_EXTRA, what="the backpressure command"):
        import typer  # noqa: PLC0415 - the extra may be missing

        from backpressure.cli import check, explain, importing, record, serve  # noqa: PLC0415 - likewise
        from backpressure.cli.demo import command as demo  # noqa: PLC0415 - likewise
        from backpressure.cli.fleet import audit, members, pushing, switching  # noqa: PLC0415 - likewise
        from backpressure.cli.top import command as top  # noqa: PLC0415 - likewise

    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # they could show a URL's password among the local variables
        rich_markup_mode=None,  # brackets in a help text are brackets
    )
    version = typer.Option(False, "--version", is_eager=True, callback=_print_version, help="Show version and engine.")

    @app.callback()
    def about(*, version: bool = version) -> None:
        """Slow down and shed job producers by priority as queues fill.

        Exit codes: 0 good, 1 a finding, 2 wrong usage. NO_COLOR=1 does without colours.
        """

    commands: dict[Callable[..., None], str] = {
        check.check: check.EXAMPLES,
        explain.explain: explain.EXAMPLES,
        top.top: top.EXAMPLES,
        record.record: record.EXAMPLES,
        serve.serve: serve.EXAMPLES,
        demo.demo: demo.EXAMPLES,
        members.fleet: members.EXAMPLES,
        switching.override: switching.OVERRIDE_EXAMPLES,
        switching.emergency: switching.EMERGENCY_EXAMPLES,
        switching.circuit: switching.CIRCUIT_EXAMPLES,
        audit.audit: audit.EXAMPLES,
    }
    _add(app, commands)
    config = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=pushing.__doc__)
    pushes: dict[Callable[..., None], str] = {
        pushing.push: pushing.PUSH_EXAMPLES,
        pushing.diff: pushing.DIFF_EXAMPLES,
        pushing.rollback: pushing.ROLLBACK_EXAMPLES,
    }
    _add(config, pushes)
    app.add_typer(config, name="config")
    imports = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make a recording from what others have.")
    imports.callback()(lambda: None)  # else the one command would be the group itself
    _add(imports, {importing.prometheus: importing.EXAMPLES})
    app.add_typer(imports, name="import")
    return app


def _add(app: typer.Typer, commands: Mapping[Callable[..., None], str]) -> None:
    """Add commands with their examples."""
    for command, lines in commands.items():
        examples = textwrap.indent(lines, "  ")
        app.command(epilog=f"\b\nExamples:\n{examples}")(command)  # \b keeps the lines as they are


def _print_version(wanted: bool) -> None:
    if wanted:
        import typer  # noqa: PLC0415 - the extra may be missing

        from backpressure import ENGINE, __version__  # noqa: PLC0415 - --help need not load it

        print(f"producer-backpressure {__version__}, {ENGINE} engine")
        raise typer.Exit
