"""An exported bundle works with onnxruntime, NumPy and Pillow: nothing else can even be imported."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fissura.classical.compress import compact
from fissura.classical.compression import Compression
from fissura.classical.estimators import SVM, NoWhitening, pipeline
from fissura.data.pipeline import Pipeline
from fissura.data.resize import Native
from fissura.deploy.export import Bundle, export_classifier, export_segmenter
from fissura.losses import DiceBCE
from fissura.metrics import Pixel
from fissura.models import Sato, Segmenter, UNet
from fissura.segmentation.predict import predict
from fissura.segmentation.recipe import Given, Phase, Recipe

RECIPE = Recipe(
    name="tiny",
    data=Pipeline(resize=Native()),
    model=UNet(width=4, depth=1),
    epochs=1,
    phases=(Phase(name="train", loss=DiceBCE()),),
    threshold=Given(value=0.5),
    protocols=(Pixel(),),
)
CLASSES = ("sound", "minor", "obvious")
# Runs a script where nothing but the standard library, NumPy, Pillow, onnxruntime and its needs is there.
ALONE = textwrap.dedent(
    """
    import pathlib, runpy, sys

    folder = pathlib.Path(sys.argv[1]).parent
    own = {path.stem for path in folder.glob("*.py")}
    known = own | {"numpy", "PIL", "onnxruntime", "flatbuffers", "google", "packaging"}
    known |= sys.stdlib_module_names
    for name in [name for name in sys.modules if name.partition(".")[0] not in known | {"__main__"}]:
        del sys.modules[name]  # what the environment loads at its start

    class Nothing:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.partition(".")[0] not in known:
                raise ImportError(f"{name} is not here", name=name)

    sys.meta_path.insert(0, Nothing)
    sys.path.insert(0, str(folder))
    for name in ("torch", "ray", "fissura", "cv2", "sklearn", "onnx", "scipy"):
        try:
            __import__(name)
        except ImportError:
            continue
        raise SystemExit(f"{name} can be imported")
    sys.argv = sys.argv[1:]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        loaded = {name.partition(".")[0] for name in sys.modules}
        print("loaded", *sorted(loaded - sys.stdlib_module_names), file=sys.stderr)
    """
)


class Means(nn.Module):
    """A backbone whose features are the mean colours of the four quarters of an image, a little mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.permute(0, 3, 1, 2).float() / 255
        quarters = nn.functional.interpolate(pixels, size=(2, 2), mode="bilinear", antialias=True)
        features: torch.Tensor = self.mix(quarters).flatten(1)
        return features


