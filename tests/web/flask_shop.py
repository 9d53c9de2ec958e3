"""The Flask shop that servers under test serve. It takes orders while its queue in Redis has room."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import flask

from backpressure import BackpressureController, BackpressureError, RedisStatsProvider
from backpressure.integrations.web import BackpressureWSGI, refusal
from web.config import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator


def create_app(controller: BackpressureController) -> flask.Flask:
    """Return the shop; `controller` runs as long as the process does."""
    controller.start()
    app = flask.Flask(__name__)
    app.wsgi_app = BackpressureWSGI(app.wsgi_app)  # type: ignore[method-assign]

    @app.errorhandler(BackpressureError)
    def refused(error: BackpressureError) -> tuple[bytes, int, dict[str, str]]:
        answer = refusal(error)
        if answer is None:
            raise error
        return answer.body, answer.status, answer.headers

    @app.get("/order")
    def order() -> tuple[str, int]:
        controller.run("low", "jobs", str, max_wait=0.2)
        return "sold", 202

    @app.get("/stream")
    def stream() -> flask.Response:
        def parts() -> Iterator[str]:
            controller.run("low", "jobs", str, max_wait=0.2)
            yield "sold"

        # A length that the answer must not get.
        return flask.Response(parts(), 202, {"Content-Length": "4"})

    return app


application = create_app(BackpressureController(CONFIG, RedisStatsProvider(os.environ["TEST_REDIS_URL"], ["jobs"])))
