"""The `backpressure` command. ``import backpressure`` loads none of it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from backpressure._runtime.extras import extra

if TYPE_CHECKING:
    import click

__all__ = ["application", "main"]

_EXTRA = ("click", "rich")
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


def application() -> click.Group:
    """Return the command line.

    Raises:
        ModuleNotFoundError: its extra is not installed.
    """
    with extra("cli", *_EXTRA, what="the backpressure command"):
        import click  # noqa: PLC0415 - the extra may be missing

        from backpressure.cli import check, explain, importing, record, serve  # noqa: PLC0415 - likewise
        from backpressure.cli._command import Group  # noqa: PLC0415 - likewise
        from backpressure.cli._completion import completion_option  # noqa: PLC0415 - likewise
        from backpressure.cli.demo import command as demo  # noqa: PLC0415 - likewise
        from backpressure.cli.fleet import audit, members, pushing, switching  # noqa: PLC0415 - likewise
        from backpressure.cli.recordings import export, recommend, replay  # noqa: PLC0415 - likewise
        from backpressure.cli.top import command as top  # noqa: PLC0415 - likewise

    @click.group(cls=Group, context_settings={"show_default": True})
    @click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Show version and engine.",
    )
    @completion_option
    def backpressure() -> None:
        """Slow down and shed job producers by priority as queues fill.

        Exit codes: 0 good, 1 a finding, 2 wrong usage. NO_COLOR=1 does without colours.
        """

    commands: tuple[click.Command, ...] = (
        check.check,
        explain.explain,
        top.top,
        record.record,
        recommend.recommend,
        replay.replay,
        export.export,
        serve.serve,
        demo.demo,
        members.fleet,
        switching.override,
        switching.emergency,
        switching.circuit,
        audit.audit,
        Group("config", help=pushing.__doc__, commands=[pushing.push, pushing.diff, pushing.rollback]),
        Group("import", help="Make a recording from what others have.", commands=[importing.prometheus]),
    )
    for command in commands:
        backpressure.add_command(command)
    return backpressure


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from backpressure import ENGINE, __version__  # noqa: PLC0415 - --help need not load it

        print(f"producer-backpressure {__version__}, {ENGINE} engine")
        ctx.exit()
