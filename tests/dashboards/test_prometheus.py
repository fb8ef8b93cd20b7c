"""Debian's Prometheus with the committed configuration, on a real Ray with a search of each task and a
service: every panel has something to draw, and every alert can be judged."""

import asyncio
import io
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import torch
import yaml
from panels import SEARCH, SERVICE
from PIL import Image
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from fissura.data.synthetic import SyntheticSpec, write
from prometheus_process import (
    FOLDER,
    PATIENCE_SECONDS,
    QUERIES,
    Prometheus,
    end,
    free_ports,
    observed,
    tool,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FISSURA = Path(sys.executable).with_name("fissura")
NEEDS_A_GPU = {("search", "GPU"), ("search", "GPU memory")}
GPU_METRICS = {"ray_node_gpus_utilization", "ray_node_gram_used", "ray_node_gram_available"}
RULES = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]


class TestThePromtool:
    def test_accepts_the_rules_and_fires_each_alert_when_it_should(self) -> None:
        for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
            done = subprocess.run(
                [tool("promtool"), *words], cwd=FOLDER, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "SUCCESS" in done.stdout

    def test_accepts_the_configuration_beside_a_token(self, tmp_path: Path) -> None:
        shutil.copytree(FOLDER, tmp_path / "dashboards")
        words = [tool("promtool"), "check", "config", str(tmp_path / "dashboards" / "prometheus.yml")]
        without = subprocess.run(words, capture_output=True, text=True, check=False)
        assert without.returncode == 1
        assert "service_token" in without.stdout + without.stderr
        (tmp_path / "dashboards" / "service_token").write_text("correct-horse-battery")
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------- a cluster, and what runs on it


@dataclass(frozen=True)
class Cluster:
    """A Ray of one node, with the environment that reaches it, and a Prometheus beside it."""

    folder: Path
    environment: dict[str, str]
    head: "subprocess.Popen[bytes]"
    prometheus: Prometheus
    service_port: int
    service_token: str

    def command(self, *words: str) -> list[str]:
        return [str(FISSURA), *words, "--address", self.environment["RAY_ADDRESS"]]

    @contextmanager
    def begun(self, *words: str) -> "Iterator[subprocess.Popen[str]]":
        """A command that runs while the block lasts."""
        with (self.folder / f"{words[1]}.log").open("w") as said:
            process = subprocess.Popen(
                self.command(*words), stdout=said, stderr=said, text=True, cwd=self.folder,
                env=self.environment,
            )  # fmt: skip
            try:
                yield process
            finally:
                end(process)

    def run(self, *words: str) -> str:
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, cwd=self.folder,
            env=self.environment, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


def marked(mark: str) -> list[int]:
    """The processes that were started with this environment, directly or not."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"FISSURA_TEST={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Ray as `ray start` starts it, with a token, and Prometheus with the committed configuration, but for
    its addresses and how often it scrapes."""
    folder, mark = tmp_path_factory.mktemp("cluster"), secrets.token_hex(8)
    token = secrets.token_hex(16)
    settings = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "FISSURA_"))
    }
    environment = settings | {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0",
        "FISSURA_TEST": mark,
    }  # fmt: skip
    with ExitStack() as stack:
        private = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="fissura-", dir="/tmp", ignore_cleanup_errors=True)
        )
        session = Path(private) / "ray"  # Ray itself opens it to all users
        head, port = ray_head(session, log=folder / "ray.log", environment=environment, stack=stack)
        service, web = free_ports(2)
        nodes = session / "prom_metrics_service_discovery.json"
        prometheus = stack.enter_context(
            observed(folder, nodes=nodes, service=service, token=token, web=web, environment=environment)
        )
        reaches = environment | {"RAY_ADDRESS": f"127.0.0.1:{port}"}
        yield Cluster(folder, reaches, head, prometheus, service, token)
    end_by = time.monotonic() + 30
    while (left := marked(mark)) and time.monotonic() < end_by:
        time.sleep(0.5)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def ray_head(
    session: Path, *, log: Path, environment: dict[str, str], stack: ExitStack
) -> "tuple[subprocess.Popen[bytes], int]":
    """Ray's head and its port. Ray gives its node 30 seconds to start, which a busy machine does not keep."""
    for _ in range(6):
        port, agent, client, dashboard, metrics, autoscaler, head_metrics = free_ports(7)
        # by default these two are the same for every Ray of a machine
        own = {"AUTOSCALER_METRIC_PORT": str(autoscaler), "DASHBOARD_METRIC_PORT": str(head_metrics)}
        with log.open("w") as said:
            head = subprocess.Popen(
                [
                    Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={port}",
                    "--num-cpus=5", f"--temp-dir={session}", "--dashboard-host=127.0.0.1",
                    f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
                    f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}",
                ],
                env=environment | own, stdout=said, stderr=said,
            )  # fmt: skip
        stack.callback(end, head)
        nodes = session / "prom_metrics_service_discovery.json"
        until(
            lambda head=head, nodes=nodes: (
                head.poll() is not None or ("Ray runtime started" in log.read_text() and nodes.exists())
            ),
            what="Ray, and its list of nodes",
        )
        if head.poll() is None:
            time.sleep(5)  # it looks at its processes every second, and ends when one has ended
        if head.poll() is None:
            return head, port
    pytest.fail(log.read_text())


