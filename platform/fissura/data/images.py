"""Reading one image file or one mask file, and saying plainly what is wrong with a bad one.

Rules. Files hold 8 bits a channel and one picture: no 16-bit, palette, CMYK or float images, no animations or
page stacks (of a phone's MPO the first picture is taken). An alpha channel is dropped where it is opaque and
refused where it is not, since what lies behind is unknown. EXIF rotation is applied. Grey photographs become
RGB.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from fissura.core.errors import DataError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"})
MAX_PIXELS = 150_000_000
LOSSY_THRESHOLD = 127

_ORIENTATION = 0x0112  # EXIF tag
_BITS_PER_SAMPLE = 258  # TIFF tag
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
_quiet = threading.Lock()  # warnings.catch_warnings is not safe between threads


@dataclass(frozen=True)
class MaskReading:
    """A mask and what its file held.

    `mask` is uint8 [h w], 0 background, 1 crack. `levels` counts the pixels of each grey level (or label) of
    the file. `grey_share` is the share (0..1) of pixels whose level is none that a mask should hold. `remark`
    says in one line how those were read, or is None where nothing is odd.
    """

    mask: UInt8[np.ndarray, "h w"]
    levels: dict[int, int]
    grey_share: float = 0.0
    remark: str | None = None


def read_rgb(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """A photograph, RGB, 0..255, upright as its EXIF tag says.

    Raises:
        DataError: one line: the file, the rule it breaks, what it holds, the remedy.
    """
    with _open(path) as image:
        if image.mode not in {"L", "LA", "RGB", "RGBA"}:
            raise DataError(_mode_problem(path, image.mode))
        turn = _turn(image)
        return _pixels(_opaque(path, image), "RGB", turn)


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of an image, upright as its EXIF tag says; only the header is read.

    Raises:
        DataError: as `read_rgb`, as far as the header shows it.
    """
    with _open(path) as image:
        return (image.width, image.height) if _turn(image) in _SIDEWAYS else (image.height, image.width)


def read_binary_mask(path: Path, *, threshold: int | None = None) -> UInt8[np.ndarray, "h w"]:
    """The mask of `decode_mask`: 0 background, 1 crack."""
    return decode_mask(path, threshold=threshold).mask


def decode_mask(
    path: Path, *, threshold: int | None = None, crack: Literal["light", "dark"] = "light"
) -> MaskReading:
    """A mask file, with what is odd about it.

    A mask holds the level 0 and at most one other. Where `threshold` is given, or the file is a JPEG (then it
    is 127), pixels above it are light and a remark names the share of grey ones; a mask of the levels 0 and 1
    is never thresholded. `crack` says which of the two shades is crack.

    Raises:
        DataError: one line: the file, the rule it breaks, what it holds, the remedy.
    """
    with _open(path) as image:
        lossy = image.format in {"JPEG", "MPO"}
        grey = _grey(path, image)
    counts = np.bincount(grey.ravel(), minlength=256)
    levels = {int(level): int(counts[level]) for level in np.flatnonzero(counts)}
    if lossy and threshold is None:
        threshold = LOSSY_THRESHOLD
    if threshold is None or (not lossy and set(levels) <= {0, 1}):
        light = _two_levels(path, grey, levels)
        share, remark = 0.0, None
    else:
        light = (grey > threshold).astype(np.uint8)
        share = 1.0 - (levels.get(0, 0) + levels.get(255, 0)) / grey.size
        remark = f"{share:.1%} of the pixels are grey, thresholded at {threshold}" if share else None
    return MaskReading(light if crack == "light" else 1 - light, levels, share, remark)


def _two_levels(
    path: Path, grey: UInt8[np.ndarray, "h w"], levels: dict[int, int]
) -> UInt8[np.ndarray, "h w"]:
    others = [level for level in levels if level != 0]
    if len(others) > 1 or (0 not in levels and others not in ([255], [1])):
        shown = ", ".join(str(level) for level in list(levels)[:8]) + (", ..." if len(levels) > 8 else "")
        raise DataError(
            f"{path}: a mask holds two grey levels, 0 (background) and 255 (crack): this one holds "
            f"{len(levels)} ({shown}); save it again with two levels, without resampling and without JPEG"
        )
    return np.asarray(grey != 0, dtype=np.uint8)


