"""The images of a folder as RGB pixels, read with Pillow as the service reads them."""

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from file_kinds import is_image, left_out, left_out_line, reads_heif, unread_kind
from PIL import Image, ImageOps, UnidentifiedImageError
from whole import require_whole

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
NETPBM = frozenset({".pgm", ".ppm", ".pnm"})
MAX_BYTES = 1 << 29
MAX_PIXELS = 150_000_000
SIGNIFICANT_BITS = (8, 10, 12, 14, 16)  # that values of 16 bits may take

_BITS_PER_SAMPLE, _DNG_VERSION = 258, 50706  # TIFF tags


class Unreadable(Exception):
    """A file that is damaged, no image, or of a kind that is not read here; the text says which."""


def image_files(folder: Path) -> list[Path]:
    """All files below a folder whose suffix is an image's, sorted by name. Hidden ones and those of operating
    systems are passed over; others are told of on standard error."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    if others := left_out(names, more=NETPBM):
        sys.stderr.write(f"{left_out_line(others)}\n")
    return [folder / name for name in sorted(names) if is_image(name, more=NETPBM)]


def read_rgb(path: Path) -> np.ndarray:
    """The pixels of an image file, uint8 [h w 3], upright as its EXIF orientation says; what is transparent
    is laid over white.

    Raises:
        Unreadable: the file cannot be opened, is damaged or ends early, or is of a kind that is not read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise Unreadable(f"file of {size} bytes; {MAX_BYTES} are the most")
            beginning = file.read(32)
            if not beginning:
                raise Unreadable("an empty file")
            with (
                warnings.catch_warnings(action="ignore"),
                Image.open(file, formats=_formats(beginning)) as image,
            ):
                _check(image)
                # of such Pillow keeps the high bits alone
                if _bits(image, beginning) > 8 and image.mode in {"RGB", "RGBA", "LA"}:
                    raise Unreadable(f"{image.format} of 16 bits a colour; save it with 8")
                require_whole(image, file)
                return np.asarray(_rgb(image), dtype=np.uint8)
    except (Unreadable, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise Unreadable(f"image of far more than {MAX_PIXELS} pixels") from None
    except UnidentifiedImageError:
        kind = unread_kind(beginning)
        told = f"this one {kind}" if kind else f"it begins with {beginning[:8]!r}"
        raise Unreadable(f"no image that is read ({', '.join(FORMATS)}): {told}") from None
    except Exception as error:  # Pillow raises whatever its decoders meet
        reason = getattr(error, "strerror", None) or error
        raise Unreadable(f"damaged or not readable ({' '.join(str(reason).split())[:200]})") from None


def read_all(folder: Path, paths: list[Path]) -> Iterator[tuple[str, np.ndarray | Unreadable]]:
    """The name of each file in the folder, and its pixels or what is wrong with it."""
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            yield name, read_rgb(path)
        except Unreadable as error:
            yield name, error
        except MemoryError:
            yield name, Unreadable("too large for this machine's memory")


def write_grey(path: Path, pixels: np.ndarray) -> None:
    """Writes pixels uint8 [h w] as a PNG that is whole or not there."""
    scratch = path.with_name(f".{path.name}.tmp")
    Image.fromarray(pixels).save(scratch, format="PNG")
    scratch.replace(path)


def _bits(image: Image.Image, beginning: bytes) -> int:
    """How many bits of one channel a PNG or TIFF holds; 8 of other files."""
    if image.format == "PNG":
        return beginning[24]
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return int(max(tags.get(_BITS_PER_SAMPLE, (8,))))


def _formats(beginning: bytes) -> tuple[str, ...]:
    if "HEIC" not in unread_kind(beginning) or not reads_heif():
        return FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _check(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"image of {image.width} x {image.height} pixels; {MAX_PIXELS} are the most")
    if getattr(image, "is_animated", False) and image.format not in {"MPO", "HEIF"}:
        raise Unreadable("file of several images (frames or pages); save one as PNG")
    if image.format == "TIFF" and _DNG_VERSION in getattr(image, "tag_v2", ()):
        raise Unreadable("a DNG raw file; save it as JPEG or TIFF")


def _rgb(image: Image.Image) -> Image.Image:
    turned = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
    upright = ImageOps.exif_transpose(image) if turned else image  # Pillow turns a TIFF itself
    if upright.mode.startswith("I;16"):
        deep = np.asarray(upright).astype(np.uint32)
        # cameras and scanners write 10, 12 or 14 bits into 16
        most = next(2**bits - 1 for bits in SIGNIFICANT_BITS if deep.max() < 2**bits) if deep.any() else 1
        return Image.fromarray(np.rint(deep * (255 / most)).astype(np.uint8)).convert("RGB")
    if upright.mode not in {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"}:
        raise Unreadable(f"{image.format} image of mode {upright.mode}; convert it to 8-bit RGB")
    if upright.mode in {"LA", "PA", "P", "RGBA"}:
        above = upright.convert("RGBA")
        if above.getextrema()[-1] != (255, 255):
            white = Image.new("RGB", above.size, "white")
            white.paste(above.convert("RGB"), mask=above.getchannel("A"))
            return white
    return upright.convert("RGB")
