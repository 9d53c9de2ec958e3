"""`recommend`, `replay` and `export` on the week that is shipped, and on recordings that lack something."""

from __future__ import annotations

import csv
import html
import html.parser
import io
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import BackpressureConfig, Recording
from backpressure._recording.book import Book
from backpressure._recording.row import Row
from backpressure.cli.recordings._options import BehaviourOptions
from backpressure.replay import Loops, Replay
from support import redis_fixtures

if TYPE_CHECKING:
    from cli.conftest import Run

WEEK = Path(__file__).parents[2] / "examples" / "week" / "week.bpr"
BEGIN_MS = 1_800_000_000_000
HOSTILE = '<script>alert("x")</script>&\'"\u202e'


def flood(*, begin: int = 0, minutes: int = 180) -> list[Row]:
    """Return rows of a queue that is flooded for ten minutes of each hour, read each ten seconds."""
    rows = []
    for at in range(begin * 60, (begin + minutes) * 60, 10):
        since = at % 3_600
        backlog = 10 * min(since, max(0, 1_200 - since))
        come = 200 if 0 < since <= 600 else 0
        rows.append(Row(BEGIN_MS + 1_000 * at, backlog, low_offers=come, low_delays=0, low_sheds=0))
    return rows


def recorded(path: Path, **queues: list[Row]) -> Path:
    Book(path).write(queues, {}, BEGIN_MS, 10**12, release=True)
    return path


def written(path: Path, **low: int) -> Path:
    bounds = "".join(f"{name} = {value}\n" for name, value in low.items())
    path.write_text(f"[thresholds.low_priority]\n{bounds}", "utf-8")
    return path