def _grey(path: Path, image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    # A GIF knows palettes alone, so there a palette of greys is a grey image.
    if image.mode not in {"1", "L", "LA", "RGB", "RGBA"} and (image.mode, image.format) != ("P", "GIF"):
        raise DataError(_mode_problem(path, image.mode))
    turn = _turn(image)
    image = _opaque(path, image)
    if image.mode in {"1", "L", "LA"} or image.format in {"JPEG", "MPO"}:
        return _pixels(image, "L", turn)
    colours = _pixels(image, "RGB", turn)
    if (colours != colours[..., :1]).any():
        raise DataError(
            f"{path}: a mask is grey: this one has colours; save it as 8-bit grey, 0 background and 255 crack"
        )
    return np.ascontiguousarray(colours[..., 0])


def _opaque(path: Path, image: Image.Image) -> Image.Image:
    if image.mode in {"LA", "RGBA"} and image.getextrema()[-1] != (255, 255):
        raise DataError(
            f"{path}: an image is opaque: this one is transparent in places; flatten it on the background "
            f"that is meant"
        )
    return image


def _mode_problem(path: Path, mode: str) -> str:
    names = {
        "P": "palette colours",
        "PA": "palette colours",
        "CMYK": "CMYK ink",
        "1": "1 bit",
    }
    held = names.get(mode, "more than 8 bits a channel" if mode.startswith("I") else f"{mode} pixels")
    return (
        f"{path}: an image holds 8-bit grey or RGB: this one holds {held}; convert it to 8-bit RGB (a mask: "
        f"to 8-bit grey)"
    )


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """The one picture of a file, decoded when its pixels are asked for. Every fault becomes a DataError."""
    try:
        if not path.is_file():
            raise DataError(
                f"{path}: the file is missing (or no regular file); restore it, or remove its partner"
            )
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty (0 bytes); fetch or copy it again")
        with path.open("rb") as file:
            with _quiet, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(file, formats=FORMATS)
                _check_header(path, image)
            with image:
                yield image
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise DataError(_too_large(path, "far more")) from None
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: an image is a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file whatever its name says: "
            f"this one begins with {_beginning(path)!r}; replace it"
        ) from None
    except Exception as error:
        # Pillow raises almost anything on a broken file: OSError, SyntaxError, struct.error, KeyError...
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(
            f"{path}: the image is damaged or truncated ({reason}); fetch or copy it again"
        ) from None


def _check_header(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(_too_large(path, f"{image.width}x{image.height}"))
    _turn(image)  # reads the EXIF tags here, where their warnings are silenced
    bits = _beginning(path, 25)[24] if image.format == "PNG" else 8
    if isinstance(image, TiffImageFile):
        bits = max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,)))
    if bits > 8:
        raise DataError(_mode_problem(path, "I"))
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise DataError(
            f"{path}: a file holds one image: this one holds {frames} (frames or pages); save one as PNG"
        )


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes the picture upright. To be asked before the pixels are: a PNG may hold another tag behind
    them.
    """
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return None  # Pillow turns a TIFF itself, and decodes a whole PNG in search of the tag
    return _TURNS.get(image.getexif().get(_ORIENTATION, 1))


def _pixels(image: Image.Image, mode: str, turn: Image.Transpose | None) -> np.ndarray:
    image = image.convert(mode)
    return np.array(image if turn is None else image.transpose(turn))


def _too_large(path: Path, held: str) -> str:
    return (
        f"{path}: an image has at most {MAX_PIXELS // 1_000_000} megapixels: this one has {held}; cut it "
        f"into tiles"
    )


def _beginning(path: Path, length: int = 8) -> bytes:
    with path.open("rb") as file:
        return file.read(length)
