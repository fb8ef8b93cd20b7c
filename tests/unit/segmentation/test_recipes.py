"""Recipes: complete, frozen, named by their content, and the papers' settings to the letter."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from fissura.core.errors import SpecError
from fissura.data.augmentation import STRENGTHS
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop, WholeImage
from fissura.data.resize import Fixed, Native
from fissura.losses import BCE, DiceBCE
from fissura.metrics import Pixel, Tolerant
from fissura.models import BackboneUNet, UNet
from fissura.recipes import RECIPES, load_recipe
from fissura.segmentation.inference import Sliding, Whole
from fissura.segmentation.recipe import (
    SGD,
    Adam,
    AdamW,
    ConstantRate,
    Cosine,
    Given,
    Nesterov,
    Phase,
    Plateau,
    Polynomial,
    Recipe,
)
from fissura.spaces.fields import override

BASE = Recipe(
    name="base",
    data=Pipeline(resize=Native(), crop=RandomCrop(size=32)),
    model=UNet(width=4, depth=2),
    epochs=5,
    phases=(Phase(name="train", loss=DiceBCE(), until=0.6), Phase(name="tune", loss=BCE())),
    protocols=(Pixel(),),
)


def changed(**values: Any) -> Recipe:
    return Recipe.model_validate({**BASE.model_dump(), **values})


def leaves(plain: Any, path: str = "") -> dict[str, Any]:
    """Every value of a plain form by its dotted path."""
    if isinstance(plain, dict):
        return {name: each for key in plain for name, each in leaves(plain[key], f"{path}.{key}").items()}
    if isinstance(plain, list):
        return {
            name: each for i, item in enumerate(plain) for name, each in leaves(item, f"{path}.{i}").items()
        }
    return {path.removeprefix("."): plain}


CHANGES = {
    "name": changed(name="other"),
    "crop": changed(data=BASE.data.model_copy(update={"crop": RandomCrop(size=48)})),
    "batch": changed(data=BASE.data.model_copy(update={"batch_size": 5})),
    "augmentation": changed(
        data=BASE.data.model_copy(update={"augmentation": Augmentation(vertical_flip=0.1)})
    ),
    "resize": changed(data=BASE.data.model_copy(update={"resize": Fixed()})),
    "model": changed(model=UNet(width=5, depth=2)),
    "loss": changed(phases=(Phase(name="train", loss=DiceBCE(dice_weight=0.5), until=0.6), BASE.phases[1])),
    "learning rate": changed(
        phases=(BASE.phases[0], BASE.phases[1].model_copy(update={"optimizer": Adam(lr=2e-3)}))
    ),
    "epochs": changed(epochs=6),
    "phase split": changed(phases=(BASE.phases[0].model_copy(update={"until": 0.4}), BASE.phases[1])),
    "inference": changed(inference=Sliding(size=32, stride=8)),
    "range of maps": changed(map_range="min_max"),
    "threshold": changed(threshold=Given(value=0.2)),
    "precision": changed(precision="float32"),
    "protocols": changed(protocols=(Pixel(), Tolerant())),
    "smallest crack": changed(smallest_crack=20),
}


class TestEveryRecipe:
    @pytest.mark.parametrize("name", RECIPES)
    def test_is_named_as_its_key_and_file(self, name: str) -> None:
        assert RECIPES[name]().name == name
        assert RECIPES[name].__module__ == f"fissura.recipes.{name}"

    @pytest.mark.parametrize("name", RECIPES)
    def test_comes_back_from_json(self, name: str) -> None:
        recipe = RECIPES[name]()
        again = type(recipe).load(json.loads(json.dumps(recipe.plain())), source="here")
        assert again == recipe
        assert again.configuration == recipe.configuration

    @pytest.mark.parametrize("name", RECIPES)
    def test_is_the_same_each_time(self, name: str) -> None:
        assert RECIPES[name]() == RECIPES[name]() == load_recipe(name)

    def test_loads_from_a_file_or_a_run_directory(self, tmp_path: Path) -> None:
        path = tmp_path / "recipe.json"
        path.write_text(json.dumps(BASE.plain()))
        assert load_recipe(str(path)) == load_recipe(str(tmp_path)) == BASE

    def test_is_missed_with_the_nearest_name(self) -> None:
        with pytest.raises(SpecError, match=r"did you mean `unet_backbones`.*known are .*small_unet"):
            load_recipe("unet_backbone")


def test_unet_backbones_is_the_paper_s_setting() -> None:
    """Isnan et al., CMBN 2026:20, sections 2.2 and 2.3, and the readings where it is silent."""
    settings = leaves(RECIPES["unet_backbones"]().plain())
    assert settings == {
        "name": "unet_backbones",
        "data.resize.kind": "fixed",
        "data.resize.height": 512,
        "data.resize.width": 512,
        "data.resize.masks": "auto",
        "data.crop.kind": "whole",
        "data.crop.per_image": 1,
        "data.augmentation.horizontal_flip": 0.5,
        "data.augmentation.vertical_flip": 0.2,
        "data.augmentation.rotate_90": 0.0,
        "data.augmentation.brightness_contrast": 0.3,
        "data.augmentation.gaussian_noise": 0.2,
        **{
            f"data.augmentation.{name}": 0.0
            for name in ("blur", "hue", "saturation", "brightness", "contrast")
        },
        "data.augmentation.noise_sigma": 7.0,  # reading, as all strengths
        "data.augmentation.blur_kernel": 7,
        "data.augmentation.hue_shift": 20,
        "data.augmentation.saturation_shift": 30,
        "data.augmentation.brightness_limit": 0.2,
        "data.augmentation.contrast_limit": 0.2,
        "kept_by": "val/loss",
        "data.batch_size": 4,
        "data.normalisation": "imagenet",
        "model.kind": "backbone_unet",
        "model.encoder": "xception",
        "model.weights": "imagenet",
        **{
            f"model.decoder_channels.{i}": channels for i, channels in enumerate((256, 128, 64, 32))
        },  # reading
        "phases.0.name": "train",
        "phases.0.loss.kind": "dice_bce",
        "phases.0.loss.dice_weight": 1.0,  # reading
        "phases.0.loss.bce_weight": 1.0,  # reading
        "phases.0.loss.smooth": 1.0,  # reading
        "phases.0.loss.over": "batch",  # reading
        "phases.0.optimizer.kind": "adam",
        "phases.0.optimizer.lr": 1e-3,
        "phases.0.optimizer.weight_decay": 0.0,
        "phases.0.schedule.kind": "plateau",
        "phases.0.schedule.factor": 0.5,
        "phases.0.schedule.patience": 3,
        "phases.0.until": 1.0,
        "phases.0.early_stopping": 10,  # reading
        "epochs": 30,
        "inference.kind": "whole",
        "inference.max_pixels": Whole().max_pixels,
        "smallest_crack": 0,
        "map_range": "probability",
        "threshold.kind": "validation",
        "precision": "mixed",
        "protocols.0.kind": "overlap",
        "protocols.1.kind": "pixel",
        "seed": 0,
    }


def test_unet_backbones_takes_each_of_the_paper_s_nine() -> None:
    nine = (
        *("xception", "efficientnet_b0", "vgg16", "vgg19", "resnet34"),
        *("densenet121", "resnet50", "mobilenet_v2", "inception_v3"),
    )
    assert len({BackboneUNet(encoder=encoder).hub_file().repository for encoder in nine}) == 9


PAPERS: dict[str, dict[str, Any]] = {
    "attention_resunet": {
        "data.crop.size": 48,
        "data.crop.crack_share": 0.6,
        "data.crop.per_image": 2000,
        "data.crop.allocation": "equal",
        "data.batch_size": 32,
        **{f"data.augmentation.{name}": 0.0 for name in Augmentation.model_fields if name not in STRENGTHS},
        "model.width": 16,
        "model.depth": 4,
        "model.final": "relu",
        "model.normalisation": "none",
        "model.blocks": "residual",
        "model.gate": "attention",
        "model.supervision": "deep",
        "phases.0.loss.kind": "dice_bce",
        "phases.0.loss.dice_weight": 1.0,
        "phases.0.loss.bce_weight": 1.0,
        "phases.0.optimizer.kind": "sgd",
        "phases.0.optimizer.lr": 1e-3,
        "phases.0.optimizer.momentum": 0.9,
        "phases.0.optimizer.weight_decay": 1e-6,
        "epochs": 30,
        "inference.kind": "sliding",
        "inference.size": 48,
        "inference.stride": 1,
        "inference.weights": "mean",
        "threshold.value": 0.2,
        "protocols.0.kind": "tolerant",
        "protocols.0.distance": 2.0,
    },
    "cirl": {
        "data.crop.size": 256,
        "data.batch_size": 2,
        "data.augmentation.horizontal_flip": 0.5,
        "data.augmentation.vertical_flip": 0.0,
        "data.augmentation.rotate_90": 1.0,
        "model.kind": "unet",
        "phases.0.loss.lam": 0.3,
        "phases.0.loss.distance": "wasserstein",
        "phases.1.loss.gamma": 0.4,
        "phases.1.loss.k": 20,
        "phases.1.loss.beta": 0.2,
        "phases.1.loss.term": "bound",
        **{f"phases.{i}.optimizer.kind": "adam" for i in (0, 1)},
        **{f"phases.{i}.optimizer.lr": 1e-3 for i in (0, 1)},
        **{f"phases.{i}.optimizer.weight_decay": 5e-4 for i in (0, 1)},
        "phases.0.until": 0.5,
        "epochs": 2000,
        "protocols.0.kind": "pixel",
    },
    "jtfn": {
        "data.resize.kind": "native",
        "data.crop.kind": "random",
        "data.crop.size": 256,
        "data.batch_size": 2,
        "data.normalisation": "imagenet",
        "data.augmentation.horizontal_flip": 0.5,
        "data.augmentation.vertical_flip": 0.5,
        "data.augmentation.rotate_90": 1.0,
        "model.kind": "jtfn",
        "model.width": 64,
        "model.blocks": "plain",
        "model.steps": 3,
        "phases.0.loss.kind": "bce",
        "phases.0.optimizer.kind": "adam",
        "phases.0.optimizer.lr": 1e-3,
        "phases.0.optimizer.weight_decay": 5e-4,
        "phases.0.schedule.kind": "decay",
        "phases.0.schedule.factor": 0.9,
        "phases.0.schedule.steps": 500,
        "epochs": 1000,
        "threshold.kind": "given",
        "threshold.value": 0.5,
        "protocols.0.kind": "pixel",
    },
    "vgg_unet": {
        "data.resize.kind": "native",
        "data.crop.kind": "random",
        "data.crop.size": 256,
        "data.batch_size": 2,
        "data.normalisation": "imagenet",
        "data.augmentation.horizontal_flip": 0.5,
        "data.augmentation.vertical_flip": 0.5,
        "data.augmentation.rotate_90": 1.0,
        "model.kind": "unet",
        "model.width": 64,
        "model.depth": 4,
        "model.normalisation": "batch",
        "phases.0.loss.kind": "weighted_sum",
        "phases.0.loss.terms.0.loss.kind": "bce",
        "phases.0.loss.terms.0.weight": 1.0,
        "phases.0.loss.terms.1.loss.kind": "vgg",
        "phases.0.loss.terms.1.loss.weights": "imagenet",
        "phases.0.loss.terms.1.weight": 0.1,
        "phases.0.optimizer.kind": "adam",
        "phases.0.optimizer.lr": 1e-3,
        "phases.0.optimizer.weight_decay": 5e-4,
        "phases.0.schedule.kind": "decay",
        "phases.0.schedule.factor": 0.9,
        "phases.0.schedule.steps": 500,
        "epochs": 1000,
        "threshold.kind": "given",
        "threshold.value": 0.5,
        "protocols.0.kind": "pixel",
    },
    "deepcrack_zou": {
        "data.crop.kind": "random",
        "data.crop.size": 512,
        "data.crop.per_image": 5,
        "data.batch_size": 8,
        "data.normalisation": "unit",
        "data.augmentation.horizontal_flip": 0.5,
        "data.augmentation.vertical_flip": 0.5,
        "data.augmentation.blur": 0.08,
        "data.augmentation.blur_kernel": 5,
        **{f"data.augmentation.{name}": 0.25 for name in ("hue", "saturation", "brightness", "contrast")},
        "data.augmentation.hue_shift": 18,
        "data.augmentation.brightness_limit": 0.125,
        "data.augmentation.contrast_limit": 0.5,
        "model.kind": "deepcrack_zou",
        "model.width": 64,
        "model.weights": "none",
        "phases.0.loss.kind": "bce",
        "phases.0.optimizer.kind": "adam",
        "phases.0.optimizer.lr": 1e-3,
        "phases.0.optimizer.weight_decay": 0.0,
        "phases.0.schedule.kind": "constant",
        "epochs": 500,
        "threshold.kind": "validation",
        "protocols.0.kind": "flexible",
        "protocols.0.distance": 2,
    },
    "deepcrack_liu": {
        "data.resize.height": 256,
        "data.resize.width": 256,
        "data.crop.kind": "whole",
        "data.batch_size": 1,
        "data.augmentation.horizontal_flip": 0.25,
        "data.augmentation.vertical_flip": 0.25,
        "model.kind": "deepcrack_liu",
        "model.width": 64,
        "model.weights": "none",
        "phases.0.loss.kind": "lin_focal",
        "phases.0.loss.gamma": 2.0,
        "phases.0.loss.alpha": None,
        "phases.0.optimizer.kind": "sgd",
        "phases.0.optimizer.lr": 1e-4,
        "phases.0.optimizer.momentum": 0.9,
        "phases.0.optimizer.weight_decay": 2e-4,
        "phases.0.schedule.kind": "decay",
        "phases.0.schedule.factor": 0.1,
        "phases.0.schedule.steps": 12_000,
        "epochs": 700,
        "threshold.kind": "validation",
        "protocols.0.kind": "pixel",
    },
    "hrsegnet": {
        "data.resize.kind": "native",
        "data.crop.kind": "random",
        "data.crop.size": 400,
        "data.batch_size": 32,
        "data.augmentation.horizontal_flip": 0.5,
        "data.augmentation.vertical_flip": 0.0,
        **{f"data.augmentation.{name}": 0.5 for name in ("saturation", "brightness", "contrast")},
        "data.augmentation.brightness_limit": 0.5,
        "data.augmentation.contrast_limit": 0.5,
        "model.kind": "hrsegnet",
        "model.width": 16,
        "phases.0.loss.kind": "ohem_bce",
        "phases.0.loss.threshold": 0.7,
        "phases.0.loss.least_kept": 10_000,
        "phases.0.optimizer.kind": "sgd",
        "phases.0.optimizer.lr": 1e-2,
        "phases.0.optimizer.momentum": 0.9,
        "phases.0.optimizer.weight_decay": 5e-4,
        "phases.0.schedule.kind": "polynomial",
        "phases.0.schedule.power": 0.9,
        "phases.0.schedule.warm_up": 2000,
        "epochs": 450,
        "protocols.0.kind": "overlap",
    },
    "dru": {
        "data.resize.kind": "native",
        "data.crop.size": 576,
        "data.batch_size": 4,
        "data.normalisation": "imagenet",
        "data.augmentation.horizontal_flip": 0.5,
        "data.augmentation.vertical_flip": 0.0,
        "data.augmentation.rotate_90": 1.0,
        "model.kind": "dru",
        "model.width": 32,
        "model.unit": "dual",
        "model.gates": "relu",
        "model.steps": 3,
        "model.step_weight": 0.4,
        "phases.0.loss.kind": "bce",
        "phases.0.optimizer.kind": "sgd",
        "phases.0.optimizer.lr": 5e-3,
        "phases.0.optimizer.momentum": 0.9,
        "phases.0.optimizer.weight_decay": 5e-4,
        "phases.0.schedule.kind": "decay",
        "phases.0.schedule.factor": 0.95,
        "phases.0.schedule.steps": 180,
        "threshold.kind": "given",
        "threshold.value": 0.5,
        "protocols.0.kind": "pixel",
    },
    "crackformer": {
        "data.resize.kind": "native",
        "data.batch_size": 1,
        "data.normalisation": "unit",
        "model.kind": "crackformer",
        "model.width": 64,
        "model.dropout": 0.3,
        "phases.0.loss.kind": "balanced_bce",
        "phases.0.loss.background": 1.1,
        "phases.0.optimizer.kind": "sgd",
        "phases.0.optimizer.lr": 1e-3,
        "phases.0.optimizer.momentum": 0.9,
        "phases.0.schedule.kind": "constant",
        "threshold.kind": "validation",
        "protocols.0.kind": "pixel",
    },
    "resenc": {
        "data.crop.kind": "random",
        "data.crop.size": 256,
        "data.crop.per_image": 50,
        "data.batch_size": 12,
        "data.augmentation.horizontal_flip": 0.5,
        "data.augmentation.vertical_flip": 0.5,
        "model.kind": "resenc",
        "model.width": 16,
        "phases.0.loss.kind": "dice_bce",
        "phases.0.loss.dice_weight": 1.0,
        "phases.0.loss.bce_weight": 1.0,
        "phases.0.loss.smooth": 1e-5,
        "phases.0.loss.over": "batch",
        "phases.0.optimizer.kind": "nesterov",
        "phases.0.optimizer.lr": 1e-2,
        "phases.0.optimizer.momentum": 0.99,
        "phases.0.optimizer.weight_decay": 3e-5,
        "phases.0.schedule.kind": "polynomial",
        "phases.0.schedule.power": 0.9,
        "phases.0.schedule.warm_up": 0,
        "epochs": 1000,
        "inference.kind": "sliding",
        "inference.size": 256,
        "inference.stride": 128,
        "inference.weights": "gaussian",
        "threshold.value": 0.5,
        "protocols.0.kind": "pixel",
    },
    "segformer": {
        "data.crop.kind": "random",
        "data.crop.size": 512,
        "data.batch_size": 16,
        "data.normalisation": "imagenet",
        "data.augmentation.horizontal_flip": 0.5,
        "data.augmentation.vertical_flip": 0.0,
        "model.kind": "segformer",
        "model.size": "b0",
        "model.width": 256,
        "model.weights": "imagenet",
        "phases.0.loss.kind": "bce",
        "phases.0.optimizer.kind": "adamw",
        "phases.0.optimizer.lr": 6e-5,
        "phases.0.optimizer.weight_decay": 0.01,
        "phases.0.optimizer.new_factor": 10.0,
        "phases.0.schedule.kind": "polynomial",
        "phases.0.schedule.power": 1.0,
        "phases.0.schedule.warm_up": 1500,
        "threshold.value": 0.5,
        "protocols.0.kind": "pixel",
    },
    "deeplab_focal": {
        "data.resize.height": 512,
        "data.resize.width": 512,
        "data.batch_size": 2,
        "data.normalisation": "unit",
        "data.augmentation.rotate_90": 0.0,
        **{
            f"data.augmentation.{name}": 0.5
            for name in (
                *("horizontal_flip", "vertical_flip", "blur"),
                *("hue", "saturation", "brightness", "contrast"),
            )
        },
        "model.kind": "deeplabv3",
        "model.backbone": "resnet101",
        "model.outputs": 1,
        "model.trained": "all",
        "model.weights": "none",
        "phases.0.loss.kind": "focal",
        "phases.0.loss.alpha": 3.0,
        "phases.0.loss.gamma": 2.0,
        "phases.0.optimizer.kind": "sgd",
        "phases.0.optimizer.lr": 1e-4,
        "phases.0.optimizer.momentum": 0.9,
        "phases.0.optimizer.weight_decay": 5e-4,
        "phases.0.schedule.kind": "plateau",
        "phases.0.schedule.factor": 0.1,
        "phases.0.schedule.patience": 10,
        "epochs": 300,
        "map_range": "min_max",
        "protocols.0.kind": "flexible",
        "protocols.0.distance": 2,
    },
}


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_is_its_paper_s_setting(name: str) -> None:
    found = leaves(RECIPES[name]().plain())
    assert {path: found.get(path) for path in PAPERS[name]} == PAPERS[name]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "attention_resunet",
            {"data.crop.allocation": "crack_pixels", "data.crop.per_image": 3500, "epochs": 25},
        ),
        ("cirl", {"phases.ambiguity.until": 1}),
        ("cirl", {"phases.ambiguity.until": 1, "phases.ambiguity.loss.kind": "bce"}),
        ("cirl", {"phases.ambiguity.loss.distance": "kl"}),
        ("cirl", {"phases.clustering.loss.term": "nnclr"}),
        ("cirl", {"phases.clustering.loss.term": "exact"}),
        *[
            ("cirl", {"model.kind": kind})
            for kind in (
                *("backbone_unet", "attention_resunet", "deeplabv3", "jtfn", "dru"),
                *("crackformer", "deepcrack_zou", "deepcrack_liu", "hrsegnet"),
            )
        ],
        ("jtfn", {"model.width": 32, "model.blocks": "residual", "model.steps": 2}),
        ("jtfn", {"phases.train.schedule.factor": 0.95, "phases.train.schedule.steps": 10_000}),
        ("deepcrack_zou", {"model.width": 16}),
        (
            "deepcrack_liu",
            {"phases.train.loss.kind": "weighted_bce", "phases.train.loss.crack_weight": 33.3},
        ),
        ("deepcrack_liu", {"phases.train.loss.kind": "balanced_bce", "phases.train.loss.background": 1}),
        ("deepcrack_liu", {"phases.train.schedule.kind": "cosine"}),
        *[("hrsegnet", {"model.width": width}) for width in (32, 48)],
        ("dru", {"model.unit": "single"}),
        ("dru", {"model.width": 8}),
        ("resenc", {"model.width": 32, "model.blocks": [1, 3, 4, 6, 6, 6, 6]}),
        ("segformer", {"model.size": "b1"}),
        ("segformer", {"model.size": "b2", "model.width": 768}),
        ("vgg_unet", {"phases.train.loss.terms.topology.loss.weights": "vgg19.safetensors"}),
        ("deeplab_focal", {"model.outputs": 2, "data.normalisation": "imagenet", "model.trained": "head"}),
        ("deeplab_focal", {"phases.train.loss.kind": "bce"}),
        ("deeplab_focal", {"model.weights": "coco.safetensors"}),
    ],
    ids=str,
)
def test_what_a_docstring_names_can_be_set(name: str, values: dict[str, Any]) -> None:
    changed_recipe = override(load_recipe(name), values)
    assert changed_recipe.configuration != load_recipe(name).configuration


class TestNames:
    @pytest.mark.parametrize("other", CHANGES.values(), ids=CHANGES)
    def test_of_configurations_change_with_every_choice(self, other: Recipe) -> None:
        assert other.configuration != BASE.configuration

    def test_of_configurations_ignore_the_seed_alone(self) -> None:
        assert changed(seed=1).configuration == BASE.configuration
        assert len({recipe.configuration for recipe in CHANGES.values()}) == len(CHANGES)

    def test_of_runs_tell_recipes_seeds_and_data_apart(self) -> None:
        runs = [
            (BASE, "c1"),
            (BASE, "c2"),
            (changed(seed=1), "c1"),
            *((each, "c1") for each in CHANGES.values()),
        ]
        assert len({recipe.run_id(content) for recipe, content in runs}) == len(runs)

    def test_of_runs_are_equal_for_equal_content(self) -> None:
        again = Recipe.load(BASE.plain(), source="here")
        assert again.run_id("c1") == BASE.run_id("c1")
        assert len(BASE.run_id("c1")) == 12
        assert set(BASE.run_id("c1")) <= set("0123456789abcdef")


class TestRules:
    @pytest.mark.parametrize(
        ("values", "rule"),
        [
            ({"phases": ()}, "has phases and epochs, or neither; got 0 and 5"),
            ({"protocols": ()}, "at least 1"),
            ({"phases": (BASE.phases[0], BASE.phases[0])}, "a name of its own"),
            ({"name": "Not A Name"}, "pattern"),
            ({"seed": -1}, "greater than or equal to 0"),
            ({"seed": 2**32}, "less than 4294967296"),
            ({"rounds": 3}, "Extra inputs"),
            ({"epochs": 0}, "has phases and epochs, or neither; got 2 and 0"),
            ({"phases": BASE.phases[::-1]}, "must not fall"),
            ({"phases": BASE.phases[:1]}, "the last must be 1"),
        ],
    )
    def test_are_kept(self, values: dict[str, Any], rule: str) -> None:
        with pytest.raises(ValidationError, match=rule):
            changed(**values)

    def test_name_the_field_of_a_file_that_breaks_one(self) -> None:
        plain = BASE.plain()
        plain["phases"][1]["optimizer"]["lr"] = "1e-3"
        plain["data"]["batch_size"] = 0
        plain["model"]["kind"] = "vnet"
        with pytest.raises(SpecError) as caught:
            Recipe.load(plain, source="recipe.json")
        assert len(caught.value.problems) == 3
        for field in ("phases.1.optimizer.adam.lr", "data.batch_size", "model"):
            assert any(f"`{field}`" in problem for problem in caught.value.problems)

    @pytest.mark.parametrize(
        ("epochs", "until", "expected"),
        [(5, 0.6, (3, 2)), (2000, 0.5, (1000, 1000)), (7, 1.0, (7, 0)), (1, 0.5, (0, 1)), (3, 0.01, (0, 3))],
    )
    def test_the_epochs_of_phases_are_shares_of_the_recipe_s(
        self, epochs: int, until: float, expected: tuple[int, int]
    ) -> None:
        first = BASE.phases[0].model_copy(update={"until": until})
        assert changed(epochs=epochs, phases=(first, BASE.phases[1])).phase_epochs == expected

    def test_a_whole_image_is_one_sample(self) -> None:
        with pytest.raises(ValidationError):
            WholeImage.model_validate({"per_image": 2})


def rates(schedule: ConstantRate | Cosine | Plateau, *, losses: list[float]) -> list[float]:
    """The learning rate of each epoch, where epoch i ends with the validation loss `losses[i]`."""
    optimizer = SGD(lr=0.1).build([torch.nn.Parameter(torch.zeros(1))])
    built = schedule.build(optimizer, epochs=len(losses))
    seen = []
    for loss in losses:
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if isinstance(built, torch.optim.lr_scheduler.ReduceLROnPlateau):
            built.step(loss)
        elif built is not None:
            built.step()
    return seen


class TestSchedules:
    def test_constant(self) -> None:
        assert rates(ConstantRate(), losses=[1.0] * 4) == [0.1] * 4

    def test_cosine_falls_along_half_a_cosine(self) -> None:
        literal = [0.1 * (1 + math.cos(math.pi * epoch / 8)) / 2 for epoch in range(8)]
        assert rates(Cosine(), losses=[1.0] * 8) == pytest.approx(literal)

    def test_plateau_falls_after_more_than_patience_flat_epochs(self) -> None:
        losses = [5.0, 4.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0]
        # flat after the 3rd and 4th epoch; the 5th is the third flat one, and the 6th runs at half the rate
        assert rates(Plateau(factor=0.5, patience=2), losses=losses) == [0.1] * 5 + [0.05] * 3

    @pytest.mark.parametrize(("warm_up", "power"), [(0, 0.9), (3, 1.0)])
    def test_polynomial_falls_to_zero_over_the_phase_after_a_rise_in_a_line(
        self, warm_up: int, power: float
    ) -> None:
        optimizer = SGD(lr=0.1).build([torch.nn.Parameter(torch.zeros(1))])
        schedule = Polynomial(power=power, warm_up=warm_up).build(optimizer, epochs=2, steps=5)
        seen = []
        for _ in range(12):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        literal = [
            0.1 * min(1, (step + 1) / (warm_up + 1)) * max(0, 1 - step / 10) ** power for step in range(12)
        ]
        assert seen == pytest.approx(literal)
        assert seen[10:] == [0, 0]


class TestOptimizers:
    def test_adamw_decays_kernels_alone_and_has_a_rate_for_what_is_new(self) -> None:
        network = BackboneUNet(encoder="mobilenet_v2", weights="none").build()
        built = AdamW(lr=0.02, weight_decay=0.03, new_factor=10).build(
            list(network.parameters()), published=network.published
        )
        assert isinstance(built, torch.optim.AdamW)
        assert built.param_groups[0]["lr"] == 0.02
        names = {parameter: name for name, parameter in network.named_parameters()}
        count = 0
        for group in built.param_groups:
            for parameter in group["params"]:
                new = not names[parameter].startswith("encoder.")
                assert group["lr"] == pytest.approx(0.2 if new else 0.02)
                assert group["weight_decay"] == (0.03 if parameter.ndim > 1 else 0)
                count += 1
        assert count == len(names)

    def test_adamw_has_one_rate_where_no_part_is_published(self) -> None:
        network = UNet(width=2, depth=1).build()
        built = AdamW(lr=0.02, new_factor=10).build(list(network.parameters()), published=network.published)
        assert {group["lr"] for group in built.param_groups} == {0.02}

    def test_nesterov_gets_its_numbers(self) -> None:
        built = Nesterov(lr=0.02, momentum=0.7, weight_decay=0.03).build([torch.nn.Parameter(torch.zeros(1))])
        group = built.param_groups[0]
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.02, 0.7, 0.03)
        assert group["nesterov"]

    def test_adam_gets_its_numbers(self) -> None:
        built = Adam(lr=0.02, weight_decay=0.03).build([torch.nn.Parameter(torch.zeros(1))])
        assert isinstance(built, torch.optim.Adam)
        group = built.param_groups[0]
        assert (group["lr"], group["weight_decay"], group["betas"]) == (0.02, 0.03, (0.9, 0.999))

    def test_sgd_gets_its_numbers(self) -> None:
        built = SGD(lr=0.02, momentum=0.7, weight_decay=0.03).build([torch.nn.Parameter(torch.zeros(1))])
        assert isinstance(built, torch.optim.SGD)
        group = built.param_groups[0]
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.02, 0.7, 0.03)
        assert not group["nesterov"]
