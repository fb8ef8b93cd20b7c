"""Photographs with an EXIF turn, whose masks may have been drawn on the pixels as stored: many labelling
tools ignore the turn.
"""

from contextlib import suppress
from pathlib import Path

from fissura.core.errors import DataError
from fissura.data.images import read_stance
from fissura.data.sample import Sample
from fissura.data.walk import listed

QUARTER = frozenset({5, 6, 7, 8})  # the orientations that swap width and height
REMEDY = "turn the mask likewise, or remove the tag from the photograph (`exiftool -Orientation= FILE`)"


def check_size(
    mask: tuple[int, ...], *, path: Path, image: Path, size: tuple[int, ...] | None = None
) -> None:
    """Checks that a mask, of shape (height, width), has the size of the upright photograph `image`: `size` if
    known, else read.

    Raises:
        DataError: it has not; names the EXIF tag if the mask fits the photograph as stored.
    """
    if mask == size:
        return
    (height, width), orientation = read_stance(image)
    if mask == (height, width):
        return
    held = f"it is {mask[1]}x{mask[0]} (width x height), {image.name} is {width}x{height}"
    if orientation in QUARTER and mask == (width, height):
        raise DataError(
            f"{path}: a mask must lie as its upright image does: {held} once it is turned as its EXIF tag"
            f" (orientation {orientation}) says, and the mask was drawn without that turn; {REMEDY}"
        )
    raise DataError(
        f"{path}: a mask must have its image's size: {held}; draw the mask again or resize it by nearest"
        " neighbour"
    )


def doubtful_turn(sample: Sample) -> bool:
    """Whether the photograph has an EXIF turn that its mask has not, and their sizes do not show whether the
    mask was drawn with it: half turns, mirrors, squares.
    """
    try:
        (height, width), orientation = read_stance(sample.image)
    except DataError:
        return False  # a bad photograph is reported when its pixels are read
    if orientation == 1 or (orientation in QUARTER and height != width):
        return False
    of_mask = 1  # of a mask that is not an image
    with suppress(DataError):
        of_mask = read_stance(sample.mask)[1]
    return of_mask != orientation


def turn_warnings(doubtful: list[str], *, total: int) -> list[str]:
    """A warning about the photographs (by name, of `total`) with a `doubtful_turn`, if there are any."""
    if not doubtful:
        return []
    return [
        f"photographs with an EXIF turn that their masks do not carry, and whose sizes cannot tell which way"
        f" the masks were drawn ({len(doubtful)} of {total}): {listed(doubtful)}; the photographs are turned;"
        f" look at one, and if its labels lie wrong: {REMEDY}"
    ]
