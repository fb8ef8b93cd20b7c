"""Specs of the classifiers and of the whitening before them; most build scikit-learn estimators."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fissura.core.spec import Spec

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.svm import SVC

    from fissura.classical.zca import ZCA


class SVM(Spec):
    """A support vector machine with the kernel `exp(-gamma |x - y|^2)`.

    `gamma` is for features whose mean squared distance is one (`UnitDistance`), so that 1 is a typical value
    for every backbone. More than two classes: one machine a pair of classes, and votes.
    """

    kind: Literal["svm"] = "svm"
    C: float = Field(1.0, gt=0, le=1e9)
    gamma: float = Field(1.0, gt=0, le=1e9)

    def build(self, *, seed: int) -> "SVC":
        """The estimator; its decisions are those of the pairs of classes."""
        from sklearn.svm import SVC

        return SVC(
            kernel="rbf",
            C=self.C,
            gamma=self.gamma,
            decision_function_shape="ovo",
            random_state=_state(seed),
        )


class Forest(Spec):
    """A random forest (Breiman, Machine Learning 2001); the defaults are the paper's.

    `feature_share` is the share of the features that each split chooses from.
    """

    kind: Literal["forest"] = "forest"
    trees: int = Field(100, ge=1, le=10_000)
    depth: int = Field(20, ge=1, le=64)
    feature_share: float = Field(0.8, gt=0, le=1)

    def build(self, *, seed: int) -> "RandomForestClassifier":
        """The estimator."""
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(
            n_estimators=self.trees,
            max_depth=self.depth,
            max_features=self.feature_share,
            random_state=_state(seed),
        )


class BackboneHead(Spec):
    """The linear head that the backbone was trained with, and a softmax: the network end to end.

    Nothing is fitted: the weights come from the backbone's training.
    """

    kind: Literal["head"] = "head"


AnyClassifier = Annotated[SVM | Forest | BackboneHead, Field(discriminator="kind")]


class NoWhitening(Spec):
    """Leaves the features as the backbone gives them."""

    kind: Literal["none"] = "none"

    def build(self) -> None:
        """No transformer."""
        return


class ZCAWhitening(Spec):
    """ZCA whitening; see `ZCA` for the formula. `regularisation` is relative to the mean eigenvalue."""

    kind: Literal["zca"] = "zca"
    regularisation: float = Field(1e-2, ge=0, le=1e6)
    rank: int | None = Field(None, ge=1)

    def build(self) -> "ZCA":
        """The transformer."""
        from fissura.classical.zca import ZCA

        return ZCA(regularisation=self.regularisation, rank=self.rank)


AnyWhitening = Annotated[NoWhitening | ZCAWhitening, Field(discriminator="kind")]


def pipeline(whitening: AnyWhitening, *, classifier: SVM | Forest, seed: int) -> "Pipeline":
    """The unfitted pipeline: `whitening` if any, `scaling` (UnitDistance), `classifier`."""
    from sklearn.pipeline import Pipeline

    from fissura.classical.scaling import UnitDistance

    whitener = whitening.build()
    first = [] if whitener is None else [("whitening", whitener)]
    return Pipeline([*first, ("scaling", UnitDistance()), ("classifier", classifier.build(seed=seed))])


def _state(seed: int) -> int:
    """`seed` as the 32 bits that scikit-learn takes."""
    return seed % 2**32
