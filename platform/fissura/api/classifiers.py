"""The verbs for image classifiers, as functions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fissura.api.arguments import (
    AnyPath,
    Data,
    Paths,
    Words,
    paths_of,
)
from fissura.api.evaluation import evaluate
from fissura.core.brief import Rows
from fissura.core.progress import Say, silent

if TYPE_CHECKING:
    from fissura.data.datasets import Named
    from fissura.records.trained import Trained
    from fissura.reports.classification import ClassRow
    from fissura.reports.interference import InterferenceTable
    from fissura.training.experiment import Experiment

Count = Callable[[int, int], None]


def train_classifier(
    recipe: "Experiment",
    *,
    data: "Sequence[Named]",
    storage: Path,
    cache: Path,
    workers: int = 1,
    cpus_per_worker: int | None = None,
    address: str | None = None,
    say: Say = silent,
) -> "Trained":
    """Trains one classifier on labelled data; returns its run directory and manifest, as `train` does."""
    from fissura.distributed.training.task_training import TrainingTerms
    from fissura.distributed.training.train_classifier import train_classifier as train_on_data

    terms = TrainingTerms(data, storage, cache, workers, cpus_per_worker, address, say)
    return train_on_data(recipe, terms)


def classify(
    run: AnyPath,
    *,
    data: Data,
    split: Literal["train", "test"] = "test",
    conditions: Words = "clean",
    cache: AnyPath | None = None,
    say: Say = silent,
    on_image: Count | None = None,
) -> "Rows[ClassRow]":
    """Evaluates a classifier on the images of a split, as they are (`clean`) and under interference
    (`shadow`, `stain`, `low_contrast`); returns these scores. Names unreadable images through `say`.
    """
    return evaluate(
        run, data=data, split=split, conditions=conditions, cache=cache, say=say, on_image=on_image
    )


def interference(
    runs: Paths,
    *,
    data: Data,
    cache: AnyPath | None = None,
    say: Say = silent,
    on_image: Count | None = None,
) -> "Rows[InterferenceTable]":
    """What shadow, stain and low contrast cost each of `runs` on the test images, and the change from the
    first run to each other run: the classification paper's Table 2."""
    from fissura.classification.evaluation import CONDITIONS
    from fissura.records.class_store import read_classes
    from fissura.reports.interference import interference_table

    folders = paths_of(runs)
    for run in folders:
        classify(run, data=data, conditions=CONDITIONS, cache=cache, say=say, on_image=on_image)
    records = read_classes(folders).records
    record_of = {record.directory.resolve(): record for record in records}
    configurations = [record_of[run.resolve()].table.column("configuration")[0].as_py() for run in folders]
    tables = interference_table(records, pairs=[(configurations[0], other) for other in configurations[1:]])
    return Rows(tables, head=_costs, run=None)


def _costs(tables: "Sequence[InterferenceTable]") -> list[str]:
    return [
        f"{table.data} {table.test_set.split}, {row.model}: "
        + ", ".join(f"{name} {score.value:.4f}" for name, score in row.scores.items())
        for table in tables
        for row in table.rows
    ]


def class_leaderboard(paths: Paths, *, say: Say = silent) -> "list[ClassRow]":
    """The ranking of all evaluated classifiers below `paths`; names skipped files through `say`."""
    from fissura.records.class_store import read_classes
    from fissura.reports.classification import class_table

    runs = read_classes(paths_of(paths))
    for skipped in runs.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}")
    return class_table(runs.records)
