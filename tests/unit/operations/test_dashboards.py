"""The committed dashboards are the rendered ones, and they and the alerts ask only for metrics that exist."""

import ast
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from panels import DASHBOARDS
from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES
from render import files, render

from cluster.forms import on_aws
from cluster.hosts import HOME
from fissura.serving.gate import Gate
from fissura.serving.hosting import ReplicaCount
from fissura.serving.limits import Limits
from fissura.serving.telemetry import Telemetry

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "dashboards"
GAUGES = ROOT / "platform" / "fissura" / "distributed" / "search" / "gauges.py"
PAGES: list[dict[str, Any]] = [render(each) for each in DASHBOARDS]
QUERIES = [
    (panel["title"], target["expr"])
    for page in PAGES
    for panel in page["panels"]
    for target in panel["targets"]
]
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
EXPRESSIONS = [(rule["alert"], rule["expr"]) for rule in RULES]
TESTS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
TAGS = {
    "trials": {"study", "state"},
    "best_value": {"study", "metric"},
    "trial_value": {"study", "trial"},
    "epochs_total": {"study"},
    "epoch_seconds": {"study", "trial"},
    "data_wait_share": {"study", "trial"},
}
OURS = {f"ray_fissura_{name}": tags for name, tags in TAGS.items()}
METRIC = re.compile(r"\b(ray_\w+|fissura_\w+)")


def service_metrics() -> dict[str, set[str]]:
    """The names of the service's samples, and their labels."""
    telemetry = Telemetry(Gate(Limits(), clock=lambda: 0.0), lambda: {"fissura": ReplicaCount(1, 1)})
    telemetry.requests.labels("/v1/segment", "200").inc()
    telemetry.seconds.labels("/v1/segment").observe(1.0)
    telemetry.images.labels("default", "answered").inc()
    telemetry.pixels.labels("default").inc()
    telemetry.replica_seconds.labels("default", 1).observe(1.0)
    samples = [line for line in telemetry.text().decode().splitlines() if not line.startswith("#")]
    return {re.match(r"\w+", line)[0]: set(re.findall(r'(\w+)="', line)) for line in samples}


SERVICE = service_metrics()
KNOWN = OURS.keys() | SERVICE.keys() | {f"ray_{name}" for name in METRICS_GAUGES}


def test_the_committed_dashboards_are_the_rendered_ones() -> None:
    """If this fails: `python dashboards/render.py`."""
    committed = {path: path.read_text() for path in (FOLDER / "provisioning" / "dashboards").glob("*.json")}
    assert committed == files()


@pytest.mark.parametrize(("title", "query"), QUERIES + EXPRESSIONS)
def test_a_query_asks_for_metrics_that_are_exported(title: str, query: str) -> None:
    names = set(METRIC.findall(query))
    assert names <= KNOWN, title
    assert names or re.search(r"\bup{", query), title


@pytest.mark.parametrize(("title", "query"), QUERIES + EXPRESSIONS)
def test_a_query_uses_labels_that_its_metrics_have(title: str, query: str) -> None:
    grouped = {tag.strip() for tags in re.findall(r"by \(([^)]*)\)", query) for tag in tags.split(",")}
    for name, selector in re.findall(rf"{METRIC.pattern}(?:{{([^}}]*)}})?", query):
        if name in OURS or name in SERVICE:
            known = (OURS | SERVICE)[name] | {"le", "instance"}
            assert grouped <= known, title
            assert set(re.findall(r"(\w+)(?:=~|!~|=|!=)\"", selector)) <= known, title


def test_the_search_exports_these_gauges_with_these_tags() -> None:
    """Read from the table (name, description, tags) in the source: the gauges exist only inside a Ray."""
    tree = ast.parse(GAUGES.read_text())
    literals = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Tuple)]
    [table] = [ast.literal_eval(text) for text in literals if text.startswith("(('trials', ")]
    assert {name: {"study", *tags} for name, _, tags in table} == TAGS


def test_every_metric_of_ours_is_shown() -> None:
    shown = {name for _, query in QUERIES for name in METRIC.findall(query)}
    histograms = {f"fissura_request_seconds_{part}" for part in ("sum", "count")}
    ours = {name for name in SERVICE if not name.endswith("_created")} - histograms
    # what a 429 is counts beside all other answers
    assert OURS.keys() | ours - {"fissura_refused_requests"} <= shown


def test_legends_use_only_labels_that_their_query_keeps() -> None:
    for target in itertools.chain.from_iterable(
        panel["targets"] for page in PAGES for panel in page["panels"]
    ):
        kept = set(re.findall(r"by \(([^)]*)\)", target["expr"])[0].split(", "))
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page["uid"])
def test_panels_lie_side_by_side_within_the_grid(page: dict[str, Any]) -> None:
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in page["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in page["panels"]}) == len(page["panels"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page["uid"])
def test_every_panel_and_variable_takes_the_chosen_data_source(page: dict[str, Any]) -> None:
    assert set(re.findall(r'"uid": "(\$[^"]*)"', json.dumps(page))) == {"${datasource}"}
    declared = {variable["name"] for variable in page["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(page["panels"]))) == declared


def test_grafana_is_told_of_prometheus_and_of_the_folder_that_it_is_given() -> None:
    """`dashboards/provisioning` is copied or mounted to /etc/grafana/provisioning, where Grafana looks."""
    provisioning = FOLDER / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    [provider] = yaml.safe_load((provisioning / "dashboards" / "fissura.yml").read_text())["providers"]
    where = Path(provider["options"]["path"])
    assert (provisioning / where.relative_to("/etc/grafana/provisioning")).samefile(
        next(iter(files())).parent
    )


def test_prometheus_reads_the_list_of_nodes_that_ray_writes() -> None:
    [nodes, service] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    [folder] = re.findall(r"--temp-dir=(\S+)", on_aws()["head_start_ray_commands"][1])
    written = Path(folder.replace("$HOME", HOME)) / PROMETHEUS_SERVICE_DISCOVERY_FILE
    assert nodes["file_sd_configs"][0]["files"] == [str(written)]
    # Ray itself gives its nodes this label, and the alerts ask for both
    assert {nodes["job_name"], service["job_name"]} == {"ray", "fissura-service"}
    assert set(re.findall(r'job="([^"]+)"', (FOLDER / "alerts.yml").read_text())) == {
        "ray",
        "fissura-service",
    }


@pytest.mark.parametrize("name", [name for name, _ in EXPRESSIONS])
def test_an_alert_is_tested_while_all_is_well_and_after_the_fault(name: str) -> None:
    """By `promtool test rules`, in `make test-dashboards`."""
    cases = [case for test in TESTS for case in test["alert_rule_test"] if case["alertname"] == name]
    assert {bool(case["exp_alerts"]) for case in cases} == {False, True}


@pytest.mark.parametrize("name", [name for name, _ in EXPRESSIONS])
def test_an_alert_is_explained_in_the_guide(name: str) -> None:
    assert f"| {name} |" in (ROOT / "docs" / "dashboards.md").read_text()


@pytest.mark.parametrize("title", sorted({title for title, _ in QUERIES}))
def test_a_panel_is_explained_in_the_guide(title: str) -> None:
    assert f"| {title} |" in (ROOT / "docs" / "dashboards.md").read_text()
