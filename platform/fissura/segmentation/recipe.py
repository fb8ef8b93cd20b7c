"""A recipe: the complete, frozen description of one training and of its evaluation."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from fissura.core.errors import SpecError
from fissura.core.pretrained import Pretrained
from fissura.core.spec import Spec
from fissura.core.text import count, listed
from fissura.data.datasets import parse_datasets
from fissura.data.pipeline import Pipeline
from fissura.losses import AnyLoss
from fissura.metrics import AnyProtocol
from fissura.models import AnyModel
from fissura.segmentation.inference import AnyInference, Whole
from fissura.segmentation.optimizers import (
    SGD,
    Adam,
    AdamW,
    AnyOptimizer,
    AnySchedule,
    ConstantRate,
    Cosine,
    Decay,
    Nesterov,
    Plateau,
    Polynomial,
)
from fissura.training.experiment import Experiment, KeptBy, TaskInputs
from fissura.training.mixed_precision import PrecisionName

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Chosen",
    "ConstantRate",
    "Cosine",
    "Decay",
    "Given",
    "Nesterov",
    "Phase",
    "Plateau",
    "Polynomial",
    "Recipe",
    "segmenter_of",
]


class Phase(Spec):
    """A stretch of training with one loss, one optimizer and one schedule.

    The phase ends when the share `until` of the recipe's epochs is done; it begins where the previous one
    ends, and is left out if it has no epoch. `early_stopping` is the number of epochs without a lower
    validation loss after which the phase ends; None: never.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    loss: AnyLoss
    optimizer: AnyOptimizer = Adam()
    schedule: AnySchedule = ConstantRate()
    until: float = Field(1.0, gt=0, le=1)
    early_stopping: int | None = Field(None, ge=1)


class Chosen(Spec):
    """The threshold of the best F1 on the validation images of the run's own data."""

    kind: Literal["validation"] = "validation"


class Given(Spec):
    """A threshold that the recipe sets: a pixel is a crack where its probability is at least `value`."""

    kind: Literal["given"] = "given"
    value: float = Field(0.5, ge=0, le=1)


MapRange = Literal["probability", "min_max"]
AnyThreshold = Annotated[Chosen | Given, Field(discriminator="kind")]

MORE_TRIED = 100
"""The most epochs that a remedy may suggest."""
OVERLAPS = ("val/dice", "val/iou")
"""The validation metrics of the protocol `overlap`."""


