"""A service whose processes are killed in mid-job, and whose served files are damaged: what is told is true,
nothing is half-written, and what was served goes on."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from fissura.records.run_files import facts_of, read_manifest, write_manifest
from serve_process import PHOTO, Running, alive, asked, descendants, photograph, serving

pytestmark = [pytest.mark.attacks, pytest.mark.timeout(1200)]

MODEL, HTTP = "ServeReplica:fissura-model-walls", "ServeReplica:fissura:http"
IMAGES = 60


@pytest.fixture(scope="module")
def runs(write_segmenter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs that know the digests of their files."""
    folder = tmp_path_factory.mktemp("served")
    both = write_segmenter(folder / ("a" * 16)), write_segmenter(folder / ("b" * 16), seed=1)
    for run in both:
        files = facts_of(run, ("recipe.json", "weights.safetensors"))
        write_manifest(run, read_manifest(run).model_copy(update={"files": files}))
    return both


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    (folder / "images").mkdir()
    for number in range(IMAGES):
        (folder / "images" / f"{number:02}.jpg").write_bytes(photograph(480, 640, seed=number))
    return folder


@pytest.fixture(scope="module")
def service(
    runs: tuple[Path, Path], root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    words = ("--cpus-per-replica", "1", "--root", str(root), "--root", str(runs[0].parent))
    with serving(tmp_path_factory.mktemp("service"), f"walls={runs[0]}", *words) as running:
        yield running


def submitted(running: Running, root: Path, out: str) -> str:
    """A job that is under way."""
    body = json.dumps({"images": str(root / "images"), "out": str(root / out)}).encode()
    reply = asked(running.url, "POST", "/v1/jobs", body, media="application/json")
    assert reply.status == 202, reply.body
    job = str(reply.document["id"])
    until(running, job, lambda shown: shown["done"] >= 3)
    return job


def until(running: Running, job: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The job as soon as that is true; meanwhile nobody may listen."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        reply = asked(running.url, "GET", f"/v1/jobs/{job}")
        if reply.status == 200 and true(reply.document):
            return reply.document
        time.sleep(0.2)
    raise AssertionError(reply.body)


def ended(running: Running, job: str) -> dict[str, Any]:
    return until(running, job, lambda shown: shown["state"] not in ("waiting", "running"))


def put(running: Running, run: Path) -> Any:
    body = json.dumps({"run": str(run)}).encode()
    return asked(running.url, "PUT", "/v1/models/walls", body, media="application/json")


def assert_whole(root: Path, shown: dict[str, Any], *, run: str) -> None:
    assert (shown["state"], shown["done"], shown["failed"]) == ("done", IMAGES, 0)
    rows = pyarrow.parquet.read_table(shown["results"]).to_pylist()
    assert sorted(row["image"] for row in rows) == sorted(path.name for path in (root / "images").iterdir())
    assert {row["run"] for row in rows} == {run}


@pytest.mark.parametrize("name", [MODEL, HTTP], ids=["a replica", "the HTTP process"])
def test_a_job_ends_whole_though_its_process_is_killed(
    name: str, service: Running, runs: tuple[Path, Path], root: Path, measured: Callable[..., None]
) -> None:
    job = submitted(service, root, f"found-{len(name)}")
    begin = time.monotonic()
    os.kill(service.named(name), signal.SIGKILL)
    assert_whole(root, ended(service, job), run=runs[0].name)
    measured(f"{name} killed in mid-job", images=IMAGES, seconds=time.monotonic() - begin)


def test_a_served_file_that_is_damaged_is_refused_by_name_and_what_was_served_answers(
    service: Running, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    weights, kept = runs[1] / "weights.safetensors", tmp_path / "kept"
    shutil.copy2(weights, kept)
    flipped = bytearray(kept.read_bytes())
    flipped[-9] ^= 0x40
    for damage in (bytes(flipped), kept.read_bytes()[:-4], b"\xff" * kept.stat().st_size, None):
        weights.unlink() if damage is None else weights.write_bytes(damage)
        refused = put(service, runs[1])
        assert refused.status == 422
        assert str(weights) in refused.document["detail"]
        served = asked(service.url, "POST", "/v1/segment", PHOTO)
        assert (served.status, served.document["run"]) == (200, runs[0].name)
    shutil.copy2(kept, weights)


def test_another_run_takes_the_place_of_one_whose_replica_died_and_whose_file_is_damaged(
    service: Running, runs: tuple[Path, Path], tmp_path: Path, measured: Callable[..., None]
) -> None:
    weights, kept = runs[0] / "weights.safetensors", tmp_path / "kept"
    shutil.copy2(weights, kept)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    try:
        os.kill(service.named(MODEL), signal.SIGKILL)
        begin = time.monotonic()
        reply = put(service, runs[1])
        assert reply.status == 200, reply.body
        assert asked(service.url, "POST", "/v1/segment", PHOTO).document["run"] == runs[1].name
        measured("another run in the place of a damaged one", seconds=time.monotonic() - begin)
    finally:
        shutil.copy2(kept, weights)


def test_a_job_keeps_its_version_though_the_next_takes_over_and_goes_on_after_the_driver_is_killed(
    service: Running, runs: tuple[Path, Path], root: Path, measured: Callable[..., None]
) -> None:
    before = asked(service.url, "GET", "/v1/models").document["models"][0]["run"]
    after = next(run for run in runs if run.name != before)
    job = submitted(service, root, "found-rollout")
    assert put(service, after).status == 200
    assert_whole(root, ended(service, job), run=before)
    job = submitted(service, root, "found-killed")
    below = descendants(service.process.pid)
    os.kill(service.process.pid, signal.SIGKILL)
    begin = time.monotonic()
    works = [pid for pid, line in below.items() if "ServeReplica" in line]
    while any(map(alive, works)):
        assert time.monotonic() - begin < 60
        time.sleep(0.1)
    measured("driver killed: the service's own processes", seconds=time.monotonic() - begin)
    parts = list((root / "found-killed").rglob("*.parquet"))
    assert [pyarrow.parquet.read_table(part).num_rows > 0 for part in parts] == [True] * len(parts)
    kept = json.loads((root / ".fissura-jobs" / f"{job}.json").read_text())
    assert kept["state"] in ("waiting", "running")
    assert list((root / ".fissura-jobs").glob("*.tmp")) == []
