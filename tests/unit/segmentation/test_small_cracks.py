"""Small cracks leave a map at all thresholds at once, as they would leave the mask of each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from fissura.segmentation.opening import opened
from fissura.segmentation.predict import to_bytes
from fissura.segmentation.small_cracks import without_small_cracks

MAPS = arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from([0, 0.2, 0.5, 0.8, 1]),
)


def kept(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The pixels of a mask in groups of at least so many, corners included."""
    groups, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.asarray(mask & (np.bincount(groups.ravel())[groups] >= pixels))


@given(MAPS, st.integers(0, 20))
def test_at_each_threshold_the_groups_that_are_large_enough_are_left(map_: np.ndarray, pixels: int) -> None:
    found = opened(map_, pixels)
    assert found.dtype == np.float32
    assert np.array_equal(without_small_cracks(map_, pixels), found)
    for threshold in (0.2, 0.5, 0.8, 1):
        assert np.array_equal(found >= threshold, kept(map_ >= threshold, pixels))


def test_a_smooth_map_of_many_levels_loses_no_level() -> None:
    random = np.random.default_rng(0)
    map_ = ndimage.gaussian_filter(random.random((90, 70)), 2)
    map_ = ((map_ - map_.min()) / np.ptp(map_)).astype(np.float32)
    found = to_bytes(opened(map_, 40))
    for level in range(1, 256, 7):
        assert np.array_equal(found >= level, kept(to_bytes(map_) >= level, 40))


@pytest.mark.parametrize("pixels", [0, 1])
def test_none_is_too_small_where_each_counts(pixels: int) -> None:
    map_ = np.eye(4, dtype=np.float32)
    assert opened(map_, pixels) is map_
    assert without_small_cracks(map_, pixels) is map_


def test_the_map_that_is_given_stays_as_it_is() -> None:
    map_ = np.eye(4, dtype=np.float32)
    assert not opened(map_, 5).any()
    assert np.array_equal(map_, np.eye(4))
