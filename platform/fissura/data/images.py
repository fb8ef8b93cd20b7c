"""Reads one image file of a data set, and says what is wrong with a bad one.

Rules: files hold 8 bits a channel and one picture: no 16-bit, palette, CMYK or float images, no animations or
page stacks (of a phone's MPO or HEIC the first picture is taken). An opaque alpha channel is dropped, any
other refused, as the background is unknown. EXIF rotation is applied. Grey photographs become RGB.
(`fissura.data.photograph` is the lenient reader of what users send; both use `opened`.)
"""

import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from fissura.core.errors import DataError
from fissura.data.file_kinds import SUFFIXES as SUFFIXES
from fissura.data.file_kinds import reads_heif, unread_kind
from fissura.data.whole import require_whole

HEIF = "HEIF"
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
MAX_PIXELS = 150_000_000

_ORIENTATION = 0x0112  # EXIF tag
_BITS_PER_SAMPLE, _TILE_WIDTH, _TILE_LENGTH, _DNG_VERSION = 258, 322, 323, 50706  # TIFF tags
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[tag] for tag in (5, 6, 7, 8)}
PLAIN_MODES = frozenset({"L", "LA", "RGB", "RGBA"})


class _Quiet:
    """Ignores Pillow's warnings while any thread is inside. `warnings.catch_warnings` alone is not
    thread-safe: each thread would restore what another had set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._outer = warnings.catch_warnings()
                self._outer.__enter__()
                warnings.filterwarnings("ignore", module="PIL")
            self._inside += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._outer.__exit__(None, None, None)


_quiet = _Quiet()


class Picture(NamedTuple):
    """An image that Pillow has opened but not decoded.

    `turn` makes its pixels upright; None if they are (Pillow turns a TIFF itself). `bits` are those of one
    channel. `orientation` is the EXIF tag, 1 to 8; 1 is upright.
    """

    image: Image.Image
    turn: Image.Transpose | None
    bits: int
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, upright."""
        width, height = self.image.size
        return (width, height) if self.turn in _SIDEWAYS else (height, width)

    def pixels(self, mode: Literal["L", "RGB"]) -> np.ndarray:
        """uint8 [h w] or [h w 3], upright."""
        image = self.image if self.image.mode == mode else self.image.convert(mode)
        return np.array(image if self.turn is None else image.transpose(self.turn))


