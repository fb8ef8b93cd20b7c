"""Reads one mask file of a data set, by the rules of `fissura.data.images`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from fissura.core.errors import DataError
from fissura.data.images import PLAIN_MODES, Picture, check_opaque, mode_problem, open_file

_IN_SCORE = " (`--mask-threshold {}` of `fissura score`)"
LOSSY_THRESHOLD = 127
MOST_OF_INDICES = 3  # the lightest level of class indices 0 and 1 as JPEG
MOST_CLASSES = 16  # levels of a mask that are classes, not grey edges
MOST_CUT_OFF = 0.1  # of the pixels above half the lightest level may lie below the threshold


@dataclass(frozen=True)
class MaskReading:
    """A mask and the levels of its file.

    `mask` is uint8 [h w], 0 background, 1 crack. `levels` counts the pixels of each grey level (or label) of
    the file. `grey_share` is the share (0..1) of pixels whose level a mask should not hold. `remark` says in
    one line how those were read, or is None.
    """

    mask: UInt8[np.ndarray, "h w"]
    levels: dict[int, int]
    grey_share: float = 0.0
    remark: str | None = None


def decode_mask(
    path: Path, *, threshold: int | None = None, crack: Literal["light", "dark"] = "light"
) -> MaskReading:
    """A mask file, with what is odd about it.

    A mask holds the level 0 and at most one other, or black and one colour. Where `threshold` is given, or
    the file is a JPEG (then it is 127), pixels above it are light and a remark names the share of grey ones;
    a mask of the levels 0 and 1 is never thresholded, nor a JPEG of class indices, whose levels are 0, 1 and
    a little noise. `crack` says which of the two shades is crack.

    Raises:
        DataError: one line: the file, the rule it breaks, what it holds, the remedy.
    """
    with open_file(path, of="mask") as picture:
        lossy = picture.image.format in {"JPEG", "MPO"}
        grey = _grey(picture)
    counts = count_levels(grey)
    levels = {int(level): int(counts[level]) for level in np.flatnonzero(counts)}
    lightest = max(levels)
    if lossy and threshold is None:
        if lightest > MOST_OF_INDICES:
            _check_threshold(path, counts, lightest)
        threshold = LOSSY_THRESHOLD
    if lossy and 0 < lightest <= MOST_OF_INDICES:
        light = np.asarray(grey > 0, dtype=np.uint8)
        share = 1.0 - (levels.get(0, 0) + levels.get(1, 0)) / grey.size
        remark = (
            f"a JPEG of levels 0 to {lightest}, read as class indices: all above 0 is crack; thin cracks may"
            " be lost in such a file, so save it as PNG"
        )
    elif threshold is None or (not lossy and set(levels) <= {0, 1}):
        light = _two_levels(path, grey, levels, counts)
        share, remark = 0.0, None
    else:
        light = (grey > threshold).astype(np.uint8)
        # where levels are classes the given threshold separates them: nothing is grey
        classes = not lossy and len(levels) <= MOST_CLASSES and 255 not in levels
        share = 0.0 if classes else 1.0 - (levels.get(0, 0) + levels.get(255, 0)) / grey.size
        remark = f"{share:.1%} of the pixels are grey, thresholded at {threshold}" if share else None
    return MaskReading(light if crack == "light" else 1 - light, levels, share, remark)


def count_levels(grey: UInt8[np.ndarray, "h w"]) -> Int64[np.ndarray, "256"]:
    """The number of pixels of each level."""
    counts, top = np.zeros(256, np.int64), int(grey.max())
    counts[0], counts[top] = grey.size - np.count_nonzero(grey), np.count_nonzero(grey == top)
    if counts[0] + counts[top] * (top > 0) == grey.size:
        return counts  # a mask has two levels: counting only these is several times faster
    return np.array(Image.fromarray(grey).histogram(), np.int64)


def read_levels(path: Path) -> UInt8[np.ndarray, "h w"]:
    """The levels of a grey image; 0 and 1 of one in black and another colour, 0 and 255 of one of 1 bit.

    Raises:
        DataError: one line: the file, the rule it breaks, what it holds, the remedy.
    """
    with open_file(path, of="mask") as picture:
        return _grey(picture)


def _check_threshold(path: Path, counts: Int64[np.ndarray, "256"], lightest: int) -> None:
    light = int(counts[lightest // 2 + 1 :].sum())
    cut_off = int(counts[lightest // 2 + 1 : LOSSY_THRESHOLD + 1].sum())
    if cut_off <= MOST_CUT_OFF * light:
        return
    left = (
        "no crack would be left" if cut_off == light else f"{cut_off / light:.0%} of its crack would be lost"
    )
    raise DataError(
        f"{path}: the lightest pixel of this JPEG mask is {lightest}: {left} at the threshold"
        f" {LOSSY_THRESHOLD}; save it as PNG with 0 and 255, or, of a folder of your own, name a"
        f" threshold: `folder:ROOT?threshold={_between(counts)}`"
    )


def _between(counts: Int64[np.ndarray, "256"]) -> int:
    """The middle between the mean levels of dark and of light, which Otsu's threshold (1979) separates."""
    total, whole = counts.sum(), (counts * np.arange(256)).sum()
    dark, below = np.cumsum(counts)[:-1], np.cumsum(counts * np.arange(256))[:-1]
    dark, below = dark[dark < total], below[dark < total]  # some pixels are lighter
    means = below / np.maximum(dark, 1), (whole - below) / (total - dark)
    cut = int(np.argmax(dark * (total - dark) * (means[1] - means[0]) ** 2))
    return int(means[0][cut] + means[1][cut]) // 2


