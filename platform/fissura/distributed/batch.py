"""Scores millions of images without HTTP: a Ray Data job with the service's own predictor.

Workers read the images at their source; one process receives rows and pictures and writes the results.
"""

import asyncio
import json
import logging
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
from pydantic import Field
from ray.exceptions import RayError

from fissura.batches.pictures import Kind, draw_from
from fissura.batches.report import BatchReport, Terms, question_of, report_of
from fissura.batches.run import BatchResult
from fissura.batches.scorer import ModelCard, Result, Scored
from fissura.batches.sink import Failed, Sink, open_sink
from fissura.batches.source import ImageSource
from fissura.batches.task_batch import Truth
from fissura.core.errors import DataError, FissuraError
from fissura.core.progress import Say
from fissura.core.spec import Spec
from fissura.deploy.model import open_model
from fissura.distributed.batch_progress import Board, Standstill, progress_reports, watched
from fissura.distributed.cluster import connected
from fissura.distributed.stopping import StopFile, stops_on_signals
from fissura.serving.limits import Limits
from fissura.serving.query import ImageQuery
from fissura.serving.worker import Worker
from fissura.training.runtime import LocalRuntime, pick_device

IMAGES_A_BLOCK = 16
DIED = "each process that scored it ended at once; look at the image, and at the memory of the nodes"
Progress = Callable[[int, int], None]


class Scoring(Spec):
    """What each worker needs: the run, the query, and the worker's share of a node."""

    run: Path
    threshold: float | None = Field(None, ge=0, le=1)
    mm_per_pixel: float | None = Field(None, gt=0)
    pictures: tuple[Kind, ...] = ()
    cpus: int = Field(1, ge=1)
    gpus: float = Field(0.0, ge=0)


