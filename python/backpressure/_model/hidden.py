"""Arguments that may hold secrets stay out of tracebacks: error reports show the local variables of every frame."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["hides_arguments"]

P = ParamSpec("P")
T = TypeVar("T")


def hides_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """If `function` raises, show no frame that it was in: only that of its caller, and one without arguments.

    The same holds for the error's causes and contexts; their texts stay.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - raised again below
            refusal = error
        del args, kwargs
        _forget_frames(refusal)
        raise refusal

    return call


def _forget_frames(error: BaseException) -> None:
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        link = left.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            left += [link.__cause__, link.__context__]
            if isinstance(link, BaseExceptionGroup):
                left += link.exceptions
