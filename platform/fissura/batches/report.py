"""The question and the report of a batch, for any scorer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fissura.batches.evaluation import evaluate
from fissura.batches.pictures import KINDS, Kind
from fissura.batches.rows import read_rows
from fissura.batches.run import BatchResult
from fissura.batches.scorer import ModelCard
from fissura.batches.sink import Question
from fissura.batches.source import ImageSource
from fissura.batches.task_batch import Truth
from fissura.core.brief import Brief
from fissura.core.errors import SpecError
from fissura.core.tasks import task_named
from fissura.core.text import count
from fissura.metrics import AnyProtocol, Pixel


@dataclass(frozen=True)
class Terms:
    """Options of a batch: the scale of lengths, the pictures to keep, and the protocols that score masks
    (none: `pixel`)."""

    mm_per_pixel: float | None = None
    keep: tuple[Kind, ...] = ()
    protocols: tuple[AnyProtocol, ...] = ()


@dataclass(frozen=True, repr=False)
class BatchReport(Brief):
    """The outcome of a batch: its question, its counts, the failed images with their errors (once all have a
    row), the scores of labelled images, and the files that are left out because of their suffix."""

    out: Path
    question: Question
    result: BatchResult
    failures: tuple[tuple[str, str], ...] = ()
    scores: dict[str, Any] | None = None
    left_out: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """How many images have a row, which failed, by which run, and where the table is."""
        result, question = self.result, self.question
        failed = [f"  {image}: {error}" for image, error in self.failures[:3]]
        more = len(self.failures) - len(failed)
        return [
            f"{question.source}: {result.done} of {count(result.images, 'image')}, {result.failed} failed"
            + (f"; stopped: {result.stopped}" if result.stopped else ""),
            *failed,
            *([f"  and {more} more"] if more else []),
            f"run: {question.run}",
            f"table: {result.results or f'unfinished, in {self.out}'}",
        ]

    def rows(self) -> Sequence[dict[str, Any]]:
        """The rows of the table, one an image; none while it is unfinished."""
        return [] if self.result.results is None else list(read_rows(self.result.results).to_pylist())


def question_of(source: ImageSource, truth: Truth | None, terms: Terms, card: ModelCard) -> Question:
    """The question of a batch of a source's images.

    Raises:
        SpecError: the model's task does not fit the labels or the terms.
    """
    if truth is not None and card.task != truth.task:
        raise SpecError(
            f"{source.label}: its truth is for {truth.task}, and the model `{card.name or card.run}` does"
            f" {card.task}; name another model, or other images"
        )
    pictures = {*terms.keep}
    if not task_named(card.task).batch.has_maps:
        map_options = {
            "--mm-per-pixel": terms.mm_per_pixel,
            "--keep": terms.keep,
            "--protocol": terms.protocols,
        }
        model = card.name or card.run
        problems = [
            f"{option}: for a model that gives maps, and `{model}` does {card.task}; leave it out"
            for option, value in map_options.items()
            if value
        ]
        if problems:
            raise SpecError(*problems)
    elif truth is not None:
        pictures.add("probabilities")  # what is scored
    return Question(
        source=source.label,
        model=card.name,
        run=card.run,
        version=card.version,
        task=card.task,
        threshold=card.threshold,
        mm_per_pixel=terms.mm_per_pixel,
        pictures=tuple(kind for kind in KINDS if kind in pictures),
    )


def report_of(
    out: Path,
    question: Question,
    result: BatchResult,
    *,
    source: ImageSource,
    truth: Truth | None,
    terms: Terms,
    card: ModelCard,
) -> BatchReport:
    """The report of a batch that ended; with scores, once all images have a row and if they are labelled.

    Raises:
        DataError: a mask cannot be read, or does not fit its image.
    """
    if result.results is None:
        return BatchReport(out, question, result, left_out=source.left_out)
    scores = None
    if truth is not None:
        scores = evaluate(
            out,
            result.results,
            truth,
            names=source.names(),
            protocols=terms.protocols or (Pixel(),),
            card=card,
            facts={"data": source.label, **card.model_dump(include={"name", "version", "run"})},
        )
    return BatchReport(out, question, result, _failures(result.results), scores, source.left_out)


def _failures(results: Path) -> tuple[tuple[str, str], ...]:
    rows: Sequence[dict[str, Any]] = read_rows(results, columns=["image", "error"]).to_pylist()
    return tuple((row["image"], row["error"]) for row in rows if row["error"] is not None)
