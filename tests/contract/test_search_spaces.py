"""Each search space of fissura loads in each profile, without a network, and all its points build."""

import functools
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from fissura.classification.recipe import LEARNT, classifier_of
from fissura.core.errors import WeightsError
from fissura.distributed.preflight import check_all_weights
from fissura.models import check_weights
from fissura.models.weights import Hub
from fissura.segmentation.recipe import segmenter_of
from fissura.spaces import LoadedSpace, load_space, load_text, search_spaces
from fissura.spaces.distributions import Choice
from fissura.spaces.space import Adaptive

PROFILES = {name: yaml.safe_load(path.read_text())["profiles"] for name, path in search_spaces().items()}
LAYERS = [(name, profile) for name in sorted(PROFILES) for profile in (None, *PROFILES[name])]
PRETRAINED = {
    (name, profile)
    for name in ("unet_backbones", "deeplab_focal", "segformer", "cnn_svm", "vgg_unet")
    for profile in (None, "gpu")
} | {("vgg_unet", "cpu")}
"""Those whose comments say that they start from ImageNet's weights."""


@functools.cache
def loaded(name: str, profile: str | None) -> LoadedSpace:
    """A space of fissura's own."""
    return load_space(name, profile=profile)


def points(space: LoadedSpace) -> list[dict[str, Any]]:
    """Fifty points that Optuna's random sampler asks for."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(50)]


@pytest.fixture
def no_hub(tmp_path: Path) -> Hub:
    """A hub that nothing answers for, and a machine that holds no weights."""
    return Hub(endpoint="http://127.0.0.1:9", cache=tmp_path, seconds=0.5)


@pytest.mark.parametrize(("name", "profile"), LAYERS)
def test_fifty_points_build_and_no_network_is_needed_but_for_published_weights(
    name: str, profile: str | None, no_hub: Hub
) -> None:
    space = loaded(name, profile)
    recipes = [space.recipe_for(point) for point in points(space)]
    if (name, profile) in PRETRAINED:
        with pytest.raises(WeightsError, match="imagenet"):
            check_all_weights(space, hub=no_hub)
        return
    check_all_weights(space, hub=no_hub)
    for recipe in recipes:
        if recipe.task == "classification":
            assert classifier_of(recipe).backbone.weights in LEARNT
        else:
            check_weights(segmenter_of(recipe).model, hub=no_hub)


@pytest.mark.parametrize(("name", "profile"), LAYERS)
def test_a_range_goes_beyond_the_paper_s_value_on_both_sides(name: str, profile: str | None) -> None:
    space = loaded(name, profile)
    for path, value in space.paper_point().items():
        distribution = space.distributions[path]
        if not isinstance(distribution, Choice):
            assert distribution.bounds[0] < value < distribution.high, path


def test_a_head_alone_is_trained_only_on_a_backbone_that_has_learnt() -> None:
    space = load_space("deeplab_focal")
    models = [segmenter_of(space.recipe_for(point)).model.plain() for point in points(space)]
    assert {model["trained"] for model in models if model["weights"] == "imagenet"} == {"all", "head"}
    assert {model["trained"] for model in models if model["weights"] == "none"} == {"all"}
    on_coco = load_space(
        "deeplab_focal", fixed={"model.weights": "coco.safetensors", "model.trained": "head"}
    )
    assert segmenter_of(on_coco.recipe_for(on_coco.paper_point())).model.plain()["trained"] == "head"


def test_the_focal_loss_is_searched_with_and_without_a_gradient_through_its_weights() -> None:
    space = load_space("deeplab_focal", fixed={"phases.train.loss.kind": "focal"})
    drawn = {point["phases.train.loss.normaliser"] for point in points(space)}
    assert drawn == {"constant", "differentiated"}


def test_whitening_is_searched_by_rank_and_up_to_a_regularisation_of_100() -> None:
    drawn = points(load_space("cnn_svm", fixed={"whitening.kind": "zca"}))
    assert {point["whitening.rank"] for point in drawn} >= {None, 16, 64}
    assert max(point["whitening.regularisation"] for point in drawn) == 100


def test_the_strength_of_the_noise_is_searched_where_a_recipe_makes_some() -> None:
    drawn = [point["data.augmentation.noise_sigma"] for point in points(load_space("unet_backbones"))]
    assert 2 <= min(drawn) < 7 < max(drawn) <= 30


def test_the_adaptive_rule_searches_c_and_gamma_alone() -> None:
    space = load_space("cnn_svm", profile="adaptive")
    assert isinstance(space.definition.sampler, Adaptive)
    assert space.definition.trials == 40
    assert {frozenset(point) for point in points(space)} == {frozenset({"classifier.C", "classifier.gamma"})}
    assert load_space("cnn_svm").definition.sampler.kind == "tpe"


def test_aiglern_has_the_paper_s_84_000_patches_and_25_epochs() -> None:
    space = load_space("attention_resunet", profile="aiglern")
    recipe = segmenter_of(space.recipe_for(space.paper_point()))
    assert (recipe.epochs, recipe.data.crop.plain()["allocation"]) == (25, "crack_pixels")
    assert 24 * recipe.data.crop.plain()["per_image"] == 84_000


@pytest.mark.parametrize(("name", "profile"), LAYERS)
def test_the_docs_name_each_profile_and_each_parameter(name: str, profile: str | None) -> None:
    docs = (Path(__file__).parents[2] / "docs/papers.md").read_text()
    (row,) = (line for line in docs.splitlines() if line.startswith(f"| `{name}` | `"))
    assert profile is None or f"`{profile}`" in row
    assert not [path for path in loaded(name, profile).distributions if f"`{path}`" not in row]


def test_weights_are_looked_for_where_a_loss_needs_them(no_hub: Hub) -> None:
    text = """
        recipe: small_unet
        objective: {metric: val/f1, mode: max}
        space:
          phases.train.loss.kind: {choice: [dice_bce, vgg]}
    """
    with pytest.raises(WeightsError, match=r"`loss\.weights: imagenet`: the weights of vgg19"):
        check_all_weights(load_text(text, source="space"), hub=no_hub)


def test_weights_are_looked_for_where_one_choice_leads_to_another(no_hub: Hub) -> None:
    text = """
        recipe: small_unet
        objective: {metric: val/f1, mode: max}
        space:
          model.kind: {choice: [unet, backbone_unet]}
          model.weights: {choice: [none, imagenet], when: {model.kind: [backbone_unet]}}
          model.encoder: {choice: [xception, vgg16], when: {model.kind: [backbone_unet]}}
    """
    with pytest.raises(WeightsError, match=r"xception .*, vgg16 "):
        check_all_weights(load_text(text, source="f"), hub=no_hub)
