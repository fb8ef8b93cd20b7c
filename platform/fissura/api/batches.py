"""The verb `batch`, as a function: scores images through an endpoint, or by a run on Ray."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fissura.api.arguments import AnyPath, Words, maybe_path, path_of, words_of
from fissura.core.errors import SpecError
from fissura.core.progress import Say, silent
from fissura.data.sample import Split

if TYPE_CHECKING:
    from fissura.batches.report import BatchReport, Terms
    from fissura.batches.source import ImageSource
    from fissura.batches.task_batch import Truth
    from fissura.data.datasets import Named

T = TypeVar("T")


def batch(
    images: "Named",
    *,
    out: AnyPath,
    endpoint: str | None = None,
    run: AnyPath | None = None,
    masks: AnyPath | None = None,
    split: Split | None = None,
    protocols: Words = (),
    model: str | None = None,
    mm_per_pixel: float | None = None,
    keep: Words = (),
    failed: Literal["keep", "retry"] = "keep",
    concurrency: int = 8,
    token_file: AnyPath | None = None,
    workers: int | None = None,
    gpus_per_worker: float = 0.0,
    address: str | None = None,
    cache: AnyPath | None = None,
    say: Say = silent,
    on_image: Callable[[int, int], None] | None = None,
) -> "BatchReport":
    """Scores images through the service at `endpoint`, or by `run` in a Ray Data job, into the folder `out`,
    one row for each image.

    `images` is a folder, a file, a URL such as `s3://bucket/prefix`, or a data set (`KIND:ROOT`, or its
    object). A data set's `split` (by default "test") is evaluated against its masks or labels. A folder is
    evaluated against `masks`, a folder of masks with the images' names, under the `protocols` (by default
    `pixel`) at the model's own threshold. `keep` names pictures: "masks", "probabilities", "overlays". A
    batch begun in `out` resumes; `failed` says whether failed images are retried. The first SIGINT or
    SIGTERM ends the batch; its rows stay.

    With an endpoint, `model` is the name of a hosted model, `concurrency` the number of images in flight; the
    token is in `token_file`, or in the variable FISSURA_TOKEN. With a run, `workers` (by default one for each
    CPU or GPU share) run on the cluster at `address`, or on a local Ray.
    """
    from fissura.batches.client import through_endpoint
    from fissura.batches.pictures import parse_kinds
    from fissura.batches.report import Terms
    from fissura.metrics import parse_protocol
    from fissura.serving.tokens import read_token

    if (endpoint is None) == (run is None):
        raise SpecError("name a service by --endpoint URL, or a run by --run RUN, and not both")
    parsed_protocols = tuple(parse_protocol(text) for text in dict.fromkeys(words_of(protocols)))
    folder = path_of(out)
    source, truth = _open_images(images, masks=maybe_path(masks), split=split, cache=maybe_path(cache))
    if truth is None and parsed_protocols:
        raise SpecError(
            "--protocol: scores need masks; give --masks, or a data set KIND:ROOT in place of a folder"
        )
    terms = Terms(mm_per_pixel, parse_kinds(words_of(keep)), parsed_protocols)
    if run is not None:
        return _by_run(
            source, truth, terms, run=path_of(run).resolve(), out=folder, failed=failed,
            workers=workers, gpus_per_worker=gpus_per_worker, address=address, say=say, on_image=on_image,
        )  # fmt: skip
    url, token = str(endpoint), read_token(maybe_path(token_file))

    async def start(stop: asyncio.Event) -> "BatchReport":
        return await through_endpoint(
            source,
            truth,
            terms,
            endpoint=url,
            model=model,
            out=folder,
            token=token,
            failed=failed,
            concurrency=concurrency,
            stop=stop,
            on_image=on_image,
            say=say,
        )

    return _run(start)


def _by_run(
    source: "ImageSource",
    truth: "Truth | None",
    terms: "Terms",
    *,
    run: Path,
    out: Path,
    failed: Literal["keep", "retry"],
    workers: int | None,
    gpus_per_worker: float,
    address: str | None,
    say: Say,
    on_image: Callable[[int, int], None] | None,
) -> "BatchReport":
    from fissura.distributed.environment import check_temporary_folder, prepare_environment

    check_temporary_folder(address)
    prepare_environment(address)
    from fissura.distributed.batch import run_batch

    return run_batch(
        source, truth, terms, run=run, out=out, failed=failed, workers=workers,
        gpus_per_worker=gpus_per_worker, address=address, say=say, on_image=on_image or (lambda *_: None),
    )  # fmt: skip


def _open_images(
    images: "Named", *, masks: Path | None, split: Split | None, cache: Path | None
) -> "tuple[ImageSource, Truth | None]":
    from fissura.batches.evaluation import names_a_data_set, open_test_set
    from fissura.batches.source import ImageSource
    from fissura.data.cache import default_cache

    if names_a_data_set(str(images)):
        if masks is not None:
            raise SpecError(f"--masks {masks}: {images} has labels of its own; leave it out")
        return open_test_set(images, split=split or "test", directory=cache or default_cache())
    if split is not None:
        raise SpecError(
            f"--split {split}: a folder has no splits; name a data set, KIND:ROOT, or leave it out"
        )
    source = ImageSource.open(str(images))
    if masks is None:
        return source, None
    from fissura.tasks.segmentation.batch import masks_in

    return source, masks_in(masks, source)


def _run(start: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
    async def main() -> T:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        on_main_thread = threading.current_thread() is threading.main_thread()

        def request_stop() -> None:
            stop.set()
            for number in signals:  # a second signal interrupts at once
                loop.remove_signal_handler(number)

        for number in signals if on_main_thread else ():
            loop.add_signal_handler(number, request_stop)
        return await start(stop)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    with ThreadPoolExecutor(1) as thread:  # this thread already runs a notebook's event loop
        return thread.submit(lambda: asyncio.run(main())).result()
