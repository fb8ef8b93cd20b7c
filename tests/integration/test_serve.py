"""`fissura serve` as its users run it: a process of its own on a real Ray Serve, asked over HTTP."""

import asyncio
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import statistics
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
import pytest
import torch
import yaml
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from fissura import api
from fissura.core.errors import DataError
from fissura.data.photograph import decode
from fissura.engine.predict import Predictor

pytestmark = pytest.mark.timeout(240)

FISSURA = str(Path(sys.executable).with_name("fissura"))
TOKEN = "correct-horse-battery-staple"  # noqa: S105
BEARER = {"Authorization": f"Bearer {TOKEN}"}
STARTED_WITHIN_SECONDS = 120
MODEL, FRONT = "ServeReplica:fissura-model-cracks", "ServeReplica:fissura:"


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
        kept = [pid for pid, line in below.items() if "ServeReplica" in line or "ProxyActor" in line]
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
    running = Running(process, f"http://127.0.0.1:{port}", said)
    try:
        line = process.stdout.readline()  # ends when it answers, and when it fails
        assert line == f"serving at {running.url}\n", said.read_text()
        yield running
    finally:
        running.stop()
        for pid in running.left():  # of a test that failed
            os.kill(pid, signal.SIGKILL)
        process.stdout.close()


class Reply(NamedTuple):
    """An answer over HTTP, and how many seconds it took."""

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
    connector, patience = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=patience, headers=headers) as session:

        async def ask(method: str, path: str, data: bytes | None = None, **more: str) -> Reply:
            begin = time.monotonic()
            kind = {"Content-Type": "image/jpeg"} if data is not None else {}
            async with session.request(method, url + path, data=data, headers=kind | more) as response:
                body = await response.read()
                return Reply(response.status, response.headers, body, time.monotonic() - begin)

        yield ask


def asked(url: str, method: str, path: str, data: bytes | None = None, **more: str) -> Reply:
    """One question without a token but those of `more`."""

    async def main() -> Reply:
        async with asking(url, headers={}) as ask:
            return await ask(method, path, data, **more)

    return asyncio.run(main())


