"""What a search space file says: recipe, objectives, sampler, scheduler, parameters and profiles."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field, PlainValidator

from fissura.core.errors import SpaceError
from fissura.core.rules import NO_MAPPING, broken_clause, one_of, shown
from fissura.core.spec import Spec
from fissura.spaces.compile import Parameters
from fissura.spaces.distributions import AnyDistribution, Choice, FloatRange, IntRange
from fissura.spaces.members import example_for
from fissura.spaces.wording import unknown_key
from fissura.training.experiment import KeptBy

if TYPE_CHECKING:
    import optuna

    from fissura.spaces.fields import Fault
    from fissura.training.experiment import Experiment

Metric = Literal[
    "val/loss",
    "val/f1",
    "val/dice",
    "val/iou",
    "val/precision",
    "val/recall",
    "latency_ms",
    "parameters",
    "cv/f1",
    "cv/accuracy",
    "cv/precision",
    "cv/recall",
    "bytes",
    "microseconds",
]
LOW_IS_GOOD = frozenset({"val/loss", "latency_ms", "parameters", "bytes", "microseconds"})
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Objective(Spec):
    """A metric that trials report, and the direction in which it is better."""

    metric: Metric
    mode: Literal["min", "max"]


def objectives_of(metrics: Sequence[str]) -> tuple[Objective, ...]:
    """The objectives of these metrics, each in the direction that is good for it.

    Raises:
        SpaceError: a metric is not known, or is given twice.
    """
    known = list(get_args(Metric))
    problems = [f"--objective: {one_of(metric, known)}" for metric in metrics if metric not in known]
    problems += [
        f"--objective {metric}: is given twice; leave one out"
        for metric in known
        if list(metrics).count(metric) > 1
    ]
    if problems:
        raise SpaceError(*problems)
    modes = {metric: "min" if metric in LOW_IS_GOOD else "max" for metric in metrics}
    return tuple(Objective.model_validate({"metric": name, "mode": mode}) for name, mode in modes.items())


class Tpe(Spec):
    """The tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), after `startup` random trials."""

    kind: Literal["tpe"] = "tpe"
    seed: Seed = 0
    startup: int = Field(10, ge=0, le=100_000)

    def build(self) -> "optuna.samplers.BaseSampler":
        """The sampler."""
        from fissura.spaces.samplers.tpe import BoundedTPE

        return BoundedTPE(seed=self.seed, startup=self.startup)


class Random(Spec):
    """Independent random trials."""

    kind: Literal["random"] = "random"
    seed: Seed = 0

    def build(self) -> "optuna.samplers.BaseSampler":
        """The sampler."""
        import optuna

        return optuna.samplers.RandomSampler(seed=self.seed)


class Adaptive(Spec):
    """The adaptive rule for C and gamma (see `spaces.samplers.adaptive`): a step multiplies or divides one of
    them by `factor`, whose root is taken each time that no neighbour is better, until it is below `least`."""

    kind: Literal["adaptive"] = "adaptive"
    seed: Seed = 0
    factor: float = Field(4.0, gt=1, le=1000)
    least: float = Field(1.15, gt=1, le=1000)

    def build(self) -> "optuna.samplers.BaseSampler":
        """The sampler."""
        from fissura.spaces.samplers.adaptive import AdaptiveSampler

        return AdaptiveSampler(factor=self.factor, least=self.least, seed=self.seed)


AnySampler = Annotated[Tpe | Random | Adaptive, Field(discriminator="kind")]


def _grace(value: Any) -> int | float:
    if isinstance(value, float) and 0 < value < 1:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 100_000:
        return value
    rule = "must be a whole number of epochs, 1 to 100000, or a share of them between 0 and 1"
    raise ValueError(f"{rule} (got {shown(value)})")


Grace = Annotated[int | float, PlainValidator(_grace)]
"""Epochs of a trial's last phase, as a whole number or as a share of that phase's."""


class Asha(Spec):
    """Asynchronous successive halving (Li et al., MLSys 2020).

    Of the trials that reach `grace`, `grace * reduction`, `grace * reduction ** 2`, ... of their last phase,
    the best `1 / reduction` go on.
    """

    kind: Literal["asha"] = "asha"
    grace: Grace = 1
    reduction: int = Field(3, ge=2, le=100)


class Median(Spec):
    """A trial stops after `grace` of its last phase when it is worse than the median of the others that were
    as far in theirs."""

    kind: Literal["median"] = "median"
    grace: Grace = 1


class RunAll(Spec):
    """Every trial runs to its end."""

    kind: Literal["none"] = "none"


AnyScheduler = Annotated[Asha | Median | RunAll, Field(discriminator="kind")]


class SearchSpace(Spec):
    """One search space file. A lone `objective` mapping is read as a list of one.

    `profiles` fix a path to a plain value, or give it another distribution; `load_space` reads them.
    """

    recipe: str
    objective: Annotated[tuple[Objective, ...], Field(min_length=1)]
    trials: int = Field(20, ge=1, le=1_000_000)
    sampler: AnySampler = Tpe()
    scheduler: AnyScheduler = RunAll()
    space: Annotated[dict[str, AnyDistribution], Field(min_length=1)]
    profiles: dict[str, dict[str, Any]] = Field({})


@dataclass(frozen=True)
class LoadedSpace(Parameters):
    """A search space that kept every rule, under one profile.

    `text` is the file's, so that a study can keep it; `notes` are lines to show, not errors. `kept_by` is
    what the kept model of a segmentation is chosen by (None: what the recipe says), unless the space sets it
    itself; the paper's own point keeps what the paper says, if it does.
    """

    name: str
    source: str
    text: str
    profile: str | None
    definition: SearchSpace
    notes: tuple[str, ...]
    kept_by: KeptBy | None = None

    def attempt(self, point: Mapping[str, Any]) -> "tuple[Experiment | None, list[Fault]]":
        recipe, faults = super().attempt(point)
        if recipe is None or self.kept_by is None or "kept_by" in self.entries:
            return recipe, faults
        if getattr(self.recipe, "kept_by", None) and dict(point) == self.paper_point():
            return recipe, faults
        return recipe.model_copy(update={"kept_by": self.kept_by}), faults

    def kept_by_objective(self) -> "LoadedSpace":
        """The space whose trials keep the model that is best by the first of its objectives that is a
        validation metric, where there is one."""
        if "kept_by" not in type(self.recipe).model_fields:
            return self
        known: tuple[KeptBy, ...] = get_args(KeptBy)
        names = [objective.metric for objective in self.objectives]
        metrics = sorted((objective for objective in known if objective in names), key=names.index)
        return replace(self, kept_by=metrics[0]) if metrics else self

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the search makes best, at least one."""
        return self.definition.objective

    @property
    def longest(self) -> int:
        """Epochs of the longest trial."""
        searched = self.distributions.get("epochs")
        lengths = searched.corners() if searched else ()
        paper = self.recipe_for(self.paper_point()).length
        return max([paper, *(length for length in lengths if isinstance(length, int))])

    def last_phases(self, points: Iterable[Mapping[str, Any]]) -> Iterator[range]:
        """For each point the epochs, counted from 0, of the last phase of its trial.

        Raises:
            SpecError: a point breaks a rule.
        """
        known: dict[tuple[Any, ...], range] = {}
        for point in points:
            moves = {path: value for path, value in point.items() if moves_phases(path)}
            key = tuple(moves.items())
            if key not in known:
                known[key] = self.recipe_for(self.completed(moves)).last_phase
            yield known[key]


