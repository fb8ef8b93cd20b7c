"""How settings of classifiers are judged: roles and folds of images, the fast path against the slow one."""

import numpy as np
import pytest

from fissura.classical.compression import Compression
from fissura.classical.estimators import SVM, Forest, NoWhitening, ZCAWhitening
from fissura.classification.cross_validation_score import (
    check_features,
    fit,
    fold_distances,
    judge,
    judge_svms,
    shares_distances,
)
from fissura.classification.recipe import ClassifierRecipe, classifier_of
from fissura.classification.roles import assign_roles, fold_of
from fissura.core.errors import DataError, SpecError
from fissura.models.backbones import Backbone
from fissura.recipes import load_recipe

CLASSES = ("no_crack", "crack")


def recipe(**values) -> ClassifierRecipe:
    base = ClassifierRecipe(name="small", backbone=Backbone(kind="mobilenet_v3", weights="none"), folds=3)
    return ClassifierRecipe.model_validate(base.model_dump() | values)


@pytest.fixture(scope="module")
def problem():
    """120 samples of two classes that overlap, in groups of two: features, labels, folds."""
    generator = np.random.default_rng(3)
    labels = np.repeat([0, 1], 60)
    centres = generator.normal(size=(2, 24)) * 0.35
    features = (centres[labels] + generator.normal(size=(120, 24))).astype(np.float32)
    groups = [f"g{index // 2}" for index in range(120)]
    return features, labels, fold_of(labels, groups, folds=3, seed=1)


class TestFolds:
    def test_no_group_is_in_two_folds_and_every_fold_has_both_classes(self) -> None:
        generator = np.random.default_rng(0)
        labels = generator.integers(0, 2, 200)
        groups = [f"g{index}" for index in generator.integers(0, 60, 200)]
        fold = fold_of(labels, groups, folds=5, seed=0)
        folds_of_group = {
            group: {int(f) for f, g in zip(fold, groups, strict=True) if g == group} for group in groups
        }
        assert all(len(own) == 1 for own in folds_of_group.values())
        assert all(set(labels[fold == each]) == {0, 1} for each in range(5))

    def test_one_class_alone_is_an_error(self) -> None:
        with pytest.raises(DataError, match="all of one"):
            fold_of(np.zeros(10, dtype=int), [str(i) for i in range(10)], folds=2, seed=0)

    def test_fewer_groups_than_folds_are_named_by_class(self) -> None:
        with pytest.raises(DataError, match="class 1 has 2 groups of images for 5 folds"):
            fold_of(
                np.array([0] * 10 + [1] * 4),
                [str(i) for i in range(10)] + ["a", "a", "b", "b"],
                folds=5,
                seed=0,
            )


class TestRoles:
    def test_groups_stay_together_and_shares_are_kept(self) -> None:
        labels = [index % 2 for index in range(400)]
        groups = [f"g{index // 4}" for index in range(400)]
        splits = ["test" if index < 80 else "train" for index in range(400)]
        roles = assign_roles(labels, groups, splits, backbone_share=0.4, seed=5)
        parts = [{groups[row] for row in part} for part in (roles.backbone, roles.classifier, roles.test)]
        assert not parts[0] & parts[1]
        assert not (parts[0] | parts[1]) & parts[2]
        assert len(roles.backbone) == pytest.approx(0.4 * 320, abs=8)
        assert sorted([*roles.backbone, *roles.classifier, *roles.test]) == list(range(400))

    def test_without_a_share_the_classifier_has_all_training_images(self) -> None:
        roles = assign_roles([0, 1, 0], ["a", "b", "c"], ["train", "train", "test"], backbone_share=0, seed=0)
        assert (len(roles.backbone), list(roles.classifier), list(roles.test)) == (0, [0, 1], [2])

    def test_a_learnt_backbone_needs_images_of_its_own(self) -> None:
        with pytest.raises(ValueError, match="backbone_share"):
            recipe(backbone={"kind": "mobilenet_v3", "weights": "trained"})


class TestSharedDistances:
    @pytest.mark.parametrize(
        "whitening", [NoWhitening(), ZCAWhitening(regularisation=0.1)], ids=["none", "zca"]
    )
    def test_give_the_scores_of_fitting_each_fold_anew(self, problem, whitening) -> None:
        features, labels, folds = problem
        settings = [SVM(C=c, gamma=g) for c in (0.1, 1.0, 30.0) for g in (0.1, 1.0, 5.0)]
        recipes = [recipe(whitening=whitening.model_dump(), classifier=one.model_dump()) for one in settings]
        shared = fold_distances(features, fold_of=folds, whitening=whitening)
        fast = judge_svms(recipes, shared, labels=labels, fold_of=folds)
        for own, scores in zip(recipes, fast, strict=True):
            slow = judge(own, features, labels=labels, fold_of=folds, classes=CLASSES)
            assert scores.pop("converged") == 1
            assert {name: slow[name] for name in scores} == pytest.approx(scores, abs=0.02)

    def test_one_matrix_serves_all_folds_where_nothing_is_fitted_to_them(self, problem) -> None:
        features, _, folds = problem
        assert len(fold_distances(features, fold_of=folds, whitening=NoWhitening()).matrices) == 1
        assert len(fold_distances(features, fold_of=folds, whitening=ZCAWhitening()).matrices) == 3

    def test_are_enough_for_uncompressed_machines_judged_by_their_errors(self) -> None:
        assert shares_distances(recipe(), ["cv/f1"])
        assert not shares_distances(recipe(), ["cv/f1", "bytes"])
        assert not shares_distances(recipe(classifier=Forest().model_dump()), ["cv/f1"])
        assert not shares_distances(recipe(compression=Compression(bits=8).model_dump()), ["cv/f1"])


def test_a_forest_and_a_compressed_machine_report_bytes_and_time(problem) -> None:
    features, labels, folds = problem
    for changes in (
        {"classifier": Forest(trees=5).model_dump()},
        {"compression": Compression(method="prune").model_dump()},
    ):
        scores = judge(recipe(**changes), features, labels=labels, fold_of=folds, classes=CLASSES)
        assert 0.5 < scores["cv/f1"] <= 1
        assert scores["bytes"] > 100
        assert scores["microseconds"] > 0


def test_a_forest_is_the_same_whatever_the_threads_that_grew_it(problem) -> None:
    features, labels, _ = problem
    setting = recipe(classifier=Forest(trees=9).model_dump())
    one, four = (
        fit(setting, features, labels=labels, classes=CLASSES, threads=threads) for threads in (1, 4)
    )
    assert one.nbytes == four.nbytes
    assert (one.decision(features) == four.decision(features)).all()


def test_features_that_are_of_no_use_are_refused() -> None:
    with pytest.raises(DataError, match="of 1 images are not"):
        check_features(np.array([[0.0, 1.0], [np.nan, 1.0]], dtype=np.float32))
    with pytest.raises(DataError, match="are the same"):
        check_features(np.ones((5, 3), dtype=np.float32))


def test_a_recipe_of_the_other_task_is_named() -> None:
    with pytest.raises(SpecError, match="`small_unet` segments images"):
        classifier_of(load_recipe("small_unet"))
