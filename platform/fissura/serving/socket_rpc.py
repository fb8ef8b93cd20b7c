"""Images and replies over a Unix socket, between two processes of one machine.

A frame is a fixed head (`FRAME`: the number of the image, the bytes of JSON, the bytes of the body), the JSON
and the body. The client sends images with their query and timeout in seconds, or a number alone, which
cancels the image. The server sends replies in the order in which they are ready, and a number alone once a
cancelled image is no longer worked on.
"""

import asyncio
import contextlib
import json
import logging
import struct
from collections.abc import Awaitable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

from fissura.core.errors import UserError
from fissura.serving.problems import Problem, failed
from fissura.serving.query import ImageQuery
from fissura.serving.waiting import settled
from fissura.serving.worker import Reply

FRAME = struct.Struct("!QIQ")
BUFFER_BYTES = 2**22
MOST_JSON_BYTES = 2**24

CONNECTION_ERRORS = (OSError, asyncio.IncompleteReadError, ValueError, KeyError, TypeError, UserError)
"""Errors that end a connection: it closed, or received an invalid frame."""


class ImageHandler(Protocol):
    """Replies to the images of a connection."""

    def __call__(self, photograph: bytes, query: ImageQuery, *, seconds: float | None) -> Awaitable[Reply]:
        """The reply for one image."""
        ...


class SocketClient:
    """The client of a connection. It breaks when the other process ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._replies: dict[int, asyncio.Future[Reply | None]] = {}
        self._last = 0
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))

    @classmethod
    async def open(cls, path: Path) -> Self:
        """A connection to the process that listens at `path`.

        Raises:
            OSError: no process listens.
        """
        return cls(*await asyncio.open_unix_connection(path, limit=BUFFER_BYTES))

    @property
    def waiting(self) -> int:
        """Images without a reply that the other process has not dropped."""
        return len(self._replies)

    @property
    def broken(self) -> bool:
        """Whether the other process has ended."""
        return self._reading.done()

    async def answer(self, photograph: bytes, query: ImageQuery, *, seconds: float | None = None) -> Reply:
        """The reply for one image; times out after `seconds`. When cancelled, it cancels the image and
        returns once the other process has dropped it.

        Raises:
            ConnectionError: the other process has ended.
        """
        if self.broken:
            raise ConnectionError("the line is broken")
        self._last += 1
        number = self._last
        reply: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self._replies[number] = reply
        try:
            await _write(self._writer, number, {"asked": query.plain(), "seconds": seconds}, photograph)
            outcome = await asyncio.shield(reply)
            if outcome is None:
                raise ConnectionError("the replica let the image go")
            return outcome
        except asyncio.CancelledError:
            if not self.broken:
                self._writer.write(FRAME.pack(number, 0, 0))
            await settled(reply)
            raise
        finally:
            self._replies.pop(number, None)

    async def close(self) -> None:
        """Closes the connection."""
        self._writer.close()
        await asyncio.wait([self._reading])

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                number, head, picture = await _frame(reader)
                reply = self._replies.get(number)
                if reply is not None and not reply.done():
                    reply.set_result(None if head is None else _reply(head, picture))
        except CONNECTION_ERRORS:
            pass
        finally:
            self._writer.close()
            for reply in self._replies.values():
                if not reply.done():
                    reply.set_exception(ConnectionError("the replica ended"))


async def listen(path: Path, handler: ImageHandler) -> asyncio.Server:
    """Serves connections to `path`, which only this user may open.

    Cancels the images of a connection that closes or sends an invalid frame.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks: dict[int, asyncio.Task[None]] = {}

        async def answer(number: int, query: ImageQuery, seconds: float | None, photograph: bytes) -> None:
            reply = await _safe_reply(handler, photograph, query, seconds)
            with contextlib.suppress(OSError):
                await _write(writer, number, _head(reply), reply.picture or b"")

        def ended(number: int, task: asyncio.Task[None]) -> None:
            del tasks[number]
            if task.cancelled() and not writer.is_closing():
                writer.write(FRAME.pack(number, 0, 0))

        try:
            while True:
                number, head, photograph = await _frame(reader)
                if head is None:
                    if task := tasks.get(number):
                        task.cancel()
                    continue
                query, seconds = ImageQuery.load(head["asked"], source="question"), head["seconds"]
                work = answer(number, query, seconds, photograph)
                tasks[number] = asyncio.get_running_loop().create_task(work)
                tasks[number].add_done_callback(partial(ended, number))
        except CONNECTION_ERRORS:
            pass
        finally:
            for task in list(tasks.values()):
                task.cancel()
            writer.close()

    server = await asyncio.start_unix_server(serve, path, limit=BUFFER_BYTES)
    path.chmod(0o600)
    return server


async def _safe_reply(
    handler: ImageHandler, photograph: bytes, query: ImageQuery, seconds: float | None
) -> Reply:
    try:
        return await handler(photograph, query, seconds=seconds)
    except Exception:
        logging.getLogger(__name__).exception("an image was not answered")
        return Reply({}, problem=failed("its model failed on it"))


def _head(reply: Reply) -> dict[str, Any]:
    return {
        "result": reply.result,
        "media_type": reply.media_type,
        "problem": asdict(reply.problem) if reply.problem else None,
        "picture": reply.picture is not None,
    }


def _reply(head: dict[str, Any], picture: bytes) -> Reply:
    problem = Problem(**head["problem"]) if head["problem"] else None
    return Reply(head["result"], picture if head["picture"] else None, head["media_type"], problem)


async def _write(writer: asyncio.StreamWriter, number: int, head: dict[str, Any], body: bytes) -> None:
    plain = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    writer.writelines((FRAME.pack(number, len(plain), len(body)), plain, body))
    await writer.drain()


async def _frame(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any] | None, bytes]:
    """The next frame: its number, its JSON (None where it has none) and its bytes."""
    number, plain_bytes, body_bytes = FRAME.unpack(await reader.readexactly(FRAME.size))
    if plain_bytes > MOST_JSON_BYTES:
        raise ConnectionError(f"a frame holds at most {MOST_JSON_BYTES} bytes of JSON: {plain_bytes}")
    plain = await reader.readexactly(plain_bytes)
    return number, json.loads(plain) if plain else None, await reader.readexactly(body_bytes)
