"""Reading a user's photograph from bytes: what is accepted, how it is changed, and the one line otherwise."""

import io
import re
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.TiffImagePlugin import TiffImageFile

from fissura.core.errors import DataError
from fissura.data.images import MAX_PIXELS, read_rgb, read_size
from fissura.data.photograph import (
    MAX_BLOCKS,
    MAX_GIF_PIECES,
    MAX_JUNK_BYTES,
    MAX_PIECES,
    MAX_RUNS_BYTES,
    Photograph,
    decode,
    read_header,
)
from fissura.data.whole import MAX_SCANS

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (24, 36, 3), dtype=np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(*np.mgrid[0:240:10, 0:252:7], 128), axis=2).astype(np.uint8)
DEEP = RNG.integers(0, 65536, (24, 36, 4), dtype=np.uint16)
SCALED = np.round(DEEP / 257).astype(np.uint8)

UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def saved(array: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    """What Pillow writes."""
    image = Image.fromarray(array)
    file = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    rows: np.ndarray, *, colour: int, bits: int = 16, before: bytes = b"", behind: bytes = b"", size: int = 0
) -> bytes:
    """A PNG of `rows` [h w ...], written by its definition; `size` is what the header says if it is not 0."""
    height, width = (size, size) if size else rows.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    planes = rows.astype(">u2") if bits == 16 else rows
    raw = b"".join(b"\0" + row.tobytes() for row in planes)
    body = before + chunk(b"IDAT", zlib.compress(raw)) + behind + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


def tiff(rows: np.ndarray, tags: dict[int, int] | None = None, *, order: str = "<") -> bytes:
    """An uncompressed TIFF of `rows` [h w] or [h w c], written by its definition; `tags` are set beside."""
    height, width = rows.shape[:2]
    channels = rows.shape[2] if rows.ndim == 3 else 1
    raw = (rows.byteswap() if order == ">" else rows).tobytes()
    entries: dict[int, int] = {256: width, 257: height, 259: 1, 262: 1 if channels == 1 else 2, 273: 8}
    entries |= {277: channels, 278: height, 279: len(raw)} | (tags or {})
    bits = struct.pack(order + f"{channels}H", *[rows.dtype.itemsize * 8] * channels)
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(raw) + 8)
    table = b""
    for tag, value in sorted((entries | {258: 0}).items()):
        if tag == 258:
            word = struct.pack(order + "I", 8 + len(raw)) if channels > 1 else bits + bytes(2)
            table += struct.pack(order + "HHI", tag, 3, channels) + word
        else:
            table += struct.pack(order + "HHII", tag, 4, 1, value)
    count = struct.pack(order + "H", len(table) // 12)
    return head + raw + bits.ljust(8, b"\0") + count + table + bytes(4)


def tiled_tiff(side: int, tile: int) -> bytes:
    """A TIFF of side x side pixels in one compressed tile."""
    raw = zlib.compress(bytes(tile * tile))
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 325: len(raw)}
    tags[324] = 8 + 2 + 12 * (len(tags) + 1) + 4
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + table + bytes(4) + raw


def tagged_tiff(*tags: tuple[int, int, int, int], behind: bytes = b"") -> bytes:
    """A grey TIFF of 8x8 pixels with more tags (number, type, values, where they are)."""
    plain = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 8, 279: 64}
    every = sorted(
        {**{tag: (4, 1, value) for tag, value in plain.items()}, **{t[0]: t[1:] for t in tags}}.items()
    )
    table = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in every)
    return struct.pack("<2sHIH", b"II", 42, 8, len(every)) + table + bytes(4) + behind


def frame_of_gif(pieces: bytes, behind: bytes) -> bytes:
    """A GIF whose one frame is in these pieces."""
    head = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", 0, 0, 8, 8, 0) + b"\2" + pieces + b"\0" + behind + b";"


