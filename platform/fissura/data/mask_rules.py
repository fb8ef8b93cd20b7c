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

MOST_LOOKED_AT = 200  # masks of a data set, spread over it
MOST_KEPT = 1 << 30  # pixels of the masks looked at, 128 MiB as bits: the masks behind are decoded again


@dataclass(frozen=True)
class LookedAt:
    """What nearest neighbour loses of a mask of `size` (height, width); and the mask, a bit a pixel, where it
    is kept.
    """

    lost: LostCracks
    size: tuple[int, int]
    bits: UInt8[np.ndarray, "bytes"] | None

    @property
    def mask(self) -> UInt8[np.ndarray, "h w"] | None:
        """The mask as it was decoded, or None where it is not kept."""
        if self.bits is None:
            return None
        return np.unpackbits(self.bits, count=self.size[0] * self.size[1]).reshape(self.size)


def looks(found: Sequence[Source], resize: AnyResize, pool: ThreadPoolExecutor) -> list[LookedAt | None]:
    """For each sample its mask, if the rule of its data set is chosen by it: by none of a data set where no
    rule is to be chosen, or no mask shrinks.
    """
    seen: list[LookedAt | None] = [None] * len(found)
    if not isinstance(resize, Fixed) or resize.masks != "auto":
        return seen
    pixels = 0

    def size_of(source: Source) -> tuple[int, int]:
        with suppress(DataError, OSError):  # a bad file is named where all are decoded
            return read_size(source.sample.image)
        return 0, 0

    def look(source: Source, size: tuple[int, int], pixels: int) -> LookedAt | None:
        with suppress(DataError, OSError):
            mask = source.dataset.inspect_mask(source.sample, size=size).mask
            if mask.max() <= 1:
                bits = np.packbits(mask) if pixels <= MOST_KEPT else None
                return LookedAt(lost_at(resize, mask), size, bits)
        return None

    for label in dict.fromkeys(source.label for source in found):
        places = [place for place, source in enumerate(found) if source.label == label]
        places = places[:: max(1, len(places) // MOST_LOOKED_AT)]
        looked = [found[place] for place in places]
        sizes = list(pool.map(size_of, looked))
        if any(shrinks(resize, size) for size in sizes):
            _, *so_far = accumulate((height * width for height, width in sizes), initial=pixels)
            pixels = so_far[-1]
            for place, each in zip(places, pool.map(look, looked, sizes, so_far), strict=True):
                seen[place] = each
    return seen


def mask_rules(
    found: Sequence[Source], resize: AnyResize, seen: Sequence[LookedAt | None]
) -> dict[str, MaskRule]:
    """How the masks of each data set are resized, by its label."""
    lost = dict.fromkeys((source.label for source in found), LostCracks())
    for source, each in zip(found, seen, strict=True):
        if each is not None:
            lost[source.label] += each.lost
    chosen = resize.masks if isinstance(resize, Fixed) else "nearest"
    return {
        label: ("area" if each.too_many else "nearest") if chosen == "auto" else chosen
        for label, each in lost.items()
    }