@pytest.fixture(scope="module")
def served(cluster: Cluster, write_segmenter: Callable[..., Path]) -> Cluster:
    """A service behind its token that lets a tenth of a second of work wait, asked until the graphs show what
    it answered, refused, and could not read."""
    run = write_segmenter(cluster.folder / "runs" / "0123456789abcdef")
    token_file = cluster.folder / "dashboards" / "service_token"
    cluster.run(
        "serve", f"walls={run}", "--port", str(cluster.service_port), "--token-file", str(token_file),
        "--cpus-per-replica", "1", "--max-waiting-seconds", "0.1",
    )  # fmt: skip
    photograph = jpeg(900, 1200)
    statuses = {
        status: f'sum(rate(fissura_requests_total{{status="{status}"}}[5m]))' for status in (200, 422, 429)
    }

    def asked() -> bool:
        asyncio.run(ask(cluster, [photograph] * 12))
        asyncio.run(ask(cluster, [b"\xff\xd8\xff torn"]))
        return all(cluster.prometheus.most(query) > 0 for query in statuses.values())

    until(asked, what="answers, refusals and errors in Prometheus")
    return cluster


def jpeg(height: int, width: int) -> bytes:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


async def ask(cluster: Cluster, bodies: list[bytes]) -> None:
    """Sends all at once."""
    headers = {"Authorization": f"Bearer {cluster.service_token}", "Content-Type": "image/jpeg"}
    url = f"http://127.0.0.1:{cluster.service_port}/v1/segment"
    async with aiohttp.ClientSession(headers=headers) as session:

        async def one(body: bytes) -> None:
            async with session.post(url, data=body) as response:
                await response.read()

        await asyncio.gather(*map(one, bodies))