def runs(data: bytes) -> bytes:
    """A BMP of 12000x12000 pixels in run lengths."""
    sizes = struct.pack("<IiiHHIIiiII", 40, 12_000, 12_000, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + sizes + bytes(1024) + data


def behind_header(*chunks: bytes) -> bytes:
    """A PNG with these chunks before its pixels."""
    head, mark, rest = PLAIN["PNG"].partition(struct.pack(">I", 13) + b"IHDR")
    return head + mark + rest[:17] + b"".join(chunks) + rest[17:]


def animated(kind: str, *, frames: int = 2) -> bytes:
    pictures = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in range(0, 90 * frames, 90)]
    file = io.BytesIO()
    pictures[0].save(file, kind, save_all=True, append_images=pictures[1:])
    return file.getvalue()


def scans(count: int) -> bytes:
    """A progressive JPEG with `count` scans more than it needs: its shortest, one bit a block, again."""
    whole = saved(SMOOTH, "JPEG", progressive=True)
    behind = whole.index(b"\0\0\x10") + 3  # the last bit of the means
    (pixels,) = re.match(rb"((?:[^\xff]|\xff\0)*)", whole[behind:]).groups()  # type: ignore[union-attr]
    again = whole[whole.rindex(b"\xff\xda", 0, behind) : behind] + pixels
    return whole.removesuffix(b"\xff\xd9") + again * count + b"\xff\xd9"


def notes(count: int) -> bytes:
    """A PNG with so many empty notes before its pixels."""
    head, mark, rest = PLAIN["PNG"].partition(struct.pack(">I", 13) + b"IHDR")
    return head + mark + rest[:17] + chunk(b"tEXt", b"") * count + rest[17:]


def segments(more: bytes) -> bytes:
    """A JPEG that begins with these segments."""
    return PLAIN["JPEG"][:2] + more + PLAIN["JPEG"][2:]


def with_alpha(alpha: int) -> np.ndarray:
    return np.dstack([PHOTO, np.full(PHOTO.shape[:2], alpha, np.uint8)])


LATE_WARNING = chunk(b"acTL", bytes(8))  # no frames: Pillow warns of it, here when it has read the pixels

PLAIN: dict[str, bytes] = {
    "PNG": saved(PHOTO, "PNG"),
    "grey PNG": saved(PHOTO[..., 0], "PNG"),
    "opaque PNG": saved(with_alpha(255), "PNG"),
    "PNG with a transparent colour": saved(PHOTO, "PNG", transparency=tuple(PHOTO[0, 0].tolist())),
    "PNG with a warning": png(PHOTO, colour=2, bits=8, behind=LATE_WARNING),
    "JPEG": saved(SMOOTH, "JPEG"),
    "grey JPEG": saved(SMOOTH[..., 0], "JPEG"),
    "progressive JPEG": saved(SMOOTH, "JPEG", progressive=True, exif=exif(6)),
    "MPO": animated("MPO"),
    "TIFF": saved(PHOTO, "TIFF", exif=exif(8)),
    "LZW TIFF": saved(PHOTO, "TIFF", compression="tiff_lzw"),
    "JPEG TIFF": saved(SMOOTH, "TIFF", compression="jpeg"),
    "TIFF whose 0 is white": tiff(PHOTO[..., 0], {262: 0}),
    "tiled TIFF": tiled_tiff(20, 32),
    "BMP": saved(PHOTO, "BMP"),
    "WebP": saved(SMOOTH, "WEBP", exif=exif(5)),
    "lossless WebP": saved(PHOTO, "WEBP", lossless=True),
    "grey GIF": saved(np.arange(24 * 36).reshape(24, 36).astype(np.uint8), "GIF"),
}

WHITE = np.round(PHOTO * (100 / 255) + 155).astype(np.uint8)  # of an alpha of 100
INK = RNG.integers(0, 256, (24, 36, 4), dtype=np.uint8)
BLACK = (PHOTO[..., 0] > 127).astype(np.uint8)
PALETTE = np.array([[200, 30, 40], [10, 250, 90], [0, 0, 0]], np.uint8)


def palette(kind: str, **options: object) -> bytes:
    image = Image.fromarray(PHOTO[..., 0] % 3).convert("P")
    image.putpalette(PALETTE.tobytes())
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[..., None], 3, axis=2)


def literal_cmyk(ink: np.ndarray) -> np.ndarray:
    """Each ink takes its colour away; then black takes its share of what is left."""
    left = 255 - ink.astype(int)
    return np.asarray(np.round(left[..., :3] * left[..., 3:] / 255))


