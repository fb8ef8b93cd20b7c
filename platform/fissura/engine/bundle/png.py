"""PNG files (ISO/IEC 15948) as pixels: all colour types and depths, interlaced too; and grey ones written."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from exif import orientation_of
from unreadable import Unreadable, Unsupported

MAX_PIXELS = 100_000_000
SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_BAND = 1024


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """The pixels of a PNG file, uint8 [h w 3], RGB as stored, and its EXIF orientation (1..8).

    Of 16 bits the higher 8 are taken; an alpha channel is left out where it is opaque.

    Raises:
        Unsupported: it is not opaque, so that what lies behind is unknown; or the picture is too large.
        Unreadable: the file is damaged.
    """
    header, palette, transparency, orientation, packed = b"", b"", b"", 1, []
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            header = body
        elif kind == b"PLTE":
            palette = body
        elif kind == b"tRNS":
            transparency = body
        elif kind == b"eXIf":
            orientation = orientation_of(body)
        elif kind == b"IDAT":
            packed.append(body)
    if len(header) != 13:
        raise Unreadable("damaged PNG: it has no header")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if not width or not height or depth not in _DEPTHS.get(colour, ()) or interlaced > 1:
        raise Unreadable("damaged PNG: its header makes no sense")
    if width * height > MAX_PIXELS:
        raise Unsupported(f"PNG of {width} x {height} pixels; {MAX_PIXELS} are the most")
    channels = _CHANNELS[colour]
    grids = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(height - top) // down), -(-(width - left) // across)) for top, left, down, across in grids]
    # a pass without a pixel has no rows
    lengths = [
        rows * (1 + -(-columns * channels * depth // 8)) if rows and columns else 0 for rows, columns in sizes
    ]
    stream = _inflated(b"".join(packed), sum(lengths))
    samples = np.zeros((height, width, channels), np.uint16 if depth == 16 else np.uint8)
    start = 0
    for (top, left, down, across), (rows, columns), length in zip(grids, sizes, lengths, strict=True):
        if not length:
            continue
        lines = stream[start : start + length].reshape(rows, -1)
        start += length
        raw = _unfiltered(lines, max(1, channels * depth // 8))
        samples[top::down, left::across] = _samples(raw, columns, channels, depth)
    return _rgb(samples, depth, colour, palette, transparency), orientation


def encode_grey(pixels: np.ndarray) -> bytes:
    """uint8 [h w] as a PNG file."""
    height, width = pixels.shape
    lines = np.zeros((height, width + 1), np.uint8)
    lines[:, 1:] = pixels
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines.tobytes(), 6)),
        (b"IEND", b""),
    )
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def write_grey(path: Path, pixels: np.ndarray) -> None:
    """Writes uint8 [h w] to a PNG file, whole or not at all."""
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        scratch.write_bytes(encode_grey(pixels))
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not data.startswith(SIGNATURE):
        raise Unreadable("no PNG file")
    at, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            raise Unreadable("damaged PNG: it ends within a chunk")
        body = data[at + 8 : end - 4]
        if zlib.crc32(kind + body) != int.from_bytes(data[end - 4 : end], "big"):
            raise Unreadable(f"damaged PNG: the checksum of chunk {kind.decode('latin-1')!r} is wrong")
        yield kind, body
        at = end


def _inflated(packed: bytes, length: int) -> np.ndarray:
    """The first `length` bytes of the stream, and never more: a small file can unpack to anything."""
    try:
        stream = zlib.decompressobj().decompress(packed, length)
    except zlib.error as error:
        raise Unreadable(f"damaged PNG: {error}") from None
    if len(stream) < length:
        raise Unreadable("damaged PNG: it ends before its last row")
    return np.frombuffer(stream, np.uint8)


def _unfiltered(lines: np.ndarray, step: int) -> np.ndarray:
    """Rows without their filters, uint8 [rows bytes].

    `lines` begin with the filter's number; `step` is how many bytes a byte stands behind the one left of it.
    """
    filters, raw = lines[:, 0], lines[:, 1:]
    if filters.size and filters.max() > 4:
        raise Unreadable("damaged PNG: a row has an unknown filter")
    if not filters.any():
        return raw
    rows, length = raw.shape
    width = -(-length // step)
    cells = np.zeros((rows + 1, width * step), np.uint8)
    cells[1:, :length] = raw
    cells = cells.reshape(rows + 1, width, step)
    filters = np.append(np.zeros(1, np.uint8), filters)
    for first in range(0, rows, _BAND):
        # the row above a band is done: it is one without a filter
        band = slice(first, min(first + _BAND, rows) + 1)
        kinds = filters[band].copy()
        kinds[0] = 0
        if kinds.any():
            cells[band] = _diagonals(cells[band], kinds)
    return cells[1:].reshape(rows, -1)[:, :length]


def _diagonals(cells: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Rows without their filters, uint8 [rows width step].

    A cell needs those left of it, above it, and above left: all cells of one anti-diagonal are done at once.
    """
    rows, width, step = cells.shape
    # skewed[d, y] is the cell of row y and column d - y; a border of zeros is before it and above it
    skewed = np.zeros((width + rows + 1, rows + 1, step), np.int16)
    row, column = np.indices((rows, width))
    skewed[row + column + 2, row + 1] = cells
    kinds = filters[:, None]
    with_average, with_paeth = bool((filters == 3).any()), bool((filters == 4).any())
    for diagonal in range(rows + width - 1):
        low, high = max(0, diagonal - width + 1), min(rows, diagonal + 1)
        kind = kinds[low:high]
        left, up = skewed[diagonal + 1, low + 1 : high + 1], skewed[diagonal + 1, low:high]
        predicted = np.where(kind == 1, left, np.where(kind == 2, up, 0))
        if with_average:
            predicted = np.where(kind == 3, left + up >> 1, predicted)
        if with_paeth:
            corner = skewed[diagonal, low:high]
            by_left, by_up = abs(up - corner), abs(left - corner)
            by_corner = abs(left + up - 2 * corner)
            nearest = np.where(by_up <= by_corner, up, corner)
            nearest = np.where((by_left <= by_up) & (by_left <= by_corner), left, nearest)
            predicted = np.where(kind == 4, nearest, predicted)
        target = skewed[diagonal + 2, low + 1 : high + 1]
        target += predicted.astype(np.int16)
        target &= 255
    return np.asarray(skewed[row + column + 2, row + 1], np.uint8)


