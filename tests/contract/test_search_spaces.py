"""Each search space of fissura loads in each profile, without a network, and all its points build."""

from pathlib import Path

import optuna
import pytest
import yaml

from fissura.core.errors import WeightsError
from fissura.engine.classifier_recipe import LEARNT, classifier_of
from fissura.engine.recipe import segmenter_of
from fissura.jobs.preflight import check_all_backbones, check_all_weights
from fissura.models import check_weights
from fissura.models.weights import Hub
from fissura.studies import LoadedSpace, load_space, load_text, search_spaces

PROFILES = {name: yaml.safe_load(path.read_text())["profiles"] for name, path in search_spaces().items()}
LAYERS = [(name, profile) for name in sorted(PROFILES) for profile in (None, *PROFILES[name])]
PRETRAINED = {
    (name, profile) for name in ("unet_backbones", "deeplab_focal", "cnn_svm") for profile in (None, "gpu")
}
"""Those whose comments say that they start from ImageNet's weights."""


def check_networks(space: LoadedSpace, *, hub: Hub) -> None:
    """The check that a search makes before it starts anything."""
    classifies = space.recipe.task == "classification"
    (check_all_backbones if classifies else check_all_weights)(space, hub=hub)


@pytest.fixture
def no_hub(tmp_path: Path) -> Hub:
    """A hub that nothing answers for, and a machine that holds no weights."""
    return Hub(endpoint="http://127.0.0.1:9", cache=tmp_path, seconds=0.5)


@pytest.mark.parametrize(("name", "profile"), LAYERS)
def test_fifty_points_build_and_no_network_is_needed_but_for_published_weights(
    name: str, profile: str | None, no_hub: Hub
) -> None:
    space = load_space(name, profile=profile)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    recipes = [space.recipe_for(space.suggest(study.ask())) for _ in range(50)]
    if (name, profile) in PRETRAINED:
        with pytest.raises(WeightsError, match="imagenet"):
            check_networks(space, hub=no_hub)
        return
    check_networks(space, hub=no_hub)
    for recipe in recipes:
        if recipe.task == "classification":
            assert classifier_of(recipe).backbone.weights in LEARNT
        else:
            check_weights(segmenter_of(recipe).model, hub=no_hub)


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
