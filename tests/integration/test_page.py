"""The service's page in a browser: what an engineer drops on it, what he sees, and what it may not do."""

import base64
import csv
import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image, ImageOps
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fissura.deploy.model import open_model
from fissura.reports.pictures import RIGHT
from fissura.segmentation.crack_measures import measure
from fissura.serving.allowed_roots import Roots
from fissura.serving.app import build_app
from fissura.serving.limits import Limits
from fissura.serving.page import page as document
from fissura.serving.service import Service
from fissura.serving.worker import Worker
from fissura.testing.serving import OneModel

THRESHOLD = 0.5
TOKEN = "correct-horse-battery"  # noqa: S105
CARD = {
    "run": "1a2b3c4d5e6f", "recipe": "small_unet", "parameters": 121_025, "trained_on": ["cfd"],
    "finished": "2026-11-20T10:00:00+00:00", "code_version": "0.1.0", "previous": None,
}  # fmt: skip
SEGMENTER = {
    **CARD, "name": "cracks", "version": 3, "task": "segmentation", "threshold": THRESHOLD,
    "classes": ["background", "crack"],
}  # fmt: skip
CLASSIFIER = {
    **CARD, "name": "walls", "version": 1, "task": "classification", "recipe": "cnn_svm",
    "classes": ["crack", "sound", "stain"],
}  # fmt: skip
TWO_CLASSES = {**CLASSIFIER, "name": "pair", "classes": ["sound", "crack"]}


# ---------------------------------------------------------------- a service that keeps the contract


def contract_app() -> ASGIApp:
    """The service's interface over a segmenter that takes what is dark for a crack."""

    def front(_: Request) -> Response:
        html, policy = document()
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    def models(_: Request) -> Response:
        return JSONResponse({"default": "cracks", "models": [SEGMENTER, CLASSIFIER, TWO_CLASSES]})

    async def segment(request: Request) -> Response:
        body, query = await request.body(), request.query_params
        try:
            photograph = ImageOps.exif_transpose(Image.open(io.BytesIO(body)))
        except OSError:
            return problem(422, "an image is whole", "it is torn", "send the whole file")
        probability = darkness(photograph)
        threshold, scale = float(query.get("threshold", THRESHOLD)), query.get("mm_per_pixel")
        mask = probability / 255 >= threshold
        found = measure(mask, mm_per_pixel=float(scale) if scale else None)
        result = {
            **head(SEGMENTER, mask.shape),
            "threshold": threshold,
            "cracks": found.plain(),
            "crack_table": found.table()[:10],
            "seconds": 0.01,
        }
        form = query.get("answer", "json")
        if form == "json":
            return JSONResponse(result)
        drawn = np.where(mask[..., None], np.array(RIGHT, np.uint8), np.asarray(photograph.convert("RGB")))
        pictures = {"mask": np.uint8(255) * mask, "probability": probability, "overlay": drawn}
        kind = "jpeg" if form == "overlay" else "png"
        return Response(
            encoded(Image.fromarray(pictures[form]), kind.upper(), quality=95),
            media_type=f"image/{kind}",
            headers={"Fissura-Result": json.dumps(result)},
        )

    async def classify(request: Request) -> Response:
        image = Image.open(io.BytesIO(await request.body()))
        if request.query_params["model"] == "pair":
            card, decided = TWO_CLASSES, {"label": "crack", "decisions": [1.25]}
        elif darkness(image).max() > 128:
            card, decided = CLASSIFIER, {"label": "crack", "decisions": [0.5, 1.5, -0.25]}
        else:
            card, decided = CLASSIFIER, {"label": "sound", "decisions": [-2.0, 1.5, 0.125]}
        return JSONResponse({**head(card, (image.height, image.width)), **decided, "seconds": 0.01})

    return Starlette(
        routes=[
            Route("/", front),
            Route("/v1/models", models),
            Route("/v1/segment", segment, methods=["POST"]),
            Route("/v1/classify", classify, methods=["POST"]),
        ]
    )


