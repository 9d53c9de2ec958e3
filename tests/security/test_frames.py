"""No secret is among the local variables that an error report shows, and no object is too unfinished to be shown."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    AsyncBackpressureController,
    AsyncRedisStatsProvider,
    BackpressureConfig,
    BackpressureController,
    ConfigurationError,
    InMemoryStatsProvider,
    RedisStatsProvider,
    integrations,
    providers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

USER, WORD = "canary-user", "canary-9f3b-word"


def url(scheme: str = "redis", rest: str = "/0") -> str:
    return f"{scheme}://{USER}:{WORD}@127.0.0.1:1{rest}"


def frames(error: BaseException) -> str:
    """Return the traceback as shown with locals, without this file's own frames, and of all causes and contexts."""
    texts: list[str] = []
    link: BaseException | None = error
    while link is not None:
        trace = link.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        texts += traceback.TracebackException(type(link), link, trace, capture_locals=True).format(chain=False)
        link = link.__cause__ or link.__context__
    return "".join(texts)


REDIS: dict[str, Callable[[Any], object]] = {
    "no queues": lambda kind: kind(url()),
    "queues is a str": lambda kind: kind(url(), "q"),
    "both the wrong way round": lambda kind: kind(["q"], url()),
    "no such option": lambda kind: kind(url(rest="/0?nonsense=1"), ["q"]),
    "no such argument": lambda kind: kind(url(), ["q"], nonsense=1),
    "no port": lambda kind: kind(f"redis://{USER}:{WORD}/0", ["q"]),
    "timeout": lambda kind: kind(url(), ["q"], timeout=0),
    "no such layout": lambda kind: kind(url(), ["q"], layout="nonsense"),
    "from_celery": lambda kind: kind.from_celery(Having(conf=Having(broker_url=url("amqp")))),
    "from_rq": lambda kind: kind.from_rq(url()),
    "from_dramatiq": lambda kind: kind.from_dramatiq(url()),
    "from_huey": lambda kind: kind.from_huey(url()),
    "from_saq": lambda kind: kind.from_saq(url()),
    "from_arq": lambda kind: kind.from_arq(url()),
    "from_taskiq": lambda kind: kind.from_taskiq(url()),
}
OTHERS: dict[str, Callable[[], object]] = {
    "RabbitMQ": lambda: providers.RabbitMQStatsProvider(url("amqp"), "q"),
    "RabbitMQ scheme": lambda: providers.RabbitMQStatsProvider(url("ftp"), ["q"]),
    "Postgres": lambda: providers.PostgresStatsProvider(url("postgresql"), query="nonsense"),
    "Postgres scheme": lambda: providers.PostgresStatsProvider(url("ftp"), query="procrastinate"),
    "Prometheus": lambda: providers.PrometheusStatsProvider(url("ftp"), "up"),
    "Prometheus password": lambda: providers.PrometheusStatsProvider("http://127.0.0.1:1", None, authorization=WORD),  # type: ignore[call-arg]
    "SQS": lambda: providers.SQSStatsProvider(["q"], endpoint_url=url("http")),
    "Kafka": lambda: providers.KafkaStatsProvider("127.0.0.1:1", {"q": 5}, sasl_plain_password=WORD),
    "controller": lambda: BackpressureController(url(), InMemoryStatsProvider()),  # type: ignore[arg-type]
    "controller's provider": lambda: BackpressureController(None, url()),  # type: ignore[arg-type]
    "async controller": lambda: AsyncBackpressureController(url(), InMemoryStatsProvider()),  # type: ignore[arg-type]
    "mapping": lambda: BackpressureConfig.from_mapping({"redis_url": url(), "max_queues": 0}),
    "environment": lambda: BackpressureConfig.from_env(
        {"BACKPRESSURE_MAX_QUEUES": "0", "BACKPRESSURE_REDIS_URL": url(), "PASSWORD": WORD}
    ),
    "max_queues": lambda: BackpressureConfig.from_mapping({"max_queues": url()}),
}


class Having:
    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)


@pytest.mark.parametrize("kind", [RedisStatsProvider, AsyncRedisStatsProvider])
@pytest.mark.parametrize("case", REDIS)
def test_no_secret_of_a_redis_provider(kind: Any, case: str) -> None:
    _refused(lambda: REDIS[case](kind))


@pytest.mark.parametrize("case", OTHERS)
def test_no_secret_of_other_constructors(case: str) -> None:
    _refused(OTHERS[case])


def _refused(make: Callable[[], object]) -> None:
    with pytest.raises((ConfigurationError, TypeError, ValueError)) as caught:
        make()
    shown = frames(caught.value)
    assert WORD not in shown
    assert USER not in shown
    assert "repr() failed" not in shown


def public_classes() -> list[type]:
    """Return all classes of this package that a user may import by a public path."""
    names = ["backpressure", "backpressure.testing", "backpressure.providers", "backpressure.providers.layouts"]
    names += [f"backpressure.integrations.{each.name}" for each in pkgutil.iter_modules(integrations.__path__)]
    found: dict[type, None] = {}
    for name in names:
        if "._" not in name:
            with contextlib.suppress(ImportError):  # of a framework that is not installed here
                module = importlib.import_module(name)
                values = [getattr(module, public) for public in module.__all__]
                kinds = [value for value in values if inspect.isclass(value)]
                found |= dict.fromkeys(kind for kind in kinds if kind.__module__.startswith("backpressure"))
    return list(found)


CLASSES = public_classes()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_what_is_half_built_can_be_shown(kind: Any) -> None:
    try:
        unfinished = kind.__new__(kind)
    except TypeError:  # an Enum, a NamedTuple, an abstract class: there is none without its values
        return
    assert repr(unfinished)


def test_no_class_is_forgotten() -> None:
    assert {RedisStatsProvider, BackpressureController, providers.KafkaStatsProvider} <= set(CLASSES)
    assert len(CLASSES) > 60