@pytest.fixture(scope="module")
def morning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a morning of the week, with a campaign in it: a whole week takes minutes in Python."""
    week, book = Recording(WEEK), Book(tmp_path_factory.mktemp("morning") / "morning.bpr")
    begin_ms = next(week.queue("mail")).at_ms + 65 * 1_800_000
    rows = {
        name: list(week.queue(name, since_ms=begin_ms, until_ms=begin_ms + 2 * 3_600_000)) for name in week.queues()
    }
    policies = {number: json.dumps(told) for number, told in week.policies().items()}
    book.write(rows, policies, begin_ms, 10**12, release=True)
    return book.path


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return written(tmp_path / "policy.toml", green_max=100, yellow_max=200, red_max=300)


class Reader(html.parser.HTMLParser):
    """Sees whether what is opened is closed, and gathers the text and the tags."""

    EMPTY = ("meta", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


# recommend


def test_recommend_writes_settings_with_reasons(run_on_engine: Run, morning: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy.toml"
    result = run_on_engine("recommend", morning, "-q", "mail", "--target-age", "low=2m", "--out", out)
    assert result.exit_code == 0, result.output
    assert "mail  confidence none" in result.stdout
    assert "of work, paced" in result.stdout
    assert "twice the usual peak" in result.stdout
    assert f"written to {out}" in result.stdout
    config = BackpressureConfig.from_file(out)
    assert config.mode == "observe"
    assert list(config.queues) == ["mail"]
    window = config.thresholds_of("mail").low_priority
    assert f"red_max = {window.red_max}  # shed from" in out.read_text("utf-8")


def test_recommend_tells_candidates_as_json(run: Run, morning: Path) -> None:
    result = run("recommend", morning, "-q", "mail", "--loops", "mail/low=20", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["written"] is None
    (queue,) = told["queues"]
    assert len(queue["candidates"]) > 10
    assert queue["candidates"][0]["settings"]["thresholds"]["low_priority"]["red_max"] > 0
    assert queue["candidates"][0]["sheds"] == {"high": 0, "medium": 0, "low": 0}


def test_recommend_says_what_is_missing_and_when_to_come_back(run_on_engine: Run, tmp_path: Path) -> None:
    rows = [Row(row.at_ms, row.backlog) for row in flood()]
    result = run_on_engine("recommend", recorded(tmp_path / "outside.bpr", mail=rows))
    assert result.exit_code == 1
    assert "give the controllers of producers a Recorder" in result.stdout
    assert "come back on 2027-01-22 at " in result.stdout
    assert "nothing can be recommended for 1 of 1 queues" in result.stderr


def test_recommend_writes_what_it_can(run: Run, tmp_path: Path) -> None:
    rows = [Row(row.at_ms, row.backlog) for row in flood()]
    path = recorded(tmp_path / "both.bpr", outside=rows, mail=flood())
    result = run("recommend", path, "--out", tmp_path / "policy.toml")
    assert result.exit_code == 1
    assert list(BackpressureConfig.from_file(tmp_path / "policy.toml").queues) == ["mail"]
    assert "confidence none" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--target-age", "soon"], "--target-age is 'soon': give seconds, or a time such as 90s, 10m or 1h"),
        (["--target-age", "0"], "--target-age is 0.0: give seconds, above 0 and up to a week"),
        (["--target-age", "lowest=5"], "--target-age is 'lowest=5': give low=…"),
        (["--loops", "30"], "--loops is '30': write it as mail/medium=30"),
        (["--loops", "low=3:1s:skips:paced"], "and :paced:skips if they are so"),
        (["--loops", "low=0"], "--loops: loops is 0: give a whole number"),
        (["--loops", "nix/low=3"], "--loops names queue 'nix', which is not among images, mail, reports"),
        (["--return", "2"], "returns is 2.0: give a number from 0 to 1"),
        (["--return", "half"], "--return is 'half': give a part from 0 to 1"),
        (["--mix", "0.5"], "--mix is '0.5': give a part for each priority"),
        (["--return", "0.5", "--return-after", "2h"], "return_after is 7200.0: give seconds up to an hour"),
    ],
)
def test_wrong_options_are_refused(run: Run, arguments: list[str], told: str) -> None:
    result = run("recommend", WEEK, *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stdout == ""


def test_a_mix_that_does_not_add_up_is_refused(run: Run, policy: Path) -> None:
    result = run("replay", WEEK, "--policy", policy, "--mix", "low=0.5,high=0.1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--mix is {" in result.stderr


def test_recommend_replaces_no_file(run: Run, policy: Path) -> None:
    before = policy.read_text("utf-8")
    result = run("recommend", WEEK, "--out", policy)
    assert result.exit_code == 2
    assert "give a new file" in result.stderr
    assert policy.read_text("utf-8") == before


def test_ctrl_c_ends_it_and_writes_nothing(
    run: Run, morning: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while policies are replayed."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Replay, "queue", interrupted)
    result = run("recommend", morning, "--out", tmp_path / "policy.toml")
    assert (result.exit_code, result.output) == (130, "")
    assert not (tmp_path / "policy.toml").exists()


# replay


def test_replay_shows_answers_side_by_side(run_on_engine: Run, morning: Path, policy: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "other.toml", green_max=1_000, yellow_max=2_000, red_max=3_000)
    result = run_on_engine(
        *("replay", morning, "--policy", policy, "--against", other),
        *("-q", "mail", "--loops", "low=20", "--return", "low=0.5"),
    )
    assert result.exit_code == 0, result.output
    assert "mail  L2: the backlog was recorded, and what producers offered" in result.stdout
    lines = result.stdout.splitlines()
    for name in ("recorded", "policy.toml", "other.toml"):
        assert any(line.split()[0] == name and "▁" in line for line in lines if line.strip()), name
        if name != "recorded":
            place = next(place for place, line in enumerate(lines) if line.strip() == name)
            answers = [line.split()[0] for line in lines[place + 3 : place + 14] if "high" in line]
            assert answers == ["recorded", "feedback", "behaviour"]
    assert "parity: the policy in force, replayed: " in result.stdout
    assert "  - offers are those of the process that recorded" in result.stdout


def test_replay_tells_all_as_json(run: Run, morning: Path, policy: Path) -> None:
    result = run("replay", morning, "--policy", policy, "--against", policy, "--json")
    told = json.loads(result.stdout)
    assert [queue["queue_name"] for queue in told["queues"]] == ["images", "mail", "reports"]
    for queue in told["queues"]:
        against = queue.pop("against")
        assert against == queue
        assert queue["feedback"]["priorities"]["medium"]["offers"] > 0


def test_replay_of_the_backlog_alone_tells_times(run_on_engine: Run, policy: Path, tmp_path: Path) -> None:
    path = recorded(tmp_path / "outside.bpr", mail=[Row(row.at_ms, row.backlog) for row in flood()])
    result = run_on_engine("replay", path, "--policy", policy, "--html", tmp_path / "report.html")
    assert result.exit_code == 0
    assert "mail  L0: the backlog alone was recorded" in result.stdout
    assert " long" in result.stdout
    assert "feedback" not in result.stdout
    assert "feedback" not in Reader((tmp_path / "report.html").read_text("utf-8")).text


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nowhere.bpr", "--policy", "POLICY"], 1, "recording nowhere.bpr does not exist"),
        (["WEEK", "--policy", "nowhere.toml"], 2, "'nowhere.toml' cannot be read"),
        (["WEEK", "--policy", "BAD"], 1, "1 fault in "),
        (["WEEK", "--policy", "POLICY", "--against", "BAD"], 1, "1 fault in "),
        (["WEEK", "--policy", "POLICY", "-q", "nix"], 1, "has no queue 'nix': it has images, mail, reports"),
        (["WEEK", "--policy", "POLICY", "--html", "/nowhere/report.html"], 2, "cannot be written"),
        (["POLICY", "--policy", "POLICY"], 1, "file is not a database"),
    ],
)
def test_what_cannot_be_replayed(
    run: Run, policy: Path, tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    bad = written(tmp_path / "bad.toml", green_max=-1)
    named = {"WEEK": str(WEEK), "POLICY": str(policy), "BAD": str(bad)}
    result = run("replay", *(named.get(argument, argument) for argument in arguments))
    assert result.exit_code == code
    assert told in result.stderr
    assert result.stdout == ""


# The page.


def test_the_page_needs_nothing_and_hides_nothing(
    run_on_engine: Run, morning: Path, policy: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    result = run_on_engine(
        "replay", morning, "--policy", policy, "--against", policy, "--html", page, "--return", "0.5"
    )
    assert result.exit_code == 0
    assert f"written to {page}" in result.stdout
    text = page.read_text("utf-8")
    read = Reader(text)
    assert not read.tags & {"script", "link", "img", "iframe", "form"}
    assert "http://" not in text.replace("http-equiv", "")
    assert "https://" not in text
    assert text.count("<svg ") == 3
    for told in ("images", "mail", "reports", "Parity: ", "low is shed", "behaviour", "prefers-color-scheme: dark"):
        assert told in text
    assert len(text) < 300_000


def test_hostile_names_stay_names(run: Run, policy: Path, tmp_path: Path) -> None:
    path = recorded(tmp_path / f"{'<b>'}.bpr", **{HOSTILE: flood()})
    page = tmp_path / "report.html"
    result = run("replay", path, "--policy", policy, "--html", page)
    assert result.exit_code == 0
    text = page.read_text("utf-8")
    read = Reader(text)
    assert not read.tags & {"script", "b>"}
    assert '<script>alert("x")</script>&\'"\\u202e' in read.text
    assert "\u202e" not in text
    assert "Replay of <b>.bpr" in read.text


def test_the_page_fits_a_phone(run: Run, morning: Path, policy: Path, tmp_path: Path) -> None:
    """What is wider, the picture and the table, scrolls by itself; nothing is fetched, and no script of ours runs."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        redis_fixtures.no_server("no chromium: scripts/install_tools.sh installs it on Debian")
    page = tmp_path / "report.html"
    assert run("replay", morning, "--policy", policy, "--html", page, "--return", "0.5").exit_code == 0
    measure = tmp_path / "measure.html"
    source = html.escape(page.read_text("utf-8"))
    measure.write_text(
        f'<iframe width="390" height="800" style="border: 0" srcdoc="{source}"></iframe><pre id="measured"></pre>'
        "<script>addEventListener('load', () => { const frame = document.querySelector('iframe').contentDocument;"
        "document.getElementById('measured').textContent = [frame.documentElement.scrollWidth,"
        "frame.querySelector('svg').getBoundingClientRect().width].join(' ') })</script>",
        "utf-8",
    )
    command = [str(browser), "--headless", "--hide-scrollbars", "--no-sandbox", "--disable-gpu", "--no-proxy-server"]
    command += [f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", measure.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    (found,) = re.findall(r'<pre id="measured">([\d. ]+)</pre>', done.stdout) or [done.stderr]
    width, picture = map(float, found.split())
    assert width == 390
    assert picture > 600


def test_gaps_are_gaps(run: Run, policy: Path, tmp_path: Path) -> None:
    """The line of the picture ends where nothing is known, and begins anew after it."""

    def lines(*parts: list[Row]) -> list[str]:
        path = tmp_path / f"{len(parts)}.bpr"
        recorded(path, mail=[row for part in parts for row in part])
        page = tmp_path / f"{len(parts)}.html"
        assert run("replay", path, "--policy", policy, "--html", page).exit_code == 0
        _, _, rest = page.read_text("utf-8").partition('<path class="recorded" d="')
        return rest.partition('"')[0].split("M")[1:]

    assert len(lines(flood(minutes=600))) == 1
    assert len(lines(flood(minutes=300), flood(begin=420, minutes=180))) == 2


def test_a_page_of_an_age_that_is_held(run_on_engine: Run, tmp_path: Path) -> None:
    path = recorded(tmp_path / "short.bpr", mail=flood(minutes=30))
    policy = tmp_path / "aged.toml"
    policy.write_text('[age]\ntarget = "30s"\n', "utf-8")
    page = tmp_path / "aged.html"
    result = run_on_engine("replay", path, "--policy", policy, "--html", page)
    assert result.exit_code == 0, result.output
    assert "feedback" in result.stdout
    text = page.read_text("utf-8")
    assert "aged.toml holds an age of 30 s" in Reader(text).text
    assert 'class="bound"' not in text


def test_a_page_of_two_rows(run: Run, policy: Path, tmp_path: Path) -> None:
    path = recorded(tmp_path / "short.bpr", mail=flood(minutes=1)[:2])
    assert run("replay", path, "--policy", policy, "--html", tmp_path / "short.html").exit_code == 0
    assert "NaN" not in (tmp_path / "short.html").read_text("utf-8")


# export


def test_export_as_csv(run: Run, tmp_path: Path) -> None:
    path = recorded(tmp_path / "two.bpr", mail=flood(), web=flood(minutes=10))
    result = run("export", path, "--csv", tmp_path / "mail.csv", "-q", "mail")
    assert result.exit_code == 0
    assert result.stdout == f"1,080 rows of 1 queue written to {tmp_path / 'mail.csv'}\n"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "mail.csv").read_text("utf-8"))))
    assert len(rows) == 1_080
    assert {row["queue"] for row in rows} == {"mail"}
    assert rows[3]["low_offers"] == "200"
    assert rows[3]["high_offers"] == ""


