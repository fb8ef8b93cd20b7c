"""The service against what nobody should send: requests drawn from its own interface, and damaged images."""

import io
import struct
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import schemathesis
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from PIL import Image
from schemathesis import Case, GenerationMode
from schemathesis.checks import positive_data_acceptance
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from fissura.deploy.model import open_model
from fissura.serving.allowed_roots import Roots
from fissura.serving.app import build_app
from fissura.serving.body import RAW_TYPES
from fissura.serving.job_routes import job_routes
from fissura.serving.limits import Limits
from fissura.serving.service import Service
from fissura.serving.tokens import token_digest
from fissura.serving.worker import Worker
from fissura.testing.serving import OneModel

FORMS = ("json", "mask", "probability", "overlay")
TOKEN = "correct-horse-battery-staple"  # noqa: S105
COMPRESSIONS = ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
Call = Callable[[Case[Any]], int]
GROWTH_BYTES = 64 * 2**20  # of 10,000 files a leak of 13 KB each would show


@pytest.fixture(scope="module")
def worker(segmenter_run: Path) -> Iterator[Worker]:
    torch.set_num_threads(2)
    limits = Limits(pixels=2**21)
    worker = Worker(open_model(segmenter_run, device=torch.device("cpu")), limits, name="cracks")
    yield worker
    worker.close()


def service(worker: Worker, *, token: str | None = None, **limits: int) -> Service:
    digest = None if token is None else token_digest(token)
    host = OneModel(worker, name="cracks")
    return Service(host, limits=Limits(**limits), roots=Roots(["/nowhere/open"]), token_digest=digest)


# ---------------------------------------------------------------- images, whole and damaged


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def several(pixels: np.ndarray, kind: str) -> bytes:
    """An animation, or a stack of pages."""
    first, *more = (Image.fromarray(pixels + np.uint8(shift)) for shift in (0, 60, 120))
    return saved(first, kind, save_all=True, append_images=more)


def whole_images() -> dict[str, bytes]:
    """Images of every format and mode that programs write; some of them are refused as they are."""
    generator = np.random.default_rng(0)
    smooth = np.stack(np.broadcast_arrays(*np.mgrid[0:240:6, 0:240:5], 128), axis=2).astype(np.uint8)
    noise = generator.integers(0, 256, (20, 24, 4), dtype=np.uint8)
    photo, rough, alpha = Image.fromarray(smooth), Image.fromarray(noise[..., :3]), Image.fromarray(noise)
    deep = generator.integers(0, 65536, (20, 24, 3), dtype=np.uint16)
    tags = Image.Exif()
    tags[0x0112] = 6
    return {
        **{f"{kind} {mode}": saved(photo.convert(mode), kind) for kind, mode in (
            ("PNG", "RGB"), ("PNG", "L"), ("PNG", "1"), ("PNG", "P"), ("PNG", "LA"), ("JPEG", "RGB"),
            ("JPEG", "L"),
            ("JPEG", "CMYK"), ("TIFF", "RGB"), ("TIFF", "1"), ("TIFF", "CMYK"), ("TIFF", "LAB"),
            ("TIFF", "F"),
            ("TIFF", "P"), ("BMP", "RGB"), ("BMP", "L"), ("BMP", "1"), ("BMP", "P"), ("GIF", "P"),
            ("WEBP", "RGB"),
        )},
        "PNG with alpha": saved(alpha, "PNG"), "WebP with alpha": saved(alpha, "WEBP", lossless=True),
        "PNG of 16 bits": bytes(cv2.imencode(".png", deep)[1]),
        "grey PNG of 16 bits": bytes(cv2.imencode(".png", deep[..., 0])[1]),
        "TIFF of 16 bits": bytes(cv2.imencode(".tiff", deep)[1]),
        "progressive JPEG": saved(photo, "JPEG", progressive=True),
        "JPEG turned by EXIF": saved(photo, "JPEG", exif=tags),
        "WebP turned by EXIF": saved(photo, "WEBP", exif=tags),
        **{f"TIFF {way}": saved(rough, "TIFF", compression=way) for way in COMPRESSIONS},
        **{f"{kind} of three": several(smooth, kind) for kind in ("GIF", "WEBP", "PNG", "MPO", "TIFF")},
    }  # fmt: skip


