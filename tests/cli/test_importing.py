"""`backpressure import prometheus`: days of a real server, and servers that answer slowly, in part, or not at all."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from backpressure import Recording
from support import prometheus_server, redis_fixtures, servers

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from cli.conftest import Run

STEP = 60
DAY = 86_400
#: Of the past of the real server: minutes that were not scraped.
GAP = range(600, 660)


@pytest.fixture(scope="module")
def past() -> int:
    """Return the Unix minute at which two days of numbers begin."""
    return int(time.time()) // STEP - 2 * DAY // STEP - 120


@pytest.fixture(scope="module")
def prometheus(past: int) -> Iterator[prometheus_server.Prometheus]:
    if prometheus_server.binary() is None:
        redis_fixtures.no_server("no server: install prometheus")
    server = prometheus_server.Prometheus()
    lines = ["# TYPE depth gauge"]
    for queue in ("mail", "web"):
        for minute in range(2 * DAY // STEP):
            if queue == "web" or minute not in GAP:
                value = minute if queue == "mail" else 7.5
                lines.append(f'depth{{queue="{queue}"}} {value} {(past + minute) * STEP}')
    lines.append("# TYPE age gauge")
    lines += [f'age{{queue="mail"}} 12.5 {(past + minute) * STEP}' for minute in range(2 * DAY // STEP)]
    lines.append("# TYPE came counter")
    lines += [f'came_total{{queue="mail"}} {3 * minute} {(past + minute) * STEP}' for minute in range(2 * DAY // STEP)]
    lines.append("# TYPE went counter")
    lines += [f'went_total{{queue="mail"}} {2 * minute} {(past + minute) * STEP}' for minute in range(2 * DAY // STEP)]
    server.backfill("\n".join([*lines, "# EOF\n"]))
    with server.start():
        yield server


def arguments(url: str, out: Path, *more: str) -> list[str]:
    return ["import", "prometheus", "--url", url, "--query", "depth", "--out", str(out), "--step", "1m", *more]


def test_days_of_a_real_server(
    run_on_engine: Run, prometheus: prometheus_server.Prometheus, past: int, tmp_path: Path
) -> None:
    out = tmp_path / "days.bpr"
    result = run_on_engine(*arguments(prometheus.url, out, "--since", "3d", "--oldest-age", "age", "--json"))
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["queues"] == ["mail", "web"]

    rows = list(Recording(out).queue("mail"))
    told_minutes = {row.at_ms // 60_000 - past: row.backlog for row in rows}
    missing = [minute for minute in range(2 * DAY // STEP) if minute not in told_minutes]
    # A sample stands for one step or two more, as the server looks two steps back.
    assert missing == list(GAP)[-len(missing) :]
    assert len(GAP) - 2 <= len(missing) < len(GAP)
    assert all(
        backlog == minute
        for minute, backlog in told_minutes.items()
        if minute in range(600) or minute in range(661, 2_880)
    )
    assert {row.oldest_age_ms for row in rows if row.at_ms < (past + 2_880) * 60_000} == {12_500}
    assert {row.backlog for row in Recording(out).queue("web")} == {8}, "rounded up"


def test_counters_of_what_came_and_went(
    run_on_engine: Run, prometheus: prometheus_server.Prometheus, past: int, tmp_path: Path
) -> None:
    out = tmp_path / "days.bpr"
    flow = ("--entered", "came_total", "--left", "went_total")
    result = run_on_engine(*arguments(prometheus.url, out, "--since", "3d", *flow))
    assert result.exit_code == 0, result.output
    rows = [row for row in Recording(out).queue("mail") if row.at_ms // 60_000 - past in range(600)]
    assert len(rows) > 590
    assert all((row.entered, row.left) == (3 * row.backlog, 2 * row.backlog) for row in rows)
    assert {(row.entered, row.left) for row in Recording(out).queue("web")} == {(None, None)}


def test_more_points_than_the_server_gives_at_once(
    run_on_engine: Run, prometheus: prometheus_server.Prometheus, tmp_path: Path
) -> None:
    out = tmp_path / "days.bpr"
    result = run_on_engine(*arguments(prometheus.url, out, "--since", "3d", "--step", "20s"))
    assert result.exit_code == 0, result.output
    assert len(list(Recording(out).queue("web"))) > 8_600
    assert len(Recording(out)._book.hours("web")) >= 48


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--query", "nothing_like_it"), "has no number for this query"),
        (("--by", "pod"), "a series has no label 'pod': give --by one of its labels (__name__, queue)"),
        (("--query", '{__name__=~"depth|age"}'), "two series are of queue 'mail'"),
        (("--query", "depth{"), "does not answer: bad_data"),
        (("--query", "depth[5m]"), "does not answer: bad_data"),
    ],
)
def test_queries_that_give_no_recording(
    run_on_engine: Run, prometheus: prometheus_server.Prometheus, tmp_path: Path, more: tuple[str, ...], says: str
) -> None:
    out = tmp_path / "none.bpr"
    result = run_on_engine(*arguments(prometheus.url, out, "--since", "3d", *more))
    assert result.exit_code == 1
    assert says in result.stderr
    assert not out.exists()


Form = dict[str, list[str]]
Answer = Callable[[Form], tuple[int, str]]


class Scripted:
    """Answers each request by `answer`, which is given its form."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[Form] = []
        self.heads: list[bytes] = []
        self._answer = answer
        self.listener = servers.Listener(self._serve)

    @property
    def url(self) -> str:
        return f"http://{servers.HOST}:{self.listener.port}"

    def _serve(self, connection: socket.socket) -> None:
        while True:
            said = b""
            while b"\r\n\r\n" not in said:
                piece = connection.recv(65_536)
                if not piece:
                    return
                said += piece
            head, _, body = said.partition(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
            )
            while len(body) < length:
                body += connection.recv(65_536)
            self.heads.append(head)
            form = parse_qs(body.decode())
            self.asked.append(form)
            status, answer = self._answer(form)
            connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: {len(answer)}\r\n\r\n{answer}".encode())