def darkness(photograph: Image.Image) -> np.ndarray:
    """The fake model: uint8 [h w]."""
    return 255 - np.asarray(photograph.convert("L"))


def head(card: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """What every result begins with."""
    image = {
        "name": None,
        "height": shape[0],
        "width": shape[1],
        "sha256": "0" * 64,
        "remarks": ["it is grey"],
    }
    return {"model": card["name"], **{key: card[key] for key in ("version", "run", "task")}, "image": image}


def problem(status: int, title: str, detail: str, remedy: str, **headers: str) -> Response:
    """Problem details."""
    content = {"type": "urn:fissura:problem:any", "title": title, "status": status, "detail": detail}
    return JSONResponse(
        {**content, "remedy": remedy}, status, media_type="application/problem+json", headers=headers
    )


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@dataclass
class Watched:
    """An application with every request noted, behind a token if it has one; `refusals` come first."""

    app: ASGIApp
    url: str = ""
    token: str | None = None
    requests: list[str] = field(default_factory=list)
    refusals: list[Response] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request, answer = Request(scope, receive), self.app
        path = request.url.path
        if path.startswith("/v1/"):
            self.requests.append(f"{request.method} {path}?{request.url.query}".rstrip("?"))
            given = request.headers.get("authorization")
            if self.token is not None and given != f"Bearer {self.token}":
                await request.body()
                answer = problem(401, "a request carries the service's token", "none", "send it")
            elif request.method == "POST" and self.refusals:
                await request.body()
                answer = self.refusals.pop(0)
        await answer(scope, receive, send)


@contextmanager
def on_a_port(app: ASGIApp) -> Iterator[Watched]:
    """The application on a port of this machine, while the block lasts."""
    watched = Watched(app)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        watched.url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        config = uvicorn.Config(
            watched, log_level="error", lifespan="off", ws="none", http="h11", loop="asyncio"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield watched
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def served() -> Iterator[Watched]:
    """A service whose every answer a test knows beforehand."""
    with on_a_port(contract_app()) as watched:
        yield watched


# ---------------------------------------------------------------- a browser, and what a person does with it


def logged(driver: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """What the browser noted since this was asked last."""
    entries: list[dict[str, Any]] = driver.get_log(kind)  # type: ignore[no-untyped-call]
    return entries


PAINTED = """
const [done] = arguments, idle = () => document.getElementById('picture').ariaBusy !== 'true';
requestAnimationFrame(() => requestAnimationFrame(() => done(idle())));
"""
PIXEL = """
const [x, y, width, height] = arguments, canvas = document.getElementById('stage');
const scale = Math.min(canvas.width / width, canvas.height / height, 40);
const at = (place, all, room) => Math.floor((room - all * scale) / 2 + (place + 0.5) * scale);
const one = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
one.drawImage(canvas, -at(x, width, canvas.width), -at(y, height, canvas.height));
return [...one.getImageData(0, 0, 1, 1).data];
"""
MIDDLE = """
const canvas = document.getElementById('stage'), size = 200;
const copy = new OffscreenCanvas(size, size).getContext('2d', { willReadFrequently: true });
copy.drawImage(canvas, ...[canvas.width, canvas.height].map(length => Math.round((size - length) / 2)));
const { data } = copy.getImageData(0, 0, size, size);
return Array.from({ length: size * size }, (_, i) => [...data.slice(4 * i, 4 * i + 3)]);
"""
PASTE = """
const [encoded, name, type] = arguments, clipboardData = new DataTransfer();
clipboardData.items.add(new File([Uint8Array.from(atob(encoded), c => c.charCodeAt(0))], name, { type }));
document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
"""
CONTRASTS = """
const channels = colour => colour.match(/[\\d.]+/g).map(Number);
const linear = value => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const ground = element => {
  const colour = channels(getComputedStyle(element).backgroundColor);
  return colour[3] === 0 ? ground(element.parentElement) : colour;
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
for (let node; (node = texts.nextNode());) {
  const element = node.parentElement;
  if (!node.data.trim() || !element.checkVisibility() || element.closest('script, option, .unseen')) continue;
  const pair = [channels(getComputedStyle(element).color), ground(element)].map(luminance);
  found.push([node.data.trim(), (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)]);
}
return found;
"""


@dataclass
class Page:
    """The open page."""

    driver: webdriver.Chrome
    service: Watched
    downloads: Path

    def until(self, condition: Callable[[], Any]) -> Any:
        """What `condition` gives once it is true."""
        return WebDriverWait(self.driver, 20, poll_frequency=0.05).until(lambda _: condition())

    def one(self, selector: str) -> Any:
        """The element of a selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Its text as it is seen."""
        return str(self.one(selector).text)

    def button(self, label: str) -> Any:
        """The button with this text."""
        return self.driver.find_element(By.XPATH, f"//button[normalize-space()='{label}']")

    def choose(self, *paths: Path) -> None:
        """Takes files from the dialogue."""
        self.one("#files").send_keys("\n".join(map(str, paths)))

    def drop(self, *paths: Path) -> None:
        """Drags files onto the page and lets go."""
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            event = {"type": kind, "x": 300, "y": 300, "data": data}
            self.driver.execute_cdp_cmd("Input.dispatchDragEvent", event)

    def rows(self) -> list[list[str]]:
        """The cells of the table."""
        cells = "row => [...row.cells].map(cell => cell.innerText)"
        script = f"return [...document.querySelectorAll('tbody tr')].map({cells})"
        return [[plain(cell) for cell in row] for row in self.driver.execute_script(script)]

    def finished(self) -> None:
        """Waits until no photograph waits, and what is chosen is drawn."""
        self.until(lambda: self.rows() and not self.one("#progress").is_displayed())
        self.until(lambda: self.driver.execute_async_script(PAINTED))

    def show(self, view: str) -> None:
        """Turns to another view."""
        self.one(f"[value={view}]").click()
        self.until(lambda: self.driver.execute_async_script(PAINTED))

    def pixel(self, x: int, y: int, size: tuple[int, int]) -> tuple[int, ...]:
        """The colour on the stage of a pixel of a photograph of size (width, height) that fits it."""
        return tuple(self.driver.execute_script(PIXEL, x, y, *size)[:3])

    def downloaded(self, name: str) -> bytes:
        """A file that the page saved."""
        path = self.downloads / name
        self.until(lambda: path.exists() and path.stat().st_size)
        return path.read_bytes()

    def screen(self, scheme: str, *, width: int, height: int) -> None:
        """Makes the window so large, and the system light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def console(self) -> list[str]:
        """What the browser complained of, but for the refusals that a test asked for."""
        refusal = re.compile(r"/v1/\S+ - Failed to load resource: the server responded with a status of 4")
        lines = [entry["message"] for entry in logged(self.driver, "browser")]
        return [line for line in lines if not refusal.search(line)]

    def addresses(self) -> set[str]:
        """All that was requested, of whomever."""
        events = [json.loads(entry["message"])["message"] for entry in logged(self.driver, "performance")]
        return {
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        }


@contextmanager
def opened(service: Watched, browser: webdriver.Chrome, downloads: Path) -> Iterator[Page]:
    """The page, just opened. Afterwards: no complaint on the console, no request to anyone else."""
    behaviour = {"behavior": "allow", "downloadPath": str(downloads)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    page = Page(browser, service, downloads)
    page.screen("light", width=1280, height=900)
    browser.get(service.url)
    page.until(lambda: page.one("#about").is_displayed())
    yield page
    assert page.console() == []
    assert [url for url in page.addresses() if not url.startswith((service.url, "data:", "blob:"))] == []


@pytest.fixture
def page(served: Watched, browser: webdriver.Chrome, tmp_path: Path) -> Iterator[Page]:
    """The page of the service whose answers are known."""
    served.token, served.requests, served.refusals = None, [], []
    with opened(served, browser, tmp_path) as found:
        yield found


SIZE = (60, 40)  # width, height
GROUND, CRACK = (210, 200, 190), (30, 25, 20)


@pytest.fixture
def photograph(tmp_path: Path) -> Callable[..., Path]:
    """Writes a photograph of a pale wall with an upright crack in columns 20 to 22 and rows 5 to 34."""

    def write(name: str = "wall.png", **options: Any) -> Path:
        image = Image.new("RGB", SIZE, GROUND)
        image.paste(CRACK, (20, 5, 23, 35))
        path = tmp_path / name
        image.save(path, **options)
        return path

    return write


# ---------------------------------------------------------------- what it does


class TestPolicy:
    def test_lets_nothing_run_but_what_is_in_the_page(self) -> None:
        html, policy = document()
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
        assert not re.search(r"\son\w+=|\sstyle=", html)

    def test_the_page_refers_to_nothing_outside(self) -> None:
        html, _ = document()
        assert re.findall(r"https?://[^'\" ]*", html) == ["http://www.w3.org/2000/svg"]
        assert not re.search(r"innerHTML|insertAdjacentHTML|outerHTML|document\.write|Storage", html)


class TestAPhotograph:
    def test_that_is_dropped_shows_its_cracks_where_they_are_after_one_request(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        page.drop(photograph())
        page.finished()
        assert page.service.requests == ["GET /v1/models", "POST /v1/segment?model=cracks&answer=probability"]
        for x, y, colour in [
            (20, 5, RIGHT),
            (22, 34, RIGHT),
            (19, 5, GROUND),
            (23, 34, GROUND),
            (21, 4, GROUND),
        ]:
            assert page.pixel(x, y, SIZE) == colour

    def test_has_a_table_of_its_cracks_the_longest_first(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        page.drop(photograph())
        page.finished()
        rows = page.driver.execute_script(
            "return [...document.querySelectorAll('.each tr')]"
            ".map(row => [...row.children].map(cell => cell.textContent))"
        )
        assert rows[0] == [
            "Crack", "Length", "Mean width", "95 % width", "Largest width", "Direction", "Box, px"
        ]  # fmt: skip
        assert len(rows) > 1
        assert rows[1][0] == "1"

    def test_is_seen_as_it_is_and_as_the_probabilities_too(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        page.drop(photograph())
        page.finished()
        page.show("original")
        assert page.pixel(21, 20, SIZE) == CRACK
        page.show("probability")
        crack, ground = sum(page.pixel(21, 20, SIZE)), sum(page.pixel(40, 20, SIZE))
        assert crack > 2 * ground
        page.show("overlay")
        assert page.pixel(21, 20, SIZE) == RIGHT

    def test_has_its_measures_in_plain_words_in_tiles_and_in_the_table(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        page.choose(photograph())
        page.finished()
        assert plain(page.text(".said")) == (
            "One crack, 28.9 px long, 3 px wide on average and 3 px at the widest. "
            "It covers 3.75 % of the photograph."
        )
        assert page.text(".tiles").split("\n") == [
            *("Length", "28.9 px", "Mean width", "3 px", "Largest width", "3 px"),
            *("Area", "90 px²", "Share", "3.75 %", "of the photograph"),
        ]
        assert page.rows() == [["wall.png", "1 crack", "28.9 px", "3 px", "3 px", "90 px²", "3.75 %"]]

    def test_is_measured_in_mm_where_the_scale_is_known(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        page.one("#scale").send_keys("0.5")
        page.choose(photograph())
        page.finished()
        assert page.service.requests[-1].endswith("&mm_per_pixel=0.5")
        assert "One crack, 14.4 mm long" in plain(page.text(".said"))
        assert page.rows()[0][2:6] == ["14.4 mm", "1.5 mm", "1.5 mm", "22.5 mm²"]

    def test_is_analysed_again_with_another_threshold(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        page.choose(photograph())
        page.finished()
        page.one("#threshold").send_keys("0.95")
        page.button("Analyse again with the settings above").click()
        page.finished()
        assert page.text(".said") == "No crack: no pixel is one with a probability of 0.95 or more."
        assert page.pixel(21, 20, SIZE) == CRACK
        assert page.rows() == [["wall.png", "No crack", "0 px", "—", "—", "0 px²", "0 %"]]

    def test_that_is_pasted_is_analysed(self, page: Page, photograph: Callable[..., Path]) -> None:
        encoded_file = base64.b64encode(photograph().read_bytes()).decode()
        page.driver.execute_script(PASTE, encoded_file, "pasted.png", "image/png")
        page.finished()
        assert page.rows()[0][:2] == ["pasted.png", "1 crack"]

    def test_stands_upright_as_its_exif_tag_says(self, page: Page, photograph: Callable[..., Path]) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # a quarter turn to the right
        page.drop(photograph(exif=exif))
        page.finished()
        upright = SIZE[::-1]
        # column 21 of 60 and row 20 of 40 become row 21 and column 19
        assert page.pixel(19, 21, upright) == RIGHT
        assert page.pixel(19, 24, upright) == GROUND
        page.show("original")
        assert page.pixel(19, 21, upright) == CRACK

    def test_that_the_browser_cannot_decode_is_drawn_by_the_service(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        page.drop(photograph("wall.tif"))
        page.finished()
        assert page.service.requests[1:] == ["POST /v1/segment?model=cracks&answer=overlay"]
        assert np.allclose(page.pixel(21, 20, SIZE), RIGHT, atol=12)
        assert np.allclose(page.pixel(40, 20, SIZE), GROUND, atol=12)
        assert not page.one("[value=probability]").is_enabled()
        assert page.rows()[0][:2] == ["wall.tif", "1 crack"]

    def test_is_seen_pixel_by_pixel(self, page: Page, photograph: Callable[..., Path]) -> None:
        page.drop(photograph())
        page.finished()
        fitted = page.text("#zoom-level")
        page.one("#zoom-pixels").click()
        page.until(
            lambda: page.text("#zoom-level") == fitted
        )  # smaller than the stage: it goes on filling it
        page.one("#stage").send_keys("++++++++++")
        page.until(lambda: page.text("#zoom-level") == "4,000 %")
        colours = page.driver.execute_script(MIDDLE)
        # 40 screen pixels a pixel, around the middle of 60 x 40
        assert {tuple(colour) for colour in colours} == {GROUND}
        page.one("#stage").send_keys(Keys.ARROW_LEFT * 5)
        page.until(lambda: RIGHT in {tuple(colour) for colour in page.driver.execute_script(MIDDLE)})
        page.one("#stage").send_keys("0")
        page.until(lambda: page.text("#zoom-level") == fitted)

    def test_that_is_larger_than_the_stage_loses_no_thin_crack(self, page: Page, tmp_path: Path) -> None:
        image = Image.new("RGB", (3000, 2000), GROUND)
        image.paste(CRACK, (1501, 0, 1502, 2000))
        image.save(tmp_path / "wall.png")
        page.drop(tmp_path / "wall.png")
        page.finished()
        rows = np.array(page.driver.execute_script(MIDDLE)).reshape(200, 200, 3)
        assert (rows == RIGHT).all(axis=2).any(axis=1).all()

    def test_grows_under_the_wheel_with_ctrl_and_under_two_fingers(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        page.drop(photograph())
        page.finished()
        fitted = page.text("#zoom-level")
        box = page.one("#stage").rect
        x, y = round(box["x"] + box["width"] / 2), round(box["y"] + box["height"] / 2)
        wheel = {"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": -300}
        page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {**wheel, "modifiers": 2})
        page.until(lambda: page.text("#zoom-level") != fitted)
        page.button("Fit").click()
        page.until(lambda: page.text("#zoom-level") == fitted)
        for kind, apart in [("touchStart", 20), ("touchMove", 60), ("touchMove", 120)]:
            fingers = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
            page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
        page.until(lambda: page.text("#zoom-level") != fitted)
        page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_the_real_service_s_mask_is_what_is_drawn(
    browser: webdriver.Chrome, segmenter_run: Path, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    worker = Worker(open_model(segmenter_run, device=torch.device("cpu")), Limits(), name="cracks")
    [answer] = worker.model([pixels])
    app = build_app(Service(OneModel(worker, name="cracks"), limits=Limits(), roots=Roots()))
    with on_a_port(app) as service, opened(service, browser, tmp_path) as page:
        page.choose(tmp_path / "noise.png")
        page.finished()
        assert (page.rows()[0][0], len(page.rows())) == ("noise.png", 1)
        for cracked in (True, False):
            places = np.argwhere(answer.mask == cracked)
            assert len(places)
            for y, x in places[:: max(1, len(places) // 5)]:
                assert (page.pixel(int(x), int(y), SIZE) == RIGHT) == cracked
    worker.close()


class TestSeveralPhotographs:
    def test_are_worked_through_one_after_another_and_any_can_be_shown(
        self, page: Page, photograph: Callable[..., Path], tmp_path: Path
    ) -> None:
        sound = tmp_path / "sound.png"
        Image.new("RGB", SIZE, GROUND).save(sound)
        page.drop(photograph("first.png"), sound, photograph("third.jpg", quality=95))
        page.finished()
        assert [row[:2] for row in page.rows()] == [
            ["first.png", "1 crack"], ["sound.png", "No crack"], ["third.jpg", "1 crack"],
        ]  # fmt: skip
        assert page.text("#findings h2") == "first.png"
        page.button("sound.png").click()
        page.finished()
        assert page.text(".said").startswith("No crack")
        assert page.pixel(21, 20, SIZE) == GROUND

    def test_come_as_a_table_that_a_spreadsheet_reads(
        self, page: Page, photograph: Callable[..., Path], tmp_path: Path
    ) -> None:
        torn = tmp_path / "torn, wet.png"
        torn.write_bytes(b"no picture")
        page.one("#scale").send_keys("0.5")
        page.drop(photograph("=1+1.png"), torn)
        page.finished()
        page.button("Download table (CSV)").click()
        text = page.downloaded("cracks.csv").decode("utf-8-sig")
        first, second = csv.DictReader(io.StringIO(text, newline=""))
        assert first["photograph"] == "'=1+1.png"  # no formula
        assert (first["state"], first["model"], first["mm_per_pixel"]) == ("done", "cracks", "0.5")
        assert [float(first[key]) for key in ("cracks", "length_px", "length_mm", "share")] == [
            1,
            pytest.approx(28.9, abs=0.1),
            pytest.approx(14.4, abs=0.1),
            0.0375,
        ]
        assert (second["photograph"], second["state"]) == (torn.name, "failed")
        assert second["problem"] == "an image is whole: it is torn"
        assert second["remedy"] == "send the whole file"

    def test_can_be_stopped(self, page: Page, photograph: Callable[..., Path]) -> None:
        page.service.refusals = [busy(seconds=600)]
        page.drop(photograph("one.png"), photograph("two.png"))
        page.until(lambda: "600 s" in plain(page.text("#progress")))
        page.button("Stop").click()
        page.finished()
        assert [row[:2] for row in page.rows()] == [["one.png", "Stopped"], ["two.png", "Stopped"]]


class TestWhatComesBack:
    def test_is_the_service_s_mask_and_the_whole_result(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        page.drop(photograph())
        page.finished()
        page.button("Mask (PNG)").click()
        mask = np.asarray(Image.open(io.BytesIO(page.downloaded("wall-mask.png"))))
        assert mask.shape == SIZE[::-1]
        assert np.count_nonzero(mask) == np.count_nonzero(mask == 255) == 90
        page.button("Result (JSON)").click()
        result = json.loads(page.downloaded("wall.json"))
        assert result["image"] == {
            "name": "wall.png", "height": 40, "width": 60, "sha256": "0" * 64, "remarks": ["it is grey"],
        }  # fmt: skip
        assert result["cracks"]["area_px"] == 90

    def test_is_a_class_from_a_classifier_with_nothing_drawn(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        chooser = Select(page.one("#model"))
        assert [option.text for option in chooser.options] == [
            "cracks · segmentation, version 3",
            "walls · classification, version 1",
            "pair · classification, version 1",
        ]
        chooser.select_by_value("walls")
        assert not page.one("#scale").is_displayed()
        page.drop(photograph())
        page.finished()
        assert page.service.requests[-1] == "POST /v1/classify?model=walls"
        assert page.rows()[0][:2] == ["wall.png", "crack, a fairly clear case"]
        assert not page.one("#views").is_displayed()
        assert page.pixel(21, 20, SIZE) == CRACK

    @pytest.mark.parametrize(
        ("model", "ground", "said"),
        [
            ("walls", CRACK, ("crack", "a fairly clear case", "sound", 0.5)),
            ("walls", GROUND, ("sound", "a close call", "stain", 0.125)),
            ("pair", GROUND, ("crack", "a clear case", "sound", 1.25)),
        ],
    )
    def test_says_how_clear_a_class_is_by_the_decision_values_of_its_pairs(
        self,
        model: str,
        ground: tuple[int, int, int],
        said: tuple[str, str, str, float],
        page: Page,
        tmp_path: Path,
    ) -> None:
        # decision values as `fissura.classical.compact.Compact.decision` has them
        Image.new("RGB", SIZE, ground).save(tmp_path / "wall.png")
        Select(page.one("#model")).select_by_value(model)
        page.drop(tmp_path / "wall.png")
        page.finished()
        label, clear, rival, value = said
        assert page.text(".said") == (
            f"Class “{label}”, {clear}: its closest rival is “{rival}”, at a decision value of {value:g}, "
            "where 0 is undecided."
        )

    def test_tells_which_model_it_is_from(self, page: Page) -> None:
        page.one("#about summary").click()
        assert page.text("#about-facts").split("\n") == [
            *("Task", "segmentation", "Recipe", "small_unet", "Run", "1a2b3c4d5e6f", "Version", "3"),
            *(
                "Parameters",
                "121,025",
                "Threshold",
                "0.5",
                "Classes",
                "background, crack",
                "Trained on",
                "cfd",
            ),
            *("Finished", "20 November 2026", "Code version", "0.1.0"),
        ]


class TestAProblem:
    def test_is_shown_as_the_rule_the_value_and_the_remedy_and_stops_no_other_photograph(
        self, page: Page, photograph: Callable[..., Path], tmp_path: Path
    ) -> None:
        torn = tmp_path / "torn.jpg"
        torn.write_bytes(b"no picture")
        page.drop(torn, photograph())
        page.finished()
        assert page.text("#findings .problem").split("\n") == [
            *("Not analysed", "Rule", "An image is whole.", "Here", "It is torn."),
            *("What to do", "Send the whole file."),
        ]
        assert page.rows()[0] == ["torn.jpg", "Not analysed: An image is whole. Send the whole file."]
        assert page.rows()[1][:2] == ["wall.png", "1 crack"]

    def test_of_a_missing_token_brings_its_field_and_the_token_goes_nowhere_but_into_requests(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        assert not page.one("#token").is_displayed()
        page.service.token = TOKEN
        page.drop(photograph())
        page.until(lambda: page.one("#token").is_displayed())
        page.one("#token-text").send_keys("another" + Keys.ENTER)
        page.until(lambda: "not accepted" in page.text("#token-hint"))
        page.one("#token-text").send_keys(TOKEN + Keys.ENTER)
        page.finished()
        assert page.rows()[0][:2] == ["wall.png", "1 crack"]
        assert not page.one("#token").is_displayed()
        kept = (
            "return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        )
        assert TOKEN not in page.driver.execute_script(kept)
        assert TOKEN not in page.driver.page_source
        assert not any(TOKEN in request for request in page.service.requests)

    def test_of_a_token_that_is_missing_from_the_first_keeps_photographs_waiting(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        page.service.token, page.service.requests = TOKEN, []
        page.driver.refresh()
        page.drop(photograph())
        page.until(lambda: page.one("#token").is_displayed())
        page.one("#token-text").send_keys(TOKEN + Keys.ENTER)
        page.finished()
        assert page.service.requests == [
            "GET /v1/models", "GET /v1/models", "POST /v1/segment?model=cracks&answer=probability",
        ]  # fmt: skip
        assert page.rows()[0][:2] == ["wall.png", "1 crack"]

    def test_of_a_busy_service_is_waited_for_in_sight_and_tried_again(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        page.service.refusals = [busy(seconds=1)]
        begin = time.monotonic()
        page.drop(photograph())
        page.until(lambda: "the service is busy, trying again in 1 s" in plain(page.text("#progress")))
        page.finished()
        assert time.monotonic() - begin >= 1
        assert len(page.service.requests) == 3
        assert page.rows()[0][:2] == ["wall.png", "1 crack"]

    def test_of_a_proxy_that_knows_no_problem_documents_is_told_too(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        page.service.refusals = [HTMLResponse("<h1>Too large</h1>", 413)]
        page.drop(photograph())
        page.finished()
        assert "It sent HTTP 413" in page.text("#findings .problem")

    def test_of_text_that_looks_like_markup_stays_text(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        name = "<img src=x onerror=alert(1)>.png"
        markup = "<b id=injected>bold</b>"
        page.service.refusals = [problem(422, markup, markup, markup)]
        page.drop(photograph(name))
        page.finished()
        assert page.rows() == [[name, f"Not analysed: {markup}. {markup}."]]
        assert page.driver.find_elements(By.ID, "injected") == []


class TestForEveryone:
    @pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
    def test_text_keeps_the_contrast_of_wcag_aa_and_the_page_its_width(
        self, scheme: str, width: int, page: Page, photograph: Callable[..., Path], tmp_path: Path
    ) -> None:
        page.screen(scheme, width=width, height=800)
        torn = tmp_path / "torn.jpg"
        torn.write_bytes(b"no picture")
        page.drop(photograph(), torn)
        page.finished()
        page.one("#about summary").click()
        for name in ("wall.png", "torn.jpg"):
            page.button(name).click()
            page.finished()
            contrasts = page.driver.execute_script(CONTRASTS)
            assert len(contrasts) > 30
            assert [found for found in contrasts if found[1] < 4.5] == []
            assert page.driver.execute_script("return document.scrollingElement.scrollWidth") <= width

    def test_every_control_has_a_name(self, page: Page, photograph: Callable[..., Path]) -> None:
        page.drop(photograph())
        page.finished()
        controls = page.driver.find_elements(
            By.CSS_SELECTOR, "button, input, select, canvas, summary, progress"
        )
        assert [
            one.get_attribute("outerHTML")
            for one in controls
            if one.is_displayed() and not one.accessible_name
        ] == []
        assert page.one("#stage").accessible_name.startswith("wall.png: One crack")
        assert plain(page.one("#status").get_attribute("textContent")).startswith(
            "wall.png: One crack, 28.9 px long"
        )

    def test_the_keyboard_chooses_photographs_and_turns_views(
        self, page: Page, photograph: Callable[..., Path]
    ) -> None:
        page.one("body").send_keys(Keys.TAB)
        assert page.driver.switch_to.active_element.get_attribute("id") == "files"
        page.choose(photograph())
        page.finished()
        page.one("[value=overlay]").send_keys(Keys.ARROW_RIGHT)
        page.until(lambda: "probability of a crack: 0" in page.text("#legend"))
        page.button("wall.png").send_keys(Keys.ENTER)
        assert page.driver.switch_to.active_element.text == "wall.png"


def plain(text: str) -> str:
    """The text with ordinary spaces."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


def busy(*, seconds: int) -> Response:
    """What a service answers that has too much waiting."""
    return problem(429, "few wait", "many do", "try again", **{"Retry-After": str(seconds)})
