"""`fissura batch` from folder to table and scores, with real models behind a small server that keeps the
service's contract."""

import asyncio
import contextlib
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from aiohttp import web
from PIL import Image

import fissura.batches.run
from fissura.batches.pictures import png
from fissura.batches.run import Retry
from fissura.classification.evaluation import evaluate_classifier
from fissura.core.errors import DataError
from fissura.data.content import content_digest
from fissura.data.datasets import parse_datasets
from fissura.data.images import read_rgb
from fissura.data.labelled import image_keys, parse_labelled
from fissura.data.labelled.keys import digest_of_keyed
from fissura.data.photograph import decode
from fissura.data.synthetic import SyntheticSpec, write
from fissura.deploy.model import Classified, Model, Segmented, open_model
from fissura.metrics import mean, parse_protocol, pool
from fissura.metrics.classification import class_scores
from fissura.metrics.counts import Counts
from fissura.metrics.scores import Scores, level_of
from fissura.records.store import Row
from fissura.segmentation.crack_measures import measure_map
from fissura.segmentation.evaluation import evaluate

CPU = torch.device("cpu")
THRESHOLD, RUN = 0.5, "0123456789abcdef"  # of the run of the tiny segmenter
PROTOCOLS = ("pixel", "tolerant:2", "overlap", "flexible:2")
FISSURA = Path(sys.executable).with_name("fissura")
PATIENCE_SECONDS = 120
Gate = Callable[[int], Awaitable[web.Response | None]]


async def open_gate(_: int) -> None:
    """Lets every request for an image through."""


class Service:
    """The service's contract with real models. `gate` is asked before each answer for an image, with the
    number of the request; `asked` counts the requests by the bytes of the image."""

    def __init__(self, models: Mapping[str, Path]) -> None:
        self.models: dict[str, Model] = {name: open_model(run, device=CPU) for name, run in models.items()}
        self.version, self.token = 1, ""
        self.gate: Gate = open_gate
        self.asked = Counter[str]()

    def card(self, name: str) -> dict[str, Any]:
        return {"name": name, "version": self.version, "previous": None, **self.models[name].card}

    async def answer(self, request: web.Request) -> web.Response:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return problem(401, "no-token")
        if request.path == "/v1/models":
            cards = [self.card(name) for name in self.models]
            return web.json_response({"default": "cracks", "models": cards})
        photograph = await request.read()
        self.asked[hashlib.sha256(photograph).hexdigest()] += 1
        refused = await self.gate(self.asked.total())
        return refused or self.scored(photograph, request.query)

    def scored(self, photograph: bytes, query: Mapping[str, str]) -> web.Response:
        try:
            read = decode(photograph)
        except DataError as error:
            return problem(422, "unreadable-image", title=error.problems[0])
        name = query["model"]
        (found,) = self.models[name]([read.pixels])
        height, width = read.pixels.shape[:2]
        image = {"name": None, "height": height, "width": width, "remarks": list(read.remarks)}
        image["sha256"] = hashlib.sha256(photograph).hexdigest()
        card = self.card(name)
        plain = {
            "model": name,
            "seconds": 0.01,
            "image": image,
            **{key: card[key] for key in ("version", "run", "task")},
        }
        if isinstance(found, Classified):
            return web.json_response({**plain, "label": found.label, "decisions": list(found.decisions)})
        assert isinstance(found, Segmented)
        scale = float(query["mm_per_pixel"]) if "mm_per_pixel" in query else None
        measures = measure_map(found.probability, threshold=found.threshold, mm_per_pixel=scale)
        plain |= {"threshold": found.threshold, "cracks": measures.plain(), "crack_table": measures.table()}
        if query["answer"] == "json":
            return web.json_response(plain)
        headers = {"Fissura-Result": json.dumps(plain)}
        return web.Response(body=png(found.probability), content_type="image/png", headers=headers)