Script = Callable[[Answer], Scripted]


@pytest.fixture
def scripted() -> Iterator[Script]:
    made: list[Scripted] = []

    def make(answer: Answer) -> Scripted:
        made.append(Scripted(answer))
        return made[-1]

    yield make
    for server in made:
        server.listener.__exit__()


def matrix(form: Form, **more: object) -> tuple[int, str]:
    begin, end, step = (float(form[name][0]) for name in ("start", "end", "step"))
    values = [[begin + number * step, "3"] for number in range(int((end - begin) / step) + 1)]
    result = [{"metric": {"queue": "mail"}, "values": values}]
    return 200, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}, **more})


def error(status: int, kind: str, text: str) -> tuple[int, str]:
    return status, json.dumps({"status": "error", "errorType": kind, "error": text})


def test_windows_shrink_until_the_server_can_answer(run_on_engine: Run, scripted: Script, tmp_path: Path) -> None:
    def answer(form: Form) -> tuple[int, str]:
        points = (float(form["end"][0]) - float(form["start"][0])) / float(form["step"][0])
        if points > 500:
            return error(
                422, "execution", "query processing would load too many samples into memory in query execution"
            )
        return matrix(form)

    server, out = scripted(answer), tmp_path / "days.bpr"
    result = run_on_engine(*arguments(server.url, out, "--since", "1d"))
    assert result.exit_code == 0, result.output
    times = [row.at_ms // 60_000 for row in Recording(out).queue("mail")]
    assert len(times) == 1_441
    assert times == list(range(times[0], times[0] + 1_441)), "no minute twice, none left out"


def test_a_partial_answer_is_told(run_on_engine: Run, scripted: Script, tmp_path: Path) -> None:
    server = scripted(lambda form: matrix(form, warnings=["partial response: store 3 is away"]))
    result = run_on_engine(*arguments(server.url, tmp_path / "x.bpr", "--since", "1h"))
    assert result.exit_code == 0
    assert "warning: partial response: store 3 is away" in result.stdout


def test_a_server_that_is_busy_is_asked_again(run_on_engine: Run, scripted: Script, tmp_path: Path) -> None:
    answers = iter([(503, "busy"), (429, "slow down")])
    server = scripted(lambda form: next(answers, None) or matrix(form))
    result = run_on_engine(*arguments(server.url, tmp_path / "x.bpr", "--since", "1h"))
    assert result.exit_code == 0, result.output
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((400, '{"status": "error", "errorType": "bad_data", "error": "no"}'), "bad_data: no"),
        ((401, "who are you"), "HTTP 401"),
        ((503, "away"), "HTTP 503"),
        ((200, "<html>"), "HTTP 200"),
        (
            (200, '{"status": "success", "data": {"resultType": "matrix", "result": [{"metric": 3}]}}'),
            "not one of Prom",
        ),
        ((200, '{"status": "success", "data": {"resultType": "vector", "result": []}}'), "it gives a vector"),
    ],
)
def test_a_server_that_does_not_answer_leaves_no_file(
    run_on_engine: Run,
    scripted: Script,
    tmp_path: Path,
    answer: tuple[int, str],
    says: str,
) -> None:
    out = tmp_path / "x.bpr"
    result = run_on_engine(*arguments(scripted(lambda _: answer).url, out, "--since", "1h"))
    assert result.exit_code == 1
    assert says in result.stderr
    assert not out.exists()


