"""The committed dashboard is the rendered one, and it asks only for metrics that exist."""

import ast
import itertools
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._common.utils import get_default_ray_temp_dir
from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
PROGRESS = DASHBOARDS.parent / "platform" / "fissura" / "jobs" / "progress.py"
RENDER = runpy.run_path(str(DASHBOARDS / "render.py"))
PANELS: list[dict[str, Any]] = RENDER["dashboard"]()["panels"]
OURS = {
    "fissura_trials": {"study", "state"},
    "fissura_best_value": {"study", "metric"},
    "fissura_trial_value": {"study", "trial"},
    "fissura_epochs_total": {"study"},
    "fissura_epoch_seconds": {"study", "trial"},
    "fissura_data_wait_share": {"study", "trial"},
}
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


def test_the_committed_dashboard_is_the_rendered_one() -> None:
    """If this fails: `python dashboards/render.py`."""
    assert (DASHBOARDS / "search.json").read_text() == RENDER["render"]()


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_a_query_asks_for_one_metric_that_ray_or_fissura_exports(title: str, query: str) -> None:
    [name] = re.findall(r"\bray_(\w+)", query)
    assert name in OURS or name in METRICS_GAUGES, title


@pytest.mark.parametrize(("title", "query"), [each for each in QUERIES if "ray_fissura_" in each[1]])
def test_a_query_of_ours_uses_tags_that_its_metric_has(title: str, query: str) -> None:
    [name] = re.findall(r"\bray_(\w+)", query)
    grouped = re.findall(r"by \(([^)]*)\)", query)
    matched = re.findall(r"(\w+)(?:=~|!~|=|!=)\"", query)
    assert {tag.strip() for tags in grouped for tag in tags.split(",")} | set(matched) <= OURS[name], title


def test_the_search_exports_these_metrics_with_these_tags() -> None:
    """Read from the table (name, description, tags) in the source: the gauges exist only inside a search."""
    tree = ast.parse(PROGRESS.read_text())
    literals = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Tuple)]
    [table] = [ast.literal_eval(text) for text in literals if text.startswith("(('trials', ")]
    assert {f"fissura_{name}": {"study", *tags} for name, _, tags in table} == OURS


def test_every_metric_of_ours_is_shown() -> None:
    assert {name for _, query in QUERIES for name in re.findall(r"ray_(fissura_\w+)", query)} == OURS.keys()


def test_legends_use_only_labels_that_their_query_keeps() -> None:
    for target in itertools.chain.from_iterable(panel["targets"] for panel in PANELS):
        [grouped] = re.findall(r"by \(([^)]*)\)", target["expr"])
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= set(grouped.split(", "))


def test_panels_lie_side_by_side_within_the_grid() -> None:
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in PANELS
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_every_panel_and_variable_takes_the_chosen_data_source() -> None:
    text = json.dumps(RENDER["dashboard"]())
    assert set(re.findall(r'"uid": "(\$[^"]*)"', text)) == {"${datasource}"}


def test_prometheus_reads_the_list_of_nodes_that_ray_writes() -> None:
    [job] = yaml.safe_load((DASHBOARDS / "prometheus.yml").read_text())["scrape_configs"]
    written = Path(get_default_ray_temp_dir()) / PROMETHEUS_SERVICE_DISCOVERY_FILE
    assert job["file_sd_configs"][0]["files"] == [str(written)]
