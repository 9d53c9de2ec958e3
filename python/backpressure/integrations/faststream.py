"""FastStream: a middleware that asks a controller before a message is published."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from faststream import BaseMiddleware, PublishCommand, PublishType

from backpressure.errors import BackpressureError
from backpressure.integrations._context import restore
from backpressure.integrations._hook import MARK, MAX_WAIT, AsyncHook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from faststream import ContextRepo

    from backpressure.arguments import MaxWait
    from backpressure.async_controller import AsyncBackpressureController
    from backpressure.integrations._hook import Place, PriorityRule, QueueRule
    from backpressure.types import Priority

__all__ = ["BackpressureMiddleware"]

# Whether this code handles a message.
_handling: contextvars.ContextVar[bool] = contextvars.ContextVar("_handling", default=False)


class BackpressureMiddleware:
    """Makes ``publish``, ``publish_batch`` and ``request`` wait, or raise and publish nothing.

    Give it to a broker: ``RedisBroker(url, middlewares=[BackpressureMiddleware(…)])``, before other middlewares.

    Args:
        controller: running where messages are published; subscribers need none.
        priority: a priority for all messages; a table by destination, or ``"*"``; or a function of FastStream's
            ``PublishCommand``. A header ``backpressure_priority`` of a message or a publisher comes first, and is not
            sent.
        queue: a table of destinations to the controller's queues, or a function as for `priority`.
        max_wait: longest sleep accepted, in seconds.

    A destination is the list or the stream, its router's prefix included. A pub/sub channel has no backlog: what is
    published to one passes, unless the table `queue` names it. A batch counts as one message. A request is done when
    its response has come, so that none in time is a failure of the queue. What goes into a pipeline waits, or is shed,
    as it goes in; how the pipeline fares is not seen, see `admitted`.

    What is published while a message is handled is let through, replies and what other middlewares publish again
    included; so are tasks started there. Reading by ``async for`` or ``get_one`` is no handling. ``TestRedisBroker``
    is gated like any other. Messages are not stamped.

    Written against what all of FastStream's brokers share, and tested with Redis alone. Usable by several tasks and
    brokers.

    Raises:
        ConfigurationError: the controller is a synchronous one, or there is no priority.
        JobShedError, CircuitOpenError, ThrottledError: on publishing, see `AsyncBackpressureController.run`.
    """

    def __init__(
        self,
        controller: AsyncBackpressureController,
        *,
        priority: PriorityRule,
        queue: QueueRule | None = None,
        max_wait: MaxWait = MAX_WAIT,
    ) -> None:
        self._hook = AsyncHook(controller, priority, queue, max_wait)
        self._named = frozenset(queue) if isinstance(queue, Mapping) else frozenset()

    def __call__(self, msg: Any, /, *, context: ContextRepo) -> BaseMiddleware[Any, Any]:
        """Make what FastStream wants for each message."""
        return _Middleware(self._publish, msg, context=context)

    @contextlib.asynccontextmanager
    async def admitted(self, *destinations: str, priority: Priority | str | None = None) -> AsyncIterator[None]:
        """Ask once for all `destinations`, then let pass what the body publishes. Raises as ``publish`` does.

        Args:
            destinations: lists or streams.
            priority: in place of the middleware's, which as a function is given a command without a body.

        Waits once for each priority and queue among them. The outcome is that of the body.
        """
        if _handling.get() or self._hook.entered:
            yield
            return
        commands = [PublishCommand(None, _publish_type=PublishType.PUBLISH, destination=name) for name in destinations]
        async with self._hook.admitted([self._place(command, priority) for command in commands]):
            yield

    async def _publish(self, publish: Callable[[Any], Awaitable[Any]], command: PublishCommand) -> Any:
        command.headers = dict(command.headers)
        mark = command.headers.pop(MARK, None)
        if _handling.get() or self._hook.entered or self._keeps_no_backlog(command):
            return await publish(command)
        result = None
        with contextlib.suppress(_Unknown):
            async with self._hook.slots([self._place(command, mark)]):
                result = await publish(command)
                if getattr(command, "pipeline", None) is not None:
                    raise _Unknown
        return result

    def _keeps_no_backlog(self, command: PublishCommand) -> bool:
        return getattr(command, "destination_type", None) == "channel" and command.destination not in self._named

    def _place(self, command: PublishCommand, mark: Priority | str | None) -> Place:
        name = command.destination
        return self._hook.place(command, name=name, queue_name=name, mark=mark)


class _Unknown(BackpressureError):  # noqa: N818 - raised and caught here
    """Nothing has been sent yet; an error of ours, for these are reported neither as success nor as failure."""


class _Middleware(BaseMiddleware[Any, Any]):
    def __init__(self, publish: Callable[[Any, Any], Awaitable[Any]], msg: Any, /, *, context: ContextRepo) -> None:
        super().__init__(msg, context=context)
        self._publish = publish

    async def on_receive(self) -> None:
        self._token = _handling.set(True)

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,  # noqa: ARG002
        exc_val: BaseException | None = None,  # noqa: ARG002
        exc_tb: TracebackType | None = None,  # noqa: ARG002
    ) -> bool | None:
        restore(_handling, self._token)
        return False

    async def publish_scope(self, call_next: Callable[[Any], Awaitable[Any]], cmd: Any) -> Any:
        return await self._publish(call_next, cmd)
