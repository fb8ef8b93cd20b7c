"""Reads a photograph from the bytes that a user sent: leniently, as cameras and programs write many kinds,
and safely, as anyone may send anything.

Images that the strict reader of data sets (`fissura.data.images.read_rgb`) accepts are read the same way, so
that a model scores the same here as in its evaluation. Also 16 bits a channel, 1 bit, palettes, CMYK and
transparency are converted to 8-bit RGB, each with a remark.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from fissura.core.errors import DataError
from fissura.data.images import MAX_PIXELS, PLAIN_MODES, Picture, is_opaque, opened
from fissura.data.whole import END, MAX_SCANS, SCAN, SEGMENT, jpeg_scans

SIGNIFICANT_BITS = (8, 10, 12, 14)  # that values of 16 bits may use
MAX_BLOCKS = 4096  # of a PNG or JPEG beside its pixels; cameras and programs write a few dozen
MAX_JUNK_BYTES = 2**16  # between the segments of a JPEG or the blocks of a GIF
MAX_EXIF = 16  # segments of a JPEG; each is copied with all previous ones
MAX_PROFILES = 16  # of a PNG; each may be a megabyte when it is inflated
MAX_PIECES = 2**18  # of the pixels of a PNG; programs write 8 kilobytes or a row into one
MAX_GIF_PIECES = 2**20  # of the pixels of a GIF, 255 bytes each
MAX_VALUES = 2**20  # of a TIFF's tag that is not text; a tile may have 16x16 pixels
MAX_RUNS_BYTES = 2**24  # of a BMP in run lengths, which Pillow reads in Python

_REDUCED = {
    "1": ("L", "1 bit a pixel: it shows black and white alone"),
    "P": ("RGBA", "palette colours, converted to RGB"),
    "PA": ("RGBA", "palette colours, converted to RGB"),
    "CMYK": ("RGB", "CMYK ink, converted to RGB without its colour profile"),
}
_DEEP_MODES = frozenset({"I;16", "I;16B", "RGB", "RGBA"})
_TO_RGB = {(3, 3): cv2.COLOR_BGR2RGB, (4, 3): cv2.COLOR_BGRA2RGB, (4, 4): cv2.COLOR_BGRA2RGBA}
_PNG, _JPEG, _GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"GIF8"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BYTES = frozenset({1, 2, 7})  # types of a TIFF's tags that stay bytes: texts, profiles, notes of makers
_RUN_LENGTHS = (b"\1\0\0\0", b"\2\0\0\0")  # the compression of a BMP
_PHOTOSHOP = 16  # a block of Photoshop counts as so many, as it may hold thousands


@dataclass(frozen=True)
class Photograph:
    """`pixels` are uint8 [h w 3], RGB, 0..255, upright. `remarks` say, one line each, what was converted."""

    pixels: UInt8[np.ndarray, "h w 3"]
    remarks: tuple[str, ...] = ()


def read_header(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels of an image, upright; only the header is read.

    Raises:
        DataError: as `decode`, for what the header shows.
    """
    with _picture(io.BytesIO(data), MAX_PIXELS) as picture:
        return picture.size


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Photograph:
    """The photograph in the bytes of a PNG, JPEG, TIFF, BMP, WebP or GIF file, of one picture (of an MPO the
    first), turned as its EXIF tag says.

    16 bits a channel become round(value / 257); if all values of the image fit 8, 10, 12 or 14 bits, as
    cameras and scanners write them, the range of these is scaled to 8. Transparency is laid over white; a
    colour that is declared transparent stays a colour, as in `read_rgb`. Takes at most 40 bytes of memory a
    pixel. Thread-safe.

    Raises:
        DataError: one line without the file's name: the rule, what the image holds, the remedy. The image
            is damaged or truncated, or not an image; has several frames or pages, more than `max_pixels` (or
            `MAX_PIXELS`), floats, Lab colours, more than 8 bits a channel but not 16, or more than
            `MAX_SCANS` (of a JPEG; no camera or program writes nearly as many).
    """
    with _picture(io.BytesIO(data), max_pixels) as picture:
        image, remarks = picture.image, []
        if image.format in {"JPEG", "MPO"}:
            _check_scans(data)
        if picture.bits > 8:
            image, used = _scaled(image, data)
            part = "" if used == picture.bits else f", of which its values take {used}"
            remarks.append(f"{picture.bits} bits a channel{part}, scaled to 8")
        elif image.mode in _REDUCED:
            mode, remark = _REDUCED[image.mode]
            image = image.convert(mode)
            remarks.append(remark)
        if not is_opaque(image):
            image = _over_white(image)
            remarks.append("transparent in places, laid over white")
        return Photograph(picture._replace(image=image).pixels("RGB"), tuple(remarks))


