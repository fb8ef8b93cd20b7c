"""The rule by which the masks of each data set are resized, chosen by what nearest neighbour would lose."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from fissura.core.errors import DataError
from fissura.data.content import Source
from fissura.data.images import read_size
from fissura.data.lost import LostCracks, lost_at, shrinks
from fissura.data.resize import AnyResize, Fixed, MaskRule

MOST_LOOKED_AT = 200  # masks of a data set, spread over it


def looks(found: Sequence[Source], resize: AnyResize, pool: ThreadPoolExecutor) -> dict[Path, LostCracks]:
    """What nearest neighbour loses of the masks, by their paths, by which the rules of their data sets are
    chosen; nothing of a data set where no rule is to be chosen, or no mask shrinks.
    """
    known: dict[Path, LostCracks] = {}
    if not isinstance(resize, Fixed) or resize.masks != "auto":
        return known

    def smaller(source: Source) -> bool:
        with suppress(DataError, OSError):  # a bad file is named where all are decoded
            return shrinks(resize, read_size(source.sample.image))
        return False

    def look(source: Source) -> LostCracks:
        with suppress(DataError, OSError):
            return lost_at(resize, source.dataset.read_mask(source.sample))
        return LostCracks()

    for label in dict.fromkeys(source.label for source in found):
        looked = [source for source in found if source.label == label]
        looked = looked[:: max(1, len(looked) // MOST_LOOKED_AT)]
        if any(pool.map(smaller, looked)):
            losses = pool.map(look, looked)
            known |= {source.sample.mask: lost for source, lost in zip(looked, losses, strict=True)}
    return known


def mask_rules(
    found: Sequence[Source], resize: AnyResize, known: dict[Path, LostCracks]
) -> dict[str, MaskRule]:
    """How the masks of each data set are resized, by its label."""
    lost = dict.fromkeys((source.label for source in found), LostCracks())
    for source in found:
        lost[source.label] += known.get(source.sample.mask, LostCracks())
    chosen = resize.masks if isinstance(resize, Fixed) else "nearest"
    return {
        label: ("area" if each.too_many else "nearest") if chosen == "auto" else chosen
        for label, each in lost.items()
    }