def read_rgb(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """A photograph, RGB, 0..255, upright as its EXIF tag says.

    Raises:
        DataError: one line: the file, the rule it breaks, what it holds, the remedy.
    """
    with open_file(path) as picture:
        if picture.image.mode not in PLAIN_MODES:
            raise DataError(mode_problem(picture.image.mode))
        check_opaque(picture.image)
        return picture.pixels("RGB")


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of an image, upright as its EXIF tag says; only the header is read.

    Raises:
        DataError: as `read_rgb`, for what the header shows.
    """
    return read_stance(path)[0]


def read_stance(path: Path) -> tuple[tuple[int, int], int]:
    """`read_size` and the EXIF orientation, 1 (upright) to 8."""
    with open_file(path) as picture:
        return picture.size, picture.orientation


def is_opaque(image: Image.Image) -> bool:
    """Whether an image of `PLAIN_MODES` is opaque; decodes it."""
    return image.mode not in {"LA", "RGBA"} or image.getextrema()[-1] == (255, 255)


def check_opaque(image: Image.Image) -> None:
    if not is_opaque(image):
        raise DataError(
            "an image is opaque: this one is transparent in places; flatten it on the background that is "
            "meant"
        )


Purpose = Literal["image", "mask"]


def mode_problem(mode: str, *, of: Purpose = "image") -> str:
    """The problem of a file whose pixels have this mode, and the remedy."""
    names = {
        "P": "palette colours",
        "PA": "palette colours",
        "CMYK": "CMYK ink",
        "1": "1 bit",
    }
    held = names.get(mode, "more than 8 bits a channel" if mode.startswith("I") else f"{mode} pixels")
    if of == "mask":
        remedy = "save it as 8-bit grey, 0 background and 255 crack"
        return f"a mask holds 8-bit grey: this one holds {held}; {remedy}"
    return f"an image holds 8-bit grey or RGB: this one holds {held}; convert it to 8-bit RGB"


@contextmanager
def open_file(path: Path, *, of: Purpose = "image") -> Iterator[Picture]:
    """`opened` for at most 8 bits a channel; adds the file's name to a DataError, also of the block."""
    try:
        if not path.is_file():
            raise DataError("the file is missing (or no regular file); restore it, or remove its partner")
        with path.open("rb") as file, opened(file) as picture:
            if picture.bits > 8:
                raise DataError(mode_problem("I", of=of))
            yield picture
    except DataError as error:
        raise DataError(*(f"{path}: {problem}" for problem in error.problems)) from None
    except OSError as error:
        raise DataError(f"{path}: {_damaged(error)}") from None


@contextmanager
def opened(file: BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Iterator[Picture]:
    """The only picture of an image file, decoded when the block asks for its pixels.

    Checks its size (at most `max_pixels` and `MAX_PIXELS`) and its frames before.

    Raises:
        DataError: one line without the file's name: the rule it breaks, what it holds, the remedy; for
            every fault of the file, also in the block.
        MemoryError: the pixels do not fit the memory.
    """
    beginning = file.read(25)
    if not beginning:
        raise DataError("the file is empty (0 bytes); fetch or copy it again")
    limit = min(max_pixels, MAX_PIXELS)
    try:
        with _quiet, Image.open(file, formats=_formats(beginning)) as image:
            _check_header(image, limit)
            bits = beginning[24] if image.format == "PNG" else 8
            if isinstance(image, TiffImageFile):
                bits = max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,)))
            require_whole(image, file)
            orientation = _orientation(image)
            turn = None if image.format == "TIFF" else _TURNS.get(orientation)  # Pillow turns a TIFF itself
            yield Picture(image, turn, bits, orientation)
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise DataError(_too_large(limit, "far more")) from None
    except UnidentifiedImageError as error:
        if HEIF in _formats(beginning):
            raise DataError(_damaged(error)) from None
        raise DataError(
            f"an image is an intact {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file whatever its name says: "
            f"this one {unread_kind(beginning) or f'begins with {beginning[:8]!r}; replace it'}"
        ) from None
    except Exception as error:
        # Pillow raises almost anything on a broken file: OSError, SyntaxError, struct.error, KeyError...
        raise DataError(_damaged(error)) from None


def _formats(beginning: bytes) -> tuple[str, ...]:
    """The formats that a file with these first bytes may have: HEIC too, if `pillow-heif` is installed."""
    if "HEIC" not in unread_kind(beginning) or not reads_heif():
        return FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (HEIF,)


def _check_header(image: Image.Image, max_pixels: int) -> None:
    if math.prod(image.size) > max_pixels:
        raise DataError(_too_large(max_pixels, f"{image.width}x{image.height}"))
    if isinstance(image, TiffImageFile):
        if _DNG_VERSION in image.tag_v2:  # its first picture is a small preview
            raise DataError("an image is developed: this one is a DNG raw file; save it as JPEG or TIFF")
        # libtiff decodes whole tiles, even if the image needs little of them
        tile = image.tag_v2.get(_TILE_WIDTH, 0), image.tag_v2.get(_TILE_LENGTH, 0)
        if math.prod(tile) > max_pixels:
            raise DataError(_too_large(max_pixels, f"a tile of {tile[0]}x{tile[1]}"))
    # without counting: many frames would take long
    if getattr(image, "is_animated", False) and image.format not in {"MPO", HEIF}:
        raise DataError("a file holds one image: this one holds 2 or more (frames or pages); save one as PNG")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. Read before the pixels: a PNG may hold another tag after them, and Pillow
    would decode the whole file to find one.
    """
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    tag = (image.tag_v2 if isinstance(image, TiffImageFile) else image.getexif()).get(_ORIENTATION, 1)
    return tag if tag in _TURNS else 1


def _too_large(max_pixels: int, held: str) -> str:
    return f"an image has at most {max_pixels / 1e6:g} megapixels: this one has {held}; cut it into tiles"


def _damaged(error: Exception) -> str:
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return f"the image is damaged or truncated ({reason}); fetch or copy it again"
