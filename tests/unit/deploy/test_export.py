"""An exported run: the network is PyTorch's, the card tells the truth, and a failure leaves nothing."""

import contextlib
import importlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from fissura.classical.compact import Compact
from fissura.classical.compress import compact
from fissura.classical.compression import Compression
from fissura.classical.estimators import SVM, AnyClassifier, Forest, NoWhitening, pipeline
from fissura.cli.app import run as command
from fissura.cli.export import export_text
from fissura.core.errors import DataError, FissuraError, SpecError, UserError
from fissura.core.files import sha256, write_json
from fissura.data.pipeline import Pipeline
from fissura.data.resize import Fixed, Native
from fissura.deploy import export
from fissura.deploy.export import (
    Bundle,
    export_classifier,
    export_run,
    export_segmenter,
)
from fissura.deploy.export_table import classifier_macs, latency_table, network_macs
from fissura.deploy.onnx_model import Sides, export_onnx
from fissura.deploy.segmentation_card import segmentation_card
from fissura.losses import DiceBCE
from fissura.metrics import Pixel
from fissura.models import (
    DRU,
    JTFN,
    AnyModel,
    AttentionResUNet,
    BackboneUNet,
    CrackFormer,
    DeepCrackLiu,
    DeepCrackZou,
    DeepLabV3,
    Frangi,
    HrSegNet,
    Niblack,
    ResEnc,
    Sato,
    Sauvola,
    SegFormer,
    Segmenter,
    UNet,
)
from fissura.models.backbones import Backbone
from fissura.segmentation.evaluation import threshold_of
from fissura.segmentation.inference import AnyInference, Sliding, Whole
from fissura.segmentation.predict import predict
from fissura.segmentation.recipe import Given, Phase, Recipe
from fissura.training.checkpoint import save_weights

CPU = torch.device("cpu")
RECIPE = Recipe(
    name="tiny",
    data=Pipeline(resize=Native()),
    model=UNet(width=4, depth=2),
    epochs=1,
    phases=(Phase(name="train", loss=DiceBCE()),),
    threshold=Given(value=0.4),
    protocols=(Pixel(),),
)


class Pooled(nn.Module):
    """A backbone of 6 features on squares of 16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3, stride=2)

    def forward(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 6"]:
        pixels = nn.functional.interpolate(
            images.permute(0, 3, 1, 2).float() / 255, size=(16, 16), mode="bilinear", antialias=True
        )
        features: Tensor = self.convolution(pixels).relu().mean((2, 3))
        return features


class Drifting(Pooled):
    """Gives `exported` more where it was exported, and `plain` more by PyTorch's own plain kernels."""

    def __init__(self, exported: float, plain: float) -> None:
        super().__init__()
        self._exported, self._plain = exported, plain

    def forward(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 6"]:
        features = super().forward(images)
        if torch.compiler.is_exporting():
            return features + self._exported
        return features if torch._C._get_mkldnn_enabled() else features + self._plain


def trained_a_little(model: AnyModel) -> Segmenter:
    """A network whose statistics are those of images, and whose maps are not of one value."""
    torch.manual_seed(0)
    network = model.build()
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(2, 3, 64, 64))
    return network.eval()


@pytest.fixture(scope="module")
def network() -> Segmenter:
    return trained_a_little(RECIPE.model)


