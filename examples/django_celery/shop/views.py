"""The pages that customers and Prometheus ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from shop.tasks import receipt

if TYPE_CHECKING:
    from django.http import HttpRequest


def buy(request: HttpRequest, customer: int) -> HttpResponse:
    """Sell something. If the receipt is refused, the middleware answers 503 or 429 with ``Retry-After``."""
    receipt.delay(customer)
    return HttpResponse("thank you\n", status=202)


def metrics(request: HttpRequest) -> HttpResponse:
    """Show the metrics of all processes that share ``PROMETHEUS_MULTIPROC_DIR``: the workers' too."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