def odd_files(images: dict[str, bytes]) -> dict[str, bytes]:
    """Files made with intent: nothing, bombs, two formats in one, headers that lie."""
    png, jpeg, gif, tiff = (images[name] for name in ("PNG RGB", "JPEG RGB", "GIF P", "TIFF RGB"))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a", "b")
    start = jpeg.index(b"\xff\xc0") + 5
    bmp, webp = images["BMP RGB"], images["WEBP RGB"]
    huge = {
        "PNG": sized_png(png, 2**31 - 1, 2**31 - 1), "PNG of one line": sized_png(png, 2**31 - 1, 1),
        "PNG within the limit": sized_png(png, 1400, 1400), "PNG of no pixel": sized_png(png, 0, 0),
        "JPEG": jpeg[:start] + b"\xff" * 4 + jpeg[start + 4 :],
        "JPEG of no pixel": jpeg[:start] + bytes(4) + jpeg[start + 4 :],
        "GIF": gif[:6] + b"\xff" * 4 + gif[10:], "BMP": bmp[:18] + b"\xff\xff\xff\x7f" * 2 + bmp[26:],
        "BMP upside down": bmp[:22] + struct.pack("<i", -(2**31)) + bmp[26:],
        "WebP": webp[:26] + b"\xff" * 4 + webp[30:],
    }  # fmt: skip
    bomb = zlib.compress(bytes(2**26), 9)
    return {
        **{f"huge {name}": data for name, data in huge.items()},
        "nothing": b"", "one byte": b"\x89", "a name": b"GIF89a", "zeros": bytes(5000),
        "ones": b"\xff" * 5000,
        "text": b"<html><script>alert(1)</script>", "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "JPEG and archive": jpeg + archive.getvalue(), "archive and JPEG": archive.getvalue() + jpeg,
        "GIF and script": gif.replace(b"GIF89a", b"GIF89a/*") + b"*/=1;alert(1)", "PNG and PNG": png + png,
        "PNG in JPEG": jpeg[:20] + png + jpeg[20:], "name of PNG, JPEG behind": png[:8] + jpeg,
        "PDF": b"%PDF-1.7\n" + jpeg,
        "PNG bomb": png[:33] + chunk(b"IDAT", bomb) + chunk(b"IEND", b""),
        "PNG with a bomb of text": png[:33] + chunk(b"zTXt", b"a\0\0" + bomb) + png[33:],
        "PNG with a bomb of colours": png[:33] + chunk(b"iCCP", b"a\0\0" + bomb) + png[33:],
        "PNG of many chunks": png[:33] + chunk(b"teSt", b"") * 2000 + png[33:],
        "PNG that ends at once": png[:33] + chunk(b"IEND", b""),
        "JPEG that ends at once": b"\xff\xd8\xff\xd9",
        "TIFF in a circle": tiff_circle(),
        "TIFF of many tags": tiff[:4] + struct.pack("<I", 8) + b"\xff\xff" + tiff[8:],
        "TIFF beyond its end": tiff[:4] + b"\xff\xff\xff\x7f" + tiff[8:],
    }  # fmt: skip


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def sized_png(png: bytes, width: int, height: int) -> bytes:
    """The PNG with another size in its header."""
    return png[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + png[24:29]) + png[33:]


def tiff_circle() -> bytes:
    """A TIFF whose first page is followed by itself."""
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 8, 279: 64}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    page = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + table + struct.pack("<I", 8)
    return page.ljust(200, b"\0") + bytes(64)