def problem(status: int, kind: str, *, title: str = "a rule", **headers: str) -> web.Response:
    document = {"type": f"urn:fissura:problem:{kind}", "title": title, "status": status, "detail": "a value"}
    text = json.dumps({**document, "remedy": "do this"})
    return web.Response(text=text, status=status, content_type="application/problem+json", headers=headers)


@contextlib.contextmanager
def serving(service: Service, *, port: int = 0) -> Iterator[str]:
    """The service in a thread of its own; its address."""
    loop, ready, ports = asyncio.new_event_loop(), threading.Event(), list[int]()

    async def serve(end: asyncio.Event) -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", service.answer)
        runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ports.append(runner.addresses[0][1])
        ready.set()
        await end.wait()
        await runner.cleanup()

    end = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(end)), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(30)
        loop.close()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic images with masks; the test images are five, one of them without a crack."""
    folder = tmp_path_factory.mktemp("batch") / "set"
    plain: dict[str, Any] = {"shadow": 0, "stain": 0, "low_contrast": 0, "clean": 0.2}
    write(SyntheticSpec(train=2, val=1, test=5, height=42, width=50, **plain), folder)
    return folder


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a class, dark and light, of which some are in the wrong one."""
    root, random = tmp_path_factory.mktemp("batch") / "walls", np.random.default_rng(7)
    for label, grey in (("dark", 50), ("light", 190)):
        for index in range(20):
            blocks = random.integers(-40, 40, (4, 4, 3)) + (grey if index % 4 else 240 - grey)
            (root / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)).save(
                root / label / f"{index:02}.png"
            )
    return root


@pytest.fixture(scope="module")
def segmenter(segmenter_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that may be evaluated here."""
    return Path(shutil.copytree(segmenter_run, tmp_path_factory.mktemp("batch") / segmenter_run.name))


@pytest.fixture(scope="module")
def classifier(classifier_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that may be evaluated here; it tells dark images from light ones."""
    return Path(shutil.copytree(classifier_run, tmp_path_factory.mktemp("batch") / classifier_run.name))


@pytest.fixture
def service(segmenter: Path, classifier: Path) -> Service:
    return Service({"cracks": segmenter, "walls": classifier})


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    with serving(service) as address:
        yield address


@pytest.fixture
def photographs(drawn: Path, tmp_path: Path) -> Path:
    """Eight photographs, two of which differ in their suffix alone."""
    folder = tmp_path / "photographs"
    paths = sorted((drawn / "images").rglob("*.png"))
    for index, path in enumerate(paths):
        (folder / f"wall-{index % 2}").mkdir(parents=True, exist_ok=True)
        picture = Image.open(path)
        picture.save(folder / f"wall-{index % 2}" / (f"{index // 2}.png" if index < 7 else "0.jpg"))
    return folder


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.array(opened)


def table(out: Path) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(out / "results.parquet").to_pylist()
    images = [row["image"] for row in rows]
    assert images == sorted(set(images))
    return {row["image"]: row for row in rows}


@pytest.fixture
def quick_to_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fissura.batches.run, "Retry", lambda: Retry(tries=3, first_seconds=0.01, most_seconds=0.02)
    )


KEEP = ("--keep", "masks", "--keep", "overlays", "--keep", "probabilities")