def test_export_as_parquet(run: Run, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = recorded(tmp_path / "two.bpr", mail=flood(), web=flood(minutes=10))
    result = run("export", path, "--parquet", tmp_path / "all.parquet")
    assert result.exit_code == 0
    table = parquet.read_table(tmp_path / "all.parquet").to_pylist()
    expected = [{"queue": name} | row._asdict() for name in ("mail", "web") for row in Recording(path).queue(name)]
    assert table == expected


def test_export_says_what_parquet_needs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("export", WEEK, "--parquet", tmp_path / "all.parquet")
    assert result.exit_code == 2
    assert "Parquet needs pyarrow: pip install pyarrow, or write CSV" in result.stderr
    assert not (tmp_path / "all.parquet").exists()


@pytest.mark.parametrize("where", [[], ["--csv", "a", "--parquet", "b"]])
def test_export_needs_one_file(run: Run, where: list[str]) -> None:
    result = run("export", WEEK, *where)
    assert result.exit_code == 2
    assert "give one of --csv and --parquet" in result.stderr


def test_what_is_recommended_can_be_replayed(run: Run, morning: Path, tmp_path: Path) -> None:
    """The file says what the command showed: its replay gives the same sheds."""
    told: dict[str, Any] = json.loads(
        run("recommend", morning, "-q", "mail", "--return", "0.5", "--out", tmp_path / "p.toml", "--json").stdout
    )
    assert tomllib.loads((tmp_path / "p.toml").read_text("utf-8"))["queues"]["mail"]
    replayed = run("replay", morning, "-q", "mail", "--return", "0.5", "--policy", tmp_path / "p.toml", "--json")
    answer = json.loads(replayed.stdout)["queues"][0]["behaviour"]
    best = told["queues"][0]["candidates"][0]
    assert answer["priorities"]["low"]["sheds"] == best["sheds"]["low"]
    assert answer["longest_wait"] == best["longest_wait"]


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("mail/low=3", Loops(3)),
        ("mail/low=3:500ms", Loops(3, 0.5)),
        ("mail/low=3:90:paced", Loops(3, 90, paced=True)),
        ("mail/low=3:1m30s:paced:skips", Loops(3, 90, paced=True, skips=True)),
        ("mail/low=3:skips", Loops(3, skips=True)),
    ],
)
def test_loops_are_written_with_a_pause_and_what_they_do(text: str, loops: Loops) -> None:
    given = BehaviourOptions(None, None, (text,), None)
    behaviour = given.of("mail")
    assert behaviour is not None
    assert behaviour.loops == {"low": loops}
