"""Features are extracted by real Ray workers, each image once; what goes wrong with an image or a worker is
named."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fissura.core.errors import DataError, FissuraError, Interrupted
from fissura.data.labelled import ClassFolder, KeyedImage, image_keys
from fissura.distributed.environment import prepare_environment
from fissura.models.backbones import Backbone

if TYPE_CHECKING:  # Ray's settings are made before it is imported
    from fissura.distributed.training.features import Extracted, ExtractionWorkers

Run = Callable[..., "tuple[Extracted, list[str]]"]

TINY = Backbone(kind="mobilenet_v3", weights="none", input_size=32)
IMAGES = 24
PATIENCE_SECONDS = 150


@pytest.fixture(scope="module")
def workers() -> "Iterator[ExtractionWorkers]":
    """One worker of a Ray on this machine alone, as a command starts it; a worker takes seconds to start."""
    before = dict(os.environ)
    prepare_environment(None)
    from fissura.distributed.cluster import connected
    from fissura.distributed.preflight import Slots
    from fissura.distributed.training.features import ExtractionWorkers

    try:
        with connected(None), ExtractionWorkers(Slots(1, 1, 0.0)) as workers:
            yield workers
    finally:
        os.environ.clear()
        os.environ.update(before)


def photograph(path: Path, number: int, *, height: int = 24, width: int = 32) -> None:
    """Coarse noise, so that no two are near duplicates of one another."""
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (height // 4, width // 4, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse.repeat(4, axis=0).repeat(4, axis=1)).save(path)


@pytest.fixture
def walls(tmp_path: Path) -> ClassFolder:
    """Images of two sizes in two classes."""
    root = tmp_path / "walls"
    for number in range(IMAGES):
        label = "crack" if number % 2 else "intact"
        photograph(root / label / f"{number:03d}.png", number, height=24 if number % 3 else 40)
    return ClassFolder(root=root)


@pytest.fixture
def run(workers: "ExtractionWorkers", tmp_path: Path) -> Callable[..., "tuple[Extracted, list[str]]"]:
    """An extraction into `features`, and what it said."""
    from fissura.distributed.training.features import features_of

    def extract(images: list[KeyedImage], **options: Any) -> "tuple[Extracted, list[str]]":
        said: list[str] = []
        settings: dict[str, Any] = {
            "backbone": TINY, "weights": None, "seed": 0, "directory": tmp_path / "features"
        } | options  # fmt: skip
        return features_of(images, workers=workers, say=said.append, **settings), said

    return extract


def parts(folder: Path) -> dict[str, int]:
    """How many rows each part of a store holds."""
    return {str(path): pq.read_metadata(path).num_rows for path in folder.rglob("*.parquet")}


@pytest.mark.end_to_end
class TestAnExtraction:
    def test_extracts_each_image_once_and_only_what_is_new(
        self, walls: ClassFolder, tmp_path: Path, run: Run
    ) -> None:
        from fissura.classification.features import ImageToRead, backbone_digest, extract

        folder = tmp_path / "features"
        copy = tmp_path / "copy"
        shutil.copytree(walls.root, copy)
        images = image_keys([walls, ClassFolder(root=copy)])
        assert len(images) == 2 * IMAGES

        found, said = run(images)

        assert said[0] == f"features of mobilenet_v3: {IMAGES} images, {IMAGES} to extract"
        assert found.images == tuple(images)
        assert found.skipped == ()
        assert sum(parts(folder).values()) == IMAGES, "what several data sets hold is extracted once"
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = TINY.build()
        assert found.store.directory == folder / backbone_digest(network)
        reads = [ImageToRead(each.key, each.image.name, each.read) for each in images]
        here = extract(network, reads, batch_size=5, device=torch.device("cpu"))
        np.testing.assert_allclose(found.features(), here.features, atol=1e-5, rtol=1e-4)

        before = parts(folder)
        again, said = run(images)
        assert said == [f"features of mobilenet_v3: {IMAGES} images, 0 to extract"]
        assert parts(folder) == before
        np.testing.assert_array_equal(again.features(), found.features())

        photograph(walls.root / "crack" / "new.png", 1000)
        more, said = run(image_keys([walls]))
        assert said[0] == f"features of mobilenet_v3: {IMAGES + 1} images, 1 to extract"
        assert sum(parts(folder).values()) == IMAGES + 1
        assert len(more.images) == IMAGES + 1

    def test_never_takes_the_features_of_other_weights_or_sizes(
        self, walls: ClassFolder, tmp_path: Path, run: Run
    ) -> None:
        images, folder = image_keys([walls]), tmp_path / "features"
        tensors = {name: tensor.contiguous() for name, tensor in TINY.build().body.state_dict().items()}
        tensors["conv_stem.weight"] = tensors["conv_stem.weight"] + 0.1
        save_file(tensors, tmp_path / "own.safetensors")
        trained = TINY.model_copy(update={"weights": "trained"})
        views: list[dict[str, Any]] = [
            {},
            {"seed": 1},
            {"backbone": TINY.model_copy(update={"input_size": 64})},
            {"backbone": trained, "weights": tmp_path / "own.safetensors"},
        ]
        matrices = []
        for view in views:
            found, said = run(images, **view)
            assert said[0].endswith(f"{IMAGES} to extract")
            matrices.append(found.features())
        for index, one in enumerate(matrices):
            for other in matrices[:index]:
                assert np.abs(one - other).max() > 1e-3
        assert len(list(folder.iterdir())) == 4, "a folder a backbone"

    def test_names_a_corrupt_image_and_goes_on(self, walls: ClassFolder, tmp_path: Path, run: Run) -> None:
        torn = walls.root / "crack" / "003.png"
        torn.write_bytes(torn.read_bytes()[:60])
        images, folder = image_keys([walls]), tmp_path / "features"

        found, said = run(images)

        assert len(found.images) == IMAGES - 1
        assert found.features().shape == (IMAGES - 1, TINY.dimensions)
        ((name, reason),) = found.skipped
        assert name == "class_folder/crack-003"
        assert str(torn) in reason
        assert said[-1] == f"class_folder/crack-003: skipped, {reason}"
        before = parts(folder)
        _, said = run(images)
        assert said[0].endswith("1 to extract"), "it is tried again"
        assert parts(folder) == before

        photograph(torn, 3)
        found, _ = run(image_keys([walls]))
        assert found.skipped == ()
        assert sum(parts(folder).values()) == IMAGES

    def test_without_any_features_says_why(self, walls: ClassFolder, tmp_path: Path, run: Run) -> None:
        with torch.no_grad():
            network = TINY.build()
            for parameter in network.body.parameters():
                parameter.fill_(torch.nan)
        tensors = {name: tensor.contiguous() for name, tensor in network.body.state_dict().items()}
        save_file(tensors, tmp_path / "nan.safetensors")
        with pytest.raises(DataError) as caught:
            run(image_keys([walls]), weights=tmp_path / "nan.safetensors")
        assert caught.value.problems[0] == f"features of mobilenet_v3: none of {IMAGES} images has features"
        assert "class_folder/crack-001: its features are not finite numbers" in caught.value.problems[1]
        assert len(caught.value.problems) == 6
        assert parts(tmp_path / "features") == {}

    def test_says_where_it_cannot_write(self, walls: ClassFolder, tmp_path: Path, run: Run) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(DataError, match="features cannot be written here"):
            run(image_keys([walls]), directory=tmp_path / "file")

    def test_stops_on_request(self, walls: ClassFolder, tmp_path: Path, run: Run) -> None:
        from fissura.distributed.stopping import StopFile

        stop = StopFile(tmp_path)
        stop.request()
        with pytest.raises(Interrupted, match=r"stopped on request after \d+ of 24; call again to go on"):
            run(image_keys([walls]), stop=stop)


def starter(*, poison: Collection[str] = (), failing: Collection[str] = ()) -> Callable[[], Any]:
    """Starts actors that die of `poison`, fail at `failing`, refuse odd numbers, and have no room for -1."""
    import ray

    class Worker:  # of a function, so that Ray sends it by value
        def work(self, items: list[dict[str, Any]]) -> dict[str, Any]:
            keys = {item["key"] for item in items}
            if keys & set(poison):
                os._exit(1)
            if keys & set(failing):
                raise ZeroDivisionError("a mistake")
            reasons = {key: "odd" for key in keys if int(key) % 2}
            return {"reasons": reasons, "problems": ["no room"] if "-1" in keys else []}

    return ray.remote(num_cpus=0)(Worker).remote


@pytest.mark.end_to_end
@pytest.mark.usefixtures("workers")
class TestAPool:
    def work(self, start: Callable[[], Any], numbers: Iterable[int]) -> dict[str, str]:
        from fissura.distributed.pool import Pool

        with Pool(start, size=2) as pool:
            return pool.run([{"key": str(number)} for number in numbers], least=4, say=lambda _: None)

    def test_finds_the_item_that_its_workers_die_of(self) -> None:
        reasons = self.work(starter(poison={"4"}), range(10))
        assert reasons.keys() == {"4", *(str(odd) for odd in range(1, 10, 2))}
        assert "its worker died while it was at work on it alone" in reasons["4"]

    def test_gives_up_where_every_worker_dies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fissura.distributed.pool.DEATHS_IN_A_ROW", 1)
        with pytest.raises(FissuraError, match="2 workers in a row died before they finished anything"):
            self.work(starter(poison=[str(number) for number in range(20)]), range(20))

    def test_ends_with_a_problem_or_a_mistake_of_the_program(self) -> None:
        with pytest.raises(DataError, match="no room"):
            self.work(starter(), range(-1, 4))
        with pytest.raises(FissuraError, match="a worker failed: ZeroDivisionError: a mistake"):
            self.work(starter(failing={"2"}), range(4))


DRIVER = """
import json, sys
from fissura.distributed.environment import prepare_environment
prepare_environment(None)
from pathlib import Path
from fissura.data.labelled import ClassFolder, image_keys
from fissura.distributed.cluster import connected
from fissura.distributed.training.features import ExtractionWorkers, features_of
from fissura.distributed.preflight import Slots
from fissura.models.backbones import Backbone

