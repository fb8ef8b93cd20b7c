"""Several workers of Ray Train share each step's batch, and reach what one worker reaches."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fissura.core.seeding import derive
from fissura.data.synthetic import SyntheticSpec, write
from fissura.segmentation.recipe import Recipe

FISSURA = Path(sys.executable).with_name("fissura")
# a mean over pixels, and no statistics of a worker's own share: then the mean gradient is the batch's. Plain
# gradient descent, as Adam would hide a gradient that is summed instead of averaged
SETTING = (
    "--set", "phases.train.loss.kind=bce", "--set", "phases.train.optimizer.kind=sgd",
    "--set", "phases.train.optimizer.lr=0.1", "--set", "epochs=2", "--set", "model.width=4",
    "--set", "model.normalisation=none", "--set", "data.crop.size=32", "--set", "data.batch_size=4",
)  # fmt: skip


def drawn(folder: Path) -> Path:
    spec = SyntheticSpec(train=8, val=2, test=2, height=48, width=48, crack_width=(1.5, 4.0))
    write(spec, folder / "images")
    return folder


def train(folder: Path, recipe: str, setting: tuple[str, ...], *, workers: int) -> dict[str, Any]:
    done = subprocess.run(
        [
            FISSURA, "train", recipe, "--data", f"synthetic:{folder / 'images'}", *setting,
            "--json", "--storage", str(folder / str(workers)), "--cache", str(folder / "cache"),
            "--workers", str(workers), "--cpus-per-worker", "1",
        ],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plain: dict[str, Any] = json.loads(done.stdout)
    return plain


def history(run: dict[str, Any]) -> list[dict[str, Any]]:
    plain: list[dict[str, Any]] = json.loads((Path(run["run"]) / "metrics.json").read_text("utf-8"))[
        "history"
    ]
    return plain


def weights_at_the_start(run: Path) -> dict[str, Tensor]:
    """The weights that the training of `run` began with."""
    recipe = Recipe.load_file(run / "recipe.json")
    torch.manual_seed(derive(recipe.seed, "model"))
    return {name: one.detach() for name, one in recipe.model.build().named_parameters()}


@pytest.mark.slow
def test_two_workers_agree_with_one(tmp_path: Path) -> None:
    folder = drawn(tmp_path)
    one, two = (train(folder, "small_unet", SETTING, workers=workers) for workers in (1, 2))
    assert two["cpus"] == 2
    assert Path(one["run"]).name == Path(two["run"]).name, "a run is named by what it is, not by who ran it"
    for alone, shared in zip(history(one), history(two), strict=True):
        assert shared["train/loss"] == pytest.approx(alone["train/loss"], rel=1e-5)
        assert shared["val/loss"] == pytest.approx(alone["val/loss"], rel=1e-5)
    start = weights_at_the_start(Path(one["run"]))
    weights = [load_file(Path(run["run"]) / "weights.safetensors") for run in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    moved = max(float((weights[0][name] - start[name]).abs().max()) for name in start)
    apart = max(float((weights[1][name] - weights[0][name]).abs().max()) for name in start)
    assert moved > 1e-2, "there is something to agree on"
    assert apart < 1e-4 * moved, "sums in another order, and nothing else"


@pytest.mark.slow
def test_two_workers_pass_from_one_phase_of_cirl_to_the_next(tmp_path: Path) -> None:
    """Rank 0 keeps the variance maps, both ranks read them, and the std head is averaged while it lives."""
    folder = drawn(tmp_path)
    setting = (
        *("--set", "model.width=4", "--set", "model.depth=2", "--set", "model.normalisation=none"),
        *("--set", "data.crop.size=32", "--set", "data.batch_size=4", "--set", "epochs=4"),
        *("--set", "phases.clustering.loss.gamma=0.05"),
    )
    one, two = (train(folder, "cirl", setting, workers=workers) for workers in (1, 2))
    assert [record["phase"] for record in history(two)] == ["ambiguity"] * 2 + ["clustering"] * 2
    maps = [load_file(Path(run["run"]) / "variance.safetensors") for run in (one, two)]
    for name, alone in maps[0].items():
        assert float((maps[1][name] - alone).abs().max()) < 2e-2, name
    # the mean over images with ambiguous pixels is taken of each worker's share
    for alone, shared in zip(history(one), history(two), strict=True):
        assert shared["val/loss"] == pytest.approx(alone["val/loss"], rel=2e-2)


@pytest.mark.end_to_end
def test_more_workers_than_fit_are_refused(tmp_path: Path) -> None:
    folder = drawn(tmp_path)
    done = subprocess.run(
        [FISSURA, "train", "small_unet", "--data", f"synthetic:{folder / 'images'}", "--workers", "99",
         "--storage", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--workers 99: a step's batch of 8 is shared by the workers; ask for 8 or fewer" in done.stderr
