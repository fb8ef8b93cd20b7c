"""A service on one machine, beside which no Ray gives metrics: every panel of it has something to draw, and
its alerts are silent while it is well and see a replica that died."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from panels import SERVICE

from prometheus_process import QUERIES, Prometheus, free_ports, observed, until
from serve_process import TOKEN, Running, asking, descendants, photograph, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

APPLICATIONS = {"fissura": 1, "fissura-model-walls-v1": 2}
PANELS = {(title, legend): query for (page, title, legend), query in QUERIES.items() if page == SERVICE.name}


@pytest.fixture(scope="module")
def service(
    write_segmenter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """Two replicas that let a tenth of a second of work wait."""
    folder = tmp_path_factory.mktemp("service")
    run = write_segmenter(folder / "0123456789abcdef")
    limits = ("--replicas", "2", "--cpus-per-replica", "1", "--max-waiting-seconds", "0.1")
    with serving(folder, f"walls={run}", *limits) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(service: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Beside the service, which is asked until the graphs show its answers, refusals and errors."""
    folder = tmp_path_factory.mktemp("prometheus")
    port, [web] = int(service.url.rpartition(":")[2]), free_ports(1)
    nodes = folder / "no-nodes.json"
    with observed(
        folder, nodes=nodes, service=port, token=TOKEN, web=web, environment=dict(os.environ)
    ) as found:
        statuses = [f'sum(rate(fissura_requests_total{{status="{one}"}}[5m]))' for one in (200, 422, 429)]

        def asked() -> bool:
            asyncio.run(ask(service.url))
            return all(found.most(query) > 0 for query in statuses)

        until(asked, what="answers, refusals and errors in Prometheus")
        yield found


async def ask(url: str) -> None:
    """Sends twelve photographs at once, and what is none."""
    image = photograph(900, 1200)
    async with asking(url) as send:
        await asyncio.gather(*(send("POST", "/v1/segment", image) for _ in range(12)))
        await send("POST", "/v1/segment", b"\xff\xd8\xff torn")


@pytest.mark.parametrize(("title", "legend"), PANELS, ids=str)
def test_every_panel_of_the_service_has_something_to_draw(
    prometheus: Prometheus, title: str, legend: str
) -> None:
    lines = prometheus.drawn(PANELS[title, legend])
    assert lines
    labels = {word.lstrip("v").strip("{}") for word in legend.split() if "{{" in word}
    assert all(labels <= line["metric"].keys() for line in lines)
    assert all(float(line["values"][-1][1]) >= 0 for line in lines)


@pytest.mark.parametrize("which", ["healthy", "wanted"])
def test_the_panel_of_replicas_shows_each_application(prometheus: Prometheus, which: str) -> None:
    lines = prometheus.drawn(PANELS["Replicas", f"{{{{application}}}} {which}"])
    assert {line["metric"]["application"]: float(line["values"][-1][1]) for line in lines} == APPLICATIONS


def test_the_alerts_are_silent_about_a_service_that_is_well(prometheus: Prometheus) -> None:
    active = {alert["labels"]["alertname"] for alert in prometheus.get("alerts")["alerts"]}
    # that it was asked more than it lets wait is no fault of this service
    assert active <= {"ServiceRefuses"}


def test_a_replica_that_died_is_seen_until_there_is_another(prometheus: Prometheus, service: Running) -> None:
    missing = "max(fissura_replicas_wanted - fissura_replicas_healthy)"
    assert prometheus.most(missing) == 0
    below = descendants(service.process.pid)
    victim = next(pid for pid, line in below.items() if "ServeReplica:fissura-model-walls" in line)
    os.kill(victim, signal.SIGKILL)
    until(lambda: prometheus.most(missing) == 1, what="the replica is missed")
    query = PANELS["Replicas", "{{application}} healthy"]

    def replaced() -> bool:
        latest = {
            line["metric"]["application"]: float(line["values"][-1][1]) for line in prometheus.drawn(query)
        }
        return latest == APPLICATIONS

    until(replaced, what="another one answers")
