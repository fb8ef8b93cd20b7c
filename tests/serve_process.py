"""A `fissura serve` of its own, and who asks it: for tests of services that really run."""

import asyncio
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np
from PIL import Image

FISSURA = str(Path(sys.executable).with_name("fissura"))
TOKEN = "correct-horse-battery-staple"  # noqa: S105
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def photograph(height: int, width: int, *, seed: int = 0) -> bytes:
    """A JPEG of smooth light and dark."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


PHOTO = photograph(120, 160)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fields_of(pid: int) -> list[str]:
    """Those of /proc/PID/stat behind the command: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ["gone", "0"]


def descendants(pid: int) -> dict[int, str]:
    """The command line of each living process below `pid`."""
    parents = {
        int(each.name): int(fields_of(int(each.name))[1])
        for each in Path("/proc").iterdir()
        if each.name.isdigit()
    }
    found: dict[int, str] = {}
    todo = [pid]
    while todo:
        above = todo.pop()
        for child in [one for one, parent in parents.items() if parent == above and one not in found]:
            try:
                line = (
                    Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
            except OSError:
                continue
            found[child] = line
            todo.append(child)
    return found


def alive(pid: int) -> bool:
    return fields_of(pid)[0] not in ("gone", "Z", "X")


@dataclass
class Running:
    """A `fissura serve` that answers, and all the processes that it was ever seen to have."""

    process: "subprocess.Popen[str]"
    url: str
    said: Path
    models: Sequence[str]
    seen: set[int] = field(default_factory=set)

    def named(self, name: str) -> int:
        """The one process of the service with this name."""
        below = descendants(self.process.pid)
        self.seen |= below.keys()
        found = [pid for pid, line in below.items() if name in line]
        assert len(found) == 1, below
        return found[0]

    def resident_bytes(self) -> int:
        """Of the processes that a request goes through."""
        below = descendants(self.process.pid)
        kept = [pid for pid, line in below.items() if "ServeReplica" in line]
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in kept]
        return sum(int(text.split("VmRSS:")[1].split()[0]) * 1024 for text in texts)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ends it as Ctrl-C does; gives its exit code."""
        self.seen |= descendants(self.process.pid).keys()
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(90)

    def left(self) -> list[int]:
        """The processes that outlive it by more than moments."""
        end = time.monotonic() + 20
        while (pids := [pid for pid in self.seen if alive(pid)]) and time.monotonic() < end:
            time.sleep(0.2)
        return pids


@contextmanager
def serving(folder: Path, *words: str, token: str | None = TOKEN) -> Iterator[Running]:
    """`fissura serve` with these words, as soon as it answers."""
    port, said = free_port(), folder / "said.txt"
    settings = {name: value for name, value in os.environ.items() if name != "FISSURA_TOKEN"}
    with said.open("w") as errors:
        process = subprocess.Popen(
            [FISSURA, "serve", *words, "--port", str(port)],
            stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder,
            env=settings | ({} if token is None else {"FISSURA_TOKEN": token}),
        )  # fmt: skip
    assert process.stdout is not None
    models = [word.replace("=", ": ") for word in words if "=" in word]
    running = Running(process, f"http://127.0.0.1:{port}", said, models)
    try:
        line = process.stdout.readline()  # ends when it answers, and when it fails
        assert line == f"serving at {running.url}\n", said.read_text()
        yield running
    finally:
        running.stop()
        for pid in running.left():  # of a test that failed
            os.kill(pid, signal.SIGKILL)
        process.stdout.close()


BROKEN = 0  # the connection broke, or nobody listened


class Reply(NamedTuple):
    """An answer over HTTP, or a BROKEN connection, and how many seconds it took."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def is_problem(self) -> bool:
        """Whether it is a whole problem document."""
        if self.headers.get("Content-Type") != "application/problem+json":
            return False
        return {"type", "status", "title", "detail", "remedy"} <= self.document.keys()


Ask = Callable[..., Awaitable[Reply]]


@asynccontextmanager
async def asking(url: str, *, headers: Mapping[str, str] = BEARER) -> AsyncIterator[Ask]:
    """Asks the service at `url`."""
    # a connection rests for less than the service's 5 s, which may close it at the moment of a request
    connector, patience = aiohttp.TCPConnector(limit=0, keepalive_timeout=2), aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=patience, headers=headers) as session:

        async def ask(method: str, path: str, data: bytes | None = None, media: str = "image/jpeg") -> Reply:
            begin = time.monotonic()
            kind = {"Content-Type": media} if data is not None else {}
            try:
                # bytes of a megabyte are warned of
                sent = None if data is None else io.BytesIO(data)
                async with session.request(method, url + path, data=sent, headers=kind) as response:
                    body = await response.read()
                    return Reply(response.status, response.headers, body, time.monotonic() - begin)
            except (aiohttp.ClientError, ConnectionError) as error:
                return Reply(BROKEN, {}, repr(error).encode(), time.monotonic() - begin)

        yield ask


def asked(
    url: str,
    method: str,
    path: str,
    data: bytes | None = None,
    *,
    media: str = "image/jpeg",
    headers: Mapping[str, str] = BEARER,
) -> Reply:
    """One question."""

    async def main() -> Reply:
        async with asking(url, headers=headers) as ask:
            return await ask(method, path, data, media)

    return asyncio.run(main())


@dataclass
class Seen:
    """The replies to many requests, each of an image of its own."""

    replies: list[tuple[float, Reply]] = field(default_factory=list)
    """(when it came, the reply)"""
    sent: int = 0
    wrong: list[str] = field(default_factory=list)

    async def ask(self, ask: Ask, begin: float, image: bytes) -> None:
        """Sends the image with a tail that no other has, and judges the reply."""
        self.sent += 1
        mine = image + self.sent.to_bytes(8)
        reply = await ask("POST", "/v1/segment", mine)
        self.replies.append((time.monotonic() - begin, reply))
        if reply.status == 200:
            if reply.document["image"]["sha256"] != hashlib.sha256(mine).hexdigest():
                self.wrong.append("the answer of another image")
        elif reply.status != BROKEN and not reply.is_problem:
            self.wrong.append(f"{reply.status}: {reply.body[:300]!r}")
        elif reply.status in (429, 503) and int(reply.headers.get("Retry-After", "0")) < 1:
            self.wrong.append(f"{reply.status} without Retry-After")

    def statuses(self) -> dict[int, int]:
        return dict(sorted(Counter(reply.status for _, reply in self.replies).items()))

    def times(self) -> list[float]:
        """Seconds of each answer, sorted."""
        return sorted(reply.seconds for _, reply in self.replies if reply.status == 200)


def percentile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]
