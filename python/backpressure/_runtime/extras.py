"""What to install if a library is missing that only an extra brings."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["extra"]


@contextlib.contextmanager
def extra(name: str, *libraries: str, what: str) -> Iterator[None]:
    """Import in the body what the extra `name` brings: `libraries`, for `what`.

    Raises:
        ModuleNotFoundError: one of them is missing; it says how to install the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in libraries:
            raise
        message = f"{what} needs {' and '.join(libraries)}: pip install 'producer-backpressure[{name}]'"
        raise ModuleNotFoundError(message, name=error.name) from error
