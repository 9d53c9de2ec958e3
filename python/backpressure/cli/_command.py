"""What commands and groups are made with: click's, with examples, explained arguments, and options in groups."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import click

__all__ = ["Decorator", "Group", "argument", "command", "gathered", "json_option"]

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


class Argument(click.Argument):
    """An argument with a line of help, which click has only from 8.5 on."""

    def __init__(self, *args: Any, explained: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.explained = explained


class Command(click.Command):
    """A command whose help explains its arguments too."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(each.human_readable_name, each.explained) for each in self.params if isinstance(each, Argument)]
        if rows:
            with formatter.section("Arguments"):
                formatter.write_dl(rows)
        super().format_options(ctx, formatter)


class Group(click.Group):
    """Commands under one name, in the order that they are given in: the usual ones first."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self.commands)


def command(examples: str) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a command: its name and help are the function's, below stand `examples`."""
    # \b keeps the lines as they are.
    return click.command(cls=Command, epilog=f"\b\nExamples:\n{textwrap.indent(examples, '  ')}")


def argument(name: str, *, explained: str, **attributes: Any) -> Decorator:
    """Return a decorator that gives a command the argument `name`."""
    return click.argument(name, cls=Argument, explained=explained, **attributes)


def json_option(explained: str) -> Decorator:
    """Return a decorator that gives a command the option ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help=explained)


def gathered(name: str, values: type[attrs.AttrsInstance], *options: Decorator) -> Decorator:
    """Return a decorator that gives a command several options, and hands it what they come to as one argument.

    The argument `name` is an instance of `values`, whose fields are called as the options are.
    """
    fields = [field.name for field in attrs.fields(values)]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def gathering(**given: Any) -> Any:
            own = {field: given.pop(field) for field in fields if field in given}
            return function(**given, **{name: values(**own)})

        # What click knows of the function, such as options below these, lies in its attributes.
        wrapped: Callable[..., Any] = functools.wraps(function)(gathering)
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate
