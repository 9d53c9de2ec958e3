"""The part that all hooks share: whose priority and queue, one gate for many jobs, nothing twice."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    HIGH,
    LOW,
    MEDIUM,
    AsyncBackpressureController,
    BackpressureController,
    ConfigurationError,
    InvalidPriorityError,
    JobShedError,
    ThrottledError,
)
from backpressure.integrations._shared.hook import AsyncHook, Hook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from backpressure import InMemoryStatsProvider
    from backpressure.testing import ManualClock


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("low", LOW),
        (HIGH, HIGH),
        ({"send": "low", "mail": "high"}, LOW),
        ({"mail": "high", "*": "low"}, HIGH),
        ({"*": "medium"}, MEDIUM),
        (lambda job: job["priority"], HIGH),
    ],
)
def test_the_rule_gives_the_priority(controller: BackpressureController, rule: Any, expected: object) -> None:
    hook = Hook(controller, rule)
    assert hook.place({"priority": "high"}, name="send", queue_name="mail") == (expected, "mail")
    assert hook.place(None, name="send", queue_name="mail", mark="medium") == (MEDIUM, "mail")


def test_no_priority_is_an_error_and_never_low(controller: BackpressureController) -> None:
    with pytest.raises(ConfigurationError, match="priority is missing"):
        Hook(controller, None)
    with pytest.raises(InvalidPriorityError, match="invalid priority 'urgent'"):
        Hook(controller, {"send": "urgent"})
    with pytest.raises(InvalidPriorityError, match="job 'send' has no priority"):
        Hook(controller, {"other": "low"}).place(None, name="send", queue_name="mail")


def test_queues_have_other_names(controller: BackpressureController) -> None:
    table = Hook(controller, "low", {"mail": "mail-eu"})
    assert table.place(None, name="send", queue_name="mail")[1] == "mail-eu"
    assert table.place(None, name="send", queue_name="news")[1] == "news"
    assert Hook(controller, "low", str.upper).place("job", name="send", queue_name="mail")[1] == "JOB"


def test_those_that_may_be_shed_are_asked_first_and_all_wait_together(
    controller: BackpressureController, clock: ManualClock
) -> None:
    hook = Hook(controller, "low", max_wait=None)
    before = clock.monotonic_ns()
    with pytest.raises(JobShedError), hook.admitted([(MEDIUM, "red"), (LOW, "red")]):
        pytest.fail("a part was let in")
    assert clock.monotonic_ns() == before
    with hook.admitted([(MEDIUM, "red")] * 100):
        assert (hook.entered, Hook(controller, "low").entered) == (True, False)
    with hook.admitted([(MEDIUM, "red"), (MEDIUM, "yellow"), (HIGH, "red")]):
        pass
    assert 5.4e9 < clock.monotonic_ns() - before < 6.2e9  # twice 2.75 s and up to a tenth, the longest of each
    assert hook.entered is False


def test_waiting_is_bounded_by_default_and_high_goes(controller: BackpressureController, clock: ManualClock) -> None:
    hook = Hook(controller, "low")
    before = clock.monotonic_ns()
    with pytest.raises(ThrottledError), hook.admitted([(HIGH, "full"), (MEDIUM, "red")]):
        pytest.fail("a part was let in")
    assert clock.monotonic_ns() == before
    for places in ([(HIGH, "full")], [(HIGH, "red"), (HIGH, "full"), (HIGH, "yellow")]):
        with hook.admitted(places):
            pass
    assert clock.monotonic_ns() - before == 400_000_000


def test_a_probe_that_comes_to_nothing_lets_the_next_one_go(
    controller: BackpressureController, clock: ManualClock
) -> None:
    hook = Hook(controller, "low", not_failures=(LookupError,))
    for _ in range(5):
        controller.record_failure("empty")
    clock.advance(60)
    with pytest.raises(ThrottledError), hook.admitted([(HIGH, "empty"), (MEDIUM, "red")]):
        pytest.fail("a part was let in")
    with pytest.raises(LookupError), hook.admitted([(HIGH, "empty")]):
        raise LookupError
    with hook.admitted([(HIGH, "empty")]):
        pass
    assert controller.circuit("empty").stats()["success_count"] == 1


def test_failures_open_the_circuit(controller: BackpressureController) -> None:
    hook = Hook(controller, "low")
    for _ in range(5):
        with pytest.raises(ConnectionError), hook.admitted([(HIGH, "empty")]):
            raise ConnectionError
    assert str(controller.get_circuit_state("empty")) == "open"


def test_an_event_loop_is_never_blocked(controller: BackpressureController, clock: ManualClock) -> None:
    async def enqueue() -> None:
        with Hook(controller, "low").admitted([(MEDIUM, "red")]):
            pytest.fail("it went without its delay")

    controller.suggest_throttle("medium", "red")  # a first sight on a loop is let go
    before = clock.monotonic_ns()
    with pytest.raises(ThrottledError) as throttled, pytest.warns(RuntimeWarning, match="event loop"):
        asyncio.run(enqueue())
    assert throttled.value.retry_after == 2.75
    assert clock.monotonic_ns() == before


def test_asyncio_has_the_same(engine_name: str, provider: InMemoryStatsProvider, clock: ManualClock) -> None:
    async def main() -> None:
        async with AsyncBackpressureController(None, provider, clock=clock, _engine=engine_name) as controller:
            hook = AsyncHook(controller, "low", max_wait=None)
            async with hook.admitted([(MEDIUM, "red")] * 100):
                assert hook.entered is True
            with pytest.raises(JobShedError):
                async with hook.admitted([(MEDIUM, "red"), (LOW, "red")]):
                    pytest.fail("a part was let in")

    before = clock.monotonic_ns()
    asyncio.run(main())
    assert 2.7e9 < clock.monotonic_ns() - before < 3.1e9


def test_what_two_hooks_have_let_in_passes_through_both(controller: BackpressureController) -> None:
    mail, reports = Hook(controller, "low"), Hook(controller, "low")
    with mail.admitted([(HIGH, "empty")]), reports.admitted([(HIGH, "empty")]):
        assert mail.passes("full")
        assert reports.passes("full")
    assert not mail.passes("full")
    assert not reports.passes("full")


def test_what_is_entered_here_may_be_left_in_another_context(controller: BackpressureController) -> None:
    hook, other = Hook(controller, "low"), Hook(controller, "low")

    def body(hook: Hook) -> Iterator[None]:
        with hook.admitted([(HIGH, "empty")]):
            yield

    with other.admitted([(HIGH, "empty")]):
        for _ in range(3):
            inside = body(hook)
            next(inside)
            assert (hook.entered, other.entered) == (True, True)
            contextvars.Context().run(inside.close)  # type: ignore[attr-defined]
            assert (hook.entered, other.entered) == (False, True)
    failing = body(hook)
    next(failing)
    with pytest.raises(ConnectionError) as raised:
        contextvars.Context().run(failing.throw, ConnectionError())  # type: ignore[attr-defined]
    assert raised.value.__context__ is None
    assert controller.circuit("empty").stats()["failure_count"] == 1
    assert hook.entered is False


def test_asyncio_may_leave_in_another_task(
    engine_name: str, provider: InMemoryStatsProvider, clock: ManualClock
) -> None:
    async def main() -> None:
        async with AsyncBackpressureController(None, provider, clock=clock, _engine=engine_name) as controller:
            hook = AsyncHook(controller, "low")

            async def body() -> AsyncIterator[bool]:
                async with hook.admitted([(HIGH, "empty")]):
                    yield hook.entered

            inside: Any = body()
            assert await anext(inside) is hook.entered is True
            await asyncio.create_task(inside.aclose())
            assert hook.entered is False

    asyncio.run(main())


def test_the_wrong_kind_of_controller_is_refused(
    controller: BackpressureController, provider: InMemoryStatsProvider
) -> None:
    wrong: Any = AsyncBackpressureController(None, provider)
    with pytest.raises(ConfigurationError, match="give a BackpressureController"):
        Hook(wrong, "low")
    wrong = controller
    with pytest.raises(ConfigurationError, match="give an AsyncBackpressureController"):
        AsyncHook(wrong, "low")


def test_no_framework_is_loaded_unless_asked_for() -> None:
    frameworks = {"celery", "dramatiq", "faststream", "huey", "rq", "saq", "taskiq"}
    unwanted = {"asyncio", "prometheus_client", "redis"} | frameworks
    code = (
        "import sys, backpressure.integrations, backpressure.integrations._shared.hook\n"
        f"print([name for name in sys.modules if name.split('.')[0] in {unwanted!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
