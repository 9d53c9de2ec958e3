"""The lifespan of an ASGI application, with a controller that is started and stopped with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure.integrations._shared.controllers import done

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from backpressure.integrations._shared.controllers import Running

__all__ = ["Lifespan"]

_STARTED, _START_FAILED = "lifespan.startup.complete", "lifespan.startup.failed"
_ENDED = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")


class Lifespan:
    """One run of an application's lifespan, around which a controller runs."""

    def __init__(self, app: Callable[..., Awaitable[None]], running: Running) -> None:
        self._app = app
        self._running = running
        self._end: Callable[[], Any] | None = None
        self._told: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See the ASGI specification."""
        first = [await receive()]
        if self._running.is_early and not await self._start(send):
            return

        async def receive_next() -> Any:
            return first.pop() if first else await receive()

        async def send_next(message: Any) -> None:
            if _START_FAILED in self._told:
                return  # the server was told by us
            if message["type"] == _STARTED and not self._running.is_early and not await self._start(send):
                raise RuntimeError("the controller of BackpressureASGI could not be started: see the server's log")
            if message["type"] in _ENDED:
                await self._stop()
            self._told.add(message["type"])
            await send(message)

        try:
            await self._app(scope, receive_next, send_next)
        except Exception:
            if self._told or not first:
                raise
            await self._serve_alone(receive, send)  # it has no lifespan, as Django's applications
        finally:
            await self._stop()

    async def _start(self, send: Any) -> bool:
        """Start the controller; if that fails, tell the server, which then ends."""
        try:
            self._end = await self._running.begin()
        except Exception as error:  # noqa: BLE001 - servers take what is raised here for an application without lifespan
            self._told.add(_START_FAILED)
            await send({"type": _START_FAILED, "message": f"{type(error).__name__}: {error}"})
            return False
        return True

    async def _stop(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            await done(end())

    async def _serve_alone(self, receive: Any, send: Any) -> None:
        if self._running.is_early or await self._start(send):
            await send({"type": _STARTED})
            await receive()
            await self._stop()
            await send({"type": _ENDED[0]})