def test_a_server_that_hangs_or_is_away_is_told_and_no_secret_with_it(
    run_on_engine: Run, scripted: Script, tmp_path: Path
) -> None:
    def hang(_: object) -> tuple[int, str]:
        time.sleep(5)
        return 200, ""

    for url in (scripted(hang).url, f"http://{servers.HOST}:{servers.free_port()}"):
        secret = url.replace("http://", "http://user:hunter2@")
        result = run_on_engine(*arguments(secret, tmp_path / "x.bpr", "--since", "1h", "--timeout", "0.3"))
        assert result.exit_code == 1
        assert "cannot be read: " in result.stderr
        assert "hunter2" not in result.output


def test_a_full_disk_is_told_and_leaves_no_file(run_on_engine: Run, scripted: Script, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    server, out = scripted(noise), tmp_path / "full.bpr"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # Python hears no signal of it, but an error
    try:
        result = run_on_engine(*arguments(server.url, out, "--since", "7d"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.exit_code == 1
    assert f"recording {out} cannot be written: " in result.stderr
    assert list(tmp_path.iterdir()) == []


def noise(form: Form) -> tuple[int, str]:
    """Answer with numbers that cannot be packed well."""
    begin, end, step = (float(form[name][0]) for name in ("start", "end", "step"))
    values = [
        [begin + number * step, str(random.Random(begin + number).getrandbits(48))]
        for number in range(int((end - begin) / step) + 1)
    ]
    result = [{"metric": {"queue": "mail"}, "values": values}]
    return 200, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})


def test_names_that_cannot_name_queues_are_left_out_and_told(
    run_on_engine: Run, scripted: Script, tmp_path: Path
) -> None:
    def answer(form: Form) -> tuple[int, str]:
        status, body = matrix(form)
        document = json.loads(body)
        document["data"]["result"].append({"metric": {"queue": "x" * 300}, "values": [[float(form["start"][0]), "1"]]})
        return status, json.dumps(document)

    out = tmp_path / "x.bpr"
    result = run_on_engine(*arguments(scripted(answer).url, out, "--since", "1h"))
    assert result.exit_code == 0
    assert "left out, for they cannot name queues: xxx" in result.stdout
    assert Recording(out).queues() == ["mail"]


def test_wrong_usage_asks_nobody(
    run_on_engine: Run, scripted: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = scripted(matrix)
    there = tmp_path / "there.bpr"
    there.touch()
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    for out, more, says in (
        (there, (), "exists: give a new file"),
        (tmp_path / "x", ("--since", "soon"), "--since is 'soon': give a time such as"),
        (tmp_path / "x", ("--since", "5s"), "steps of 1m: give from 1 to"),
        (tmp_path / "x", ("--token", "NO_SUCH_TOKEN"), "names the variable NO_SUCH_TOKEN, which is not set"),
    ):
        result = run_on_engine(*arguments(server.url, out, *more))
        assert result.exit_code == 2, result.output
        assert says in result.stderr
    assert run_on_engine(*arguments("ftp://x", tmp_path / "x")).exit_code == 2
    assert server.asked == []


def test_a_token_is_sent(run_on_engine: Run, scripted: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROM_TOKEN", "s3cret")
    server = scripted(matrix)
    result = run_on_engine(*arguments(server.url, tmp_path / "x.bpr", "--since", "1h", "--token", "PROM_TOKEN"))
    assert result.exit_code == 0
    assert [head.partition(b"authorization: ")[2].split(b"\r\n")[0] for head in server.heads] == [b"Bearer s3cret"]
