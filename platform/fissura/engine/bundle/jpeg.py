"""Baseline JPEG files (ITU-T T.81) as pixels: 8 bits, grey or colour, restart markers, one scan or several.

Progressive, arithmetic, lossless, 12-bit and CMYK files are named as not supported.
"""

import re
from collections.abc import Iterator

import numpy as np
from exif import orientation_of
from jpeg_entropy import ScanPart, decode_part, huffman_table
from jpeg_pixels import inverse_transform, to_rgb, upsampled
from unreadable import Unreadable, Unsupported

MAX_PIXELS = 100_000_000

_SCAN_END = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)
_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
_KINDS = {0xC2: "progressive", 0xC3: "lossless", 0xC9: "arithmetic", 0xCA: "arithmetic", 0xCB: "arithmetic"}


class Component:
    """One colour plane: its sampling, its quantisation table, and the coefficients of its blocks.

    `across` x `down` whole blocks hold its samples; `stride` is the number of blocks in a stored row, which
    has room for whole MCUs. `coefficients` is float32 [blocks * 64], each block in zigzag order.
    """

    def __init__(self, identity: int, sampling: int, table: int) -> None:
        self.identity = identity
        self.horizontal, self.vertical = sampling >> 4, sampling & 15
        self.table = table
        self.width = self.height = self.across = self.down = self.stride = 0
        self.coefficients = np.zeros(0, np.float32)
        self.scanned = False


