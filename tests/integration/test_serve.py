"""`fissura serve` as its users run it: a process of its own on a real Ray Serve, asked over HTTP."""

import asyncio
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from fissura import api
from fissura.core.errors import DataError
from fissura.data.photograph import decode
from fissura.segmentation.predict import Predictor
from serve_process import (
    BROKEN,
    FISSURA,
    PHOTO,
    TOKEN,
    Reply,
    Running,
    Seen,
    asked,
    asking,
    descendants,
    free_port,
    percentile,
    photograph,
    serving,
)

pytestmark = pytest.mark.timeout(240)

MODEL, FRONT = "ServeReplica:fissura-model-cracks", "ServeReplica:fissura:"


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
def service(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("service"), f"cracks={runs / 'aaaaaaaaaaaaaaaa'}") as running:
        yield running


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.mark.end_to_end
class TestAService:
    def test_answers_with_the_predictor_s_own_map(self, service: Running, runs: Path) -> None:
        response = asked(service.url, "POST", "/v1/segment?answer=probability", PHOTO)
        assert (response.status, response.headers["Content-Type"]) == (200, "image/png")
        predictor = Predictor.open(runs / "aaaaaaaaaaaaaaaa", device=torch.device("cpu"))
        expected = predictor(decode(PHOTO).pixels)
        assert len(np.unique(expected)) > 5
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(response.body))), expected)
        result = json.loads(response.headers["Fissura-Result"])
        assert (result["model"], result["version"], result["run"]) == ("cracks", 1, "aaaaaaaaaaaaaaaa")

    def test_answers_in_json(self, service: Running) -> None:
        result = asked(service.url, "POST", "/v1/segment?mm_per_pixel=0.5", PHOTO).document
        assert result["image"] == {
            "name": None, "height": 120, "width": 160, "remarks": [],
            "sha256": hashlib.sha256(PHOTO).hexdigest(),
        }  # fmt: skip
        assert result["cracks"]["mm_per_pixel"] == 0.5

    def test_asks_for_the_token(self, service: Running) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            response = asked(service.url, "POST", "/v1/segment", PHOTO, headers=headers)
            assert (response.status, response.is_problem) == (401, True)
        assert asked(service.url, "GET", "/v1/models").status == 200
        assert asked(service.url, "GET", "/readyz", headers={}).status == 200

    def test_listens_on_this_machine_alone(self, service: Running) -> None:
        port = int(service.url.rpartition(":")[2])
        assert listening(port) == {"0100007F"}

    def test_has_an_open_line_to_its_replica(self, service: Running) -> None:
        replica = service.named(MODEL)
        assert asked(service.url, "POST", "/v1/segment", PHOTO).status == 200
        sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
        lines = [
            one for one in sockets if len(one) == 8 and one[7].endswith(f"-{replica}") and one[5] == "03"
        ]
        assert len(lines) == 1, "connected, and not Ray Serve's way"
        assert Path(lines[0][7]).parent.stat().st_mode & 0o077 == 0

    def test_of_which_a_bad_image_hurts_no_other(self, service: Running) -> None:
        async def main() -> list[Reply]:
            async with asking(service.url) as ask:
                images = [PHOTO, PHOTO[:400], b"", PHOTO]
                return await asyncio.gather(*(ask("POST", "/v1/segment", image) for image in images))

        replies = asyncio.run(main())
        assert [reply.status for reply in replies] == [200, 422, 422, 200]
        assert all(reply.is_problem for reply in replies[1:3])


