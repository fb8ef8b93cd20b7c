"""The panels of the two dashboards, in reading order, and the PromQL that draws them.

`ray_fissura_*` come from `distributed/search/gauges.py`, other `ray_*` from Ray itself, `fissura_*` from
`serving/telemetry.py`: the service is drawn by these alone, as one machine's Ray exports nothing. For
half a minute after a search was resumed, Ray may show the gauges of both its processes: a sum over states
stands over a `max`, so that nothing counts twice.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """One graph. `unit` is Grafana's name of it; `queries` maps a legend to the PromQL that draws it."""

    title: str
    description: str
    unit: str
    queries: dict[str, str]


@dataclass(frozen=True)
class Dashboard:
    """Panels on one page. `variable` is a label to choose by, with the query of its values."""

    name: str
    title: str
    variable: str
    values: str
    panels: tuple[Panel, ...]


def spread(metric: str) -> dict[str, str]:
    """The middle and the extremes over the trials: a line for each of them would hide the search."""
    series = f'{metric}{{study=~"$study"}}'
    return {
        "{{study}} least": f"min by (study) ({series})",
        "{{study}} median": f"quantile by (study) (0.5, {series})",
        "{{study}} most": f"max by (study) ({series})",
    }


def trials(states: str = ".*") -> str:
    """Trials by study and state."""
    return f'max by (study, state) (ray_fissura_trials{{study=~"$study", state=~"{states}"}})'


SEARCH = Dashboard(
    name="search",
    title="fissura: search",
    variable="study",
    values="label_values(ray_fissura_trials, study)",
    panels=(
        Panel(
            title="Search progress",
            description="Trials that ended, whatever their end.",
            unit="short",
            queries={"{{study}}": f"sum by (study) ({trials('complete|pruned|fail')})"},
        ),
        Panel(
            title="Trials by state",
            description="How many trials wait, run, were completed, were pruned, or failed.",
            unit="short",
            queries={"{{study}} {{state}}": trials()},
        ),
        Panel(
            title="Best value",
            description="The best value of the first objective so far.",
            unit="none",
            queries={
                "{{study}} {{metric}}": 'max by (study, metric) (ray_fissura_best_value{study=~"$study"})'
            },
        ),
        Panel(
            title="Values of the trials",
            description="The latest values of the first objective, of the trials that run.",
            unit="none",
            queries=spread("ray_fissura_trial_value"),
        ),
        Panel(
            title="Epochs per second",
            description="Epochs that all trials together finish; of classifiers, settings judged.",
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
            title="Memory",
            description="The share of each node's main memory that is in use; Ray ends trials at 95 %.",
            unit="percentunit",
            queries={
                "{{instance}}": "sum by (instance) (ray_node_mem_used)"
                " / sum by (instance) (ray_node_mem_total)"
            },
        ),
        Panel(
            title="Disk",
            description="The share of each node's first disk that is in use.",
            unit="percent",
            queries={"{{instance}}": "max by (instance) (ray_node_disk_utilization_percentage)"},
        ),
        Panel(
            title="GPU",
            description="Utilization of each GPU; empty where there is none.",
            unit="percent",
            queries={
                "{{instance}} GPU {{GpuIndex}}": "avg by (instance, GpuIndex) (ray_node_gpus_utilization)"
            },
        ),
        Panel(
            title="GPU memory",
            description="The share of each GPU's memory that is in use; empty where there is none.",
            unit="percentunit",
            queries={
                "{{instance}} GPU {{GpuIndex}}": "sum by (instance, GpuIndex) (ray_node_gram_used)"
                " / (sum by (instance, GpuIndex) (ray_node_gram_used)"
                " + sum by (instance, GpuIndex) (ray_node_gram_available))"
            },
        ),
    ),
)

CHOSEN = 'instance=~"$instance"'
SCORING = f'{CHOSEN}, route=~"/v1/(segment|classify)"'


def latency(share: float) -> str:
    """The seconds within which a share of the requests with images is answered."""
    seconds = f"sum by (instance, le) (rate(fissura_request_seconds_bucket{{{SCORING}}}[5m]))"
    return f"histogram_quantile({share}, {seconds})"


def replicas(which: str) -> str:
    """The `healthy` or the `wanted` replicas of each application; every proxy shows the same numbers."""
    return f"max by (application) (fissura_replicas_{which}{{{CHOSEN}}})"


def worked(part: str) -> str:
    """The `sum` (in seconds) or the `count` of what the replicas of each version worked on, a second."""
    return f"sum by (model, version) (rate(fissura_replica_seconds_{part}{{{CHOSEN}}}[5m]))"


SERVICE = Dashboard(
    name="service",
    title="fissura: service",
    variable="instance",
    values="label_values(fissura_waiting_images, instance)",
    panels=(
        Panel(
            title="Requests",
            description="Requests with images that are answered a second, by their status.",
            unit="reqps",
            queries={
                "{{instance}} {{status}}": "sum by (instance, status)"
                f" (rate(fissura_requests_total{{{SCORING}}}[5m]))"
            },
        ),
        Panel(
            title="Latency",
            description="Seconds from a request with images to its answer, refused ones among them.",
            unit="s",
            queries={
                "{{instance}} p50": latency(0.5),
                "{{instance}} p95": latency(0.95),
                "{{instance}} p99": latency(0.99),
            },
        ),
        Panel(
            title="Refusals",
            description="Requests a second that are told to come again (429), as too much waits.",
            unit="reqps",
            queries={
                "{{instance}}": "sum by (instance)"
                f' (rate(fissura_requests_total{{{CHOSEN}, status="429"}}[5m]))'
            },
        ),
        Panel(
            title="Errors",
            description="Requests a second that fail: by their own fault (4xx, without 429), or the service's"
            " (5xx).",
            unit="reqps",
            queries={
                "{{instance}} {{status}}": "sum by (instance, status)"
                f' (rate(fissura_requests_total{{{CHOSEN}, status=~"[45]..", status!="429"}}[5m]))'
            },
        ),
        Panel(
            title="Images",
            description="Images a second, by model and outcome.",
            unit="cps",
            queries={
                "{{model}} {{outcome}}": "sum by (model, outcome)"
                f" (rate(fissura_images_total{{{CHOSEN}}}[5m]))"
            },
        ),
        Panel(
            title="Pixels",
            description="Pixels a second, by model: what a service's speed is, whatever the images' sizes.",
            unit="cps",
            queries={"{{model}}": f"sum by (model) (rate(fissura_pixels_total{{{CHOSEN}}}[5m]))"},
        ),
        Panel(
            title="Waiting images",
            description="Images that wait or are worked on.",
            unit="short",
            queries={"{{instance}}": f"sum by (instance) (fissura_waiting_images{{{CHOSEN}}})"},
        ),
        Panel(
            title="Waiting work",
            description="Seconds that what waits will take; beyond --max-waiting-seconds, more is refused.",
            unit="s",
            queries={"{{instance}}": f"sum by (instance) (fissura_waiting_seconds{{{CHOSEN}}})"},
        ),
        Panel(
            title="Replicas",
            description="Healthy replicas, and those that there should be, by version of a model; `fissura`"
            " is the process that answers HTTP.",
            unit="short",
            queries={
                "{{application}} healthy": replicas("healthy"),
                "{{application}} wanted": replicas("wanted"),
            },
        ),
        Panel(
            title="Images in a replica",
            description="How long a replica takes for an image, on average, by version of a model.",
            unit="s",
            queries={"{{model}} v{{version}}": f"{worked('sum')} / {worked('count')}"},
        ),
    ),
)

DASHBOARDS = (SEARCH, SERVICE)
