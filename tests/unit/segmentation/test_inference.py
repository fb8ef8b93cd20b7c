"""One pass or overlapping windows: the map is that of the literal loop, in bounded memory."""

import math
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.signal.windows import gaussian
from torch import Tensor, nn

from fissura.core.errors import SpecError
from fissura.data.pipeline import Pipeline
from fissura.models import Segmenter, UNet
from fissura.segmentation.inference import AnyInference, Sliding, Whole, probability_map
from fissura.segmentation.windows import Axis, shares

CPU = torch.device("cpu")


class Placed(Segmenter):
    """Logits that depend on where in its window a pixel lies, so that no two windows agree on a pixel.

    Keeps the shapes of its inputs.
    """

    def __init__(self, *, stride: int) -> None:
        super().__init__()
        self.stride, self.feature_channels = stride, 1
        torch.manual_seed(1)
        self.convolution = nn.Conv2d(3, 1, 3, padding=1)
        self.shapes: list[torch.Size] = []

    def features(self, image: Tensor) -> Tensor:
        self.shapes.append(image.shape)
        height, width = image.shape[2:]
        coarse = nn.functional.avg_pool2d(self.convolution(image), self.stride)
        ramp = torch.linspace(-2, 1, height)[:, None] * torch.linspace(1, 3, width)
        return nn.functional.interpolate(coarse, scale_factor=self.stride) + ramp

    def head(self, features: Tensor) -> Tensor:
        return features


class Constant(Segmenter):
    """One logit everywhere."""

    stride, feature_channels = 4, 1

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def features(self, image: Tensor) -> Tensor:
        return torch.full_like(image[:, :1], self.logit)

    def head(self, features: Tensor) -> Tensor:
        return features


def unit(image: Tensor) -> Tensor:
    return image.float() / 255


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def map_of(network: Segmenter, image: np.ndarray, inference: Whole | Sliding) -> np.ndarray:
    return probability_map(network, image, inference=inference, normalise=unit, device=CPU)


@torch.no_grad()
def forward(network: Segmenter, image: np.ndarray) -> np.ndarray:
    """The probabilities of one image or window, padded to the network's stride, in plain words."""
    height, width = image.shape[:2]
    wide = np.pad(image, ((0, -height % network.stride), (0, -width % network.stride), (0, 0)), mode="edge")
    pixels = torch.from_numpy(wide.astype(np.float32) / np.float32(255)).permute(2, 0, 1)
    logits = network(pixels[None])[0, 0, :height, :width].numpy().astype(np.float64)
    return 1 / (1 + np.exp(-logits))


def places(length: int, size: int, stride: int) -> list[int]:
    """Every multiple of the stride at which a window fits, and the last place at which one does."""
    return sorted({*range(0, length - size + 1, stride), length - size})


def literal(
    network: Segmenter, image: np.ndarray, *, size: tuple[int, int], stride: int, weights: str
) -> np.ndarray:
    """One window after the other."""
    (high, wide), (height, width) = size, image.shape[:2]
    padded = np.pad(image, ((0, max(0, high - height)), (0, max(0, wide - width)), (0, 0)), mode="edge")
    weight = np.ones(size)
    if weights == "gaussian":
        weight = np.outer(gaussian(high, high / 8), gaussian(wide, wide / 8))
    total, weighed = np.zeros(padded.shape[:2]), np.zeros(padded.shape[:2])
    for top in places(padded.shape[0], high, stride):
        for left in places(padded.shape[1], wide, stride):
            window = (slice(top, top + high), slice(left, left + wide))
            total[window] += weight * forward(network, padded[window])
            weighed[window] += weight
    return (total / weighed)[:height, :width]


