"""The images of a folder as RGB pixels, read with NumPy and the standard library.

PNG, BMP, PGM, PPM and baseline JPEG files need nothing else. Where Pillow is installed, it reads the JPEG
files (sooner, and progressive ones too), and GIF, TIFF and WebP files.
"""

from collections.abc import Iterator
from pathlib import Path

import jpeg
import numpy as np
import plain
import png
from exif import upright
from unreadable import Unreadable, Unsupported

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".pnm", ".gif", ".tif", ".tiff", ".webp"}
)
MAX_BYTES = 1 << 29


def image_files(folder: Path) -> list[Path]:
    """All files below a folder whose suffix is an image's, sorted by name; hidden ones are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(
        path for path in found if not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )


def read_rgb(path: Path) -> np.ndarray:
    """The pixels of an image file, uint8 [h w 3], upright as its EXIF orientation says.

    Raises:
        Unreadable: the file cannot be opened, is damaged, or of a kind that is not read here; its text says
        why.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise Unsupported(f"file of {size} bytes; {MAX_BYTES} are the most")
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot be opened ({error.strerror or error})") from None
    if not data:
        raise Unreadable("an empty file")
    pixels: np.ndarray | None
    if data.startswith(png.SIGNATURE):
        pixels = upright(*png.decode(data))
    elif data[:2] == b"BM":
        pixels = plain.decode_bmp(data)
    elif data[:1] == b"P" and data[1:2].isdigit():
        pixels = plain.decode_netpbm(data)
    else:
        pixels = _by_pillow(path)
        if pixels is None:
            pixels = _jpeg(data)
    return pixels


def _jpeg(data: bytes) -> np.ndarray:
    """What is no PNG, BMP, PGM or PPM file, where Pillow is not installed."""
    if data[:2] != b"\xff\xd8":
        raise Unsupported("no PNG, JPEG, BMP, PGM or PPM file; install Pillow, or convert it")
    try:
        pixels: np.ndarray = upright(*jpeg.decode(data))
    except Unsupported as error:
        raise Unsupported(f"{error}: not readable without Pillow; install it, or convert it") from None
    return pixels


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


def _by_pillow(path: Path) -> np.ndarray | None:
    """What Pillow reads; None where it is not installed."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return None
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "RGB"):
                raise Unsupported(f"{image.format} file of mode {image.mode}; convert it to RGB or grey")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=np.uint8)
    except Unreadable:
        raise
    except Exception as error:  # Pillow raises whatever its decoders meet
        raise Unreadable(f"not readable ({' '.join(str(error).split())[:200]})") from None
