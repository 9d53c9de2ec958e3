"""The files for operators: alerts fire when they must, and the dashboard asks for metrics that exist."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import runpy
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from backpressure import (
    AgeConfig,
    BackpressureConfig,
    BackpressureController,
    InMemoryStatsProvider,
    PollingConfig,
    Priority,
    StatsUnavailableError,
)
from backpressure._telemetry.families import FAMILIES
from backpressure.integrations import passing
from backpressure.integrations._shared.hook import Hook
from support.servers import HOST, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

ROOT = Path(__file__).parent.parent.parent
ALERTS, ALERTS_TEST = ROOT / "ops" / "alerts.yml", ROOT / "ops" / "alerts_test.yml"
DASHBOARD = json.loads((ROOT / "ops" / "dashboard.json").read_text("utf-8"))
RULES = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"][0]["rules"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

# Values that Grafana could put in place of its variables.
GRAFANA = {"$__rate_interval": "5s", "$queue": ".+", "$priority": ".+"}


def filled_in(expression: str) -> str:
    return re.sub(r"\$\w+", lambda variable: GRAFANA[variable[0]], expression)


IN_RULES = {rule["alert"]: rule["expr"] for rule in RULES}
ON_PANELS = {
    f"{panel['title']}/{target['refId']}": filled_in(target["expr"]) for panel in PANELS for target in panel["targets"]
}
# What the guide tells an autoscaler to ask for, of the queue that these tests hold.
AGE_GUIDE = (ROOT / "docs" / "guide" / "age-law.md").read_text("utf-8")
(SCALER,) = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", AGE_GUIDE, re.DOTALL))
DEMAND = SCALER["spec"]["triggers"][0]["metadata"]["query"].replace('queue="mail"', 'queue="aged"')
EXPRESSIONS = IN_RULES | ON_PANELS | {"autoscaler": DEMAND}


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is missing: run scripts/install_tools.sh as root"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run([tool("promtool"), *arguments], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_alerts() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", ALERTS)


def test_each_alert_fires_when_it_must() -> None:
    promtool("test", "rules", ALERTS_TEST)


@pytest.mark.parametrize("rule", RULES, ids=IN_RULES)
def test_each_alert_is_complete(rule: dict[str, Any]) -> None:
    assert rule["for"]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description"}
    # Its unit tests show both: that it fires, and that it is silent.
    tests = yaml.safe_load(ALERTS_TEST.read_text("utf-8"))["tests"]
    cases = [case for test in tests for case in test["promql_expr_test"] if rule["alert"] in case["expr"]]
    assert {bool(case.get("exp_samples")) for case in cases} == {True, False}


def test_limits_that_repeat_the_configuration_are_its_defaults() -> None:
    assert IN_RULES["BackpressureSamplesStale"].endswith(f"> {BackpressureConfig().polling.cache_ttl:g}")


def test_the_dashboard_is_what_its_script_writes() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_dashboard.py"))
    assert script["DASHBOARD"].read_text("utf-8") == script["text"](), "run scripts/make_dashboard.py"


def test_the_autoscaler_is_one_of_keda() -> None:
    (trigger,) = SCALER["spec"]["triggers"]
    assert (SCALER["kind"], trigger["type"]) == ("ScaledObject", "prometheus")
    assert {"serverAddress", "query", "threshold"} <= set(trigger["metadata"])
    assert float(trigger["metadata"]["threshold"]) == pytest.approx(20 / 1.1, abs=0.5)
    behavior = SCALER["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] > 10 * 5


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in DASHBOARD["panels"]):
        left, top = place["x"], place["y"]
        assert left + place["w"] <= 24
        cells = set(itertools.product(range(left, left + place["w"]), range(top, top + place["h"])))
        assert not cells & taken
        taken |= cells


def test_promtool_parses_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(ON_PANELS.values())]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


@pytest.fixture
def provider() -> InMemoryStatsProvider:
    provider = InMemoryStatsProvider({"empty": 0, "yellow": 300, "down": 0})
    provider.set("red", 6_000, processing_count=4, delayed_count=2, oldest_age=90.0, memory_used=0.5)
    return provider


BY_HAND = BackpressureConfig(polling=PollingConfig(enabled=False), max_queues=4)


def aged(store: str, registry: CollectorRegistry) -> BackpressureController:
    """Return a controller, on the system's clock, that holds the age of one queue; its candidate would not."""
    polling = PollingConfig(interval=0.5, busy_interval=0.2, timeout=0.5, jitter=0)
    table = {"age": {"target": "none"}}
    config = BackpressureConfig(age=AgeConfig(target=0.5, store=store), polling=polling, candidate=table)
    return BackpressureController(config, InMemoryStatsProvider({"aged": 0}), registry=registry)


