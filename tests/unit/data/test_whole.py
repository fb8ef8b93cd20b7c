"""An image whose data end early is refused by both readers, of data sets and of photographs, and no whole one
is."""

import io
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from fissura.core.errors import DataError
from fissura.data.images import read_rgb
from fissura.data.masks import decode_mask
from fissura.data.photograph import decode, read_header
from fissura.data.whole import MAX_JPEGS, MAX_SCANS, jpeg_scans
from fissura.reports.score_files import read_map

KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "colours of full size": {"subsampling": 0},
    "restarts": {"restart_marker_blocks": 3},
    "restarts a row": {"restart_marker_rows": 1},
    "progressive with restarts": {"progressive": True, "restart_marker_rows": 1},
    "coarse": {"quality": 10},
    "coarse and progressive": {"quality": 10, "progressive": True},
    "fine": {"quality": 100},
}


def surface(height: int, width: int, *, grain: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(
        0, 256, (max(2, height // grain), max(2, width // grain), 3), dtype=np.uint8
    )
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def encoded(pixels: np.ndarray, mode: str = "RGB", kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def cut(jpeg: bytes, share: float) -> bytes:
    """The JPEG with this share of its pixels' data, and an end marker."""
    scans = jpeg_scans(jpeg)
    first = jpeg.index(b"\xff\xda")
    return jpeg[: first + 14 + int((scans.end - first - 14) * share)] + b"\xff\xd9"


def png(
    rows: bytes,
    *,
    width: int,
    height: int,
    bits: int = 8,
    colour: int = 0,
    interlaced: int = 0,
    behind: bytes = b"",
) -> bytes:
    """A PNG of these rows, with the bytes `behind` its stream."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    stream = zlib.compress(rows) + behind
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *(chunk(b"IDAT", stream[at : at + 50]) for at in range(0, len(stream), 50)),
            chunk(b"IEND", b""),
        )
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_cut_before_its_end_marker_is_refused(kind: str, mode: str) -> None:
    for seed, grain in enumerate((1, 4, 16, 64)):
        jpeg = encoded(surface(200, 301, grain=grain, seed=seed), mode, **KINDS[kind])
        for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95):
            with pytest.raises(DataError, match="damaged or truncated"):
                decode(cut(jpeg, share))


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_jpeg_is_read_to_the_last_bit(kind: str) -> None:
    for height, width in ((1, 1), (8, 8), (9, 17), (64, 64), (200, 301)):
        for seed, grain in enumerate((1, 4, 16, 64, 256)):
            jpeg = encoded(surface(height, width, grain=grain, seed=seed), **KINDS[kind])
            expected = np.array(Image.open(io.BytesIO(jpeg)))
            for data in (jpeg, jpeg + b"behind the end\xff\xd9\xff\xd8 more", jpeg.removesuffix(b"\xff\xd9")):
                np.testing.assert_array_equal(decode(data).pixels, expected)


def test_a_progressive_jpeg_whose_last_scans_are_missing_is_refused() -> None:
    jpeg = encoded(surface(64, 96, grain=8), progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    with pytest.raises(DataError, match="data end before the last pixel"):
        decode(jpeg[:last] + b"\xff\xd9")


def test_the_first_of_two_pictures_is_whole_or_not_for_itself() -> None:
    first, second = (surface(60, 80, grain=4, seed=seed) for seed in (0, 1))
    both = encoded(first, kind="MPO", save_all=True, append_images=[Image.fromarray(second)])
    np.testing.assert_array_equal(decode(both).pixels, np.array(Image.open(io.BytesIO(both))))


def test_a_preview_in_the_metadata_is_not_the_picture() -> None:
    exif = Image.Exif()
    exif[0x9286] = encoded(surface(40, 40, grain=2))
    jpeg = encoded(surface(64, 96, grain=8), exif=exif)
    assert decode(jpeg).pixels.shape == (64, 96, 3)
    with pytest.raises(DataError):
        decode(cut(jpeg, 0.5))


@pytest.mark.parametrize("rows", [1, 3000, 5999])
def test_a_png_whose_stream_ends_after_some_rows_is_refused(rows: int, tmp_path: Path) -> None:
    row = b"\0" + bytes(range(40))
    path = tmp_path / "a.png"
    path.write_bytes(png(row * rows, width=40, height=6000))
    for read in (read_rgb, decode_mask, lambda path: decode(path.read_bytes())):
        with pytest.raises(DataError, match="truncated"):
            read(path)
    assert decode(png(row * 6000, width=40, height=6000)).pixels.shape == (6000, 40, 3)


@pytest.mark.parametrize(
    ("bits", "colour", "pixel"), [(1, 0, 1 / 8), (8, 0, 1), (8, 2, 3), (8, 6, 4), (16, 0, 2)]
)
@pytest.mark.parametrize("behind", [b"\0", b"\x11" * 300])
def test_bytes_behind_a_png_stream_that_ends_early_do_not_make_it_whole(
    behind: bytes, bits: int, colour: int, pixel: float
) -> None:
    row = b"\0" + b"\xff" * int(pixel * 64)
    sizes = {"width": 64, "height": 32, "bits": bits, "colour": colour}
    assert (decode(png(row * 32, **sizes, behind=behind)).pixels == 255).all()
    with pytest.raises(DataError, match="data end before the last pixel"):
        decode(png(row * 16, **sizes, behind=behind))


def test_a_png_whose_last_row_is_black_is_whole() -> None:
    row, black = b"\0" + b"\xff" * 64, bytes(65)
    assert decode(png(row * 31 + black, width=64, height=32)).pixels.mean() == 255 * 31 / 32


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.95])
def test_a_png_whose_download_left_zeros_at_its_end_is_refused(share: float) -> None:
    whole = encoded(surface(64, 96, grain=4), kind="PNG")
    got = int(len(whole) * share)
    with pytest.raises(DataError, match="truncated"):
        decode(whole[:got] + bytes(len(whole) - got))


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("crack", [0, 1, 20])
def test_a_whole_png_is_read_however_small_it_is_packed(level: int, crack: int) -> None:
    for height in (1, 2, 5, 33, 400):
        for width in (1, 2, 3, 6, 17, 300):
            pixels = np.zeros((height, width), np.uint8)
            pixels.flat[: crack * width : 7] = 255
            found = decode(encoded(pixels, "L", kind="PNG", compress_level=level)).pixels
            np.testing.assert_array_equal(found[..., 0], pixels)


@pytest.mark.parametrize(("bits", "colour", "pixel"), [(1, 0, 1 / 8), (8, 2, 3), (8, 6, 4), (16, 2, 6)])
def test_half_a_png_of_any_depth_is_refused(bits: int, colour: int, pixel: float) -> None:
    row = b"\0" + b"\xff" * int(pixel * 64)
    whole = png(row * 32, width=64, height=32, bits=bits, colour=colour)
    assert decode(whole).pixels.shape == (32, 64, 3)
    with pytest.raises(DataError, match="truncated"):
        decode(png(row * 16, width=64, height=32, bits=bits, colour=colour))


def test_a_png_in_seven_passes_of_which_the_last_is_missing_is_refused() -> None:
    # of 8 by 8 pixels the passes hold 1, 1, 2, 4, 8, 16 and 32 pixels, a byte before each row
    shapes = ((1, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8))
    passes = [b"".join(b"\0" + b"\x50" * width for _ in range(rows)) for rows, width in shapes]
    whole = png(b"".join(passes), width=8, height=8, interlaced=1)
    assert (decode(whole).pixels == 0x50).all()
    with pytest.raises(DataError, match="truncated"):
        decode(png(b"".join(passes[:-1]), width=8, height=8, interlaced=1))


def test_half_a_mask_and_half_a_map_are_refused(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + bytes(64) for _ in range(16)) + b"\0" + b"\xff" * 64
    (tmp_path / "m.png").write_bytes(png(rows, width=64, height=34))
    for read in (decode_mask, read_map):
        with pytest.raises(DataError, match=r"m\.png: .*truncated"):
            read(tmp_path / "m.png")


@pytest.mark.parametrize("options", [{"format": "WEBP", "lossless": True}, {"format": "WEBP"}])
def test_half_a_webp_of_the_right_sizes_is_refused(options: dict[str, object]) -> None:
    whole = encoded(surface(64, 96, grain=4), kind=str(options["format"]), lossless="lossless" in options)
    half = bytearray(whole[: len(whole) // 4 * 2])
    half[4:8] = struct.pack("<I", len(half) - 8)
    half[16:20] = struct.pack("<I", len(half) - 20)
    with pytest.raises(DataError, match="truncated"):
        decode(bytes(half))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", None])
def test_half_a_tiff_is_refused(compression: str | None) -> None:
    whole = encoded(surface(64, 96, grain=4), kind="TIFF", compression=compression)
    with pytest.raises(DataError):
        decode(whole[: len(whole) // 2])


def jpeg_tiles(tile: bytes, *, side: int, longer: int = 0) -> bytes:
    """A TIFF of side x side pixels whose tiles of 16x16 are all the same JPEG."""
    number = (side // 16) ** 2
    table = 8 + 2 + 12 * 10 + 4
    entries = [
        (256, 1, side), (257, 1, side), (258, 1, 8), (259, 1, 7), (262, 1, 1), (277, 1, 1),
        (322, 1, 16), (323, 1, 16), (324, number, table), (325, number, table + 4 * number),
    ]  # fmt: skip
    tags = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in entries)
    places = struct.pack(f"<{number}I", *range(table + 8 * number, table + 9 * number))
    if not longer:
        places = struct.pack("<I", table + 8 * number) * number
    lengths = struct.pack("<I", len(tile) + longer) * number
    return struct.pack("<2sHIH", b"II", 42, 8, 10) + tags + bytes(4) + places + lengths + tile + bytes(longer)


class TestATiffInJpeg:
    TILE = encoded(surface(16, 16, grain=4), "L", kind="JPEG")

    def test_may_have_many_tiles_that_are_one(self) -> None:
        assert decode(jpeg_tiles(self.TILE, side=512)).pixels.shape == (512, 512, 3)

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            pytest.param(jpeg_tiles(TILE, side=4096), f"at most {MAX_JPEGS}", id="65536 tiles"),
            pytest.param(
                jpeg_tiles(TILE, side=512, longer=10**6), "in one another", id="tiles in one another"
            ),
        ],
    )
    def test_that_would_take_minutes_is_refused(self, data: bytes, says: str) -> None:
        begin = time.process_time()
        with pytest.raises(DataError, match=says):
            decode(data)
        assert time.process_time() - begin < 1

    def test_of_many_scans_is_refused(self) -> None:
        whole = encoded(surface(16, 16, grain=4), "L", kind="JPEG", progressive=True)
        begin = whole.rindex(b"\xff\xda")
        again = whole[:-2] + whole[begin:-2] * MAX_SCANS + b"\xff\xd9"
        with pytest.raises(DataError, match=f"more than {MAX_SCANS} scans"):
            decode(jpeg_tiles(again, side=32))

    def test_tells_its_size_without_being_decoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def decoded(*_: object) -> None:
            raise AssertionError("it was decoded")

        monkeypatch.setattr(JpegImageFile, "load", decoded)
        assert read_header(jpeg_tiles(self.TILE, side=512)) == (512, 512)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_jpeg_in_a_tiff_whose_data_end_early_is_refused(share: float, mode: str) -> None:
    whole = encoded(surface(200, 301, grain=4), mode, kind="TIFF", compression="jpeg", strip_size=301 * 64)
    assert decode(whole).pixels.shape == (200, 301, 3)
    with Image.open(io.BytesIO(whole)) as image:
        strips = list(zip(image.tag_v2[273], image.tag_v2[279], strict=True))
    for at, length in (strips[0], strips[-1]):
        end = at + int(length * share)
        with pytest.raises(DataError, match="truncated"):
            decode(whole[:end] + b"\xff\xd9" + whole[end + 2 :])
