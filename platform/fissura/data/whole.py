"""Decoders for Pillow that refuse a PNG or JPEG whose data end before its last pixel.

zlib and libjpeg fill up what is missing without a word. A PNG's stream is decoded without the last byte of
its checksum: whole rows need none, and a stream that ends early never comes to its last row. A JPEG is given,
instead of its end marker, bits that are no Huffman code: behind the last block they are skipped at once,
before it they are waited for. Neither costs a second decoding. Needs Pillow and the standard library alone.
"""

import re
from itertools import product
from typing import Any, BinaryIO, NamedTuple

from PIL import Image, ImageFile, _imaging

SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # a JPEG marker with a length behind it, or the last
SCAN, END = b"\xff\xda", b"\xff\xd9"
EARLY = "its data end before the last pixel"

_PNG, _JPEG = "fissura_png", "fissura_jpeg"
_SEQUENTIAL, _PROGRESSIVE = (b"\xff\xc0", b"\xff\xc1"), b"\xff\xc2"
_ONES = b"\xff\x00"  # eight bits; no Huffman code begins with sixteen ones
_READ_AHEAD = 8  # bytes that libjpeg wants at hand before it decodes a block
# of a run of blocks that share one code, libjpeg's encoder leaves at most 1000 single bits
_LONGEST_RUN = 160
_BROKEN = (-1, -2)  # what Pillow's decoders return of a stream that they cannot read
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


class JpegScans(NamedTuple):
    """What the markers of a JPEG say: the offset of its end marker (or of the end of the data), how many
    scans it has, where the last one begins, whether they hold every coefficient, whether they are in Huffman
    codes, and whether they restart.
    """

    end: int
    number: int
    last: int
    complete: bool
    huffman: bool
    restarts: bool


def jpeg_scans(data: bytes) -> JpegScans:
    """The scans of the first picture in the bytes of a JPEG; nothing is decoded."""
    missing: set[tuple[int, int]] = set()
    count, last, end, at = 0, 0, len(data), 2
    huffman = restarts = progressive = False
    while found := SEGMENT.search(data, at):
        marker = found.group()
        if marker == END:
            end = found.start()
            break
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
        body = data[found.end() + 2 : at]
        if marker in (*_SEQUENTIAL, _PROGRESSIVE):
            huffman, progressive = True, marker == _PROGRESSIVE
            missing = set(product(body[6::3], range(64)))
        elif marker == b"\xff\xdd":
            restarts = restarts or any(body)
        elif marker == SCAN:
            count, last = count + 1, at
            first, final, bits = body[-3:] if progressive and len(body) > 3 else (0, 63, 0)
            if bits & 15 == 0:  # no bit is left for a later scan
                missing -= set(product(body[1:-3:2], range(first, final + 1)))
    return JpegScans(end, count, last, not missing, huffman, restarts)


def require_whole(image: Image.Image, file: BinaryIO) -> None:
    """Makes the decoding of `image`, as Pillow opened it from `file`, raise an OSError where its data end
    early. For PNG and JPEG (MPO) that are not decoded yet; other formats are left as they are."""
    if not isinstance(image, ImageFile.ImageFile) or len(image.tile) != 1:
        return
    tile = image.tile[0]
    args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    if image.format == "PNG":
        image.tile = [tile._replace(codec_name=_PNG, args=args)]
    elif image.format in {"JPEG", "MPO"}:
        image.tile = [tile._replace(codec_name=_JPEG, args=(file, *args))]


class _Wrapped(ImageFile.PyDecoder):
    """A decoder in Python around one of Pillow's own."""

    _own: Any

    def setimage(self, im: Any, extents: tuple[int, int, int, int] | None = None) -> None:
        self._own.setimage(im, extents)

    def cleanup(self) -> None:
        self._own.cleanup()


class _Png(_Wrapped):
    def init(self, args: tuple[Any, ...]) -> None:
        self._own = _imaging.zip_decoder(self.mode, *args)

    def decode(self, buffer: Any) -> tuple[int, int]:
        # the checksum's other bytes stay: the decoder gives out no row while it has no byte at hand
        used, error = self._own.decode(buffer[:-1])
        return used, error


class _Jpeg(_Wrapped):
    def init(self, args: tuple[Any, ...]) -> None:
        self._file, *own = args
        self._own = _imaging.jpeg_decoder(self.mode, *own)

    def decode(self, buffer: Any) -> tuple[int, int]:
        self._file.seek(0)
        data = self._file.read()
        scans = jpeg_scans(data)
        if not scans.huffman:
            used, error = self._own.decode(data)
            return (used, error) if used < 0 else _BROKEN
        if not scans.complete:
            raise OSError(EARLY)
        used, error = self._own.decode(data[: scans.end])
        left = data[used : scans.end]
        for filler in _fillers(data, scans):
            if used >= 0:
                left += filler
                used, error = self._own.decode(left)
                left = left[used:]
            if used < 0:
                return used, error
            if left or scans.number == 1:
                raise OSError(EARLY)
        used, error = self._own.decode(END)
        return (used, error) if used < 0 else _BROKEN


def _fillers(data: bytes, scans: JpegScans) -> list[bytes]:
    """What a JPEG is given in place of its end marker, piece by piece."""
    ones = [_ONES * _READ_AHEAD, *[_ONES] * _LONGEST_RUN]
    if scans.number == 1:
        return ones[:1]
    if not scans.restarts:
        return ones
    # before a restart all is skipped, so that it takes the next one to see whether one was waited for
    number = len(_RESTART.findall(data, scans.last, scans.end)) % 8
    return [*ones, bytes((0xFF, 0xD0 + number)), *ones]


Image.register_decoder(_PNG, _Png)
Image.register_decoder(_JPEG, _Jpeg)
