"""Evaluates a batch of labelled images as `fissura evaluate` does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fissura.batches.rows import read_rows
from fissura.batches.scorer import ModelCard
from fissura.batches.source import ImageSource
from fissura.batches.task_batch import ScoredImages, Truth
from fissura.core.errors import DataError, SpecError
from fissura.core.files import write_json
from fissura.core.tasks import all_tasks
from fissura.data.datasets import Named, kind_of, kinds
from fissura.data.labelled import labelled_kinds
from fissura.data.sample import Split
from fissura.metrics import AnyProtocol

SCORES = "scores.json"


def names_a_data_set(text: str) -> bool:
    """Whether `text` is KIND:ROOT rather than a folder or a URL."""
    _, colon, rest = text.partition(":")
    return bool(colon) and not rest.startswith("//") and kind_of(text) in {**kinds(), **labelled_kinds()}


def open_test_set(named: Named, *, split: Split, directory: Path) -> tuple[ImageSource, Truth]:
    """The images of a split of the data set `KIND:ROOT`, and their truth.

    `directory` is the cache folder.

    Raises:
        UserError: no such data set, or no image in the split.
    """
    for task in all_tasks():
        test_set = task.batch.test_set(named, split=split, directory=directory)
        if test_set is not None:
            return test_set
    raise SpecError(f"{named}: no task is scored by data of this kind; name another data set")


def evaluate(
    out: Path,
    results: Path,
    truth: Truth,
    *,
    names: Sequence[str],
    protocols: Sequence[AnyProtocol],
    card: ModelCard,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The scores of a finished batch over its `names`, in JSON types; also written to `OUT/scores.json`.

    Images without a result are left out, and named. `card` is that of the model; `protocols` are those of a
    task with maps. `facts` are kept beside the scores.

    Raises:
        DataError: a mask or a map cannot be read, unlike sizes or classes, or no image has a result.
    """
    table = read_rows(results)
    error_of = dict(zip(table.column("image").to_pylist(), table.column("error").to_pylist(), strict=True))
    scored = [name for name in names if error_of[name] is None]
    if not scored:
        raise DataError(
            f"{results}: no image has a result, so there is nothing to score; see its column `error`"
        )
    head = {
        **facts,
        "images": len(scored),
        "left_out": sorted(set(names) - set(scored)),
    }
    scored_images = ScoredImages(out, names, scored, table)
    plain = {**head, **truth.scores(scored_images, card, protocols=protocols)}
    write_json(out / SCORES, plain)
    return plain


def check_some(images: Sequence[object], named: Named, split: str) -> None:
    """Checks that a split has images.

    Raises:
        DataError: it has none.
    """
    if not images:
        raise DataError(f"{named}: no {split} images; name another --split, or a data set that has them")
