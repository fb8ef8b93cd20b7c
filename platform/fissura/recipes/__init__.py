"""The papers, one file each. `RECIPES` is the registry: to add a paper, add its file and one line here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from fissura.core.errors import SpecError
from fissura.core.spec import nearest
from fissura.engine.recipe import Recipe
from fissura.recipes import attention_resunet, cirl, deeplab_focal, small_unet, unet_backbones

RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        "unet_backbones": unet_backbones.recipe,
        "cirl": cirl.recipe,
        "attention_resunet": attention_resunet.recipe,
        "deeplab_focal": deeplab_focal.recipe,
        "small_unet": small_unet.recipe,
    }
)


def load_recipe(name: str) -> Recipe:
    """The recipe of a name, or of a path to a `recipe.json`.

    Raises:
        SpecError: there is none of that name, or the file breaks a rule.
    """
    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    if path.suffix == ".json" or path.is_dir():
        return Recipe.load_file(path / "recipe.json" if path.is_dir() else path)
    raise SpecError(f"recipe `{name}` is not known{nearest(name, RECIPES)}; known are {', '.join(RECIPES)}")


__all__ = ["RECIPES", "load_recipe"]
