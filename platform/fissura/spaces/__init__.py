"""Search spaces: YAML read strictly, checked against a recipe, compiled to an Optuna function. No Ray."""

from fissura.spaces.fields import override
from fissura.spaces.load import load_space, load_text, search_spaces
from fissura.spaces.space import LoadedSpace, Objective, SearchSpace
from fissura.spaces.strict_yaml import parse_value

__all__ = [
    "LoadedSpace",
    "Objective",
    "SearchSpace",
    "load_space",
    "load_text",
    "override",
    "parse_value",
    "search_spaces",
]