def _two_levels(
    path: Path, grey: UInt8[np.ndarray, "h w"], levels: dict[int, int], counts: Int64[np.ndarray, "256"]
) -> UInt8[np.ndarray, "h w"]:
    others = [level for level in levels if level != 0]
    if len(others) <= 1 and (0 in levels or others in ([255], [1])):
        return np.asarray(grey != 0, dtype=np.uint8)
    shown = ", ".join(str(level) for level in list(levels)[:8]) + (", ..." if len(levels) > 8 else "")
    rule = f"{path}: a mask holds 0 (background) and one level of crack, such as 255: this one holds"
    if len(levels) == 1:
        raise DataError(f"{rule} {shown} alone; write 0 where there is no crack")
    if len(levels) == 2:
        raise DataError(
            f"{rule} {shown} and no 0; save it again with 0 and 255, or, of a folder of your own, read the "
            f"higher level as crack: `folder:ROOT?threshold={min(levels)}`{_IN_SCORE.format(min(levels))}"
        )
    named = _between(counts) if max(levels) <= LOSSY_THRESHOLD else LOSSY_THRESHOLD
    raise DataError(
        f"{rule} {len(levels)} levels ({shown}); save it again with two, without resampling and without "
        f"JPEG, or, of a folder of your own, name a threshold, above which is crack: "
        f"`folder:ROOT?threshold={named}`{_IN_SCORE.format(named)}"
    )


def _grey(picture: Picture) -> UInt8[np.ndarray, "h w"]:
    """The levels of a mask; 0 and 1 of one in black and another colour."""
    image = picture.image
    if image.mode not in {"1", "P", *PLAIN_MODES}:
        raise DataError(mode_problem(image.mode, of="mask"))
    check_opaque(image)
    if image.mode in {"1", "L", "LA"} or image.format in {"JPEG", "MPO"}:
        return picture.pixels("L")
    colours = picture.pixels("RGB")
    red, green, blue = (np.ascontiguousarray(colours[..., channel]) for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    lit = colours.any(axis=-1)
    used = np.unique(colours[lit], axis=0) if lit.any() else colours[:0, 0]
    if len(used) == 1:
        return np.asarray(lit, dtype=np.uint8)
    shown = ", ".join(str(tuple(colour.tolist())) for colour in used[:3])
    kind = "palette colours" if image.mode == "P" else "colours"
    raise DataError(
        f"a mask is grey, or black and one colour of crack: this one has {len(used)} {kind} beside black "
        f"({shown}{', ...' if len(used) > 3 else ''}); save it as 8-bit grey, 0 background and 255 crack"
    )
