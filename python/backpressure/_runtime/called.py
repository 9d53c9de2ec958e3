"""The name by which users call what lies elsewhere: Python puts it into errors about arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["called"]

F = TypeVar("F", bound="Callable[..., Any]")


def called(name: str) -> Callable[[F], F]:
    """Decorate a function that users reach as `name`."""

    def rename(function: F) -> F:
        function.__qualname__ = name
        return function

    return rename