class TestSlidingWindows:
    @pytest.mark.parametrize("weights", ["mean", "gaussian"])
    @pytest.mark.parametrize("stride", [1, 3, 8, 16])
    @pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 41), (16, 16), (9, 45), (31, 5), (1, 1)])
    def test_are_the_literal_loop(self, height: int, width: int, stride: int, weights: str) -> None:
        network, image = Placed(stride=4), photograph(height, width)
        expected = literal(network, image, size=(16, 16), stride=stride, weights=weights)
        found = map_of(network, image, Sliding(size=16, stride=stride, weights=weights))
        assert (found.shape, found.dtype) == ((height, width), np.float32)
        assert np.ptp(found) > 0.05 or found.size == 1
        np.testing.assert_allclose(found, expected, atol=1e-5)

    @pytest.mark.parametrize("weights", ["mean", "gaussian"])
    @pytest.mark.parametrize("size", [1, 5, 10, 15])
    def test_are_padded_to_the_network_s_stride_one_by_one(self, size: int, weights: str) -> None:
        network, image = Placed(stride=4), photograph(22, 19)
        expected = literal(network, image, size=(size, size), stride=min(3, size), weights=weights)
        found = map_of(network, image, Sliding(size=size, stride=min(3, size), weights=weights))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert all(side % 4 == 0 for shape in network.shapes for side in shape[2:])

    @given(
        sides=st.tuples(st.integers(1, 30), st.integers(1, 30)),
        spacing=st.integers(1, 20).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size))),
        weights=st.sampled_from(["mean", "gaussian"]),
        batch=st.integers(1, 40),
        divisor=st.sampled_from([1, 2, 4]),
    )
    def test_are_the_literal_loop_whatever_the_sizes(
        self, sides: tuple[int, int], spacing: tuple[int, int], weights: str, batch: int, divisor: int
    ) -> None:
        torch.set_num_threads(1)
        (size, stride), network, image = spacing, Placed(stride=divisor), photograph(*sides)
        expected = literal(network, image, size=(size, size), stride=stride, weights=weights)
        network.shapes.clear()
        found = map_of(network, image, Sliding(size=size, stride=stride, weights=weights, batch=batch))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        padded = math.ceil(size / divisor) * divisor
        assert {shape[1:] for shape in network.shapes} == {(3, padded, padded)}
        assert max(shape[0] for shape in network.shapes) <= batch
        grid = [len(places(max(side, size), size, stride)) for side in sides]
        assert sum(shape[0] for shape in network.shapes) == math.prod(grid)

    def test_are_those_of_a_real_network_and_a_recipe_s_pixels(self) -> None:
        network, image = UNet(width=2, depth=2).build().eval(), photograph(40, 37)
        inference = Sliding(size=24, stride=8, weights="gaussian", batch=5)
        scale = Pipeline(normalisation="imagenet").normalise
        found = probability_map(network, image, inference=inference, normalise=scale, device=CPU)

        class Scaled(nn.Module):
            stride = network.stride

            def forward(self, pixels: Tensor) -> Tensor:
                return network(scale((pixels * 255).round().to(torch.uint8)))

        expected = literal(Scaled(), image, size=(24, 24), stride=8, weights="gaussian")
        np.testing.assert_allclose(found, expected, atol=1e-5)

    @pytest.mark.parametrize("logit", [-3.0, 0.1, 20.0])
    @pytest.mark.parametrize("weights", ["mean", "gaussian"])
    @pytest.mark.parametrize("stride", [1, 7, 48])
    def test_of_a_constant_network_give_its_constant(self, stride: int, weights: str, logit: float) -> None:
        found = map_of(Constant(logit), photograph(61, 75), Sliding(size=48, stride=stride, weights=weights))
        np.testing.assert_allclose(found, 1 / (1 + math.exp(-logit)), rtol=1e-5)
        assert found.max() <= 1

    def test_give_the_same_map_to_the_last_bit_and_leave_the_image_alone(self) -> None:
        network, image = Placed(stride=4), photograph(50, 70)
        image.flags.writeable = False
        one, other = (map_of(network, image, Sliding(size=16, stride=2, batch=20)) for _ in range(2))
        assert np.array_equal(one, other)
        assert np.array_equal(image, photograph(50, 70))


class TestOnePass:
    @pytest.mark.parametrize(("height", "width"), [(48, 64), (50, 43), (3, 70), (1, 1)])
    def test_is_one_plain_forward_pass(self, height: int, width: int) -> None:
        network, image = Placed(stride=8), photograph(height, width)
        expected = forward(network, image)
        network.shapes.clear()
        np.testing.assert_allclose(map_of(network, image, Whole()), expected, atol=1e-6)
        assert network.shapes == [(1, 3, math.ceil(height / 8) * 8, math.ceil(width / 8) * 8)]

    def test_over_its_limit_is_the_tiles_it_stands_for(self) -> None:
        network, image, whole = Placed(stride=4), photograph(77, 90), Whole(max_pixels=1024)
        assert whole.tiles == Sliding(size=32, stride=16, weights="gaussian", batch=1)
        found = map_of(network, image, whole)
        np.testing.assert_array_equal(found, map_of(network, image, whole.tiles))
        expected = literal(network, image, size=(32, 32), stride=16, weights="gaussian")
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_at_its_limit_is_one_pass_and_one_pixel_more_is_not(self) -> None:
        network = Placed(stride=1)
        map_of(network, photograph(16, 64), Whole(max_pixels=1024))
        assert network.shapes == [(1, 3, 16, 64)]
        map_of(network, photograph(25, 41), Whole(max_pixels=1024))
        assert len(network.shapes) > 2

    def test_cuts_the_tiles_of_a_thin_image_to_its_side(self) -> None:
        network, image = Placed(stride=4), photograph(10, 130)
        found = map_of(network, image, Whole(max_pixels=1024))
        assert set(network.shapes) == {(1, 3, 12, 32)}
        expected = literal(network, image, size=(10, 32), stride=16, weights="gaussian")
        np.testing.assert_allclose(found, expected, atol=1e-5)


