"""Every protocol of the union counts, at all 256 levels, what a literal loop over the levels counts."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from fissura.core.errors import SpecError
from fissura.metrics import AnyProtocol, Flexible, Overlap, Pixel, Tolerant, parse_protocol

KINDS = get_args(get_args(AnyProtocol)[0])
PROTOCOLS = (
    Pixel(),
    Overlap(),
    *(Tolerant(distance=distance) for distance in (0, 1, 1.5, 2, 5, 50)),
    *(Flexible(distance=distance) for distance in (0, 1, 2, 9)),
)
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS, ids=str)


def near(pixels, distance):
    """Pixels at most `distance` from one of `pixels`, by the Euclidean distance transform."""
    if not pixels.any():
        return np.zeros_like(pixels)
    return ndimage.distance_transform_edt(~pixels) <= distance


def widened(pixels, distance):
    return ndimage.binary_dilation(pixels, structure=np.ones((2 * distance + 1, 2 * distance + 1)))


def literal(protocol, probability, mask, valid, level):
    """(true positives, false positives, found, missed) of one level, as the papers put them in words."""
    inside = np.ones(mask.shape, bool) if valid is None else valid != 0
    labelled = (mask != 0) & inside
    predicted = (probability >= level) & inside
    if isinstance(protocol, Tolerant):
        right, found = near(labelled, protocol.distance), labelled & near(predicted, protocol.distance)
        return (predicted & right).sum(), (predicted & ~right).sum(), found.sum(), (labelled & ~found).sum()
    right = widened(labelled, protocol.distance) if isinstance(protocol, Flexible) else labelled
    true_positive = (predicted & right).sum()
    return true_positive, (predicted & ~right).sum(), true_positive, (labelled & ~predicted).sum()


def assert_literal(protocol, probability, mask, valid, levels):
    counts = protocol.count(probability, mask, valid)
    fast = np.stack([counts.true_positive, counts.false_positive, counts.found, counts.missed])
    assert fast.dtype == np.int64
    assert fast.shape == (4, 256)
    slow = np.array([literal(protocol, probability, mask, valid, level) for level in levels]).T
    np.testing.assert_array_equal(fast[:, levels], slow)


@st.composite
def images(draw):
    """A small map, its mask and its valid pixels: often empty, full or flat, always much of it border."""
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=9))
    values = draw(st.sampled_from([[0], [255], [128], [0, 255], [0, 1, 127, 128, 254, 255], range(256)]))
    pixels = st.sampled_from([[0], [1], [0, 0, 0, 0, 1], [0, 1]])
    probability = draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from(values)))
    mask = draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from(draw(pixels))))
    valid = draw(st.none() | arrays.arrays(np.uint8, shape, elements=st.sampled_from(draw(pixels))))
    return probability, mask, valid


def test_the_contract_covers_every_kind():
    assert {type(protocol) for protocol in PROTOCOLS} == set(KINDS)


@every_protocol
@settings(max_examples=100)
@given(image=images(), level=st.integers(0, 255))
def test_counts_are_those_of_a_literal_loop(protocol, image, level):
    values = {int(value) for value in image[0].ravel()[:12]}
    levels = sorted({0, 1, 255, level, *values, *(min(value + 1, 255) for value in values)})
    assert_literal(protocol, *image, levels)


@every_protocol
@pytest.mark.parametrize("field_of_view", [False, True])
def test_counts_are_those_of_a_literal_loop_at_every_level_of_a_large_map(protocol, field_of_view, rng):
    shape = (110, 120)  # more pixels than the histogram of few values takes
    probability = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    probability = (255 * (probability - probability.min()) / np.ptp(probability)).astype(np.uint8)
    mask = (ndimage.gaussian_filter(rng.normal(size=shape), 2) > 0.25).astype(np.uint8)
    y, x = np.mgrid[: shape[0], : shape[1]]
    valid = ((y - 55) ** 2 + (x - 60) ** 2 < 50**2).astype(np.uint8) if field_of_view else None
    assert_literal(protocol, probability, mask, valid, list(range(0, 256, 5)))


@every_protocol
def test_what_lies_outside_the_field_of_view_changes_nothing(protocol, rng):
    probability, other = rng.integers(0, 256, (2, 20, 20), dtype=np.uint8)
    mask, valid = np.zeros((2, 20, 20), np.uint8)
    valid[3:15, 4:17] = 1
    mask[::3, :10] = 1
    changed = np.where(valid == 1, probability, other)
    labelled = np.where(valid == 1, mask, 1 - mask)
    one, two = protocol.count(probability, mask, valid), protocol.count(changed, labelled, valid)
    for name in ("true_positive", "false_positive", "found", "missed"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert one.true_positive[0] + one.false_positive[0] == valid.sum()


@every_protocol
def test_masks_of_255_count_like_masks_of_1(protocol, rng):
    probability = rng.integers(0, 256, (9, 9), dtype=np.uint8)
    mask = rng.integers(0, 2, (9, 9), dtype=np.uint8)
    one, two = protocol.count(probability, mask), protocol.count(probability, mask * np.uint8(255))
    np.testing.assert_array_equal(one.found, two.found)
    np.testing.assert_array_equal(one.false_positive, two.false_positive)


@every_protocol
def test_a_map_of_another_size_or_type_is_refused(protocol):
    mask = np.zeros((4, 5), np.uint8)
    with pytest.raises(ValueError, match="as large as its masks"):
        protocol.count(np.zeros((5, 4), np.uint8), mask)
    with pytest.raises(ValueError, match="float32"):
        protocol.count(np.zeros((4, 5), np.float32), mask)


def test_a_tolerance_by_hand():
    mask, probability = np.zeros((2, 5, 7), np.uint8)
    mask[2, 1:6] = 1  # a line of five pixels
    probability[0, 3] = 200  # two above its middle: right within 2, and it finds that pixel alone
    probability[4, 6] = 100  # from its end 1 to the side and 2 below, sqrt(5) > 2: wrong
    counts = Tolerant(distance=2).count(probability, mask)
    assert [counts.true_positive[k] for k in (1, 100, 101, 200, 201)] == [1, 1, 1, 1, 0]
    assert [counts.false_positive[k] for k in (1, 100, 101, 200, 201)] == [1, 1, 0, 0, 0]
    assert [counts.found[k] for k in (1, 200, 201)] == [1, 1, 0]
    assert counts.missed[200] == 4
    farther = Tolerant(distance=5**0.5).count(probability, mask)  # sqrt(5) exactly: the border counts as near
    assert (farther.false_positive[1], farther.found[1]) == (0, 4)


def test_a_flexible_mask_by_hand():
    mask, probability = np.zeros((2, 5, 7), np.uint8)
    mask[2, 3] = 1
    probability[1, 1:6] = 255  # five in a row above it, three of them inside the mask widened by 1
    counts = Flexible(distance=1).count(probability, mask)
    assert (counts.true_positive[255], counts.false_positive[255]) == (3, 2)
    assert (counts.found[255], counts.missed[255]) == (3, 1)
    scores = Flexible(distance=1).score(counts, 255)
    assert (scores.precision, scores.recall) == (3 / 5, 3 / 4)


@every_protocol
def test_a_protocol_is_named_and_read_back(protocol):
    assert parse_protocol(str(protocol)) == protocol
    assert type(protocol).load(protocol.plain(), source="a recipe") == protocol
    assert str(protocol).startswith(protocol.kind)


@given(st.floats(0, 1000))
def test_any_distance_is_named_and_read_back(distance):
    assert parse_protocol(str(Tolerant(distance=distance))) == Tolerant(distance=distance)


@pytest.mark.parametrize(
    ("text", "protocol"),
    [
        ("pixel", Pixel()),
        ("overlap", Overlap()),
        ("tolerant:2", Tolerant(distance=2)),
        ("tolerant:1.5", Tolerant(distance=1.5)),
        ("tolerant", Tolerant(distance=2)),
        ("flexible:3", Flexible(distance=3)),
    ],
)
def test_protocols_by_name(text, protocol):
    assert parse_protocol(text) == protocol


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tolerent:2", "did you mean `tolerant`.*`pixel`, `tolerant:2`, `overlap`, `flexible:2`"),
        ("", "no kind is named ``"),
        ("pixel:2", "is written `pixel`; leave out `:2`"),
        ("tolerant:2:3", "is written `tolerant:DISTANCE`; leave out `:3`"),
        ("tolerant:two", "`two` is not a number"),
        ("tolerant:", "`` is not a number"),
        ("tolerant:nan", "`nan` is not a number"),
        ("tolerant:-1", "`distance` is a number from 0 to 1,000"),
        ("tolerant:9999", "`distance` is a number from 0 to 1,000"),
        ("flexible:1.5", "is a whole number"),
    ],
)
def test_a_wrong_name_is_one_plain_line(text, said):
    with pytest.raises(SpecError, match=said) as caught:
        parse_protocol(text)
    assert len(caught.value.problems) == 1
    assert f"protocol `{text}`" in str(caught.value)


@given(st.text(alphabet="tolerantflexible:0123456789.-e ", max_size=20))
def test_any_text_is_a_protocol_or_a_spec_error(text):
    try:
        protocol = parse_protocol(text)
    except SpecError:
        return
    assert parse_protocol(str(protocol)) == protocol