@pytest.mark.end_to_end
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
                        await asyncio.sleep(0.1)

                tasks = [asyncio.create_task(go_on()) for _ in range(2)]
                for command in (("rollout", runs / "bbbbbbbbbbbbbbbb"), ("rollout", "--back")):
                    done = await asyncio.to_thread(fissura, *command, *words)
                    assert done.code == 0, (done.said, service.said.read_text())
                    cards.append(json.loads(done.out))
                    # whoever asks from now on is answered by the new version
                    reply = await ask("POST", "/v1/segment", PHOTO)
                    assert reply.document["version"] == cards[-1]["version"]
                    answered.append((reply.status, reply.document["version"]))
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
        before = asked(service.url, "POST", "/v1/segment", PHOTO).document
        with pytest.raises(DataError, match="a run that is served is finished and whole") as error:
            api.rollout(runs / name, endpoint=service.url, name="cracks", token_file=token_file)
        assert name in str(error.value)
        after = asked(service.url, "POST", "/v1/segment", PHOTO).document
        assert after["version"] == before["version"]

    def test_from_outside_the_roots_or_without_the_token_is_refused(
        self, service: Running, runs: Path, token_file: Path, tmp_path: Path
    ) -> None:
        copy = shutil.copytree(runs / "bbbbbbbbbbbbbbbb", tmp_path / "bbbbbbbbbbbbbbbb")
        with pytest.raises(DataError, match="lies below a root"):
            api.rollout(copy, endpoint=service.url, name="cracks", token_file=token_file)
        with pytest.raises(DataError, match="carries the service's token"):
            api.rollout(copy, endpoint=service.url, name="cracks")


@pytest.mark.end_to_end
class TestCtrlC:
    def test_ends_it_with_code_0_and_no_process_left(self, service: Running) -> None:
        below = descendants(service.process.pid)
        assert any(FRONT in line for line in below.values())
        assert service.stop() == 0
        assert service.seen >= below.keys()
        assert service.left() == []
        assert service.said.read_text().splitlines() == [
            "starting Ray on this machine",
            *(f"loading {name}" for name in service.models),
            "stopping: what was accepted is being answered",
        ]


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


@pytest.mark.end_to_end
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
            (["missing"], "there is no such folder"), (["unfinished"], "holds no finished run"),
            (["torn"], "weights.safetensors"),
            (["a=aaaaaaaaaaaaaaaa", "a=bbbbbbbbbbbbbbbb"], "names two runs"),
            (["UP=aaaaaaaaaaaaaaaa"], "name"), ([], "name a run"),
            (["aaaaaaaaaaaaaaaa", "--replicas", "3:1"], "swap them"),
            (["aaaaaaaaaaaaaaaa", "--replicas", "²"], "a number"),
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


# apart, since Ray reads its settings when it is imported
BUILD = """
import json, sys, yaml
from pathlib import Path
from fissura.cli.app import run

code = run(sys.argv[1:])
from ray._common.utils import import_attr
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema

schema = ServeDeploySchema.model_validate(yaml.safe_load(Path("serve.yaml").read_text()))
built = [import_attr(one.import_path)(one.args) for one in schema.applications]
assert all(isinstance(one, Application) for one in built), built
print(json.dumps([one.name for one in schema.applications]))
sys.exit(code)
"""


