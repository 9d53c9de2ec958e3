"""On whose behalf the request is that the running code serves: web middleware says it, hooks ask for it."""

from __future__ import annotations

import contextlib
import contextvars
from typing import TYPE_CHECKING

from backpressure.integrations._shared.context import setting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure._model.tenant import Tenant

__all__ = ["current_tenant", "on_behalf_of"]

_tenant: contextvars.ContextVar[Tenant | None] = contextvars.ContextVar("_tenant", default=None)


def current_tenant() -> Tenant | None:
    """Return the tenant of the request that the running code serves, ``None`` without one."""
    return _tenant.get()


@contextlib.contextmanager
def on_behalf_of(tenant: Tenant | None) -> Iterator[None]:
    """Serve a request of a tenant in the body."""
    with setting(_tenant, tenant):
        yield