@contextmanager
def _picture(file: io.BytesIO, max_pixels: int) -> Iterator[Picture]:
    try:
        _check_blocks(file.getvalue())
        with opened(file, max_pixels=max_pixels) as picture:
            _check_kind(picture)
            yield picture
    except MemoryError:
        raise DataError(
            "an image fits the memory that is free: this one does not; send it smaller, or in tiles"
        ) from None


def _check_kind(picture: Picture) -> None:
    mode, bits = picture.image.mode, picture.bits
    if mode in (PLAIN_MODES | _REDUCED.keys() if bits <= 8 else _DEEP_MODES) and (bits <= 8 or bits == 16):
        return
    held = "floats" if mode == "F" else f"{mode} pixels of {bits} bits a channel"
    raise DataError(
        f"an image holds grey, RGB or CMYK of 8 bits a channel, or grey or RGB of 16: this one holds {held}; "
        f"convert it to 8-bit RGB"
    )


def _check_blocks(data: bytes) -> None:
    """Limits the blocks around the pixels: Pillow reads them one by one, and junk byte by byte, partly in
    Python. A file of some hundred megabytes may hold nothing else, which takes minutes."""
    blocks = junk = 0
    if data[: len(_PNG)] == _PNG:
        blocks = _png_blocks(data)
    elif data[: len(_JPEG)] == _JPEG:
        blocks, junk = _jpeg_blocks(data)
    elif data[: len(_GIF)] == _GIF:
        blocks, junk = _gif_blocks(data)
    elif data[:4] in _TIFF:
        _check_tags(data)
    elif data[:2] == b"BM" and data[30:34] in _RUN_LENGTHS and len(data) > MAX_RUNS_BYTES:
        raise DataError(
            f"a BMP in run lengths has at most {MAX_RUNS_BYTES} bytes: this one has {len(data)}; save it"
            " as PNG"
        )
    if blocks > MAX_BLOCKS or junk > MAX_JUNK_BYTES:
        raise DataError(
            f"a PNG, JPEG or GIF holds at most {MAX_BLOCKS} blocks beside its pixels ({MAX_EXIF} of Exif,"
            f" {MAX_BLOCKS // _PHOTOSHOP} of Photoshop, {MAX_PROFILES} colour profiles), its pixels in"
            f" {MAX_PIECES} or {MAX_GIF_PIECES} pieces, and {MAX_JUNK_BYTES} bytes of no meaning: this one"
            " holds more; save it again without notes"
        )


def _check_tags(data: bytes) -> None:
    """Limits the values in the first directory of a TIFF: Pillow makes a Python object of each.

    Raises:
        DataError: there are more than cameras, scanners and programs write.
    """
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
    wide = 8 if 43 in data[2:4] else 4  # bytes of an offset: BigTIFF or not

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    begin, head = number(wide, wide), 8 if wide == 8 else 2
    tags, size = number(begin, head), 4 + 2 * wide
    counts = [
        number(at + 4, wide)
        for at in range(begin + head, begin + head + size * min(tags, MAX_BLOCKS), size)
        if number(at + 2, 2) not in _BYTES
    ]
    # Pillow reads no count that exceeds the file
    most = max((count for count in counts if count <= len(data)), default=0)
    if tags > MAX_BLOCKS or most > MAX_VALUES:
        raise DataError(
            f"a TIFF has at most {MAX_BLOCKS} tags of at most {MAX_VALUES} values: this one has"
            f" {tags} tags, of {most} values at most; save it again, in larger strips"
        )


def _png_blocks(data: bytes) -> int:
    """The number of chunks that are empty or hold no pixels; or one beyond the limit."""
    blocks, pieces, profiles, at = 0, 0, 0, len(_PNG)
    while at + 8 <= len(data) and blocks <= MAX_BLOCKS:
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        pieces += 1
        profiles += kind == b"iCCP"
        blocks += length == 0 or kind != b"IDAT"
        if pieces > MAX_PIECES or profiles > MAX_PROFILES:
            return MAX_BLOCKS + 1
        at += length + 12
    return blocks


