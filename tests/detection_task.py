"""A third task, as somebody would add it: the boxes of cracks, found as what is darker than a level.

All of it stands here, and one entry in the registry; no room that serves every task knows of it.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import cv2
import numpy as np
import optuna
import pyarrow as pa
import torch
from jaxtyping import Bool, UInt8
from pydantic import Field
from ray import tune

from fissura.batches.scorer import Result
from fissura.batches.task_batch import TaskBatch
from fissura.core.brief import Rows
from fissura.core.errors import DataError
from fissura.core.files import write_json
from fissura.core.progress import Say
from fissura.core.tasks import Task
from fissura.data.content import content_digest
from fissura.data.dataset import Dataset
from fissura.data.datasets import parse_dataset, parse_datasets
from fissura.data.sample import Split
from fissura.deploy.export import Bundle, Quantise
from fissura.deploy.model import Pixels, TaskModel
from fissura.distributed.preflight import Slots
from fissura.distributed.search.schedulers import scheduler_for
from fissura.distributed.search.search import run_trials
from fissura.distributed.search.searcher import StudySearch
from fissura.distributed.search.task_trials import SearchTerms
from fissura.distributed.training.task_training import TrainingTerms
from fissura.models.weights import ModelSpec
from fissura.records.manifest import DataFacts, Manifest
from fissura.records.run_files import facts_of, read_manifest, write_manifest
from fissura.records.study_ranking import finished
from fissura.records.trained import Trained
from fissura.reports.html import Cell, table
from fissura.reports.run_sections import RunSections
from fissura.reports.sheet import ALL_FORMATS, Format
from fissura.reports.standings import Ranked
from fissura.reports.statistics import Interval
from fissura.reports.task_leaderboard import RankedTable, TaskLeaderboard
from fissura.serving.query import ImageQuery
from fissura.serving.schema import ResultHead
from fissura.serving.task_service import TaskService
from fissura.studies.study import Plan, Study
from fissura.studies.task_results import EvaluationTerms, RankedRuns, TaskResults
from fissura.training.checkpoint import RECIPE
from fissura.training.experiment import Experiment, TaskInputs

Box = tuple[int, int, int, int]
SCORES = "boxes.json"


@dataclass(frozen=True)
class BoxScore:
    """What a run scored on test images."""

    run: Path
    level: int
    f1: float
    images: int


class DarkBoxes(Experiment):
    """What is darker than `level`, and has `least_px` pixels."""

    task = "detection"
    metrics = frozenset({"val/f1"})
    networks = ()

    level: int = Field(100, ge=0, le=255)
    least_px: int = Field(4, ge=1)

    @property
    def length(self) -> int:
        """A trial is one step."""
        return 1

    @property
    def weights_wanted(self) -> tuple[ModelSpec, ...]:
        """None."""
        return ()

    def measured(self, metric: str, *, on: str) -> str:
        """See `Experiment.measured`."""
        return f"of boxes on the validation split of {on}"

    def boxes(self, image: UInt8[np.ndarray, "h w 3"]) -> list[Box]:
        """The boxes in an image."""
        return boxes_of(image.mean(axis=2) < self.level, least_px=self.least_px)

    def f1(self, datasets: Sequence[Dataset], *, split: Split) -> float:
        """The pooled F1 of boxes, which match where they share half of their union."""
        hits = found = there = 0
        for dataset in datasets:
            for sample in (one for one in dataset.samples() if one.split == split):
                boxes = self.boxes(dataset.read_image(sample))
                truth = boxes_of(dataset.read_mask(sample) > 0, least_px=1)
                hits += sum(any(overlap(box, other) >= 0.5 for other in truth) for box in boxes)
                found, there = found + len(boxes), there + len(truth)
        return 2 * min(hits, there) / (found + there) if found + there else 0.0


def boxes_of(pixels: Bool[np.ndarray, "h w"], *, least_px: int) -> list[Box]:
    """Left, top, width and height of each connected part."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
    parts = [tuple(map(int, stats[part])) for part in range(1, count)]
    return [(left, top, width, height) for left, top, width, height, area in parts if area >= least_px]


def overlap(one: Box, other: Box) -> float:
    """The share of their union that two boxes have in common."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    return common / (one[2] * one[3] + other[2] * other[3] - common)


def write_run(run: Path, recipe: DarkBoxes, datasets: Sequence[Dataset], *, content: str) -> Manifest:
    """A run is its recipe: there is nothing to learn."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / RECIPE, recipe.plain())
    now = datetime.now(UTC)
    manifest = Manifest.collect(
        run_id=run.name, recipe=recipe.plain(), seed=recipe.seed, accelerator="cpu", cpus=1,
        data=DataFacts(digest=content, datasets=tuple(dataset.plain() for dataset in datasets)),
        started=now, finished=now, parameters=0, best_epoch=1, epochs=1, energy_joules=None,
        files=facts_of(run, (RECIPE,)),
    )  # fmt: skip
    write_manifest(run, manifest)
    return manifest