class Recipe(Experiment):
    """Everything that decides a training: the same recipe, data and seed give the same weights on the same
    machine. One without phases trains nothing, in 0 epochs: its network is validated untrained, by BCE.

    `precision` "mixed" is automatic mixed precision on a GPU and float32 on a CPU; "bfloat16" is mixed
    precision also on CPUs that compute it natively. Validation and inference are in float32. `inference` is
    how a finished model reads an image. `map_range` "min_max" stretches each map to 0..1 only where a
    finished model is evaluated under the kind of the first protocol: see `maps_under`. `protocols` score the
    result; the first one also scores each epoch, in one pass over each image. `smallest_crack`, in pixels at
    the working size, removes smaller groups of touching crack pixels, corners included, from every map.

    `kept_by` is the validation metric whose best epoch is the kept model, anew in each phase: the lowest
    loss, or the highest of the others; of equals the one of lower loss, then the first. None: the paper does
    not say; then it is the loss, in a search the objective. Early stopping and the plateau schedule always
    watch the validation loss.
    """

    task = "segmentation"
    networks = ("model.",)
    no_plan = ""
    metrics: ClassVar[frozenset[str]] = frozenset(
        {
            "val/loss",
            "val/f1",
            "val/dice",
            "val/iou",
            "val/precision",
            "val/recall",
            "latency_ms",
            "parameters",
        }
    )

    data: Pipeline = Pipeline()
    model: AnyModel
    epochs: int = Field(ge=0, le=100_000)
    phases: tuple[Phase, ...]
    precision: PrecisionName = "mixed"
    inference: AnyInference = Whole()
    smallest_crack: int = Field(0, ge=0, le=1_000_000)
    map_range: MapRange = "probability"
    threshold: AnyThreshold = Chosen()
    protocols: tuple[AnyProtocol, ...] = Field(min_length=1)
    kept_by: KeptBy | None = None

    @model_validator(mode="after")
    def _phases_have_names_of_their_own(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"`phases`: each needs a name of its own, got {names}; rename one")
        return self

    @model_validator(mode="after")
    def _phases_follow_each_other_to_the_end(self) -> Self:
        ends = [phase.until for phase in self.phases]
        if ends and (ends != sorted(ends) or ends[-1] != 1):
            raise ValueError(
                f"`phases`: their `until` must not fall, and the last must be 1, got {ends}; mend the order"
            )
        return self

    @model_validator(mode="after")
    def _what_is_learnt_has_phases_and_epochs(self) -> Self:
        kind, phases, pixels = self.model.kind, len(self.phases), self.data.normalisation
        if bool(self.epochs) != bool(phases):
            remedy = (
                f"set `epochs` to {max(phases, 1)}, say" if phases else "set `epochs` to 0, or add a phase"
            )
            raise ValueError(
                f"`epochs`: a recipe has phases and epochs, or neither; got {phases} and {self.epochs};"
                f" {remedy}"
            )
        if not self.model.learns and (phases or pixels != "unit"):
            raise ValueError(
                f"`model.kind`: {kind} learns nothing, and reads pixels in [0, 1]: it has no phases and"
                f" `data.normalisation` unit, got {phases} and {pixels}; take the recipe `{kind}`"
            )
        return self

    @model_validator(mode="after")
    def _phases_have_what_their_losses_need(self) -> Self:
        if not (lack := self._lack(self.epochs)):
            return self
        enough = (epochs for epochs in range(self.epochs + 1, MORE_TRIED) if not self._lack(epochs))
        least = next(enough, None)
        remedy = (
            f"set `epochs` to {least} at least"
            if least
            else "put such a phase before it, of an epoch or more"
        )
        raise ValueError(
            f"`epochs`: {lack}; of {count(self.epochs, 'epoch')} the phases get"
            f" {listed(list(map(str, self._divided(self.epochs))))}; {remedy}"
        )

    def _lack(self, epochs: int) -> str:
        """The map that a phase needs and no earlier one leaves, with this number of epochs; "" if none."""
        left: set[str] = set()
        for phase, own in zip(self.phases, self._divided(epochs), strict=True):
            if not own:
                continue
            for name, kind in phase.loss.needs.items():
                if name not in left:
                    return (
                        f"phase {phase.name} needs the {name} that a phase with the loss `{kind}` learnt"
                        " before it"
                    )
            left |= phase.loss.leaves
        return ""

    def named_by(self) -> dict[str, Any]:
        """The plain form, without fields that earlier runs did not have where they change nothing: `kept_by`
        the loss, and strengths of augmentations, growths of weights and the smallest crack of 0."""
        plain = self.plain()
        plain["model"] = self.model.named_by()
        for phase in plain["phases"]:
            _without_growth(phase["loss"])
        plain["data"]["augmentation"] = self.data.augmentation.named_by()
        if self.kept_metric == "val/loss":
            del plain["kept_by"]
        if not self.smallest_crack:
            del plain["smallest_crack"]
        return plain

    @property
    def weights_wanted(self) -> tuple[Pretrained, ...]:
        """Its network and those of its losses."""
        networks = (network for phase in self.phases for network in phase.loss.weights_wanted)
        return self.model, *networks

    @classmethod
    def chooses_weights(cls, path: str) -> bool:
        """See `Experiment.chooses_weights`; a loss may have a network."""
        return super().chooses_weights(path) or path.endswith((".loss.kind", ".loss.weights"))

    @property
    def kept_metric(self) -> KeptBy:
        """The metric that the kept model is chosen by."""
        return self.kept_by or "val/loss"

    def epoch_order(self, record: Mapping[str, Any]) -> tuple[float, float]:
        """The order in which epochs are kept: the larger the better."""
        loss = record["val/loss"]
        return (-loss if self.kept_metric == "val/loss" else record[self.kept_metric]), -loss

    @property
    def length(self) -> int:
        """The recipe's epochs; 1 where nothing is trained."""
        return self.epochs or 1

    def measured(self, metric: str, *, on: str) -> str:
        """See `Experiment.measured`."""
        if not metric.startswith("val/"):
            return ""
        under = self.protocol_of(metric)
        at = " at 0.5" if metric in OVERLAPS else ""
        rule = f"under the protocol {under}{at}" if under else "by the recipe's loss"
        return f"on the validation split of {on}, {rule}"

    def protocol_of(self, metric: str) -> str:
        """The protocol under which `segmentation.validation` computes a metric; "" for the loss."""
        if metric == "val/loss":
            return ""
        return "overlap" if metric in OVERLAPS else str(self.protocols[0])

    def maps_under(self, protocol: AnyProtocol) -> MapRange:
        """The range of the maps that a protocol scores of a finished model. Only the recipe's own protocol
        scores stretched ones: a stretched map shows a crack in every image."""
        return self.map_range if protocol.kind == self.protocols[0].kind else "probability"

    @property
    def last_phase(self) -> range:
        """The epochs, counted from 0, of the last phase that has any, if none before it stops early."""
        return range(self.length - next(filter(None, reversed(self.phase_epochs)), 1), self.length)

    @property
    def phase_epochs(self) -> tuple[int, ...]:
        """Epochs of each phase, if none stops early."""
        return self._divided(self.epochs)

    def _divided(self, epochs: int) -> tuple[int, ...]:
        ends = [0, *(round(epochs * phase.until) for phase in self.phases)]
        return tuple(end - begin for begin, end in pairwise(ends))


def _without_growth(loss: dict[str, Any]) -> None:
    """Removes the growth of constant weights from the plain form of a loss."""
    for term in loss.get("terms", ()):
        if not term["growth"]:
            del term["growth"]
        _without_growth(term["loss"])


def segmenter_of(experiment: Experiment) -> Recipe:
    """The recipe, if it is one of segmentation.

    Raises:
        SpecError: it classifies images.
    """
    if isinstance(experiment, Recipe):
        return experiment
    raise SpecError(f"recipe `{experiment.name}` classifies images; name one that segments them")


SEGMENTATION_INPUTS = TaskInputs(Recipe, "phases", parse_datasets)
