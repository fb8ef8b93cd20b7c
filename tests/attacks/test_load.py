"""All at once: 500 requests at a time, a photograph of 36 megapixels, clients that are slow in five ways."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest

from serve_process import BEARER, PHOTO, Ask, Running, Seen, asked, asking, photograph, serving

SECONDS = float(os.environ.get("FISSURA_LOAD_SECONDS", "300"))
pytestmark = [pytest.mark.attacks, pytest.mark.timeout(SECONDS + 600)]

AT_A_TIME, LEAST, SLOW_OF_EACH = 500, 1000, 20
MOST_BYTES = 4 * 2**30
TOKEN_LINE = f"Authorization: {BEARER['Authorization']}\r\n"
HEAD = f"POST /v1/segment HTTP/1.1\r\nHost: a\r\n{TOKEN_LINE}Content-Type: image/jpeg\r\n"
OVERLAY = HEAD.replace("/v1/segment", "/v1/segment?answer=overlay")
SLOW: dict[str, tuple[bytes, bytes]] = {
    "silent": (b"", b""),
    "headers": (HEAD.encode(), b"X"),
    "body": (f"{HEAD}Content-Length: 10000000\r\n\r\n".encode(), b"\0"),
    "chunks": (f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode(), b"1\r\n\0\r\n"),
    "reader": (f"{OVERLAY}Content-Length: {len(PHOTO)}\r\n\r\n".encode() + PHOTO, b""),
}
"""What each begins with, and what it sends each second from then on; the last reads as slowly."""

PROBE = """
import sys, time, urllib.request
while True:
    begin = time.monotonic()
    try:
        with urllib.request.urlopen(sys.argv[1] + "/healthz", timeout=30) as answer:
            status = answer.status
    except OSError as error:
        status = getattr(error, "code", 0)
    print(status, time.monotonic() - begin, flush=True)
    time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def service(
    write_segmenter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    run = write_segmenter(folder / "aaaaaaaaaaaaaaaa")
    with serving(folder, f"cracks={run}") as running:
        end = time.monotonic() + 300
        while asked(running.url, "POST", "/v1/segment", PHOTO).status != 200:
            assert time.monotonic() < end
        yield running


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints past pytest's capture: the figures are for the documents."""

    def say(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}")  # noqa: T201

    return say


async def slow(kind: str, port: int, end: float) -> None:
    """One slow client after the other."""
    first, then = SLOW[kind]
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            try:
                writer.write(first)
                while time.monotonic() < end and not reader.at_eof():
                    await asyncio.sleep(1)
                    writer.write(then)
                    await writer.drain()
                    if kind == "reader":
                        await reader.read(1)
            finally:
                writer.close()
        await asyncio.sleep(0.2)


async def usual(ask: Ask) -> float:
    """The median of the seconds that one image takes alone."""
    return median([(await ask("POST", "/v1/segment", PHOTO)).seconds for _ in range(9)])


def test_all_of_it_together_gets_no_wrong_answer_and_leaves_the_service_as_it_was(
    service: Running, tell: Callable[[str], None]
) -> None:
    seen, large, resident = Seen(), Counter[int](), list[int]()
    photo, port = photograph(4912, 7360), int(service.url.rpartition(":")[2])

    async def main() -> tuple[float, float, float]:
        async with asking(service.url) as ask:
            before = await usual(ask)
            begin = time.monotonic()
            end = begin + SECONDS

            async def go_on() -> None:
                while time.monotonic() < end:
                    await seen.ask(ask, begin, PHOTO)
                    await asyncio.sleep(float(seen.replies[-1][1].headers.get("Retry-After", "0")))

            async def photographs() -> None:
                while time.monotonic() < end:
                    reply = await ask("POST", "/v1/segment", photo)
                    large[reply.status] += 1
                    await asyncio.sleep(float(reply.headers.get("Retry-After", "0")))

            async def weigh() -> None:
                while time.monotonic() < end:
                    resident.append(await asyncio.to_thread(service.resident_bytes))
                    await asyncio.sleep(2)

            attackers = [slow(kind, port, end) for kind in SLOW for _ in range(SLOW_OF_EACH)]
            await asyncio.gather(photographs(), weigh(), *(go_on() for _ in range(AT_A_TIME)), *attackers)
            over = time.monotonic()
            while (after := await usual(ask)) > 2 * before + 0.1:
                assert time.monotonic() < over + 30, (before, after)
            return before, after, time.monotonic() - over

    probe = subprocess.Popen([sys.executable, "-c", PROBE, service.url], stdout=subprocess.PIPE, text=True)
    try:
        before, after, back = asyncio.run(main())
    finally:
        probe.terminate()
        lines = [line.split() for line in probe.communicate()[0].splitlines()]
    health = sorted(float(line[1]) for line in lines)
    tell(
        f"{SECONDS:.0f} s: {seen.sent} requests {AT_A_TIME} at a time, {seen.statuses()}; 36 megapixels"
        f" {dict(large)}; {len(SLOW) * SLOW_OF_EACH} slow clients; /healthz p50 {median(health):.2f}, at most"
        f" {health[-1]:.2f} s; memory {max(resident) / 2**20:.0f} MB at most; alone {before:.2f} s before,"
        f" {after:.2f} s from {back:.1f} s after on"
    )
    assert seen.wrong == []
    assert seen.sent >= LEAST
    assert set(seen.statuses()) <= {200, 429, 503, 504}
    assert seen.statuses()[200] > 100
    assert set(large) <= {200, 429, 503, 504}
    assert {line[0] for line in lines} == {"200"}
    assert health[-1] < 1
    assert max(resident) < MOST_BYTES
