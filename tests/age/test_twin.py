"""Script and twin are equal: every answer, and every bit of the state, over random calls on real servers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import settings as hypothesis_settings

from backpressure._age.budget import EXACT, Budget
from backpressure._age.protocol import decode
from support import servers
from support.budgets import SharedBudget, any_calls, any_settings, words
from support.redis_fixtures import no_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

CALLS = 40
#: Two to four thousand calls on each server in the gate, and four hundred thousand under `make prove`.
LIVES = hypothesis_settings().max_examples // 2


@pytest.fixture(scope="module", params=["valkey", "redis"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    binary = servers.valkey_binary() if request.param == "valkey" else servers.redis_binary()
    if binary is None:
        no_server(f"no {request.param}-server: scripts/install_tools.sh")
    with servers.Server(binary=binary) as server, server.client() as client:
        yield client


def test_script_and_twin_are_equal(client: redis.Redis) -> None:
    for seed in range(LIVES):
        draw = random.Random(seed)
        settings = any_settings(draw)
        shared, twin = SharedBudget(client, f"life-{seed}"), Budget(settings)
        expected = []
        with client.pipeline(transaction=False) as pipeline:
            for now_ms, report in any_calls(draw, settings, CALLS):
                shared.send(now_ms, words(settings, report), by=pipeline)
                pipeline.get(shared.key)
                expected.append((twin.call(now_ms, report), twin.packed()))
            replies = pipeline.execute()
        client.delete(shared.key)
        for number, (answer, state) in enumerate(expected):
            assert decode(replies[2 * number]) == answer, f"call {number} of life {seed}"
            assert replies[2 * number + 1] == state, f"state after call {number} of life {seed}"
            flat = [*attrs.astuple(answer)[:10], *answer.demand_mjobs_per_s, *answer.shares_ppm]
            flat += [number for terms in answer.terms for number in attrs.astuple(terms)]
            assert all(-1 <= number < EXACT for number in flat)
    print(f"{LIVES * CALLS} cases")


def test_a_difference_is_found(client: redis.Redis) -> None:
    draw = random.Random(2)
    settings = any_settings(draw)
    shared, twin = SharedBudget(client, "other"), Budget(attrs.evolve(settings, burst_jobs=settings.burst_jobs + 1))
    equal = [
        shared.call(now_ms, report, settings) == twin.call(now_ms, report)
        for now_ms, report in any_calls(draw, settings, CALLS)
    ]
    assert not all(equal)