class TestAFolder:
    def test_becomes_one_row_an_image_with_its_pictures(
        self, fissura: Any, url: str, service: Service, photographs: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "found"
        words = ("batch", photographs, "--endpoint", url, "--out", out, *KEEP, "--mm-per-pixel", 0.5)
        code, printed, said = fissura(*words, "--json")
        assert (code, said) == (0, [])
        assert json.loads(printed) == {
            "out": str(out), "results": str(out / "results.parquet"), "model": "cracks", "version": 1,
            "run": RUN, "images": 8, "done": 8, "failed": 0, "left_out": [], "stopped": None, "scores": None,
        }  # fmt: skip
        rows = table(out)
        assert len(rows) == 8
        for name, row in rows.items():
            stem = name if name.startswith("wall-1/0.") else name[:-4]
            pixels = read_rgb(photographs / name)
            (found,) = service.models["cracks"]([pixels])
            assert isinstance(found, Segmented)
            cracks = measure_map(found.probability, threshold=found.threshold, mm_per_pixel=0.5).plain()
            assert {key: row[key] for key in cracks} == pytest.approx(cracks, rel=1e-5)
            assert row["sha256"] == hashlib.sha256((photographs / name).read_bytes()).hexdigest()
            assert (row["run"], row["version"], row["threshold"]) == (RUN, 1, THRESHOLD)
            assert np.array_equal(picture(out / f"probabilities/{stem}.png"), found.probability)
            assert np.array_equal(picture(out / f"masks/{stem}.png"), found.mask * np.uint8(255))
            assert picture(out / f"overlays/{stem}.jpg").shape == pixels.shape
        assert max(service.asked.values()) == 1

    def test_names_the_files_that_it_leaves_out(
        self, fissura: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        (tmp_path / "photos").mkdir()
        Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / "photos" / "IMG_0001.png")
        for name in ("IMG_0002.HEIC", "DJI_0003.DNG", "Thumbs.db", "._IMG_0001.png"):
            (tmp_path / "photos" / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
        words = ("batch", tmp_path / "photos", "--endpoint", url, "--out", tmp_path / "found")
        code, printed, _ = fissura(*words)
        assert code == 0
        assert "1 of 1 image, 0 failed" in printed
        assert "2 files left out by their suffix: IMG_0002.HEIC, DJI_0003.DNG" in printed
        assert json.loads(fissura(*words, "--json").out)["left_out"] == ["IMG_0002.HEIC", "DJI_0003.DNG"]

    def test_with_bad_images_names_them_and_scores_the_others(
        self, fissura: Any, url: str, service: Service, photographs: Path, tmp_path: Path
    ) -> None:
        (photographs / "text.png").write_text("hello")
        (photographs / "torn.jpg").write_bytes((photographs / "wall-1/0.jpg").read_bytes()[:300])
        (photographs / "out.png").symlink_to(Path(__file__))
        (photographs / "nothing.png").touch()
        out = tmp_path / "found"
        words = ("batch", photographs, "--endpoint", url, "--out", out)
        code, printed, said = fissura(*words)
        assert code == 1
        assert "12 of 12 images, 4 failed" in printed
        assert [line.split(":")[0] for line in said] == ["failed"] * 4
        failed = {name: row["error"] for name, row in table(out).items() if row["error"]}
        assert sorted(failed) == ["nothing.png", "out.png", "text.png", "torn.jpg"]
        assert "leads to" in failed["out.png"]
        asked = service.asked.total()

        assert fissura(*words).code == 1
        assert service.asked.total() == asked
        Image.new("RGB", (20, 20)).save(photographs / "text.png")
        assert fissura(*words, "--failed", "retry").code == 1
        assert service.asked.total() == asked + 2  # the two that could be read
        assert [name for name, row in table(out).items() if row["error"]] == [
            "nothing.png",
            "out.png",
            "torn.jpg",
        ]

    def test_waits_for_a_service_that_has_too_much_to_do(
        self, fissura: Any, url: str, service: Service, photographs: Path, tmp_path: Path
    ) -> None:
        async def every_other(number: int) -> web.Response | None:
            return problem(429, "too-many-waiting", **{"Retry-After": "0"}) if number % 2 else None

        service.gate = every_other
        out = tmp_path / "found"
        assert fissura("batch", photographs, "--endpoint", url, "--out", out).code == 0
        assert len(table(out)) == 8
        assert service.asked.total() == 16

    def test_stops_where_the_service_ends_and_goes_on_when_it_is_back(
        self, fissura: Any, service: Service, photographs: Path, tmp_path: Path, quick_to_give_up: None
    ) -> None:
        async def three(number: int) -> web.Response | None:
            return problem(503, "not-ready") if number > 3 else None

        service.gate = three
        out = tmp_path / "found"
        with serving(service) as url:
            code, printed, said = fissura("batch", photographs, "--endpoint", url, "--out", out, "--json")
            assert code == 1
            assert (json.loads(printed)["done"], json.loads(printed)["results"]) == (3, None)
            (line,) = said
            assert "3 of 8 images are done: run the same command again to go on" in line
            service.gate = open_gate
            service.asked.clear()
            assert fissura("batch", photographs, "--endpoint", url, "--out", out).code == 0
        assert len(table(out)) == 8
        assert service.asked.total() == 5

    def test_of_nobody_there_says_so(
        self, fissura: Any, service: Service, photographs: Path, tmp_path: Path
    ) -> None:
        with serving(service) as url:
            pass
        code, _, said = fissura("batch", photographs, "--endpoint", url, "--out", tmp_path / "found")
        assert code == 1
        assert "fissura serve" in said[0]
        assert not (tmp_path / "found").exists()

    def test_ends_where_another_model_takes_over(
        self, fissura: Any, url: str, service: Service, photographs: Path, tmp_path: Path
    ) -> None:
        async def third(number: int) -> None:
            service.version = 1 if number < 3 else 2

        service.gate = third
        out = tmp_path / "found"
        words = ("batch", photographs, "--endpoint", url, "--out", out, "--concurrency", 1)
        code, _, said = fissura(*words)
        assert code == 1
        assert f"is version 2 (run {RUN}) now" in said[0]
        code, _, said = fissura(*words)
        assert code == 2
        assert "`version` 1, not 2" in said[0]
        service.gate, service.version = open_gate, 1
        assert fissura(*words).code == 0
        assert {row["version"] for row in table(out).values()} == {1}


@pytest.mark.end_to_end
class TestAProcess:
    """The command in a process of its own, ended when the third image is asked for."""

    @pytest.mark.parametrize(
        "number",
        [signal.SIGKILL, signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
        ids=lambda one: one.name,
    )
    def test_that_is_ended_is_gone_on_with_by_the_next(
        self, service: Service, photographs: Path, tmp_path: Path, number: signal.Signals
    ) -> None:
        reached = threading.Event()

        async def third(request: int) -> None:
            if request >= 3:
                reached.set()
                await asyncio.Event().wait()

        service.gate, out = third, tmp_path / "found"
        with serving(service) as url:
            words = ["batch", str(photographs), "--endpoint", url, "--out", str(out), "--concurrency", "1"]
            words += ["--keep", "masks"]
            with subprocess.Popen([FISSURA, *words], stderr=subprocess.PIPE, text=True) as process:
                try:
                    assert reached.wait(PATIENCE_SECONDS)
                    process.send_signal(number)
                    said = process.communicate(timeout=PATIENCE_SECONDS)[1]
                finally:
                    process.kill()  # else it is waited for, and waits for its third image
            service.gate = open_gate
            service.asked.clear()
            again = subprocess.run(
                [FISSURA, *words], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
            )
        assert again.returncode == 0, again.stderr
        assert [row["error"] for row in table(out).values()] == [None] * 8
        assert len(list((out / "masks").rglob("*.png"))) == 8
        if number != signal.SIGKILL:
            assert process.returncode == 1
            assert "2 of 8 images are done: run the same command again" in said
            assert service.asked.total() == 6


class TestATestSet:
    """The scores are those of `fissura evaluate` on the same images, exactly."""

    @pytest.mark.parametrize("form", ["data set", "folders"])
    def test_of_masks(
        self, fissura: Any, url: str, drawn: Path, segmenter: Path, tmp_path: Path, form: str
    ) -> None:
        asked = [word for protocol in PROTOCOLS for word in ("--protocol", protocol)]
        images = f"synthetic:{drawn}" if form == "data set" else drawn / "images/test"
        masks = () if form == "data set" else ("--masks", drawn / "masks/test")
        out = tmp_path / "found"
        code, printed, _ = fissura("batch", images, *masks, "--endpoint", url, "--out", out, *asked, "--json")
        assert code == 0
        scores = json.loads(printed)["scores"]
        assert scores == json.loads((out / "scores.json").read_text())
        datasets = parse_datasets([f"synthetic:{drawn}"])
        protocols = [parse_protocol(text) for text in PROTOCOLS]
        rows = evaluate(segmenter, datasets=datasets, protocols=protocols, device=CPU)
        assert scores["images"] == 5
        for found, protocol in zip(scores["scores"], protocols, strict=True):
            own = [row for row in rows if row.protocol == str(protocol)]
            assert (found["threshold"], found["images"]) == (own[0].threshold, 5)
            micro = protocol.score(pool(map(counts, own)), level_of(THRESHOLD))
            macro = mean([Scores(row.precision, row.recall, row.f1, row.dice, row.iou) for row in own])
            assert found["micro"] == {name: getattr(micro, name) for name in protocol.measures}
            assert found["macro"] == {name: getattr(macro, name) for name in protocol.measures}
        digest = content_digest(datasets)
        for path in sorted((out / "probabilities").iterdir()):
            name = f"test-{path.name.removeprefix('test-')}"  # of a sample of a set with several splits
            other = segmenter / "predictions" / f"synthetic-test-{digest[:8]}" / name
            assert np.array_equal(picture(path), picture(other))

    def test_of_labels(self, fissura: Any, url: str, walls: Path, classifier: Path, tmp_path: Path) -> None:
        out, cache = tmp_path / "found", tmp_path / "cache"
        words = ("batch", f"class_folder:{walls}", "--model", "walls", "--endpoint", url, "--out", out)
        code, printed, _ = fissura(*words, "--cache", cache, "--json")
        assert code == 0
        found = json.loads(printed)["scores"]
        keyed = image_keys(parse_labelled([f"class_folder:{walls}"]), directory=cache)
        evaluate_classifier(
            classifier, keyed, content=digest_of_keyed(keyed), split="test", conditions=("clean",), device=CPU
        )
        stored = pq.read_table(classifier / "classes.parquet").to_pylist()
        assert found["images"] == len(stored) == 8
        labels, predictions = (np.array([row[key] for row in stored]) for key in ("label", "prediction"))
        decisions = np.array([row["decision"] for row in stored], np.float32)
        scores = class_scores(labels, predictions, classes=2, decisions=decisions)
        assert found["scores"] == json.loads(json.dumps(vars(scores)))
        assert 0 < scores.f1 < 1
        assert found["classes"] == ["crack", "sound"]
        mine = {name: row["decisions"] for name, row in table(out).items()}
        for row in stored:
            assert mine[row["image"]] == pytest.approx(row["decision"], abs=1e-4)
        _, printed, said = fissura(*words, "--cache", cache)
        assert "images by label and prediction:" in printed
        assert said == ["note: the data's classes dark, light are taken for crack, sound"]

    def test_is_printed_and_repeated_without_a_request(
        self, fissura: Any, url: str, service: Service, drawn: Path, tmp_path: Path
    ) -> None:
        words = (
            "batch",
            f"synthetic:{drawn}",
            "--split",
            "val",
            "--endpoint",
            url,
            "--out",
            tmp_path / "found",
        )
        code, printed, said = fissura(*words)
        assert (code, said) == (0, [])
        assert "pixel at 0.5 on 1 image" in printed
        asked = service.asked.total()
        assert fissura(*words).out == printed
        assert service.asked.total() == asked


def counts(row: Row) -> Counts:
    """The counts of a row at all levels, of which only the threshold's is known here."""
    own = (row.true_positive, row.false_positive, row.found, row.missed)
    return Counts(*(np.full(256, count, np.int64) for count in own))


class TestAMistake:
    @pytest.mark.parametrize(
        ("words", "line"),
        [
            (["--model", "wals"], "did you mean `walls`?"),
            (["--model", "walls", "--keep", "masks"], "--keep: for a model that gives maps"),
            (["--model", "walls", "--mm-per-pixel", "1"], "--mm-per-pixel: for a model that gives maps"),
            (["--keep", "mask"], "did you mean `masks`?"),
            (["--protocol", "pixel"], "--protocol: scores need masks"),
            (["--protocol", "pixels"], "did you mean `pixel`?"),
            (["--split", "test"], "--split test: a folder has no splits"),
            (["--masks", "nowhere"], "is missing"),
            (["--token-file", "nowhere"], "cannot be read"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_is_told_before_anything_is_written(
        self, fissura: Any, url: str, photographs: Path, tmp_path: Path, words: list[str], line: str
    ) -> None:
        code, printed, said = fissura(
            "batch", photographs, "--endpoint", url, "--out", tmp_path / "found", *words
        )
        assert (code, printed) == (2, "")
        assert line in said[0]
        assert not (tmp_path / "found").exists()

    def test_to_write_among_the_images_is_told(self, fissura: Any, url: str, photographs: Path) -> None:
        code, _, said = fissura("batch", photographs, "--endpoint", url, "--out", photographs / "found")
        assert code == 2
        assert "outside of the images' folder" in said[0]
        assert not (photographs / "found").exists()

    def test_to_write_into_a_data_set_is_told(
        self, fissura: Any, url: str, drawn: Path, photographs: Path
    ) -> None:
        code, _, said = fissura("batch", photographs, "--endpoint", url, "--out", drawn)
        assert code == 2
        assert "masks of something else" in said[0]

    def test_to_judge_a_model_by_what_it_does_not_do_is_told(
        self, fissura: Any, url: str, drawn: Path, walls: Path, tmp_path: Path
    ) -> None:
        for images, model in ((f"synthetic:{drawn}", "walls"), (f"class_folder:{walls}", "cracks")):
            words = ("batch", images, "--model", model, "--endpoint", url, "--out", tmp_path / "found")
            code, _, said = fissura(*words, "--cache", tmp_path / "cache")
            assert code == 2
            assert "its truth is for" in said[0]

    def test_to_ask_something_else_of_a_batch_is_told(
        self, fissura: Any, url: str, photographs: Path, tmp_path: Path
    ) -> None:
        words = ("batch", photographs, "--endpoint", url, "--out", tmp_path / "found")
        assert fissura(*words).code == 0
        code, _, said = fissura(*words, "--keep", "masks")
        assert code == 2
        assert "another --out" in said[0]


class TestTheToken:
    TOKEN = "0123456789abcdef-secret"  # noqa: S105

    @pytest.fixture(autouse=True)
    def _locked(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        service.token = self.TOKEN
        monkeypatch.delenv("FISSURA_TOKEN", raising=False)

    @pytest.mark.parametrize("place", ["file", "variable"])
    def test_is_read_and_written_nowhere(
        self,
        fissura: Any,
        url: str,
        photographs: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        place: str,
    ) -> None:
        (tmp_path / "token").write_text(f"{self.TOKEN}\n")
        if place == "variable":
            monkeypatch.setenv("FISSURA_TOKEN", self.TOKEN)
        words = () if place == "variable" else ("--token-file", tmp_path / "token")
        out = tmp_path / "found"
        code, printed, said = fissura("batch", photographs, "--endpoint", url, "--out", out, *words, "--json")
        assert code == 0
        assert self.TOKEN not in printed
        assert said == []
        assert not [
            path for path in out.rglob("*") if path.is_file() and self.TOKEN.encode() in path.read_bytes()
        ]

    def test_that_is_missing_is_told(self, fissura: Any, url: str, photographs: Path, tmp_path: Path) -> None:
        code, _, said = fissura("batch", photographs, "--endpoint", url, "--out", tmp_path / "found")
        assert code == 2
        assert "--token-file, or in FISSURA_TOKEN" in said[0]


def test_neither_ray_nor_torch_is_imported(tmp_path: Path) -> None:
    code = "import sys, fissura.batches.client; print(*({'ray', 'torch'} & set(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == ""
