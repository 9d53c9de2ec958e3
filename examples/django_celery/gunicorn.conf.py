"""gunicorn: a controller for each of two workers, and the metrics of workers that have ended."""

from __future__ import annotations

from typing import Any

wsgi_app = "shop.wsgi"
workers = 2


def post_worker_init(worker: Any) -> None:
    from shop.celery import controller

    controller.start()


def worker_exit(server: Any, worker: Any) -> None:
    from shop.celery import controller

    controller.stop()


def child_exit(server: Any, worker: Any) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)
