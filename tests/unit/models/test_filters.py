"""Filters answer as their formulas, and as scikit-image where it does what the paper says."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage
from skimage.filters import frangi, sato, threshold_niblack, threshold_sauvola

from fissura.core.errors import WeightsError
from fissura.models import Frangi, Niblack, Sato, Sauvola
from fissura.models.filters import Filter, Gaussian, scales

FILTERS: tuple[Filter, ...] = (
    Niblack(window=9, background=3),
    Sauvola(window=9, background=3),
    Frangi(sigma=1.5, background=3),
    Sato(sigma=1.5, background=3),
)


def wall(*, height: int = 60, width: int = 70) -> np.ndarray:
    """A grey wall float64 [h w] in 0..1 with a dark line of 4 pixels and one of 3, and grain."""
    random = np.random.default_rng(0)
    grey = 0.6 + 0.03 * ndimage.gaussian_filter(random.standard_normal((height, width)), 1)
    grey[:, 20:24] -= 0.2
    grey[30:33] -= 0.1
    return np.asarray(grey)


def response(spec: Filter, grey: np.ndarray) -> np.ndarray:
    image = torch.from_numpy(grey.astype(np.float32)).expand(1, 3, -1, -1)
    with torch.no_grad():
        return spec.build().eval().features(image)[0, 0].double().numpy()


@pytest.mark.parametrize(("down", "across"), [(0, 0), (2, 0), (1, 1), (0, 1)])
@pytest.mark.parametrize("sigma", [0.6, 3.0])
def test_a_gaussian_is_scipy_s(sigma: float, down: int, across: int) -> None:
    grey = wall()
    found = Gaussian(sigma, down=down, across=across)(torch.from_numpy(grey.astype(np.float32))[None, None])
    expected = ndimage.gaussian_filter(
        grey, sigma, order=(down, across), mode="nearest", radius=round(5 * sigma)
    )
    assert np.abs(found[0, 0].numpy() - expected).max() < 2e-6


def test_the_light_is_evened_by_division() -> None:
    """So that a shadow, or a darker photograph, is answered alike."""
    grey = wall()
    evened = grey / ndimage.gaussian_filter(grey, 6, mode="nearest", radius=30)
    for spec in (Niblack(window=9), Sauvola(window=9), Frangi(), Sato()):
        own = spec.model_copy(update={"background": 6.0})
        none = spec.model_copy(update={"background": 0.0})
        found = response(own, grey)
        for other in (response(none, evened), response(own, grey / 2)):
            assert np.abs(found - other).max() < 2e-3 * np.abs(found).max()


def test_niblack_counts_local_deviations() -> None:
    grey = wall()
    mean = ndimage.uniform_filter(grey, 15, mode="nearest")
    deviation = np.sqrt(ndimage.uniform_filter((grey - mean.mean()) ** 2, 15, mode="nearest")
                        - (mean - mean.mean()) ** 2)  # fmt: skip
    found = response(Niblack(window=15, blur=0, background=0), grey)
    np.testing.assert_allclose(found, (mean - grey) / (deviation + 1e-3), atol=1e-2)
    inside = np.s_[8:-8, 8:-8]
    for k in (0.5, 1.0):
        dark = grey < threshold_niblack(grey, 15, k=k)
        # 0.001 beside a deviation of at least 0.004
        assert np.mean((found > k * 0.9)[inside] & dark[inside]) == pytest.approx(
            dark[inside].mean(), rel=0.02
        )
    smooth = ndimage.gaussian_filter(grey, 1, mode="nearest", radius=5)
    np.testing.assert_allclose(
        response(Niblack(window=15, blur=1, background=0), grey),
        response(Niblack(window=15, blur=0, background=0), smooth),
        atol=1e-2,
    )


def test_sauvola_is_scikit_image_s_threshold_less_the_pixel() -> None:
    grey = wall()
    inside = np.s_[8:-8, 8:-8]
    for k in (0.0, 0.3):
        expected = threshold_sauvola(grey, 15, k=k, r=0.5) - grey
        found = response(Sauvola(window=15, k=k, background=0), grey)
        np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)


def test_sato_is_scikit_image_s_of_several_scales() -> None:
    grey, sigmas = wall(), scales(2.0, count=3)
    assert sigmas == pytest.approx([2, 2.83, 4], abs=0.01)
    expected = sato(grey, sigmas=sigmas, black_ridges=True, mode="nearest")
    found = response(Sato(sigma=2, scales=3, background=0), grey)
    # scikit-image takes the second derivative as two of the first
    np.testing.assert_allclose(found, expected, atol=0.05 * expected.max())


@pytest.mark.parametrize(("beta", "gamma"), [(0.5, 0.5), (1.0, 0.2)])
def test_frangi_is_scikit_image_s_called_once_a_scale(beta: float, gamma: float) -> None:
    """Of several scales at once scikit-image, from 0.19 on, gives the first alone."""
    grey, expected = wall(), np.zeros((60, 70))
    for sigma in scales(2.0, count=3):
        down, mixed, across = (
            ndimage.gaussian_filter(grey, sigma, order=order, mode="nearest", radius=round(5 * sigma))
            for order in ((2, 0), (1, 1), (0, 2))
        )
        strongest = np.sqrt((down**2 + 2 * mixed**2 + across**2).max())
        one = frangi(
            grey, sigmas=[sigma], beta=beta, gamma=gamma * strongest, black_ridges=True, mode="nearest"
        )
        expected = np.maximum(expected, one)
    found = response(Frangi(sigma=2, scales=3, beta=beta, gamma=gamma, background=0), grey)
    assert np.abs(found - expected).mean() < 0.005
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("spec", FILTERS, ids=lambda spec: type(spec).__name__)
class TestFilter:
    def test_finds_dark_lines_and_no_bright_ones(self, spec: Filter) -> None:
        grey = np.full((40, 40), 0.6)
        grey[:, 19:22] -= 0.2
        image = torch.from_numpy(np.stack([grey, 1.2 - grey]).astype(np.float32))[:, None].expand(
            -1, 3, -1, -1
        )
        dark, bright = spec.build().eval()(image)[:, 0]
        assert dark[10:30, 20].min() > dark[10:30, :14].max() + 0.3
        assert bright[10:30, 20].max() < dark[10:30, 20].min() - 0.3

    def test_has_levels_of_the_map_where_thresholds_lie(self, spec: Filter) -> None:
        """A twentieth of them at least between the grain and the line."""
        image = torch.from_numpy(wall().astype(np.float32)).expand(1, 3, -1, -1)
        levels = 255 * spec.build().eval()(image)[0, 0].sigmoid()
        line, grain = levels[4:26, 21:23], levels[4:26, 40:]
        assert line.median() - grain.median() > 255 / 20

    def test_has_nothing_to_learn(self, spec: Filter) -> None:
        network = spec.build()
        assert not spec.learns
        assert not list(network.parameters())
        assert not network.state_dict()
        with pytest.raises(WeightsError, match=r"has no weights; set `model.weights` to none"):
            spec.hub_file()

    @pytest.mark.parametrize("size", [(1, 1), (3, 200)])
    def test_reads_an_image_smaller_than_its_window(self, spec: Filter, size: tuple[int, int]) -> None:
        assert spec.build()(torch.full((1, 3, *size), 0.5)).isfinite().all()


@pytest.mark.parametrize(
    "spec",
    [
        Frangi(sigma=0.5, beta=0.01, gamma=0.01), Frangi(beta=100, gamma=100, background=500),
        Sato(sigma=0.5, background=0.1), Sato(sigma=50, scales=3), Niblack(window=3, blur=0.1),
        Niblack(window=1001, blur=100), Sauvola(window=3, k=1, background=0),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["black", "white", "grey", "noise", "one pixel"])
def test_the_ends_of_each_range_answer_any_image_in_finite_numbers(spec: Filter, kind: str) -> None:
    image = torch.full((1, 3, 24, 30), {"white": 1.0, "grey": 0.5}.get(kind, 0.0))
    if kind == "noise":
        image = torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    if kind == "one pixel":
        image[..., 12, 15] = 1.0
    with torch.inference_mode():
        assert spec.build().eval()(image).isfinite().all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Niblack(window=40), lambda: Niblack(blur=1e-300), lambda: Niblack(blur=0.09),
        lambda: Sauvola(window=1), lambda: Sauvola(background=1e-200), lambda: Frangi(sigma=0),
        lambda: Frangi(beta=1e-30), lambda: Frangi(gamma=0.009), lambda: Sato(scales=0),
        lambda: Sato(sigma=100, scales=2), lambda: Frangi(sigma=0.6, scales=16),
    ],
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_refused(wrong: Callable[[], Any]) -> None:
    with pytest.raises(ValidationError):
        wrong()
