"""Grafana's form of the panels; `python dashboards/render.py` writes provisioning/dashboards/*.json."""

import json
from pathlib import Path
from typing import Any

from panels import DASHBOARDS, Dashboard, Panel

from fissura.core.files import write_text

OUTPUT = Path(__file__).parent / "provisioning" / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, HEIGHT = 2, 8  # a row holds two panels of eight grid units; Grafana's grid is 24 wide


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
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull"],
            },
            "tooltip": {"mode": "multi", "sort": "none"},
        },
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": DATASOURCE, "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def render(dashboard: Dashboard) -> dict[str, Any]:
    """The whole dashboard: its panels, and above them the choice of data source and of the variable."""
    return {
        "uid": f"fissura-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["fissura", "ray"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
                {
                    "name": dashboard.variable,
                    "type": "query",
                    "label": dashboard.variable.capitalize(),
                    "datasource": DATASOURCE,
                    "definition": dashboard.values,
                    "query": {"query": dashboard.values, "refId": "values"},
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": ["All"], "value": ["$__all"]},
                },
            ]
        },
        "panels": [graph(panel, position=position) for position, panel in enumerate(dashboard.panels)],
    }


def files() -> dict[Path, str]:
    """The text of each file."""
    return {OUTPUT / f"{each.name}.json": json.dumps(render(each), indent=2) + "\n" for each in DASHBOARDS}


if __name__ == "__main__":
    for path, text in files().items():
        write_text(path, text)