def _samples(raw: np.ndarray, width: int, channels: int, depth: int) -> np.ndarray:
    """[rows width channels] from the bytes of the rows."""
    if depth == 16:
        wide = raw.reshape(len(raw), -1, 2).astype(np.uint16)
        values = wide[..., 0] << 8 | wide[..., 1]
    elif depth == 8:
        values = raw
    else:
        shifts = np.arange(8 - depth, -1, -depth, dtype=np.uint8)
        values = (raw[..., None] >> shifts & (1 << depth) - 1).reshape(len(raw), -1)
    return values[:, : width * channels].reshape(len(raw), width, channels)


def _rgb(samples: np.ndarray, depth: int, colour: int, palette: bytes, transparency: bytes) -> np.ndarray:
    """uint8 [h w 3] of samples [h w channels]."""
    if colour == 3:
        entries = np.frombuffer(palette[: len(palette) // 3 * 3], np.uint8).reshape(-1, 3)
        index = samples[..., 0]
        if index.max() >= len(entries):
            raise Unreadable("damaged PNG: a pixel's colour is not in its palette")
        alpha = np.full(256, 255, np.uint8)
        alpha[: min(len(transparency), 256)] = np.frombuffer(transparency[:256], np.uint8)
        _refuse_transparent(bool((alpha[index] < 255).any()))
        return np.asarray(entries[index])
    if colour in (4, 6):
        _refuse_transparent(bool((samples[..., -1] < (1 << depth) - 1).any()))
        samples = samples[..., :-1]
    elif transparency:
        key = np.frombuffer(transparency[: 2 * samples.shape[2]], ">u2")
        _refuse_transparent(len(key) == samples.shape[2] and bool((samples == key).all(axis=2).any()))
    if depth == 16:
        samples = (samples >> 8).astype(np.uint8)
    elif depth < 8:
        samples = samples * np.uint8(255 // ((1 << depth) - 1))
    return np.ascontiguousarray(np.broadcast_to(samples, (*samples.shape[:2], 3)))


def _refuse_transparent(transparent: bool) -> None:  # noqa: FBT001  one fact
    if transparent:
        raise Unsupported("PNG with transparent pixels: what lies behind them is unknown")
