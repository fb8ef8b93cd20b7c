"""What every test stands on: a quiet environment, fixed seeds, one thread, repeatable property tests."""

import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# threads that wait by spinning make a shared machine several times slower; read when PyTorch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "fissura",
    derandomize=True,
    deadline=None,
    max_examples=50,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fissura")

# A background job starts with Ctrl-C ignored, and would hand that on to the processes that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def private_rays() -> Iterator[None]:
    """Every Ray of a test has its sockets and logs in a folder that no other user gets into; a short one."""
    with (
        tempfile.TemporaryDirectory(prefix="t-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", folder)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a browser shows, and what Prometheus draws, is tested apart: their programs are not everywhere."""
    for item in items:
        in_browser = "browser" in getattr(item, "fixturenames", ())
        if in_browser or item.path.is_relative_to(Path(__file__).parent / "dashboards"):
            item.add_marker("pages")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Global generators start alike in every test; torch, where a test imports it, has one thread: two
    files of tests run at a time, and small tensors gain nothing from more."""
    random.seed(0)
    np.random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


class Outcome(NamedTuple):
    """What a command line came to: its exit code, standard output, and the lines of standard error."""

    code: int
    out: str
    said: list[str]


@pytest.fixture
def fissura(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs one command line in this process, a word an argument."""
    from fissura.cli.app import run

    def call(*words: object) -> Outcome:
        capfd.readouterr()
        code = run([str(word) for word in words])
        out, said = capfd.readouterr()
        return Outcome(code, out, said.splitlines())

    return call


@pytest.fixture(scope="session")
def write_segmenter() -> Callable[..., Path]:
    """Writes the run of a tiny segmenter of random weights; gives its directory."""
    import torch

    from fissura.core.files import write_json
    from fissura.losses import DiceBCE
    from fissura.metrics import Pixel
    from fissura.models import UNet
    from fissura.records.manifest import DataFacts, Manifest
    from fissura.segmentation.recipe import Given, Phase, Recipe
    from fissura.training.checkpoint import WEIGHTS, save_weights

    def write(run: Path, *, seed: int = 0, threshold: float = 0.5) -> Path:
        recipe = Recipe(
            name="tiny",
            model=UNet(width=4, depth=2),
            epochs=1,
            phases=(Phase(name="train", loss=DiceBCE()),),
            protocols=(Pixel(),),
            threshold=Given(value=threshold),
            seed=seed,
        )
        torch.manual_seed(seed)
        network = recipe.model.build()
        with torch.no_grad():
            for _ in range(20):  # its statistics are those of images, so that its maps have many levels
                network(torch.rand(4, 3, 32, 32))
        noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
        manifest = Manifest.collect(
            run_id=run.name, recipe=recipe.plain(), seed=seed, accelerator="cpu", cpus=1,
            data=DataFacts(digest="d" * 16, datasets=({"kind": "synthetic"},)), started=noon, finished=noon,
            parameters=sum(one.numel() for one in network.parameters()), best_epoch=1, epochs=1,
            energy_joules=None,
        )  # fmt: skip
        run.mkdir(parents=True)
        write_json(run / "recipe.json", recipe.plain())
        save_weights(network, run / WEIGHTS)
        write_json(run / "manifest.json", manifest.plain())
        return run

    return write


@pytest.fixture(scope="session")
def segmenter_run(write_segmenter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a tiny segmenter."""
    return write_segmenter(tmp_path_factory.mktemp("segmenters") / "0123456789abcdef")


@pytest.fixture(scope="session")
def classifier_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a classifier on a backbone of random weights, which calls dark images `crack`."""
    import torch

    from fissura.classical.compress import compact
    from fissura.classical.compression import Compression
    from fissura.classical.estimators import SVM, NoWhitening, pipeline
    from fissura.classification.recipe import ClassifierRecipe
    from fissura.classification.run import close_classifier_run
    from fissura.models.backbones import Backbone

    recipe = ClassifierRecipe(
        name="walls",
        backbone=Backbone(kind="mobilenet_v3", weights="none", input_size=32),
        whitening=NoWhitening(),
    )
    torch.manual_seed(0)
    network = recipe.backbone.build().eval()
    generator = np.random.default_rng(0)
    greys = np.array([[40], [200]] * 12) + generator.integers(-30, 30, (24, 1))
    walls = (greys[:, :, None, None] + generator.integers(-9, 9, (24, 32, 32, 3))).astype(np.uint8)
    with torch.inference_mode():
        features = network(torch.from_numpy(walls)).numpy()
    labels = np.tile([0, 1], 12)
    fitted = pipeline(recipe.whitening, classifier=SVM(C=10), seed=0).fit(features, labels)
    small = compact(
        fitted, features=features, labels=labels, compression=Compression(), seed=0,
        classes=("crack", "sound"),
    )  # fmt: skip
    run = tmp_path_factory.mktemp("classifiers") / "fedcba9876543210"
    close_classifier_run(
        run, recipe=recipe, network=network, classifier=small, datasets=(), content="d" * 16, metrics={},
        seconds=1.0, cpus=1,
    )  # fmt: skip
    return run


@pytest.fixture
def measured(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Prints what a test of a fault measured, in the one form of `docs/reliability.md`, and keeps it as a
    property of the test in its report."""

    def note(fault: str, **numbers: float) -> None:
        text = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in numbers.items())
        request.node.user_properties.append((fault, text))
        with capsys.disabled():
            sys.stdout.write(f"\nmeasured | {fault} | {text}\n")

    return note


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Chrome]":
    """Chromium without a window, that reaches nothing but this machine."""
    from selenium import webdriver

    tools = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in tools.items() if path is None]:
        pytest.fail(f"pages are tested in Chromium: no {' and no '.join(missing)} here; install them")
    options = webdriver.ChromeOptions()
    options.binary_location = str(tools["chromium"])
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage",
        "window-size=1280,1000", "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "lang=en-GB",
        f"user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(tools["chromedriver"]))
    driver.get("about:blank")
    driver.get_log("performance")  # type: ignore[no-untyped-call]  # of the browser's own first page
    yield driver
    driver.quit()
