"""Where Celery sends to after all that it merges, and canvas: all of it or nothing, however nested."""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import JobShedError
from backpressure.providers.layouts import CeleryLayout
from integrations.frameworks import required
from integrations.jobs import ran
from integrations.overload import OVERLOAD, decided

kombu = required("kombu")
required("celery")

import celery  # noqa: E402 - skipped before where it is missing
from celery.canvas import chunks, xmap, xstarmap  # noqa: E402
from celery.contrib.testing import worker  # noqa: E402
from celery.result import AsyncResult, allow_join_result  # noqa: E402

from backpressure.integrations.celery import protect, publish  # noqa: E402
from integrations.celery_app import length, sent, shop  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from backpressure import BackpressureController
    from integrations.conftest import Watch

pytestmark = pytest.mark.filterwarnings(r"ignore:\s+The '(queue|priority)' task attribute")
#: The two ways to send a canvas, which are one.
BOTH = pytest.mark.parametrize("send", [lambda s, **o: s.apply_async(**o), publish], ids=["plain", "publish"])
BACKENDS = pytest.mark.parametrize("backend", ["redis", "files"], indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> str:
    """Where results lie: beside the queues, or in files, a backend that counts no chords, so a task watches them."""
    return f"file://{tmp_path}" if getattr(request, "param", None) == "files" else redis_url


@pytest.fixture
def app(redis_client: redis.Redis, redis_url: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with shop(redis_url, backend=backend) as app:
        # A result of Celery 5.4's that is collected while another one subscribes waits for itself.
        monkeypatch.delattr(AsyncResult, "__del__")
        yield app
        if backend == redis_url:
            consumer = app.backend.result_consumer
            consumer.stop()
            consumer.subscribed_to.clear()  # or results would reconnect as they die
            consumer._pubsub = None
            app.backend.client.connection_pool.disconnect()


@pytest.fixture
def controller(watch: Watch, app: Any) -> BackpressureController:
    return watch(CeleryLayout.from_app(app), "mail", "clicks")


def s(app: Any, name: str, *args: Any, **options: Any) -> Any:
    return app.signature(f"shop.{name}", args, immutable=True, options=options)


def pair(app: Any, *names: str) -> list[Any]:
    return [s(app, name) for name in names or ("count", "count")]


# Ways that a task may go, each to whatever queue Celery sends it to: `bound` has the queue "mail" as its own, `routed`
# is led there by `task_routes`, `count` to the default queue, "clicks".
WAYS = {
    "task": lambda app: s(app, "bound").apply_async(),
    "task's other": lambda app: s(app, "bound").apply_async(queue="clicks"),
    "call": lambda app: s(app, "count").apply_async(queue="mail"),
    "call with a Queue": lambda app: s(app, "count").apply_async(queue=kombu.Queue("mail")),
    "signature": lambda app: s(app, "count").set(queue="mail").apply_async(),
    "publish": lambda app: publish(s(app, "count"), queue="mail"),
    "publish over signature": lambda app: publish(s(app, "count", queue="clicks"), queue="mail"),
    "name": lambda app: app.send_task("shop.bound"),
    "name with a queue": lambda app: app.send_task("shop.count", queue="mail"),
    "name that is routed": lambda app: app.send_task("shop.routed"),
    "group's call": lambda app: celery.group(pair(app)).apply_async(queue="mail"),
    "group": lambda app: celery.group(pair(app)).set(queue="mail").apply_async(),
    "in a group": lambda app: celery.group(s(app, "count"), s(app, "count", queue="mail")).apply_async(),
    "own in a group": lambda app: celery.group(pair(app, "bound", "routed")).apply_async(),
    "nested group": lambda app: celery.group(celery.group(pair(app)).set(queue="mail"), s(app, "count")).apply_async(),
    "nested group's call": lambda app: celery.group(celery.group(pair(app)), s(app, "count")).apply_async(queue="mail"),
    "chain's call": lambda app: celery.chain(pair(app)).apply_async(queue="mail"),
    "chain": lambda app: celery.chain(pair(app)).set(queue="mail").apply_async(),
    "head of a chain": lambda app: celery.chain(pair(app, "bound", "count")).apply_async(),
    "group in a chain": lambda app: celery.chain(celery.group(pair(app)), s(app, "count")).apply_async(queue="mail"),
    "chord's call": lambda app: celery.chord(pair(app), s(app, "count")).apply_async(queue="mail"),
    "chord": lambda app: celery.chord(pair(app), s(app, "count")).set(queue="mail").apply_async(),
    "in a header": lambda app: celery.chord(pair(app, "count", "bound"))(s(app, "count")),
    "header's group": lambda app: celery.chord(celery.group(pair(app)).set(queue="mail"))(s(app, "count")),
    "chord of chains": lambda app: celery.chord([celery.chain(pair(app, "bound", "count"))] * 2)(s(app, "count")),
    "nested chord": lambda app: celery.group(celery.chord(pair(app), s(app, "count", queue="mail"))).apply_async(),
    "chord without a header": lambda app: celery.chord([])(s(app, "bound")),
    "chunks' call": lambda app: chunks(s(app, "count"), [(1,), (2,)], 1, app=app).apply_async(queue="mail"),
    "chunks": lambda app: chunks(s(app, "count"), [(1,), (2,)], 1, app=app).set(queue="mail").apply_async(),
    "routed chunks": lambda app: chunks(s(app, "routed"), [(1,), (2,)], 1, app=app).apply_async(),
    "map's call": lambda app: xmap(s(app, "count"), [1], app=app).apply_async(queue="mail"),
    "map": lambda app: xmap(s(app, "count"), [1], app=app).set(queue="mail").apply_async(),
    "routed map": lambda app: xmap(s(app, "routed"), [1], app=app).apply_async(),
    "routed starmap": lambda app: xstarmap(s(app, "routed"), [(1,)], app=app).apply_async(),
    "tenant": lambda app: celery.group(s(app, "tenant"), s(app, "count")).apply_async(),
}
# Where queues are bound to exchanges by keys.
KEYS = {
    "topic": {"queue": "news", "routing_key": "news.eu.daily"},
    "topic of another": {"queue": "news", "routing_key": "mail.a"},
    "exchange and key": {"exchange": "shop", "routing_key": "news.us"},
    "key of the default": {"routing_key": "mail.a"},
    "direct key": {"exchange": "office", "routing_key": "letters"},
    "an Exchange": {"exchange": kombu.Exchange("shop", "topic"), "routing_key": "mail.first"},
}


def nothing(*args: Any) -> None: ...
def nothing_of_a_tenant(*args: Any) -> None: ...


class Tenant(celery.Task):  # type: ignore[misc]
    """A task that chooses its queue as it is sent."""

    abstract = True
    calls = 0

    def apply_async(self, *args: Any, **options: Any) -> Any:
        Tenant.calls += 1
        return super().apply_async(*args, **{**options, "queue": "mail"})


class Broken(celery.Task):  # type: ignore[misc]
    """A task that cannot be sent."""

    abstract = True

    def apply_async(self, *args: Any, **options: Any) -> Any:
        raise LookupError


def asked_and_sent(app: Any, controller: Any, client: redis.Redis, queues: set[str], send: Any) -> tuple[Any, Any]:
    """Send; return how many messages the gate was asked for by queue, and how many each queue got."""
    asked: Counter[str] = Counter()

    def priority(signature: Any) -> str:
        asked[signature.options["queue"]] += 1
        return "high"

    protect(app, controller, priority=priority)
    before = {queue: length(client, queue) for queue in queues}
    send(app)
    return asked, Counter({q: length(client, q) - before[q] for q in queues if length(client, q) > before[q]})


@pytest.mark.parametrize("send", WAYS.values(), ids=WAYS)
def test_the_gate_looks_where_celery_sends(
    app: Any, controller: BackpressureController, redis_client: redis.Redis, send: Any
) -> None:
    app.task(name="shop.bound", shared=False, queue="mail")(nothing)
    app.task(name="shop.tenant", shared=False, base=Tenant)(nothing_of_a_tenant)
    routes = {"shop.count": {"queue": "clicks"}, "shop.routed": {"queue": "mail"}}
    app.conf.update(task_default_queue="clicks", task_routes=routes)
    calls = Tenant.calls
    asked, got = asked_and_sent(app, controller, redis_client, {"mail", "clicks"}, send)
    assert asked == got
    assert asked
    assert Tenant.calls - calls <= 1


@pytest.mark.parametrize("options", KEYS.values(), ids=KEYS)
def test_the_gate_looks_where_keys_lead(
    app: Any, controller: BackpressureController, redis_client: redis.Redis, options: dict[str, Any]
) -> None:
    kinds = {"shop": "topic", "office": "direct"}
    shop, office = (kombu.Exchange(name, kind) for name, kind in kinds.items())
    app.conf.task_queues = [
        kombu.Queue("mail", bindings=[kombu.binding(shop, "mail.#")]),
        kombu.Queue("news", shop, "news.#"),
        kombu.Queue("daily", shop, "news.*.none"),
        kombu.Queue("post", office, "letters"),
        kombu.Queue("other", office, "other"),
    ]
    del app.amqp  # Celery looked at its queues already
    app.amqp.queues["mail"].exchange = shop
    with app.connection_for_write() as connection:
        for queue in app.amqp.queues.values():
            queue(connection.default_channel).declare()
    asked, got = asked_and_sent(
        app, controller, redis_client, set(app.amqp.queues), lambda app: app.send_task("unknown.here", **options)
    )
    assert asked == got
    assert sum(asked.values()) == 1


def test_the_priority_rule_sees_what_celery_merged(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    seen: list[tuple[str, Any, Any]] = []

    def priority(signature: Any) -> str:
        seen.append((signature.task, signature.options["queue"], signature.options.get("priority")))
        return "high"

    app.task(name="shop.bound", shared=False, queue="mail", priority=3)(nothing)
    app.conf.update(task_routes={"shop.routed": {"queue": "clicks", "priority": 6}})
    protect(app, controller, priority=priority)
    s(app, "bound").apply_async()
    publish(s(app, "bound"), queue="clicks", priority=0)
    celery.group(s(app, "bound"), s(app, "bound")).apply_async(priority=9)
    xmap(s(app, "routed"), [1], app=app).apply_async()
    assert seen == [
        ("shop.bound", "mail", 3),
        ("shop.bound", "clicks", 0),
        *[("shop.bound", "mail", 9)] * 2,
        ("shop.routed", "clicks", 6),
    ]


def in_chunks(task: Any) -> Any:
    return task.chunks([(1,), (2,)], 1)()


def in_a_group(task: Any) -> Any:
    return celery.group(task.chunks([(1,)], 1).group(), task.map([1])).apply_async()


def in_a_chain(task: Any) -> Any:
    return celery.chain(xstarmap(task.s(), [(1,)], app=task.app), task.si()).apply_async()


@pytest.mark.parametrize("send", [in_chunks, in_a_group, in_a_chain])
def test_chunks_and_maps_are_of_the_priority_of_their_task(
    app: Any, controller: BackpressureController, redis_client: redis.Redis, send: Any
) -> None:
    protect(app, controller, priority={"shop.work": "high", "*": "low"}, max_wait=0)
    send(app.tasks["shop.work"])
    assert sent(redis_client)
    before = sent(redis_client)
    send(app.tasks["shop.important"])  # marked so
    assert len(sent(redis_client)) == 2 * len(before)
    with pytest.raises(JobShedError):
        send(app.tasks["shop.add"])


def test_a_map_is_of_the_priority_that_its_signature_is_marked_with(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(app, controller, priority="low", max_wait=0)
    xmap(s(app, "work").set(backpressure_priority="high"), [1], app=app).apply_async()
    (message,) = sent(redis_client)
    assert "backpressure_priority" not in str(message)


class Tenants(celery.Celery):  # type: ignore[misc]
    """An app that chooses the queue."""

    def send_task(self, name: str, *args: Any, **options: Any) -> Any:
        return super().send_task(name, *args, **{**options, "queue": "mail"})


class Closed(celery.Celery):  # type: ignore[misc]
    """An app that hands on nothing that it was given, so that it asks nobody."""

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        return super().send_task(name, args, kwargs, queue="mail")


@pytest.mark.parametrize(("made", "asked"), [(Tenants, 3), (Closed, 0)])
def test_an_app_that_chooses_queues_itself_is_believed(
    watch: Watch, redis_client: redis.Redis, redis_url: str, made: Any, asked: int
) -> None:
    seen: list[Any] = []

    def priority(signature: Any) -> str:
        seen.append(signature.options["queue"])
        return "high"

    app = made("shop", broker=redis_url, set_as_current=False)
    protect(app, watch(CeleryLayout.from_app(app), "mail"), priority=priority)
    app.send_task("a.task")
    celery.group(app.signature("a.task"), app.signature("a.task")).apply_async()
    assert (length(redis_client), seen) == (3, ["mail"] * asked)
    app.close()


def names(client: redis.Redis) -> Any:
    return client.keys()


NESTED = {
    "group": lambda app: celery.group(pair(app, "work", "work")),
    "generator": lambda app: celery.group(s(app, "work") for _ in range(3)),
    "generator of generators": lambda app: celery.group(
        celery.group(s(app, name) for _ in range(2)) for name in ("important", "work")
    ),
    "high before low": lambda app: celery.group(pair(app, "important", "work")),
    "groups": lambda app: celery.group(
        celery.group(pair(app, "important", "important")), celery.group(pair(app, "important", "work"))
    ),
    "chord in a group": lambda app: celery.group(
        s(app, "important"), celery.chord(pair(app, "work", "work"), s(app, "important")), s(app, "important")
    ),
    "chord in a header": lambda app: celery.chord(
        [s(app, "important"), celery.chord(pair(app, "work", "work"), s(app, "important"))], s(app, "important")
    ),
    "chain of a group": lambda app: celery.chain(celery.group(pair(app, "important", "work")), s(app, "important")),
    "chains in a group": lambda app: celery.group(
        celery.chain(pair(app, "important", "work")), celery.chain(pair(app, "work", "important"))
    ),
    "group in a chain in a group": lambda app: celery.group(
        s(app, "important"), celery.chain(celery.group(pair(app, "important", "work")), s(app, "important"))
    ),
    "chunks": lambda app: chunks(s(app, "work"), [(1,), (2,), (3,)], 1, app=app),
}


@BOTH
@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED)
@BACKENDS
def test_a_canvas_is_sent_as_a_whole_or_not_at_all(
    app: Any,
    controller: BackpressureController,
    redis_client: redis.Redis,
    make: Any,
    send: Any,
    tmp_path: Path,
) -> None:
    protect(app, controller, priority="low")
    canvas = make(app)
    with pytest.raises(JobShedError):
        send(canvas)
    # Neither messages, nor anything that the results need.
    assert (length(redis_client), length(redis_client, "clicks")) == (OVERLOAD, 0)
    assert {key for key in names(redis_client) if not key.startswith(b"_kombu")} == {b"mail"}
    assert list(tmp_path.iterdir()) == []
    send(canvas, backpressure_priority="high")
    assert length(redis_client) > OVERLOAD + 1


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
def test_what_is_sent_as_a_whole_runs_and_has_its_results(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    redis_client.delete("mail")
    protect(app, controller, priority="high")
    add = [s(app, "add", n) for n in range(4)]
    total = app.signature("shop.add")
    group = celery.group(add).apply_async()
    nested = publish(celery.group(celery.group(add), celery.chain(add[1], total.clone((2,)))))
    chord = celery.chord(add, total).apply_async(countdown=0)
    chain = celery.chain(celery.group(add), total, total.clone((10,))).delay()
    deep = publish(celery.chord([celery.chord(add, total), add[3], celery.chain(add[3], total)], total))
    single = publish(s(app, "add", 5))
    with worker.start_worker(app, pool="solo", queues=["mail"], perform_ping_check=False), allow_join_result():
        assert group.get(timeout=20) == [0, 1, 2, 3]
        assert nested.get(timeout=20) == [0, 1, 2, 3, 3]
        assert (chord.get(timeout=20), chain.get(timeout=20), deep.get(timeout=20)) == (6, 16, 12)
        assert single.get(timeout=20) == 5
    assert (group.successful(), len(group.results), single.ignored) == (True, 4, False)


@pytest.mark.parametrize("backend", ["files"], indirect=True)
@pytest.mark.parametrize("rule", [{"shop.work": "low"}, {"shop.work": "low", "*": "high"}], ids=["bare", "rest"])
def test_the_watch_of_a_chord_follows_its_header(
    app: Any, controller: BackpressureController, redis_client: redis.Redis, rule: dict[str, str]
) -> None:
    protect(app, controller, priority=rule)
    chord = celery.chord(pair(app, "work", "work"), s(app, "important"))
    for send in (chord.apply_async, lambda: publish(chord), chord.delay, chord):
        with pytest.raises(JobShedError):
            send()
    assert sent(redis_client) == []
    chord.apply_async(backpressure_priority="high")
    assert [message["headers"]["task"] for message in sent(redis_client)] == [
        "celery.chord_unlock",
        *["shop.work"] * 2,
    ]


def test_a_canvas_is_gated_once(app: Any, controller: BackpressureController, redis_client: redis.Redis) -> None:
    protect(app, controller, priority="high")
    work = [s(app, "work") for _ in range(10)]
    for canvas in (
        celery.group(work),
        celery.group(celery.group(work[:5]), *(celery.chain(task, s(app, "work")) for task in work[5:])),
        celery.group(celery.chord(work[:5], s(app, "work")), celery.chord(work[5:], s(app, "work"))),
        celery.chord(work, s(app, "work")),
    ):
        before, waiting = decided(controller), length(redis_client)
        canvas.apply_async()
        publish(canvas)
        assert decided(controller) == before + 2
        assert length(redis_client) == waiting + 20


def test_no_connection_is_taken_before_the_gate_was_asked(
    app: Any, controller: BackpressureController, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    protect(app, controller, priority="low")
    important, work = s(app, "important"), s(app, "work")
    taken: list[object] = []
    with monkeypatch.context() as patched:
        patched.setattr(app, "producer_or_acquire", lambda *_: taken.append(1))
        with pytest.raises(JobShedError):
            publish(celery.group(important, celery.chain(important, work), celery.group(important, work)))
        with pytest.raises(JobShedError):
            celery.chord([important, work], important).apply_async()
    assert taken == []
    publish(celery.group(important, celery.chain(important, work)))  # the chain's second task is sent by a worker
    assert length(redis_client) == OVERLOAD + 2


def test_a_producer_and_a_connection_of_the_callers_are_used(
    app: Any, controller: BackpressureController, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    protect(app, controller, priority="high")
    group = celery.group(pair(app, "work", "work"))
    calls: list[object] = []
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        monkeypatch.setattr(producer, "publish", functools.partial(count_calls, calls, producer.publish))
        group.apply_async(producer=producer)
        group.apply_async(connection=connection)
    assert len(calls) == 2
    assert length(redis_client) == OVERLOAD + 4


def count_calls(calls: list[object], function: Any, *args: Any, **kwargs: Any) -> Any:
    calls.append(function)
    return function(*args, **kwargs)


def test_what_passes_is_counted_once_it_was_sent(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(app, controller, priority="low")
    later = s(app, "work").set(countdown=3600)
    with pytest.raises(JobShedError):
        celery.group(later, s(app, "work")).apply_async()
    assert controller._passed.counts() == {}
    celery.group(later, s(app, "count")).apply_async()
    assert controller._passed.counts() == {("mail", "scheduled"): 1}
    assert (length(redis_client), length(redis_client, "clicks")) == (OVERLOAD + 1, 1)


def test_a_canvas_that_cannot_be_made_sends_nothing(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    app.task(name="shop.broken", shared=False, base=Broken)(nothing)
    protect(app, controller, priority="high")
    with pytest.raises(LookupError):
        celery.group(pair(app, "work", "broken")).apply_async()
    with pytest.raises(JobShedError):  # and leaves nothing behind
        s(app, "work", backpressure_priority="low").apply_async()
    assert length(redis_client) == OVERLOAD


def test_tasks_of_another_app_in_a_canvas_are_that_apps(
    app: Any, controller: BackpressureController, redis_client: redis.Redis, redis_url: str
) -> None:
    protect(app, controller, priority="low")
    with celery.Celery("other", broker=redis_url, set_as_current=False) as other:
        other.conf.task_default_queue = "others"
        with pytest.raises(JobShedError):
            celery.group(s(app, "work"), other.signature("other.task")).apply_async()
        celery.group(other.signature("other.task"), other.signature("other.task")).apply_async()
    assert length(redis_client) == OVERLOAD


def test_an_eager_canvas_runs_at_once(app: Any, controller: BackpressureController) -> None:
    protect(app, controller, priority="low")
    app.conf.task_always_eager = True
    publish(celery.group(s(app, "work", "in a group")))
    celery.chain(s(app, "work", "first"), s(app, "work", "second")).apply_async()
    celery.chord([s(app, "work", "header")], s(app, "work", "body")).apply_async()
    assert ran == ["in a group", "first", "second", "header", "body"]
    assert controller._passed.counts() == {}
