"""Batch work inside the service: what a job may name, how it ends, and that it goes on after any end."""

import errno
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from fissura.core.errors import DataError
from fissura.deploy.model import open_model
from fissura.segmentation.predict import Predictor
from fissura.serving import jobs as jobs_module
from fissura.serving.allowed_roots import Roots
from fissura.serving.app import build_app
from fissura.serving.job_files import Job
from fissura.serving.job_routes import job_routes
from fissura.serving.jobs import CONCURRENCY, Jobs
from fissura.serving.limits import Limits
from fissura.serving.problems import Refused
from fissura.serving.service import Service
from fissura.serving.worker import Worker
from fissura.testing.serving import OneModel

CPU = torch.device("cpu")
Start = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An allowed root with a folder of five images, one of which is none."""
    images = tmp_path / "root" / "walls"
    images.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(4):
        Image.fromarray(generator.integers(0, 256, (24, 31, 3), dtype=np.uint8)).save(images / f"{index}.png")
    (images / "torn.png").write_bytes(b"nothing")
    return tmp_path / "root"


@pytest.fixture
def start(segmenter_run: Path, root: Path) -> Start:
    """Starts a service whose jobs are kept below the root."""

    @contextmanager
    def started(*, name: str = "cracks", roots: tuple[Path, ...] = (root,)) -> Iterator[TestClient]:
        worker = Worker(open_model(segmenter_run, device=CPU), Limits(), name=name)
        allowed = Roots([str(one) for one in roots])
        host = OneModel(worker, name=name)
        service = Service(host, limits=Limits(), roots=allowed)
        jobs = Jobs(root / ".fissura-jobs", host, service.answering, allowed) if roots else None
        app = build_app(service, job_routes(jobs, allowed))

        @asynccontextmanager
        async def running(_: Any) -> Any:
            if jobs is not None:
                await jobs.start()
            yield
            if jobs is not None:
                await jobs.close()

        app.router.lifespan_context = running
        with TestClient(app, base_url="http://127.0.0.1") as client:
            yield client
        worker.close()

    return started


def ended(client: TestClient, job: str) -> dict[str, Any]:
    """The job when it neither waits nor runs."""
    for _ in range(600):
        document: dict[str, Any] = client.get(f"/v1/jobs/{job}").json()
        if document["state"] not in ("waiting", "running"):
            return document
        time.sleep(0.05)
    raise AssertionError(document)


def asked(root: Path, **more: Any) -> dict[str, Any]:
    return {"images": str(root / "walls"), "out": str(root / "found"), **more}


def more(root: Path) -> None:
    """Makes the images 31."""
    for index in range(4, 30):
        Image.fromarray(np.full((64, 64, 3), index, np.uint8)).save(root / "walls" / f"{index}.png")


def test_a_job_gives_one_row_an_image_and_the_pictures_that_were_asked_for(start, root, segmenter_run):
    with start() as client:
        answer = client.post(
            "/v1/jobs", json=asked(root, pictures=["masks", "probabilities"], mm_per_pixel=0.5)
        )
        assert answer.status_code == 202
        job = ended(client, answer.json()["id"])
        assert client.get("/v1/jobs").json() == {"jobs": [job], "damaged": []}
    assert (job["state"], job["images"], job["done"], job["failed"]) == ("done", 5, 5, 1)
    rows = pq.read_table(job["results"]).to_pylist()
    assert [row["image"] for row in rows] == ["0.png", "1.png", "2.png", "3.png", "torn.png"]
    assert [row["error"] is None for row in rows] == [True] * 4 + [False]
    predictor = Predictor.open(segmenter_run, device=CPU)
    for row in rows[:4]:
        pixels = np.asarray(Image.open(root / "walls" / row["image"]))
        kept = np.asarray(Image.open(root / "found" / "probabilities" / row["image"]))
        assert np.array_equal(kept, predictor(pixels))
        mask = np.asarray(Image.open(root / "found" / "masks" / row["image"]))
        assert np.array_equal(mask, np.where(kept >= 128, 255, 0))
        assert row["area_mm2"] == pytest.approx(0.25 * np.count_nonzero(mask))


@pytest.mark.parametrize(
    "change",
    [
        {"images": "/etc"},
        {"out": "/tmp"},  # noqa: S108
        {"images": "../walls"},
        {"images": "file:///etc"},
        {"images": "s3://bucket/walls"},
        {"out": "walls"},
    ],
)
def test_nothing_outside_the_roots_is_read_or_written(start, root, change):
    with start() as client:
        answer = client.post("/v1/jobs", json=asked(root) | change)
        assert answer.status_code == 403
        assert answer.json()["type"] == "urn:fissura:problem:outside-the-roots"
        assert client.get("/v1/jobs").json() == {"jobs": [], "damaged": []}


def test_a_link_that_leads_out_is_outside(start, root, tmp_path):
    (root / "link").symlink_to(tmp_path)
    with start() as client:
        assert client.post("/v1/jobs", json=asked(root, images=str(root / "link"))).status_code == 403


def test_what_cannot_be_done_fails_with_its_reason(start, root):
    (root / "empty").mkdir()
    with start() as client:
        for images, reason in ((root / "none", "it is missing"), (root / "empty", "there is none")):
            answer = client.post("/v1/jobs", json=asked(root, images=str(images)))
            job = ended(client, answer.json()["id"])
            assert job["state"] == "failed"
            assert reason in job["reason"]
        inside = client.post("/v1/jobs", json=asked(root, out=str(root / "walls" / "found"))).json()
        assert "outside of the images' folder" in ended(client, inside["id"])["reason"]


def test_files_that_are_not_read_are_named_and_those_of_systems_are_not(start, root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name in ("IMG_0002.HEIC", "DJI_0003.DNG", "Thumbs.db", "._0.png"):
        (root / "walls" / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with start() as client:
        job = ended(client, client.post("/v1/jobs", json=asked(root)).json()["id"])
    assert (job["state"], job["images"], job["left_out"]) == ("done", 5, ["IMG_0002.HEIC", "DJI_0003.DNG"])


def test_without_a_root_there_are_no_jobs(start, root):
    with start(roots=()) as client:
        for answer in (client.get("/v1/jobs"), client.get("/v1/jobs/0123456789abcdef")):
            assert answer.status_code == 409
            assert "--root" in answer.json()["remedy"]


def test_an_unknown_job_or_model_is_not_found(start, root):
    with start() as client:
        assert client.get("/v1/jobs/0123456789abcdef").status_code == 404
        assert client.post("/v1/jobs", json=asked(root, model="walls")).status_code == 404


def test_a_job_with_a_field_or_a_query_that_nobody_knows_is_refused_by_name(start, root):
    with start() as client:
        answer = client.post("/v1/jobs", json=asked(root, mm_per_px=0.1, keep=["masks"]))
        assert answer.status_code == 422
        assert "`mm_per_px` is not known; did you mean `mm_per_pixel`?" in answer.json()["title"]
        assert "`keep` is not known" in answer.json()["title"]
        answer = client.post("/v1/jobs?mm_per_pixel=0.1", json=asked(root))
        assert (answer.status_code, answer.json()["detail"]) == (422, "`mm_per_pixel` is not known")
        assert client.get("/v1/jobs", params={"state": "done"}).status_code == 422
        assert client.get("/v1/jobs").json() == {"jobs": [], "damaged": []}
        assert client.head("/v1/jobs").status_code == 200


def test_a_job_that_is_done_stays_done_while_its_end_is_being_written(start, root, monkeypatch):
    writing, written = threading.Event(), threading.Event()
    real = jobs_module.write_job

    def slowly(folder: Path, job: Job) -> None:
        if job.state == "done":
            writing.set()
            assert written.wait(30)
        real(folder, job)

    monkeypatch.setattr(jobs_module, "write_job", slowly)
    with start() as client:
        job = client.post("/v1/jobs", json=asked(root)).json()["id"]
        assert writing.wait(30)
        try:
            assert client.delete(f"/v1/jobs/{job}").status_code == 409
        finally:
            written.set()
        assert ended(client, job)["state"] == "done"


def test_a_job_that_was_cancelled_is_resumed_and_repeats_no_row(start, root, monkeypatch):
    more(root)
    reading: list[bytes] = []
    real = Worker.answer

    async def counted(self: Worker, photograph: bytes, question: Any, *, seconds: float) -> Any:
        reading.append(photograph)
        return await real(self, photograph, question, seconds=seconds)

    monkeypatch.setattr(Worker, "answer", counted)
    with start() as client:
        job = client.post("/v1/jobs", json=asked(root)).json()["id"]
        while client.get(f"/v1/jobs/{job}").json()["done"] < 8:
            time.sleep(0.01)
        assert client.delete(f"/v1/jobs/{job}").json()["state"] == "cancelled"
        while client.post(f"/v1/jobs/{job}/resume").status_code != 200:  # until it has ended
            time.sleep(0.02)
        assert ended(client, job)["state"] == "done"
        assert client.delete(f"/v1/jobs/{job}").status_code == 409
        assert client.post(f"/v1/jobs/{job}/resume").status_code == 409
    # those that were under way had no row yet
    assert len(reading) - len(set(reading)) <= CONCURRENCY
    assert pq.read_table(root / "found" / "results.parquet").num_rows == 31


def test_what_a_stopped_service_was_doing_goes_on_when_it_starts_again(start, root):
    with start() as client:
        job = client.post("/v1/jobs", json=asked(root)).json()["id"]
    with start() as client:
        assert ended(client, job)["state"] == "done"
    with start() as client:
        assert client.get(f"/v1/jobs/{job}").json()["done"] == 5
    assert pq.read_table(root / "found" / "results.parquet").num_rows == 5


@pytest.mark.parametrize("damage", [b"", b'{"id": ', b"\0" * 99, b"{}", b"[" * 9999])
def test_a_damaged_file_of_a_job_is_named_with_its_remedy_and_the_others_stay(start, root, damage, caplog):
    with start() as client:
        lost, kept = (
            ended(client, client.post("/v1/jobs", json=asked(root, out=str(root / name))).json()["id"])
            for name in ("lost", "kept")
        )
    path = root / ".fissura-jobs" / f"{lost['id']}.json"
    path.write_bytes(damage)
    with start() as client:
        document = client.get("/v1/jobs").json()
    assert document["jobs"] == [kept]
    [line] = document["damaged"]
    assert line.startswith(f"{path}: ")
    assert "ask for the job again" in line
    assert line in caplog.text
    assert path.read_bytes() == damage


def test_two_jobs_do_not_write_into_one_folder(start, root):
    more(root)
    with start() as client:
        first = client.post("/v1/jobs", json=asked(root)).json()["id"]
        second = client.post("/v1/jobs", json=asked(root))
        assert (second.status_code, second.json()["type"]) == (409, "urn:fissura:problem:conflict")
        assert ended(client, first)["state"] == "done"


class TestResultsLieInAFolderOfTheirOwn:
    """Where a run may be read from, nothing is written; nor into runs, studies and the service's folder."""

    @pytest.fixture
    def house(self, root: Path, segmenter_run: Path) -> Path:
        shutil.copytree(segmenter_run, root / "models" / "served")
        (root / "studies" / "it").mkdir(parents=True)
        (root / "studies" / "it" / "study.json").write_text("{}")
        (root / "link").symlink_to(root / "models" / "served")
        return root

    @pytest.mark.parametrize(
        "out",
        [
            ".fissura-jobs", ".fissura-jobs/x", ".", "models/served", "models/served/predictions/x", "link/x",
            "walls/../models/served", "studies/it", "studies/it/runs/0123456789ab",
        ],
    )  # fmt: skip
    def test_and_in_no_other(self, start: Start, house: Path, out: str) -> None:
        with start() as client:
            (house / ".fissura-jobs").mkdir(exist_ok=True)
            before = {path: path.is_file() and path.read_bytes() for path in house.rglob("*")}
            answer = client.post("/v1/jobs", json=asked(house) | {"out": f"{house}/{out}"})
            assert answer.status_code == 403
            assert "in no folder of a run, a study or the service" in answer.json()["title"]
            assert client.get("/v1/jobs").json() == {"jobs": [], "damaged": []}
        assert {path: path.is_file() and path.read_bytes() for path in house.rglob("*")} == before

    @pytest.mark.parametrize("out", ["found", "models/found", "found/models"])
    def test_which_may_lie_beside_them(self, start: Start, house: Path, out: str) -> None:
        with start() as client:
            answer = client.post("/v1/jobs", json=asked(house) | {"out": f"{house}/{out}"})
            assert ended(client, answer.json()["id"])["state"] == "done"

    def test_that_became_a_run_meanwhile_is_not_gone_on_with(self, start: Start, house: Path) -> None:
        with start() as client:
            job = ended(client, client.post("/v1/jobs", json=asked(house)).json()["id"])
        plain = json.loads((house / ".fissura-jobs" / f"{job['id']}.json").read_text())
        plain |= {"state": "waiting", "work": {**plain["work"], "out": str(house / "models" / "served")}}
        (house / ".fissura-jobs" / f"{job['id']}.json").write_text(json.dumps(plain))
        files = set((house / "models" / "served").rglob("*"))
        with start() as client:
            again = ended(client, job["id"])
            assert again["state"] == "failed"
            assert "served is a run or a study" in again["reason"]
            assert client.post(f"/v1/jobs/{job['id']}/resume").status_code == 403
        assert set((house / "models" / "served").rglob("*")) == files


