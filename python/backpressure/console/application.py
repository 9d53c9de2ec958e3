"""The console as an ASGI application: one page, what it is told, and the switches that it may turn."""

from __future__ import annotations

import contextlib
import hmac
import inspect
import json
import secrets
import time
import weakref
from importlib import resources
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from backpressure._engine.choice import ENGINE
from backpressure._engine.sync import ForkLock
from backpressure._model.arguments import masked
from backpressure._model.errors import ConfigurationError
from backpressure._model.stats import MAX_BACKLOG
from backpressure._runtime.version import version
from backpressure._watch.advice import Circuit
from backpressure._watch.masking import masked_tree
from backpressure.console.guard import Guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from backpressure.console.board import Board
    from backpressure.console.fleet import Fleet
    from backpressure.console.looks import Looks
    from backpressure.console.sampler import Sampler

__all__ = ["Console"]

TOKEN_HEADER = "x-backpressure-token"  # noqa: S105 - it names a header
# Files of the page, all of which are in the wheel: asked for as, kept as, told as.
_FILES = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "uplot/uPlot.iife.min.js": "text/javascript",
    "uplot/uPlot.min.css": "text/css",
}
# A viewer comes again after so many seconds: then `identify` is asked again.
_STREAM = 600.0
_SILENCE = 10.0
_MOST_AT_ONCE = 60
_LONGEST_BODY = 4_096
_LONGEST_AUTHOR = 128


