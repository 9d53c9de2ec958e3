"""Django runs on-commit callbacks one by one, up to the first that raises: so Celery's tasks use the robust way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import redis

    from processes.conftest import Python

PROGRAM = """
    import sys
    import django
    from django.conf import settings
    databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    settings.configure(DATABASES=databases, INSTALLED_APPS=[], USE_TZ=True, LOGGING_CONFIG=None)
    django.setup()
    from celery import Celery
    from celery.contrib.django.task import DjangoTask
    from django.db import transaction
    from backpressure import BackpressureController, InMemoryStatsProvider, JobShedError
    from backpressure.integrations.celery import protect

    class RobustTask(DjangoTask):
        def apply_async_on_commit(self, *args, **kwargs):
            transaction.on_commit(lambda: self.apply_async(*args, **kwargs), robust=True)

        def delay_on_commit(self, *args, **kwargs):
            transaction.on_commit(lambda: self.delay(*args, **kwargs), robust=True)

    task_class = {"robust": RobustTask, "plain": DjangoTask}[sys.argv[2]]
    app = Celery("shop", broker=sys.argv[1], task_cls=task_class, set_as_current=False)
    controller = BackpressureController(None, InMemoryStatsProvider({"celery": 950}))  # red for low, green for high
    protect(app, controller, priority={"shop.newsletter": "low", "shop.receipt": "high"})

    def newsletter(): ...
    def receipt(): ...

    newsletter, receipt = app.task(name="shop.newsletter")(newsletter), app.task(name="shop.receipt")(receipt)
    with controller:
        try:
            with transaction.atomic():
                newsletter.delay_on_commit()
                newsletter.apply_async_on_commit()
                receipt.delay_on_commit()
        except JobShedError:
            print("shed")
"""


@pytest.mark.parametrize(("task_class", "printed", "sent"), [("plain", "shed\n", 0), ("robust", "", 1)])
def test_a_low_task_that_is_shed_on_commit_drops_the_high_one_behind_it_unless_robust(
    python: Python, redis_client: redis.Redis, redis_url: str, task_class: str, printed: str, sent: int
) -> None:
    pytest.importorskip("django")
    pytest.importorskip("celery")
    ended = python(PROGRAM, redis_url, task_class)
    assert (ended.returncode, ended.stdout) == (0, printed), ended.stderr
    assert redis_client.llen("celery") == sent
    assert ended.stderr.count("JobShedError") == (2 if sent else 0)
