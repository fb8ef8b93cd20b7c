"""Cuts training samples from images, and decides how many an epoch draws from each image."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Num, UInt8
from pydantic import Field

from fissura.core.errors import DataError
from fissura.core.spec import Spec

Pixels = Num[np.ndarray, "h w *channels"]


class Patch(NamedTuple):
    """An image (RGB) or a part of one: its mask (1 crack), its valid pixels (1 counts), and other maps, by
    name, of the mask's size."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]
    valid: UInt8[np.ndarray, "h w"]
    maps: Mapping[str, Num[np.ndarray, "h w"]] = {}

    def map(self, change: Callable[[Pixels], Pixels]) -> "Patch":
        """The patch with `change` applied to each of its arrays."""
        maps = {name: change(pixels) for name, pixels in self.maps.items()}
        return Patch(change(self.image), change(self.mask), change(self.valid), maps)


Cutter = Callable[[np.random.Generator], Patch]


class WholeImage(Spec):
    """A training sample is a whole image; images of unequal size are padded to the largest of their batch."""

    kind: Literal["whole"] = "whole"
    per_image: Literal[1] = 1

    def counts(self, images: Sequence[Patch]) -> list[int]:
        """Samples that an epoch draws from each of the images."""
        return [self.per_image] * len(images)

    def cutter(self, image: Patch) -> Cutter:
        """The function that draws one sample of the image."""
        return partial(self.cut, image)

    def cut(self, patch: Patch, _: np.random.Generator) -> Patch:
        """The patch itself."""
        return patch


class RandomCrop(Spec):
    """A training sample is a random square of `size` pixels; an epoch draws `per_image` of them from each
    image."""

    kind: Literal["random"] = "random"
    size: int = Field(256, ge=16, le=4096)
    per_image: int = Field(1, ge=1, le=100_000)

    def counts(self, images: Sequence[Patch]) -> list[int]:
        """Samples that an epoch draws from each of the images."""
        return [self.per_image] * len(images)

    def cutter(self, image: Patch) -> Cutter:
        """The function that draws one sample of the image."""
        return partial(self.cut, image)

    def cut(self, patch: Patch, generator: np.random.Generator) -> Patch:
        """A random square of the patch; pixels beyond a smaller image are not valid."""
        patch = pad(patch, height=self.size, width=self.size)
        top = int(generator.integers(patch.mask.shape[0] - self.size + 1))
        left = int(generator.integers(patch.mask.shape[1] - self.size + 1))
        return square(patch, top=top, left=left, size=self.size)


class CrackPatches(Spec):
    """A training sample is a square of `size` pixels, with probability `crack_share` one that holds at least
    one valid crack pixel, else one without any (König et al., ICIP 2019, section 3.2).

    A square is drawn uniformly from all positions with (or without) a crack; an image that has no such
    position gives the other kind. `allocation` "equal" draws `per_image` squares from each image in an epoch;
    "crack_pixels" draws as many in all, in proportion to each image's valid crack pixels (their eq. 3).
    """

    kind: Literal["crack_patches"] = "crack_patches"
    size: int = Field(48, ge=16, le=4096)
    crack_share: float = Field(0.6, ge=0, le=1)
    per_image: int = Field(2000, ge=1, le=100_000)
    allocation: Literal["equal", "crack_pixels"] = "equal"

    def counts(self, images: Sequence[Patch]) -> list[int]:
        """Samples that an epoch draws from each of the images; an image without crack may give none.

        Raises:
            DataError: none of the images has a crack pixel to allocate by.
        """
        if self.allocation == "equal":
            return [self.per_image] * len(images)
        cracks = [int(np.count_nonzero(image.mask & image.valid)) for image in images]
        if images and not any(cracks):
            raise DataError(
                "the crop's allocation `crack_pixels` needs training images with cracks, got none; "
                "use the allocation `equal`"
            )
        return apportion(self.per_image * len(images), shares=cracks)

    def cutter(self, image: Patch) -> Cutter:
        """The function that draws one sample of the image; locates its cracks here, once."""
        return partial(self._cut, image, CrackSquares(image, size=self.size))

    def cut(self, patch: Patch, generator: np.random.Generator) -> Patch:
        """One sample of the patch; pixels beyond a smaller image are not valid."""
        return self.cutter(patch)(generator)

    def _cut(self, patch: Patch, squares: "CrackSquares", generator: np.random.Generator) -> Patch:
        patch = pad(patch, height=self.size, width=self.size)
        top, left = squares.draw(patch, generator, cracked=generator.random() < self.crack_share)
        return square(patch, top=top, left=left, size=self.size)


AnyCrop = Annotated[WholeImage | RandomCrop | CrackPatches, Field(discriminator="kind")]


class CrackSquares:
    """How many squares of `size` pixels with and without a valid crack pixel begin in the rows of an image.

    Only the counts of the rows are kept; a row's squares are located when one of them is drawn. So a draw
    needs neither a pass over a large image nor a map of its size.
    """

    def __init__(self, image: Patch, *, size: int) -> None:
        image = pad(image, height=size, width=size)
        self._size = size
        cracked = any_within(any_within((image.mask & image.valid) > 0, size=size).T, size=size).T
        each_row = np.count_nonzero(cracked, axis=1)
        self._until = {
            True: np.cumsum(each_row),
            False: np.cumsum(cracked.shape[1] - each_row),
        }

    def draw(self, image: Patch, generator: np.random.Generator, *, cracked: bool) -> tuple[int, int]:
        """Top and left of a square with a crack or, not `cracked`, without; of the other kind if there is
        none. `image` is the one the squares were counted in, padded to at least `size`."""
        if not self._until[cracked][-1]:
            cracked = not cracked
        until = self._until[cracked]
        number = int(generator.integers(until[-1]))
        top = int(until.searchsorted(number, side="right"))
        rows = slice(top, top + self._size)
        columns = np.bitwise_or.reduce(image.mask[rows] & image.valid[rows], axis=0) > 0
        (lefts,) = (any_within(columns, size=self._size) == cracked).nonzero()
        return top, int(lefts[number - (until[top - 1] if top else 0)])


def any_within(pixels: Bool[np.ndarray, " n *rest"], *, size: int) -> Bool[np.ndarray, " m *rest"]:
    """Whether any of the `size` rows from each row on is set; m = n - size + 1."""
    reach = 1
    while reach < size:
        step = min(reach, size - reach)
        pixels = pixels[:-step] | pixels[step:]
        reach += step
    return pixels


def apportion(total: int, *, shares: Sequence[int]) -> list[int]:
    """`total` divided into whole numbers in proportion to the shares: each is rounded down, and the rest goes
    to the largest remainders, the first among equal ones."""
    whole = sum(shares)
    parts = [total * share // whole for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda index: -(total * shares[index] % whole))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


def square(patch: Patch, *, top: int, left: int, size: int) -> Patch:
    """The square of `size` pixels at `top` and `left`: views of the patch's arrays."""
    window = (slice(top, top + size), slice(left, left + size))
    return patch.map(lambda pixels: pixels[window])


def pad(patch: Patch, *, height: int, width: int) -> Patch:
    """The patch, grown below and to the right to at least `height` x `width`, with invalid pixels."""
    below = max(0, height - patch.mask.shape[0])
    right = max(0, width - patch.mask.shape[1])
    if not below and not right:
        return patch
    edges = ((0, below), (0, right))
    grown = patch.map(lambda pixels: np.pad(pixels, edges + ((0, 0),) * (pixels.ndim - 2)))
    return grown._replace(image=np.pad(patch.image, (*edges, (0, 0)), mode="edge"))