class Console:
    """See `backpressure.console.app`."""

    def __init__(
        self,
        *,
        looks: Looks,
        board: Board,
        sampler: Sampler,
        fleet: Fleet | None,
        closed: Sequence[Callable[[], object]],
        hosts: Collection[str],
        identify: Any,
        control: bool,
        token: str | None,
        viewers: int,
    ) -> None:
        self._looks = looks
        self._board = board
        self._sampler = sampler
        self._fleet = fleet
        self._closed = closed
        self._identify = identify
        self._control = control
        self.token = secrets.token_urlsafe(32) if token is None else token
        self._viewers = viewers
        self._watching = 0
        self._lock = ForkLock()
        # A page that was made by another run names queues by other places.
        self._start = secrets.token_hex(8)
        self._explaining = ForkLock()
        page = resources.files(__package__) / "page"
        self._page = (page / "index.html").read_bytes()
        self._files = {name: (page / name).read_bytes() for name in _FILES}
        routes = [
            Route("/", self._index),
            *(Route(f"/{name}", self._file) for name in _FILES),
            Route("/about", self._about),
            Route("/stream", self._stream),
            Route("/histories", self._histories),
            Route("/queue", self._queue),
            Route("/explain", self._explain),
            Route("/members", self._members),
            Route("/audit", self._audit),
            Route("/token", self._token),
            Route("/switch", self._switch, methods=["POST"]),
        ]
        inner = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={_Refused: _refused})
        inner.router.redirect_slashes = False
        self._guarded = Guard(inner, hosts)
        # It holds nothing of this object: at the end of either, or of the interpreter, nobody looks any more.
        self._end = weakref.finalize(self, sampler.close)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification. Looks at the queues from the first request on, or from the lifespan's start."""
        if scope["type"] == "http":
            route = scope["path"].removeprefix(scope.get("root_path", ""))
            if not route:  # relative addresses need the slash at the end
                await RedirectResponse(scope["path"].rpartition("/")[2] + "/")(scope, receive, send)
                return
        await self._guarded(scope, receive, send)

    def end(self) -> None:
        """End all streams, and those that begin until `close`; may be called from a signal handler."""
        self._board.close()

    def close(self) -> None:
        """Look no more, and end all streams. Idempotent; the next request begins anew."""
        self._sampler.close()
        for close in self._closed:
            close()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._sampler.ensure()
        try:
            yield
        finally:
            await run_in_threadpool(self.close)

    async def _who(self, request: Request) -> str | None:
        """Return who asks, as far as that is known."""
        if self._identify is None:
            return None
        try:
            name = self._identify(request)
            if inspect.isawaitable(name):
                name = await name
        except PermissionError as error:
            raise _Refused(403, str(error) or "you may not see this console: ask who runs it") from None
        return None if name is None else str(name)[:_LONGEST_AUTHOR]

    async def _index(self, request: Request) -> Response:
        await self._who(request)
        return Response(self._page, media_type="text/html")

    async def _file(self, request: Request) -> Response:
        name = request.scope["path"].rpartition("/")[2]
        full = next(one for one in _FILES if one.rpartition("/")[2] == name)
        return Response(self._files[full], media_type=_FILES[full], headers={"cache-control": "no-cache"})

    async def _about(self, request: Request) -> Response:
        who = await self._who(request)
        return JSONResponse(
            {
                "start": self._start,
                "version": version(),
                "engine": ENGINE,
                "control": self._control,
                "who": who,
                # Without `identify` people type the token, which is shown where the server was started.
                "token": "none" if not self._control else "typed" if self._identify is None else "asked",
            }
        )

    async def _stream(self, request: Request) -> Response:
        await self._who(request)
        self._sampler.ensure()
        with self._lock():
            if self._watching >= self._viewers:
                raise _Refused(503, f"{self._viewers} pages watch already: close one, or raise viewers")
            self._watching += 1
        return _Stream(self._frames(), self._leave)

    def _leave(self) -> None:
        with self._lock():
            self._watching -= 1

    async def _frames(self) -> AsyncIterator[bytes]:
        seen, end = 0, time.monotonic() + _STREAM
        yield f"event: start\ndata: {json.dumps(self._start)}\n\n".encode()
        while not self._board.closed and time.monotonic() < end:
            frame = self._board.frame()
            if frame is None or frame.number == seen:
                if not await self._board.wait(seen, _SILENCE):
                    yield b": nothing new\n\n"
                continue
            yield frame.change if 0 < seen == frame.number - 1 else frame.whole
            seen = frame.number

    async def _histories(self, request: Request) -> Response:
        await self._who(request)
        places = request.query_params.get("queues", "").split(",")
        if len(places) > _MOST_AT_ONCE:
            raise _Refused(400, f"queues names {len(places)} queues: ask for at most {_MOST_AT_ONCE} at once")
        return JSONResponse(self._looks.histories([self._place(request, place) for place in places]))

    async def _queue(self, request: Request) -> Response:
        await self._who(request)
        return _shown(self._looks.queue(self._place(request, request.query_params.get("queue"))))

    async def _explain(self, request: Request) -> Response:
        await self._who(request)
        asked = request.query_params
        place = self._place(request, asked.get("queue"))
        backlog = None if not asked.get("backlog") else _whole("backlog", asked["backlog"], MAX_BACKLOG)
        try:
            circuit = Circuit(asked.get("circuit") or Circuit.CLOSED)
        except ValueError:
            raise _Refused(400, f"circuit is unknown: give {', '.join(Circuit)}") from None

        def explain() -> dict[str, Any]:
            with self._explaining():  # a controller is made for it: one at a time
                return self._looks.explain(place, circuit, backlog)

        return _shown(await run_in_threadpool(explain))

    async def _members(self, request: Request) -> Response:
        await self._who(request)
        return _shown(self._known_fleet().members())

    async def _audit(self, request: Request) -> Response:
        await self._who(request)
        fleet = self._known_fleet()
        try:
            return _shown({"lines": await run_in_threadpool(fleet.audit)})
        except Exception as error:  # noqa: BLE001 - whatever the client raises is shown
            raise _Refused(502, f"the audit cannot be read: {fleet.trouble(error)}") from None

    async def _token(self, request: Request) -> Response:
        """Give the token to those whom `identify` names; a foreign page can send such a request and not read it."""
        who = await self._who(request)
        if not self._control or who is None:
            raise _Refused(403, "you may look and not act: sign in, or ask who runs this console")
        return JSONResponse({"token": self.token})

    async def _switch(self, request: Request) -> Response:
        who = await self._who(request)
        if not self._control:
            raise _Refused(403, "this console only shows: start it with --control to act")
        if self._identify is not None and who is None:
            raise _Refused(403, "you may look and not act: sign in, or ask who runs this console")
        given = request.headers.get(TOKEN_HEADER, "")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            raise _Refused(401, "the token is wrong: take the one that was shown when this server started")
        wanted = await _body(request)
        if wanted.get("start") != self._start:
            raise _Refused(409, "this page is of an earlier start of the server: load it anew")
        fleet = self._known_fleet()

        def turn() -> None:
            self._turn(fleet, wanted, who)
            fleet.read()

        try:
            await run_in_threadpool(turn)
        except _Refused:
            raise
        except ConfigurationError as error:
            raise _Refused(400, masked(str(error))) from None
        except Exception as error:  # noqa: BLE001 - whatever the client raises is shown
            raise _Refused(502, f"the fleet's server did not take it: {fleet.trouble(error)}") from None
        return _shown({"fleet": fleet.told()})

    def _turn(self, fleet: Fleet, wanted: Mapping[str, Any], who: str | None) -> None:
        kind, action = wanted.get("kind"), wanted.get("action")
        common: Any = {"reason": wanted.get("reason"), "for_": wanted.get("for"), "by": who}
        if kind in ("override", "emergency") and action in ("on", "off"):
            operator = fleet.operator()
            switch = operator.override if kind == "override" else operator.emergency
            switch(action == "on", **common)
        elif kind == "circuit" and action in ("open", "close", "reset"):
            place = wanted.get("queue")
            if type(place) is not int or not 0 <= place < len(self._looks.names):
                raise _Refused(400, "queue is none of those that are shown: load the page anew")
            fleet.operator().circuit(self._looks.names[place], action, **common)
        else:
            raise _Refused(
                400, "there is no such switch: override or emergency on or off, circuit open, close or reset"
            )

    def _known_fleet(self) -> Fleet:
        if self._fleet is None:
            raise _Refused(404, "no fleet is configured: give the configuration a section fleet")
        return self._fleet

    def _place(self, request: Request, given: str | None) -> int:
        if request.query_params.get("start") != self._start:
            raise _Refused(409, "this page is of an earlier start of the server: load it anew")
        return _whole("queue", given or "", len(self._looks.names) - 1)

    def __repr__(self) -> str:
        return f"<Console of {len(self._looks.names)} queues>"


class _Stream(StreamingResponse):
    """Server-sent events, and what is to be done at their end."""

    def __init__(self, frames: AsyncIterator[bytes], ended: Callable[[], object]) -> None:
        super().__init__(frames, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


class _Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A request ends with a status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, _Refused)  # noqa: S101 - it is registered for these
    return PlainTextResponse(f"{error}\n", error.status)


def _shown(value: dict[str, Any]) -> Response:
    """Return an answer that shows no credentials: they may stand in names, and in what others wrote."""
    return JSONResponse(masked_tree(value))


def _whole(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= most):
        raise _Refused(400, f"{name} is no whole number from 0 to {most}")
    return int(text)


async def _body(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _Refused(415, "send application/json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY:
            raise _Refused(413, f"send at most {_LONGEST_BODY} bytes")
    try:
        wanted = json.loads(body)
    except (ValueError, RecursionError):
        wanted = None
    if not isinstance(wanted, dict):
        raise _Refused(400, "send a JSON object")
    return wanted
