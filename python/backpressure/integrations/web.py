"""Web servers: refused jobs as HTTP answers with ``Retry-After``, for ASGI, WSGI and Django. Imports no framework."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import attrs

from backpressure._model.arguments import shown
from backpressure._model.errors import (
    BackpressureError,
    ConfigurationError,
    ControllerStoppedError,
    JobShedError,
    ThrottledError,
)
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.tenant import check_tenant
from backpressure.integrations._shared.controllers import Running
from backpressure.integrations._shared.lifespan import Lifespan
from backpressure.integrations._shared.lost import Lost, lost, tell
from backpressure.integrations._shared.request import on_behalf_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Iterator, MutableMapping
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from backpressure._controller.base import ControllerBase
    from backpressure._model.tenant import AnyTenant, Tenant

    Scope: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    ASGIApplication: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
    # Of either kind, or a function that returns one.
    AnyController: TypeAlias = ControllerBase | Callable[[], ControllerBase] | None
    ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

__all__ = ["BackpressureASGI", "BackpressureDjango", "BackpressureWSGI", "HTTPRefusal", "refusal"]

#: Errors that refuse a job. Other errors of this package are faults of the program.
_REFUSALS = (ThrottledError, JobShedError, ControllerStoppedError)


@repr_when_half_built
@attrs.frozen
class HTTPRefusal:
    """The HTTP answer to a request whose job was refused. Made by `refusal`.

    Attributes:
        status: 429 or 503.
        headers: ``Content-Type``, ``Cache-Control``, and ``Retry-After`` where it is known; a new dict for each answer.
        body: problem details (RFC 9457), as JSON.
    """

    status: int
    headers: dict[str, str]
    body: bytes


#: What turns an error into an answer, or into ``None`` to let it pass: `refusal` or a function like it.
Answer: TypeAlias = Callable[[BaseException], HTTPRefusal | None]


def refusal(error: BaseException, *, jitter: float = 0.0, show_queue: bool = False) -> HTTPRefusal | None:
    """Return the answer to a request that failed with `error`, or ``None`` where that is not a refusal.

    - `ThrottledError`: 429 Too Many Requests (RFC 6585, 4). The queue takes jobs, but these came too fast. Load
      balancers do not mistake a 429 for a sick server.
    - `JobShedError`: 503 Service Unavailable (RFC 9110, 15.6.4). The server is overloaded, not this client.
    - `CircuitOpenError`: 503. ``Retry-After`` is the time to the next probe; a circuit that was forced open has none.
    - `ControllerStoppedError`: 503 without ``Retry-After``. The request came, or slept, while its server was ending.
    - A broker that cannot be reached: 503, with the time to the next probe, or else the circuit's ``probe_interval``.
      These are connection errors and timeouts of the broker's client that came out of ``run``, a slot, a gate, a batch
      or a hook, and counted against the queue there. So a dead broker's first failures are answered as its later ones,
      when the circuit is open. They are logged at once and then every five minutes, by class. What a job's own code
      raises stays an error.

    ``Retry-After`` is the error's ``retry_after`` in whole seconds, rounded up and at least 1: a client that keeps to
    it never comes too early. Everything else is ``None`` and stays an error. So do a controller that was never started,
    and a wait that would have blocked an event loop: a 503 would hide these faults from the people who run the program.

    Causes (``raise … from shed``) and exception groups are searched. A group is a refusal only if all its members are,
    because an answer that says "later" must not hide another failure. Its answer has the longest ``retry_after`` among
    them, and is 503 unless all are 429.

    Args:
        error: what the application raised.
        jitter: lengthens ``Retry-After`` by a random share of up to this, from 0 to 1. All clients that meet an open
            circuit are told the same second. By default they come back together, which costs the gate little; give 0.5
            where the work before the gate, such as a login, costs more.
        show_queue: whether the body tells the names of the queues. Names, priorities and backlogs tell strangers how
            your service is built and how to attack it, so by default the answer has none of them.

    Thread-safe.

    Raises:
        ConfigurationError: `jitter` is out of range.

    Example:
        >>> answer = refusal(JobShedError("…", queue_name="clicks", retry_after=7.5))
        >>> answer.status, answer.headers["Retry-After"]
        (503, '8')
        >>> print(answer.body.decode())
        {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": "the job was not accepted: \
try again in 8 s", "retry_after": 8}
    """
    if not 0 <= jitter <= 1:
        raise ConfigurationError(f"jitter is {shown(jitter)}: give a share from 0 to 1", field="jitter", value=jitter)
    refused = _refused(error)
    if not refused:
        return None
    after = _retry_after(refused, jitter)
    status = HTTPStatus.SERVICE_UNAVAILABLE
    if all(isinstance(link, ThrottledError) for link in refused):
        status = HTTPStatus.TOO_MANY_REQUESTS
    # Of a request that timed out, nobody knows whether the broker has it.
    failed = [link for link in refused if isinstance(link, Lost)]
    for each in failed:
        tell(each)
    what = "the job could not be handed over" if failed else "the job was not accepted"
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": f"{what}: try again {'later' if after is None else f'in {after} s'}",
    }
    # A shared cache must not refuse other clients, which might be let in.
    headers = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
    if after is not None:
        headers["Retry-After"] = str(after)
        problem["retry_after"] = after  # scripts of another origin may not read the header
    if show_queue:
        problem["queues"] = sorted({link.queue_name for link in refused if link.queue_name is not None})
    return HTTPRefusal(status.value, headers, json.dumps(problem).encode())


def _refused(error: BaseException | None, above: frozenset[int] = frozenset()) -> list[BackpressureError | Lost]:
    """Return the refusals that an error stands for; none if it, or one of its members, is anything else."""
    while error is not None and id(error) not in above:
        above |= {id(error)}
        if isinstance(error, _REFUSALS):
            return [error]
        if (failed := lost(error)) is not None:
            return [failed]
        if isinstance(error, BaseExceptionGroup):
            members = [_refused(member, above) for member in error.exceptions]
            if all(members):
                return [link for member in members for link in member]
        error = error.__cause__
    return []


def _retry_after(refused: list[BackpressureError | Lost], jitter: float) -> int | None:
    longest = max(math.inf if link.retry_after is None else link.retry_after for link in refused)
    longest *= 1 + random.uniform(0, jitter)  # noqa: S311 - no secret
    return max(1, math.ceil(longest)) if math.isfinite(longest) else None


class BackpressureASGI:
    """Middleware for any ASGI application, such as FastAPI's: ``app.add_middleware(BackpressureASGI)``.

    Args:
        app: the application.
        answer: turns an error into an answer or ``None``: `refusal`, perhaps with ``functools.partial``, or yours.
        controller: what to start with the lifespan, which may run again and again, as in tests. A controller, which
            rests between two lifespans; a `backpressure.integrations.Restartable`; or another function that returns a
            controller, called once the application has started, which is stopped afterwards unless it ran already.
            Requests have it as ``request.state.backpressure``.
        tenant: a function of the scope that returns on whose behalf the request is, a name or a pair of a name and a
            class of weights, or ``None``. Hooks enqueue on its behalf what the request enqueues.

    An error is answered if the application lets it out before its response has started. Later ones, such as those of
    background tasks and of streams, are raised. Only HTTP is answered: websockets pass untouched.

    Add it before ``CORSMiddleware``, which then lies around it, so that browsers may read the answer. Usable from
    several tasks and threads.

    Example:
        >>> async def app(scope, receive, send):
        ...     raise JobShedError(retry_after=7.5)
        >>> async def send(message):
        ...     print(message.get("status", "body"))
        >>> asyncio.run(BackpressureASGI(app)({"type": "http", "method": "GET"}, None, send))
        503
        body
    """

    def __init__(
        self,
        app: ASGIApplication,
        answer: Answer = refusal,
        *,
        controller: AnyController = None,
        tenant: Callable[[Scope], AnyTenant | None] | None = None,
    ) -> None:
        self._app = app if tenant is None else _on_behalf(app, tenant)
        self._answer = answer
        self._running = None if controller is None else Running(controller)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "lifespan" and self._running is not None:
            await Lifespan(self._app, self._running)(scope, receive, send)
            return
        if self._running is not None and self._running.current is not None:
            scope.setdefault("state", {})["backpressure"] = self._running.current
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def note(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Exception as error:
            answer = None if started else self._answer(error)
            if answer is None:
                raise
        else:
            return
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in _headers(answer)]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": _body(answer, scope["method"])})


class BackpressureWSGI:
    """Middleware for any WSGI application that lets its errors out: ``app = BackpressureWSGI(app)``.

    Args:
        app: the application.
        answer: turns an error into an answer or ``None``: `refusal`, perhaps with ``functools.partial``, or yours.
        controller: a `BackpressureController`, or a function that returns one such as a
            `backpressure.integrations.Restartable`, to start with the first request. If it was stopped, the function is
            called again. Requests have it as ``environ["backpressure"]``.
        tenant: a function of the environ that returns on whose behalf the request is, a name or a pair of a name and a
            class of weights, or ``None``. Hooks enqueue on its behalf what the application enqueues in its call, not
            what it does while a streamed body is sent.

    An error is answered if the application raises it before the first part of its response: in the call, or while it is
    iterated, as generators do. What the application has told ``start_response`` so far is then dropped, because it is
    held back until that part. Later errors are raised.

    Flask and Django turn errors in their views into a 500 before this sees them; there it answers only errors of
    streamed responses. Thread-safe.

    Example:
        >>> def app(environ, start_response):
        ...     start_response("200 OK", [])
        ...     raise JobShedError(retry_after=7.5)
        ...     yield b"never"
        >>> def start_response(status, headers, exc_info=None):
        ...     print(status)
        >>> body = list(BackpressureWSGI(app)({"REQUEST_METHOD": "GET"}, start_response))
        503 Service Unavailable
    """

    def __init__(
        self,
        app: WSGIApplication,
        answer: Answer = refusal,
        *,
        controller: AnyController = None,
        tenant: Callable[[WSGIEnvironment], AnyTenant | None] | None = None,
    ) -> None:
        self._app = app
        self._tenant = tenant
        self._answer = answer
        self._running = None if controller is None else Running(controller)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """See PEP 3333."""
        if self._running is not None:
            environ["backpressure"] = self._running.ensure()
        response = _Response(environ["REQUEST_METHOD"], start_response, self._answer)
        try:
            with on_behalf_of(_known(self._tenant, environ)):
                body = self._app(environ, response.start)
        except Exception as error:  # noqa: BLE001 - raised again there, unless it is a refusal
            return [response.refuse(error)]
        file_wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, list | tuple) or (isinstance(file_wrapper, type) and isinstance(body, file_wrapper)):
            response.release()  # nothing more is computed, and the server sends these best itself
            return body
        return response.over(body)


class _Response:
    """One response, as an iterable of its parts."""

    def __init__(self, method: str, start_response: StartResponse, answer: Answer) -> None:
        self._method = method
        self._start_response = start_response
        self._answer = answer
        # gunicorn keeps the headers of a start that another one replaces, so starts are replaced here where possible.
        self._held: list[tuple[Any, ...]] = []
        self._released = False
        self._write: Callable[[bytes], object]
        self._body: Iterable[bytes] = ()
        self._parts: Iterator[bytes] | None = None
        self._close: Callable[[], object] | None = None

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """Serve as the application's ``start_response``."""
        self._held.append((status, headers) if exc_info is None else (status, headers, exc_info))
        if self._released:
            self.release()
        return self._write_through

    def _write_through(self, data: bytes) -> None:
        self.release()
        self._write(data)

    def release(self) -> None:
        """Start the response as the application did; from now on, only the server holds it back."""
        self._released = True
        held, self._held = self._held, []
        for start in held:
            self._write = self._start_response(*start)

    def refuse(self, error: Exception) -> bytes:
        """Start the answer to an error and return its body, or raise the error."""
        answer = self._answer(error)
        if answer is None:
            raise error
        self._held = []
        start = f"{answer.status} {HTTPStatus(answer.status).phrase}", list(_headers(answer))
        if self._released:
            self._start_response(*start, sys.exc_info())  # raises the error, if anything was sent
        else:
            self._start_response(*start)
        return _body(answer, self._method)

    def over(self, body: Iterable[bytes]) -> _Response:
        """Wrap the application's iterable, too."""
        self._close = getattr(body, "close", None)
        self._body = body
        return self

    def __iter__(self) -> _Response:
        return self

    def __next__(self) -> bytes:
        try:
            if self._parts is None:
                self._parts = iter(self._body)  # not before: its error is answered here
            part = next(self._parts)
        except StopIteration:
            self.release()
            raise
        except Exception as error:  # noqa: BLE001 - raised again there, unless it is a refusal
            self._parts = iter(())
            return self.refuse(error)
        if not self._released:
            self.release()
        return part

    def close(self) -> None:
        """Close the application's iterable; servers always call this."""
        if self._close is not None:
            self._close()


class BackpressureDjango:
    """Middleware for Django's views, sync and async: name it last in ``MIDDLEWARE``.

    Attributes:
        answer: turns an error into an answer or ``None``. To use another function than `refusal`, name a subclass that
            has it, as ``staticmethod(functools.partial(refusal, jitter=0.5))``.
        controller: a `BackpressureController`, or a function that returns one such as a
            `backpressure.integrations.Restartable`, to start with the first request, if a subclass has it; a plain
            function as ``staticmethod(function)``. If it was stopped, the function is called again.
        tenant: a function of the request that returns on whose behalf it is, as a ``staticmethod``, if a subclass has
            it: a name or a pair of a name and a class of weights, or ``None``. Hooks enqueue on its behalf.

    It must be last, because Django asks the last one first, and others may report refusals as errors. Django shows no
    middleware the errors of another one: there, call `refusal` yourself. Answers are logged for debugging only, by
    ``django.request``: otherwise Django would write a line for each, and count a 503 as an error that may be mailed to
    ``ADMINS``. Thread-safe.

    Example:
        >>> MIDDLEWARE = ["backpressure.integrations.web.BackpressureDjango"]
    """

    sync_capable: ClassVar[bool] = True
    async_capable: ClassVar[bool] = True
    answer: ClassVar[staticmethod[[BaseException], HTTPRefusal | None]] = staticmethod(refusal)
    controller: ClassVar[Any] = None
    tenant: ClassVar[Any] = None

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        from asgiref.sync import iscoroutinefunction, markcoroutinefunction  # noqa: PLC0415 - Django's own need

        self._get_response = get_response
        self._running = None if self.controller is None else Running(self.controller)
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """See Django's documentation of middleware."""
        if self._running is not None:
            self._running.ensure()
        if self.tenant is None:
            return self._get_response(request)
        whose = _known(self.tenant, request)
        if self._is_async:
            return self._respond(request, whose)
        with on_behalf_of(whose):
            return self._get_response(request)

    async def _respond(self, request: Any, whose: Tenant | None) -> Any:
        with on_behalf_of(whose):
            return await self._get_response(request)

    def process_exception(self, request: Any, error: Exception) -> Any:
        """See Django's documentation of middleware."""
        from django.http import HttpResponse  # type: ignore[import-untyped]  # noqa: PLC0415 - the caller has loaded it
        from django.utils.log import log_response  # type: ignore[import-untyped]  # noqa: PLC0415 - likewise

        answer = self.answer(error)
        if answer is None:
            return None
        response = HttpResponse(answer.body, status=answer.status, headers=answer.headers)
        log_response("%s: %s", response.reason_phrase, request.path, response=response, request=request, level="debug")
        return response


def _known(rule: Callable[[Any], AnyTenant | None] | None, request: Any) -> Tenant | None:
    """Return on whose behalf a request is, by what the application says."""
    whose = None if rule is None else rule(request)
    return None if whose is None else check_tenant(whose)


def _on_behalf(app: ASGIApplication, tenant: Callable[[Scope], AnyTenant | None]) -> ASGIApplication:
    """Have an application serve each request on behalf of its tenant."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        with on_behalf_of(None if scope["type"] == "lifespan" else _known(tenant, scope)):
            await app(scope, receive, send)

    return serve


def _headers(answer: HTTPRefusal) -> Iterator[tuple[str, str]]:
    yield from answer.headers.items()
    yield "Content-Length", str(len(answer.body))


def _body(answer: HTTPRefusal, method: str) -> bytes:
    return b"" if method == "HEAD" else answer.body
