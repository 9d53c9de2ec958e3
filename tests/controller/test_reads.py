"""What is read next: the generator alone, which the thread's and the task's poller carry out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from backpressure import QueueStats, StatsUnavailableError
from backpressure._controller.polling.reads import ReadAll, ReadMany, ReadOne, Reads, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

KNOWN = ["a", "b", "c"]


class OneByOne:
    pass


class Together:
    get_many = print


def reads(provider: object = OneByOne, known: list[str] = KNOWN) -> Reads:
    return Reads(provider, lambda: known)


def drive(
    steps: Generator[Request, Any, None], answer: Callable[[Request], object] = lambda request: {}
) -> list[Request]:
    """Carry out `steps`: an exception that `answer` returns is thrown."""
    asked: list[Request] = []
    try:
        request = next(steps)
        while True:
            asked.append(request)
            answered = answer(request)
            request = steps.throw(answered) if isinstance(answered, Exception) else steps.send(answered)
    except StopIteration:
        return asked


def test_everything_is_what_is_listed_and_then_what_was_left_out() -> None:
    collected: dict[str, Any] = {}
    asked = drive(reads(Together).steps(collected), lambda request: {"b": 1} if request == ReadAll() else {"a": 2})
    assert asked == [ReadAll(), ReadMany(["a", "c"])]
    assert collected == {"b": 1, "a": 2}


@pytest.mark.parametrize("provider", [OneByOne, Together])
def test_where_nothing_was_left_out_nothing_more_is_read(provider: object) -> None:
    assert drive(reads(provider).steps({}), lambda _: dict.fromkeys(KNOWN)) == [ReadAll()]
    assert drive(reads(provider, []).steps({})) == [ReadAll()]


def test_one_by_one_an_error_is_that_of_its_queue() -> None:
    collected: dict[str, Any] = {}
    error = OSError()
    answers: dict[Request, object] = {ReadAll(): {}, ReadOne("b"): error}
    asked = drive(reads().steps(collected), lambda request: answers.get(request, 7))
    assert asked == [ReadAll(), ReadOne("a"), ReadOne("b"), ReadOne("c")]
    assert collected == {"a": 7, "b": error, "c": 7}


def test_no_read_begins_when_the_time_is_over_and_the_next_poll_goes_on_there() -> None:
    polls = reads()

    def poll(most: int) -> list[str]:
        begun: list[str] = []
        steps = polls.steps({}, is_over=lambda: len(begun) >= most)

        def answer(request: Request) -> object:
            if isinstance(request, ReadOne):
                begun.append(request.queue_name)
            return {}

        drive(steps, answer)
        return begun

    assert [poll(2), poll(2), poll(0), poll(9)] == [["a", "b"], ["c", "a"], [], ["b", "c", "a"]]


def test_what_still_hangs_is_passed_over_until_it_ends() -> None:
    polls = reads()
    hanging = polls.steps({})
    assert [next(hanging), hanging.send({})] == [ReadAll(), ReadOne("a")]
    collected: dict[str, Any] = {}
    assert drive(polls.steps(collected)) == [ReadAll(), ReadOne("b"), ReadOne("c")]
    assert (collected["a"].error_type, str(collected["a"])) == ("deadline", "an earlier read of it has not ended yet")
    hanging.close()
    assert ReadOne("a") in drive(polls.steps({}))


@pytest.mark.parametrize(
    ("names", "request_"), [(["x"], ReadOne("x")), (["x", "y"], ReadMany(["x", "y"]))], ids=["one", "several"]
)
def test_callers_queues_are_read_in_one_go(names: list[str], request_: Request) -> None:
    collected: dict[str, Any] = {}
    stats = QueueStats("x", 1)
    assert drive(reads(Together).steps(collected, names), lambda _: stats if len(names) == 1 else {"x": stats}) == [
        request_
    ]
    assert collected == {"x": stats}


@pytest.mark.parametrize("names", [None, ["x"], ["x", "y"]])
def test_what_fails_as_a_whole_is_raised_and_collects_nothing(names: list[str] | None) -> None:
    collected: dict[str, Any] = {}
    with pytest.raises(StatsUnavailableError, match="no server"):
        drive(reads(Together).steps(collected, names), lambda _: StatsUnavailableError("no server"))
    assert collected == {}


def test_what_was_listed_stays_where_the_rest_fails() -> None:
    collected: dict[str, Any] = {}
    with pytest.raises(OSError, match="cut"):
        drive(reads(Together).steps(collected), lambda request: {"a": 1} if request == ReadAll() else OSError("cut"))
    assert collected == {"a": 1}


def test_answers_that_are_no_tables_are_raised() -> None:
    with pytest.raises(TypeError):
        drive(reads().steps({}), lambda _: None)


@pytest.mark.parametrize("request_", [ReadAll(), ReadMany(["x"]), ReadOne("x")])
def test_a_request_knows_its_call(request_: Request) -> None:
    class Provider:
        def get_all_queue_stats(self) -> tuple[Any, ...]:
            return ("get_all_queue_stats",)

        def get_many(self, names: list[str]) -> tuple[Any, ...]:
            return ("get_many", names)

        def get_queue_stats(self, name: str) -> tuple[Any, ...]:
            return ("get_queue_stats", name)

    methods = {ReadAll: "get_all_queue_stats", ReadMany: "get_many", ReadOne: "get_queue_stats"}
    assert request_.of(Provider()) == (methods[type(request_)], *request_)
