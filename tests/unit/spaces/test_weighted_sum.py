"""A search space addresses the terms of a sum of losses by name: weights, losses, and what these hold."""

import re
from pathlib import Path

import optuna
import pytest

from fissura.core.errors import SpaceError
from fissura.losses import BCE, Dice, DiceBCE, Focal, Term, WeightedSum
from fissura.recipes import load_recipe
from fissura.spaces import load_text, override

DOCS = (Path(__file__).parents[3] / "docs" / "design.md").read_text(encoding="utf-8")
LINES = "\n".join(re.findall(r"^ +(phases\.train\.loss\..*)$", DOCS, flags=re.MULTILINE))
SPACE = f"""
recipe: small_unet
objective: {{metric: val/f1, mode: max}}
space:
  {LINES.replace(chr(10), chr(10) + "  ")}
"""


def test_the_lines_of_the_docs_are_searched() -> None:
    space = load_text(SPACE, source="docs")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    losses = [space.recipe_for(space.suggest(study.ask())).phases[0].loss for _ in range(40)]
    assert DiceBCE() in losses
    sums = [loss for loss in losses if isinstance(loss, WeightedSum)]
    assert len({loss.terms[0].weight for loss in sums}) == len(sums)
    assert {type(loss.terms[1].loss) for loss in sums} == {BCE, Focal}
    assert all(isinstance(loss.terms[0].loss, Dice) for loss in sums)


def test_a_term_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(SpaceError, match=r"did you mean `phases\.train\.loss\.terms\.dice\.weight`"):
        load_text(SPACE.replace("terms.dice.", "terms.dise."), source="docs")


def test_any_sum_is_a_value_of_a_recipe() -> None:
    terms = (Term(name="focal", weight=0.5, loss=Focal(gamma=1.0)), Term(name="sum", loss=WeightedSum()))
    recipe = override(load_recipe("small_unet"), {"phases.train.loss": WeightedSum(terms=terms).plain()})
    assert recipe.phases[0].loss == WeightedSum(terms=terms)
    assert type(recipe).load(recipe.plain(), source="its plain form") == recipe