def moves_phases(path: str) -> bool:
    """Whether a parameter decides which epochs a phase has."""
    return path == "epochs" or path.endswith(".until")


_SECTIONS: Mapping[str, type[Spec]] = {
    "objective": Objective,
    "tpe": Tpe,
    "random": Random,
    "adaptive": Adaptive,
    "asha": Asha,
    "median": Median,
    "none": RunAll,
    "choice": Choice,
    "int": IntRange,
    "float": FloatRange,
}


def broken_key(problem: Mapping[str, Any]) -> str:
    """One of pydantic's `errors()` on a `SearchSpace`, as a sentence."""
    location = problem["loc"]
    if problem["type"] == "extra_forbidden":
        section = next(
            (_SECTIONS[part] for part in reversed(location[:-1]) if part in _SECTIONS), SearchSpace
        )
        return unknown_key(
            location[-1], (field.alias or name for name, field in section.model_fields.items())
        )
    names = [part for part in location if isinstance(part, str)]
    if names[0] == "space" and len(names) > 1:
        # beneath the path come pydantic's tag and, for the values themselves, the same word again
        inner = ".".join(name for name in names[3:] if name not in _SECTIONS)
        return f"`{names[1]}`: {f'`{inner}` ' if inner else ''}{broken_clause(problem)}"
    example = ""
    if problem["type"] in NO_MAPPING and len(names) == 1:
        example = example_for(SearchSpace.model_fields[names[0]].annotation, problem["input"])
    return f"`{'.'.join(names)}`: {broken_clause(problem)}{f'; write {example}, say' if example else ''}"
