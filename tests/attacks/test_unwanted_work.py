"""Large images, and clients that do not wait for them, against a `fissura serve` that really runs."""

import asyncio
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest
from PIL import Image

from serve_process import PHOTO, Ask, Reply, Running, asked, asking, photograph, serving

pytestmark = [pytest.mark.attacks, pytest.mark.timeout(900)]

MODEL = "ServeReplica:fissura-model-cracks"
MAX_SECONDS, ROUNDS = 20.0, 5
SMALL = [photograph(320, 480, seed=seed) for seed in range(16)]


def zeros(height: int, width: int) -> bytes:
    """A PNG of some kilobytes and many pixels."""
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG", optimize=True)
    return file.getvalue()


BOMB = zeros(12_000, 12_000)


@pytest.fixture(scope="module")
def service(
    write_segmenter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    run = write_segmenter(folder / "aaaaaaaaaaaaaaaa")
    with serving(folder, f"cracks={run}", "--max-seconds", str(MAX_SECONDS)) as running:
        for image in (PHOTO, *SMALL):  # what is compiled at first is compiled then
            end = time.monotonic() + 300
            while asked(running.url, "POST", "/v1/segment", image).status != 200:
                assert time.monotonic() < end
        yield running


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024


def until_idle(pid: int) -> float:
    """Seconds until the process has used less than a tenth of a CPU for two seconds."""
    begin = time.monotonic()
    while time.monotonic() - begin < 120:
        before = cpu_seconds(pid)
        time.sleep(2)
        if cpu_seconds(pid) - before < 0.2:
            return time.monotonic() - begin - 2
    raise AssertionError("it works on and on")


async def together(ask: Ask) -> list[Reply]:
    return await asyncio.gather(*(ask("POST", "/v1/segment", image) for image in SMALL))


def test_small_images_are_served_while_and_after_a_bomb_runs_out_of_time(
    service: Running, tell: Callable[[str], None]
) -> None:
    async def main() -> tuple[Reply, list[Reply]]:
        async with asking(service.url) as ask:
            bomb = asyncio.create_task(ask("POST", "/v1/segment", BOMB, "image/png"))
            await asyncio.sleep(1)
            replies = await together(ask)
            last = await bomb
            return last, [*replies, *await together(ask)]

    bomb, replies = asyncio.run(main())
    assert [reply.status for reply in replies] == [200] * 32
    assert bomb.status in (200, 504)
    idle = until_idle(service.named(MODEL))
    tell(
        f"{len(BOMB)} bytes of 144 megapixels: {bomb.status} after {bomb.seconds:.1f} s, 32 small ones 200;"
        f" the replica was idle {idle:.1f} s later"
    )
    assert idle < 30


def test_work_ends_when_its_clients_leave_and_memory_stays_bounded(
    service: Running, tell: Callable[[str], None]
) -> None:
    replica = service.named(MODEL)

    async def leave() -> list[int]:
        statuses = []
        async with asking(service.url) as ask:
            tasks = [
                asyncio.create_task(ask("POST", "/v1/segment?answer=overlay", BOMB, "image/png"))
                for _ in range(12)
            ]
            await asyncio.sleep(4)
            for task in tasks:
                if task.done():
                    reply = task.result()
                    statuses.append(reply.status)
                    assert reply.status == 429, reply.body
                    assert int(reply.headers["Retry-After"]) >= 1
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return statuses

    refused = len(asyncio.run(leave()))
    begin = time.monotonic()
    reply = asked(service.url, "POST", "/v1/segment", PHOTO)
    assert (reply.status, reply.seconds < 10) == (200, True)
    idle = until_idle(replica)
    peak = peak_bytes(replica)
    tell(
        f"12 images of 144 megapixels at once, {refused} refused with 429, clients left after 4 s: a small"
        f" one answered in {reply.seconds:.1f} s; the replica idle {time.monotonic() - begin:.1f} s later,"
        f" its memory {peak / 2**20:.0f} MB at most"
    )
    assert idle < 30
    assert peak < 6 * 2**30


def test_small_images_take_at_most_twice_as_long_beside_a_photograph_of_36_megapixels(
    service: Running, tell: Callable[[str], None]
) -> None:
    large = photograph(4912, 7360)

    async def main() -> tuple[list[float], list[float]]:
        async with asking(service.url) as ask:
            alone, beside = list[float](), list[float]()
            for _ in range(ROUNDS):
                alone += [max(reply.seconds for reply in await together(ask))]
            for _ in range(ROUNDS):
                slow = asyncio.create_task(ask("POST", "/v1/segment", large))
                replies = await together(ask)
                assert [reply.status for reply in replies] == [200] * 16
                beside.append(max(reply.seconds for reply in replies))
                assert not slow.done()
                slow.cancel()
                await asyncio.wait([slow])
                await asyncio.to_thread(until_idle, replica)
            return alone, beside

    replica = service.named(MODEL)
    alone, beside = asyncio.run(main())
    ratio = median(beside) / median(alone)
    tell(f"16 small ones: {median(alone):.2f} s alone, {median(beside):.2f} s beside: {ratio:.2f}")
    assert ratio < 2
