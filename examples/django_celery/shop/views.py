"""The pages that customers, Prometheus and operators ask for."""

import os

from django.http import HttpRequest, HttpResponse, JsonResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from shop.celery import controller
from shop.tasks import newsletter, receipt


def buy(request: HttpRequest, customer: int) -> HttpResponse:
    """Sell something. Receipts are high: they are never shed."""
    receipt.delay(customer)
    return HttpResponse("thank you\n", status=202)


def subscribe(request: HttpRequest, customer: int) -> HttpResponse:
    """Send a newsletter. If it is refused, the middleware answers."""
    newsletter.delay(customer)
    return HttpResponse("on its way\n", status=202)


def metrics(request: HttpRequest) -> HttpResponse:
    """Show the metrics of all processes, the worker's too."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    page = generate_latest(registry)
    return HttpResponse(page, content_type=CONTENT_TYPE_LATEST)


def health(request: HttpRequest) -> HttpResponse:
    """Show what the controller of this process knows."""
    return JsonResponse({"pid": os.getpid(), **controller.health()})