class Frame:
    """The picture's size and its components."""

    def __init__(self, body: bytes) -> None:
        if len(body) < 6 or len(body) != 6 + 3 * body[5]:
            raise Unreadable("damaged JPEG: its frame header has a wrong length")
        if body[0] != 8:
            raise Unsupported(f"JPEG of {body[0]} bits a channel")
        self.height, self.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
        if not self.height or not self.width:
            raise Unreadable(f"damaged JPEG: its size is {self.width} x {self.height}")
        if self.height * self.width > MAX_PIXELS:
            raise Unsupported(f"JPEG of {self.width} x {self.height} pixels; {MAX_PIXELS} are the most")
        if body[5] not in (1, 3):
            raise Unsupported(f"JPEG of {body[5]} channels")
        self.components = [Component(*body[at : at + 3]) for at in range(6, len(body), 3)]
        factors = [(part.horizontal, part.vertical) for part in self.components]
        if any(not 1 <= factor <= 4 for pair in factors for factor in pair):
            raise Unreadable("damaged JPEG: a sampling factor is not in 1..4")
        if len(self.components) == 1:
            self.components[0].horizontal = self.components[0].vertical = 1
        self.horizontal = max(part.horizontal for part in self.components)
        self.vertical = max(part.vertical for part in self.components)
        self.mcus_across = -(-self.width // (8 * self.horizontal))
        self.mcus_down = -(-self.height // (8 * self.vertical))
        for part in self.components:
            if self.horizontal % part.horizontal or self.vertical % part.vertical:
                raise Unsupported("JPEG whose channels are not whole fractions of one another")
            part.width = -(-self.width * part.horizontal // self.horizontal)
            part.height = -(-self.height * part.vertical // self.vertical)
            part.across, part.down = -(-part.width // 8), -(-part.height // 8)
            part.stride = self.mcus_across * part.horizontal

    def blocks(self, part: Component) -> int:
        """The number of stored blocks of a component."""
        return part.stride * self.mcus_down * part.vertical


class Decoder:
    """What the segments of a file have said so far."""

    def __init__(self) -> None:
        self.frame: Frame | None = None
        self.quantisation: dict[int, np.ndarray] = {}
        self.huffman: dict[int, list[int]] = {}
        self.restart_interval = 0
        self.has_jfif = False
        self.adobe_transform: int | None = None
        self.orientation = 1

    def segment(self, marker: int, body: bytes) -> None:
        """Takes a segment that is no scan."""
        if marker in (0xC0, 0xC1):
            if self.frame is not None:
                raise Unreadable("damaged JPEG: it has two frames")
            self.frame = Frame(body)
        elif marker == 0xC4:
            self._huffman_tables(body)
        elif 0xC2 <= marker <= 0xCF:
            raise Unsupported(f"{_KINDS.get(marker, 'extended')} JPEG")
        elif marker == 0xDB:
            self._quantisation_tables(body)
        elif marker == 0xDD:
            self.restart_interval = int.from_bytes(body[:2], "big")
        elif marker == 0xE0 and body[:5] == b"JFIF\0":
            self.has_jfif = True
        elif marker == 0xE1 and body[:6] == b"Exif\0\0":
            self.orientation = orientation_of(body[6:])
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            self.adobe_transform = body[11]

    def scan(self, header: bytes, coded: bytes) -> None:
        """Decodes the coefficients of one scan."""
        if self.frame is None:
            raise Unreadable("damaged JPEG: a scan comes before the frame")
        count = header[0] if header else 0
        if not count or len(header) != 4 + 2 * count:
            raise Unreadable("damaged JPEG: its scan header has a wrong length")
        chosen = []
        for at in range(1, 1 + 2 * count, 2):
            part = next((one for one in self.frame.components if one.identity == header[at]), None)
            dc, ac = (self.huffman.get(key) for key in (header[at + 1] >> 4, 0x10 | header[at + 1] & 15))
            if part is None or dc is None or ac is None:
                raise Unreadable("damaged JPEG: a scan names a channel or a Huffman table that is not there")
            chosen.append((part, dc, ac))
        layout = [ScanPart(self._room(part, len(coded)), dc, ac) for part, dc, ac in chosen]
        mcus = self._mcus([part for part, _, _ in chosen])
        pieces = _RESTART.split(coded)
        interval = self.restart_interval or len(mcus[0])
        if len(pieces) != -(-len(mcus[0]) // interval):
            raise Unreadable("damaged JPEG: restart markers are missing, or there are too many")
        for number, piece in enumerate(pieces):
            window = slice(number * interval, (number + 1) * interval)
            decode_part(piece.replace(b"\xff\x00", b"\xff"), layout, [places[window] for places in mcus])

    def _room(self, part: Component, coded: int) -> np.ndarray:
        """The component's coefficients, made at its first scan if the file can hold as many blocks."""
        assert self.frame is not None  # noqa: S101  a scan was refused without one
        part.scanned = True
        blocks = self.frame.blocks(part)
        if 2 * part.across * part.down > 8 * coded:  # a block takes two codes, of a bit at least
            raise Unreadable("damaged JPEG: it ends before its last row")
        if not part.coefficients.size:
            part.coefficients = np.zeros(blocks * 64, np.float32)
        return part.coefficients

    def _mcus(self, parts: list[Component]) -> list[list[list[int]]]:
        """For each component, and each MCU of the scan, where its blocks begin in the coefficients."""
        assert self.frame is not None  # noqa: S101  a scan was refused without one
        if len(parts) == 1:
            part = parts[0]
            grid = np.arange(part.down)[:, None] * part.stride + np.arange(part.across)
            return [(grid.reshape(-1, 1) * 64).tolist()]
        result = []
        for part in parts:
            rows = np.arange(self.frame.mcus_down * part.vertical).reshape(-1, 1, part.vertical, 1)
            columns = np.arange(part.stride).reshape(1, -1, 1, part.horizontal)
            grid = rows * part.stride + columns
            result.append((grid.reshape(-1, part.horizontal * part.vertical) * 64).tolist())
        return result

    def pixels(self) -> np.ndarray:
        """uint8 [h w 3] of all scans."""
        frame = self.frame
        if frame is None or not all(part.scanned for part in frame.components):
            raise Unreadable("damaged JPEG: it ends before all its channels are there")
        planes = []
        for part in frame.components:
            if part.table not in self.quantisation:
                raise Unreadable("damaged JPEG: a quantisation table is missing")
            plane = inverse_transform(part.coefficients, self.quantisation[part.table], stride=part.stride)
            plane = plane[: part.height, : part.width]
            factors = frame.vertical // part.vertical, frame.horizontal // part.horizontal
            planes.append(upsampled(plane, *factors)[: frame.height, : frame.width])
        if len(planes) == 1:
            return np.repeat(planes[0][..., None], 3, axis=2)
        return np.stack(planes, axis=2) if self._is_rgb(frame) else to_rgb(*planes)

    def _is_rgb(self, frame: Frame) -> bool:
        if self.has_jfif:
            return False
        if self.adobe_transform is not None:
            return self.adobe_transform == 0
        return bytes(part.identity for part in frame.components) == b"RGB"

    def _huffman_tables(self, body: bytes) -> None:
        while body:
            size = 17 + sum(body[1:17])
            if len(body) < size or body[0] & 0xEC:
                raise Unreadable("damaged JPEG: a Huffman table is cut off or has no such number")
            self.huffman[body[0]] = huffman_table(body[1:17], body[17:size], dc=body[0] < 0x10)
            body = body[size:]

    def _quantisation_tables(self, body: bytes) -> None:
        while body:
            wide = body[0] >> 4
            size = 1 + 64 * (1 + wide)
            if wide > 1 or len(body) < size:
                raise Unreadable("damaged JPEG: a quantisation table is cut off")
            steps = np.frombuffer(body[1:size], ">u2" if wide else "u1")
            self.quantisation[body[0] & 15] = steps.astype(np.float32)
            body = body[size:]


def segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(marker, body, coded data behind it) of each segment up to the end of the image; only scans have coded
    data."""
    at = 2
    while at < len(data):
        if data[at] != 0xFF:
            raise Unreadable("damaged JPEG: a marker is missing")
        while at < len(data) and data[at] == 0xFF:
            at += 1
        if at >= len(data) or data[at] == 0xD9:
            return
        marker = data[at]
        at += 1
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            raise Unreadable("damaged JPEG: it ends within a segment")
        body = data[at + 2 : at + length]
        at += length
        coded = b""
        if marker == 0xDA:
            end = _SCAN_END.search(data, at)
            stop = end.start() if end else len(data)
            coded = data[at:stop]
            at = stop
        yield marker, body, coded


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """The pixels of a JPEG file, uint8 [h w 3], RGB as stored, and its EXIF orientation (1..8).

    Raises:
        Unsupported: the file is of a kind that is not decoded here.
        Unreadable: it is damaged.
    """
    if data[:2] != b"\xff\xd8":
        raise Unreadable("no JPEG file")
    decoder = Decoder()
    for marker, body, coded in segments(data):
        if marker == 0xDA:
            decoder.scan(body, coded)
        else:
            decoder.segment(marker, body)
    return decoder.pixels(), decoder.orientation
