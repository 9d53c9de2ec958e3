"""What an enqueue raises that says nothing of its queue, and what does."""

from __future__ import annotations

import asyncio
import pickle
import ssl
from typing import TYPE_CHECKING

import pytest

from backpressure import HIGH, AsyncBackpressureController, BackpressureController
from backpressure._controller.outcome import unrelated
from backpressure.integrations._shared.hook import NOT_ENCODABLE, AsyncHook, Hook

if TYPE_CHECKING:
    from backpressure import InMemoryStatsProvider
    from backpressure.testing import ManualClock

ENCODING = [TypeError(), ValueError(), OverflowError(), RecursionError(), pickle.PicklingError()]
#: Errors of connections; the first is a ValueError too.
CONNECTING = [ssl.SSLCertVerificationError(), ConnectionError(), TimeoutError(), RuntimeError()]


@pytest.mark.parametrize("error", ENCODING + CONNECTING, ids=repr)
def test_what_cannot_be_encoded_is_no_failure_and_a_connection_is(
    controller: BackpressureController, error: Exception
) -> None:
    hook = Hook(controller, "low", not_failures=NOT_ENCODABLE)
    with pytest.raises(type(error)), hook.admitted([(HIGH, "empty")]):
        raise error
    assert controller.circuit("empty").stats()["failure_count"] == (error in CONNECTING)


def test_what_the_users_own_code_raises_is_no_failure(controller: BackpressureController) -> None:
    class FrozenError(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            if not name.startswith("__"):
                raise AttributeError(name)
            super().__setattr__(name, value)

    hook = Hook(controller, "low")
    for error in (ConnectionError(), FrozenError()):
        with pytest.raises(type(error)), hook.admitted([(HIGH, "empty")]), unrelated():
            raise error
    assert controller.circuit("empty").stats()["failure_count"] == 0


def test_the_outcome_of_a_turn_is_that_of_what_it_is_entered_around(
    engine_name: str, provider: InMemoryStatsProvider, clock: ManualClock
) -> None:
    async def main() -> None:
        async with AsyncBackpressureController(None, provider, clock=clock, _engine=engine_name) as controller:
            hook = AsyncHook(controller, "low", not_failures=(TypeError,))
            for error in (TypeError(), ConnectionError()):
                with pytest.raises(type(error)), await hook.turn((HIGH, "empty")):
                    raise error
            assert controller.circuit("empty").stats()["failure_count"] == 1
            await hook.turn((HIGH, "empty"))
            with await hook.turn((HIGH, "empty")):
                pass
            assert controller.circuit("empty").stats()["failure_count"] == 0

    asyncio.run(main())
