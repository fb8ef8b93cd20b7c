"""Search spaces: YAML read strictly, checked against a recipe, compiled to an Optuna function. No Ray."""

from fissura.search.load import load_space, load_text, search_spaces
from fissura.search.paths import override
from fissura.search.space import LoadedSpace, Objective, SearchSpace
from fissura.search.yaml import parse_value

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
