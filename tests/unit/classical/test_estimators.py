"""Specs build scikit-learn estimators that clone, repeat, and name what they cannot fit."""

import subprocess
import sys

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from fissura.classical.estimators import (
    SVM,
    AnyClassifier,
    AnyWhitening,
    Forest,
    NoWhitening,
    ZCAWhitening,
    pipeline,
)

WHITENINGS = [NoWhitening(), ZCAWhitening(regularisation=0.1, rank=5)]
CLASSIFIERS = [SVM(C=3.0, gamma=0.5), Forest(trees=5, depth=4)]


@pytest.fixture
def problem(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    features = (rng.normal(size=(90, 8)) * [3, 3, 1, 1, 1, 1, 1, 1]).astype(np.float32)
    return features, (features[:, 0] + 0.3 * features[:, 1] ** 2 > 2).astype(np.int64)


class TestSpecs:
    def test_hold_the_paper_s_forest(self):
        assert Forest() == Forest(trees=100, depth=20, feature_share=0.8)
        forest = Forest().build(seed=3)
        assert (forest.n_estimators, forest.max_depth, forest.max_features) == (100, 20, 0.8)
        assert forest.random_state == 3

    def test_build_an_rbf_machine_that_decides_pair_by_pair(self):
        machine = SVM(C=2.0, gamma=0.25).build(seed=0)
        assert (machine.kernel, machine.C, machine.gamma) == ("rbf", 2.0, 0.25)
        assert machine.decision_function_shape == "ovo"

    @pytest.mark.parametrize(
        "plain",
        [
            {"kind": "svm", "C": 0.0},
            {"kind": "svm", "gamma": -1.0},
            {"kind": "forest", "depth": 0},
            {"kind": "forest", "trees": 0},
            {"kind": "forest", "feature_share": 1.5},
            {"kind": "svm", "trees": 5},
            {"kind": "boosting"},
        ],
    )
    def test_refuse_what_no_classifier_is(self, plain):
        with pytest.raises(ValidationError):
            TypeAdapter(AnyClassifier).validate_python(plain)

    @pytest.mark.parametrize("plain", [{"kind": "zca", "rank": 0}, {"kind": "zca", "regularisation": -0.1}])
    def test_refuse_what_no_whitening_is(self, plain):
        with pytest.raises(ValidationError):
            TypeAdapter(AnyWhitening).validate_python(plain)

    def test_are_read_without_scikit_learn(self):
        code = (
            "import sys, fissura.classical.estimators, fissura.classical.compression; "
            "print({'sklearn', 'scipy', 'numba', 'torch'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"


class TestPipeline:
    def test_has_a_whitening_step_only_where_there_is_whitening(self):
        names = [list(pipeline(each, classifier=SVM(), seed=0).named_steps) for each in WHITENINGS]
        assert names == [["scaling", "classifier"], ["whitening", "scaling", "classifier"]]
        zca = pipeline(WHITENINGS[1], classifier=SVM(), seed=0)["whitening"]
        assert (zca.regularisation, zca.rank) == (0.1, 5)

    @pytest.mark.parametrize("whitening", WHITENINGS, ids=lambda each: each.kind)
    @pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda each: each.kind)
    def test_clones_and_repeats(self, problem, whitening, classifier):
        features, labels = problem
        built = pipeline(whitening, classifier=classifier, seed=2**40 + 7)
        first = clone(built).fit(features, labels)
        second = clone(built).fit(features, labels)
        assert (first.predict(features) == second.predict(features)).all()
        assert first.score(features, labels) > 0.85
        assert cross_val_score(built, features, labels, cv=3).mean() > 0.6

    def test_of_a_forest_follows_its_seed(self, problem):
        features, labels = problem
        chances = [
            pipeline(NoWhitening(), classifier=CLASSIFIERS[1], seed=seed).fit(features, labels)
            for seed in (0, 0, 1)
        ]
        first, same, other = (each.predict_proba(features) for each in chances)
        assert (first == same).all()
        assert (first != other).any()

    @pytest.mark.parametrize("factor", [0.01, 100.0])
    def test_of_a_machine_does_not_depend_on_the_scale_of_the_features(self, problem, factor):
        features, labels = problem
        built = pipeline(NoWhitening(), classifier=SVM(), seed=0)
        expected = clone(built).fit(features, labels).decision_function(features)
        scaled = features * np.float32(factor)
        found = clone(built).fit(scaled, labels).decision_function(scaled)
        np.testing.assert_allclose(found, expected, atol=2e-3)

    def test_of_one_class_says_so(self, problem):
        with pytest.raises(ValueError, match="classes has to be greater than one"):
            pipeline(NoWhitening(), classifier=SVM(), seed=0).fit(problem[0], np.zeros(90))