PEAK = """
import numpy as np, torch
from pathlib import Path
from fissura.segmentation.inference import Sliding, Whole, probability_map
from fissura.models import Segmenter

class Pointwise(Segmenter):
    stride, feature_channels = 1, 1
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 1, 1)
    def features(self, image):
        return self.convolution(image)
    def head(self, features):
        return features

def peak():
    # not getrusage's, which begins with the peak of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

torch.set_num_threads(1)
network, inference = Pointwise().eval(), {inference}
image = np.random.default_rng(0).integers(0, 256, ({height}, {width}, 3), dtype=np.uint8)
def run(part):
    return probability_map(
        network, part, inference=inference, normalise=lambda pixels: pixels.float() / 255,
        device=torch.device("cpu"),
    )
run(image[:64, :64])
before = peak()
found = run(image)
grown = peak() - before - found.nbytes
with torch.no_grad():
    rows = torch.from_numpy(image[::97]).permute(2, 0, 1)[None].float() / 255
    np.testing.assert_allclose(found[::97], network(rows).sigmoid()[0, 0].numpy(), atol=1e-5)
print(grown)
"""


@pytest.mark.slow
class TestMemory:
    @pytest.mark.parametrize(
        ("inference", "height", "width"),
        [
            ("Sliding(size=48, stride=48)", 2400, 4800),
            ("Whole(max_pixels=2**18)", 2400, 4800),
            ("Sliding(size=48, stride=4)", 500, 1000),
        ],
    )
    def test_beside_the_image_and_the_map_stays_below_128_megabytes(
        self, inference: str, height: int, width: int
    ) -> None:
        """The pixels of all windows in float32 would be 290 MB to 1.5 GB."""
        code = PEAK.format(inference=inference, height=height, width=width)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert int(done.stdout) < 128 * 2**20


class TestPlaces:
    @given(length=st.integers(1, 200), size=st.integers(1, 60), share=st.floats(0, 1))
    def test_cover_each_pixel_with_the_last_window_at_the_end(
        self, length: int, size: int, share: float
    ) -> None:
        axis = Axis(length, size, max(1, round(share * size)))
        assert list(axis.starts) == places(max(length, size), size, axis.stride)
        held = [{*range(start, start + size)} for start in axis.starts]
        assert set.union(*held) == {*range(axis.covered)}
        total = [sum(pixel in window for window in held) for pixel in range(axis.covered)]
        np.testing.assert_allclose(axis.total("mean"), total)

    @pytest.mark.parametrize("size", [1, 2, 7, 48, 2048])
    def test_have_gaussian_weights_that_never_vanish(self, size: int) -> None:
        profile = Axis(size, size, 1).profile("gaussian")
        np.testing.assert_allclose(profile, gaussian(size, size / 8), rtol=1e-12)
        assert np.outer(profile, profile).astype(np.float32).min() > 1e-7

    @given(count=st.integers(1, 100), most=st.integers(1, 40))
    def test_are_shared_out_evenly_in_order(self, count: int, most: int) -> None:
        parts = shares(range(count), most)
        assert [item for part in parts for item in part] == list(range(count))
        assert len(parts) == math.ceil(count / most)
        assert max(map(len, parts)) <= most
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


class TestTheSpecs:
    def test_are_told_apart_by_their_kind(self) -> None:
        adapter: TypeAdapter[Whole | Sliding] = TypeAdapter(AnyInference)
        for inference in (
            Whole(),
            Whole(max_pixels=5000),
            Sliding(size=48, stride=1),
            Sliding(size=2, stride=2),
        ):
            assert adapter.validate_python(inference.plain()) == inference

    def test_refuse_a_stride_that_leaves_pixels_out_with_the_remedy(self) -> None:
        with pytest.raises(
            SpecError, match=r"stride of at most the size.*is 49 for a size of 48: lower `stride`"
        ):
            Sliding.load({"kind": "sliding", "size": 48, "stride": 49}, source="recipe.json")

    @pytest.mark.parametrize(
        ("field", "value"), [*product(["size", "stride", "batch"], [0, -1, 2**20])], ids=str
    )
    def test_refuse_numbers_out_of_range(self, field: str, value: int) -> None:
        with pytest.raises(ValidationError, match=field):
            Sliding(**{"size": 48, "stride": 1, "batch": 8, field: value})

    def test_refuse_a_limit_below_a_tile_of_32_pixels(self) -> None:
        with pytest.raises(ValidationError, match="max_pixels"):
            Whole(max_pixels=1023)
