"""Who waits no longer leaves no work behind, and what the host still works on is counted."""

import asyncio
import io
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.requests import ClientDisconnect
from starlette.types import Message

from fissura.serving.answering import GRACE_SECONDS, Answering, unless_gone
from fissura.serving.body import Upload
from fissura.serving.gate import Gate
from fissura.serving.hosting import Hosted, ReplicaCount
from fissura.serving.limits import Limits
from fissura.serving.problems import Refused
from fissura.serving.query import ImageQuery
from fissura.serving.telemetry import Telemetry
from fissura.serving.worker import Reply

MODEL = Hosted(name="cracks", version=1, card={"task": "segmentation"})


def uploads(*heights: int) -> list[Upload]:
    found = []
    for height in heights:
        file = io.BytesIO()
        Image.fromarray(np.zeros((height, 1000), np.uint8)).save(file, "PNG")
        found.append(Upload(None, file.getvalue()))
    return found


class Host:
    """Works on each image until it is told to go on, and lets a cancelled one go only when it is told to."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.seconds: list[float] = []
        self.go, self.let_go = asyncio.Event(), asyncio.Event()

    def replicas(self) -> Mapping[str, ReplicaCount]:
        return {}

    async def answer(self, model: Hosted, photograph: bytes, asked: ImageQuery, *, seconds: float) -> Reply:
        self.begun += 1
        self.seconds.append(seconds)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            await self.let_go.wait()
            raise
        return Reply({"version": 1, "seconds": 0.1})


def answering(host: Any, **limits: Any) -> tuple[Answering, Gate]:
    bounds = Limits(**limits)
    gate = Gate(bounds, clock=time.monotonic)
    return Answering(host, limits=bounds, gate=gate, telemetry=Telemetry(gate, host.replicas)), gate


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def run(main: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))


def test_what_was_given_up_is_counted_until_the_host_has_let_it_go_and_others_are_told_so() -> None:
    async def main() -> None:
        host = Host()
        service, gate = answering(host, batch_pixels=10**6)
        task = asyncio.create_task(service.replies(MODEL, uploads(1200, 1300), ImageQuery()))
        await until(lambda: host.begun == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task  # at once: nobody is kept waiting for the host
        await until(lambda: host.cancelled == 2)
        assert gate.images == 2
        with pytest.raises(Refused) as refused:
            await service.replies(MODEL, uploads(1200), ImageQuery())
        assert refused.value.problem.status == 429
        small = asyncio.create_task(service.replies(MODEL, uploads(10), ImageQuery()))
        await until(lambda: host.begun == 3)  # served beside it
        host.go.set()
        assert [reply.problem for reply in await small] == [None]
        host.let_go.set()
        await until(lambda: gate.images == 0)
        await service.replies(MODEL, uploads(1200), ImageQuery())

    run(main)


def test_a_request_whose_time_is_up_is_told_so_and_is_counted_while_it_is_worked_on() -> None:
    async def main() -> None:
        host = Host()
        service, gate = answering(host, seconds=0.3)
        with pytest.raises(Refused) as refused:
            await service.replies(MODEL, uploads(10), ImageQuery())
        assert (refused.value.problem.kind, gate.images) == ("too-slow", 1)
        # the host is told when to stop by itself, where nobody is left to tell it
        assert 0 < host.seconds[0] <= 0.3 + GRACE_SECONDS
        host.let_go.set()
        await until(lambda: gate.images == 0)
        assert host.cancelled == 1

    run(main)


def test_a_client_that_hangs_up_ends_its_work_and_one_that_waits_does_not() -> None:
    async def main() -> None:
        host = Host()
        host.let_go.set()
        service, gate = answering(host)
        messages: asyncio.Queue[Message] = asyncio.Queue()
        gone = asyncio.create_task(
            unless_gone(messages.get, service.replies(MODEL, uploads(10), ImageQuery()))
        )
        await until(lambda: host.begun == 1)
        messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        await asyncio.sleep(0.01)
        assert not gone.done()
        messages.put_nowait({"type": "http.disconnect"})
        with pytest.raises(ClientDisconnect):
            await gone
        await until(lambda: gate.images == 0)
        assert host.cancelled == 1
        host.go.set()
        [reply] = await unless_gone(messages.get, service.replies(MODEL, uploads(10), ImageQuery()))
        assert reply.problem is None

    run(main)