def wall(grey: int, *, height: int = 60, width: int = 80) -> np.ndarray:
    noise = np.random.default_rng(grey).normal(0, 4, (height, width, 3))
    return np.clip(grey + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark, middle and bright walls in several formats, files that none can read, and what is left out."""
    folder = tmp_path_factory.mktemp("walls")
    (folder / "north").mkdir()
    Image.fromarray(wall(30)).save(folder / "dark.jpg", quality=92)
    Image.fromarray(wall(32)).save(folder / "dark.bmp")
    Image.fromarray(wall(120)).save(folder / "north" / "middle.png")
    Image.fromarray(wall(122)).convert("L").save(folder / "middle.jpg", restart_marker_blocks=3)
    Image.fromarray(wall(220)).save(folder / "bright.ppm")
    Image.fromarray(wall(222, height=33, width=47)).save(folder / "bright, wide.jpg", subsampling="4:2:2")
    Image.fromarray(wall(34)).save(folder / "progressive.jpg", progressive=True)
    (folder / "torn.jpg").write_bytes((folder / "dark.jpg").read_bytes()[:900])
    (folder / "early.jpg").write_bytes((folder / "dark.jpg").read_bytes()[:900] + b"\xff\xd9")
    (folder / "words.png").write_text("no image")
    for name in ("IMG_0002.HEIC", "DJI_0003.DNG", "Thumbs.db", "._dark.jpg"):
        (folder / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Classes by brightness, from features of the real pipeline."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = Means().eval()
    greys = np.repeat([30, 120, 220], 12) + np.arange(36) % 7
    with torch.no_grad():
        features = network(torch.from_numpy(np.stack([wall(int(grey)) for grey in greys]))).numpy()
    labels = np.repeat(np.arange(3), 12)
    whole = pipeline(NoWhitening(), classifier=SVM(C=10), seed=0).fit(features, labels)
    small = compact(
        whole, features=features, labels=labels, compression=Compression(), seed=0, classes=CLASSES
    )
    folder = tmp_path_factory.mktemp("classifier")
    small.save(folder / "classifier.npz")
    return export_classifier(
        network, folder / "classifier.npz", side=32, recipe={"name": "walls"}, out=folder / "bundle"
    )


@pytest.fixture(scope="module")
def network() -> Segmenter:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    built = RECIPE.model.build()
    with torch.no_grad():
        for _ in range(5):
            built(torch.randn(2, 3, 32, 32))
    return built.eval()


@pytest.fixture(scope="module")
def segmenter(network: Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("segmenter") / "bundle"
    return export_segmenter(network, RECIPE, threshold=0.5, out=out)


def alone(script: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The script, run where nothing but NumPy, Pillow and onnxruntime can be imported."""
    return subprocess.run(
        [sys.executable, "-c", ALONE, str(script), *map(str, words)],
        capture_output=True,
        text=True,
        cwd=script.parents[1],
        env={"PATH": os.environ["PATH"], "OMP_WAIT_POLICY": "PASSIVE"},
    )


def lines(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["name"]: line for line in found}


def judge(found: dict[str, dict[str, str]]) -> None:
    """Every wall has its class, and every other file its reason."""
    assert {name: line["class"] for name, line in found.items() if "class" in line} == {
        "dark.jpg": "sound",
        "dark.bmp": "sound",
        "north/middle.png": "minor",
        "middle.jpg": "minor",
        "bright.ppm": "obvious",
        "bright, wide.jpg": "obvious",
        "progressive.jpg": "sound",
    }
    assert "damaged or not readable" in found["torn.jpg"]["error"]
    assert "its data end before the last pixel" in found["early.jpg"]["error"]
    assert "no image that is read" in found["words.png"]["error"]
    assert len(found) == 10


@pytest.mark.end_to_end
class TestClassify:
    def test_needs_numpy_pillow_and_onnxruntime_alone(self, classifier: Bundle, walls: Path) -> None:
        moved = shutil.copytree(classifier.path, walls.parent / "moved")
        done = alone(moved / "classify.py", walls)
        assert done.returncode == 1, "some images are damaged"
        judge(lines(done))
        loaded = set(done.stderr.splitlines()[-1].split())
        assert {"numpy", "PIL", "onnxruntime", "compact"} <= loaded
        assert loaded.isdisjoint({"torch", "ray", "fissura", "cv2", "sklearn", "onnx", "scipy"})
        assert "3 of 10 images could not be classified" in done.stderr
        assert "2 files left out by their suffix: IMG_0002.HEIC, DJI_0003.DNG" in done.stderr

    def test_gives_a_score_above_nought_to_a_clear_class(self, classifier: Bundle, walls: Path) -> None:
        found = lines(alone(classifier.path / "classify.py", walls, "--threads", 1))
        assert all(float(line["score"]) > 0 for line in found.values() if "score" in line)

    def test_writes_csv(self, classifier: Bundle, walls: Path) -> None:
        done = alone(classifier.path / "classify.py", walls, "--format", "csv")
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert [row["name"] for row in rows if row["class"] == "obvious"] == [
            "bright, wide.jpg",
            "bright.ppm",
        ]
        assert len(rows) == 10

    def test_without_a_readable_image_gives_one(self, classifier: Bundle, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"")
        done = alone(classifier.path / "classify.py", tmp_path)
        assert done.returncode == 1
        assert lines(done)["a.png"]["error"] == "an empty file"

    def test_of_a_folder_without_images_is_refused(self, classifier: Bundle, tmp_path: Path) -> None:
        done = alone(classifier.path / "classify.py", tmp_path)
        assert done.returncode == 2
        assert "no folder that holds images" in done.stderr

    def test_of_a_bundle_whose_files_were_mixed_up_is_refused(
        self, classifier: Bundle, walls: Path, tmp_path: Path
    ) -> None:
        mixed = shutil.copytree(classifier.path, tmp_path / "mixed")
        with (mixed / "backbone.onnx").open("ab") as file:
            file.write(b"\0")
        done = alone(mixed / "classify.py", walls)
        assert done.returncode == 2
        assert "backbone.onnx: not the file of the card" in done.stderr

    @pytest.mark.parametrize("lost", ["classifier.npz", "backbone.onnx", "card.json"])
    def test_of_a_bundle_that_lost_a_file_is_refused(
        self, classifier: Bundle, walls: Path, tmp_path: Path, lost: str
    ) -> None:
        part = shutil.copytree(classifier.path, tmp_path / "part")
        (part / lost).unlink()
        done = alone(part / "classify.py", walls)
        assert done.returncode == 2
        assert lost in done.stderr.splitlines()[0]

    def test_of_an_unknown_network_names_those_there_are(self, classifier: Bundle, walls: Path) -> None:
        done = alone(classifier.path / "classify.py", walls, "--model", "backbone.int8.onnx")
        assert done.returncode == 2
        assert "its networks are backbone.onnx" in done.stderr


@pytest.mark.end_to_end
class TestSegment:
    def test_writes_the_masks_of_the_run(
        self, segmenter: Bundle, network: Segmenter, walls: Path, tmp_path: Path
    ) -> None:
        done = alone(segmenter.path / "segment.py", walls, tmp_path / "masks")
        assert done.returncode == 1, "some images are damaged"
        found = lines(done)
        written = {name: line["written"] for name, line in found.items() if "written" in line}
        assert written == {
            "dark.jpg": "dark.jpg.png",
            "dark.bmp": "dark.bmp.png",
            "north/middle.png": "north/middle.png",
            "middle.jpg": "middle.png",
            "bright.ppm": "bright.png",
            "bright, wide.jpg": "bright, wide.png",
            "progressive.jpg": "progressive.png",
        }
        assert "2 files left out by their suffix: IMG_0002.HEIC, DJI_0003.DNG" in done.stderr
        assert sum("error" in line for line in found.values()) == 3
        for name in ("dark.bmp", "north/middle.png", "bright.ppm"):  # lossless: every reader sees the same
            with Image.open(walls / name) as image:
                map_ = predict(network, np.asarray(image), recipe=RECIPE, device=torch.device("cpu"))
            with Image.open(tmp_path / "masks" / written[name]) as mask:
                pixels = np.asarray(mask)
            assert set(np.unique(pixels)) == {0, 255}
            sure = abs(map_.astype(int) - 127.5) > 1
            assert sure.mean() > 0.5
            assert np.array_equal((pixels == 255)[sure], (map_ / 255 >= 0.5)[sure])

    def test_leaves_out_small_cracks_as_the_run_does(self, walls: Path, tmp_path: Path) -> None:
        recipe = Recipe(
            name="floor",
            data=Pipeline(resize=Native(), batch_size=1, normalisation="unit"),
            model=Sato(sigma=1, background=5),
            epochs=0,
            phases=(),
            smallest_crack=20,
            protocols=(Pixel(),),
        )
        network = recipe.model.build().eval()
        bundle = export_segmenter(network, recipe, threshold=0.4, out=tmp_path / "out")
        words = (walls / "north", tmp_path / "maps", "--values", "probabilities")
        done = alone(bundle.path / "segment.py", *words)
        assert done.returncode == 0, done.stderr
        with Image.open(walls / "north" / "middle.png") as image:
            pixels = np.asarray(image)
        small = recipe.model_copy(update={"smallest_crack": 0})
        kept, all_ = (
            predict(network, pixels, recipe=one, device=torch.device("cpu")) for one in (recipe, small)
        )
        with Image.open(tmp_path / "maps" / "middle.png") as map_:
            difference = np.asarray(map_).astype(int) - kept
        assert abs(difference).max() <= 1
        assert (all_ > kept.astype(int) + 10).any()

    def test_writes_probabilities_where_asked(self, segmenter: Bundle, walls: Path, tmp_path: Path) -> None:
        done = alone(segmenter.path / "segment.py", walls / "north", tmp_path, "--values", "probabilities")
        assert done.returncode == 0, done.stdout + done.stderr
        with Image.open(tmp_path / "middle.png") as image:
            assert len(np.unique(np.asarray(image))) > 10

    @pytest.mark.parametrize(
        ("words", "reason"),
        [
            (["--threshold", 1.5], "a probability"),
            (["--model", "x.onnx"], "x.onnx: not in this bundle"),
        ],
    )
    def test_refuses_what_makes_no_sense(
        self, segmenter: Bundle, walls: Path, tmp_path: Path, words: list[object], reason: str
    ) -> None:
        done = alone(segmenter.path / "segment.py", walls, tmp_path / "masks", *words)
        assert done.returncode == 2
        assert reason in done.stderr
        assert not (tmp_path / "masks").exists()

    def test_never_writes_over_the_images(self, segmenter: Bundle, walls: Path) -> None:
        before = (walls / "north" / "middle.png").read_bytes()
        done = alone(segmenter.path / "segment.py", walls / "north", walls / "north")
        assert done.returncode == 2
        assert "would replace the images" in done.stderr
        assert (walls / "north" / "middle.png").read_bytes() == before


@pytest.mark.slow
def test_a_bundle_works_in_a_bare_environment(
    classifier: Bundle, segmenter: Bundle, walls: Path, tmp_path: Path
) -> None:
    """Python, onnxruntime, NumPy, Pillow, and what those pull in: nothing else is installed."""
    environment = tmp_path / "bare"
    venv.create(environment, with_pip=True)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    installed = subprocess.run(
        [
            python,
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "onnxruntime",
            "numpy",
            "pillow",
        ],
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        pytest.fail(
            "pip cannot install onnxruntime, numpy and pillow into a bare environment, which this proof"
            f" needs; connect to a package index: {installed.stderr[-500:]}"
        )
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert not any(name in listed.lower() for name in ("torch", "ray", "fissura", "opencv", "scikit"))
    done = subprocess.run(
        [python, "-E", "-s", classifier.path / "classify.py", walls],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1, "some images are damaged"
    judge(lines(done))
    done = subprocess.run(
        [python, "-E", "-s", segmenter.path / "segment.py", walls, tmp_path / "masks"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1, "some images are damaged"
    assert sum("written" in line for line in lines(done).values()) == 7
