"""From an admitted request to its response: each image to the host, the replies into one document."""

import asyncio
import io
import json
import logging
import zipfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Receive

from fissura.core.errors import DataError
from fissura.core.tasks import task_named
from fissura.data.photograph import read_header
from fissura.serving.body import Upload
from fissura.serving.gate import Gate
from fissura.serving.hosting import Host, Hosted
from fissura.serving.limits import Limits
from fissura.serving.problems import Problem, Refused, failed, problem_response, too_slow, unreadable
from fissura.serving.query import ImageQuery
from fissura.serving.telemetry import Telemetry
from fissura.serving.worker import Reply

Result = TypeVar("Result")
RESULT_HEADER = "Fissura-Result"
GRACE_SECONDS = 1.0  # so that a request times out here first; the replica's own timeout is for a lost process
SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg"}


class Answering:
    """Scores the images of requests within the limits; a process has one."""

    def __init__(self, host: Host, *, limits: Limits, gate: Gate, telemetry: Telemetry) -> None:
        self._host, self._limits, self._gate, self._telemetry = host, limits, gate, telemetry
        self._work: set[asyncio.Task[list[Reply]]] = set()

    async def replies(self, model: Hosted, uploads: Sequence[Upload], query: ImageQuery) -> list[Reply]:
        """The reply for each image, in order; a reply holds its image's error.

        Raises:
            Refused: the queue is full, or the request timed out.
        """
        end = asyncio.get_running_loop().time() + self._limits.seconds
        async with in_time(self._limits):
            # in a thread, since some headers take seconds
            sizes = [await asyncio.to_thread(self._pixels, upload) for upload in uploads]
            work = asyncio.create_task(self._worked(model, uploads, sizes, query, end=end))
            self._work.add(work)
            work.add_done_callback(self._ended)
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                # the caller is gone; the gate counts the images until the host has dropped them
                work.cancel()
                raise

    async def _worked(
        self,
        model: Hosted,
        uploads: Sequence[Upload],
        sizes: Sequence[int | Problem],
        query: ImageQuery,
        *,
        end: float,
    ) -> list[Reply]:
        """The replies. When cancelled, it returns once the host works on none of the images."""
        with self._gate.admitted([size for size in sizes if isinstance(size, int)]) as answered:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._reply(model, upload, size, query, answered, end=end))
                    for upload, size in zip(uploads, sizes, strict=True)
                ]
        return [task.result() for task in tasks]

    def _ended(self, work: "asyncio.Task[list[Reply]]") -> None:
        self._work.discard(work)
        if not work.cancelled():
            work.exception()  # retrieved, so that asyncio does not log it

    def _pixels(self, upload: Upload) -> int | Problem:
        """The number of pixels according to the image's header, or the problem with it."""
        try:
            height, width = read_header(upload.data)
        except DataError as error:
            return unreadable(error.problems[0])
        if height * width > self._limits.pixels:
            return Problem(
                "too-large",
                f"an image has at most {self._limits.pixels} pixels",
                f"this one has {width}x{height}",
                "cut it into tiles, or start the service with a higher --max-pixels",
            )
        return height * width

    async def _reply(
        self,
        model: Hosted,
        upload: Upload,
        size: int | Problem,
        query: ImageQuery,
        answered: Callable[[int], None],
        *,
        end: float,
    ) -> Reply:
        if isinstance(size, Problem):
            reply = Reply({}, problem=size)
        else:
            left = end - asyncio.get_running_loop().time() + GRACE_SECONDS
            try:
                reply = await self._host.answer(model, upload.data, query, seconds=left)
            except Refused as refused:
                reply = Reply({}, problem=refused.problem)
            except Exception:
                logging.getLogger(__name__).exception("an image was not answered")
                reply = Reply({}, problem=failed("the service failed on it"))
            if reply.problem is None:
                answered(size)
                self._telemetry.pixels.labels(model.name).inc(size)
                self._telemetry.replica_seconds.labels(model.name, reply.result["version"]).observe(
                    reply.result["seconds"]
                )
        outcome = reply.problem.kind if reply.problem else "answered"
        self._telemetry.images.labels(model.name, outcome).inc()
        return reply


@asynccontextmanager
async def in_time(limits: Limits) -> AsyncIterator[None]:
    """Limits the time of the block to that of a request.

    Raises:
        Refused: the block timed out, and was cancelled.
    """
    try:
        async with asyncio.timeout(limits.seconds):
            yield
    except TimeoutError:
        raise Refused(too_slow(limits.seconds)) from None


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled if the client disconnects; the body has been received.

    Raises:
        ClientDisconnect: the client disconnected.
    """

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    response_task, disconnect_task = asyncio.create_task(work), asyncio.create_task(disconnected())
    try:
        await asyncio.wait((response_task, disconnect_task), return_when=asyncio.FIRST_COMPLETED)
        if not response_task.done():
            raise ClientDisconnect
        return response_task.result()
    finally:
        response_task.cancel()
        disconnect_task.cancel()


def single(upload: Upload, reply: Reply) -> Response:
    """The response for one image."""
    if reply.problem:
        return problem_response(reply.problem)
    result = result_of(upload, reply)
    if reply.picture is None:
        return JSONResponse(result)
    brief = task_named(result["task"]).service.brief(result)
    header = json.dumps(brief, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Response(reply.picture, media_type=reply.media_type, headers={RESULT_HEADER: header})


def batch(uploads: Sequence[Upload], replies: Sequence[Reply], query: ImageQuery) -> Response:
    """The response for several images: a document, or a zip of the document and the pictures."""
    document = {"results": [_batch_entry(*pair) for pair in zip(uploads, replies, strict=True)]}
    if query.form == "json":
        return JSONResponse(document)
    archive_bytes = io.BytesIO()
    # pictures are already compressed
    with zipfile.ZipFile(archive_bytes, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("results.json", json.dumps(document, indent=2, allow_nan=False))
        for index, (upload, reply) in enumerate(zip(uploads, replies, strict=True)):
            if reply.picture is not None:
                stem = PurePosixPath((upload.name or "").replace("\\", "/")).stem or "image"
                safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in stem)[:100]
                archive.writestr(f"{index:05d}-{safe}{SUFFIX[reply.media_type]}", reply.picture)
    return Response(archive_bytes.getvalue(), media_type="application/zip")


def result_of(upload: Upload, reply: Reply) -> dict[str, Any]:
    """The result of an image, under the client's name for it."""
    return {**reply.result, "image": {**reply.result["image"], "name": upload.name}}


def _batch_entry(upload: Upload, reply: Reply) -> dict[str, Any]:
    if reply.problem:
        return {"image": {"name": upload.name}, "problem": reply.problem.plain()}
    return result_of(upload, reply)
