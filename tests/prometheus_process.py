"""Debian's Prometheus with the committed configuration, for tests of what it is given."""

import json
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from panels import DASHBOARDS

FOLDER = Path(__file__).parents[1] / "dashboards"
PATIENCE_SECONDS = 420
QUERIES = {
    (page.name, panel.title, legend): query.replace("$study", ".*").replace("$instance", ".*")
    for page in DASHBOARDS
    for panel in page.panels
    for legend, query in panel.queries.items()
}
"""What each panel draws, by dashboard, title and legend, with every study and service chosen."""


def tool(name: str) -> str:
    """Where a program is; a test without it would show nothing."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"no {name} here; install Debian's package `prometheus`")
    return found


def free_ports(count: int) -> list[int]:
    """Ports below those that the kernel gives to outgoing connections: Ray takes seconds until it listens."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(20_000, 32_000), 1000):
        try:
            with socket.create_server(("", port)):
                found.append(port)
        except OSError:
            continue
        if len(found) == count:
            break
    return found


def until(condition: Callable[[], Any], *, what: str) -> Any:
    """What `condition` gives once it is true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.5)
    return found


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus, asked over HTTP."""

    url: str
    begin: float

    def get(self, path: str, **words: Any) -> Any:
        address = f"{self.url}/api/v1/{path}?{urlencode(words)}"
        with urlopen(address, timeout=30) as answer:  # noqa: S310
            document = json.loads(answer.read())
        assert document["status"] == "success", document
        assert not document.get("warnings"), document
        return document["data"]

    def drawn(self, query: str) -> list[dict[str, Any]]:
        """The lines of a graph from the beginning to now, as Grafana asks for them."""
        words = {"query": query, "start": self.begin, "end": time.time(), "step": 2}
        return list(self.get("query_range", **words)["result"])

    def most(self, query: str) -> float:
        """The highest number that a graph of it shows; 0 where it shows nothing."""
        values = [float(value) for line in self.drawn(query) for _, value in line["values"]]
        return max((value for value in values if value == value), default=0.0)


def end(process: "subprocess.Popen[Any]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def observed(
    folder: Path, *, nodes: Path, service: int, token: str, web: int, environment: dict[str, str]
) -> Iterator[Prometheus]:
    """Prometheus with the committed configuration, but for its addresses and how often it scrapes; `nodes` is
    Ray's list of its nodes, `service` and `web` are the ports of the service and of Prometheus itself."""
    shutil.copytree(FOLDER, folder / "dashboards")
    text = (FOLDER / "prometheus.yml").read_text()
    for before, after in (
        ("/home/ubuntu/.fissura-ray/ray/prom_metrics_service_discovery.json", str(nodes)),
        ("127.0.0.1:8000", f"127.0.0.1:{service}"),
        ("_interval: 10s", "_interval: 2s"),
        ("refresh_interval: 30s", "refresh_interval: 2s"),
    ):
        assert before in text
        text = text.replace(before, after)
    (folder / "dashboards" / "prometheus.yml").write_text(text)
    (folder / "dashboards" / "service_token").write_text(token)
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                tool("prometheus"), f"--config.file={folder}/dashboards/prometheus.yml",
                f"--storage.tsdb.path={folder}/prometheus", f"--web.listen-address=127.0.0.1:{web}",
            ],
            stdout=log, stderr=log, env=environment,
        )  # fmt: skip
        try:
            prometheus = Prometheus(f"http://127.0.0.1:{web}", time.time())
            until(lambda: answers(prometheus.url), what="Prometheus answers")
            yield prometheus
        finally:
            end(process)


def answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/-/ready", timeout=5):  # noqa: S310
            return True
    except OSError:
        return False
