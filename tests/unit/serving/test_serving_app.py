"""The service over HTTP with a real model: each form of answer, each problem, and what stands around them."""

import asyncio
import base64
import hashlib
import io
import json
import logging
import re
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from starlette.types import Message

from fissura.data.photograph import decode
from fissura.deploy.model import open_model
from fissura.metrics import level_of
from fissura.segmentation.crack_measures import measure_map
from fissura.segmentation.predict import Predictor
from fissura.serving.allowed_roots import Roots
from fissura.serving.app import build_app
from fissura.serving.hosting import Hosted, Models
from fissura.serving.limits import Limits
from fissura.serving.problems import Problem, Refused
from fissura.serving.query import ImageQuery
from fissura.serving.service import Service
from fissura.serving.tokens import token_digest
from fissura.serving.worker import Reply, Worker
from fissura.tasks.segmentation.service import HEADER_CRACKS
from fissura.testing.serving import OneModel

CPU = torch.device("cpu")
TOKEN = "correct-horse-battery-staple"  # noqa: S105
RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (30, 41, 3), dtype=np.uint8)
DARK, LIGHT = np.full((32, 32, 3), 40, np.uint8), np.full((20, 50, 3), 200, np.uint8)
SECURITY = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
}


def saved(array: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


PNG = saved(PHOTO)


@pytest.fixture(scope="module")
def segmenter(segmenter_run: Path) -> Iterator[Worker]:
    worker = Worker(open_model(segmenter_run, device=CPU), Limits(), name="cracks", version=1)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def classifier(classifier_run: Path) -> Iterator[Worker]:
    worker = Worker(open_model(classifier_run, device=CPU), Limits(), name="walls", version=1)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def predictor(segmenter_run: Path) -> Predictor:
    return Predictor.open(segmenter_run, device=CPU)


class Both(OneModel):
    """The two models side by side."""

    def __init__(self, *workers: Worker) -> None:
        self._workers = {str(worker.model.task): worker for worker in workers}
        hosted = [
            Hosted(name=name, version=1, card=self._workers[task].model.card)
            for name, task in (("cracks", "segmentation"), ("walls", "classification"))
        ]
        self._models = Models("cracks", {one.name: one for one in hosted})

    async def answer(self, model: Hosted, photograph: bytes, asked: ImageQuery, *, seconds: float) -> Reply:
        return await self._workers[model.task].answer(photograph, asked, seconds=seconds)


@contextmanager
def served(host: OneModel, *, token: str | None = None, **limits: Any) -> Iterator[TestClient]:
    digest = None if token is None else token_digest(token)
    service = Service(host, limits=Limits(**limits), roots=Roots(["/nowhere/open"]), token_digest=digest)
    with TestClient(build_app(service), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(segmenter: Worker, classifier: Worker) -> Iterator[TestClient]:
    with served(Both(segmenter, classifier)) as client:
        yield client


def segment(
    client: TestClient,
    data: bytes = PNG,
    *,
    media: str = "image/png",
    accept: str = "*/*",
    query: Mapping[str, str] = MappingProxyType({}),
    **named: str | float,
) -> Any:
    """The response to one image; the query is what is named, and `query`."""
    headers = {"Content-Type": media, "Accept": accept}
    return client.post("/v1/segment", content=data, params={**query, **named}, headers=headers)


def problem(response: Any, status: int, kind: str) -> dict[str, Any]:
    """The problem document of a response, which must be whole."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert SECURITY.items() <= dict(response.headers).items()
    document = response.json()
    assert set(document) - {"retry_after"} == {"type", "status", "title", "detail", "remedy"}
    assert (document["type"], document["status"]) == (f"urn:fissura:problem:{kind}", status)
    assert all(document[name].strip() for name in ("title", "detail", "remedy"))
    assert "Traceback" not in response.text
    return dict(document)


def grey(picture: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(picture))
    assert image.mode == "L"
    return np.asarray(image)


class TestASegmentation:
    def test_is_a_document_of_what_was_found(
        self, client: TestClient, predictor: Predictor, segmenter_run: Path
    ) -> None:
        result = segment(client).json()
        found = measure_map(predictor(PHOTO), threshold=0.5, mm_per_pixel=None)
        assert result.pop("seconds") > 0
        assert result == {
            "model": "cracks", "version": 1, "run": segmenter_run.name, "task": "segmentation",
            "image": {
                "name": None, "height": 30, "width": 41, "sha256": hashlib.sha256(PNG).hexdigest(),
                "remarks": [],
            },
            "threshold": 0.5,
            "cracks": found.plain(), "crack_table": found.table(),
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("accept", "query"),
        [("image/png", {}), ("*/*", {"answer": "mask"}), ("image/jpeg", {"answer": "mask"})],
    )
    def test_mask_is_where_the_map_reaches_the_threshold(
        self, client: TestClient, predictor: Predictor, accept: str, query: dict[str, str]
    ) -> None:
        response = segment(client, accept=accept, query=query)
        assert response.headers["content-type"] == "image/png"
        expected = np.where(predictor(PHOTO) >= level_of(0.5), 255, 0)
        assert 0 < expected.mean() < 255
        np.testing.assert_array_equal(grey(response.content), expected)

    def test_probability_is_the_predictor_s_map_to_the_bit(
        self, client: TestClient, predictor: Predictor
    ) -> None:
        response = segment(client, answer="probability")
        assert response.headers["content-type"] == "image/png"
        expected = predictor(PHOTO)
        assert len(np.unique(expected)) > 5
        np.testing.assert_array_equal(grey(response.content), expected)

    def test_overlay_is_the_photograph_with_cracks_in_colour(
        self, client: TestClient, predictor: Predictor
    ) -> None:
        smooth = np.full((64, 64, 3), 128, np.uint8)
        smooth[:, 32:] = 200
        response = segment(client, saved(smooth), answer="overlay", threshold=0)
        assert response.headers["content-type"] == "image/jpeg"
        drawn = np.asarray(Image.open(io.BytesIO(response.content)).convert("RGB")).astype(int)
        assert drawn.shape == smooth.shape
        assert (drawn.max(axis=2) - drawn.min(axis=2)).min() > 60  # all of it is crack at the threshold 0
        response = segment(client, saved(smooth), answer="overlay", threshold=1)
        drawn = np.asarray(Image.open(io.BytesIO(response.content)).convert("RGB")).astype(int)
        assert abs(drawn - smooth).max() < 12

    @pytest.mark.parametrize("answer", ["mask", "probability", "overlay"])
    def test_picture_carries_the_document_in_a_header_of_one_line(
        self, client: TestClient, answer: str
    ) -> None:
        response = segment(client, answer=answer)
        header = response.headers["Fissura-Result"]
        assert header.isascii()
        assert header.isprintable()
        carried, sent = json.loads(header), segment(client).json()
        assert carried.pop("seconds") >= 0
        assert sent.pop("seconds") >= 0
        assert carried.pop("crack_table") == sent.pop("crack_table")[:HEADER_CRACKS]
        assert carried == sent

    @pytest.mark.parametrize("threshold", [0, 0.25, 0.5, 0.6, 1])
    def test_keeps_another_threshold(
        self, client: TestClient, predictor: Predictor, threshold: float
    ) -> None:
        response = segment(client, answer="mask", threshold=threshold)
        mask = predictor(PHOTO) >= level_of(threshold)
        np.testing.assert_array_equal(grey(response.content) == 255, mask)
        result = json.loads(response.headers["Fissura-Result"])
        assert result["threshold"] == threshold
        assert result["cracks"]["area_px"] == np.count_nonzero(mask)

    def test_measures_in_millimetres_where_the_scale_is_known(self, client: TestClient) -> None:
        plain, scaled = segment(client).json()["cracks"], segment(client, mm_per_pixel=0.5).json()["cracks"]
        assert plain["mm_per_pixel"] is plain["length_mm"] is None
        assert (scaled["mm_per_pixel"], scaled["area_mm2"]) == (0.5, plain["area_px"] * 0.25)
        assert scaled["length_mm"] == pytest.approx(plain["length_px"] / 2)

    @pytest.mark.parametrize(
        "media", ["image/jpeg", "image/gif", "application/octet-stream", "image/png; a=b"]
    )
    def test_reads_what_the_bytes_are_whatever_image_type_they_are_called(
        self, client: TestClient, media: str
    ) -> None:
        assert segment(client, media=media).json()["image"]["height"] == 30

    @pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 2)])
    def test_is_as_large_as_the_photograph_however_small_or_thin(
        self, client: TestClient, shape: tuple[int, int]
    ) -> None:
        tiny = saved(RNG.integers(0, 256, (*shape, 3), dtype=np.uint8))
        for answer in ("json", "mask", "probability", "overlay"):
            response = segment(client, tiny, answer=answer)
            assert response.status_code == 200
            if answer != "json":
                assert Image.open(io.BytesIO(response.content)).size == shape[::-1]

    def test_picture_that_its_format_cannot_hold_is_a_problem(self, client: TestClient) -> None:
        long = saved(np.zeros((1, 65_501, 3), np.uint8))
        problem(segment(client, long, answer="overlay"), 422, "unreadable-image")
        assert segment(client, long, answer="mask").status_code == 200


def turned(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


DEEP = RNG.integers(0, 65536, (30, 41, 3), dtype=np.uint16)
ALPHA = np.dstack([PHOTO, RNG.integers(0, 256, (30, 41), dtype=np.uint8)])
PHOTOGRAPHS = {
    "turned by EXIF": (saved(PHOTO, "JPEG", exif=turned(6)), (41, 30), []),
    "16 bits": (bytes(cv2.imencode(".png", DEEP)[1]), (30, 41), ["16 bits a channel, scaled to 8"]),
    "alpha": (saved(ALPHA), (30, 41), ["transparent in places, laid over white"]),
    "palette": (saved(PHOTO[..., 0] // 64, "GIF"), (30, 41), None),
    "CMYK": (saved(ALPHA, "TIFF"), (30, 41), None),
    "grey": (saved(PHOTO[..., 0]), (30, 41), []),
    "WebP": (saved(PHOTO, "WEBP", lossless=True), (30, 41), []),
    "BMP": (saved(PHOTO, "BMP"), (30, 41), []),
}


class TestAPhotographAsCamerasAndProgramsWriteThem:
    @pytest.mark.parametrize("name", PHOTOGRAPHS)
    def test_is_answered_for_as_the_predictor_sees_it(
        self, client: TestClient, predictor: Predictor, name: str
    ) -> None:
        data, (height, width), remarks = PHOTOGRAPHS[name]
        response = segment(client, data, answer="probability")
        image = json.loads(response.headers["Fissura-Result"])["image"]
        assert (image["height"], image["width"]) == (height, width)
        assert remarks is None or image["remarks"] == remarks
        np.testing.assert_array_equal(grey(response.content), predictor(decode(data).pixels))


class TestAClassification:
    def test_is_a_document_with_the_class_and_its_decisions(
        self, client: TestClient, classifier_run: Path
    ) -> None:
        for pixels, label in ((DARK, "crack"), (LIGHT, "sound")):
            data = saved(pixels)
            result = client.post("/v1/classify", content=data).json()
            assert result.pop("seconds") > 0
            [decision] = result.pop("decisions")
            assert (decision < 0) == (label == "crack")
            assert result == {
                "model": "walls", "version": 1, "run": classifier_run.name, "task": "classification",
                "label": label,
                "image": {
                    "name": None, "height": pixels.shape[0], "width": pixels.shape[1], "remarks": [],
                    "sha256": hashlib.sha256(data).hexdigest(),
                },
            }  # fmt: skip

    def test_of_a_batch_of_sizes_is_in_order(self, client: TestClient) -> None:
        walls = [DARK, LIGHT, DARK[:20], LIGHT, DARK]
        files = [("images", (f"{place}.png", saved(wall))) for place, wall in enumerate(walls)]
        results = client.post("/v1/classify", files=files).json()["results"]
        assert [(one["image"]["name"], one["label"]) for one in results] == [
            ("0.png", "crack"), ("1.png", "sound"), ("2.png", "crack"), ("3.png", "sound"),
            ("4.png", "crack"),
        ]  # fmt: skip

    def test_has_no_picture_scale_or_threshold(self, classifier: Worker) -> None:
        for asked in (ImageQuery(form="mask"), ImageQuery(threshold=0.5), ImageQuery(mm_per_pixel=1)):
            reply = asyncio.run(classifier.answer(PNG, asked))
            assert reply.problem is not None
            assert reply.problem.status == 422

    def test_takes_a_header_that_asks_for_pictures_lightly(self, client: TestClient) -> None:
        response = client.post("/v1/classify", content=PNG, headers={"Accept": "image/png"})
        assert response.headers["content-type"] == "application/json"


NAMES = ["wall.png", "torn.jpg", "../../up/wall.png", "ü\u202e\\x.gif", "."]


def files(*more: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    contents = [PNG, b"no image", saved(PHOTO[:10]), saved(PHOTO, "BMP"), PNG]
    return [("images", pair) for pair in [*zip(NAMES, contents, strict=True), *more]]


class TestABatch:
    def test_is_results_in_order_with_a_problem_for_the_bad_one(self, client: TestClient) -> None:
        response = client.post("/v1/segment", files=files())
        assert response.status_code == 200
        results = response.json()["results"]
        assert [one["image"]["name"] for one in results] == NAMES
        assert [one["image"].get("height") for one in results] == [30, None, 10, 30, 30]
        assert set(results[1]) == {"image", "problem"}
        assert results[1]["problem"]["type"] == "urn:fissura:problem:unreadable-image"
        assert results[0]["cracks"] == segment(client).json()["cracks"]

    @pytest.mark.parametrize(
        ("answer", "suffix"), [("mask", "png"), ("probability", "png"), ("overlay", "jpg")]
    )
    def test_with_pictures_is_an_archive(
        self, client: TestClient, predictor: Predictor, answer: str, suffix: str
    ) -> None:
        response = client.post("/v1/segment", files=files(), params={"answer": answer})
        assert response.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
            assert archive.testzip() is None
            names = archive.namelist()
            results = json.loads(archive.read("results.json"))["results"]
            pictures = {name: archive.read(name) for name in names if name != "results.json"}
        assert len(results) == 5
        assert list(pictures) == [
            f"00000-wall.{suffix}", f"00002-wall.{suffix}", f"00003-x.{suffix}", f"00004-image.{suffix}",
        ]  # fmt: skip
        for picture in pictures.values():
            Image.open(io.BytesIO(picture)).load()
        if answer == "probability":
            np.testing.assert_array_equal(grey(pictures["00002-wall.png"]), predictor(PHOTO[:10]))

    @pytest.mark.parametrize(
        "name", ["..", ".", "/", "\\", "a/..", "C:\\a.png", "\ufffe.png", "x" * 300, "CON", "a\0b"]
    )
    def test_of_any_names_is_an_archive_of_plain_ones(self, client: TestClient, name: str) -> None:
        response = client.post("/v1/segment", files=[("images", (name, PNG))], params={"answer": "mask"})
        if response.status_code == 400:  # a name that no header can carry
            return
        with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
            [picture] = [entry for entry in archive.namelist() if entry != "results.json"]
        assert re.fullmatch(r"00000-[\w.-]{1,100}\.png", picture)
        assert "/" not in picture

    def test_of_nothing_but_bad_images_is_their_problems(self, client: TestClient) -> None:
        response = client.post("/v1/segment", files=[("images", ("a", b"")), ("images", ("b", b"x"))])
        assert response.status_code == 200
        assert [one["problem"]["status"] for one in response.json()["results"]] == [422, 422]

    def test_in_which_one_image_is_too_large_answers_for_the_others(self, segmenter: Worker) -> None:
        with served(OneModel(segmenter), pixels=1024) as client:
            sent = [("images", ("a", saved(PHOTO[:20]))), ("images", ("b", PNG))]
            results = client.post("/v1/segment", files=sent).json()["results"]
        assert results[0]["image"]["height"] == 20
        assert results[1]["problem"]["status"] == 413


class TestModels:
    def test_are_listed_with_their_cards(
        self, client: TestClient, segmenter_run: Path, classifier_run: Path
    ) -> None:
        listed = client.get("/v1/models").json()
        assert listed["default"] == "cracks"
        cracks, walls = listed["models"]
        assert cracks.items() >= {
            "name": "cracks", "version": 1, "previous": None, "task": "segmentation",
            "run": segmenter_run.name,
            "recipe": "tiny", "threshold": 0.5, "classes": ["background", "crack"],
            "trained_on": ["synthetic"],
        }.items()  # fmt: skip
        assert cracks["parameters"] > 100
        assert walls["classes"] == ["crack", "sound"]
        assert "threshold" not in walls

    @pytest.mark.parametrize(
        ("task", "query"),
        [
            ("segment", {}),
            ("segment", {"model": "cracks"}),
            ("classify", {}),
            ("classify", {"model": "walls"}),
        ],
    )
    def test_are_chosen_by_name_or_by_task(
        self, client: TestClient, task: str, query: dict[str, str]
    ) -> None:
        assert client.post(f"/v1/{task}", content=PNG, params=query).status_code == 200


class Unhappy(OneModel):
    """A host whose answers are what a test makes of them."""

    def __init__(self, worker: Worker, answer: Callable[[], Any]) -> None:
        super().__init__(worker)
        self._answer = answer

    async def answer(self, model: Hosted, photograph: bytes, asked: ImageQuery, *, seconds: float) -> Reply:
        found = self._answer()
        if asyncio.iscoroutine(found):
            return await found
        return await super().answer(model, photograph, asked, seconds=seconds)


def failing() -> None:
    raise RuntimeError("secret internals")


class TestAProblem:
    def test_malformed(self, client: TestClient) -> None:
        response = client.post("/v1/segment", content=b"x", headers={"Content-Type": "multipart/form-data"})
        problem(response, 400, "malformed")
        put = client.put("/v1/models/a", content=b"\xff", headers={"Content-Type": "application/json"})
        problem(put, 400, "malformed")

    def test_no_token(self, segmenter: Worker) -> None:
        with served(OneModel(segmenter), token=TOKEN) as client:
            response = segment(client)
            problem(response, 401, "no-token")
            assert response.headers["www-authenticate"] == "Bearer"

    def test_outside_the_roots(self, client: TestClient) -> None:
        for run in ("/etc", "../x", "file:///etc", "/nowhere/open/../secret", "/nowhere/opening"):
            problem(client.put("/v1/models/cracks", json={"run": run}), 403, "outside-the-roots")

    def test_not_found(self, client: TestClient) -> None:
        assert "'none'" in problem(segment(client, model="none"), 404, "not-found")["detail"]
        document = problem(segment(client, model="walls"), 404, "not-found")
        assert "walls (classification)" in document["remedy"]
        for path in (
            "/none",
            "/v1",
            "/v1/segment/",
            "/v1/models/",
            "/../etc/passwd",
            "/v1/%2e%2e/x",
            "/docs",
            "/redoc",
        ):
            problem(client.get(path), 404, "not-found")
        problem(client.get("/none", headers={"Host": "localhost:1"}), 404, "not-found")

    def test_wrong_method(self, client: TestClient) -> None:
        response = client.get("/v1/segment")
        problem(response, 405, "wrong-method")
        assert response.headers["allow"] == "POST"

    @pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/models"])
    def test_head_is_answered_as_get_without_the_body(self, client: TestClient, path: str) -> None:
        head, get = client.head(path), client.get(path)
        assert head.status_code == get.status_code == 200
        assert (head.content, head.headers["content-type"]) == (b"", get.headers["content-type"])
        if path != "/metrics":  # it counts the requests themselves
            assert head.headers["content-length"] == str(len(get.content))
        assert SECURITY.items() <= dict(head.headers).items()

    def test_head_of_what_is_not_there_or_takes_no_get_is_refused_as_get_is(self, client: TestClient) -> None:
        assert client.head("/none").status_code == 404
        assert client.head("/v1/segment").status_code == 405

    @pytest.mark.parametrize(
        ("method", "address", "told"),
        [
            ("POST", "/v1/segment?treshold=0.9", "`treshold` is not known; did you mean `threshold`?"),
            ("POST", "/v1/segment?mm_per_px=0.1", "`mm_per_px` is not known; did you mean `mm_per_pixel`?"),
            ("POST", "/v1/segment?Threshold=0.9&x=1", "did you mean `threshold`?; `x` is not known"),
            ("POST", "/v1/segment?threshold=0.1&threshold=0.9", "`threshold` is there twice"),
            ("POST", "/v1/classify?threshold=0.9", "`threshold` is not known"),
            ("POST", "/v1/classify?modell=walls", "did you mean `model`?"),
            ("GET", "/v1/models?name=walls", "`name` is not known"),
            ("POST", "/v1/models/cracks/rollback?now=1", "`now` is not known"),
            ("GET", "/healthz?verbose=1", "`verbose` is not known"),
            ("HEAD", "/healthz?verbose=1", ""),
        ],
    )
    def test_a_query_that_no_route_knows_is_refused_by_name(
        self, client: TestClient, method: str, address: str, told: str
    ) -> None:
        headers = {"Content-Type": "image/png"}
        response = client.request(method, address, content=PNG if method == "POST" else None, headers=headers)
        if method == "HEAD":
            assert response.status_code == 422
        else:
            assert told in problem(response, 422, "invalid-value")["detail"]

    def test_options_in_a_multipart_are_told_to_go_into_the_query(self, client: TestClient) -> None:
        sent = {"files": [("images", ("w.png", PNG))], "data": {"mm_per_pixel": "0.1", "tresh": "1"}}
        document = problem(client.post("/v1/segment", **sent), 422, "invalid-value")
        assert "`mm_per_pixel` is an option, and options go into the query" in document["detail"]
        assert "/v1/segment?mm_per_pixel=0.1" in document["remedy"]
        document = problem(client.post("/v1/classify", **sent), 422, "invalid-value")
        assert "`mm_per_pixel` is not known" in document["detail"]

    def test_a_document_with_fields_that_nobody_knows_names_each_and_what_is_missing(
        self, client: TestClient
    ) -> None:
        document = problem(client.put("/v1/models/cracks", json={"runs": "/x", "y": 1}), 422, "invalid-value")
        assert "`runs` is not known; did you mean `run`?" in document["title"]
        assert "`y` is not known" in document["title"]
        assert "`run` is needed" in document["title"]

    @pytest.mark.parametrize("media", ["image/jpg", "image/pjpeg", "image/x-png", "binary/octet-stream"])
    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_an_image_under_a_name_that_programs_use_is_read_by_its_bytes(
        self, client: TestClient, media: str, kind: str
    ) -> None:
        assert segment(client, saved(PHOTO, kind), media=media).status_code == 200

    def test_not_acceptable(self, client: TestClient) -> None:
        problem(segment(client, accept="text/html"), 406, "not-acceptable")

    def test_conflict(self, client: TestClient) -> None:
        problem(client.put("/v1/models/cracks", json={"run": "/nowhere/open/run"}), 409, "conflict")
        problem(client.post("/v1/models/cracks/rollback"), 409, "conflict")

    def test_too_large_of_a_body(self, segmenter: Worker) -> None:
        with served(OneModel(segmenter), body_bytes=1024) as client:
            assert "1025 bytes" in problem(segment(client, b"x" * 1025), 413, "too-large")["detail"]
            chunked = client.post("/v1/segment", content=(b"x" * 100 for _ in range(11)))
            problem(chunked, 413, "too-large")
            problem(client.post("/v1/segment", files=[("images", ("a", b"x" * 2000))]), 413, "too-large")

    def test_too_large_of_an_image_by_its_header_whatever_its_bytes(self, segmenter: Worker) -> None:
        header = bytearray(PNG)
        header[16:24] = (10_000).to_bytes(4) + (10_000).to_bytes(4)
        header[29:33] = __import__("zlib").crc32(header[12:29]).to_bytes(4)
        with served(OneModel(segmenter), pixels=10**6) as client:
            document = problem(segment(client, bytes(header)), 413, "too-large")
        assert "10000x10000" in document["detail"]

    def test_too_large_of_a_batch(self, segmenter: Worker) -> None:
        with served(OneModel(segmenter), images=4) as client:
            problem(client.post("/v1/segment", files=files()), 413, "too-large")

    def test_not_an_image_type(self, client: TestClient) -> None:
        problem(segment(client, media="text/plain"), 415, "not-an-image-type")

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"no image",
            PNG[:60],
            PNG[:-40],
            b"<svg/>",
            saved(PHOTO, "JPEG")[:200],
            saved(PHOTO, "JPEG")[: len(saved(PHOTO, "JPEG")) // 2] + b"\xff\xd9",
        ],
    )
    def test_unreadable_image(self, client: TestClient, data: bytes) -> None:
        for answer in ("json", "mask"):
            problem(segment(client, data, answer=answer), 422, "unreadable-image")

    def test_unreadable_image_of_a_phone_is_named_with_the_cure(
        self, client: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        heic = b"\0\0\0\x18ftypheic" + bytes(100)
        for media in ("image/heic", "application/octet-stream", "image/jpeg"):
            document = problem(segment(client, heic, media=media), 422, "unreadable-image")
            assert "is a HEIC photograph" in document["detail"]
            assert "save it as JPEG" in document["remedy"]

    @pytest.mark.parametrize(
        "query",
        [
            {"threshold": "1.1"}, {"threshold": "nan"}, {"threshold": "x"}, {"mm_per_pixel": "0"},
            {"mm_per_pixel": "inf"},
            {"mm_per_pixel": "1e7"}, {"answer": "svg"}, {"answer": ""}, {"model": ""}, {"model": "x" * 64},
        ],
    )  # fmt: skip
    def test_invalid_value(self, client: TestClient, query: dict[str, str]) -> None:
        document = problem(segment(client, query=query), 422, "invalid-value")
        assert next(iter(query)) in document["title"]

    @pytest.mark.parametrize(
        ("query", "rule"),
        [
            ({"threshold": "300"}, "`threshold` is a number from 0 to 1"),
            ({"threshold": "abc"}, "`threshold` is a number from 0 to 1"),
            ({"mm_per_pixel": "-1"}, "`mm_per_pixel` is a number above 0 and below 1,000,000"),
            ({"answer": "svg"}, "`answer` is one of json, mask, probability, overlay"),
            ({"model": ""}, "`model` is a text of 1 to 63 characters"),
        ],
    )
    def test_an_invalid_value_is_told_by_its_rule_and_the_name_that_was_written(
        self, client: TestClient, query: dict[str, str], rule: str
    ) -> None:
        document = problem(segment(client, query=query), 422, "invalid-value")
        assert document["title"] == rule
        assert document["detail"] == f"{next(iter(query.values()))!r} was sent"

    def test_so_is_one_of_a_document(self, client: TestClient) -> None:
        sent = {"run": 1, "threshold": 2, "default": "yes"}
        document = problem(client.put("/v1/models/cracks", json=sent), 422, "invalid-value")
        assert document["title"] == (
            "`run` is a text of 1 to 4,096 characters; `threshold` is a number from 0 to 1; `default` is true"
            " or false"
        )

    @pytest.mark.parametrize(
        "body",
        [
            b"", b"{", b"[]", b"null", b"{}", b'{"run": 1}', b'{"run": ""}', b'{"run": "/a", "threshold": 2}',
            b'{"run": "/a", "x": 1}',
            b'{"run": "/a", "threshold": "0.5"}', b'{"run": "/a", "threshold": NaN}', b'{"run": "\\ud800"}',
            b'{"run":"' + b"a" * 5000 + b'"}',
        ],
    )  # fmt: skip
    def test_invalid_value_of_a_document(self, client: TestClient, body: bytes) -> None:
        response = client.put("/v1/models/cracks", content=body, headers={"Content-Type": "application/json"})
        assert len(problem(response, 422, "invalid-value")["detail"]) < 200

    @pytest.mark.parametrize("name", ["UPPER", "a b", "-a", "a" * 64, "ü", "%00", "a%0a"])
    def test_invalid_value_of_a_name(self, client: TestClient, name: str) -> None:
        problem(client.post(f"/v1/models/{name}/rollback"), 422, "invalid-value")

    def test_too_many_waiting(self, segmenter: Worker) -> None:
        begun, go = threading.Event(), threading.Event()

        async def slow() -> Reply:
            begun.set()
            await asyncio.to_thread(go.wait, 30)
            return await segmenter.answer(PNG, ImageQuery())

        with served(Unhappy(segmenter, slow), waiting_images=1) as client, ThreadPoolExecutor(1) as pool:
            first = pool.submit(segment, client)
            assert begun.wait(30)
            response = segment(client)
            go.set()
            assert first.result().status_code == 200
        document = problem(response, 429, "too-many-waiting")
        assert response.headers["retry-after"] == str(document["retry_after"]) == "1"

    def test_too_many_waiting_is_judged_by_the_time_that_images_took(self, segmenter: Worker) -> None:
        now, large = 0.0, saved(np.zeros((300, 300, 3), np.uint8))

        async def two_seconds() -> Reply:
            nonlocal now
            now += 2
            return await segmenter.answer(large, ImageQuery())

        host = Unhappy(segmenter, two_seconds)
        service = Service(host, limits=Limits(), roots=Roots(), clock=lambda: now)
        with TestClient(build_app(service), base_url="http://127.0.0.1") as client:
            assert segment(client, large).status_code == 200
            problem(segment(client, b"no image"), 422, "unreadable-image")
        assert service.gate.images == service.gate.bytes == 0
        with service.gate.admitted([90_000]):
            assert service.gate.seconds_ahead == pytest.approx(2)

    @pytest.mark.parametrize("batch", [False, True])
    def test_failed_tells_nothing_of_the_failure_but_to_the_log(
        self, segmenter: Worker, caplog: pytest.LogCaptureFixture, batch: bool
    ) -> None:
        with served(Unhappy(segmenter, failing)) as client:
            response = client.post("/v1/segment", files=files()[:2]) if batch else segment(client)
        if batch:
            results = response.json()["results"]
            assert [one["problem"]["type"].split(":")[-1] for one in results] == [
                "failed",
                "unreadable-image",
            ]
        else:
            problem(response, 500, "failed")
        assert "secret internals" not in response.text
        assert "RuntimeError: secret internals" in caplog.text

    def test_failed_of_anything_at_all(self, segmenter: Worker, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(OneModel):
            def models(self) -> Models:
                raise ZeroDivisionError("secret internals")

        with served(Broken(segmenter)) as client:
            for response in (client.get("/v1/models"), segment(client), client.get("/readyz")):
                problem(response, 500, "failed")
                assert "secret" not in response.text
        assert caplog.text.count("ZeroDivisionError: secret internals") == 3

    def test_failed_of_the_network_is_that_of_the_image_alone(
        self, segmenter_run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        worker = Worker(open_model(segmenter_run, device=CPU), Limits())
        real = worker.model.predictor.model.forward  # type: ignore[union-attr]

        def forward(pixels: torch.Tensor) -> torch.Tensor:
            if pixels.std(dim=(2, 3)).max() < 1e-6:
                raise RuntimeError("secret internals")
            return real(pixels)

        monkeypatch.setattr(worker.model.predictor.model, "forward", forward)  # type: ignore[union-attr]
        with served(OneModel(worker)) as client:
            sent = [("images", ("a", PNG)), ("images", ("b", saved(DARK))), ("images", ("c", PNG))]
            results = client.post("/v1/segment", files=sent).json()["results"]
            assert segment(client).status_code == 200
        worker.close()
        assert ["problem" in one for one in results] == [False, True, False]
        assert "secret" not in json.dumps(results)

    def test_of_memory_that_does_not_suffice_is_the_image_s(
        self, segmenter_run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker = Worker(open_model(segmenter_run, device=CPU), Limits())
        allocate = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
        for error in (MemoryError(), RuntimeError(allocate), RuntimeError("CUDA out of memory")):

            def raising(*_: Any, error: Exception = error) -> None:
                raise error

            monkeypatch.setattr(worker.model.predictor.model, "forward", raising)  # type: ignore[union-attr]
            with served(OneModel(worker)) as client:
                problem(segment(client), 413, "too-large")
        worker.close()

    def test_not_ready(self, segmenter: Worker) -> None:
        refusal = Problem("not-ready", "a replica answers", "none could", "wait", retry_after=5)

        def refusing() -> None:
            raise Refused(refusal)

        with served(Unhappy(segmenter, refusing)) as client:
            response = segment(client)
        assert problem(response, 503, "not-ready")["retry_after"] == 5
        assert response.headers["retry-after"] == "5"

        class Empty(OneModel):
            def models(self) -> Models:
                return Models("cracks", {})

        with served(Empty(segmenter)) as client:
            problem(client.get("/readyz"), 503, "not-ready")
            problem(segment(client), 404, "not-found")
            assert client.get("/healthz").json() == {"status": "up"}

    def test_too_slow_and_its_work_is_given_up(self, segmenter: Worker) -> None:
        given_up = threading.Event()

        async def endless() -> Reply:
            try:
                await asyncio.Event().wait()
            finally:
                given_up.set()
            raise AssertionError

        with served(Unhappy(segmenter, endless), seconds=0.2, waiting_images=1) as client:
            problem(segment(client), 504, "too-slow")
            assert given_up.is_set()
            problem(segment(client), 504, "too-slow")  # nothing of the first waits any more


def asgi(client: TestClient, path: str, messages: list[Message], headers: dict[str, str]) -> list[Message]:
    """What the application sends to a client that sends these messages, and then nothing more for ever."""
    sent: list[Message] = []
    left = list(messages)

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "",
        "scheme": "http", "http_version": "1.1", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 9),
        "extensions": {},
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(client.app(scope, receive, send), 30))
    return sent


class TestABodyThatDoesNotCome:
    def test_is_waited_for_no_longer_than_a_request_may_take(self, segmenter: Worker) -> None:
        with served(OneModel(segmenter), seconds=0.2) as client:
            begun = {"type": "http.request", "body": PNG[:50], "more_body": True}
            sent = asgi(
                client, "/v1/segment", [begun], {"Content-Type": "image/png", "Content-Length": str(len(PNG))}
            )
            assert sent[0]["status"] == 504

    @pytest.mark.parametrize("media", ["image/png", "multipart/form-data; boundary=b"])
    def test_since_the_client_went_is_no_failure(
        self, segmenter: Worker, caplog: pytest.LogCaptureFixture, media: str
    ) -> None:
        with served(OneModel(segmenter)) as client:
            begun = {"type": "http.request", "body": b"--b\r\n", "more_body": True}
            sent = asgi(client, "/v1/segment", [begun, {"type": "http.disconnect"}], {"Content-Type": media})
            assert sent == []
            assert counted(client)["fissura_requests_total", "/v1/segment", "499"] == 1
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]

    def test_of_a_document_is_refused_before_it_is_in_memory(self, segmenter: Worker) -> None:
        with served(OneModel(segmenter)) as client:
            for media in ("application/json", "text/plain", "image/png"):
                put = client.put("/v1/models/a", content=b"[" * 70_000, headers={"Content-Type": media})
                problem(put, 413, "too-large")
                post = client.post(
                    "/v1/models/a/rollback", content=b"[" * 70_000, headers={"Content-Type": media}
                )
                assert post.status_code in (409, 413)


def counted(client: TestClient, token: str | None = None) -> dict[tuple[str, ...], float]:
    """(sample, labels...) -> value of /metrics."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    response = client.get("/metrics", headers=headers)
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


class TestMetrics:
    def test_count_requests_images_and_pixels(self, segmenter: Worker) -> None:
        with served(OneModel(segmenter, name="cracks")) as client:
            segment(client)
            segment(client, b"no image")
            client.post("/v1/segment", files=files())
            client.get("/none")
            client.get("/other")
            found = counted(client)
        assert found["fissura_requests_total", "/v1/segment", "200"] == 2
        assert found["fissura_requests_total", "/v1/segment", "422"] == 1
        assert found["fissura_requests_total", "none", "404"] == 2  # no label that a client may make up
        assert found["fissura_images_total", "cracks", "answered"] == 5
        assert found["fissura_images_total", "cracks", "unreadable-image"] == 2
        assert found["fissura_pixels_total", "cracks"] == 41 * (30 * 4 + 10)
        assert found["fissura_request_seconds_count", "/v1/segment"] == 3
        assert found["fissura_request_seconds_sum", "/v1/segment"] > 0
        assert found["fissura_waiting_images",] == found["fissura_refused_requests",] == 0

    def test_count_what_was_refused(self, segmenter: Worker) -> None:
        with served(OneModel(segmenter), body_bytes=1024, token=TOKEN) as client:
            segment(client)
            found = counted(client, TOKEN)
        assert found["fissura_requests_total", "none", "401"] == 1


class TestAToken:
    def test_is_asked_for_by_all_that_tells_of_models_or_images(self, segmenter: Worker) -> None:
        with served(OneModel(segmenter), token=TOKEN) as client:
            behind = [
                ("POST", "/v1/segment"), ("POST", "/v1/classify"), ("GET", "/v1/models"),
                ("PUT", "/v1/models/a"),
                ("POST", "/v1/models/a/rollback"), ("GET", "/metrics"), ("GET", "/openapi.json"),
                ("GET", "/none"),
                ("GET", "/v1/segment"), ("POST", "/healthz/"), ("GET", "/healthz/../metrics"),
                ("GET", "/%68ealthz/"),
            ]  # fmt: skip
            for method, path in behind:
                problem(client.request(method, path), 401, "no-token")
                wrong = client.request(method, path, headers={"Authorization": "Bearer wrong"})
                problem(wrong, 401, "no-token")
            for path in ("/", "/healthz", "/readyz"):
                assert client.get(path).status_code == 200
            right = {"Authorization": f"Bearer {TOKEN}"}
            assert client.get("/v1/models", headers=right).status_code == 200
            assert client.post("/v1/segment", content=PNG, headers=right).status_code == 200

    def test_is_asked_for_before_a_body_is_read(self, segmenter: Worker) -> None:
        with served(OneModel(segmenter), token=TOKEN, body_bytes=1024) as client:
            for path in ("/v1/segment", "/v1/models/a"):  # a body that never comes
                sent = asgi(client, path, [], {"Content-Type": "application/json", "Content-Length": "9999"})
                assert sent[0]["status"] == 401

    def test_is_in_no_log_and_no_answer(self, segmenter: Worker, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        with served(Unhappy(segmenter, failing), token=TOKEN) as client:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            texts = [client.post("/v1/segment", content=PNG, headers=headers).text]
            texts += [
                client.get(path, headers=headers).text
                for path in ("/metrics", "/openapi.json", "/v1/models", "/none")
            ]
            texts.append(client.get("/none", headers={"Authorization": f"Basic {TOKEN}"}).text)
        assert TOKEN not in "".join(texts) + caplog.text
        assert token_digest(TOKEN) not in "".join(texts) + caplog.text


class TestEveryAnswer:
    def test_has_the_security_headers(self, client: TestClient) -> None:
        for response in (
            segment(client), segment(client, answer="mask"),
            client.post("/v1/segment", files=files(), params={"answer": "mask"}),
            *map(client.get, ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/models", "/no"]),
        ):  # fmt: skip
            assert SECURITY.items() <= dict(response.headers).items()

    def test_sends_nobody_anywhere_else(self, client: TestClient) -> None:
        for path in ("/v1/segment/", "/v1/models/", "/healthz/"):
            response = client.get(path, headers={"Host": "ever.localhost"}, follow_redirects=False)
            problem(response, 404, "not-found")
            assert "ever" not in str(response.headers) + response.text

    def test_of_the_page_lets_a_browser_load_what_is_in_it_alone(self, client: TestClient) -> None:
        response = client.get("/")
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert policy["connect-src"] == "'self'"
        assert "unsafe" not in response.headers["content-security-policy"]
        for tag in ("script", "style"):
            [text] = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", response.text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
        assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", response.text)

    def test_of_the_page_is_read_and_hashed_once(
        self, client: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = client.get("/")
        monkeypatch.setattr(Path, "read_text", None)
        assert client.get("/").content == first.content


class TestTheInterface:
    def test_is_described_by_a_valid_document(self, client: TestClient) -> None:
        document = client.get("/openapi.json").json()
        assert document["openapi"].startswith("3.1")
        from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

        for schema in document["components"]["schemas"].values():
            Draft202012Validator.check_schema(schema)
        for reference in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)):
            assert reference in document["components"]["schemas"]
        assert {
            "/v1/segment",
            "/v1/classify",
            "/v1/models",
            "/v1/models/{name}",
            "/healthz",
            "/readyz",
            "/metrics",
        } <= set(document["paths"])

    def test_asks_for_the_token_where_there_is_one(self, segmenter: Worker, client: TestClient) -> None:
        assert "security" not in client.get("/openapi.json").json()
        with served(OneModel(segmenter), token=TOKEN) as behind:
            document = behind.get("/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json()
        assert document["security"] == [{"token": []}]
        assert document["paths"]["/healthz"]["get"]["security"] == []
        assert "security" not in document["paths"]["/v1/segment"]["post"]

    def test_names_every_status_that_a_route_may_have(self, client: TestClient) -> None:
        paths = client.get("/openapi.json").json()["paths"]
        expected = {"400", "401", "403", "404", "406", "408", "413", "415", "422", "429", "500", "503", "504"}
        assert set(paths["/v1/segment"]["post"]["responses"]) == {"200", *expected}
        assert {"200", "400", "401", "403", "408", "409", "413", "422", "500", "503"} <= set(
            paths["/v1/models/{name}"]["put"]["responses"]
        )


class TestAWorker:
    def test_gives_memory_back_after_a_large_photograph_alone(
        self, segmenter: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trimmed: list[bool] = []
        monkeypatch.setattr("fissura.serving.worker.trim_memory", lambda: trimmed.append(True))
        height, width = decode(PNG).pixels.shape[:2]
        for most, times in ((height * width, 0), (height * width - 1, 1)):
            monkeypatch.setattr("fissura.serving.worker.LARGE_PIXELS", most)
            assert asyncio.run(segmenter.answer(PNG, ImageQuery())).problem is None
            assert len(trimmed) == times

    def test_on_a_cpu_takes_one_image_at_a_time_so_that_each_is_answered_when_it_is_ready(
        self, segmenter_run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken: list[int] = []
        worker = Worker(open_model(segmenter_run, device=CPU), Limits())
        real = type(worker.model).__call__

        def counted(model: Any, images: Any, **named: Any) -> Any:
            taken.append(len(images))
            return real(model, images, **named)

        monkeypatch.setattr(type(worker.model), "__call__", counted)

        async def main() -> None:
            await asyncio.gather(*(worker.answer(PNG, ImageQuery()) for _ in range(6)))

        asyncio.run(main())
        worker.close()
        assert taken == [1] * 6