@pytest.mark.end_to_end
def test_a_configuration_is_one_that_ray_serve_deploys(runs: Path, tmp_path: Path, token_file: Path) -> None:
    words = (
        "serve",
        str(runs / "aaaaaaaaaaaaaaaa"),
        f"second={runs / 'bbbbbbbbbbbbbbbb'}",
        "--replicas",
        "0:3",
    )
    more = ("--token-file", str(token_file), "--host", "0.0.0.0", "--write-config", "serve.yaml")  # noqa: S104
    done = subprocess.run(
        [sys.executable, "-c", BUILD, *words, *more],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *said, names = done.stdout.splitlines()
    assert said == ["serve.yaml", "next: serve deploy serve.yaml"]
    assert json.loads(names) == ["fissura-model-default-v1", "fissura-model-second-v1", "fissura"]
    text = (tmp_path / "serve.yaml").read_text()
    assert TOKEN not in text
    config = yaml.safe_load(text)
    assert config["http_options"] == {"host": "0.0.0.0", "port": 8000}  # noqa: S104
    assert config["applications"][-1]["args"]["token_digest"] == hashlib.sha256(TOKEN.encode()).hexdigest()


# ---------------------------------------------------------------- killed processes, and too much load


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Shows a line of numbers to whoever runs the tests."""

    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}")  # noqa: T201

    return show


@pytest.fixture(scope="module")
def loaded(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service of one model that lets 5 seconds of work wait, on CPUs for three."""
    words = (f"cracks={runs / 'aaaaaaaaaaaaaaaa'}", "--cpus-per-replica", "1", "--max-seconds", "40")
    with serving(tmp_path_factory.mktemp("loaded"), *words, "--max-waiting-seconds", "5") as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestAProcessThatIsKilled:
    @pytest.mark.parametrize(
        ("name", "costs"),
        [
            pytest.param(MODEL, {429, 503}, id="the model's replica"),
            pytest.param(FRONT, {BROKEN, 429, 503}, id="the HTTP process"),
        ],
    )
    def test_costs_no_accepted_request_more_than_an_error_that_its_caller_sees_and_is_replaced(
        self, loaded: Running, tell: Callable[[str], None], name: str, costs: set[int]
    ) -> None:
        seen, killed = Seen(), 0.0

        async def main() -> None:
            nonlocal killed
            begin, over = time.monotonic(), asyncio.Event()
            async with asking(loaded.url) as ask:

                async def go_on() -> None:
                    while not over.is_set():
                        await seen.ask(ask, begin, PHOTO)
                        if seen.replies[-1][1].status != 200:
                            await asyncio.sleep(0.2)

                tasks = [asyncio.create_task(go_on()) for _ in range(6)]
                await asyncio.sleep(3)
                victim = loaded.named(name)
                os.kill(victim, signal.SIGKILL)
                killed = time.monotonic() - begin
                while not [at for at, reply in seen.replies if at > killed + 1 and reply.status == 200]:
                    await asyncio.sleep(0.05)
                await asyncio.sleep(5)
                over.set()
                await asyncio.gather(*tasks)
            assert loaded.named(name) != victim

        asyncio.run(asyncio.wait_for(main(), 300))
        back = min(at for at, reply in seen.replies if at > killed + 1 and reply.status == 200) - killed
        tell(
            f"kill -9 of {name}: {seen.sent} requests, {seen.statuses()}; answers again {back:.1f} s after;"
            f" slowest answer {seen.times()[-1]:.1f} s"
        )
        assert seen.wrong == []
        assert len(seen.replies) == seen.sent
        assert set(seen.statuses()) <= {200} | costs
        assert seen.statuses()[200] > 20
        assert back < 60
        # those that come after it are answered as before
        assert {reply.status for at, reply in seen.replies if at > killed + back + 3} == {200}


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestTwiceTheLoadThatCanBeAnswered:
    SECONDS = 120

    def test_is_answered_in_bounded_time_and_the_rest_is_told_when_to_come_again(
        self, loaded: Running, tell: Callable[[str], None]
    ) -> None:
        large = photograph(900, 1200)
        asyncio.run(answered_in(loaded.url, large, seconds=5))
        capacity, alone = asyncio.run(answered_in(loaded.url, large, seconds=20))
        before = images_answered(loaded.url)
        seen, resident = Seen(), list[tuple[float, int]]()

        async def main() -> None:
            begin = time.monotonic()
            async with asking(loaded.url) as ask:
                tasks = set[asyncio.Task[None]]()
                while (now := time.monotonic() - begin) < self.SECONDS:
                    tasks.add(asyncio.create_task(seen.ask(ask, begin, large)))
                    if not resident or now > resident[-1][0] + 10:
                        resident.append((now, await asyncio.to_thread(loaded.resident_bytes)))
                    late = begin + (seen.sent + 1) / (2 * capacity) - time.monotonic()
                    await asyncio.sleep(max(late, 0))
                await asyncio.gather(*tasks)

        asyncio.run(main())
        times, statuses = seen.times(), seen.statuses()
        p50, p95, most = percentile(times, 0.5), percentile(times, 0.95), times[-1]
        warm = max(size for at, size in resident if at < self.SECONDS / 3)
        last = resident[-1][1]
        tell(
            f"capacity {capacity:.1f}/s (alone {alone:.2f} s); {self.SECONDS} s at twice that: {seen.sent}"
            f" sent, {statuses}; answered in p50 {p50:.2f}, p95 {p95:.2f}, at most {most:.2f} s; resident"
            f" {warm / 2**20:.0f} MB early, {last / 2**20:.0f} MB at the end"
        )
        assert seen.wrong == []
        assert len(seen.replies) == seen.sent
        assert set(statuses) == {200, 429}
        assert statuses[200] > 0.6 * capacity * self.SECONDS  # the machine is kept busy
        assert p95 < (5 + alone) * 1.5
        assert (
            images_answered(loaded.url) - before == statuses[200]
        )  # none was worked on twice, or for nobody
        assert last < warm * 1.1


@pytest.mark.slow
@pytest.mark.timeout(400)
class TestASecondModel:
    def test_that_was_made_the_default_is_so_after_the_http_replica_was_killed(
        self, loaded: Running, runs: Path, classifier_run: Path
    ) -> None:
        run = shutil.copytree(classifier_run, runs / classifier_run.name)
        body = json.dumps({"run": str(run), "default": True}).encode()
        put = asked(loaded.url, "PUT", "/v1/models/walls", body, media="application/json")
        assert (put.status, put.document["version"]) == (200, 1), put.body
        assert asked(loaded.url, "GET", "/v1/models").document["default"] == "walls"
        os.kill(loaded.named(FRONT), signal.SIGKILL)
        end = time.monotonic() + 60
        while (models := asked(loaded.url, "GET", "/v1/models")).status != 200:
            assert time.monotonic() < end
            time.sleep(0.2)
        assert models.document["default"] == "walls"
        assert asked(loaded.url, "POST", "/v1/classify", PHOTO).document["label"] in ("crack", "sound")
        assert asked(loaded.url, "POST", "/v1/segment", PHOTO).document["model"] == "cracks"

    def test_leaves_no_cpu_for_the_next_version_which_is_told_and_what_was_served_still_is(
        self, loaded: Running, runs: Path
    ) -> None:
        body = json.dumps({"run": str(runs / "bbbbbbbbbbbbbbbb")}).encode()
        third = asked(loaded.url, "PUT", "/v1/models/third", body, media="application/json")
        assert third.status == 200, third.body
        put = asked(loaded.url, "PUT", "/v1/models/cracks", body, media="application/json")
        assert (put.status, put.is_problem) == (503, True), put.body
        assert "no CPUs are free" in put.document["detail"]
        for task in ("segment", "classify", "segment?model=third"):
            reply = asked(loaded.url, "POST", f"/v1/{task}", PHOTO)
            assert (reply.status, reply.document["version"]) == (200, 1)

    def test_ends_with_the_service_on_sigterm_too(self, loaded: Running) -> None:
        assert loaded.stop(signal.SIGTERM) == 0
        assert loaded.left() == []


async def answered_in(url: str, image: bytes, *, seconds: float) -> tuple[float, float]:
    """Answers a second with 3 requests under way, and the median of the seconds that one takes alone."""
    async with asking(url) as ask:
        alone = sorted([(await ask("POST", "/v1/segment", image)).seconds for _ in range(5)])[2]
        begin, done = time.monotonic(), 0

        async def go_on() -> None:
            nonlocal done
            while time.monotonic() - begin < seconds:
                reply = await ask("POST", "/v1/segment", image)
                done += reply.status == 200
                await asyncio.sleep(float(reply.headers.get("Retry-After", "0")))

        await asyncio.gather(*(go_on() for _ in range(3)))
        return done / (time.monotonic() - begin), alone


def images_answered(url: str) -> float:
    """What the service itself has counted."""
    text = asked(url, "GET", "/metrics").body.decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "fissura_images_total" and sample.labels["outcome"] == "answered"
    )