# ---------------------------------------------------------------- its parts

INPUTS = TaskInputs(DarkBoxes, "level", parse_datasets)


def train(recipe: Experiment, terms: TrainingTerms) -> Trained:
    """See `TaskTraining`."""
    assert isinstance(recipe, DarkBoxes)
    datasets = parse_datasets(terms.data)
    content = content_digest(datasets, directory=terms.cache)
    run = terms.storage / "runs" / recipe.run_id(content)
    return Trained(run, write_run(run, recipe, datasets, content=content))


class BoxTrial(tune.Trainable):
    """A trial in Ray Tune, of one step."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begins the first trial of this actor."""
        self.config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins the next one."""
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """All of it."""
        context = self.config["context"]
        recipe = DarkBoxes.load(self.config["recipe"], source="trial")
        datasets = [parse_dataset(text) for text in context["data"]]
        write_run(Path(context["runs"]) / self.config["run_id"], recipe, datasets, content=context["content"])
        return {
            "epoch": 1, "kept_epoch": 1, "val/f1": recipe.f1(datasets, split="val"), "wait_share": 0.0,
            "finished": True, "interrupted": False, "failure": "", "done": True,
        }  # fmt: skip

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing."""


class BoxTrials:
    """See `TaskTrials`."""

    def __init__(self, terms: SearchTerms) -> None:
        self.terms = terms

    def prepare(self) -> None:
        """Nothing."""

    def place(self, slots: Slots) -> str:
        """See `TaskTrials`."""
        self.slots = slots
        return f"{slots.concurrent} detectors at a time"

    def context(self) -> Mapping[str, Any]:
        """The images, and where the runs lie."""
        plan, runs = self.terms.plan, self.terms.study.runs
        return {"data": [str(one) for one in plan.datasets], "runs": str(runs), "content": plan.content}

    def run(self, search: StudySearch, *, todo: int) -> None:
        """By Ray Tune."""
        terms = self.terms
        run_trials(
            tune.with_resources(BoxTrial, {"cpu": 1}), search, terms.study, todo=todo,
            scheduler=scheduler_for(terms.space, epochs=1, earlier=finished(search.study)),
            concurrent=self.slots.concurrent, total=terms.plan.trials, say=terms.say,
        )  # fmt: skip

    def evaluate(self, trials: optuna.Study, runs: Sequence[str]) -> TaskResults:
        """See `TaskTrials`."""
        terms = EvaluationTerms(
            data=self.terms.plan.datasets, split="test", protocols=(), threshold=None, conditions=(),
            cache=self.terms.study.path, say=self.terms.say, on_image=None,
        )  # fmt: skip
        for name in runs:
            RESULTS.evaluate(self.terms.study.runs / name, terms)
        return RESULTS


