"""The rule by which the masks of each data set are resized, chosen by what nearest neighbour would lose."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from jaxtyping import UInt8

from fissura.core.errors import DataError
from fissura.data.content import Source
from fissura.data.images import read_size
from fissura.data.lost import LostCracks, lost_at, shrinks
from fissura.data.resize import AnyResize, Fixed, MaskRule

MOST_INSPECTED = 200  # masks of a data set, spread over it
MOST_KEPT = 1 << 30  # pixels of inspected masks, 128 MiB as bits: later masks are decoded again


@dataclass(frozen=True)
class InspectedMask:
    """What nearest neighbour loses of a mask of `size` (height, width); and the mask, a bit a pixel, if it is
    kept.
    """

    lost: LostCracks
    size: tuple[int, int]
    bits: UInt8[np.ndarray, "bytes"] | None

    @property
    def mask(self) -> UInt8[np.ndarray, "h w"] | None:
        """The mask as it was decoded, or None if it is not kept."""
        if self.bits is None:
            return None
        return np.unpackbits(self.bits, count=self.size[0] * self.size[1]).reshape(self.size)


def inspect_masks(
    samples: Sequence[Source], resize: AnyResize, pool: ThreadPoolExecutor
) -> list[InspectedMask | None]:
    """For each sample its mask if it was inspected, else None. Inspects none of a data set whose rule is
    fixed or whose masks do not shrink.
    """
    inspected: list[InspectedMask | None] = [None] * len(samples)
    if not isinstance(resize, Fixed) or resize.masks != "auto":
        return inspected
    pixels = 0

    def size_of(source: Source) -> tuple[int, int]:
        with suppress(DataError, OSError):  # bad files are reported when all are decoded
            return read_size(source.sample.image)
        return 0, 0

    def inspect(source: Source, size: tuple[int, int], pixels: int) -> InspectedMask | None:
        with suppress(DataError, OSError):
            mask = source.dataset.inspect_mask(source.sample, size=size).mask
            if mask.max() <= 1:
                bits = np.packbits(mask) if pixels <= MOST_KEPT else None
                return InspectedMask(lost_at(resize, mask), size, bits)
        return None

    for label in dict.fromkeys(source.label for source in samples):
        indices = [index for index, source in enumerate(samples) if source.label == label]
        indices = indices[:: max(1, len(indices) // MOST_INSPECTED)]
        chosen = [samples[index] for index in indices]
        sizes = list(pool.map(size_of, chosen))
        if any(shrinks(resize, size) for size in sizes):
            _, *so_far = accumulate((height * width for height, width in sizes), initial=pixels)
            pixels = so_far[-1]
            for index, mask in zip(indices, pool.map(inspect, chosen, sizes, so_far), strict=True):
                inspected[index] = mask
    return inspected


def mask_rules(
    samples: Sequence[Source], resize: AnyResize, inspected: Sequence[InspectedMask | None]
) -> dict[str, MaskRule]:
    """The rule by which the masks of each data set are resized, by its label."""
    lost = dict.fromkeys((source.label for source in samples), LostCracks())
    for source, mask in zip(samples, inspected, strict=True):
        if mask is not None:
            lost[source.label] += mask.lost
    chosen = resize.masks if isinstance(resize, Fixed) else "nearest"
    return {
        label: ("area" if loss.too_many else "nearest") if chosen == "auto" else chosen
        for label, loss in lost.items()
    }
