"""`backpressure fleet`, `override`, `emergency`, `circuit` and `audit`: what they write, show and refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from backpressure._fleet.keys import control_key, members_key, presence_key
from backpressure._fleet.operator import Operator
from backpressure._fleet.presence import Presence
from support import servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from cli.conftest import Run

HEAR_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
MAIN = f"{HEAR_INTERRUPTS}import sys; from backpressure.cli import main; sys.exit(main())"


@pytest.fixture
def file(tmp_path: Path, redis_url: str, redis_client: redis.Redis) -> Path:
    """A configuration that names the fleet and its server, which is empty."""
    del redis_client
    file = tmp_path / "backpressure.toml"
    file.write_text(f'[fleet]\nname = "shop"\nurl = "{redis_url}"\n', "utf-8")
    return file


def member(client: redis.Redis, member_id: str, **told: object) -> None:
    raw = Presence(id=member_id, **told).encode()  # type: ignore[arg-type]
    client.set(presence_key("shop", member_id), raw, px=60_000)
    seconds, _ = client.time()
    client.zadd(members_key("shop"), {member_id: seconds * 1_000})


@pytest.mark.parametrize("kind", ["override", "emergency"])
def test_a_switch_is_turned_on_and_off(run: Run, file: Path, redis_client: redis.Redis, kind: str) -> None:
    operator = Operator(redis_client, "shop")
    result = run(kind, "on", "--config", file, "--for", "1h30m", "--reason", "sale", "--by", "ana")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{kind} of fleet 'shop' is on until 20")
    (switch,) = operator.switches()
    assert (switch.kind, switch.by, switch.reason) == (kind, "ana", "sale")
    assert 5_399_000 < switch.until_ms - operator.control().now_ms <= 5_400_000
    result = run(kind, "off", "--config", file, "--reason", "over")
    assert (result.exit_code, result.stdout) == (0, f"{kind} of fleet 'shop' is off\n")
    assert operator.switches() == []


def test_circuits(run: Run, file: Path, redis_client: redis.Redis) -> None:
    operator = Operator(redis_client, "shop")
    result = run("circuit", "mail", "open", "--config", file, "--reason", "no SMTP", "--json")
    assert json.loads(result.stdout)["switch"] == operator.switches()[0].to_dict()
    result = run("circuit", "mail", "close", "--config", file, "--reason", "SMTP")
    assert result.stdout == "circuit of queue 'mail' of fleet 'shop': each process is told to close\n"
    assert operator.switches()[0].action == "close"


def test_who_is_not_in_the_share_that_enforces_is_told(run: Run, file: Path, redis_client: redis.Redis) -> None:
    member(redis_client, "web-1-ab", mode="enforce", enforces="no")
    member(redis_client, "web-2-cd", mode="enforce", enforces="yes")
    member(redis_client, "web-3-ef", mode="observe", enforces="no")
    shown = " ".join(run("fleet", "--config", file).stdout.split())
    assert shown.count("enforce, not here") == 1
    told = json.loads(run("fleet", "--config", file, "--json").stdout)["members"]
    assert {each["id"]: each["enforces"] for each in told} == {"web-1-ab": "no", "web-2-cd": "yes", "web-3-ef": "no"}


def test_the_fleet_for_people(run: Run, file: Path, redis_client: redis.Redis) -> None:
    run("override", "on", "--config", file, "--reason", "sale", "--by", "ana")
    member(redis_client, "web-1-ab", mode="enforce", law="age", offers=12.34, circuits={"q": "open"}, circuits_open=3)
    member(redis_client, "web-2-cd", last_error="no redis://u:hunter2@h")
    result = run("fleet", "--config", file)
    assert (result.exit_code, result.stderr) == (0, "")
    words = " ".join(result.stdout.split())
    assert "fleet 'shop' 2 processes" in words
    assert "override on until 20" in words
    assert ", by ana: sale" in words
    assert "12.34" in words
    assert "q open and 2 more" in words
    assert "hunter2" not in words


def test_the_fleet_for_scripts(run: Run, file: Path, redis_client: redis.Redis) -> None:
    member(redis_client, "web-1-ab", pid=1)
    told = json.loads(run("fleet", "--config", file, "--json").stdout)
    assert [each["id"] for each in told["members"]] == ["web-1-ab"]
    assert (told["fleet"], told["switches"], told["problems"]) == ("shop", [], [])


def test_nobody_is_there_yet(run: Run, file: Path) -> None:
    assert 'FleetConfig(name="shop")' in run("fleet", "--config", file).stdout
    assert "nobody has switched anything" in run("audit", "--config", file).stdout


def test_what_is_not_understood_is_a_finding(run: Run, file: Path, redis_client: redis.Redis) -> None:
    redis_client.hset(control_key("shop"), "override", "on")
    redis_client.set(presence_key("shop", "web-1-ab"), "here")
    redis_client.zadd(members_key("shop"), {"web-1-ab": 2**52})
    result = run("fleet", "--config", file)
    assert result.exit_code == 1
    assert "field 'override' of the fleet holds no JSON object" in result.stderr
    assert "web-1-ab: field 'm:web-1-ab'" in result.stderr


def test_the_audit(run: Run, file: Path) -> None:
    run("override", "on", "--config", file, "--reason", "sale", "--by", "ana")
    run("override", "off", "--config", file, "--reason", "over", "--by", "bo")
    result = run("audit", "--config", file)
    assert result.stdout.index("override off") < result.stdout.index("override on")
    lines = json.loads(run("audit", "--config", file, "--json", "--last", "1").stdout)
    assert [(line["action"], line["by"], line["reason"]) for line in lines] == [("off", "bo", "over")]


def test_entries_are_signed_where_there_is_a_key(
    run: Run, file: Path, redis_client: redis.Redis, redis_url: str
) -> None:
    key = "a secret of sixteen bytes or more"
    signed = Operator(redis_client, "shop", key=key)
    file.write_text(file.read_text("utf-8") + 'key = "$FLEET_KEY"\n', "utf-8")
    assert run("override", "on", "--config", file, "--reason", "x", FLEET_KEY=key).exit_code == 0
    assert len(signed.switches()) == 1
    arguments = ("emergency", "on", "--fleet", "shop", "--redis-url", redis_url, "--reason", "x")
    assert run(*arguments, "--sign-with", "FLEET_KEY", FLEET_KEY=key).exit_code == 0
    assert len(signed.switches()) == 2
    for result in (run("override", "on", "--config", file, "--reason", "x"), run(*arguments, "--sign-with", "NOWHERE")):
        assert result.exit_code == 2
        assert key not in result.output


def test_the_server_of_the_only_queues_is_the_fleets(run: Run, tmp_path: Path, redis_client: redis.Redis) -> None:
    port = redis_client.connection_pool.connection_kwargs["port"]
    file = tmp_path / "b.toml"
    file.write_text(f'[fleet]\nname = "shop"\n[queues."*"]\nurl = "redis://localhost:{port}/0"\n', "utf-8")
    assert run("override", "on", "--config", file, "--reason", "sale").exit_code == 0
    assert len(Operator(redis_client, "shop").switches()) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["override", "on", "--redis-url", "redis://h"], "Missing option '--reason'"),
        (["override", "on", "--redis-url", "redis://h", "--reason", "x"], "there is no fleet: give --fleet"),
        (["override", "on", "--fleet", "shop", "--reason", "x"], "there is no server: give --redis-url"),
        (["fleet", "--fleet", "a b", "--redis-url", "redis://h"], "fleet name is 'a b'"),
        (["fleet", "--fleet", "shop", "--redis-url", "redis://u:hunter2@h:x"], "cannot be read (value withheld)"),
        (["circuit", "mail", "shut", "--fleet", "shop", "--reason", "x"], "'shut' is not one of"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], complaint: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.split())
    assert "hunter2" not in result.output


@pytest.mark.parametrize("for_", ["0s", "25h", "5", "-1s", "soon", "1ns"])
def test_durations_that_cannot_be(run: Run, file: Path, for_: str) -> None:
    result = run("override", "on", "--config", file, "--reason", "x", f"--for={for_}")
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_server_that_is_away_is_a_finding_without_a_password(run: Run) -> None:
    url = f"redis://ana:hunter2@127.0.0.1:{servers.dead_port()}/0"
    for command in (["fleet"], ["audit"], ["override", "on", "--reason", "x"]):
        result = run(*command, "--fleet", "shop", "--redis-url", url)
        assert result.exit_code == 1
        assert "connect" in result.stderr
        assert "hunter2" not in result.output


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_watching_ends_by_a_signal(file: Path, redis_client: redis.Redis, sent: signal.Signals, code: int) -> None:
    arguments = ("fleet", "--config", str(file), "--watch", "--json", "--interval", "0.1")
    with subprocess.Popen([sys.executable, "-c", MAIN, *arguments], stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        looks = [json.loads(watching.stdout.readline()) for _ in range(2)]
        os.kill(watching.pid, sent)
        eventually(lambda: watching.poll() is not None)
        watching.stdout.read()
    assert looks[0]["at_ms"] < looks[1]["at_ms"]
    assert watching.returncode == code
    del redis_client


def test_watching_goes_on_while_the_server_is_away(own_server: servers.Server) -> None:
    arguments = ("fleet", "--fleet", "shop", "--redis-url", own_server.url, "--watch", "--json", "--interval", "0.1")
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        watching.stdout.readline()
        own_server.kill()
        assert "backpressure fleet: cannot read fleet 'shop'" in watching.stderr.readline()
        own_server.start()
        while json.loads(watching.stdout.readline())["fleet"] != "shop":
            pass
        os.kill(watching.pid, signal.SIGINT)
        watching.communicate(timeout=10)
    assert watching.returncode == 0


def test_who_only_looks_at_queues_is_no_member(run: Run, file: Path, redis_client: redis.Redis, redis_url: str) -> None:
    run("override", "on", "--config", file, "--reason", "sale")
    redis_client.rpush("mail", *range(20_000))
    at = ("--queue", "mail", "--redis-url", redis_url)
    seen = json.loads(run("top", "--config", file, *at, "--once", "--json").stdout)
    assert seen["queues"][0]["low"]["should_shed"] is True
    looks = [run("check", file, "--read", *at), run("explain", "--backlog", 9, "--queue", "mail", "--config", file)]
    assert [look.exit_code for look in looks] == [0, 0]
    assert Operator(redis_client, "shop").members() == []


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    narrow = tmp_path / "narrow.toml"
    narrow.write_text("[thresholds.low_priority]\nred_max = 800\n", "utf-8")
    return narrow


def test_settings_are_pushed_compared_and_rolled_back(
    run: Run, file: Path, narrow: Path, redis_client: redis.Redis
) -> None:
    result = run("config", "push", narrow, "--config", file, "--share", "10%", "--reason", "try", "--by", "ana")
    assert result.exit_code == 0
    pushed = Operator(redis_client, "shop").control().pushed
    assert pushed is not None
    assert result.stdout == f"configuration {pushed.n} of fleet 'shop' is pushed, for 10 % of the processes\n"
    result = run("config", "diff", narrow, "--config", file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"configuration {pushed.n} is pushed to 10 % of the processes, by ana: try\n"
    narrow.write_text('mode = "observe"\n', "utf-8")
    result = run("config", "diff", narrow, "--config", file)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:2] == ['+ mode = "observe"', "- thresholds.low_priority.red_max = 800"]
    result = run("config", "rollback", "--config", file, "--reason", "no", "--json")
    assert json.loads(result.stdout)["pushed"]["settings"] == {}
    assert [line["action"] for line in json.loads(run("audit", "--config", file, "--json").stdout)] == [
        "rollback",
        "push",
    ]


def test_a_process_that_does_not_take_it_is_named(
    run: Run, file: Path, narrow: Path, redis_client: redis.Redis
) -> None:
    run("config", "push", narrow, "--config", file, "--reason", "all")
    member(redis_client, "web-1-ab", config_error="polling.timeout is 3.0")
    member(redis_client, "web-2-cd", config_revision=5)
    result = run("config", "diff", narrow, "--config", file)
    assert result.exit_code == 1
    assert "1 of 2 processes decide by configuration 5" in result.stdout
    assert "1 of 2 processes do not take it" in result.stdout
    assert "web-1-ab: polling.timeout is 3.0" in result.stderr
    told = json.loads(run("config", "diff", narrow, "--config", file, "--json").stdout)
    assert (told["changes"], told["revisions"]) == ([], {"0": 1, "5": 1})
    assert told["refused"] == {"web-1-ab": "polling.timeout is 3.0"}


@pytest.mark.parametrize(
    ("text", "code", "complaint"),
    [
        ("max_queues = 5\n[circuit]\nfailure_threshold = 1", 1, "max_queues cannot be pushed: "),
        ("[thresholds.low_priority]\nred_max = -1", 1, "thresholds.low_priority.red_max is -1"),
        ("mode =", 2, "is no TOML"),
        ('mode = "observe"\nmode = "enforce"', 2, "is no TOML"),
    ],
)
def test_a_faulty_file_is_not_pushed(
    run: Run, file: Path, narrow: Path, redis_client: redis.Redis, text: str, code: int, complaint: str
) -> None:
    narrow.write_text(text, "utf-8")
    result = run("config", "push", narrow, "--config", file, "--reason", "x")
    assert (result.exit_code, result.stdout) == (code, "")
    assert complaint in result.stderr
    assert redis_client.keys("*") == []


@pytest.mark.parametrize("share", ["0%", "101%", "some", "10%%", "-1%", "1e-9"])
def test_shares_that_are_none(run: Run, file: Path, narrow: Path, share: str) -> None:
    result = run("config", "push", narrow, "--config", file, "--reason", "x", f"--share={share}")
    assert result.exit_code == 2
    assert "give a part of the processes such as 10%" in result.stderr


def test_there_is_nothing_to_roll_back(run: Run, file: Path) -> None:
    result = run("config", "rollback", "--config", file, "--reason", "x")
    assert result.exit_code == 1
    assert "nothing was pushed" in result.stderr


@pytest.mark.parametrize("command", ["push", "diff", "rollback"])
def test_help_of_pushes_has_examples(run: Run, command: str) -> None:
    said = run("config", command, "--help").stdout
    assert said.count(f"backpressure config {command} ") >= 3