class TestPlacesThatChange:
    """What was allowed when a job was asked for is looked at again when its turn comes."""

    def again(self, start: Start, root: Path, change: Any) -> dict[str, Any]:
        """The job that goes on when the service starts again, after a `change` of its document."""
        with start() as client:
            job = ended(client, client.post("/v1/jobs", json=asked(root, pictures=["overlays"])).json()["id"])
        path = root / ".fissura-jobs" / f"{job['id']}.json"
        plain = json.loads(path.read_text()) | {"state": "waiting"}
        change(plain["work"])
        path.write_text(json.dumps(plain))
        with start() as client:
            return ended(client, job["id"])

    def test_results_that_links_would_take_elsewhere_are_not_written(self, start, root, tmp_path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()

        def linked(_: dict[str, Any]) -> None:
            shutil.rmtree(root / "found" / "overlays")
            (root / "found" / "overlays").symlink_to(elsewhere)

        job = self.again(start, root, linked)
        assert job["state"] == "failed"
        assert "links lead elsewhere from overlays" in job["reason"]
        assert list(elsewhere.iterdir()) == []

    @pytest.mark.parametrize("name", ["images", "out"])
    def test_a_file_of_a_job_that_leaves_the_roots_is_not_followed(self, start, root, tmp_path, name) -> None:
        (tmp_path / "outside").mkdir()
        job = self.again(start, root, lambda work: work.update({name: str(tmp_path / "outside")}))
        assert job["state"] == "failed"
        assert "below a root that the service was started with" in job["reason"]
        assert list((tmp_path / "outside").iterdir()) == []

    def test_a_pipe_where_results_go_is_told_of_and_health_is_answered(self, start, root) -> None:
        (root / "found").mkdir()
        os.mkfifo(root / "found" / "batch.json")
        with start() as client:
            job = ended(client, client.post("/v1/jobs", json=asked(root)).json()["id"])
            assert client.get("/healthz").status_code == 200
        assert job["state"] == "failed"
        assert "no regular file" in job["reason"]

    def test_a_path_that_no_disk_can_have_is_outside_of_the_roots(self, start, root) -> None:
        with start() as client:
            answer = client.post("/v1/jobs", json=asked(root) | {"out": f"{root}/{'a' * 3000}"})
        assert answer.status_code == 403


def test_a_job_that_cannot_be_kept_is_none(start, root, monkeypatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with start() as client:
        with monkeypatch.context() as patch:
            patch.setattr(jobs_module, "write_job", full)
            answer = client.post("/v1/jobs", json=asked(root))
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
            assert "No space left on device" in answer.json()["detail"]
            assert client.get("/v1/jobs").json() == {"jobs": [], "damaged": []}
        assert ended(client, client.post("/v1/jobs", json=asked(root)).json()["id"])["state"] == "done"


def test_the_folders_of_served_runs_are_for_reading_runs_alone(tmp_path: Path) -> None:
    data, models = tmp_path / "data", tmp_path / "models"
    roots = Roots([str(data)], closed=[models, tmp_path])
    with pytest.raises(Refused, match="lies below a root that the service was started with"):
        roots.target(str(models / "new"), what="out")
    assert roots.target(str(data / "found"), what="out") == data / "found"
    inside = Roots([str(tmp_path)], closed=[models])
    for out in (models / "new", models, tmp_path):
        with pytest.raises(Refused, match=f"served runs lie in {models}"):
            inside.target(str(out), what="out")
    assert inside.target(str(data / "found"), what="out") == data / "found"


class TestTheFolderOfJobs:
    def test_is_entered_by_nobody_else(self, start: Start, root: Path) -> None:
        with start() as client:
            ended(client, client.post("/v1/jobs", json=asked(root)).json()["id"])
        assert (root / ".fissura-jobs").stat().st_mode & 0o777 == 0o700

    def test_of_an_earlier_version_is_closed_to_others(self, start: Start, root: Path) -> None:
        (root / ".fissura-jobs").mkdir(mode=0o755)
        with start():
            assert (root / ".fissura-jobs").stat().st_mode & 0o777 == 0o700

    @pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
    @pytest.mark.parametrize("link", [False, True], ids=["folder", "link"])
    def test_that_is_another_users_is_refused_whenever_it_came(
        self, start: Start, root: Path, tmp_path: Path, *, link: bool
    ) -> None:
        folder, planted = root / ".fissura-jobs", tmp_path / "planted"
        planted.mkdir(mode=0o777)
        os.chown(planted, 65534, 65534)
        with start() as client:
            (folder.symlink_to if link else planted.rename)(planted if link else folder)
            refused = client.post("/v1/jobs", json=asked(root))
            assert refused.status_code == 503
            assert "belongs to another (uid 65534)" in refused.json()["detail"]
            assert list(folder.iterdir()) == []
        with pytest.raises(DataError, match="belongs to another"), start():
            pass
