"""Hooks and web middleware: on whose behalf a job is enqueued, by a rule or by the request that is served."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import BackpressureController, ConfigurationError, InMemoryStatsProvider, Tenant
from backpressure.integrations._shared.hook import Hook
from backpressure.integrations._shared.request import current_tenant, on_behalf_of
from backpressure.integrations.web import BackpressureASGI, BackpressureDjango, BackpressureWSGI

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def controller() -> Iterator[BackpressureController]:
    with BackpressureController(None, InMemoryStatsProvider({"mail": 0})) as controller:
        yield controller


def whose(hook: Hook, job: object = None, *named: object) -> object:
    place = hook.place(job, name="send", queue_name="mail", named=lambda: named)
    return place[2] if len(place) > 2 else None


class TestRules:
    def test_a_name_is_looked_up_among_arguments_and_then_headers(self, controller: BackpressureController) -> None:
        hook = Hook(controller, "low", tenant="customer")
        assert whose(hook, None, {"customer": "acme"}, {"customer": "other"}) == Tenant("acme")
        assert whose(hook, None, {"to": "me"}, {"customer": ("acme", "gold")}) == Tenant("acme", "gold")
        assert whose(hook, None, {"customer": 7}) == Tenant("7")
        assert whose(hook, None, {"customer": None}, None, "text") is None

    def test_a_function_is_given_the_job(self, controller: BackpressureController) -> None:
        hook = Hook(controller, "low", tenant=lambda job: job["whose"])
        assert whose(hook, {"whose": "acme"}) == Tenant("acme")
        assert whose(hook, {"whose": None}) is None

    def test_without_a_rule_it_is_the_requests(self, controller: BackpressureController) -> None:
        for rule in (None, "customer", lambda _: None):
            hook = Hook(controller, "low", tenant=rule)
            with on_behalf_of(Tenant("acme")):
                assert whose(hook) == Tenant("acme")
            assert whose(hook) is None

    @pytest.mark.parametrize("rule", ["", 7, b"x", ["customer"]])
    def test_others_are_refused(self, controller: BackpressureController, rule: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"^tenant is .*: give the name of an argument or header"):
            Hook(controller, "low", tenant=rule)

    @pytest.mark.parametrize("bad", ["", "x" * 256, 1.5, True])
    def test_what_is_no_tenant_is_refused(self, controller: BackpressureController, bad: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"^tenant is "):
            whose(Hook(controller, "low", tenant="customer"), None, {"customer": bad})

    def test_places_of_tenants_are_asked_for_each(self, controller: BackpressureController) -> None:
        hook = Hook(controller, "low", tenant="customer")
        tables = [{"customer": who} for who in "aab"]
        places = [hook.place(None, name="s", queue_name="mail", named=partial(list, [table])) for table in tables]
        with hook.admitted([*places, hook.place(None, name="s", queue_name="mail")]):
            pass
        assert sum(controller._engine.totals()["mail", 0].reasons) == 3


class TestRequests:
    def test_asgi(self) -> None:
        seen: list[object] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append((scope["type"], current_tenant(), await asyncio.to_thread(current_tenant)))

        async def main() -> None:
            middleware = BackpressureASGI(app, tenant=lambda scope: scope.get("whose"))
            for kind, who in (("http", "acme"), ("websocket", ("b", "gold")), ("http", None)):
                scope = {"type": kind, "whose": who}
                await middleware(scope, None, None)  # type: ignore[arg-type]
                assert current_tenant() is None

        asyncio.run(main())
        assert seen == [
            ("http", ("acme", ""), ("acme", "")),
            ("websocket", ("b", "gold"), ("b", "gold")),
            ("http", None, None),
        ]

    def test_wsgi(self) -> None:
        seen: list[object] = []

        def app(environ: Any, start_response: Any) -> list[bytes]:
            seen.append(current_tenant())
            start_response("200 OK", [])
            return []

        middleware = BackpressureWSGI(app, tenant=lambda environ: environ.get("HTTP_X_TENANT"))
        for environ in ({"REQUEST_METHOD": "GET", "HTTP_X_TENANT": "acme"}, {"REQUEST_METHOD": "GET"}):
            middleware(environ, lambda *_: lambda _: None)
        assert seen == [Tenant("acme"), None]
        with pytest.raises(ConfigurationError, match=r"^tenant is "):
            middleware({"REQUEST_METHOD": "GET", "HTTP_X_TENANT": ""}, lambda *_: lambda _: None)

    def test_django(self) -> None:
        class Mine(BackpressureDjango):
            tenant = staticmethod(lambda request: request)

        async def view(_: object) -> object:
            return current_tenant()

        assert Mine(lambda _: current_tenant())("acme") == Tenant("acme")
        assert asyncio.run(Mine(view)("acme")) == Tenant("acme")
        assert Mine(lambda _: current_tenant())(None) is None
        assert BackpressureDjango(lambda _: current_tenant())("acme") is None
