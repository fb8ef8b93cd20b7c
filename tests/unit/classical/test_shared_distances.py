"""The distances that settings of a classifier share: made once, and few sets of them kept at a time."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fissura.classical.estimators import ZCAWhitening
from fissura.classification.recipe import ClassifierRecipe, classifier_of
from fissura.distributed.preflight import Slots
from fissura.distributed.search import trial_inputs as material
from fissura.distributed.search.trial_inputs import MOST_SHARED, TrialInputs
from fissura.recipes import load_recipe


def whitened(rank: int) -> ClassifierRecipe:
    recipe = classifier_of(load_recipe("cnn_svm"))
    return recipe.model_copy(update={"whitening": ZCAWhitening(rank=rank)})


def test_those_asked_for_long_ago_are_let_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[int] = []

    def remote(num_cpus: int) -> Callable[..., SimpleNamespace]:
        def submit(features: object, fold_of: object, plain: dict) -> object:
            made.append(plain["whitening"]["rank"])
            return object()

        return lambda task: SimpleNamespace(remote=submit)

    monkeypatch.setattr(material.ray, "remote", remote)
    shared = TrialInputs(
        (), storage=tmp_path, cache=None, content="", workers=1, slots=Slots(1, 1, 0.0), address=None, say=str
    )
    monkeypatch.setattr(shared, "of", lambda recipe: SimpleNamespace(features=None, fold_of=None))
    ranks = list(range(1, MOST_SHARED + 1))
    first = [shared.distances(whitened(rank)) for rank in ranks]
    assert [shared.distances(whitened(rank)) for rank in ranks] == first
    assert made == ranks
    shared.distances(whitened(99))  # the one of rank 1 goes
    assert shared.distances(whitened(2)) is first[1]
    assert shared.distances(whitened(1)) is not first[0]
    assert made == [*ranks, 99, 1]
    assert len(shared._distances) == MOST_SHARED
