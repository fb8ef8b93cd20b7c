"""Decoders for Pillow that refuse a PNG or JPEG (in a TIFF too) whose data end before its last pixel.

zlib and libjpeg fill in missing data silently. A PNG's stream is decoded without the last byte of its
checksum: whole rows need none, and a stream that ends early never reaches its last row. A JPEG is given,
instead of its end marker, bits that are not a Huffman code: after the last block the decoder skips them at
once, before it the decoder consumes them. Neither needs a second decoding. Needs only Pillow and the standard
library.
"""

import io
import re
import zlib
from typing import Any, BinaryIO, NamedTuple

from PIL import Image, ImageFile, _imaging

SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # a JPEG marker with a length after it, or the last
SCAN, END = b"\xff\xda", b"\xff\xd9"
EARLY = "its data end before the last pixel"
MAX_SCANS = 500  # cameras write 1, programs about 10; each costs a pass over all pixels, and 12 bytes
MAX_JPEGS = 2**15  # strips or tiles in JPEG: 150 megapixels in tiles of 128x128 are 9,200

_PNG, _JPEG = "fissura_png", "fissura_jpeg"
_SEQUENTIAL, _PROGRESSIVE = (b"\xff\xc0", b"\xff\xc1"), b"\xff\xc2"
_ONES = b"\xff\x00"  # eight bits; no Huffman code begins with sixteen ones
_READ_AHEAD = 8  # bytes that libjpeg buffers before it decodes a block
# libjpeg's encoder leaves at most 1000 single bits after a run of blocks that share one code
_LONGEST_RUN = 160
_UNSEEN = 0x5B  # value of a pixel before it is decoded, rare in masks
_BROKEN = (-1, -2)  # returned by Pillow's decoders for a stream that they cannot read
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_PIECE = 2**20  # bytes that are inflated at a time
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type of a PNG
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_COMPRESSION, _JPEG_TABLES, _JPEG_IN_TIFF = 259, 347, 7  # TIFF tags, and a value of the first
_STRIPS, _TILES = (273, 279), (324, 325)  # TIFF tags: offsets, counts of bytes
_ROWS_A_STRIP, _TILE_WIDTH, _TILE_LENGTH, _SAMPLES = 278, 322, 323, 277  # TIFF tags


class JpegScans(NamedTuple):
    """The facts in the markers of a JPEG: the offset of its end marker (or of the end of the data), the
    number of scans, the offset of the last one, whether they hold every coefficient, whether they are Huffman
    coded, and whether they restart.
    """

    end: int
    number: int
    last: int
    complete: bool
    huffman: bool
    restarts: bool


def jpeg_scans(data: bytes) -> JpegScans:
    """The scans of the first picture in a JPEG; nothing is decoded."""
    missing: dict[int, int] = {}  # a bit for each coefficient, by component
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
            missing = dict.fromkeys(body[6::3], (1 << 64) - 1)
        elif marker == b"\xff\xdd":
            restarts = restarts or any(body)
        elif marker == SCAN:
            count, last = count + 1, at
            first, final, bits = body[-3:] if progressive and len(body) > 3 else (0, 63, 0)
            if bits & 15 == 0:  # no bit is left for a later scan
                held = (1 << final + 1) - (1 << first) if first <= final else 0
                for component in missing.keys() & body[1:-3:2]:
                    missing[component] &= ~held
    return JpegScans(end, count, last, not any(missing.values()), huffman, restarts)


def require_whole(image: Image.Image, file: BinaryIO) -> None:
    """Makes the decoding of `image`, which Pillow opened from `file`, raise an OSError if its data end early.
    For PNG and JPEG (MPO) that are not decoded yet; the JPEG pieces of a TIFF are decoded one by one before,
    as libtiff fills them in; other formats are not changed."""
    if image.format == "TIFF":

        def load() -> Any:
            del image.load
            _check_pieces(image, file)
            return image.load()

        image.load = load  # type: ignore[method-assign]
        return
    if not isinstance(image, ImageFile.ImageFile) or len(image.tile) != 1:
        return
    tile = image.tile[0]
    args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    if image.format == "PNG":
        image.tile = [tile._replace(codec_name=_PNG, args=(file, *args))]
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
        self._file, *own = args
        self._interlaced = len(own) > 1
        self._own = _imaging.zip_decoder(self.mode, *own)

    def setimage(self, im: Any, extents: tuple[int, int, int, int] | None = None) -> None:
        super().setimage(im, extents)
        self._pixels, self._last = im, (im.size[0] - 1, im.size[1] - 1)
        if not im.mode.startswith("I"):
            im.putpixel(self._last, _UNSEEN if im.bands == 1 else (_UNSEEN,) * im.bands)
            self._before = im.getpixel(self._last)

    def decode(self, buffer: Any) -> tuple[int, int]:
        # the checksum's other bytes stay: the decoder returns no row while its buffer is empty
        used, error = self._own.decode(buffer[:-1])
        if used < 0 and error == 0:
            at = self._file.tell()
            _check_png(self._file, inflated=self._interlaced or self._last_row_unseen())
            self._file.seek(at)
        return used, error

    def _last_row_unseen(self) -> bool:
        """Whether the last row, which is written at once or not at all, may be unwritten."""
        if self._pixels.mode.startswith("I"):
            return True  # Pillow cannot say
        return bool(self._pixels.getpixel(self._last) == self._before)


