"""Jobs of the frameworks under test: what they have run, and what a test has them do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: What jobs have told, in this process.
ran: list[Any] = []
#: What jobs of these names are to do.
errands: dict[str, Callable[[], Awaitable[object]]] = {}


class OnceError(Exception):
    """Why a first try failed."""


async def work(*names: Any) -> None:
    """Note the run."""
    ran.extend(map(str, names))


async def important() -> None:
    """Do nothing. Where a framework's jobs may be declared with a priority, this one is HIGH."""


async def fail_once() -> None:
    """Fail at the first try, and never again."""
    ran.append("try")
    if ran.count("try") == 1:
        raise OnceError


async def errand() -> None:
    """Do what the test wants."""
    await errands["errand"]()


async def campaign() -> None:
    """Do what the test wants, as the job that `inside_tasks` names."""
    await errands["campaign"]()


JOBS = (work, important, fail_once, errand, campaign)
