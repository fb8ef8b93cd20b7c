"""A recipe that trains nothing is validated once, and is a run like any other."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from scipy import ndimage

from fissura.data.cache import prepare
from fissura.data.datasets import AnyDataset, parse_dataset
from fissura.data.pipeline import Pipeline
from fissura.data.resize import Fixed, Native
from fissura.data.synthetic import SyntheticSpec, write
from fissura.deploy.model import open_model
from fissura.losses import BCE
from fissura.metrics import Pixel, Tolerant
from fissura.models import Niblack, Sato, UNet
from fissura.recipes import load_recipe
from fissura.segmentation.evaluation import evaluate, threshold_of
from fissura.segmentation.fit import fit
from fissura.segmentation.predict import Predictor, read_recipe
from fissura.segmentation.recipe import Phase, Recipe
from fissura.segmentation.trainer import Trainer
from fissura.spaces.fields import override
from fissura.training.checkpoint import read_metrics
from fissura.training.runtime import LocalRuntime

CPU = torch.device("cpu")
FLOOR = Recipe(
    name="floor",
    data=Pipeline(resize=Native(), batch_size=1, normalisation="unit"),
    model=Sato(sigma=1.5, background=8),
    epochs=0,
    phases=(),
    smallest_crack=12,
    protocols=(Pixel(), Tolerant(distance=2)),
)


def floor(**values: Any) -> Recipe:
    return Recipe.model_validate({**FLOOR.model_dump(), **values})


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> AnyDataset:
    folder = tmp_path_factory.mktemp("untrained") / "set"
    plain: dict[str, Any] = {"shadow": 0, "stain": 0, "low_contrast": 0, "clean": 0, "crack_width": (3, 5)}
    write(SyntheticSpec(train=2, val=3, test=3, height=48, width=56, **plain), folder)
    return parse_dataset(f"synthetic:{folder}")


def fitted(recipe: Recipe, dataset: AnyDataset, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    seen: list[dict[str, Any]] = []
    fit(
        recipe, datasets=[dataset], run=folder / "run", cache=folder / "cache",
        runtime=LocalRuntime(device="cpu", cpus=1), on_epoch=seen.append,
    )  # fmt: skip
    return folder / "run", seen


@pytest.fixture(scope="session")
def run(dataset: AnyDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, _ = fitted(FLOOR, dataset, tmp_path_factory.mktemp("floor"))
    evaluate(folder, datasets=[dataset], device=CPU)
    return folder


class TestRun:
    def test_is_of_no_epoch_and_no_weight(self, run: Path) -> None:
        manifest = json.loads((run / "manifest.json").read_text())
        assert (manifest["epochs"], manifest["best_epoch"], manifest["parameters"]) == (0, 0, 0)
        assert load_file(run / "weights.safetensors") == {}

    def test_has_one_record_of_the_validation_images_and_none_of_a_training(self, run: Path) -> None:
        progress, (record,) = read_metrics(run)
        assert progress.finished
        assert record["phase"] == "none"
        assert not [name for name in record if name.startswith(("train/", "lr", "images_per"))]
        assert 0 < record["val/f1"] <= 1

    def test_is_as_good_in_the_search_as_where_it_is_evaluated(self, run: Path, dataset: AnyDataset) -> None:
        _, (record,) = read_metrics(run)
        rows = evaluate(run, datasets=[dataset], split="val", protocols=[Pixel()], device=CPU)
        right, wrong, missed = (
            sum(getattr(row, name) for row in rows) for name in ("true_positive", "false_positive", "missed")
        )
        assert record["val/f1"] == pytest.approx(2 * right / (2 * right + wrong + missed))
        assert threshold_of(run, FLOOR) == record["val/threshold"] == rows[0].threshold

    def test_is_made_once(self, run: Path, dataset: AnyDataset) -> None:
        before = (run / "metrics.json").read_bytes()
        again = fit(
            FLOOR, datasets=[dataset], run=run, cache=run.parent / "cache",
            runtime=LocalRuntime(device="cpu", cpus=1), on_epoch=lambda _: pytest.fail("validated again"),
        )  # fmt: skip
        assert again.run_id == "run"
        assert (run / "metrics.json").read_bytes() == before

    def test_that_was_killed_at_its_end_begins_again(self, dataset: AnyDataset, tmp_path: Path) -> None:
        folder, (record,) = fitted(FLOOR, dataset, tmp_path)
        for name in ("metrics.json", "manifest.json"):
            (folder / name).unlink()
        _, (again,) = fitted(FLOOR, dataset, tmp_path)
        assert again["val/f1"] == record["val/f1"]

    def test_answers_as_a_model_of_masks_without_small_cracks(self, run: Path, dataset: AnyDataset) -> None:
        model = open_model(run, device=CPU)
        image = dataset.read_image(dataset.samples()[0])
        (answer,) = model([image])
        whole = Predictor(FLOOR.model_copy(update={"smallest_crack": 0}), FLOOR.model.build(), CPU)(image)
        mask = whole / 255 >= threshold_of(run, read_recipe(run))
        groups, _ = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.bincount(groups.ravel())
        assert (sizes < 12).any()
        assert np.array_equal(answer.mask, mask & (sizes[groups] >= 12))  # type: ignore[attr-defined]


def test_what_a_filter_finds_depends_on_no_other_image(dataset: AnyDataset, tmp_path: Path) -> None:
    """And is validated at the working size, where small cracks are counted."""
    recipe = floor(data={**FLOOR.data.model_dump(), "resize": Fixed(height=32, width=40)}, smallest_crack=30)
    data = prepare([dataset], resize=recipe.data.resize, directory=tmp_path / "cache")
    scores = []
    for size in (1, 3):
        one = floor(**{**recipe.model_dump(), "data": {**recipe.data.model_dump(), "batch_size": size}})
        trainer = Trainer(
            one, data=data, run=tmp_path / str(size), runtime=LocalRuntime(device="cpu", cpus=1)
        )
        scores.append(trainer.step()["val/f1"])
    assert scores[0] == scores[1]
    assert data.image(0).shape == (32, 40, 3)


def test_a_network_that_could_learn_is_judged_as_its_file_has_it(dataset: AnyDataset, run: Path) -> None:
    folder = run.parent / "given"
    recipe = floor(model=UNet(width=4, depth=1), smallest_crack=0)
    made, (record,) = fitted(recipe, dataset, folder)
    given = floor(model=UNet(width=4, depth=1, weights=str(made / "weights.safetensors")), smallest_crack=0)
    _, (again,) = fitted(given, dataset, folder / "again")
    assert again["val/loss"] == record["val/loss"]
    assert again["parameters"] == sum(one.numel() for one in recipe.model.build().parameters())


class TestRecipe:
    @pytest.mark.parametrize("name", ["niblack", "sauvola", "frangi", "sato"])
    def test_of_a_filter_is_of_its_own_name_and_size(self, name: str) -> None:
        recipe = load_recipe(name)
        assert isinstance(recipe, Recipe)
        assert (recipe.model.kind, recipe.epochs, recipe.phases) == (name, 0, ())
        assert (recipe.length, list(recipe.last_phase), recipe.phase_epochs) == (1, [0], ())
        assert recipe.smallest_crack > 0

    @pytest.mark.parametrize(
        ("wrong", "reason"),
        [
            (
                {"epochs": 3},
                "a recipe has phases and epochs, or neither; got 0 and 3; set `epochs` to 0, or add a phase",
            ),
            (
                {"epochs": 3, "phases": (Phase(name="train", loss=BCE()),)},
                "`model.kind`: sato learns nothing.* got 1 and unit; take the recipe `sato`",
            ),
            (
                {"data": {**FLOOR.data.model_dump(), "normalisation": "imagenet"}},
                "`data.normalisation` unit, got 0 and imagenet",
            ),
        ],
    )
    def test_that_contradicts_itself_is_refused(self, wrong: dict[str, Any], reason: str) -> None:
        with pytest.raises(ValidationError, match=reason):
            floor(**wrong)

    def test_takes_settings_as_any_other(self) -> None:
        changed = override(load_recipe("niblack"), {"model.window": 61, "smallest_crack": 0})
        assert isinstance(changed, Recipe)
        assert changed.model == Niblack(window=61)
        assert changed.configuration != load_recipe("niblack").configuration

    def test_has_the_name_of_earlier_versions_where_each_crack_counts(self) -> None:
        assert "smallest_crack" not in floor(smallest_crack=0).named_by()
        assert FLOOR.named_by()["smallest_crack"] == 12
