"""The crack probability of each pixel: in one pass, or as the mean over overlapping windows."""

from typing import Any

import numpy as np
from card import Network


def probability_map(network: Network, image: np.ndarray, *, card: dict[str, Any]) -> np.ndarray:
    """float32 [h w] in [0, 1] of an image uint8 [h w 3], by the card's `inference`.

    An image up to `whole_pixels` is read in one pass; a larger one in windows, whose maps are averaged. Each
    window is padded below and to the right to a multiple of the card's `multiple`, its edge repeated.
    """
    inference, multiple = card["inference"], card["multiple"]
    height, width = image.shape[:2]
    if height * width <= inference["whole_pixels"]:
        return np.asarray(_predicted(network, image[None], multiple)[0])
    size, stride, weights = inference["size"], inference["stride"], inference["weights"]
    sizes = [min(size, side) if inference["whole_pixels"] else size for side in (height, width)]
    below, right = (max(0, of - side) for of, side in zip(sizes, (height, width), strict=True))
    image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
    profiles = [_profile(length, weights) for length in sizes]
    weight = np.outer(*profiles).astype(np.float32)
    starts = [_starts(side, of, stride) for side, of in zip(image.shape[:2], sizes, strict=True)]
    places = [(top, left) for top in starts[0] for left in starts[1]]
    sums = np.zeros(image.shape[:2], np.float32)
    for first in range(0, len(places), inference["batch"]):
        batch = [
            (slice(top, top + sizes[0]), slice(left, left + sizes[1]))
            for top, left in places[first : first + inference["batch"]]
        ]
        maps = _predicted(network, np.stack([image[place] for place in batch]), multiple)
        for place, one in zip(batch, maps, strict=True):
            sums[place] += one * weight
    totals = [
        np.convolve(np.isin(np.arange(side - of + 1), begin).astype(float), profile)
        for side, of, begin, profile in zip(image.shape[:2], sizes, starts, profiles, strict=True)
    ]
    mean = sums[:height, :width] / np.outer(*totals).astype(np.float32)[:height, :width]
    return np.asarray(np.minimum(mean, 1))


def _predicted(network: Network, images: np.ndarray, multiple: int) -> np.ndarray:
    """float32 [b h w] of images uint8 [b h w 3]."""
    height, width = images.shape[1:3]
    padding = ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0))
    return np.asarray(network(np.pad(images, padding, mode="edge"))[:, :height, :width])


def _starts(length: int, size: int, stride: int) -> list[int]:
    """Where the windows along a side begin; the last is moved inwards to end with it."""
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


def _profile(size: int, weights: str) -> np.ndarray:
    """The weight of each pixel along a side: 1, or a Gaussian of deviation size / 8 about the centre."""
    if weights == "mean":
        return np.ones(size)
    offsets = np.arange(size) - (size - 1) / 2
    return np.asarray(np.exp(-0.5 * (offsets / (size / 8)) ** 2))


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image uint8 [h w 3] at the working size: by pixel area to shrink, bilinear to enlarge."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] > height or image.shape[1] > width
    # where one side grows, a mean over areas is none: there is a variant of bilinear for that
    area = shrinks and image.shape[0] >= height and image.shape[1] >= width
    make = _area if area else _between if shrinks else _bilinear
    mixed = _mixed(image.astype(np.float32), make(image.shape[0], height), make(image.shape[1], width))
    return np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8)


def resized_map(probability: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map float32 [h w], bilinear, at the image's own size."""
    if probability.shape == (height, width):
        return probability
    rows, columns = _bilinear(probability.shape[0], height), _bilinear(probability.shape[1], width)
    return _mixed(probability[..., None], rows, columns)[..., 0]


def _mixed(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """float32 [a b c] of [h w c], its rows mixed by [a h] and its columns by [b w]."""
    low = _mixed_rows(image, rows)
    return _mixed_rows(low.swapaxes(0, 1), columns).swapaxes(0, 1)


def _mixed_rows(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float32 [a ...] of [h ...] by weights [a h], in each of whose rows those above 0 are neighbours."""
    place = np.arange(len(weights))
    first = (weights > 0).argmax(axis=1)
    result = np.zeros((len(weights), *image.shape[1:]), np.float32)
    for step in range(int((weights > 0).sum(axis=1).max())):
        row = np.minimum(first + step, weights.shape[1] - 1)
        weight = np.where(first + step < weights.shape[1], weights[place, row], 0)
        result += weight[:, None, None] * image[row]
    return result


def _area(length: int, to: int) -> np.ndarray:
    """Weights [to length]: the share of each pixel in the interval that becomes one."""
    edges = np.arange(to + 1) * (length / to)
    below, above = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length)
    shares = np.clip(np.minimum(above, pixel + 1) - np.maximum(below, pixel), 0, None)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


def _bilinear(length: int, to: int) -> np.ndarray:
    """Weights [to length]: of the two pixels whose centres are nearest."""
    centres = (np.arange(to) + 0.5) * (length / to) - 0.5
    return _two(np.floor(centres), centres - np.floor(centres), length)


def _between(length: int, to: int) -> np.ndarray:
    """Weights [to length]: as OpenCV's area mode has them where one side of an image grows."""
    place, growth = np.arange(to), to / length
    # the roundings are OpenCV's too: at a whole number they decide for a pixel or the one before it
    first = np.floor(place * (1 / growth))
    share = ((place + 1) - (first + 1) * growth).astype(np.float32)
    return _two(first, np.where(share <= 0, 0, share - np.floor(share)), length)


def _two(first: np.ndarray, share: np.ndarray, length: int) -> np.ndarray:
    weights = np.zeros((len(first), length), np.float32)
    rows = np.arange(len(first))
    np.add.at(weights, (rows, np.clip(first, 0, length - 1).astype(int)), (1 - share).astype(np.float32))
    np.add.at(weights, (rows, np.clip(first + 1, 0, length - 1).astype(int)), share.astype(np.float32))
    return weights