def _jpeg_blocks(data: bytes) -> tuple[int, int]:
    """The numbers of segments before the first scan and of bytes between them; or ones beyond the limits."""
    blocks, junk, exif, at = 0, 0, 0, len(_JPEG)
    while blocks <= MAX_BLOCKS and junk <= MAX_JUNK_BYTES:
        found = SEGMENT.search(data, at)
        junk += (found.start() if found else max(at, len(data))) - at
        if found is None or found.group() in (SCAN, END):
            break
        exif += data[found.end() + 2 : found.end() + 8] == b"Exif\0\0"
        blocks += _PHOTOSHOP if found.group() == b"\xff\xed" else 1
        if exif > MAX_EXIF:
            blocks = MAX_BLOCKS + 1
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    return blocks, junk


def _gif_blocks(data: bytes) -> tuple[int, int]:
    """The numbers of notes before the second frame and of bytes between; or ones beyond the limits."""
    blocks, junk, pieces, at = 0, 0, 0, 13 + _gif_colours(data, 10)
    frames = 0
    while at < len(data) and blocks <= MAX_BLOCKS and junk <= MAX_JUNK_BYTES:
        kind = data[at : at + 1]
        if kind == b";" or (kind == b"," and frames):
            break
        if kind == b",":
            frames, at = 1, at + 11 + _gif_colours(data, at + 9)
            while at < len(data) and data[at] and pieces <= MAX_GIF_PIECES:
                pieces, at = pieces + 1, at + 1 + data[at]
            if pieces > MAX_GIF_PIECES:
                return MAX_BLOCKS + 1, junk
        elif kind == b"!":
            at += 2
            while at < len(data) and data[at] and blocks <= MAX_BLOCKS:
                blocks, at = blocks + 1, at + 1 + data[at]
            blocks += 1
        else:
            junk += 1
        at += 1
    return blocks, junk


def _gif_colours(data: bytes, at: int) -> int:
    """The size in bytes of the colour table that the byte at `at` describes."""
    return 3 * 2 ** ((data[at] & 7) + 1) if len(data) > at and data[at] & 0x80 else 0


def _check_scans(data: bytes) -> None:
    """Limits the scans: a small JPEG may have thousands, and each costs a pass over its pixels."""
    scans = jpeg_scans(data).number
    if scans > MAX_SCANS:
        raise DataError(
            f"a JPEG has at most {MAX_SCANS} scans: this one has {scans}; save it again, not progressive"
        )


def _scaled(image: Image.Image, data: bytes) -> tuple[Image.Image, int]:
    """An image of 16 bits a channel scaled to 8, in the mode L, RGB or RGBA; and the bits that it uses:
    cameras and scanners write 10, 12 or 14 into 16.
    """
    kept = np.asarray(image)
    deep = kept.astype(np.uint16) if image.mode.startswith("I") else _deep_colours(data, kept)
    colours = deep[..., :3] if deep.ndim == 3 else deep  # transparency may use other bits
    bits = next((bits for bits in SIGNIFICANT_BITS if 0 < colours.max() < 2**bits), 16)
    if isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0:
        deep = (2**bits - 1) - deep  # 0 is white, which Pillow inverts only in 8 bits
    scaled = cv2.convertScaleAbs(deep, alpha=255 / (2**bits - 1))
    if bits < 16 and deep.ndim == 3 and deep.shape[2] == 4:
        scaled[..., 3] = cv2.convertScaleAbs(deep[..., 3], alpha=1 / 257).reshape(deep.shape[:2])
    return Image.fromarray(scaled), bits


def _deep_colours(data: bytes, high: UInt8[np.ndarray, "h w c"]) -> UInt16[np.ndarray, "h w c"]:
    """RGB or RGBA, 0..65535, of which Pillow keeps only the `high` bytes. OpenCV may return half of a damaged
    image, or turn it differently: so the two must agree.
    """
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        decoded = None
    if decoded is not None and decoded.dtype == np.uint16:
        order = _TO_RGB.get((*decoded.shape[2:], high.shape[2]))
        if order is not None:
            deep = np.asarray(cv2.cvtColor(decoded, order), dtype=np.uint16)
            if np.array_equal(deep >> 8, high):
                return deep
    raise DataError(
        "an image of 16 bits a channel is read alike by two readers: this one is not; convert it to 8-bit RGB"
    )


def _over_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, "white")
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return white
