"""Several workers of Ray Train share each step's batch, and reach what one worker reaches."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fissura.data.synthetic import SyntheticSpec, write

FISSURA = Path(sys.executable).with_name("fissura")
# a mean over pixels, and no statistics of a worker's own share: then the mean gradient is the batch's
SETTING = (
    "--set", "phases.train.loss.kind=bce", "--set", "epochs=2", "--set", "model.width=4",
    "--set", "model.normalisation=none", "--set", "data.crop.size=32", "--set", "data.batch_size=4",
)  # fmt: skip


def test_two_workers_agree_with_one(tmp_path: Path) -> None:
    write(
        SyntheticSpec(train=8, val=2, test=2, height=48, width=48, crack_width=(1.5, 4.0)),
        tmp_path / "images",
    )

    def train(workers: int) -> dict[str, object]:
        done = subprocess.run(
            [
                FISSURA, "train", "small_unet", "--data", f"synthetic:{tmp_path / 'images'}", *SETTING,
                "--json", "--storage", str(tmp_path / str(workers)), "--cache", str(tmp_path / "cache"),
                "--workers", str(workers), "--cpus-per-worker", "1",
            ],
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        plain: dict[str, object] = json.loads(done.stdout)
        return plain

    one, two = train(1), train(2)

    assert two["cpus"] == 2
    assert Path(str(one["run"])).name == Path(str(two["run"])).name, (
        "a run is named by what it is, not by who ran it"
    )
    histories = [
        json.loads((Path(str(run["run"])) / "metrics.json").read_text(encoding="utf-8"))["history"]
        for run in (one, two)
    ]
    for alone, shared in zip(*histories, strict=True):
        assert shared["train/loss"] == pytest.approx(alone["train/loss"], rel=1e-3)
        assert shared["val/loss"] == pytest.approx(alone["val/loss"], rel=1e-3)
    weights = [load_file(Path(str(run["run"])) / "weights.safetensors") for run in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    for name, alone in weights[0].items():
        assert float((weights[1][name] - alone).abs().max()) < 2e-3, name


def test_more_workers_than_fit_are_refused(tmp_path: Path) -> None:
    write(
        SyntheticSpec(train=4, val=1, test=1, height=48, width=48, crack_width=(1.5, 4.0)),
        tmp_path / "images",
    )
    done = subprocess.run(
        [FISSURA, "train", "small_unet", "--data", f"synthetic:{tmp_path / 'images'}", "--workers", "99",
         "--storage", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--workers 99: a step's batch of 8 is shared by the workers; ask for 8 or fewer" in done.stderr