@pytest.fixture(scope="module")
def runs(write_segmenter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two finished runs, and of runs that cannot be served."""
    folder = tmp_path_factory.mktemp("runs")
    first = write_segmenter(folder / "aaaaaaaaaaaaaaaa", seed=0)
    write_segmenter(folder / "bbbbbbbbbbbbbbbb", seed=1, threshold=0.25)
    for name, lost in (("unfinished", "manifest.json"), ("weightless", "weights.safetensors")):
        (shutil.copytree(first, folder / name) / lost).unlink()
    torn = shutil.copytree(first, folder / "torn") / "weights.safetensors"
    torn.write_bytes(torn.read_bytes()[:100])
    return folder


@pytest.fixture(scope="module")
def service(runs: Path, classifier_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    words = (f"cracks={runs / 'aaaaaaaaaaaaaaaa'}", f"walls={classifier_run}", "--cpus-per-replica", "1")
    with serving(folder, *words) as running:
        yield running


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


class TestAService:
    def test_answers_with_the_predictor_s_own_map(self, service: Running, runs: Path) -> None:
        response = asked(service.url, "POST", "/v1/segment?answer=probability", PHOTO, **BEARER)
        assert (response.status, response.headers["Content-Type"]) == (200, "image/png")
        predictor = Predictor.open(runs / "aaaaaaaaaaaaaaaa", device=torch.device("cpu"))
        expected = predictor(decode(PHOTO).pixels)
        assert len(np.unique(expected)) > 5
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(response.body))), expected)
        result = json.loads(response.headers["Fissura-Result"])
        assert (result["model"], result["version"], result["run"]) == ("cracks", 1, "aaaaaaaaaaaaaaaa")

    def test_answers_in_json_of_both_tasks(self, service: Running) -> None:
        segmented = asked(service.url, "POST", "/v1/segment?mm_per_pixel=0.5", PHOTO, **BEARER).document
        assert segmented["image"] == {
            "name": None, "height": 120, "width": 160, "sha256": hashlib.sha256(PHOTO).hexdigest(), "remarks": [],
        }  # fmt: skip
        assert segmented["cracks"]["mm_per_pixel"] == 0.5
        classified = asked(service.url, "POST", "/v1/classify", PHOTO, **BEARER).document
        assert (classified["model"], classified["label"] in ("crack", "sound")) == ("walls", True)

    def test_asks_for_the_token(self, service: Running) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            response = asked(service.url, "POST", "/v1/segment", PHOTO, **headers)
            assert (response.status, response.is_problem) == (401, True)
        assert asked(service.url, "GET", "/v1/models", **BEARER).status == 200
        assert asked(service.url, "GET", "/readyz").status == 200

    def test_listens_on_this_machine_alone(self, service: Running) -> None:
        port = int(service.url.rpartition(":")[2])
        assert listening(port) == {"0100007F"}

    def test_of_which_a_bad_image_hurts_no_other(self, service: Running) -> None:
        async def main() -> list[Reply]:
            async with asking(service.url) as ask:
                images = [PHOTO, PHOTO[:400], b"", PHOTO]
                return await asyncio.gather(*(ask("POST", "/v1/segment", image) for image in images))

        replies = asyncio.run(main())
        assert [reply.status for reply in replies] == [200, 422, 422, 200]
        assert all(reply.is_problem for reply in replies[1:3])


class TestTheNextVersion:
    def test_takes_over_and_goes_back_without_a_failed_request(
        self, service: Running, runs: Path, token_file: Path, fissura: Callable[..., Any]
    ) -> None:
        words = ("--endpoint", service.url, "--name", "cracks", "--token-file", token_file, "--json")

        async def main() -> list[tuple[int, int]]:
            answered: list[tuple[int, int]] = []
            over = asyncio.Event()
            async with asking(service.url) as ask:

                async def go_on() -> None:
                    while not over.is_set():
                        reply = await ask("POST", "/v1/segment", PHOTO)
                        answered.append((reply.status, reply.document.get("version", 0)))

                tasks = [asyncio.create_task(go_on()) for _ in range(2)]
                for command in (("rollout", runs / "bbbbbbbbbbbbbbbb"), ("rollout", "--back")):
                    done = await asyncio.to_thread(fissura, *command, *words)
                    assert done.code == 0, done.said
                    cards.append(json.loads(done.out))
                    reply = await ask(
                        "POST", "/v1/segment", PHOTO
                    )  # whoever asks from now on is answered by it
                    assert reply.document["version"] == cards[-1]["version"]
                over.set()
                await asyncio.gather(*tasks)
            return answered

        cards: list[dict[str, Any]] = []
        answered = asyncio.run(main())
        assert [(card["version"], card["previous"], card["run"]) for card in cards] == [
            (2, 1, "bbbbbbbbbbbbbbbb"), (3, 2, "aaaaaaaaaaaaaaaa"),
        ]  # fmt: skip
        assert (cards[0]["threshold"], cards[1]["threshold"]) == (0.25, 0.5)
        assert {status for status, _ in answered} == {200}
        assert {version for _, version in answered} == {1, 2, 3}

    @pytest.mark.parametrize("name", ["unfinished", "weightless", "torn", "missing"])
    def test_that_cannot_be_served_is_refused_and_the_old_one_answers(
        self, service: Running, runs: Path, token_file: Path, name: str
    ) -> None:
        before = asked(service.url, "POST", "/v1/segment", PHOTO, **BEARER).document
        with pytest.raises(DataError, match="a run that is served is finished and whole") as error:
            api.rollout(runs / name, endpoint=service.url, name="cracks", token_file=token_file)
        assert name in str(error.value)
        after = asked(service.url, "POST", "/v1/segment", PHOTO, **BEARER).document
        assert after["version"] == before["version"]

    def test_from_outside_the_roots_or_without_the_token_is_refused(
        self, service: Running, runs: Path, token_file: Path, tmp_path: Path
    ) -> None:
        copy = shutil.copytree(runs / "bbbbbbbbbbbbbbbb", tmp_path / "bbbbbbbbbbbbbbbb")
        with pytest.raises(DataError, match="lies below a root"):
            api.rollout(copy, endpoint=service.url, name="cracks", token_file=token_file)
        with pytest.raises(DataError, match="carries the service's token"):
            api.rollout(copy, endpoint=service.url, name="cracks")


class TestCtrlC:
    def test_ends_it_with_code_0_and_no_process_left(self, service: Running) -> None:
        below = descendants(service.process.pid)
        assert any("ProxyActor" in line for line in below.values())
        assert service.stop() == 0
        assert service.seen >= below.keys()
        assert service.left() == []
        said = service.said.read_text()
        assert "stopping: what was accepted is being answered" in said
        assert "Traceback" not in said
        assert TOKEN not in said


def listening(port: int) -> set[str]:
    """The addresses (as /proc/net has them) of the sockets that listen on this port."""
    found: set[str] = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            host, _, number = address.partition(":")
            if state == "0A" and int(number, 16) == port:
                found.add(host)
    return found


def tried(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    settings = {name: value for name, value in os.environ.items() if name != "FISSURA_TOKEN"}
    return subprocess.run(
        [FISSURA, "serve", *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=folder,
        env=settings,
    )


class TestWhatCannotBeServed:
    def test_is_told_at_once_with_code_2(self, runs: Path, tmp_path: Path) -> None:
        run = str(runs / "aaaaaaaaaaaaaaaa")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            done = tried(tmp_path, run, "--port", port)
        assert done.returncode == 2
        assert f"--port {port}: the service cannot listen there" in done.stderr
        assert "Traceback" not in done.stderr

    def test_is_a_service_for_others_without_a_token_and_nothing_listens(
        self, runs: Path, tmp_path: Path
    ) -> None:
        port = free_port()
        seen: set[str] = set()
        words = [FISSURA, "serve", str(runs / "aaaaaaaaaaaaaaaa"), "--host", "0.0.0.0", "--port", str(port)]  # noqa: S104
        settings = {name: value for name, value in os.environ.items() if name != "FISSURA_TOKEN"}
        with subprocess.Popen(
            words, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=settings
        ) as process:
            while process.poll() is None:
                seen |= listening(port)
                time.sleep(0.02)
            assert process.stderr is not None
            said = process.stderr.read()
        assert process.returncode == 2
        assert "a service that other machines can reach needs a token" in said
        assert seen == set()

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["missing"], "holds no finished run"), (["unfinished"], "holds no finished run"), (["torn"], "weights.safetensors"),
            (["a=aaaaaaaaaaaaaaaa", "a=bbbbbbbbbbbbbbbb"], "names two runs"), (["UP=aaaaaaaaaaaaaaaa"], "name"), ([], "name a run"),
            (["aaaaaaaaaaaaaaaa", "--replicas", "3:1"], "swap them"), (["aaaaaaaaaaaaaaaa", "--replicas", "²"], "a number"),
            (["aaaaaaaaaaaaaaaa", "--cpus-per-replica", "999"], "fits this machine"),
            (["aaaaaaaaaaaaaaaa", "--root", "file:///etc"], "a root is a folder"),
            (["aaaaaaaaaaaaaaaa", "--token-file", "missing"], "cannot be read"),
            (["aaaaaaaaaaaaaaaa", "--host", "no.such.host.invalid"], "needs a token"),
        ],
    )  # fmt: skip
    def test_is_named_with_its_remedy(self, runs: Path, words: list[str], message: str) -> None:
        done = tried(runs, *words)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


BUILD = """
import json, sys, yaml
from pathlib import Path
from ray.serve.schema import ServeDeploySchema
from ray.serve import Application
from ray._common.utils import import_attr

text = Path(sys.argv[1]).read_text()
schema = ServeDeploySchema.model_validate(yaml.safe_load(text))
built = [import_attr(one.import_path)(one.args) for one in schema.applications]
assert all(isinstance(one, Application) for one in built), built
print(json.dumps([one.name for one in schema.applications]))
"""


def test_a_configuration_is_one_that_ray_serve_deploys(runs: Path, tmp_path: Path, token_file: Path) -> None:
    words = (str(runs / "aaaaaaaaaaaaaaaa"), f"second={runs / 'bbbbbbbbbbbbbbbb'}", "--replicas", "0:3")
    more = ("--token-file", str(token_file), "--host", "0.0.0.0", "--write-config", "serve.yaml")  # noqa: S104
    done = tried(tmp_path, *words, *more)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "serve.yaml\nnext: serve deploy serve.yaml\n"
    text = (tmp_path / "serve.yaml").read_text()
    assert TOKEN not in text
    config = yaml.safe_load(text)
    assert config["http_options"] == {"host": "0.0.0.0", "port": 8000}  # noqa: S104
    assert config["applications"][-1]["args"]["token_digest"] == hashlib.sha256(TOKEN.encode()).hexdigest()
    built = subprocess.run(
        [sys.executable, "-c", BUILD, "serve.yaml"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert built.returncode == 0, built.stderr
    names = json.loads(built.stdout.splitlines()[-1])
    assert names == ["fissura-model-default-v1", "fissura-model-second-v1", "fissura"]
