"""A batch through an endpoint, from the question to the scores."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fissura.batch.evaluation import Labels, Masks, Truth, evaluate
from fissura.batch.http import ModelCard, open_endpoint
from fissura.batch.pictures import KINDS, Kind
from fissura.batch.rows import read_rows
from fissura.batch.run import BatchResult, OnImage, Retry, score_all
from fissura.batch.sink import Failed, Question, open_sink
from fissura.batch.source import Source
from fissura.core.errors import SpecError
from fissura.metrics import AnyProtocol, Pixel


@dataclass(frozen=True)
class Asked:
    """What is asked of an endpoint: its address, the model's name (None: its default), the scale of lengths,
    the pictures to keep, and under which protocols masks are scored (none: `pixel`)."""

    endpoint: str
    model: str | None = None
    mm_per_pixel: float | None = None
    keep: tuple[Kind, ...] = ()
    protocols: tuple[AnyProtocol, ...] = ()


@dataclass(frozen=True)
class BatchReport:
    """A batch as it ended: what was asked, the counts, the images that failed with their errors (where all
    have a row), and the scores where the images are labelled."""

    out: Path
    question: Question
    result: BatchResult
    failures: tuple[tuple[str, str], ...] = ()
    scores: dict[str, Any] | None = None


async def through_endpoint(
    source: Source,
    truth: Truth | None,
    asked: Asked,
    *,
    out: Path,
    token: str | None = None,
    failed: Failed = "keep",
    concurrency: int = 8,
    retry: Retry | None = None,
    stop: asyncio.Event | None = None,
    on_image: OnImage | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> BatchReport:
    """Scores the images of `source` into the folder `out`, and where they are labelled, the model by them.

    Raises:
        UserError: what was asked does not fit the model, the folder or the labels.
        FissuraError: no service answers, or another model does in the middle of the batch.
        OSError: the results cannot be written.
    """
    source.check_apart(out)
    async with open_endpoint(
        asked.endpoint, model=asked.model, token=token, concurrency=concurrency
    ) as endpoint:
        question, names = _question(source, truth, asked, endpoint.card), source.names()
        with open_sink(out, question, names, failed=failed, say=say) as sink:
            scorer = endpoint.scorer(mm_per_pixel=question.mm_per_pixel, pictures=question.pictures)
            result = await score_all(
                source, scorer, sink, concurrency=concurrency, on_image=on_image, stop=stop, retry=retry
            )
            if result.results is None:
                return BatchReport(out, question, result)
            scores = None
            if truth is not None:
                scores = await asyncio.to_thread(
                    evaluate,
                    out,
                    result.results,
                    truth,
                    names=names,
                    protocols=asked.protocols or (Pixel(),),
                    threshold=question.threshold,
                    classes=endpoint.card.classes,
                    facts={
                        "data": source.label,
                        **endpoint.card.model_dump(include={"name", "version", "run"}),
                    },
                )
            return BatchReport(out, question, result, _failures(result.results), scores)


def _question(source: Source, truth: Truth | None, asked: Asked, card: ModelCard) -> Question:
    needed = {Masks: "segmentation", Labels: "classification"}.get(type(truth), card.task)
    if card.task != needed:
        raise SpecError(
            f"{source.label}: its truth is for {needed}, and the model `{card.name}` does {card.task}; name"
            " another --model, or other images"
        )
    pictures = {*asked.keep}
    if card.task == "classification":
        wrong = {"--mm-per-pixel": asked.mm_per_pixel, "--keep": asked.keep, "--protocol": asked.protocols}
        problems = [
            f"{option}: for a segmentation, and the model `{card.name}` classifies; leave it out"
            for option, value in wrong.items()
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
        mm_per_pixel=asked.mm_per_pixel,
        pictures=tuple(kind for kind in KINDS if kind in pictures),
    )


def _failures(results: Path) -> tuple[tuple[str, str], ...]:
    rows: Sequence[dict[str, Any]] = read_rows(results, columns=["image", "error"]).to_pylist()
    return tuple((row["image"], row["error"]) for row in rows if row["error"] is not None)
