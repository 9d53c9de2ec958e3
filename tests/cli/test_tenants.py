"""Who asks most: a producer tells its fleet, and `top` and `explain` name them; unasked, nothing leaves the process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import BackpressureConfig, BackpressureController, RedisStatsProvider
from backpressure._fleet.operator import Operator
from cli.test_fleet import member
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from cli.conftest import Run


def producer(redis_url: str, engine_name: str, **fleet: Any) -> BackpressureController:
    """Return a running controller whose LOW jobs are shed, on behalf of one hog and two others."""
    config = BackpressureConfig().evolve(
        {
            "polling.interval": 0.1,
            "polling.jitter": 0,
            "fleet.name": "shop",
            **{f"fleet.{k}": v for k, v in fleet.items()},
        }
    )
    controller = BackpressureController(config, RedisStatsProvider(redis_url, ["mail"]), _engine=engine_name)
    controller.start()
    return controller


def written(folder: Path, url: str) -> Path:
    """Write a configuration whose fleet tells of tenants, and meets at a server; return its file."""
    file = folder / "backpressure.toml"
    fleet = f'[fleet]\nname = "shop"\ntenants = true\nurl = "{url}"\n'
    file.write_text(f'{fleet}[queues.mail]\nmode = "enforce"\n', "utf-8")
    return file


def offer(controller: BackpressureController) -> None:
    for number in range(60):
        controller.suggest_throttle("low", "mail", tenant="hog" if number % 6 else f"calm-{number % 4}")
    controller.refresh("mail")


def test_who_asks_most_is_named_where_the_fleet_is_told(
    run_on_engine: Run, engine_name: str, redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    redis_client.rpush("mail", *range(950))  # LOW is shed from 901 to 1,000
    controller = producer(redis_url, engine_name, tenants=True)
    try:

        def told() -> bool:
            offer(controller)
            return any(one.tenants.get("mail") for one in Operator(redis_client, "shop").members())

        eventually(told)
        member(redis_client, "other-1-ab", tenants={"mail": {"hog": 1_000.0, "quiet": 0.5}, "web": {"x": 2.0}})
        file = tmp_path / "backpressure.toml"
        file.write_text(
            f'[fleet]\nname = "shop"\ntenants = true\nurl = "{redis_url}"\n[queues.mail]\nmode = "enforce"\n', "utf-8"
        )
        looks = ["--config", str(file), "--redis-url", redis_url]
        for command in (("top", "--once"), ("explain",)):
            tenants = json.loads(run_on_engine(*command, *looks, "--json").stdout)
            tenants = (tenants["queues"][0] if "queues" in tenants else tenants)["tenants"]
            assert next(iter(tenants)) == "hog"
            assert tenants["hog"] > 1_000, "of all processes together"
            assert {"quiet", "x"} & tenants.keys() == {"quiet"}
            assert "tenants that ask most: hog " in run_on_engine(*command, *looks).stdout
    finally:
        controller.stop()


def test_nothing_leaves_the_process_unless_it_is_wanted(
    engine_name: str, redis_client: redis.Redis, redis_url: str
) -> None:
    redis_client.rpush("mail", *range(950))
    controller = producer(redis_url, engine_name)
    try:
        eventually(lambda: Operator(redis_client, "shop").members())
        for _ in range(3):
            offer(controller)
        assert controller.health()["queues"]["mail"]["tenants"]["low"][0]["tenant"] == "hog"
        keys = redis_client.keys("bp:*")
        stored = [redis_client.get(key) for key in keys if b":m:" in key]
        assert stored
        assert not any(b"hog" in (raw or b"") for raw in stored)
    finally:
        controller.stop()


def test_a_fleet_that_is_away_hides_no_queue(
    run: Run, redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    redis_client.rpush("mail", *range(5))
    file = tmp_path / "backpressure.toml"
    away = "redis://127.0.0.1:1/0"
    file.write_text(
        f'[fleet]\nname = "shop"\ntenants = true\nurl = "{away}"\n[queues.mail]\nmode = "enforce"\n', "utf-8"
    )
    result = run("top", "--once", "--json", "--config", str(file), "--redis-url", redis_url)
    assert result.exit_code == 0, result.output
    view = json.loads(result.stdout)["queues"][0]
    assert (view["backlog"], view["tenants"]) == (5, {})


@pytest.mark.parametrize("tenants", [{"mail": 3}, {"mail": {"a": "b"}}, {"mail": {str(n): 1 for n in range(9)}}])
def test_tenants_that_cannot_be_right_make_a_member_unreadable(redis_client: redis.Redis, tenants: object) -> None:
    member(redis_client, "bad-1-ab", tenants=tenants)
    (one,) = Operator(redis_client, "shop").members()
    assert "its tenants cannot be read" in one.problem
