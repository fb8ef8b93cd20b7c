"""From an image to its map: any size, the literal forward pass, and nothing needed but the run directory."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fissura.core.errors import DataError, SpecError
from fissura.core.files import write_json
from fissura.data.pipeline import Pipeline
from fissura.data.resize import Fixed, Native
from fissura.losses import DiceBCE
from fissura.metrics import Pixel
from fissura.models import Segmenter, UNet
from fissura.segmentation.predict import Predictor, predict
from fissura.segmentation.recipe import Phase, Recipe
from fissura.training.checkpoint import save_weights

CPU = torch.device("cpu")
MODEL = UNet(width=4, depth=3)
PIPELINE = Pipeline(resize=Native(), normalisation="unit")
RECIPE = Recipe(
    name="tiny",
    data=PIPELINE,
    model=MODEL,
    epochs=1,
    phases=(Phase(name="train", loss=DiceBCE()),),
    protocols=(Pixel(),),
)


@pytest.fixture(scope="session")
def network() -> Segmenter:
    """A network of stride 8 whose statistics are those of images."""
    torch.manual_seed(0)
    built = MODEL.build()
    with torch.no_grad():
        for _ in range(20):
            built(torch.rand(4, 3, 32, 32))
    return built.eval()


@pytest.fixture
def run(network: Segmenter, tmp_path: Path) -> Path:
    """A run directory with the least that prediction needs."""
    write_json(tmp_path / "run" / "recipe.json", RECIPE.plain())
    save_weights(network, tmp_path / "run" / "weights.safetensors")
    return tmp_path / "run"


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@torch.no_grad()
def logits_of(network: Segmenter, image: np.ndarray) -> np.ndarray:
    """The forward pass of one image, its sides multiples of the stride, in plain words."""
    unit = torch.from_numpy(image.astype(np.float32) / np.float32(255))
    return network(unit.permute(2, 0, 1)[None])[0, 0].numpy()


def map_of(logits: np.ndarray) -> np.ndarray:
    return rounded(1 / (1 + np.exp(-logits.astype(np.float64))))


def rounded(probability: np.ndarray) -> np.ndarray:
    return np.floor(probability * 255 + 0.5).astype(np.uint8)


def resized(resize: Native | Fixed) -> Recipe:
    return RECIPE.model_copy(update={"data": PIPELINE.model_copy(update={"resize": resize})})


def assert_same_maps(one: np.ndarray, other: np.ndarray) -> None:
    """Equal but for the rounding of a few pixels."""
    assert one.shape == other.shape
    difference = np.abs(one.astype(int) - other.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.01


class TestAMap:
    @pytest.mark.parametrize(
        ("height", "width"), [(1, 1), (1, 70), (3, 5), (7, 8), (9, 8), (33, 17), (64, 48), (50, 3)]
    )
    @pytest.mark.parametrize(
        "resize", [Native(), Fixed(height=24, width=40), Fixed(height=30, width=17)], ids=str
    )
    def test_has_the_image_s_size(
        self, network: Segmenter, height: int, width: int, resize: Native | Fixed
    ) -> None:
        probability = predict(network, photograph(height, width), recipe=resized(resize), device=CPU)
        assert probability.shape == (height, width)
        assert probability.dtype == np.uint8

    def test_is_the_literal_forward_pass_on_a_multiple_of_the_stride(self, network: Segmenter) -> None:
        image = photograph(40, 56)
        literal = map_of(logits_of(network, image))
        assert len(np.unique(literal)) > 20
        assert_same_maps(predict(network, image, recipe=RECIPE, device=CPU), literal)

    @pytest.mark.parametrize(("height", "width"), [(33, 17), (5, 48), (7, 7)])
    def test_of_another_size_is_that_of_the_image_with_its_edge_repeated(
        self, network: Segmenter, height: int, width: int
    ) -> None:
        image = photograph(height, width)
        wide = np.pad(image, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
        literal = map_of(logits_of(network, wide))[:height, :width]
        assert_same_maps(predict(network, image, recipe=RECIPE, device=CPU), literal)

    def test_of_a_fixed_size_comes_back_to_the_image_s_own(self, network: Segmenter) -> None:
        image = photograph(70, 50)
        recipe = resized(Fixed(height=32, width=48))
        small = cv2.resize(image, (48, 32), interpolation=cv2.INTER_AREA)
        probability = 1 / (1 + np.exp(-logits_of(network, small)))
        literal = rounded(cv2.resize(probability, (50, 70), interpolation=cv2.INTER_LINEAR))
        assert_same_maps(predict(network, image, recipe=recipe, device=CPU), literal)

    def test_leaves_the_image_and_the_network_as_they_are(self, network: Segmenter) -> None:
        image = photograph(30, 20)
        image.flags.writeable = False
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        first = predict(network, image, recipe=RECIPE, device=CPU)
        predict(network, photograph(11, 64), recipe=RECIPE, device=CPU)
        assert np.array_equal(predict(network, image, recipe=RECIPE, device=CPU), first)
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())

    def test_does_not_depend_on_who_else_predicts(self, run: Path) -> None:
        predictor = Predictor.open(run, device=CPU)
        images = [photograph(20 + i, 60 - i) for i in range(24)]
        alone = [predictor(image) for image in images]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(predictor, images))
        assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))

    def test_does_not_depend_on_the_number_of_threads(self, run: Path) -> None:
        predictor, image = Predictor.open(run, device=CPU), photograph(90, 130)
        alone = predictor(image)
        torch.set_num_threads(3)
        assert_same_maps(predictor(image), alone)


class TestARunDirectory:
    def test_is_enough_wherever_it_lies(self, run: Path, network: Segmenter, tmp_path: Path) -> None:
        moved = run.rename(tmp_path / "elsewhere")
        image = photograph(40, 24)
        predicted = Predictor.open(moved, device=CPU)(image)
        assert np.array_equal(predicted, predict(network, image, recipe=RECIPE, device=CPU))

    def test_needs_no_longer_what_it_began_from(self, run: Path) -> None:
        gone = RECIPE.model_copy(update={"model": UNet(width=4, depth=3, weights="gone.safetensors")})
        write_json(run / "recipe.json", gone.plain())
        assert Predictor.open(run, device=CPU).recipe == gone

    @pytest.mark.parametrize("missing", ["recipe.json", "weights.safetensors"])
    def test_without_its_files_is_none(self, run: Path, missing: str) -> None:
        (run / missing).unlink()
        with pytest.raises(DataError, match=missing):
            Predictor.open(run, device=CPU)

    def test_that_does_not_exist_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="not a run directory"):
            Predictor.open(tmp_path / "nowhere", device=CPU)

    @pytest.mark.parametrize(
        "foreign",
        [UNet(width=5, depth=3), UNet(width=4, depth=2), UNet(width=4, depth=3, normalisation="none")],
        ids=str,
    )
    def test_with_another_network_s_weights_is_refused_in_one_line(self, run: Path, foreign: UNet) -> None:
        save_weights(foreign.build(), run / "weights.safetensors")
        with pytest.raises(DataError, match="the weights are not of this recipe's model") as caught:
            Predictor.open(run, device=CPU)
        assert len(caught.value.problems) == len(str(caught.value).splitlines()) == 1

    @pytest.mark.parametrize("content", [b"", b"torn", bytes(5000)], ids=["empty", "text", "zeros"])
    def test_with_torn_weights_is_refused(self, run: Path, content: bytes) -> None:
        (run / "weights.safetensors").write_bytes(content)
        with pytest.raises(DataError, match="not readable as safetensors"):
            Predictor.open(run, device=CPU)

    def test_never_loads_a_pickle(self, run: Path, network: Segmenter) -> None:
        torch.save(network.state_dict(), run / "weights.safetensors")
        with pytest.raises(DataError, match="not readable as safetensors"):
            Predictor.open(run, device=CPU)

    def test_of_another_version_names_the_fields(self, run: Path) -> None:
        write_json(run / "recipe.json", {**RECIPE.plain(), "colour": "red"})
        with pytest.raises(SpecError, match=r"recipe\.json: `colour`"):
            Predictor.open(run, device=CPU)

    def test_whose_weights_are_a_part_is_refused(self, run: Path, network: Segmenter) -> None:
        part = dict(list(network.state_dict().items())[:-1])
        shutil.rmtree(run, ignore_errors=False)
        write_json(run / "recipe.json", RECIPE.plain())
        save_file(part, run / "weights.safetensors")
        with pytest.raises(DataError, match="Missing key"):
            Predictor.open(run, device=CPU)
