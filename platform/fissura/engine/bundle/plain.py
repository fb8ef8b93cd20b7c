"""Uncompressed images as pixels: BMP, and binary PGM and PPM."""

import re

import numpy as np
from unreadable import Unreadable, Unsupported

MAX_PIXELS = 100_000_000

_NETPBM = re.compile(
    rb"P([56])(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,5})\s"
)


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise Unreadable(f"damaged image: its size is {width} x {height}")
    if width * height > MAX_PIXELS:
        raise Unsupported(f"image of {width} x {height} pixels; {MAX_PIXELS} are the most")


def decode_netpbm(data: bytes) -> np.ndarray:
    """uint8 [h w 3] of a PGM or PPM file (P5, P6), its greatest value scaled to 255."""
    header = _NETPBM.match(data[:4096])
    if header is None:
        raise Unsupported("PNM file that is not a binary PGM or PPM (P5, P6)")
    kind, width, height, most = (int(field) for field in header.groups())
    _check_size(width, height)
    if not 1 <= most <= 65535:
        raise Unreadable(f"damaged PNM: its greatest value is {most}")
    count = width * height * (3 if kind == 6 else 1)
    code = ">u2" if most > 255 else "u1"
    if len(data) - header.end() < count * (2 if most > 255 else 1):
        raise Unreadable("damaged PNM: it ends before its last row")
    samples = np.frombuffer(data, code, count, header.end()).reshape(height, width, -1)
    if most != 255:
        samples = np.minimum((samples.astype(np.uint32) * 255 + most // 2) // most, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(samples, (height, width, 3)))


def decode_bmp(data: bytes) -> np.ndarray:
    """uint8 [h w 3] of an uncompressed BMP file of 1, 4, 8, 24 or 32 bits a pixel, alpha left out."""
    if len(data) < 54:
        raise Unreadable("damaged BMP: it ends within its header")

    def number(at: int, size: int = 4) -> int:
        return int.from_bytes(data[at : at + size], "little", signed=size == 4)

    start, header, width, height = number(10), number(14), number(18), number(22)
    bits, compression = number(28, 2), number(30)
    if header < 40:
        raise Unsupported("BMP with a header of OS/2")
    if compression not in (0, 3) or (compression == 3 and not _is_plain_bgra(data, bits)):
        raise Unsupported("compressed BMP")
    if bits not in (1, 4, 8, 24, 32):
        raise Unsupported(f"BMP of {bits} bits a pixel")
    _check_size(width, abs(height))
    stride = (width * bits + 31) // 32 * 4
    if start < 54 or start + stride * abs(height) > len(data):
        raise Unreadable("damaged BMP: it ends before its last row")
    rows = np.frombuffer(data, np.uint8, stride * abs(height), start).reshape(abs(height), stride)
    if height > 0:
        rows = rows[::-1]
    if bits >= 24:
        return np.ascontiguousarray(rows[:, : width * bits // 8].reshape(abs(height), width, -1)[..., 2::-1])
    colours = number(46) or 1 << bits
    table = np.frombuffer(data[14 + header : 14 + header + 4 * max(0, min(colours, 256))], np.uint8)
    palette = table[: len(table) // 4 * 4].reshape(-1, 4)[:, 2::-1]
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    index = (rows[..., None] >> shifts & (1 << bits) - 1).reshape(abs(height), -1)[:, :width]
    if index.max() >= len(palette):
        raise Unreadable("damaged BMP: a pixel's colour is not in its palette")
    return np.asarray(palette[index])


def _is_plain_bgra(data: bytes, bits: int) -> bool:
    """Whether the channel masks are those of blue, green, red bytes in this order."""
    return bits == 32 and data[54:66] == b"\0\0\xff\0" + b"\0\xff\0\0" + b"\xff\0\0\0"
