"""Where the windows of an image lie, how they are cut from its pixels, and how their maps are summed."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

Weights = Literal["mean", "gaussian"]


@dataclass(frozen=True)
class Axis:
    """Windows of `size` pixels along one side of an image, `length` pixels long: one every `stride` pixels,
    the last moved inwards to end with the image. On a shorter image the one window reaches beyond it."""

    length: int
    size: int
    stride: int

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first pixel of each window."""
        last = max(self.length - self.size, 0)
        return (*range(0, last, self.stride), last)

    @property
    def covered(self) -> int:
        """Pixels from the first window's begin to the last one's end: `length`, or `size` if that is more."""
        return max(self.length, self.size)

    def even(self, starts: Sequence[int]) -> list[slice]:
        """The parts of consecutive `starts` in which each is `stride` pixels after the previous one."""
        if len(starts) > 1 and starts[-1] - starts[-2] != self.stride:
            return [slice(0, len(starts) - 1), slice(len(starts) - 1, len(starts))]
        return [slice(0, len(starts))]

    def profile(self, weights: Weights) -> Float64[np.ndarray, " size"]:
        """The weight of each pixel of a window: 1, or a Gaussian of standard deviation size / 8 around the
        window's centre, at most 1. The ends lie less than 4 deviations out: no weight is below exp(-8)."""
        if weights == "mean":
            return np.ones(self.size)
        offsets = np.arange(self.size) - (self.size - 1) / 2
        return np.asarray(np.exp(-0.5 * (offsets / (self.size / 8)) ** 2))

    def total(self, weights: Weights) -> Float64[np.ndarray, "covered"]:
        """The sum of the weights of all windows that cover a pixel, pixel by pixel."""
        begins = np.zeros(self.covered - self.size + 1)
        begins[list(self.starts)] = 1
        return np.convolve(begins, self.profile(weights))


@dataclass(frozen=True)
class Windows:
    """All windows of an image: each pair of a window of `rows` and one of `columns`, `batch` at a time."""

    rows: Axis
    columns: Axis
    weights: Weights
    batch: int

    @property
    def one_pass(self) -> bool:
        """Whether the whole image is one window of equal weights."""
        return self.weights == "mean" and len(self.rows.starts) == len(self.columns.starts) == 1

    def bands(self) -> Iterator[tuple[Sequence[int], int]]:
        """The windows' tops, a batch's worth of window rows at a time (at least one), and the row of pixels
        at which the next band begins: the rows above it are then finished."""
        bands = shares(self.rows.starts, max(1, self.batch // len(self.columns.starts)))
        ends = [following[0] for following in bands[1:]]
        yield from zip(bands, (*ends, self.rows.covered), strict=True)

    def batches(self) -> list[Sequence[int]]:
        """The windows' lefts, as many at a time as a batch holds."""
        return shares(self.columns.starts, self.batch)

    def weight(self) -> Float[Tensor, "h w"]:
        """The weight of each pixel of a window."""
        profiles = (axis.profile(self.weights).astype(np.float32) for axis in (self.rows, self.columns))
        return torch.from_numpy(np.outer(*profiles))

    def cut(
        self, pixels: Float[Tensor, "3 h w"], *, tops: Sequence[int], lefts: Sequence[int]
    ) -> Float[Tensor, "b 3 size_h size_w"]:
        """The windows at `tops` x `lefts`, row by row; `pixels` begin at the first of each.

        The copy has its channels last in memory, the fastest layout for convolutions on a CPU.
        """
        height, width = self.rows.size, self.columns.size
        count = len(tops) * len(lefts)
        windows = torch.empty(
            (count, 3, height, width), device=pixels.device, memory_format=torch.channels_last
        )
        grid = windows.view(len(tops), len(lefts), *windows.shape[1:])
        for rows, columns, area in self._parts(tops, lefts):
            view = pixels[:, *area].unfold(1, height, self.rows.stride).unfold(2, width, self.columns.stride)
            grid[rows, columns] = view.permute(1, 2, 0, 3, 4)
        return windows

    def add(
        self,
        sums: Float[Tensor, "h w"],
        maps: Float[Tensor, "b size_h size_w"],
        *,
        tops: Sequence[int],
        lefts: Sequence[int],
    ) -> None:
        """Adds the maps of the windows at `tops` x `lefts`, row by row, to `sums`, which begin at the first
        of each."""
        grid = maps.view(len(tops), len(lefts), *maps.shape[1:])
        for rows, columns, area in self._parts(tops, lefts):
            target = sums[area]
            target += torch.nn.functional.fold(
                grid[rows, columns].flatten(2).flatten(0, 1).T[None],
                output_size=target.shape,
                kernel_size=(self.rows.size, self.columns.size),
                stride=(self.rows.stride, self.columns.stride),
            )[0, 0]

    def _parts(
        self, tops: Sequence[int], lefts: Sequence[int]
    ) -> Iterator[tuple[slice, slice, tuple[slice, slice]]]:
        """The evenly spaced parts of a batch (one, if no window in it was moved inwards): which rows and
        columns of windows, and the area of pixels under them."""
        for rows in self.rows.even(tops):
            for columns in self.columns.even(lefts):
                area = (span(tops, rows, self.rows.size), span(lefts, columns, self.columns.size))
                yield rows, columns, area


def span(starts: Sequence[int], part: slice, size: int) -> slice:
    """The pixels under a part of the windows at `starts`, counted from the first of all."""
    return slice(starts[part][0] - starts[0], starts[part][-1] + size - starts[0])


def shares(items: Sequence[int], most: int) -> list[Sequence[int]]:
    """`items` in the fewest consecutive shares of at most `most`, as equal as possible."""
    count = math.ceil(len(items) / most)
    bounds = [len(items) * number // count for number in range(count + 1)]
    return [items[first:end] for first, end in pairwise(bounds)]