def damage(data: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    """The file after one to three accidents."""
    for _ in range(int(generator.integers(1, 4))):
        if len(data) < 16:
            return data
        out, size = bytearray(data), len(data)
        # most of what decides how a file is read stands at its beginning
        place = int(generator.integers(0, min(size, 200) if generator.random() < 0.5 else size))
        length = int(generator.integers(1, 40))
        match int(generator.integers(0, 9)):
            case 0:
                out = out[:place]
            case 1:
                for _ in range(length // 3 + 1):
                    at = int(generator.integers(0, size))
                    out[at] ^= 1 << int(generator.integers(0, 8))
            case 2:
                out[place] ^= 1 << int(generator.integers(0, 8))
            case 3:
                out[place : place + length] = generator.bytes(len(out[place : place + length]))
            case 4:
                out[place : place + length] = bytes([int(generator.choice([0, 255, 127]))]) * length
            case 5:
                del out[place : place + length]
            case 6:
                out[place:place] = generator.bytes(length)
            case 7:
                out = out[:place] + bytearray(other[place:])
            case 8:
                value = int(generator.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
                out[place : place + 4] = value.to_bytes(4, "big" if generator.random() < 0.5 else "little")
        data = bytes(out)
    return data


def files_to_send(count: int) -> Iterator[tuple[str, bytes]]:
    """(what it is, its bytes): all images and odd files as they are, and then damaged ones."""
    images = whole_images()
    named = [*images.items(), *odd_files(images).items()]
    yield from named[:count]
    generator = np.random.default_rng(1)
    small = [(name, data) for name, data in named if len(data) < 20_000]
    for _ in range(count - len(named)):
        name, data = small[int(generator.integers(len(small)))]
        _, other = small[int(generator.integers(len(small)))]
        yield f"damaged {name}", damage(data, other, generator)


def resident_bytes() -> int:
    """Of this process."""
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) * 1024


def send_all(worker: Worker, count: int) -> str:
    """Sends so many files, one after the other and each twelfth with others as a batch; gives the numbers."""
    statuses: Counter[int] = Counter()
    slowest, recent, begin, warm = (0.0, ""), list[tuple[str, bytes]](), time.monotonic(), 0
    with TestClient(
        build_app(service(worker, pixels=2**21)), base_url="http://127.0.0.1", raise_server_exceptions=False
    ) as client:
        for number, (name, data) in enumerate(files_to_send(count)):
            form, since = FORMS[number % len(FORMS)], time.monotonic()
            response = client.post("/v1/segment", content=data, params={"answer": form})
            statuses[response.status_code] += 1
            slowest = max(slowest, (time.monotonic() - since, name))
            check_answer(name, response, form, data)
            recent = [*recent[-11:], (name, data)]
            if number % 12 == 11:
                sent = [("images", pair) for pair in recent]
                results = client.post("/v1/segment", files=sent).json()["results"]
                assert [one["image"]["name"] for one in results] == [name for name, _ in recent]
                assert all("problem" in one or one["cracks"]["area_px"] >= 0 for one in results)
                assert all(one.get("problem", {}).get("status", 0) < 500 for one in results)
            if number == count // 2:
                warm = resident_bytes()
    grown = resident_bytes() - warm
    assert statuses[200] > count / 20
    assert statuses[422] > count / 5
    assert grown < GROWTH_BYTES, f"{grown / 2**20:.0f} MB more after {count} files"
    return (
        f"{count} files in {time.monotonic() - begin:.0f} s: {dict(sorted(statuses.items()))}; slowest"
        f" {slowest[0]:.2f} s ({slowest[1]}); resident {warm / 2**20:.1f} MB after {count // 2},"
        f" {grown / 2**20:+.1f} MB at the end"
    )


def check_answer(name: str, response: Any, form: str, data: bytes) -> None:
    """It is a result of the form that was asked for, or a problem of the image."""
    if response.status_code == 200:
        if form == "json":
            assert response.json()["image"]["height"] >= 1
        else:
            assert Image.open(io.BytesIO(response.content)).format == ("JPEG" if form == "overlay" else "PNG")
        return
    assert response.status_code in (413, 422), (name, response.status_code, response.text, data[:200])
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert all(0 < len(document[part]) < 400 for part in ("title", "detail", "remedy")), (name, document)


@pytest.mark.end_to_end
class TestDamagedImages:
    def test_each_have_a_result_or_a_problem_and_nothing_is_left_of_them(self, worker: Worker) -> None:
        send_all(worker, 300)

    @pytest.mark.slow
    @pytest.mark.timeout(1800)
    def test_by_the_ten_thousand_too(self, worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
        numbers = send_all(worker, 10_000)
        with capsys.disabled():
            print(f"\n{numbers}")  # noqa: T201

    def test_are_as_many_kinds_as_they_should_be(self) -> None:
        images = whole_images()
        assert len(images) > 35
        assert len({data for _, data in files_to_send(300)}) > 280


# ---------------------------------------------------------------- requests from the interface itself


# Schemathesis's own list lacks 413: what is wrong in two ways may be refused for its size
REFUSALS = {
    "checks": {
        "negative_data_rejection": {
            "expected-statuses": [
                "400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429", "5xx",
            ]
        }
    }
}  # fmt: skip


@pytest.fixture(scope="module")
def images_in_bodies() -> None:
    """Bodies that the interface only calls binary are often images."""
    whole = list(whole_images().values())
    images = (
        st.sampled_from(whole) | st.sampled_from(whole).map(lambda data: data[:50]) | st.binary(max_size=99)
    )
    for media in RAW_TYPES:
        schemathesis.openapi.media_type(media, images)
    schemathesis.openapi.format("binary", images)


def interface(worker: Worker, *, token: str | None = None) -> BaseSchema:
    """The interface of a service, as it describes itself."""
    made = service(worker, token=token, body_bytes=2**14, pixels=2**16)
    app = as_localhost(build_app(made, job_routes(None, made.roots)))
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return schemathesis.openapi.from_asgi(
        "/openapi.json", app, headers=headers, config=SchemathesisConfig.from_dict(REFUSALS)
    )


def as_localhost(app: ASGIApp) -> ASGIApp:
    """The application, asked by a name that a service without a token answers to; not Schemathesis's."""

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope = {**scope, "headers": [(b"host", b"localhost"), *others]}
        await app(scope, receive, send)

    return asked


def drawn(schema: BaseSchema, *, examples: int, call: Call) -> dict[str, Counter[int]]:
    """Draws requests for each operation, as the interface has them and against it; gives the statuses."""
    statuses: dict[str, Counter[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]  # it raises what is wrong with the interface
        statuses[operation.label] = Counter()
        for mode in GenerationMode:
            cases = operation.as_strategy(generation_mode=mode)
            try:
                statuses[operation.label] += drawn_of(cases, examples=examples, call=call)
            except Unsatisfiable:  # of a route that takes nothing, nothing can be wrong
                assert mode == GenerationMode.NEGATIVE
    return statuses


def drawn_of(cases: st.SearchStrategy[Case[Any]], *, examples: int, call: Call) -> Counter[int]:
    statuses: Counter[int] = Counter()

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(case=cases, model=st.sampled_from(["as drawn", "default", "cracks"]))
    def run(case: Case[Any], model: str) -> None:
        if model != "as drawn" and case.query and case.query.pop("model", None) and model != "default":
            case.query["model"] = model
        statuses[call(case)] += 1

    run()
    return statuses


@pytest.mark.usefixtures("images_in_bodies")
@pytest.mark.end_to_end
class TestRequestsDrawnFromTheInterface:
    def test_are_answered_as_it_says(self, worker: Worker) -> None:
        self.judge(worker, examples=30)

    @pytest.mark.slow
    @pytest.mark.timeout(1800)
    def test_are_answered_as_it_says_by_the_thousand(self, worker: Worker) -> None:
        self.judge(worker, examples=600)

    def judge(self, worker: Worker, *, examples: int) -> None:
        def call(case: Case[Any]) -> int:
            # every check that there is, but that all that is binary is taken for an image
            response = case.call_and_validate(excluded_checks=[positive_data_acceptance])
            assert response.status_code < 500 or response.status_code == 503
            return response.status_code

        statuses = drawn(interface(worker), examples=examples, call=call)
        assert {"POST /v1/segment", "PUT /v1/models/{name}", "POST /v1/jobs", "GET /metrics"} <= set(statuses)
        assert statuses["POST /v1/segment"].keys() >= {200, 422}
        assert statuses["GET /v1/models"].keys() == {200}

    def test_that_lack_the_token_are_all_refused(self, worker: Worker) -> None:
        def call(case: Case[Any]) -> int:
            return case.call(headers={"Authorization": "Bearer wrong"}).status_code

        statuses = drawn(interface(worker, token=TOKEN), examples=5, call=call)
        behind = {
            label: set(found)
            for label, found in statuses.items()
            if label not in ("GET /healthz", "GET /readyz")
        }
        assert len(behind) >= 10
        assert {label: found for label, found in behind.items() if found != {401}} == {}