@pytest.fixture(scope="module")
def searched(cluster: Cluster) -> Cluster:
    """A search of segmenters and one of classifiers, which run until all of their gauges were seen."""
    write(
        SyntheticSpec(train=6, val=2, test=2, height=48, width=48, crack_width=(1.5, 4.0)),
        cluster.folder / "images",
    )
    generator = np.random.default_rng(7)
    for label, light in (("crack", 60), ("sound", 190)):
        (cluster.folder / "walls" / label).mkdir(parents=True)
        for index in range(24):
            pixels = generator.normal(light, 40, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(cluster.folder / "walls" / label / f"{index:03}.png")
    common = ("--storage", "studies", "--cache", "cache", "--cpus-per-trial", "1", "--concurrency", "1")
    cracks = (
        "search", "small_unet", "--data", "synthetic:images", "--profile", "demo", "--trials", "200",
        "--set", "model.width=4", "--set", "data.crop.size=32",
    )  # fmt: skip
    walls = (
        "search", "cnn_svm", "--data", "class_folder:walls", "--profile", "none", "--trials", "5000",
        "--set", "backbone.weights=none", "--set", "backbone.input_size=32", "--set", "folds=3",
        "--set", "backbone.kind=mobilenet_v3", "--set", "whitening.kind=none",
        "--set", "classifier.kind=svm",
    )  # fmt: skip
    gauges = [
        query.replace('study=~".*"', f'study="{study}"')
        for (page, _, _), query in QUERIES.items()
        for study in ("small_unet", "cnn_svm")
        if page == SEARCH.name and "ray_fissura_" in query
    ]
    with cluster.begun(*cracks, *common) as first, cluster.begun(*walls, *common) as second:

        def seen() -> bool:
            assert cluster.head.poll() is None, (cluster.folder / "ray.log").read_text()
            for process, name in ((first, "small_unet"), (second, "cnn_svm")):
                assert process.poll() is None, (cluster.folder / f"{name}.log").read_text()
            return all(cluster.prometheus.drawn(query) for query in gauges)

        until(seen, what="all gauges of both searches in Prometheus")
    return cluster


HELD = """
import time
import ray
from ray.util.metrics import Gauge
from fissura.distributed.search.gauges import SearchGauges

ray.init(log_to_driver=False)
Gauge("set_once", tag_keys=("study",)).set(1, {"study": "held"})
gauges = SearchGauges("held", metric="val/f1")
gauges.epoch(3, value=0.5, seconds=1.0, wait_share=0.1)
end = time.monotonic() + 70
while time.monotonic() < end:
    gauges.show({}, best=0.5)
    time.sleep(3)
"""


def test_a_trial_whose_epochs_are_long_stays_in_the_graphs_though_ray_forgets_its_gauges(
    searched: Cluster,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELD], env=searched.environment, cwd=searched.folder, check=False,
        capture_output=True, text=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    def shown_for(metric: str) -> float:
        [line] = searched.prometheus.drawn(f'{metric}{{study="held"}}')
        seconds = [float(at) for at, _ in line["values"]]
        return seconds[-1] - seconds[0]

    assert shown_for("ray_fissura_trial_value") > 50
    assert shown_for("ray_fissura_epochs_total") > 50
    assert shown_for("ray_set_once") < 45


class TestEveryPanel:
    @pytest.mark.parametrize(
        ("page", "title", "legend"),
        [key for key in QUERIES if key[:2] not in NEEDS_A_GPU],
        ids=str,
    )
    def test_has_something_to_draw(
        self, searched: Cluster, served: Cluster, page: str, title: str, legend: str
    ) -> None:
        lines = searched.prometheus.drawn(QUERIES[page, title, legend])
        assert lines
        assert all(line["values"] for line in lines)
        labels = {word.strip("{}") for word in legend.split() if word.startswith("{{")}
        assert all(labels <= line["metric"].keys() for line in lines)

    @pytest.mark.parametrize("title", ["Refusals", "Errors", "Images", "Pixels", "Requests", "Latency"])
    def test_of_the_service_shows_what_was_asked_of_it(self, served: Cluster, title: str) -> None:
        for (page, panel, _), query in QUERIES.items():
            if (page, panel) == (SERVICE.name, title):
                assert served.prometheus.most(query) > 0

    def test_of_replicas_shows_one_of_each_application(self, served: Cluster) -> None:
        healthy = served.prometheus.drawn(QUERIES["service", "Replicas", "{{application}} healthy"])
        latest = {line["metric"]["application"]: float(line["values"][-1][1]) for line in healthy}
        assert latest == {"fissura": 1, "fissura-model-walls-v1": 1}

    @pytest.mark.parametrize("key", [key for key in QUERIES if key[:2] in NEEDS_A_GPU], ids=" ".join)
    def test_of_gpus_asks_for_what_ray_measures_and_shows_the_gpus_that_there_are(
        self, searched: Cluster, key: tuple[str, str, str]
    ) -> None:
        """These are all the queries that need a GPU: where there is none, their answer is empty."""
        names = {name for name in GPU_METRICS if name in QUERIES[key]}
        assert names
        assert {name.removeprefix("ray_") for name in names} <= METRICS_GAUGES.keys()
        lines = searched.prometheus.drawn(QUERIES[key])
        assert len(lines) == torch.cuda.device_count()


class TestEveryAlert:
    def test_is_judged_by_prometheus_without_an_error(self, searched: Cluster, served: Cluster) -> None:
        groups = searched.prometheus.get("rules", type="alert")["groups"]
        rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
        assert rules.keys() == {rule["alert"] for rule in RULES}
        assert {
            name: (rule["health"], rule.get("lastError")) for name, rule in rules.items()
        } == dict.fromkeys(rules, ("ok", None))

    def test_of_refusals_sees_those_that_there_were(self, served: Cluster) -> None:
        [rule] = [rule for rule in RULES if rule["alert"] == "ServiceRefuses"]
        assert served.prometheus.most(rule["expr"]) > 0

    def test_of_the_cluster_is_silent_about_one_that_is_well(self, served: Cluster) -> None:
        active = {alert["labels"]["alertname"] for alert in served.prometheus.get("alerts")["alerts"]}
        assert active.isdisjoint({"RayGone", "NodeSilent", "NodeLost", "ServiceDown", "ReplicaDown"})


def test_every_target_is_up(searched: Cluster, served: Cluster) -> None:
    targets = served.prometheus.get("targets", state="active")["activeTargets"]
    assert {target["labels"]["job"] for target in targets} == {"ray", "fissura-service"}
    assert {target["scrapeUrl"]: target["lastError"] for target in targets if target["health"] != "up"} == {}
