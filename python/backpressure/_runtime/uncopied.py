"""What cannot leave its process, nor exist twice: it holds threads, counts and circuits."""

from __future__ import annotations

from typing import ClassVar, NoReturn

__all__ = ["Uncopied"]


class Uncopied:
    """Refuses to be pickled and copied, and says what to do instead."""

    __slots__ = ()
    _instead: ClassVar[str]

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__
        raise TypeError(f"{name} does not pickle and cannot be copied: {self._instead}")
