"""Flask, as any web server: `refusal` turns errors into answers with ``Retry-After``. The queue is a plain list."""

from __future__ import annotations

import http.client
import logging
import threading
from typing import Any

import redis
from flask import Flask
from werkzeug.serving import make_server

import shop
from backpressure import BackpressureController, BackpressureError, RedisStatsProvider
from backpressure.integrations.web import refusal

app = Flask("shop")
store = redis.Redis.from_url(shop.URL, decode_responses=True)
provider = RedisStatsProvider(shop.URL, ["mail"])
controller = BackpressureController(shop.CONFIG, provider)
PRIORITY = {"newsletter": "low", "receipt": "high"}


@app.post("/<any(newsletter, receipt):kind>/<customer>")
def mail(kind: str, customer: str) -> tuple[str, int]:
    controller.run(PRIORITY[kind], "mail", store.rpush, "mail", f"{kind} {customer}", max_wait=0.2)
    return "", 202


@app.errorhandler(BackpressureError)
def refused(error: BackpressureError) -> tuple[bytes, int, dict[str, str]]:
    answer = refusal(error)
    if answer is None:
        raise error
    return answer.body, answer.status, answer.headers


def work() -> None:
    """Send the mails in the list, for ever."""
    while True:
        taken: Any = store.blpop("mail")
        kind, customer = taken[1].split()
        getattr(shop, kind)(int(customer))


def campaign(port: int) -> list[int]:
    """Post mails to all customers; return those whose newsletter was refused."""
    postponed: list[int] = []
    client = http.client.HTTPConnection("127.0.0.1", port)
    for customer in shop.customers():
        client.request("POST", f"/newsletter/{customer}")
        answer = client.getresponse()
        answer.read()
        if answer.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            if not postponed:
                print(f"{answer.status} {answer.reason}, Retry-After: {answer.headers['Retry-After']}")
            postponed.append(customer)
        if shop.buys(customer):
            client.request("POST", f"/receipt/{customer}")
            client.getresponse().read()
    return postponed


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    for function in (work, server.serve_forever):
        threading.Thread(target=function, daemon=True).start()
    with controller:
        shop.report(campaign(server.port))
    server.shutdown()
    provider.close()