def use(controller: BackpressureController, provider: InMemoryStatsProvider) -> None:
    """Do a little of everything that is counted, on a clock that sleeps move."""
    for error in (StatsUnavailableError("it is away", error_type="connect"), None):
        provider.fail_with(error)
        controller._poller.poll()
    for queue, priority in (("empty", "low"), ("yellow", "low"), ("red", "medium"), ("red", "high")):
        for _ in range(2):
            controller.run(priority, queue, int)
    controller.suggest_throttle("low", "red")  # shed
    controller.record_success(controller.suggest_throttle("medium", "red"))  # without having waited
    for _ in range(5):
        controller.record_failure("down")
    controller.suggest_throttle("high", "down")  # rejected
    controller.suggest_throttle("medium", "fifth")  # untracked
    with passing():
        assert Hook(controller, "low").passes("yellow")


def use_aged(controller: BackpressureController) -> None:
    """Ask for jobs of each priority, so that each has a demand."""
    for priority in Priority:
        controller.suggest_throttle(priority, "aged")


class Series(NamedTuple):
    """One line of the page; the labels of its target are Prometheus's."""

    name: str
    labels: dict[str, str]


TARGET = {"job": "shop", "instance": "a"}


@pytest.fixture(scope="module")
def aged_page(redis_url: str) -> list[Series]:
    registry = CollectorRegistry()
    with aged(redis_url, registry) as controller:
        use_aged(controller)
        asked = {"queue": "aged", "priority": "high"}
        wait_until(lambda: bool(registry.get_sample_value("backpressure_share", asked)), what="the store's answer")
        judged = "backpressure_candidate_offers_total"
        wait_until(lambda: bool(registry.get_sample_value(judged, asked)), what="the next poll")
        return page_of(registry)


@pytest.fixture
def page(make_controller: MakeController, provider: InMemoryStatsProvider, aged_page: list[Series]) -> list[Series]:
    registry = CollectorRegistry()
    use(make_controller(config=BY_HAND, registry=registry), provider)
    return [*page_of(registry), *aged_page, Series("up", TARGET)]


def page_of(registry: CollectorRegistry) -> list[Series]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return [Series(sample.name, sample.labels | TARGET) for family in families for sample in family.samples]


