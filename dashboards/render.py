"""The Grafana dashboard of a search; `python dashboards/render.py` writes search.json from its panels."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fissura.core.files import write_text

OUTPUT = Path(__file__).with_name("search.json")
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, HEIGHT = 2, 8  # a row holds two panels of eight grid units; Grafana's grid is 24 wide


@dataclass(frozen=True)
class Panel:
    """One graph. `unit` is Grafana's name of it; `queries` maps a legend to the PromQL that draws it."""

    title: str
    description: str
    unit: str
    queries: dict[str, str]


def spread(metric: str) -> dict[str, str]:
    """The middle and the extremes over the trials: a line for each of them would hide the search."""
    series = f'{metric}{{study=~"$study"}}'
    return {
        "{{study}} least": f"min by (study) ({series})",
        "{{study}} median": f"quantile by (study) (0.5, {series})",
        "{{study}} most": f"max by (study) ({series})",
    }


PANELS = (
    Panel(
        title="Search progress",
        description="Trials that ended, whatever their end.",
        unit="short",
        queries={
            "{{study}}": 'sum by (study) (ray_fissura_trials{study=~"$study", state!~"running|waiting"})'
        },
    ),
    Panel(
        title="Trials by state",
        description="How many trials wait, run, were completed, were pruned, or failed.",
        unit="short",
        queries={"{{study}} {{state}}": 'sum by (study, state) (ray_fissura_trials{study=~"$study"})'},
    ),
    Panel(
        title="Best value",
        description="The best objective value so far.",
        unit="none",
        queries={"{{study}} {{metric}}": 'max by (study, metric) (ray_fissura_best_value{study=~"$study"})'},
    ),
    Panel(
        title="Values of the trials",
        description="The latest objective values of all trials.",
        unit="none",
        queries=spread("ray_fissura_trial_value"),
    ),
    Panel(
        title="Epochs per second",
        description="Epochs that all trials together finish.",
        unit="cps",
        queries={"{{study}}": 'sum by (study) (rate(ray_fissura_epochs_total{study=~"$study"}[5m]))'},
    ),
    Panel(
        title="Seconds per epoch",
        description="How long the latest epoch of each trial took.",
        unit="s",
        queries=spread("ray_fissura_epoch_seconds"),
    ),
    Panel(
        title="Time waiting for data",
        description="The share of an epoch that the model waits for batches: keep it under a tenth.",
        unit="percentunit",
        queries=spread("ray_fissura_data_wait_share"),
    ),
    Panel(
        title="CPU",
        description="Utilization of each node's processors.",
        unit="percent",
        queries={"{{instance}}": "avg by (instance) (ray_node_cpu_utilization)"},
    ),
    Panel(
        title="GPU",
        description="Utilization of each GPU; empty where there is none.",
        unit="percent",
        queries={"{{instance}} GPU {{GpuIndex}}": "avg by (instance, GpuIndex) (ray_node_gpus_utilization)"},
    ),
    Panel(
        title="Memory",
        description="Main memory in use on each node.",
        unit="bytes",
        queries={"{{instance}}": "sum by (instance) (ray_node_mem_used)"},
    ),
)


def graph(panel: Panel, *, position: int) -> dict[str, Any]:
    """Grafana's form of `panel`, the `position`-th (from 0) of the dashboard, in reading order."""
    row, column = divmod(position, COLUMNS)
    width = 24 // COLUMNS
    return {
        "id": position + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": column * width, "y": row * HEIGHT, "w": width, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": {"showPoints": "auto"}}, "overrides": []},
        "options": {
            "legend": {"displayMode": "table", "calcs": ["lastNotNull"]},
            "tooltip": {"mode": "multi"},
        },
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": DATASOURCE, "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def dashboard() -> dict[str, Any]:
    """The whole dashboard: its panels, and the choice of data source and of studies above them."""
    studies = "label_values(ray_fissura_trials, study)"
    return {
        "uid": "fissura-search",
        "title": "fissura: search",
        "tags": ["fissura", "ray"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
                {
                    "name": "study",
                    "type": "query",
                    "label": "Study",
                    "datasource": DATASOURCE,
                    "definition": studies,
                    "query": {"query": studies, "refId": "studies"},
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": ["All"], "value": ["$__all"]},
                },
            ]
        },
        "panels": [graph(panel, position=position) for position, panel in enumerate(PANELS)],
    }


def render() -> str:
    """The text of search.json."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    write_text(OUTPUT, render())
