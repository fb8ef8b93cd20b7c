"""From an image to a probability map: in one pass, or as the mean over overlapping windows."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from fissura.core.spec import Spec
from fissura.models import Segmenter
from fissura.segmentation.windows import Axis, Weights, Windows

Normalise = Callable[[UInt8[Tensor, "b 3 h w"]], Float[Tensor, "b 3 h w"]]
OnWindows = Callable[[int, int, int, int], None]
"""Called after each batch of windows: windows done and in all, the image's height and width."""


class Sliding(Spec):
    """Windows of `size` x `size` pixels, one every `stride` pixels both ways; the last row and column are
    moved inwards, so that all pixels are covered.

    A pixel's probability is the mean over all windows that cover it, plain (`mean`) or weighted with a
    Gaussian around each window's centre, of standard deviation size / 8 (`gaussian`; Isensee et al., Nature
    Methods 2021). A stride near the size is tiling; stride 1 is the densest sliding window. `batch` windows
    go through the network at a time, which changes only speed and memory.
    """

    kind: Literal["sliding"] = "sliding"
    size: int = Field(ge=1, le=8192)
    stride: int = Field(ge=1, le=8192)
    weights: Weights = "mean"
    batch: int = Field(64, ge=1, le=65_536)

    @model_validator(mode="after")
    def _no_pixel_is_left_out(self) -> Self:
        if self.stride > self.size:
            raise ValueError(
                "a stride of at most the size, since pixels between windows would have no probability; "
                f"is {self.stride} for a size of {self.size}: lower `stride` or raise `size`"
            )
        return self

    def windows(self, *, height: int, width: int) -> Windows:
        """The windows of an image of this size."""
        rows, columns = (Axis(length, self.size, self.stride) for length in (height, width))
        return Windows(rows, columns, self.weights, self.batch)


class Whole(Spec):
    """One pass over the whole image. An image of more than `max_pixels` is cut into overlapping tiles
    instead (see `tiles`), so that memory stays bounded."""

    kind: Literal["whole"] = "whole"
    max_pixels: int = Field(4_194_304, ge=1024, le=2**32)

    @property
    def tiles(self) -> Sliding:
        """The windows of an image that is too large for one pass: square tiles of at most `max_pixels`,
        overlapping by half, Gaussian, one at a time."""
        size = min(math.isqrt(self.max_pixels), 8192)
        return Sliding(size=size, stride=math.ceil(size / 2), weights="gaussian", batch=1)

    def windows(self, *, height: int, width: int) -> Windows:
        """One window of the image's size, or the tiles; along a side shorter than a tile, tiles are cut to
        that side."""
        if height * width <= self.max_pixels:
            return Windows(Axis(height, height, 1), Axis(width, width, 1), "mean", 1)
        tiles = self.tiles
        rows, columns = (Axis(side, min(tiles.size, side), tiles.stride) for side in (height, width))
        return Windows(rows, columns, tiles.weights, tiles.batch)


AnyInference = Annotated[Whole | Sliding, Field(discriminator="kind")]


@torch.inference_mode()
def probability_maps(
    model: Segmenter,
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    *,
    inference: AnyInference,
    normalise: Normalise,
    device: torch.device,
    on_windows: OnWindows | None = None,
) -> list[Float32[np.ndarray, "h w"]]:
    """The `probability_map` of each image, all of one size.

    On a GPU, images that are read in one pass go through the network together, and their maps may differ from
    those of each image alone by rounding errors. A CPU gains nothing and takes one image at a time.
    """
    height, width = images[0].shape[:2]
    windows = inference.windows(height=height, width=width)
    if len(images) == 1 or device.type == "cpu" or not windows.one_pass:
        return [
            probability_map(
                model, image, inference=inference, normalise=normalise, device=device, on_windows=on_windows
            )
            for image in images
        ]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
    cut = normalise(pixels).contiguous(memory_format=torch.channels_last)
    return list(probabilities(model, cut).cpu().numpy())


@torch.inference_mode()
def probability_map(
    model: Segmenter,
    image: UInt8[np.ndarray, "h w 3"],
    *,
    inference: AnyInference,
    normalise: Normalise,
    device: torch.device,
    on_windows: OnWindows | None = None,
) -> Float32[np.ndarray, "h w"]:
    """The crack probability of each pixel of an RGB image, in [0, 1], at the image's size.

    It is the (weighted) mean of the sigmoids of the logits over all windows that cover the pixel. An image
    smaller than the window is padded below and to the right (its edge repeated), and so is each window whose
    sides are no multiple of the model's stride.

    `model` is in evaluation mode on `device`; `normalise` treats each pixel by itself. The same call gives
    the same map, to the last bit, on the same machine and number of threads.

    Memory, beside the image and the map: what the network takes for one batch of windows; that batch and its
    maps in float32; the normalised pixels under it; and the float32 sums of two bands of the image, each as
    wide as the image and size + (r - 1) * stride pixels high, where a batch holds r rows of windows (1, if it
    holds no whole one).
    """
    height, width = image.shape[:2]
    windows = inference.windows(height=height, width=width)
    weight = windows.weight().to(device)
    divisors = [axis.total(windows.weights).astype(np.float32) for axis in (windows.rows, windows.columns)]
    result = np.empty((height, width), dtype=np.float32)
    unfinished = torch.zeros((0, windows.columns.covered), device=device)
    done, total = 0, len(windows.rows.starts) * len(windows.columns.starts)
    for tops, end in windows.bands():
        top, bottom = tops[0], tops[-1] + windows.rows.size
        sums = torch.zeros((bottom - top, windows.columns.covered), device=device)
        sums[: len(unfinished)] = unfinished
        for lefts in windows.batches():
            columns = slice(lefts[0], lefts[-1] + windows.columns.size)
            pixels = padded_part(image, slice(top, bottom), columns)[None].to(device)
            batch = windows.cut(normalise(pixels)[0], tops=tops, lefts=lefts)
            maps = probabilities(model, batch).mul_(weight)
            windows.add(sums[:, columns], maps, tops=tops, lefts=lefts)
            done += len(tops) * len(lefts)
            if on_windows is not None:
                on_windows(done, total, height, width)
        finished = result[top:end]
        divisor = np.outer(divisors[0][top:end], divisors[1])[: len(finished), :width]
        np.divide(sums[: len(finished), :width].cpu().numpy(), divisor, out=finished)
        # the Gaussian weights and their total are rounded separately: a quotient may exceed 1
        np.minimum(finished, 1, out=finished)
        unfinished = sums[end - top :]
    return result


def padded_part(image: UInt8[np.ndarray, "h w 3"], rows: slice, columns: slice) -> UInt8[Tensor, "3 r c"]:
    """A copy of a part of the image, its edge repeated where the part reaches beyond it below or to the
    right."""
    part = image[rows, columns]
    below, right = rows.stop - rows.start - part.shape[0], columns.stop - columns.start - part.shape[1]
    return torch.from_numpy(np.pad(part, ((0, below), (0, right), (0, 0)), mode="edge")).permute(2, 0, 1)


def probabilities(model: Segmenter, windows: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
    """The crack probabilities of windows, each padded to the model's stride (its edge repeated)."""
    height, width = windows.shape[2:]
    below, right = (-side % model.stride for side in (height, width))
    if below or right:
        windows = nn.functional.pad(windows, (0, right, 0, below), mode="replicate")
    logits: Tensor = model(windows)[:, 0, :height, :width].float()
    # an infinite logit would become a plausible 0 or 1; times 0 it is NaN, and any finite one is 0
    return logits.sigmoid() + logits * 0
