"""A batch through an endpoint."""

import asyncio
from pathlib import Path

from fissura.batches.http import open_endpoint
from fissura.batches.report import BatchReport, Terms, question_of, report_of
from fissura.batches.run import OnImage, Retry, score_all
from fissura.batches.sink import Failed, open_sink
from fissura.batches.source import ImageSource
from fissura.batches.task_batch import Truth
from fissura.core.progress import Say, silent


async def through_endpoint(
    source: ImageSource,
    truth: Truth | None,
    terms: Terms,
    *,
    endpoint: str,
    model: str | None = None,
    out: Path,
    token: str | None = None,
    failed: Failed = "keep",
    concurrency: int = 8,
    retry: Retry | None = None,
    stop: asyncio.Event | None = None,
    on_image: OnImage | None = None,
    say: Say = silent,
) -> BatchReport:
    """Scores the images of `source` by the model of this name (None: the default one) at `endpoint` into the
    folder `out`, and where they are labelled, the model by them.

    Raises:
        UserError: the terms do not fit the model, the folder or the labels.
        FissuraError: no service answers, or its model changes during the batch.
        OSError: the results cannot be written.
    """
    source.check_apart(out)
    async with open_endpoint(endpoint, model=model, token=token, concurrency=concurrency) as service:
        question = question_of(source, truth, terms, service.card)
        with open_sink(out, question, source.names(), failed=failed, say=say) as sink:
            scorer = service.scorer(mm_per_pixel=question.mm_per_pixel, pictures=question.pictures)
            result = await score_all(
                source, scorer, sink, concurrency=concurrency, on_image=on_image, stop=stop, retry=retry
            )
            return await asyncio.to_thread(
                report_of, out, question, result, source=source, truth=truth, terms=terms, card=service.card
            )