SELECTOR = re.compile(r"\b(?P<name>backpressure_\w+|up)\b(?:{(?P<matchers>[^}]*)})?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
GROUPING = re.compile(r"\bby \(([^)]*)\) \(")
MATCHING = re.compile(r"\bon \(([^)]*)\)")


def names(listed: str) -> set[str]:
    return {name.strip() for name in listed.split(",")}


def bracketed(text: str) -> str:
    """Return the text before the bracket that closes more than were opened."""
    depths = itertools.accumulate({"(": 1, ")": -1}.get(letter, 0) for letter in text)
    return text[: list(depths).index(-1)]


def matches(labels: dict[str, str], matcher: tuple[str, str, str]) -> bool:
    label, operator, value = matcher
    found = re.fullmatch(value, labels[label]) is not None if "~" in operator else labels[label] == value
    return found != operator.startswith("!")


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_every_metric_and_label_exists(page: list[Series], expression: str) -> None:
    """Every selector finds a series of a controller that was used, and every grouping is by labels that it has."""
    labels = {series.name: series.labels for series in page}
    selectors = list(SELECTOR.finditer(expression))
    assert selectors
    for selector in selectors:
        matchers = MATCHER.findall(selector["matchers"] or "")
        named = [series.labels for series in page if series.name == selector["name"]]
        assert any(all(matches(one, matcher) for matcher in matchers) for one in named), selector[0]
    for grouping in GROUPING.finditer(expression):
        for selector in SELECTOR.finditer(bracketed(expression[grouping.end() :])):
            assert names(grouping[1]) <= labels[selector["name"]].keys() or selector["name"] == "up", grouping[0]
    for matching in MATCHING.findall(expression):
        assert names(matching) <= TARGET.keys()


def test_the_variables_of_the_dashboard_exist() -> None:
    variables = {variable["name"]: variable["query"] for variable in DASHBOARD["templating"]["list"]}
    assert {*variables, "__rate_interval"} == {"datasource", *(name.removeprefix("$") for name in GRAFANA)}
    assert set(variables["priority"].split(",")) == {str(priority) for priority in Priority}
    asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables["queue"]["query"])
    assert asked is not None
    assert asked[2] in FAMILIES[asked[1]].labels


@contextlib.contextmanager
def prometheus(folder: Path, target: int) -> Iterator[Callable[..., Any]]:
    """Run a real server that scrapes and evaluates the alerts five times a second; yield a way to ask its API."""
    port = free_port()
    every = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"}
    jobs = [{"job_name": "shop", "static_configs": [{"targets": [f"{HOST}:{target}"]}]}]
    config, log = folder / "prometheus.yml", folder / "log"
    config.write_text(json.dumps({"global": every, "rule_files": [str(ALERTS)], "scrape_configs": jobs}))
    options = (f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={HOST}:{port}")
    with log.open("wb") as file:
        process = subprocess.Popen([tool("prometheus"), *options], stdout=file, stderr=file)

    def ask(path: str, **query: str) -> Any:
        url = f"http://{HOST}:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:  # its answer while it starts
                pytest.fail(f"{query}: {error.read().decode()}")
        except OSError:
            if process.poll() is not None:
                pytest.fail(log.read_text())
        return None

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


def test_a_real_prometheus_has_data_for_every_panel(
    tmp_path: Path, clock: ManualClock, provider: InMemoryStatsProvider, redis_url: str
) -> None:
    registry = CollectorRegistry()
    page, thread = start_http_server(0, HOST, registry)
    missing = ON_PANELS.copy()
    try:
        with (
            BackpressureController(BY_HAND, provider, registry=registry, clock=clock) as controller,
            aged(redis_url, registry) as holder,
            prometheus(tmp_path, page.server_port) as ask,
        ):

            def values(expression: str) -> list[str]:
                return [series["value"][1] for series in (ask("query", query=expression) or {"result": []})["result"]]

            def all_panels_have_data() -> bool:
                use(controller, provider)
                use_aged(holder)
                for where, expression in list(missing.items()):
                    # Divisions by zero and quantiles of nothing are not data either.
                    if set(values(expression)) - {"NaN", "+Inf"}:
                        del missing[where]
                return not missing

            # It looks for targets to scrape every five seconds.
            wait_until(lambda: values("up") == ["1"], seconds=30, what="the first scrape")
            with contextlib.suppress(TimeoutError):
                wait_until(all_panels_have_data, seconds=20)
            assert not missing
            # An autoscaler takes one number: what all producers want to enqueue, admitted or not.

            def is_demanded() -> bool:
                use_aged(holder)
                return [float(demand) > 0 for demand in values(DEMAND)] == [True]

            wait_until(is_demanded, what="a demand")
            wait_until(lambda: bool(values('ALERTS{alertname="BackpressureCircuitOpen"}')), what="the alert")
            rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
            assert {rule["name"]: rule["health"] for rule in rules} == dict.fromkeys(IN_RULES, "ok")
    finally:
        page.shutdown()
        page.server_close()
        thread.join()
