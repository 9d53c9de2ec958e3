"""Jobs in a caller's Redis pipeline: until the caller executes it, nothing is sent and no outcome is known."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["sent_by"]


@contextlib.contextmanager
def sent_by(pipeline: Any, slots: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    """Enter `slots` and run the body, which puts commands into a ``redis.client.Pipeline``.

    An exception of the body is reported to them. Otherwise the outcome of its commands is reported when the pipeline is
    executed, once. A pipeline that is reset or dropped before tells nothing about the queue.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(slots)
        first = len(pipeline)
        yield
        load = getattr(vars(pipeline).get("execute"), "__self__", None)
        if not isinstance(load, _Load):
            load = _Load(pipeline)
        load.add(stack.pop_all(), range(first, len(pipeline)))


class _Load:
    """The slots of a pipeline's commands. It replaces two methods of the pipeline until one of them is called."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._slots: list[tuple[contextlib.ExitStack, range]] = []
        # Other code may have replaced them too.
        self._before = {name: vars(pipeline)[name] for name in ("execute", "reset") if name in vars(pipeline)}
        pipeline.execute, pipeline.reset = self.execute, self.reset

    def add(self, slots: contextlib.ExitStack, commands: range) -> None:
        self._slots.append((slots, commands))

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        pipeline = self._let_go()
        try:
            results = pipeline.execute(*args, **kwargs)
        except BaseException as error:
            self._report(error)
            raise
        for slots, commands in self._slots:
            # With raise_on_error=False errors are among the results.
            errors = (result for result in results[commands.start : commands.stop] if isinstance(result, Exception))
            _leave(slots, next(errors, None))
        return results

    def reset(self) -> None:
        pipeline = self._let_go()
        self._report(GeneratorExit())
        pipeline.reset()

    def _let_go(self) -> Any:
        pipeline = self._pipeline
        for name in ("execute", "reset"):
            vars(pipeline).pop(name, None)
        vars(pipeline).update(self._before)
        return pipeline

    def _report(self, error: BaseException) -> None:
        for slots, _ in self._slots:
            _leave(slots, error)


def _leave(slots: contextlib.ExitStack, error: BaseException | None) -> None:
    if error is None:
        slots.close()
    else:
        slots.__exit__(type(error), error, error.__traceback__)