images = image_keys([ClassFolder(root=Path(sys.argv[1]))], directory=Path(sys.argv[2] + "-cache"))
with connected(None), ExtractionWorkers(Slots(1, 1, 0.0)) as workers:
    found = features_of(
        images,
        backbone=Backbone(kind="resnet50", weights="none"), weights=None,
        seed=0, directory=Path(sys.argv[2]), workers=workers,
        say=lambda text: print(text, flush=True),
    )
    print(len(found.images))
"""


def processes(parent: int, name: str) -> list[int]:
    """Those below `parent` whose command line begins with `name`."""
    below, before = {parent}, 0
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_text()
            except OSError:
                continue
    while len(below) > before:
        before = len(below)
        below |= {child for child, above in parents.items() if above in below}
    return [pid for pid in below if names.get(pid, "").startswith(name)]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_nothing_that_was_extracted_is_lost_with_a_process(tmp_path: Path, victim: str) -> None:
    count, folder = 96, tmp_path / "features"
    for number in range(count):
        photograph(tmp_path / "walls" / ("crack" if number % 2 else "intact") / f"{number:03d}.png", number)
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "walls"), str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not parts(folder):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if victim == "driver":
            process.kill()
        else:
            (worker,) = processes(process.pid, "ray::Extractor")
            os.kill(worker, signal.SIGKILL)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    if victim == "driver":
        kept = sum(parts(folder).values())
        assert 0 < kept < count
        again = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True)
        assert again.stdout.splitlines()[0].endswith(f"{count} images, {count - kept} to extract")
        out = again.stdout
    else:
        assert process.returncode == 0, err
    assert out.splitlines()[-1] == str(count)
    assert sum(parts(folder).values()) == count