PALETTED = PALETTE[PHOTO[..., 0] % 3]
SECOND = grey(PHOTO[..., 0] % 3 == 1)
DEEP_REMARK = ("16 bits a channel, scaled to 8",)
PALETTE_REMARK = ("palette colours, converted to RGB",)
CMYK_REMARK = ("CMYK ink, converted to RGB without its colour profile",)
BIT_REMARK = ("1 bit a pixel: it shows black and white alone",)
OVER_WHITE = ("transparent in places, laid over white",)
DEEP_OVER_WHITE = np.round(SCALED[..., :3] * (SCALED[..., 3:] / 255) + 255 - SCALED[..., 3:])
GREY_OVER_WHITE = grey(np.round(SCALED[..., 0] * (SCALED[..., 1] / 255) + 255 - SCALED[..., 1]))


def deep_tiff(order: str = "<", **tags: int) -> bytes:
    return tiff(DEEP[..., :3], {int(tag[1:]): value for tag, value in tags.items()}, order=order)


def compressed(planes: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".tiff", planes)[1].tobytes())


CHANGED: dict[str, tuple[bytes, np.ndarray, tuple[str, ...]]] = {
    "16-bit grey PNG": (png(DEEP[..., 0], colour=0), grey(SCALED[..., 0]), DEEP_REMARK),
    "16-bit RGB PNG": (png(DEEP[..., :3], colour=2), SCALED[..., :3], DEEP_REMARK),
    "16-bit RGBA PNG": (png(DEEP, colour=6), DEEP_OVER_WHITE, DEEP_REMARK + OVER_WHITE),
    "16-bit grey PNG with alpha": (png(DEEP[..., :2], colour=4), GREY_OVER_WHITE, DEEP_REMARK + OVER_WHITE),
    "16-bit PNG with a transparent colour": (
        png(DEEP[..., :3], colour=2, before=chunk(b"tRNS", DEEP[0, 0, :3].astype(">u2").tobytes())),
        SCALED[..., :3],
        DEEP_REMARK,
    ),
    "16-bit grey TIFF": (tiff(DEEP[..., 0]), grey(SCALED[..., 0]), DEEP_REMARK),
    "16-bit grey Motorola TIFF": (tiff(DEEP[..., 0], order=">"), grey(SCALED[..., 0]), DEEP_REMARK),
    "16-bit TIFF whose 0 is white": (tiff(65535 - DEEP[..., 0], {262: 0}), grey(SCALED[..., 0]), DEEP_REMARK),
    "16-bit RGB TIFF": (deep_tiff(), SCALED[..., :3], DEEP_REMARK),
    "16-bit RGB Motorola TIFF": (deep_tiff(">"), SCALED[..., :3], DEEP_REMARK),
    "16-bit LZW TIFF": (compressed(DEEP[..., 2::-1]), SCALED[..., :3], DEEP_REMARK),
    "16-bit RGBA TIFF": (tiff(DEEP, {338: 2}), DEEP_OVER_WHITE, DEEP_REMARK + OVER_WHITE),
    "1-bit PNG": (saved(BLACK * 255, "PNG", "1"), grey(BLACK * 255), BIT_REMARK),
    "1-bit fax TIFF": (
        saved(BLACK * 255, "TIFF", "1", compression="group4"),
        grey(BLACK * 255),
        BIT_REMARK,
    ),
    "palette PNG": (palette("PNG"), PALETTED, PALETTE_REMARK),
    "palette TIFF": (palette("TIFF"), PALETTED, PALETTE_REMARK),
    "palette BMP": (palette("BMP"), PALETTED, PALETTE_REMARK),
    "palette GIF": (palette("GIF"), PALETTED, PALETTE_REMARK),
    "palette PNG with a transparent colour": (
        palette("PNG", transparency=1),
        np.where(SECOND, 255, PALETTED),
        PALETTE_REMARK + OVER_WHITE,
    ),
    "palette PNG with an alpha of 100": (
        palette("PNG", transparency=bytes([255, 100, 255])),
        np.where(SECOND, np.round(PALETTE[1] * (100 / 255) + 155), PALETTED),
        PALETTE_REMARK + OVER_WHITE,
    ),
    "palette GIF with a transparent colour": (
        palette("GIF", transparency=1),
        np.where(SECOND, 255, PALETTED),
        PALETTE_REMARK + OVER_WHITE,
    ),
    "CMYK TIFF": (tiff(INK, {262: 5}), literal_cmyk(INK), CMYK_REMARK),
    "transparent PNG": (saved(with_alpha(100), "PNG"), WHITE, OVER_WHITE),
    "transparent TIFF": (saved(with_alpha(100), "TIFF"), WHITE, OVER_WHITE),
    "transparent WebP": (saved(with_alpha(100), "WEBP", lossless=True), WHITE, OVER_WHITE),
    "transparent grey PNG": (
        saved(with_alpha(100)[..., [0, 3]], "PNG"),
        grey(WHITE[..., 0]),
        OVER_WHITE,
    ),
}

REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "0 bytes"),
    "text": (b"not an image\n", "begins with b'not an i'"),
    "one byte": (b"\x89", r"begins with b'\x89'"),
    "a PDF": (b"%PDF-1.7\n" + bytes(100), "begins with b'%PDF-1.7'"),
    "a JPEG 2000": (saved(PHOTO, "JPEG2000"), "intact PNG, JPEG, TIFF, BMP, GIF or WEBP"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "begins with"),
    "the half of a PNG": (PLAIN["PNG"][:1000], "truncated"),
    "the half of a JPEG": (PLAIN["JPEG"][: len(PLAIN["JPEG"]) // 2], "truncated"),
    "the half of a deep PNG": (png(DEEP[..., :3], colour=2)[:2000], "truncated"),
    "the half of a deep TIFF": (tiff(DEEP[..., 0])[:900], "intact"),
    "floats": (saved(PHOTO[..., 0].astype(np.float32), "TIFF"), "holds floats"),
    "32 bits": (saved(PHOTO[..., 0].astype(np.int32), "TIFF"), "I pixels of 32 bits"),
    "signed 16 bits": (tiff(DEEP[..., 0], {339: 2}), "I pixels of 16 bits"),
    "16-bit CMYK": (tiff(DEEP, {262: 5}), "CMYK pixels of 16 bits"),
    "Lab colours": (tiff(PHOTO, {262: 8}), "LAB pixels of 8 bits"),
    "an animated GIF": (animated("GIF"), "2 or more (frames or pages)"),
    "an animated PNG": (animated("PNG"), "2 or more (frames or pages)"),
    "an animated WebP": (animated("WEBP"), "2 or more (frames or pages)"),
    "TIFF pages": (animated("TIFF"), "2 or more (frames or pages)"),
    "160 megapixels": (png(PHOTO, colour=2, bits=8, size=12_650), "150 megapixels: this one has 12650x12650"),
    "a PNG bomb": (png(PHOTO, colour=2, bits=8, size=60_000), "150 megapixels: this one has far more"),
    "a PNG of all pixels": (png(PHOTO, colour=2, bits=8, size=2**31 - 1), "far more"),
    "a deep bomb": (png(DEEP, colour=6, size=12_650), "150 megapixels"),
    "a TIFF bomb": (tiff(PHOTO, {256: 50_000, 257: 50_000}), "150 megapixels"),
    "a BMP bomb": (PLAIN["BMP"][:18] + struct.pack("<ii", 50_000, 50_000) + PLAIN["BMP"][26:], "megapixels"),
    "a GIF bomb": (PLAIN["grey GIF"][:6] + b"\xff" * 4 + PLAIN["grey GIF"][10:], "megapixels"),
    "a JPEG bomb": (re.sub(rb"(?s)(\xff\xc0...)....", b"\\1" + b"\xff\xfe" * 2, PLAIN["JPEG"]), "megapixels"),
    "a tile of far more pixels than the image": (tiled_tiff(16, 16_384), "a tile of 16384x16384"),
    "a PNG that begins with a million notes": (notes(10**6), f"{MAX_BLOCKS} blocks beside its pixels"),
    "a PNG that ends with a million notes": (
        png(PHOTO, colour=2, bits=8, behind=chunk(b"tEXt", b"") * 10**6),
        f"{MAX_BLOCKS} blocks",
    ),
    "a JPEG of a million notes": (segments(b"\xff\xfe\0\2" * 10**6), f"{MAX_BLOCKS} blocks"),
    "a JPEG of many bytes of padding": (segments(b"\xff" * 2**25), f"{MAX_JUNK_BYTES} bytes of no meaning"),
    "a JPEG of many bytes of junk": (segments(bytes(2**25)), f"{MAX_JUNK_BYTES} bytes of no meaning"),
    "a JPEG of many scans": (scans(MAX_SCANS), f"at most {MAX_SCANS} scans: this one has"),
}


def quietly(data: bytes) -> Photograph | str:
    """The photograph, or the problem's line. Fails where a warning gets out."""
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        try:
            found: Photograph | str = decode(data)
        except DataError as error:
            (found,) = error.problems
    assert not leaked
    return found


class TestWhatTheReaderOfDataSetsAccepts:
    @pytest.mark.parametrize("data", PLAIN.values(), ids=PLAIN.keys())
    def test_has_the_same_pixels_and_no_remark(self, data: bytes, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(data)
        found = quietly(data)
        assert isinstance(found, Photograph)
        np.testing.assert_array_equal(found.pixels, read_rgb(path))
        assert found.remarks == ()
        assert read_header(data) == read_size(path) == found.pixels.shape[:2]

    @given(
        pixels=st.integers(0, 2**32 - 1),
        size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
        mode=st.sampled_from(["L", "RGB"]),
        kind=st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "WEBP"]),
        orientation=st.integers(0, 9),
        progressive=st.booleans(),
    )
    def test_whatever_it_shows(
        self,
        pixels: int,
        size: tuple[int, int],
        mode: str,
        kind: str,
        orientation: int,
        progressive: bool,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        shape = size if mode == "L" else (*size, 3)
        photo = np.random.default_rng(pixels).integers(0, 256, shape, dtype=np.uint8)
        data = saved(photo, kind, exif=exif(orientation), progressive=progressive)
        path = tmp_path_factory.mktemp("plain") / "a"
        path.write_bytes(data)
        np.testing.assert_array_equal(decode(data).pixels, read_rgb(path))
        assert decode(data).remarks == ()
        assert read_header(data) == read_size(path)


class TestWhatIsBroughtToRgb:
    @pytest.mark.parametrize(("data", "pixels", "remarks"), CHANGED.values(), ids=CHANGED.keys())
    def test_has_these_pixels_and_a_remark(
        self, data: bytes, pixels: np.ndarray, remarks: tuple[str, ...]
    ) -> None:
        found = quietly(data)
        assert isinstance(found, Photograph)
        assert found.pixels.dtype == np.uint8
        np.testing.assert_array_equal(found.pixels, pixels)
        assert found.remarks == remarks
        assert read_header(data) == pixels.shape[:2]

    def test_of_16_bits_is_rounded_at_every_value(self) -> None:
        values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        expected = [round(value / 257) for value in range(65536)]
        for data in (png(values, colour=0), png(np.dstack([values] * 3), colour=2)):
            assert decode(data).pixels[..., 0].ravel().tolist() == expected

    def test_is_not_taken_from_a_deep_image_that_two_readers_see_differently(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = png(DEEP[..., :3], colour=2)
        half = np.where(np.arange(24)[:, None, None] < 12, DEEP[..., 2::-1], 0).astype(np.uint16)
        for seen in (half, half.swapaxes(0, 1), half[..., 0], half.astype(np.uint8), None):
            monkeypatch.setattr(cv2, "imdecode", lambda *_, seen=seen: seen)
            with pytest.raises(DataError, match="read alike by two readers"):
                decode(data)

    def test_is_a_cmyk_jpeg_too(self) -> None:
        data = saved(SMOOTH, "JPEG", "CMYK", quality=100)
        found = decode(data)
        assert found.remarks == CMYK_REMARK
        assert np.abs(found.pixels.astype(int) - SMOOTH).mean() < 2


@pytest.mark.parametrize("orientation", UPRIGHT)
class TestExifRotation:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
    def test_is_applied_to_pixels_and_size(self, kind: str, orientation: int) -> None:
        lying = decode(saved(SMOOTH, kind)).pixels
        data = saved(SMOOTH, kind, exif=exif(orientation))
        np.testing.assert_array_equal(decode(data).pixels, UPRIGHT[orientation](lying))
        assert read_header(data) == UPRIGHT[orientation](lying).shape[:2]

    @pytest.mark.parametrize("channels", [1, 3])
    def test_is_applied_to_16_bits(self, channels: int, orientation: int) -> None:
        deep, scaled = (a[..., 0] if channels == 1 else a[..., :3] for a in (DEEP, SCALED))
        tags = chunk(b"eXIf", exif(orientation).tobytes().removeprefix(b"Exif\0\0"))
        expected = UPRIGHT[orientation](grey(scaled) if channels == 1 else scaled)
        colour = 0 if channels == 1 else 2
        for data in (png(deep, colour=colour, before=tags), tiff(deep, {274: orientation})):
            np.testing.assert_array_equal(decode(data).pixels, expected)
            assert read_header(data) == expected.shape[:2]

    def test_is_applied_to_what_is_transparent_or_has_a_palette(self, orientation: int) -> None:
        for kind in ("PNG", "TIFF"):
            data = saved(with_alpha(100), kind, exif=exif(orientation))
            np.testing.assert_array_equal(decode(data).pixels, UPRIGHT[orientation](WHITE))
            data = palette(kind, exif=exif(orientation))
            np.testing.assert_array_equal(decode(data).pixels, UPRIGHT[orientation](PALETTED))


class TestABadImage:
    @pytest.mark.parametrize(("data", "says"), REFUSED.values(), ids=REFUSED.keys())
    def test_gets_one_line_with_the_rule_the_value_and_a_remedy(self, data: bytes, says: str) -> None:
        line = quietly(data)
        assert isinstance(line, str)
        assert says in line
        assert re.fullmatch(r"[^\n]+: this one [^\n]+; [^\n]+|the (file|image) is [^\n]+; [^\n]+", line)
        assert not re.search(r"\w+/\w+/|\b0x", line)

    @pytest.mark.parametrize("name", [name for name in REFUSED if "bomb" in name or "pixels" in name])
    def test_that_is_a_bomb_is_refused_from_its_header(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def decoded(*_: object) -> None:
            raise AssertionError("pixels were asked for")

        monkeypatch.setattr(Image.Image, "load", decoded)
        monkeypatch.setattr(cv2, "imdecode", decoded)
        for read in (decode, read_header):
            with pytest.raises(DataError, match="megapixels"):
                read(REFUSED[name][0])

    def test_has_more_pixels_than_the_caller_allows(self) -> None:
        data = PLAIN["PNG"]
        assert decode(data, max_pixels=24 * 36).pixels.shape == (24, 36, 3)
        with pytest.raises(DataError, match=r"at most 0\.000863 megapixels: this one has 36x24"):
            decode(data, max_pixels=24 * 36 - 1)

    def test_has_more_than_the_readers_limit_whatever_the_caller_allows(self) -> None:
        with pytest.raises(DataError, match="at most 150 megapixels"):
            decode(REFUSED["160 megapixels"][0], max_pixels=2 * MAX_PIXELS)

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(
                PLAIN["JPEG"][:2]
                + (b"\xff\xe1" + (65_008).to_bytes(2) + b"Exif\0\0" + b"y" * 65_000) * 400
                + PLAIN["JPEG"][2:],
                id="a JPEG of 400 segments of Exif",
            ),
            pytest.param(
                PLAIN["grey GIF"][:781] + b"\5" * 10_000_000 + PLAIN["grey GIF"][781:],
                id="a GIF of 10 MB of junk",
            ),
            pytest.param(
                PLAIN["grey GIF"][:781]
                + b"!\xfe"
                + (b"\xff" + b"c" * 255) * 8000
                + b"\0"
                + PLAIN["grey GIF"][781:],
                id="a GIF of 2 MB of comments",
            ),
            pytest.param(frame_of_gif(b"\1\x44", b"!\xfe\1a\0" * 10**6), id="a GIF with comments behind"),
            pytest.param(frame_of_gif(b"\1\x44", b"x" * 10**7), id="a GIF with junk behind"),
            pytest.param(frame_of_gif(b"\1\x44" * (MAX_GIF_PIECES + 10), b""), id="a GIF in single bytes"),
            pytest.param(
                behind_header(*[chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**6), 9))] * 1000),
                id="a PNG of 1000 colour profiles of a megabyte",
            ),
            pytest.param(
                behind_header(*[chunk(b"IDAT", b"x")] * (MAX_PIECES + 10)), id="a PNG in single bytes"
            ),
            pytest.param(
                segments(
                    (b"\xff\xed\xff\xf4Photoshop 3.0\0" + b"8BIM\0\1\0\0\0\0\0\0" * 5459 + b"8BIM") * 300
                ),
                id="a JPEG of a million blocks of Photoshop",
            ),
        ],
    )
    def test_of_notes_and_junk_is_refused_before_they_are_read(self, data: bytes) -> None:
        begin = time.process_time()
        with pytest.raises(DataError, match="save it again without notes"):
            decode(data)
        assert time.process_time() - begin < 0.5

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            pytest.param(runs(bytes(MAX_RUNS_BYTES)), "a BMP in run lengths", id="a BMP of empty rows"),
            pytest.param(
                tagged_tiff((258, 3, 10**7, 150), behind=b"\x08\0" * 10**7),
                "TIFF",
                id="bits of ten million samples",
            ),
            pytest.param(
                tagged_tiff((273, 4, 10**7, 150), (279, 4, 10**7, 150), behind=bytes(4 * 10**7)),
                "TIFF",
                id="ten million strips",
            ),
            pytest.param(
                b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 10**6) + bytes(20 * 10**6),
                "TIFF",
                id="a million tags",
            ),
        ],
    )
    def test_that_pillow_reads_in_python_is_refused_before_it_is(self, data: bytes, says: str) -> None:
        begin = time.process_time()
        with pytest.raises(DataError, match=says):
            decode(data)
        assert time.process_time() - begin < 0.5

    def test_does_not_fit_the_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def exhausted(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr(Image.Image, "convert", exhausted)
        with pytest.raises(DataError, match="fits the memory that is free"):
            decode(PLAIN["grey PNG"])

    @pytest.mark.parametrize("kind", [GifImageFile, TiffImageFile])
    def test_has_not_all_its_pages_counted_since_there_may_be_millions(
        self, kind: type[GifImageFile | TiffImageFile], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def counted(_: object) -> int:
            raise AssertionError("frames were counted")

        monkeypatch.setattr(kind, "n_frames", property(counted))
        assert "2 or more" in str(quietly(animated(kind.format, frames=3)))


class TestAFileOfFewNotes:
    def test_is_read_where_its_pixels_are_in_pieces_of_some_bytes(self) -> None:
        pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PHOTO), 0)
        head, mark, rest = PLAIN["PNG"].partition(struct.pack(">I", 13) + b"IHDR")
        pieces = b"".join(chunk(b"IDAT", pixels[at : at + 8]) for at in range(0, len(pixels), 8))
        found = quietly(head + mark + rest[:17] + pieces + chunk(b"IEND", b""))
        assert isinstance(found, Photograph)
        np.testing.assert_array_equal(found.pixels, PHOTO)

    def test_is_read_where_a_tag_of_no_meaning_claims_more_than_the_file_holds(self) -> None:
        strip = tagged_tiff((273, 4, 1, 8 + 2 + 10 * 12 + 4), (40_000, 4, 2**31, 8), behind=bytes(64))
        assert isinstance(quietly(strip), Photograph)

    def test_is_read(self) -> None:
        for data in (notes(MAX_BLOCKS - 10), segments(b"\xff\xfe\0\2" * (MAX_BLOCKS - 20))):
            assert isinstance(quietly(data), Photograph)

    def test_is_read_whatever_its_notes_hold(self) -> None:
        data = segments(b"\xff\xe5" + struct.pack(">H", 2 + 40_000) + b"\xff\xfe\0\2" * 10_000)
        assert isinstance(quietly(data), Photograph)


