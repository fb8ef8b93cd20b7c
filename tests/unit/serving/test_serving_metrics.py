"""Each number that a panel or an alert of the service asks for is exported by the process that serves, in
both of its forms: behind Ray Serve's proxy, and by lines to the replicas of its own machine."""

import re
from collections.abc import Awaitable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from anyio.from_thread import start_blocking_portal
from panels import SERVICE
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from starlette.testclient import TestClient

from fissura.deploy.model import open_model
from fissura.distributed.serving import host as serve_host
from fissura.distributed.serving.host import Front
from fissura.distributed.serving.ingress import http_application
from fissura.distributed.serving.replica import Version
from fissura.distributed.serving.replica_counts import count_replicas
from fissura.distributed.serving.sockets import line_path
from fissura.serving.hosting import ReplicaCount
from fissura.serving.limits import Limits
from fissura.serving.query import ImageQuery
from fissura.serving.socket_rpc import listen
from fissura.serving.worker import Reply, Worker
from serve_process import PHOTO

ALERTS = yaml.safe_load((Path(__file__).parents[3] / "dashboards" / "alerts.yml").read_text())["groups"]
[OF_SERVICE] = [group["rules"] for group in ALERTS if group["name"] == "service"]
QUERIES = [
    *(
        (f"{panel.title}, {legend}", query)
        for panel in SERVICE.panels
        for legend, query in panel.queries.items()
    ),
    *((rule["alert"], rule["expr"]) for rule in OF_SERVICE),
]
VERSION = Version(name="walls", version=3, run=Path("run"))


def status(**applications: tuple[str, dict[str, int]]) -> Any:
    """What Ray Serve says of applications: the status, and how many replicas are in each state."""
    return SimpleNamespace(
        applications={
            name.replace("_", "-"): SimpleNamespace(
                status=state, deployments={"model": SimpleNamespace(replica_states=replicas)}
            )
            for name, (state, replicas) in applications.items()
        }
    )


class Remote:
    """A method of a Ray Serve handle."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def remote(self, *words: Any) -> Awaitable[Any]:
        """The call."""
        result: Awaitable[Any] = self._method(*words)
        return result


class Handle:
    """A Ray Serve handle to one replica, which counts the images that come through it."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self.images = worker, 0
        self.answer, self.describe = Remote(self._answer), Remote(self._describe)

    async def _answer(self, photograph: bytes, asked: dict[str, Any], seconds: float) -> Reply:
        self.images += 1
        return await self._worker.answer(
            photograph, ImageQuery.load(asked, source="question"), seconds=seconds
        )

    async def _describe(self) -> dict[str, Any]:
        return {"version": VERSION.plain(), "card": self._worker.model.card}


@pytest.fixture(scope="module", params=["proxy", "lines"])
def samples(
    request: pytest.FixtureRequest, segmenter_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Sample]:
    """What /metrics gives after an image, with Ray Serve's part played by this process."""
    model = open_model(segmenter_run, device=torch.device("cpu"))
    worker = Worker(model, Limits(), name=VERSION.name, version=VERSION.version)
    handle = Handle(worker)
    running = status(
        fissura=("RUNNING", {"RUNNING": 1}), fissura_model_walls_v3=("RUNNING", {"RUNNING": 1, "STARTING": 1})
    )
    folder = tmp_path_factory.mktemp("lines") if request.param == "lines" else None
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(serve_host.serve, "status", lambda: running)
        patch.setattr(serve_host.serve, "get_app_handle", lambda name: handle)
        if folder is not None:
            portal = stack.enter_context(start_blocking_portal())
            server = portal.call(listen, line_path(folder, VERSION.application), worker.answer)
            stack.callback(portal.call, server.close)
        client = stack.enter_context(
            TestClient(http_application(Front(default="walls", lines=folder)), base_url="http://127.0.0.1")
        )
        answer = client.post("/v1/segment", content=PHOTO, headers={"Content-Type": "image/jpeg"})
        assert answer.status_code == 200, answer.text
        assert handle.images == (folder is None)
        text = client.get("/metrics").text
    worker.close()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_what_a_panel_or_an_alert_asks_for_is_exported(samples: list[Sample], title: str, query: str) -> None:
    asked_for = set(re.findall(r"\b((?:fissura|ray)_\w+)", query))
    assert asked_for <= {sample.name for sample in samples}, title
    assert asked_for or 'up{job="fissura-service"}' in query, title
    for name in asked_for:
        labels = set(next(sample for sample in samples if sample.name == name).labels) | {"instance"}
        for grouped in re.findall(r"by \(([^)]*)\)", query):
            assert set(grouped.split(", ")) <= labels, title


def test_replicas_are_shown_by_application(samples: list[Sample]) -> None:
    shown = {
        (sample.name, sample.labels["application"]): sample.value
        for sample in samples
        if sample.name.startswith("fissura_replicas")
    }
    assert shown == {
        ("fissura_replicas_healthy", "fissura"): 1,
        ("fissura_replicas_wanted", "fissura"): 1,
        ("fissura_replicas_healthy", "fissura-model-walls-v3"): 1,
        ("fissura_replicas_wanted", "fissura-model-walls-v3"): 2,
    }


def test_the_seconds_of_an_image_are_its_replica_s(samples: list[Sample]) -> None:
    [seconds] = [sample for sample in samples if sample.name == "fissura_replica_seconds_sum"]
    [images] = [sample for sample in samples if sample.name == "fissura_replica_seconds_count"]
    assert seconds.labels == images.labels == {"model": "walls", "version": "3"}
    assert images.value == 1
    assert 0 < seconds.value < 30


@pytest.mark.parametrize(
    ("state", "replicas", "least", "count"),
    [
        ("RUNNING", {"RUNNING": 2}, 2, ReplicaCount(2, 2)),
        ("RUNNING", {"RUNNING": 2, "STARTING": 1}, 1, ReplicaCount(2, 3)),
        ("UNHEALTHY", {"RUNNING": 1, "STARTING": 1, "STOPPING": 1}, 2, ReplicaCount(1, 2)),
        ("DEPLOY_FAILED", {}, 2, ReplicaCount(0, 2)),
        ("RUNNING", {}, 0, ReplicaCount(0, 0)),
        ("RUNNING", {"PENDING_MIGRATION": 1, "STARTING": 1}, 1, ReplicaCount(1, 2)),
        ("DELETING", {"STOPPING": 2}, 2, ReplicaCount(0, 0)),
    ],
)
def test_replicas_are_wanted_until_their_application_is_removed(
    state: str, replicas: dict[str, int], least: int, count: ReplicaCount
) -> None:
    found = count_replicas(status(fissura_model_walls_v1=(state, replicas)), least=least)
    assert found == {"fissura-model-walls-v1": count}


def test_applications_of_others_are_not_counted() -> None:
    seen = status(chat=("RUNNING", {"RUNNING": 1}), fissura=("UNHEALTHY", {}))
    assert count_replicas(seen, least=1) == {"fissura": ReplicaCount(0, 1)}
