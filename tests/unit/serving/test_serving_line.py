"""Replies over a line are those of the worker, each to its own image, whatever becomes of the others."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fissura.distributed.serving.sockets import Lines, line_path
from fissura.serving.problems import unreadable
from fissura.serving.query import ImageQuery
from fissura.serving.socket_rpc import FRAME, ImageHandler, SocketClient, listen
from fissura.serving.worker import Reply


async def echo(photograph: bytes, asked: ImageQuery, *, seconds: float | None = None) -> Reply:
    if photograph == b"bad":
        return Reply({}, problem=unreadable("it is no image; send another"))
    if photograph == b"bug":
        raise ValueError("a bug")
    await asyncio.sleep(0.001 * (len(photograph) % 7))
    return Reply({"bytes": len(photograph), "asked": asked.plain()}, photograph[::-1], "image/png")


def over_a_line(folder: Path, answers: ImageHandler, use: Callable[[SocketClient], Awaitable[None]]) -> None:
    async def main() -> None:
        server = await listen(folder / "line", answers)
        line = await SocketClient.open(folder / "line")
        async with asyncio.timeout(30):
            await use(line)
        await line.close()
        server.close()

    asyncio.run(main())


def test_a_reply_is_whole_and_is_its_own_images(tmp_path: Path) -> None:
    async def use(line: SocketClient) -> None:
        images = [bytes([n]) * (n * 50_000 + 1) for n in range(40)]
        asked = ImageQuery(form="mask", mm_per_pixel=0.1, threshold=0.25)
        replies = await asyncio.gather(*(line.answer(one, asked) for one in images))
        for image, reply in zip(images, replies, strict=True):
            assert reply == await echo(image, asked)
        assert line.waiting == 0

    over_a_line(tmp_path, echo, use)


def test_a_reply_without_a_picture_and_a_picture_of_no_bytes_differ(tmp_path: Path) -> None:
    async def answers(photograph: bytes, asked: ImageQuery, *, seconds: float | None = None) -> Reply:
        return Reply({}, None if photograph else b"")

    async def use(line: SocketClient) -> None:
        assert (await line.answer(b"x", ImageQuery())).picture is None
        assert (await line.answer(b"", ImageQuery())).picture == b""

    over_a_line(tmp_path, answers, use)


def test_what_is_wrong_with_an_image_is_in_its_reply_and_a_bug_without_its_text(
    tmp_path: Path,
) -> None:
    async def use(line: SocketClient) -> None:
        bad, bug, good = await asyncio.gather(
            *(line.answer(one, ImageQuery()) for one in (b"bad", b"bug", b"good"))
        )
        assert bad.problem == unreadable("it is no image; send another")
        assert bug.problem is not None
        assert bug.problem.kind == "failed"
        assert "a bug" not in str(bug.problem.plain())
        assert good.picture == b"doog"

    over_a_line(tmp_path, echo, use)


def test_an_image_that_its_caller_gave_up_is_taken_back_and_counted_until_it_is_let_go(
    tmp_path: Path,
) -> None:
    begun, ended, let_go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answers(photograph: bytes, asked: ImageQuery, *, seconds: float | None = None) -> Reply:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
            await let_go.wait()
        raise AssertionError

    async def use(line: SocketClient) -> None:
        task = asyncio.create_task(line.answer(b"image", ImageQuery()))
        await begun.wait()
        for _ in range(3):  # however often
            task.cancel()
            await asyncio.sleep(0)
        await ended.wait()
        assert (line.waiting, task.done()) == (1, False)
        let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert line.waiting == 0
        assert not line.broken

    over_a_line(tmp_path, answers, use)


def test_a_line_that_breaks_fails_what_waits_and_what_comes(tmp_path: Path) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(FRAME.size)
            writer.write(FRAME.pack(1, 100, 10) + b"{half")
            writer.close()

        server = await asyncio.start_unix_server(serve, tmp_path / "line")
        line = await SocketClient.open(tmp_path / "line")
        async with asyncio.timeout(30):
            for _ in range(2):
                with pytest.raises(ConnectionError):
                    await line.answer(b"image", ImageQuery())
        assert line.broken
        server.close()

    asyncio.run(main())


@pytest.mark.parametrize("sent", [b"\xff" * 40, FRAME.pack(1, 2**31, 0), FRAME.pack(1, 2, 0) + b"[]"])
def test_who_sends_nonsense_is_hung_up_on_and_the_others_are_answered(tmp_path: Path, sent: bytes) -> None:
    async def use(line: SocketClient) -> None:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "line")
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()
        assert (await line.answer(b"good", ImageQuery())).picture == b"doog"

    over_a_line(tmp_path, echo, use)


def test_nobody_else_of_the_machine_may_open_one(tmp_path: Path) -> None:
    async def main() -> None:
        server = await listen(tmp_path / "line", echo)
        assert (tmp_path / "line").stat().st_mode & 0o077 == 0
        server.close()

    asyncio.run(main())


class TestLines:
    def test_lead_to_the_replica_with_the_fewest_images_and_pass_over_the_dead(self, tmp_path: Path) -> None:
        gone = line_path(tmp_path, "model").with_name("0123456789ab-1")

        async def main() -> None:
            waiting = asyncio.Event()

            async def slow(photograph: bytes, asked: ImageQuery, *, seconds: float | None = None) -> Reply:
                await waiting.wait()
                return Reply({})

            path = line_path(tmp_path, "model")
            servers = [await listen(path.with_name(f"{path.name}{n}"), slow) for n in range(2)]
            lines = Lines(tmp_path)
            assert lines.free("model") is None
            await lines.look()
            assert lines.free("other") is None
            first = lines.free("model")
            assert first is not None
            task = asyncio.create_task(first.answer(b"image", ImageQuery()))
            await asyncio.sleep(0)
            second = lines.free("model")
            assert second is not None
            assert second is not first
            await second.close()
            assert lines.free("model") is first
            waiting.set()
            await task
            await lines.look()
            assert lines.free("model") is not None
            for server in servers:
                server.close()

        gone.touch()  # what a replica that was killed leaves behind: nobody listens there
        asyncio.run(main())

    def test_are_none_where_no_folder_is_given(self) -> None:
        lines = Lines(None)
        asyncio.run(lines.look())
        assert lines.free("model") is None
