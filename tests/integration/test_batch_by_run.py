"""Batches by a run in a Ray Data job: rows and scores as any other batch's, whatever dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

FISSURA = Path(sys.executable).with_name("fissura")

DYING = """
import os, sys
from pathlib import Path
from fissura.distributed.environment import prepare_environment

prepare_environment(None)
from fissura.distributed.batch import run_batch
from fissura.batches.report import Terms
from fissura.batches.source import ImageSource


def die():
    os._exit(1)


images, run, out = map(Path, sys.argv[1:])
known = ImageSource.open(str(images))
deadly = ImageSource(known.label, {**known.readers, "deadly.png": die})
report = run_batch(
    deadly, None, Terms(), run=run, out=out, failed="keep",
    workers=2, gpus_per_worker=0.0, address=None, say=print, on_image=lambda *_: None,
)
print(report.result.done, report.result.failed, report.failures)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walls")
    generator = np.random.default_rng(0)
    for index in range(40):
        Image.fromarray(generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(
            folder / f"{index:02d}.png"
        )
    (folder / "torn.png").write_bytes(b"nothing")
    return folder


def words(images: Path, run: Path, out: Path, *more: str) -> list[str]:
    return [str(FISSURA), "batch", str(images), "--run", str(run), "--out", str(out), *more]


@pytest.mark.end_to_end
def test_each_image_has_a_row_and_its_map_is_the_predictor_s(
    images: Path, segmenter_run: Path, tmp_path: Path
) -> None:
    import torch

    from fissura.segmentation.predict import Predictor

    done = subprocess.run(
        words(images, segmenter_run, tmp_path / "out", "--keep", "probabilities", "--mm-per-pixel", "0.5"),
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr  # one image is none
    assert "41 of 41 images, 1 failed" in done.stdout
    assert "failed: torn.png" in done.stderr
    rows = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert [row["image"] for row in rows] == [f"{index:02d}.png" for index in range(40)] + ["torn.png"]
    predictor = Predictor.open(segmenter_run, device=torch.device("cpu"))
    for row in rows[:40:13]:
        kept = np.asarray(Image.open(tmp_path / "out" / "probabilities" / row["image"]))
        assert np.array_equal(kept, predictor(np.asarray(Image.open(images / row["image"]))))
        assert (row["run"], row["task"], row["mm_per_pixel"]) == (segmenter_run.name, "segmentation", 0.5)

    again = subprocess.run(
        words(images, segmenter_run, tmp_path / "out"), capture_output=True, text=True, check=False
    )
    assert again.returncode == 2
    assert "goes on as it began" in again.stderr


@pytest.mark.slow
def test_an_image_that_ends_its_process_is_a_failure_of_its_own(
    images: Path, segmenter_run: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(images), str(segmenter_run), str(tmp_path / "out")],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert "42 2" in done.stdout, done.stderr[-2000:]
    assert "deadly.png: each process that scored it ended at once" in done.stdout
    assert pq.read_table(tmp_path / "out" / "results.parquet").num_rows == 42


@pytest.mark.slow
def test_a_killed_job_goes_on_with_one_row_an_image(
    images: Path, write_segmenter: Callable[..., Path], tmp_path: Path
) -> None:
    run, out = write_segmenter(tmp_path / "runs" / "0123456789ab"), tmp_path / "out"
    job = subprocess.Popen(
        words(images, run, out, "--workers", "1"), start_new_session=True, stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(1200):
        if (out / "batch.json").exists():
            break
        time.sleep(0.1)
    time.sleep(6)  # somewhere on its way, wherever
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    done = subprocess.run(words(images, run, out), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1, done.stderr
    names = pq.read_table(out / "results.parquet").column("image").to_pylist()
    assert len(names) == len(set(names)) == 41