def _check_png(file: BinaryIO, *, inflated: bool) -> None:
    """Checks the checksums of a PNG's data, which Pillow does not, and, if `inflated`, that they hold all
    rows."""
    file.seek(16)
    header = file.read(13)
    file.seek(file.tell() + 4)
    stream, left, pixels = zlib.decompressobj(), _png_bytes(header) if inflated else 0, False
    while len(chunk := file.read(8)) == 8:
        length, kind = int.from_bytes(chunk[:4]), chunk[4:]
        if kind != b"IDAT":
            if pixels:
                break
            file.seek(length + 4, io.SEEK_CUR)
            continue
        pixels = True
        body = file.read(length)
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(file.read(4)):
            raise OSError("the checksum of its data is wrong")
        while body and left > 0 and not stream.eof:
            left -= len(stream.decompress(body, _PIECE))
            body = stream.unconsumed_tail
    if left > 0:
        raise OSError(EARLY)


def _png_bytes(header: bytes) -> int:
    """The bytes of the rows of a PNG with this IHDR, including filter bytes."""
    width, height = int.from_bytes(header[:4]), int.from_bytes(header[4:8])
    bits = header[8] * _CHANNELS.get(header[9], 1)
    sizes = [(width, height)]
    if header[12]:
        sizes = [
            (-(-(width - left) // across), -(-(height - top) // down)) for left, top, across, down in _PASSES
        ]
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0 and rows > 0)


def _check_pieces(image: Image.Image, file: BinaryIO) -> None:
    """Decodes each strip or tile of a TIFF in JPEG by itself."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_COMPRESSION) != _JPEG_IN_TIFF:
        return
    tiled = _TILES[0] in tags
    offsets, lengths = (tags.get(tag, ()) for tag in (_TILES if tiled else _STRIPS))
    width = tags.get(_TILE_WIDTH, 0) if tiled else image.width
    height = tags.get(_TILE_LENGTH, 0) if tiled else min(tags.get(_ROWS_A_STRIP, image.height), image.height)
    number = -(-image.width // max(1, width)) * -(-image.height // max(1, height)) * tags.get(_SAMPLES, 1)
    tables, at = bytes(tags.get(_JPEG_TABLES, b""))[: -len(END)], file.tell()
    pieces = list(zip(offsets, lengths, strict=False))[:number]
    left = file.seek(0, io.SEEK_END)
    if len(pieces) > MAX_JPEGS:
        raise OSError(f"{len(pieces)} strips or tiles in JPEG, and at most {MAX_JPEGS} are read")
    for offset, length in dict.fromkeys(pieces):
        file.seek(offset)
        data = file.read(length)
        left -= len(data)
        if left < 0:
            raise OSError("its strips or tiles lie in one another")
        if jpeg_scans(data).number > MAX_SCANS:
            raise OSError(f"a strip or tile in JPEG of more than {MAX_SCANS} scans")
        source = io.BytesIO(tables + data[2:] if tables else data)
        with Image.open(source, formats=("JPEG",)) as piece:
            if piece.width > width or piece.height > height:
                raise OSError("a strip or tile is larger than its place")
            require_whole(piece, source)
            piece.load()
    file.seek(at)


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
    """The bytes that replace the end marker of a JPEG, piece by piece."""
    ones = [_ONES * _READ_AHEAD, *[_ONES] * _LONGEST_RUN]
    if scans.number == 1:
        return ones[:1]
    if not scans.restarts:
        return ones
    # the decoder skips everything before a restart: only the one after it shows whether it was missing
    number = len(_RESTART.findall(data, scans.last, scans.end)) % 8
    return [*ones, bytes((0xFF, 0xD0 + number)), *ones]


Image.register_decoder(_PNG, _Png)
Image.register_decoder(_JPEG, _Jpeg)
