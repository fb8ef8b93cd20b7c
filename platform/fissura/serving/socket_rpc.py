"""Images and replies over a Unix socket, between two processes of one machine.

A frame is a fixed head (`FRAME`: the number of the image, bytes of JSON, bytes that follow it), the JSON and
the bytes. Out go images with what is asked of them, and within how many seconds, or a frame of a number
alone, which takes the image back; in come the replies, in the order in which they are ready, and a number
alone for an image that was taken back and is worked on no longer.
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
from fissura.serving.query import Asked
from fissura.serving.waiting import settled
from fissura.serving.worker import Reply

FRAME = struct.Struct("!QIQ")
BUFFER_BYTES = 2**22
MOST_JSON_BYTES = 2**24

ENDS = (OSError, asyncio.IncompleteReadError, ValueError, KeyError, TypeError, UserError)
"""What a line ends with: its end, or what is no frame."""


class Answers(Protocol):
    """What answers at the other end."""

    def __call__(self, photograph: bytes, asked: Asked, *, seconds: float | None) -> Awaitable[Reply]:
        """The reply for one image."""
        ...


class Line:
    """One end of a connection: asks for answers. Breaks when the other process ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._asked: dict[int, asyncio.Future[Reply | None]] = {}
        self._last = 0
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))

    @classmethod
    async def open(cls, path: Path) -> Self:
        """A connection to the process that listens at `path`.

        Raises:
            OSError: none does.
        """
        return cls(*await asyncio.open_unix_connection(path, limit=BUFFER_BYTES))

    @property
    def waiting(self) -> int:
        """Images that have no reply yet, and that the other process has not let go."""
        return len(self._asked)

    @property
    def broken(self) -> bool:
        """Whether the other process has gone."""
        return self._reading.done()

    async def answer(self, photograph: bytes, asked: Asked, *, seconds: float | None = None) -> Reply:
        """The reply for one image, which is given up after `seconds`. Where its caller is cancelled the image
        is taken back, and it ends when the other process has let it go.

        Raises:
            ConnectionError: the other process has gone.
        """
        if self.broken:
            raise ConnectionError("the line is broken")
        self._last += 1
        number = self._last
        reply: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self._asked[number] = reply
        try:
            await _write(self._writer, number, {"asked": asked.plain(), "seconds": seconds}, photograph)
            found = await asyncio.shield(reply)
            if found is None:
                raise ConnectionError("the replica let the image go")
            return found
        except asyncio.CancelledError:
            if not self.broken:
                self._writer.write(FRAME.pack(number, 0, 0))
            await settled(reply)
            raise
        finally:
            self._asked.pop(number, None)

    async def close(self) -> None:
        """Hangs up."""
        self._writer.close()
        await asyncio.wait([self._reading])

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                number, head, picture = await _frame(reader)
                reply = self._asked.get(number)
                if reply is not None and not reply.done():
                    reply.set_result(None if head is None else _reply(head, picture))
        except ENDS:
            pass
        finally:
            self._writer.close()
            for reply in self._asked.values():
                if not reply.done():
                    reply.set_exception(ConnectionError("the replica ended"))


async def listen(path: Path, answers: Answers) -> asyncio.Server:
    """Answers whoever opens a line to `path`, which none but this user may.

    What is being answered when the other end hangs up, or sends what is no frame, is dropped.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks: dict[int, asyncio.Task[None]] = {}

        async def answer(number: int, asked: Asked, seconds: float | None, photograph: bytes) -> None:
            reply = await _answered(answers, photograph, asked, seconds)
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
                asked, seconds = Asked.load(head["asked"], source="question"), head["seconds"]
                work = answer(number, asked, seconds, photograph)
                tasks[number] = asyncio.get_running_loop().create_task(work)
                tasks[number].add_done_callback(partial(ended, number))
        except ENDS:
            pass
        finally:
            for task in list(tasks.values()):
                task.cancel()
            writer.close()

    server = await asyncio.start_unix_server(serve, path, limit=BUFFER_BYTES)
    path.chmod(0o600)
    return server


async def _answered(answers: Answers, photograph: bytes, asked: Asked, seconds: float | None) -> Reply:
    try:
        return await answers(photograph, asked, seconds=seconds)
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