@dataclass(frozen=True, repr=False)
class BoxBoard(TaskLeaderboard):
    """See `TaskLeaderboard`: the runs by their F1 of boxes, best first."""

    scores: tuple[BoxScore, ...]

    @property
    def tables(self) -> Sequence[RankedTable]:
        """See `TaskLeaderboard`."""
        ranked = [
            Ranked(
                ranked_by="f1", rank=place, recipe=score.run.name, configuration=str(score.level), differs={},
                seeds=(0,), images=score.images, scores={"f1": Interval(score.f1, None, None)}, group="",
                parameters=0, seconds=0, run_ids=(score.run.name,), directories=(score.run,), notes=(),
            )
            for place, score in enumerate(self.scores, start=1)
        ]  # fmt: skip
        where, images = "boxes test", self.scores[0].images if self.scores else 0
        return [RankedTable(where, "", "F1 of boxes", images, ranked, self.plain())] if ranked else []

    def rows(self) -> list[dict[str, Any]]:
        """See `Brief`."""
        return [{"level": score.level, "F1 of boxes": score.f1} for score in self.scores]

    plain = rows

    def divided(self, scored: Iterable[BoxScore]) -> tuple[TaskLeaderboard, TaskLeaderboard]:
        """See `TaskLeaderboard`."""
        runs = {score.run for score in scored}
        own = tuple(score for score in self.scores if score.run in runs)
        return BoxBoard(own), BoxBoard(tuple(score for score in self.scores if score.run not in runs))

    def write(
        self, directory: Path, *, name: str = "leaderboard", formats: Sequence[Format] = ALL_FORMATS
    ) -> list[Path]:
        """See `TaskLeaderboard`; a CSV alone."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{name}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([["level", "f1"], *([score.level, score.f1] for score in self.scores)])
        return [path]


class BoxResults:
    """See `TaskResults`."""

    def evaluate(self, run: Path, terms: EvaluationTerms) -> Rows[BoxScore]:
        """See `TaskResults`."""
        recipe, datasets = DarkBoxes.load_file(run / RECIPE), parse_datasets(terms.data)
        images = sum(sample.split == terms.split for dataset in datasets for sample in dataset.samples())
        score = BoxScore(run, recipe.level, recipe.f1(datasets, split=terms.split), images)
        write_json(run / SCORES, {"level": score.level, "f1": score.f1, "images": images})
        return Rows([score], head=lambda rows: [f"F1 of boxes {row.f1:.4f}" for row in rows], run=run)

    def board(self, paths: Sequence[Path], *, say: Say) -> BoxBoard:
        """See `TaskResults`."""
        files = sorted({file for path in paths for file in path.rglob(SCORES)})
        scores = [BoxScore(run=file.parent, **json.loads(file.read_text())) for file in files]
        return BoxBoard(tuple(sorted(scores, key=lambda score: -score.f1)))

    def rank(self, study: Study, plan: Plan, trials: optuna.Study, *, say: Say) -> RankedRuns:
        """See `TaskResults`."""
        board = self.board([study.path], say=say)
        cells = [[Cell(str(score.level)), Cell(f"{score.f1:.4f}")] for score in board.scores]
        best = f"On test images the best boxes have F1 {board.scores[0].f1:.4f}." if cells else ""
        held_out = [table(["Level", "F1 of boxes"], cells)]
        sections = RunSections(held_out=held_out, found=best)
        return RankedRuns(files=board.write(study.path), board=board, sections=sections)


RESULTS: TaskResults = BoxResults()


@dataclass(frozen=True)
class Boxes:
    """The answer for one image."""

    boxes: list[Box]


@dataclass(frozen=True)
class BoxModel:
    """See `Model`."""

    manifest: Manifest
    recipe: DarkBoxes
    task: str = "detection"
    batches: bool = False

    @property
    def card(self) -> dict[str, Any]:
        """See `Model`."""
        return {
            "task": self.task, "run": self.manifest.run_id, "recipe": self.recipe.name, "parameters": 0,
            "classes": ["crack"], "trained_on": [], "data_digest": self.manifest.data.digest,
            "finished": self.manifest.finished.isoformat(), "code_version": self.manifest.code_version,
        }  # fmt: skip

    def __call__(self, images: Sequence[Pixels], *, on_windows: Any = None) -> list[Boxes]:
        """See `Model`."""
        return [Boxes(self.recipe.boxes(image)) for image in images]

    def watched(self, on_windows: Any) -> "BoxModel":
        """Itself."""
        return self


class BoxRuns:
    """See `TaskModel`."""

    def open(self, run: Path, *, device: torch.device, threshold: float | None) -> BoxModel:
        """See `TaskModel`."""
        return BoxModel(read_manifest(run), DarkBoxes.load_file(run / RECIPE))

    def export(self, run: Path, *, out: Path, quantise: Quantise, threshold: float | None) -> Bundle:
        """See `TaskModel`."""
        raise DataError(f"{run}: a detector has no network to export")


MODEL: TaskModel = BoxRuns()


class BoxedImage(Result):
    """The boxes of one image."""

    boxes: tuple[Box, ...]


class BoxBatch(TaskBatch):
    """See `TaskBatch`."""

    result = BoxedImage
    columns = MappingProxyType({"boxes": pa.list_(pa.list_(pa.int64()))})

    def row(self, result: BoxedImage) -> dict[str, Any]:
        """See `TaskBatch`."""
        return {"boxes": [list(box) for box in result.boxes]}


BATCH: TaskBatch = BoxBatch()


class BoxesResult(ResultHead):
    """The boxes of one image."""

    task: Literal["detection"]
    boxes: list[list[int]]


class BoxService(TaskService):
    """See `TaskService`."""

    asks = "Finds the boxes of cracks in an image."
    answers = "The boxes of one image, or of each image of a batch."
    document = BoxesResult

    def result(self, answer: Boxes, asked: ImageQuery) -> dict[str, Any]:
        """See `TaskService`."""
        return {"boxes": [list(box) for box in answer.boxes]}


SERVICE: TaskService = BoxService()

DETECTION = Task(
    "detection",
    "detect",
    {
        "inputs": f"{__name__}:INPUTS",
        "training": f"{__name__}:train",
        "trials": f"{__name__}:BoxTrials",
        "results": f"{__name__}:RESULTS",
        "model": f"{__name__}:MODEL",
        "batch": f"{__name__}:BATCH",
        "service": f"{__name__}:SERVICE",
    },
)
