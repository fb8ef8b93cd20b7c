"""A third task is one module and one entry in the registry: searched on Ray Tune, ranked, reported, gone on
with, trained, served and scored in a batch by what serves every task."""

import asyncio
import csv
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

import detection_task
import fissura.core.tasks
import fissura.recipes
from fissura import api
from fissura.batches.client import through_endpoint
from fissura.batches.report import BatchReport, Terms
from fissura.batches.source import ImageSource
from fissura.cli.app import run as command
from fissura.core.errors import SpecError
from fissura.data.synthetic import SyntheticSpec, write
from fissura.deploy.model import open_model
from fissura.distributed.preflight import Hardware
from fissura.distributed.search.search_result import SearchResult
from fissura.serving.allowed_roots import Roots
from fissura.serving.app import build_app
from fissura.serving.limits import Limits
from fissura.serving.service import Service
from fissura.serving.worker import Worker
from fissura.testing.serving import OneModel

pytestmark = pytest.mark.end_to_end

SPACE = """
recipe: dark_boxes
objective: {metric: val/f1, mode: max}
sampler: {kind: random}
scheduler: {kind: none}
trials: 3
space:
  level: {int: [40, 160]}
"""


@dataclass(frozen=True)
class Place:
    """A searched study, and the folder of everything."""

    folder: Path
    result: SearchResult
    said: list[str]

    @property
    def run(self) -> Path:
        """The best run."""
        assert self.result.best_run is not None
        return self.result.best_run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("boxes")
    spec = SyntheticSpec(train=1, val=3, test=3, height=64, width=64, crack_width=(2, 4), seed=1)
    write(spec, folder / "images")
    (folder / "boxes.yaml").write_text(SPACE)
    tasks = {**fissura.core.tasks.TASKS, "detection": detection_task.DETECTION}
    recipes = {
        **fissura.recipes.RECIPES,
        "dark_boxes": lambda: detection_task.DarkBoxes(name="dark_boxes"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fissura.core.tasks, "TASKS", tasks)
        patch.setattr(fissura.recipes, "RECIPES", recipes)
        # where the workers find the task's module
        root = Path(__file__).parents[2]
        patch.setenv("PYTHONPATH", f"{root / 'platform'}:{root / 'tests'}")
        said: list[str] = []
        result = api.search(
            folder / "boxes.yaml",
            data=f"folder:{folder / 'images'}",
            storage=folder / "studies",
            cache=folder / "cache",
            hardware=Hardware(concurrent=1, cpus_per_trial=1),
            say=said.append,
        )
        yield Place(folder, result, said)


def test_is_searched_on_ray_tune(place: Place) -> None:
    assert place.result.trials == {"complete": 3}
    assert place.result.best is not None
    assert place.result.best["values"]["val/f1"] > 0
    assert any("3 trials of dark_boxes; 1 detectors at a time" in line for line in place.said)
    assert place.run.is_dir()


def test_is_ranked_and_reported(place: Place) -> None:
    leaderboard, report = place.result.conclusion.files
    rows = list(csv.DictReader(leaderboard.read_text().splitlines()))
    assert len(rows) == 3
    scores = [float(row["f1"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    text = report.read_text()
    assert "F1 of boxes" in text
    assert f"On test images the best boxes have F1 {scores[0]:.4f}." in text
    assert "val/f1" in text


def test_is_evaluated_ranked_and_exported_by_the_command_line(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = csv.DictReader(place.result.conclusion.files[0].read_text().splitlines())
    best = max(float(row["f1"]) for row in rows)

    def said(*words: str | Path) -> str:
        assert command([str(word) for word in words]) == 0
        return capsys.readouterr().out

    shown = said("evaluate", place.run, "--data", f"folder:{place.folder / 'images'}")
    assert re.search(rf"boxes test, 3 images\n.*{best:.4f}", shown, re.DOTALL)
    listed = json.loads(said("leaderboard", "show", place.result.study, "--json"))
    assert max(row["F1 of boxes"] for row in listed) == pytest.approx(best)
    said("leaderboard", "export", place.result.study, "--format", "csv", "--out", place.folder / "out")
    assert (place.folder / "out" / "leaderboard.csv").read_text().startswith("level,f1\n")


def test_is_read_again_by_the_verbs_about_studies(place: Place) -> None:
    assert not api.verify(place.result.study).faults
    before = (place.result.study / "leaderboard.csv").read_text()
    assert api.report(place.result.study).is_file()
    assert (place.result.study / "leaderboard.csv").read_text() == before


def test_is_trained_once_as_well(place: Place) -> None:
    run, manifest = api.train(
        "dark_boxes",
        data=f"folder:{place.folder / 'images'}",
        storage=place.folder / "trained",
        cache=place.folder / "cache",
        fixed={"level": 90},
    )
    assert manifest.recipe["level"] == 90
    assert open_model(run, device=torch.device("cpu")).task == "detection"


def photograph() -> bytes:
    image, file = Image.new("RGB", (60, 40), (200, 200, 200)), io.BytesIO()
    image.paste((10, 10, 10), (5, 8, 45, 11))
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def app(place: Place) -> Iterator[object]:
    worker = Worker(open_model(place.run, device=torch.device("cpu")), Limits())
    yield build_app(Service(OneModel(worker), limits=Limits(), roots=Roots()))
    worker.close()


def test_is_served_at_an_address_of_its_own(app: object) -> None:
    client = TestClient(app, base_url="http://127.0.0.1")  # type: ignore[arg-type]
    told = client.post("/v1/detect", content=photograph(), headers={"Content-Type": "image/png"})
    assert told.status_code == 200, told.text
    assert told.json()["boxes"] == [[5, 8, 40, 3]]
    refused = client.post("/v1/detect?threshold=0.5", content=photograph())
    assert refused.status_code == 422
    assert client.post("/v1/segment", content=photograph()).status_code == 404
    described = client.get("/openapi.json").json()
    assert "/v1/detect" in described["paths"]
    assert "BoxesResult" in described["components"]["schemas"]


@pytest.fixture(scope="module")
def url(app: object) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def batch(place: Place, url: str, out: Path, terms: Terms) -> BatchReport:
    source = ImageSource.open(str(place.folder / "images" / "images"))
    return asyncio.run(through_endpoint(source, None, terms, endpoint=url, out=out))


def test_is_scored_in_batches_with_columns_of_its_own(place: Place, url: str, tmp_path: Path) -> None:
    report = batch(place, url, tmp_path / "found", Terms())
    rows = report.rows()
    assert len(rows) == report.result.images > 0
    assert {row["task"] for row in rows} == {"detection"}
    assert any(row["boxes"] for row in rows)
    assert all(row["label"] is None and row["threshold"] is None for row in rows)


def test_is_asked_for_no_map(place: Place, url: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--keep: for a model that gives maps, and .* does detection"):
        batch(place, url, tmp_path / "found", Terms(keep=("masks",)))
