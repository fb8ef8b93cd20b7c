"""The papers, one file each. `RECIPES` is the registry: to add a paper, add its file and one line here."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from fissura.core.errors import SpecError
from fissura.core.paper import Paper
from fissura.core.text import nearest
from fissura.recipes import (
    attention_resunet,
    cirl,
    cnn_svm,
    crackformer,
    deepcrack_liu,
    deepcrack_zou,
    deeplab_focal,
    dru,
    frangi,
    hrsegnet,
    jtfn,
    niblack,
    resenc,
    sato,
    sauvola,
    segformer,
    small_unet,
    unet_backbones,
    vgg_unet,
)
from fissura.training.experiment import Experiment, task_of_file

RECIPES: Mapping[str, Callable[[], Experiment]] = MappingProxyType(
    {
        "unet_backbones": unet_backbones.recipe,
        "cirl": cirl.recipe,
        "jtfn": jtfn.recipe,
        "deepcrack_zou": deepcrack_zou.recipe,
        "deepcrack_liu": deepcrack_liu.recipe,
        "hrsegnet": hrsegnet.recipe,
        "dru": dru.recipe,
        "crackformer": crackformer.recipe,
        "vgg_unet": vgg_unet.recipe,
        "attention_resunet": attention_resunet.recipe,
        "deeplab_focal": deeplab_focal.recipe,
        "resenc": resenc.recipe,
        "segformer": segformer.recipe,
        "small_unet": small_unet.recipe,
        "niblack": niblack.recipe,
        "sauvola": sauvola.recipe,
        "frangi": frangi.recipe,
        "sato": sato.recipe,
        "cnn_svm": cnn_svm.recipe,
    }
)


def load_recipe(name: str) -> Experiment:
    """The recipe of a name, or of a path to a `recipe.json`.

    Raises:
        SpecError: there is none of that name, or the file breaks a rule.
    """
    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name).expanduser()
    if path.suffix == ".json" or path.is_dir():
        return read_experiment(path / "recipe.json" if path.is_dir() else path)
    raise SpecError(f"recipe `{name}` is not known{nearest(name, RECIPES)}; known are {', '.join(RECIPES)}")


def paper_of(name: str) -> Paper | None:
    """The paper that a recipe is of, as its file names it; None of one of the project's own."""
    paper: Paper | None = import_module(RECIPES[name].__module__).PAPER
    return paper


def read_experiment(path: Path) -> Experiment:
    """The recipe in a file, of whichever task.

    Raises:
        SpecError: there is none, or it breaks a rule.
    """
    return task_of_file(path).inputs.recipe.load_file(path)


__all__ = ["RECIPES", "load_recipe", "paper_of", "read_experiment"]
