"""Celery: tasks of every priority, with an ETA, and prefetched; with the broker's defaults and with options."""

# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

from __future__ import annotations

from celery import Celery

from report import queue, tell, url


def fill(app: Celery) -> None:
    """Put ten tasks of all priorities and one with an ETA into mail, of which a worker has taken four."""
    for priority in range(10):
        app.send_task("work", queue="mail", priority=priority)
    app.send_task("work", queue="mail", countdown=60)
    for _ in range(3):
        app.send_task("work", queue="other")
    channel = app.connection().channel()
    channel.basic_qos(0, 4, False)
    consumer = app.amqp.TaskConsumer(channel, queues=[app.amqp.queues["mail"]], callbacks=[lambda *_: None])
    consumer.consume()
    while channel.qos.can_consume():
        channel.connection.client.drain_events(timeout=5)
    keep.append(consumer)


keep: list[object] = []
default = Celery(broker=url())
options = {
    "global_keyprefix": "{shop}:",
    "priority_steps": list(range(10)),
    "sep": ":",
    "queue_order_strategy": "priority",
}
custom = Celery(broker=url())
custom.conf.broker_transport_options = options
for app in (default, custom):
    app.conf.task_create_missing_queues = True
    fill(app)
tell(
    queue("mail", 7, None, None),
    queue("other", 3, None, None),
    queue("mail", 7, None, None, options=options),
    queue("other", 3, None, None, options=options),
)
