"""The verbs about classifiers of images, as functions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fissura.engine.experiment import Experiment
    from fissura.results.classification import ClassRow
    from fissura.results.interference import InterferenceTable
    from fissura.results.manifest import Manifest

Say = Callable[[str], None]
Count = Callable[[int, int], None]


def silent(_: str) -> None:
    """Says nothing."""


def train_classifier(
    recipe: "Experiment",
    *,
    data: Sequence[str],
    storage: Path,
    cache: Path,
    workers: int = 1,
    cpus_per_worker: int | None = None,
    address: str | None = None,
    say: Say = silent,
) -> "tuple[Path, Manifest]":
    """Trains one classifier on labelled data; gives its run directory and manifest, as `train` does."""
    from fissura.jobs.environment import check_temporary_folder, prepare_environment

    check_temporary_folder(address)
    prepare_environment(address)
    from fissura.data.labelled import labelled_digest, parse_labelled
    from fissura.engine.classifier_recipe import classifier_of
    from fissura.jobs import train_classifier as job

    datasets = parse_labelled(data)
    return job.train_classifier(
        classifier_of(recipe),
        datasets=datasets,
        content=labelled_digest(datasets, directory=cache),
        storage=storage,
        cache=cache,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        address=address,
        say=say,
    )


def classify(
    run: Path,
    *,
    data: Sequence[str],
    split: Literal["train", "test"] = "test",
    conditions: Sequence[str] = ("clean",),
    cache: Path | None = None,
    say: Say = silent,
    on_image: Count | None = None,
) -> "list[ClassRow]":
    """Judges a classifier on the images of a split, as they are (`clean`) and under interference (`shadow`,
    `stain`, `low_contrast`); gives the scores of the run. Images that cannot be read are named through `say`.
    """
    from fissura.data.cache import default_cache
    from fissura.data.labelled import image_keys, parse_labelled
    from fissura.data.labelled.keys import digest_of_keyed
    from fissura.engine.evaluate_classifier import evaluate_classifier
    from fissura.engine.runtime import LocalRuntime

    images = image_keys(parse_labelled(data), directory=cache or default_cache())
    unread = evaluate_classifier(
        run.resolve(),
        images,
        content=digest_of_keyed(images),
        split=split,
        conditions=conditions,
        device=LocalRuntime().device,
        on_image=on_image,
    )
    for one in unread:
        say(f"left out: {one.reason}")
    return class_leaderboard([run])


def interference(
    runs: Sequence[Path],
    *,
    data: Sequence[str],
    cache: Path | None = None,
    say: Say = silent,
    on_image: Count | None = None,
) -> "list[InterferenceTable]":
    """What shadow, stain and low contrast cost each of `runs` on the test images, and what changed from the
    first of them to each other: the classification paper's Table 2."""
    from fissura.engine.evaluate_classifier import CONDITIONS
    from fissura.results.class_store import read_classes
    from fissura.results.interference import interference_table

    for run in runs:
        classify(run, data=data, conditions=CONDITIONS, cache=cache, say=say, on_image=on_image)
    records = read_classes(list(runs)).records
    named = {record.directory.resolve(): record for record in records}
    ordered = [named[run.resolve()].table.column("configuration")[0].as_py() for run in runs]
    return interference_table(records, pairs=[(ordered[0], other) for other in ordered[1:]])


def class_leaderboard(paths: Sequence[Path], *, say: Say = silent) -> "list[ClassRow]":
    """The ranking of all evaluated classifiers below `paths`; files that are no runs are named through
    `say`."""
    from fissura.results.class_store import read_classes
    from fissura.results.classification import class_table

    runs = read_classes(paths)
    for skipped in runs.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}")
    return class_table(runs.records)
