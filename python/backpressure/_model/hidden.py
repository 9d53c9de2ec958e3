"""Arguments that may hold secrets stay out of tracebacks: error reports show the local variables of every frame."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from backpressure._model.errors import links

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
        for link in links(refusal, contexts=True):
            link.__traceback__ = None
        raise refusal

    return call
