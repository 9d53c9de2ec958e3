"""Dramatiq: messages waiting, taken, delayed, and delayed ones that a worker keeps in memory."""

# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from report import oldest, queue, tell, url

broker = RedisBroker(url=url())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="mail")
def work() -> None:
    """Never run: taking a message is all that a worker does before."""


for _ in range(2):
    work.send()
taken = broker.consume("mail", prefetch=2)
kept = [next(taken) for _ in range(2)]
with oldest():
    work.send()
for _ in range(2):
    work.send()
for _ in range(4):
    work.send_with_options(delay=60_000)
later = broker.consume("mail.DQ", prefetch=3)
kept += [next(later) for _ in range(3)]
tell(queue("mail", 3, 2, 4, aged=True))
