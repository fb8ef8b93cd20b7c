"""A rule of the whole recipe names the fields that it is about, and what to set them to."""

import pytest

from fissura.core.errors import SpecError
from fissura.recipes import RECIPES
from fissura.spaces.fields import override


@pytest.mark.parametrize(
    ("recipe", "values", "told"),
    [
        (
            "cirl",
            {"epochs": 1},
            "`epochs`: phase clustering needs the variance that a phase with the loss `ambiguity_aware`"
            " learnt before it; of 1 epoch the phases get 0 and 1; set `epochs` to 2 at least",
        ),
        (
            "small_unet",
            {"epochs": 0},
            "`epochs`: a recipe has phases and epochs, or neither; got 1 and 0; set `epochs` to 1, say",
        ),
        (
            "small_unet",
            {"threshold": 0.3},
            "`threshold`: must be a mapping (got 0.3); write {kind: given, value: 0.3}, say",
        ),
        (
            "small_unet",
            {"threshold.kind": "fixed"},
            "`threshold.kind`: 'fixed' is not known; known: `validation`, `given`",
        ),
    ],
)
def test_a_setting_that_breaks_a_rule_is_told_with_its_remedy(
    recipe: str, values: dict[str, object], told: str
) -> None:
    with pytest.raises(SpecError) as caught:
        override(RECIPES[recipe](), values)
    assert caught.value.problems == (told,)


def test_the_remedy_is_a_recipe() -> None:
    assert override(RECIPES["cirl"](), {"epochs": 2}).phase_epochs == (1, 1)
    assert (
        override(RECIPES["small_unet"](), {"threshold": {"kind": "given", "value": 0.3}}).threshold.value
        == 0.3
    )