class TestAJpegOfFewScans:
    def test_may_have_as_many_as_programs_write(self) -> None:
        assert isinstance(quietly(scans(MAX_SCANS - 20)), Photograph)

    def test_is_not_taken_for_one_of_many_by_what_its_metadata_or_a_video_behind_it_hold(self) -> None:
        data = PLAIN["JPEG"]
        preview = b"\xff\xe5" + struct.pack(">H", 2 + 20_000) + b"\xff\xda" * 10_000
        found = quietly(data[:2] + preview + data[2:] + b"\xff\xda" * 10_000)
        assert isinstance(found, Photograph)
        np.testing.assert_array_equal(found.pixels, decode(data).pixels)


def test_the_header_of_an_image_is_enough_for_its_size() -> None:
    for name in ("PNG", "JPEG", "BMP", "16-bit RGB PNG"):
        data = PLAIN.get(name) or CHANGED[name][0]
        assert read_header(data[:700]) == (24, 36)
        with pytest.raises(DataError, match="truncated"):
            decode(data[:700])


DAMAGEABLE = PLAIN | {name: data for name, (data, _, _) in CHANGED.items()}


@pytest.mark.parametrize("name", DAMAGEABLE)
@settings(max_examples=20)
@given(
    cut=st.floats(0.2, 1) | st.just(1.0),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6),
    header=st.booleans(),
)
def test_a_damaged_image_is_read_as_the_data_sets_reader_does_or_refused_and_nothing_else(
    name: str,
    cut: float,
    flips: list[tuple[float, int]],
    header: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data = bytearray(DAMAGEABLE[name])
    for place, change in flips:
        data[int(place * min(len(data), 120 if header else len(data)))] ^= change
    path = tmp_path_factory.mktemp("damaged") / "a"
    path.write_bytes(data := data[: round(cut * len(data))])
    found = quietly(bytes(data))
    try:
        strict = read_rgb(path)
    except DataError:
        assert isinstance(found, str) or found.remarks
    else:
        assert isinstance(found, Photograph)
        assert not found.remarks
        np.testing.assert_array_equal(found.pixels, strict)
    if isinstance(found, str):
        assert "\n" not in found
    else:
        assert found.pixels.dtype == np.uint8
        assert found.pixels.shape == (*read_header(bytes(data)), 3)


def test_many_threads_read_at_once_and_leave_the_filters_of_warnings_as_they_were() -> None:
    files = [*DAMAGEABLE.values(), *(data for data, _ in REFUSED.values())]
    expected = [quietly(data) for data in files]
    before = list(warnings.filters)

    def read(data: bytes) -> Photograph | str:
        try:
            return decode(data)
        except DataError as error:
            return error.problems[0]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, files * 5))
    for one, other in zip(found, expected * 5, strict=True):
        if isinstance(one, Photograph) and isinstance(other, Photograph):
            np.testing.assert_array_equal(one.pixels, other.pixels)
            assert one.remarks == other.remarks
        else:
            assert one == other
    assert warnings.filters == before


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("channels", ["grey", "colour"])
@pytest.mark.parametrize("file", ["PNG", "TIFF"])
def test_fewer_bits_in_16_are_scaled_by_what_they_hold(bits: int, channels: str, file: str) -> None:
    deep = (DEEP[..., :3] >> (16 - bits)).astype(np.uint16)
    deep[0, 0] = 2**bits - 1
    if channels == "grey":
        deep = deep[..., 0]
    data = tiff(deep) if file == "TIFF" else png(deep, colour=0 if channels == "grey" else 2)
    found = decode(data)
    expected = np.round(deep * (255 / (2**bits - 1)))
    assert (
        np.abs(found.pixels.reshape(24, 36, 3) - (expected if deep.ndim == 3 else expected[..., None])).max()
        <= 1
    )
    assert found.pixels.max() == 255
    assert found.remarks == (f"16 bits a channel, of which its values take {bits}, scaled to 8",)


def test_a_black_image_of_16_bits_is_black() -> None:
    found = decode(png(np.zeros((24, 36), np.uint16), colour=0))
    assert not found.pixels.any()
