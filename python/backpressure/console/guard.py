"""Who may ask at all: requests by names, and from pages, that are not the console's end here.

A page of somebody else's that is open in an operator's browser can send requests to the loopback interface, and by a
name of its own that it points there (DNS rebinding) read the answers. So names are listed, and a foreign ``Origin`` is
refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "hostname"]

_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_OURS = ("same-origin", "none", "")
_SHOWN = 100


def hostname(host: str) -> str:
    """Return the name in a ``Host`` header, without its port; an IPv6 address in its brackets."""
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()


class Guard:
    """Around an application.

    Args:
        app: what is guarded.
        hosts: names by which it may be asked, in lower case and without a port.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(map(str.lower, hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        app = self._app if refusal is None else PlainTextResponse(*refusal)
        await app(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> tuple[str, int] | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or hostname(hosts[0]) not in self._hosts:
            asked = ascii(", ".join(hosts)[:_SHOWN])
            return f"the console is not asked by the name {asked}: list it in hosts, or give serve --allow-host\n", 421
        writes = scope["method"] not in {"GET", "HEAD"}
        if len(origins) > 1 or (writes and not origins) or not all(_is_of(one, hosts[0]) for one in origins):
            return "only the console's own page may ask this: behind a proxy, pass the header Host on as it came\n", 403
        is_page = scope["path"].endswith("/") and not writes
        if headers.get("sec-fetch-site", "") not in _OURS and not is_page:
            return "only the console's own page may ask this: open the console itself\n", 403
        return None


def _is_of(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and parts.netloc.lower() == host.lower()