@pytest.fixture(scope="module")
def run(network: Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with the least that an export needs."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    write_json(folder / "recipe.json", RECIPE.plain())
    save_weights(network, folder / "weights.safetensors")
    return folder


@pytest.fixture(scope="module")
def said(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command says of the export that the tests look at."""
    out = tmp_path_factory.mktemp("bundles") / "segmenter"
    words = ["export", run, "--to", "onnx", "--out", out, "--quantise", "int8", "--json"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert command([str(word) for word in words]) == 0
    plain: dict[str, Any] = json.loads(printed.getvalue())
    return plain


@pytest.fixture(scope="module")
def segmenter(said: dict[str, Any]) -> Bundle:
    card = {key: value for key, value in said.items() if key != "bundle"}
    return Bundle(Path(said["bundle"]), card)


def fitted(*, width: int, classifier: AnyClassifier, compression: Compression) -> Compact:
    """A classifier of random features whose class is the sign of the first."""
    random = np.random.default_rng(0)
    features = random.normal(size=(60, width)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.int64)
    whole = pipeline(NoWhitening(), classifier=classifier, seed=0).fit(features, labels)
    return compact(
        whole,
        features=features,
        labels=labels,
        compression=compression,
        seed=0,
        classes=("sound", "cracked"),
    )


def landmarks(*, width: int) -> Compact:
    """An RBF machine on seven landmarks."""
    return fitted(
        width=width, classifier=SVM(), compression=Compression(method="nystroem", components=7, rank=None)
    )


@pytest.fixture(scope="module")
def compact_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classifier") / "classifier.npz"
    landmarks(width=6).save(path)
    return path


@pytest.fixture(scope="module")
def classifier(compact_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    return export_classifier(
        Pooled(),
        compact_file,
        side=16,
        recipe={"name": "cnn"},
        out=tmp_path_factory.mktemp("bundles") / "classifier",
        quantise="int8",
    )


@pytest.fixture
def segment(segmenter: Bundle) -> Iterator[ModuleType]:
    """The bundle's script, imported from the bundle."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(segmenter.path)
        yield importlib.import_module("segment")
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(segmenter.path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def opened(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def read_card(bundle: Bundle) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((bundle.path / "card.json").read_text())
    return card


class TestASegmentationNetwork:
    @pytest.mark.parametrize(("batch", "height", "width"), [(1, 4, 4), (3, 36, 20), (2, 64, 8)])
    def test_gives_pytorch_s_probabilities_at_any_size(
        self, segmenter: Bundle, network: Segmenter, batch: int, height: int, width: int
    ) -> None:
        images = np.random.default_rng(batch).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
        (found,) = opened(segmenter.path / "model.onnx").run(None, {"images": images})
        with torch.no_grad():
            pixels = RECIPE.data.normalise(torch.from_numpy(images).permute(0, 3, 1, 2))
            expected = network(pixels)[:, 0].sigmoid().numpy()
        assert found.dtype == np.float32
        assert expected.std() > 0.01
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        ("resize", "inference"),
        [
            (Native(), Whole()),
            (Native(), Whole(max_pixels=1024)),
            (Native(), Sliding(size=18, stride=7, batch=5)),
            (Native(), Sliding(size=64, stride=64, weights="gaussian")),
            (Fixed(height=32, width=44), Whole()),
            (Fixed(height=70, width=33), Sliding(size=20, stride=11, weights="gaussian", batch=3)),
        ],
        ids=str,
    )
    def test_reads_images_as_the_recipe_does(
        self,
        segmenter: Bundle,
        network: Segmenter,
        segment: ModuleType,
        resize: Native | Fixed,
        inference: AnyInference,
    ) -> None:
        data = RECIPE.data.model_copy(update={"resize": resize})
        # a bundle stretches no map, whatever the recipe's own protocol does
        recipe = RECIPE.model_copy(update={"data": data, "inference": inference, "map_range": "min_max"})
        card = segmentation_card(recipe, stride=network.stride, threshold=0.5)
        onnx_network = importlib.import_module("card").Network(segmenter.path / "model.onnx", threads=1)
        for height, width in [(40, 52), (33, 90), (9, 13)]:
            image = photograph(height, width)
            found = segment.crack_probability(onnx_network, image, card=card)
            expected = predict(network, image, recipe=recipe, device=CPU)
            difference = abs(found.astype(int) - expected)
            assert found.shape == expected.shape
            # OpenCV resizes with integers: a pixel can move by a level
            assert difference.max() <= (4 if resize.kind == "fixed" else 1)
            assert difference.mean() <= 0.3

    def test_says_nothing_of_the_machine_it_comes_from(self, segmenter: Bundle) -> None:
        here = str(Path(export.__file__).parents[1]).encode()
        for path in segmenter.path.glob("*.onnx"):
            assert here not in path.read_bytes()
            assert not any(node.metadata_props for node in onnx.load(path).graph.node)


class TestABackbone:
    @pytest.mark.parametrize(("batch", "height", "width"), [(1, 1, 1), (3, 16, 16), (2, 57, 31), (1, 8, 200)])
    def test_gives_pytorch_s_features_at_any_size(
        self, classifier: Bundle, batch: int, height: int, width: int
    ) -> None:
        torch.manual_seed(0)
        images = np.random.default_rng(batch).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
        (found,) = opened(classifier.path / "backbone.onnx").run(None, {"images": images})
        with torch.no_grad():
            expected = Pooled()(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    def test_of_int8_moves_as_far_as_the_card_says(self, classifier: Bundle) -> None:
        images = np.stack([photograph(40, 40), photograph(40, 40)[::-1]])
        one, other = (
            opened(classifier.path / name).run(None, {"images": images})[0]
            for name in ("backbone.onnx", "backbone.int8.onnx")
        )
        said = read_card(classifier)["quantisation"]
        assert 0 < said["relative"] < 0.05
        moved = np.sqrt(np.mean((one - other) ** 2) / np.mean(one**2))
        assert moved == pytest.approx(said["relative"], rel=1.5)

    def test_that_gives_other_features_than_the_classifier_reads_is_refused(self, tmp_path: Path) -> None:
        landmarks(width=7).save(tmp_path / "classifier.npz")
        with pytest.raises(DataError, match="reads 7 features, and the backbone gives 6"):
            export_classifier(Pooled(), tmp_path / "classifier.npz", side=16, recipe={}, out=tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["classifier.npz"]

    def test_with_a_torn_classifier_is_refused(self, compact_file: Path, tmp_path: Path) -> None:
        torn = tmp_path / "classifier.npz"
        torn.write_bytes(compact_file.read_bytes()[:-40])
        with pytest.raises(DataError, match="no whole compressed classifier"):
            export_classifier(Pooled(), torn, side=16, recipe={}, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestTheCard:
    @pytest.mark.parametrize("which", ["segmenter", "classifier"])
    def test_names_every_other_file_with_its_digest(self, which: str, request: pytest.FixtureRequest) -> None:
        bundle: Bundle = request.getfixturevalue(which)
        card = read_card(bundle)
        assert card == json.loads(json.dumps(bundle.card))
        files = card["files"]
        # beside them Python keeps what it compiled of the programs that other tests ran
        assert {*files, "card.json"} == {path.name for path in bundle.path.iterdir()} - {"__pycache__"}
        assert card["usage"] in (bundle.path / "README.md").read_text()
        for name, facts in files.items():
            assert facts == {
                "bytes": (bundle.path / name).stat().st_size,
                "sha256": sha256(bundle.path / name),
            }

    def test_holds_the_recipe_and_its_threshold(self, segmenter: Bundle) -> None:
        card = read_card(segmenter)
        assert card["recipe"] == RECIPE.plain()
        assert (card["threshold"], card["multiple"], card["resize"]) == (0.4, 4, None)

    def test_has_the_parts_sizes_times_and_macs(self, classifier: Bundle) -> None:
        parts = latency_table(classifier.path)
        assert [part.file for part in parts] == ["backbone.onnx", "backbone.int8.onnx", "classifier.npz"]
        assert all(part.bytes == (classifier.path / part.file).stat().st_size for part in parts)
        assert all(0 < part.milliseconds < 1000 for part in parts)
        # 7 x 7 places, 6 filters of 3 x 3 x 3
        assert parts[0].macs == 7 * 7 * 6 * 27
        # products with 7 vectors of 6 and 7 coefficients, 7 kernel values, and what scales the features
        assert 0 <= parts[2].macs - (7 * 6 + 7 + 2 * 7) <= 6
        card = read_card(classifier)
        assert [part["file"] for part in card["table"]] == [part.file for part in parts]

    def test_counts_the_comparisons_of_a_forest(self, tmp_path: Path) -> None:
        forest = fitted(width=4, classifier=Forest(trees=5, depth=1), compression=Compression())
        forest.save(tmp_path / "forest.npz")
        with np.load(tmp_path / "forest.npz") as file:
            scaling = max((file[name].size for name in ("mean", "scale") if name in file.files), default=0)
        assert classifier_macs(tmp_path / "forest.npz") == 5 + scaling

    def test_counts_a_networks_multiply_accumulates(self) -> None:
        assert network_macs(Pooled(), height=99, width=16) == 7 * 7 * 6 * 27

    def test_counts_of_the_papers_light_backbone_what_the_paper_does(self) -> None:
        network = Backbone(kind="mobilenet_v3", weights="none").build()
        # 0.21 G in its Table 1
        assert network_macs(network, height=224, width=224) == pytest.approx(0.21e9, rel=0.05)


class TestARun:
    def test_whose_threshold_is_chosen_takes_that_of_its_evaluation(self, run: Path, tmp_path: Path) -> None:
        chosen = shutil.copytree(run, tmp_path / "run")
        plain = {**RECIPE.plain(), "threshold": {"kind": "validation"}}
        write_json(chosen / "recipe.json", plain)
        with pytest.raises(DataError, match="run `fissura evaluate` on it, or give --threshold"):
            export_run(chosen, out=tmp_path / "out")
        write_json(chosen / "thresholds.json", {"pixel": 0.7})
        assert threshold_of(chosen, Recipe.load(plain, source="here")) == 0.7

    def test_is_said_as_a_table(self, said: dict[str, Any]) -> None:
        text = export_text(said)
        for words in (
            "network float32",
            "network int8",
            "MACs",
            "int8 moves the output by",
            "python segment.py",
        ):
            assert words in text

    def test_is_never_written_over_anything(
        self, fissura: Callable[..., Any], run: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        code, _, said = fissura("export", run, "--out", tmp_path)
        assert code == 2
        assert "exists already" in said[-1]
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_that_is_none_is_named(self, fissura: Callable[..., Any], tmp_path: Path) -> None:
        code, _, said = fissura("export", tmp_path / "nowhere", "--out", tmp_path / "out")
        assert code == 2
        assert "not a run directory" in said[-1]
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
    def test_needs_the_extra(
        self, run: Path, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(UserError, match=rf"{missing} is missing; install fissura\[edge\]"):
            export_run(run, out=tmp_path / "out")
        assert not any(tmp_path.iterdir())


class TestAFailure:
    def test_of_a_network_that_cannot_be_exported_is_one_line(self, tmp_path: Path) -> None:
        class Branching(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                return images.float() if images.float().mean() > 3 else -images.float()

        with pytest.raises(FissuraError, match="cannot export this network") as caught:
            export_onnx(Branching(), tmp_path / "model.onnx", sides=Sides(8), output="probability")
        assert len(str(caught.value).splitlines()) == 1

    def test_of_the_comparison_leaves_nothing(self, compact_file: Path, tmp_path: Path) -> None:
        with pytest.raises(FissuraError, match=r"must give what PyTorch gives, to 0\.0001, and is 0\.005"):
            export_classifier(Drifting(0.005, 0.001), compact_file, side=16, recipe={}, out=tmp_path / "out")
        assert not any(tmp_path.iterdir())

    def test_is_no_difference_that_lies_between_pytorch_s_own_kernels_too(
        self, compact_file: Path, tmp_path: Path
    ) -> None:
        network = Drifting(0.0015, 0.001)
        bundle = export_classifier(network, compact_file, side=16, recipe={}, out=tmp_path / "out")
        assert bundle.card["check"]["difference"] == pytest.approx(0.0015, rel=0.01)

    @pytest.mark.parametrize("threshold", [-0.1, 1.5])
    def test_of_the_threshold_is_named(self, network: Segmenter, tmp_path: Path, threshold: float) -> None:
        with pytest.raises(DataError, match="a threshold is a probability"):
            export_segmenter(network, RECIPE, threshold=threshold, out=tmp_path / "out")


def test_swin_needs_a_size_of_its_own(network: Segmenter, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"model": BackboneUNet(encoder="swin_tiny", weights="none")})
    with pytest.raises(SpecError, match="exported for one size of image"):
        export_segmenter(network, recipe, threshold=0.5, out=tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "model",
    [
        *(
            BackboneUNet(encoder=encoder, weights="none")
            for encoder in (
                *("xception", "efficientnet_b0", "vgg16", "vgg19", "resnet34", "densenet121", "resnet50"),
                *("mobilenet_v2", "inception_v3", "mit_b0", "swin_tiny"),
            )
        ),
        UNet(width=4, normalisation="none"),
        AttentionResUNet(width=4),
        AttentionResUNet(width=4, final="linear", normalisation="batch"),
        JTFN(width=4),
        DeepCrackZou(width=4),
        DeepCrackLiu(width=4),
        HrSegNet(width=4),
        DRU(width=4),
        CrackFormer(width=16),
        ResEnc(width=4),
        SegFormer(width=16, weights="none"),
        Niblack(),
        Sauvola(),
        Frangi(scales=2),
        Sato(scales=2),
        DeepLabV3(backbone="mobilenet_v3_large"),
        DeepLabV3(backbone="resnet50", outputs=2),
        DeepLabV3(backbone="resnet101"),
    ],
    ids=lambda model: getattr(model, "encoder", getattr(model, "backbone", model.kind)),
)
def test_every_network_is_exported(model: AnyModel, tmp_path: Path) -> None:
    data = RECIPE.data.model_copy(update={"resize": Fixed(height=64, width=96), "normalisation": "unit"})
    recipe = RECIPE.model_copy(update={"model": model, "data": data, "smallest_crack": 5})
    bundle = export_segmenter(trained_a_little(model), recipe, threshold=0.5, out=tmp_path / "out")
    # a deep network of random weights magnifies rounding: of inception_v3 PyTorch itself is 0.002 off with
    # other kernels
    assert bundle.card["check"]["difference"] <= 5e-3
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(photograph(70, 100)).save(images / "a.png")
    done = subprocess.run(
        [sys.executable, bundle.path / "segment.py", images, tmp_path / "masks"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "masks" / "a.png") as mask:
        assert mask.size == (100, 70)
