"""Reads the images of a request's body within the limits."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple
from urllib.parse import quote

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message, Receive

from fissura.serving.limits import Limits
from fissura.serving.parameters import parameters, shown, unknown
from fissura.serving.problems import Problem, Refused, stood_still, too_slow

IMAGE_TYPES = ("image/jpeg", "image/png", "image/tiff", "image/bmp", "image/webp", "image/gif")
RAW_TYPES = (*IMAGE_TYPES, "application/octet-stream")
OTHER_NAMES = frozenset(
    {
        "binary/octet-stream", "application/x-binary", "image/jpg", "image/pjpeg", "image/jfif",
        "image/x-png", "image/apng", "image/tif", "image/x-tif", "image/x-tiff", "image/x-bmp",
        "image/x-ms-bmp", "image/x-windows-bmp", "image/x-webp", "image/heic", "image/heif", "image/avif",
        "image/x-adobe-dng",
    }
)  # fmt: skip
"""Other media types that programs send for images; the format is read from the bytes."""
FIELD = "images"
MOST_NAME = 255
MOST_FIELDS = 32
FIELD_BYTES = 64  # kept of a field that is not a file, for the error message


class Upload(NamedTuple):
    """One image as sent: the client's name for it, if any, and its bytes."""

    name: str | None
    data: bytes


def claimed_length(headers: Headers, *, most: int) -> int:
    """The Content-Length of a request in bytes; 0 if it has none.

    Raises:
        Refused: it exceeds `most`.
    """
    text = headers.get("content-length", "")
    # Content-Length does not count for a chunked body
    if "transfer-encoding" in headers or not (text.isascii() and text.isdigit()):
        return 0
    if len(text) > 19 or int(text) > most:
        raise _too_large(f"{text[:30]} bytes", most)
    return int(text)


def bounded(receive: Receive, *, most: int, limits: Limits) -> Receive:
    """Wraps `receive`: raises Refused if the body exceeds `most` bytes, pauses for longer than
    `limits.idle_seconds`, or takes longer than `limits.seconds`."""
    received, whole, end = 0, False, 0.0

    async def receive_some() -> Message:
        nonlocal received, whole, end
        if whole:  # the next message is the client's disconnect
            return await receive()
        now = asyncio.get_running_loop().time()
        end, idle_end = end or now + limits.seconds, now + limits.idle_seconds
        try:
            async with asyncio.timeout_at(min(idle_end, end)):
                message = await receive()
        except TimeoutError:
            late = end <= idle_end
            raise Refused(too_slow(limits.seconds) if late else stood_still(limits.idle_seconds)) from None
        received += len(message.get("body", b""))
        if received > most:
            raise _too_large("more", most)
        whole = not message.get("more_body")
        return message

    return receive_some


def counted(receive: Receive, arrived: Callable[[int], None]) -> Receive:
    """Wraps `receive`: passes the size of each chunk to `arrived`."""

    async def receive_some() -> Message:
        message = await receive()
        arrived(len(message.get("body", b"")))
        return message

    return receive_some


async def read_images(request: Request, limits: Limits) -> tuple[list[Upload], bool]:
    """The images of a request, and whether it is a batch.

    Raises:
        Refused: the body is too large, has an unsupported media type, or holds no image or too many.
    """
    media = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if media in RAW_TYPES or media in OTHER_NAMES:
        return [Upload(None, await request.body())], False
    if media == "multipart/form-data":
        return await _parts(request, limits), True
    raise Refused(
        Problem(
            "not-an-image-type",
            f"a body is an image ({', '.join(IMAGE_TYPES)}, application/octet-stream) or multipart/form-data",
            f"Content-Type is {media[:100]!r}",
            "send the file's bytes with its type, as curl does with -H 'Content-Type: image/jpeg'",
        )
    )


class _BatchParser(MultiPartParser):
    """Records whether the last boundary arrived: without it the last image may be truncated or missing. Keeps
    only the beginning of a field that is not a file."""

    whole = False

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            end = min(end, start + FIELD_BYTES - len(self._current_part.data))
        if end > start:
            super().on_part_data(data, start, end)

    def on_end(self) -> None:
        self.whole = True


async def _parts(request: Request, limits: Limits) -> list[Upload]:
    async def whole() -> AsyncGenerator[bytes, None]:
        async for chunk in request.stream():
            yield chunk
        if not parser.whole:
            # raised here, so that the parser closes its unfinished files
            raise _no_batch("its last boundary is missing", limits)

    parser = _BatchParser(request.headers, whole(), max_files=limits.images, max_fields=MOST_FIELDS)
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError) as error:
        raise _no_batch(" ".join(str(getattr(error, "message", error)).split())[:200], limits) from None
    try:
        _check_parts(request, form.multi_items())
        uploads = [await _upload(part) for _, part in form.multi_items() if isinstance(part, UploadFile)]
    finally:
        await form.close()
    if not uploads:
        raise _no_batch("this one holds none", limits)
    return uploads


def _no_batch(reason: str, limits: Limits) -> Refused:
    many = "Too many files" in reason
    return Refused(
        Problem(
            "too-large" if many else "malformed",
            f"a batch is multipart/form-data of 1 to {limits.images} files called `{FIELD}`",
            reason,
            "send fewer at a time" if many else f"send each file as a part called `{FIELD}`",
        )
    )


def _check_parts(request: Request, parts: list[tuple[str, UploadFile | str]]) -> None:
    """Looks whether each part is an image.

    Raises:
        Refused: one is called otherwise, or is no file.
    """
    options, problems, query = parameters(request), [], []
    for named, part in parts:
        name = _as_text(named)
        if name == FIELD and isinstance(part, str):
            problems.append(
                f"`{FIELD}` is text, not a file: send the file itself (`curl -F {FIELD}=@wall.jpg`)"
            )
        elif name in options:
            problems.append(f"`{name}` is an option, and options go into the query")
            query.append(f"{name}={quote(_as_text(part)) if isinstance(part, str) else '...'}")
        elif name != FIELD:
            problems.append(unknown(name, (FIELD, *options)))
    if problems:
        path = request.scope["path"][:200]
        example = f"{path}?{'&'.join(query)}" if query else "see /openapi.json"
        rule = f"a part of a batch is a file called `{FIELD}`"
        if options:
            rule += f", and the options ({', '.join(options)}) are in the query"
        remedy = f"call each file `{FIELD}`, and leave the others out or put them into the query: {example}"
        raise Refused(Problem("invalid-value", rule, shown(problems), remedy))


async def _upload(part: UploadFile) -> Upload:
    return Upload(_as_text((part.filename or "")[-MOST_NAME:]) or None, await part.read())


def _as_text(decoded: str) -> str:
    """The text without surrogates, which the client's charset may have produced."""
    return decoded.encode(errors="replace").decode()


def _too_large(size: str, most: int) -> Refused:
    return Refused(
        Problem(
            "too-large",
            f"a body has at most {most} bytes here",
            f"this one has {size}",
            "send less at a time; for images --max-body-mb of the service sets the bound",
        )
    )
