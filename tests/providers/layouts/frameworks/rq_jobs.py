"""RQ: two workers at work, jobs waiting, scheduled, deferred, and one whose worker crashed."""

# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

from redis import Redis
from rq import Queue, SimpleWorker

from report import oldest, queue, tell, url

connection = Redis.from_url(url())
mail = Queue("mail", connection=connection)
prefix = Queue.redis_queue_namespace_prefix.removesuffix(":queue:")
running = [mail.enqueue("time.sleep", 60) for _ in range(2)]
workers = []
for _ in running:
    if (pid := os.fork()) == 0:
        SimpleWorker([Queue("mail", connection=Redis.from_url(url()))], connection=Redis.from_url(url())).work()
    workers.append(pid)
try:
    while connection.zcard(f"{prefix}:wip:mail") < len(running):
        time.sleep(0.01)
    connection.zadd(f"{prefix}:wip:mail", {"crashed": time.time() - 1})
    with oldest():
        mail.enqueue("time.sleep", 60)
    for _ in range(2):
        mail.enqueue("time.sleep", 60)
    mail.enqueue("time.sleep", 60, depends_on=running[0])
    for _ in range(4):
        mail.enqueue_in(timedelta(minutes=1), "time.sleep", 60)
    full = queue("mail", 3, 2, 4, aged=True)
    with oldest():
        Queue("reports", connection=connection).enqueue("time.sleep", 60)
    tell(full, queue("reports", 1, 0, 0, aged=True))
finally:
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