class ScoringWorker:
    """An actor of the job: applies the model of a run to blocks of image names."""

    def __init__(self, source: ImageSource, plain: dict[str, Any], board: Any) -> None:
        self._source, self._scoring = source, Scoring.load(plain, source="batch")
        runtime = LocalRuntime(device="auto" if self._scoring.gpus else "cpu", cpus=self._scoring.cpus)
        model = open_model(self._scoring.run, device=runtime.device, threshold=self._scoring.threshold)
        model = watched(model, worker=secrets.randbits(48), tell=board.write.remote)
        self._worker = Worker(model, Limits())
        # for a model without maps, pictures and a scale were refused before
        form, scale = "probability" if self._scoring.pictures else "json", self._scoring.mm_per_pixel
        self._query = ImageQuery.load({"form": form, "mm_per_pixel": scale}, source="batch")

    def __call__(self, block: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rows `name`, `document` (JSON: the `result` or the `error` of an image), and a column of bytes for
        each kind of picture."""
        outcomes = asyncio.run(self._score_all([str(name) for name in block["name"]]))
        columns: dict[str, Any] = {
            "name": [name for name, _, _ in outcomes],
            "document": [json.dumps(document) for _, document, _ in outcomes],
        }
        for kind in self._scoring.pictures:
            columns[kind] = [pictures.get(kind, b"") for _, _, pictures in outcomes]
        return {name: np.array(values, dtype=object) for name, values in columns.items()}

    async def _score_all(self, names: Sequence[str]) -> list[tuple[str, dict[str, Any], dict[Kind, bytes]]]:
        # reads and decodes an image while another goes through the network
        slots = asyncio.Semaphore(4)

        async def named_score(name: str) -> tuple[str, dict[str, Any], dict[Kind, bytes]]:
            async with slots:
                return name, *await self._score(name)

        return list(await asyncio.gather(*map(named_score, names)))

    async def _score(self, name: str) -> tuple[dict[str, Any], dict[Kind, bytes]]:
        try:
            photograph = await asyncio.to_thread(self._source.read, name)
        except DataError as error:
            return {"error": str(error)}, {}
        reply = await self._worker.answer(photograph, self._query)
        if reply.problem is not None:
            problem = reply.problem
            return {"error": f"{problem.title}: {problem.detail}; {problem.remedy}"}, {}
        if reply.picture is None:
            return {"result": reply.result}, {}
        threshold = float(reply.result["threshold"])
        try:
            return {"result": reply.result}, await asyncio.to_thread(
                draw_from, photograph, reply.picture, threshold=threshold, kinds=self._scoring.pictures
            )
        except DataError as error:
            return {"error": str(error)}, {}


def run_batch(
    source: ImageSource,
    truth: Truth | None,
    terms: Terms,
    *,
    run: Path,
    out: Path,
    failed: Failed,
    workers: int | None,
    gpus_per_worker: float,
    address: str | None,
    say: Say,
    on_image: Progress,
) -> BatchReport:
    """Scores the images of `source` by a run into the folder `out`, and evaluates the run if they have
    labels; on a local Ray, or on the cluster at `address`. SIGINT or SIGTERM ends it; its rows stay.

    Raises:
        UserError: the request does not fit the run, the folder or the labels.
        FissuraError: no image could be scored at all.
    """
    source.check_apart(out)
    model = open_model(run, device=pick_device("cpu"))
    card = ModelCard.model_validate(model.card)
    question = question_of(source, truth, terms, card)
    scoring = Scoring(
        run=run, mm_per_pixel=question.mm_per_pixel, pictures=question.pictures, gpus=gpus_per_worker
    )
    names = source.names()
    with open_sink(out, question, names, failed=failed, say=say) as sink:
        stop = StopFile(out)
        stop.clear()
        with connected(address, say=say) as resources, stops_on_signals(stop):
            capacity = int(resources.gpus / gpus_per_worker) if gpus_per_worker else resources.cpus
            score_on_cluster(
                source,
                sink,
                scoring,
                workers=workers or capacity,
                say=say,
                on_image=on_image,
                stop_requested=stop.requested,
            )
        stopped = "a stop was asked for" if stop.requested() else None
        stop.clear()
        complete = all(name in sink.done for name in names)
        result = BatchResult(
            images=len(names),
            done=sum(name in sink.done for name in names),
            failed=sum(name in sink.failed for name in names),
            stopped=None if complete else stopped,
            results=sink.finish() if complete else None,
        )
        return report_of(out, question, result, source=source, truth=truth, terms=terms, card=card)


def score_on_cluster(
    source: ImageSource,
    sink: Sink,
    scoring: Scoring,
    *,
    workers: int,
    say: Say,
    on_image: Progress,
    stop_requested: Callable[[], bool],
) -> None:
    """Scores the images without a row with at most `workers` workers, until all have one, or a stop.

    A block whose worker dies is lost; its images are retried one by one, so that an image that crashes its
    process fails alone. If no image finishes for a while, reports the progress within images through `say`.

    Raises:
        FissuraError: no image could be scored at all.
    """
    names = source.names()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    board = ray.remote(num_cpus=0)(Board).remote()
    on_image(len(sink.done & set(names)), len(names))
    for images_a_block in (IMAGES_A_BLOCK, 1):
        remaining = [name for name in names if name not in sink.done]
        if not remaining or stop_requested():
            return
        done_before = len(sink.done)
        with progress_reports(board, Standstill(say, len(names)), lambda: len(sink.done)):
            failure = _score_once(
                source, sink, scoring, board, remaining, images_a_block, workers,
                on_image=on_image, stop=stop_requested,
            )  # fmt: skip
        if failure is not None and len(sink.done) == done_before:
            raise FissuraError(f"no image could be scored: {failure}") from None
    if not stop_requested():
        for name in names:
            if name not in sink.done:
                sink.fail(name, f"{name}: {DIED}")
        on_image(len(names), len(names))


def _task_options() -> dict[str, Any]:
    # an image that crashes its process would crash every retry
    return {"max_task_retries": 0}


def _score_once(
    source: ImageSource,
    sink: Sink,
    scoring: Scoring,
    board: Any,
    remaining: Sequence[str],
    images_a_block: int,
    workers: int,
    *,
    on_image: Progress,
    stop: Callable[[], bool],
) -> str | None:
    """Scores the images once; returns the error of the job itself, if any."""
    blocks = -(-len(remaining) // images_a_block)
    data = ray.data.from_items([{"name": name} for name in remaining], override_num_blocks=blocks)
    with warnings.catch_warnings():
        # the argument is deprecated, but its replacement does not exist yet
        warnings.simplefilter("ignore", DeprecationWarning)
        scored = data.map_batches(
            ScoringWorker,
            fn_constructor_args=(source, scoring.plain(), board),
            batch_size=None,
            batch_format="numpy",
            concurrency=(1, max(1, min(workers, blocks))),
            num_cpus=scoring.cpus,
            num_gpus=scoring.gpus,
            ray_remote_args_fn=_task_options,
        )
    total = len(source.names())
    try:
        for block in scored.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            for row, name in enumerate(block["name"]):
                document = json.loads(block["document"][row])
                if "error" in document:
                    sink.fail(str(name), document["error"])
                else:
                    pictures = {kind: bytes(block[kind][row]) for kind in scoring.pictures}
                    sink.add(str(name), Scored(Result.of(document["result"]), pictures))
            on_image(len(sink.done), total)
            if stop():
                return None
    except RayError as error:
        return " ".join(str(error).split())[:500]
    finally:
        sink.flush()
    return None
