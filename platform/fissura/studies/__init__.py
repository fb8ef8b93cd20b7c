"""Search spaces: YAML read strictly, checked against a recipe, compiled to an Optuna function. No Ray."""

from fissura.studies.load import load_space, load_text, search_spaces
from fissura.studies.paths import override
from fissura.studies.space import LoadedSpace, Objective, SearchSpace
from fissura.studies.yaml import parse_value

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
