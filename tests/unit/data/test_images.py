"""Reading one image or mask: what is accepted, how it is read, and the one line that a bad file gets."""

import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fissura.core.errors import DataError
from fissura.data.images import read_rgb, read_size
from fissura.data.masks import decode_mask

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (24, 36, 3), dtype=np.uint8)
MASK = (RNG.random((24, 36)) < 0.2).astype(np.uint8)


def write(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def png_of_size(path: Path, width: int, height: int) -> Path:
    """A PNG whose header promises width x height pixels, and which holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    return path


def truncated(path: Path, array: np.ndarray) -> Path:
    write(path, array)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def animated(path: Path) -> Path:
    frames = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (0, 255)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def text(path: Path) -> Path:
    path.write_text("not an image\n")
    return path


def empty(path: Path) -> Path:
    path.touch()
    return path


def transparent(path: Path) -> Path:
    alpha = np.full((24, 36, 1), 255, np.uint8)
    alpha[0, 0] = 0
    return write(path, np.concatenate([PHOTO, alpha], axis=2))


DEEP = np.arange(24 * 36, dtype=np.uint16).reshape(24, 36) * 70

BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda d: d / "a.png", "missing"),
    "a folder": (lambda d: d, "missing"),
    "zero bytes": (lambda d: empty(d / "a.png"), "0 bytes"),
    "text": (lambda d: text(d / "a.png"), "begins with b'not an i'"),
    "truncated PNG": (lambda d: truncated(d / "a.png", PHOTO), "truncated"),
    "truncated JPEG": (lambda d: truncated(d / "a.jpg", PHOTO), "truncated"),
    "160 megapixels": (lambda d: png_of_size(d / "a.png", 16_000, 10_000), "at most 150 megapixels"),
    "a bomb": (lambda d: png_of_size(d / "a.png", 60_000, 60_000), "at most 150 megapixels"),
    "16-bit grey": (lambda d: write(d / "a.png", DEEP), "more than 8 bits"),
    "16-bit TIFF": (lambda d: write(d / "a.tif", DEEP), "more than 8 bits"),
    "floats": (lambda d: write(d / "a.tif", DEEP.astype(np.float32)), "more than 8 bits"),
    "palette": (lambda d: write(d / "a.png", PHOTO, "P"), "palette"),
    "CMYK": (lambda d: write(d / "a.jpg", PHOTO, "CMYK"), "CMYK"),
    "transparent": (lambda d: transparent(d / "a.png"), "transparent"),
    "animated": (lambda d: animated(d / "a.gif"), "holds 2"),
    "two pages": (lambda d: animated(d / "a.tif"), "holds 2"),
}


@pytest.mark.parametrize("read", [read_rgb, decode_mask], ids=["image", "mask"])
@pytest.mark.parametrize(("make", "says"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_gets_one_line_with_its_name_and_a_remedy(
    tmp_path: Path, make: Callable[[Path], Path], says: str, read: Callable[[Path], np.ndarray]
) -> None:
    path = make(tmp_path)
    with pytest.raises(DataError) as caught:
        read(path)
    (line,) = caught.value.problems
    assert line.startswith(f"{path}: ")
    assert says in line
    assert ";" in line
    assert "\n" not in line


def test_a_16_bit_colour_png_is_refused_though_pillow_would_halve_it(tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), PHOTO.astype(np.uint16) * 257)
    with pytest.raises(DataError, match="more than 8 bits"):
        read_rgb(path)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_a_lossless_photograph_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = write(tmp_path / f"a.{suffix}", PHOTO, **options)
    np.testing.assert_array_equal(read_rgb(path), PHOTO)
    assert read_size(path) == (24, 36)


def test_a_grey_photograph_becomes_rgb(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", PHOTO[..., 0])
    np.testing.assert_array_equal(read_rgb(path), np.repeat(PHOTO[..., :1], 3, axis=2))


def test_an_opaque_alpha_channel_is_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", np.dstack([PHOTO, np.full((24, 36), 255, np.uint8)]))
    np.testing.assert_array_equal(read_rgb(path), PHOTO)


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


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation_is_applied_to_the_pixels_and_to_the_size(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / f"a.{suffix}", PHOTO, exif=exif)
    expected = UPRIGHT[orientation](PHOTO)
    np.testing.assert_array_equal(read_rgb(path), expected)
    assert read_size(path) == expected.shape[:2]


def test_pillows_warnings_stay_inside(tmp_path: Path) -> None:
    path = png_of_size(tmp_path / "large.png", 10_000, 10_000)  # above Pillow's limit for a warning
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        assert read_size(path) == (10_000, 10_000)
    assert not leaked


@pytest.mark.parametrize("crack", [255, 1, 128])
def test_a_mask_has_zero_and_one_other_level(tmp_path: Path, crack: int) -> None:
    reading = decode_mask(write(tmp_path / "a.png", MASK * np.uint8(crack)))
    np.testing.assert_array_equal(reading.mask, MASK)
    assert reading.levels == {0: int((MASK == 0).sum()), crack: int(MASK.sum())}
    assert reading.remark is None


def test_a_mask_may_be_1_bit_or_rgb_of_equal_channels(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decode_mask(write(tmp_path / "a.png", MASK * 255, "1")).mask, MASK)
    np.testing.assert_array_equal(decode_mask(write(tmp_path / "b.png", MASK * 255, "RGB")).mask, MASK)
    np.testing.assert_array_equal(decode_mask(write(tmp_path / "c.gif", MASK * 255)).mask, MASK)


@pytest.mark.parametrize(("level", "crack"), [(0, 0), (255, 1), (1, 1)])
def test_a_mask_of_one_level(tmp_path: Path, level: int, crack: int) -> None:
    mask = decode_mask(write(tmp_path / "a.png", np.full((5, 7), level, np.uint8))).mask
    np.testing.assert_array_equal(mask, np.full((5, 7), crack))


@pytest.mark.parametrize("levels", [[0, 100, 255], [3, 250], [7]])
def test_grey_levels_in_a_lossless_mask_are_refused(tmp_path: Path, levels: list[int]) -> None:
    path = write(tmp_path / "a.png", np.resize(np.array(levels, np.uint8), (6, 6)))
    with pytest.raises(DataError, match="one level of crack"):
        decode_mask(path)


def test_colours_in_a_mask_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="colours beside black"):
        decode_mask(write(tmp_path / "a.png", PHOTO))


@pytest.mark.parametrize("colour", [(128, 0, 0), (250, 50, 83), (84, 105, 77), (255, 255, 255), (90, 90, 90)])
@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_mask_of_black_and_one_colour_is_read(
    tmp_path: Path, colour: tuple[int, int, int], suffix: str
) -> None:
    palette = Image.fromarray(MASK, "P")
    palette.putpalette([0, 0, 0, *colour])
    palette.save(tmp_path / f"palette.{suffix}")
    Image.fromarray(MASK[..., None] * np.array(colour, np.uint8)).save(tmp_path / "rgb.png")
    for name in (f"palette.{suffix}", "rgb.png"):
        np.testing.assert_array_equal(decode_mask(tmp_path / name).mask, MASK)


@pytest.mark.parametrize(("levels", "threshold"), [((1, 2), 1), ((3, 250), 3)])
def test_two_levels_without_0_are_told_truly_with_the_threshold_that_reads_them(
    tmp_path: Path, levels: tuple[int, int], threshold: int
) -> None:
    path = write(tmp_path / "a.png", np.where(MASK, *reversed(levels)).astype(np.uint8))
    with pytest.raises(DataError, match=rf"holds {levels[0]}, {levels[1]} and no 0.*threshold={threshold}`"):
        decode_mask(path)
    np.testing.assert_array_equal(decode_mask(path, threshold=threshold).mask, MASK)


def test_a_declared_threshold_reads_grey_levels_and_names_their_share(tmp_path: Path) -> None:
    grey = np.array([[0, 127, 128, 255]], np.uint8)
    reading = decode_mask(write(tmp_path / "a.png", grey), threshold=127)
    np.testing.assert_array_equal(reading.mask, [[0, 0, 1, 1]])
    assert reading.grey_share == 0.5
    assert reading.remark == "50.0% of the pixels are grey, thresholded at 127"


@pytest.mark.parametrize("levels", [(1, 2), (0, 1, 2, 3), (38, 75)])
def test_of_levels_that_are_classes_a_threshold_says_all(tmp_path: Path, levels: tuple[int, ...]) -> None:
    reading = decode_mask(write(tmp_path / "a.png", np.array([levels], np.uint8)), threshold=levels[-2])
    assert reading.mask.tolist() == [[0] * (len(levels) - 1) + [1]]
    assert (reading.remark, reading.grey_share) == (None, 0.0)


def test_a_mask_of_16_bits_is_told_what_a_mask_is_saved_as(tmp_path: Path) -> None:
    write(tmp_path / "a.png", DEEP)
    with pytest.raises(DataError) as refused:
        decode_mask(tmp_path / "a.png")
    (line,) = refused.value.problems
    assert line.endswith(
        "a mask holds 8-bit grey: this one holds more than 8 bits a channel; save it as 8-bit grey, 0"
        " background and 255 crack"
    )


def test_a_threshold_spares_masks_of_0_and_1(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decode_mask(write(tmp_path / "a.png", MASK), threshold=127).mask, MASK)


def test_a_jpeg_mask_is_thresholded_at_127_with_a_remark(tmp_path: Path) -> None:
    line = np.zeros((64, 64), np.uint8)
    line[30:34] = 1
    reading = decode_mask(write(tmp_path / "a.jpg", line * 255))
    np.testing.assert_array_equal(reading.mask, line)
    assert reading.remark is not None
    assert "thresholded at 127" in reading.remark


@pytest.mark.parametrize("quality", [95, 100])
def test_a_jpeg_of_class_indices_is_read_as_such(tmp_path: Path, quality: int) -> None:
    line = np.zeros((64, 64), np.uint8)
    line[24:32] = 1
    reading = decode_mask(write(tmp_path / "a.jpg", line, quality=quality))
    np.testing.assert_array_equal(reading.mask, line)
    assert reading.remark is not None
    assert "class indices" in reading.remark


@pytest.mark.parametrize("level", [40, 100, 120])
def test_a_jpeg_mask_whose_cracks_would_all_be_lost_is_refused_and_its_lightest_level_named(
    tmp_path: Path, level: int
) -> None:
    line = np.zeros((64, 64), np.uint8)
    line[24:32] = level
    path = write(tmp_path / "a.jpg", line, quality=100)
    with pytest.raises(
        DataError, match=rf"a\.jpg: the lightest pixel .* is {level}: no crack .*127"
    ) as caught:
        decode_mask(path)
    assert f"threshold={level // 2}" in str(caught.value)
    np.testing.assert_array_equal(decode_mask(path, threshold=level // 2).mask, line > 0)


def jpeg_line(level: int) -> np.ndarray:
    """Thin lines of a level on black."""
    line = np.zeros((64, 64), np.uint8)
    line[10:13] = line[:, 40:42] = level
    return line


@pytest.mark.parametrize("level", [100, 115, 128])
def test_a_jpeg_mask_whose_cracks_pass_the_threshold_here_and_there_is_refused(
    tmp_path: Path, level: int
) -> None:
    path = write(tmp_path / "a.jpg", jpeg_line(level), quality=75)
    with pytest.raises(DataError, match=r"crack would be (left|lost) at the threshold 127") as caught:
        decode_mask(path)
    threshold = int(re.search(r"threshold=(\d+)", str(caught.value))[1])  # type: ignore[index]
    np.testing.assert_array_equal(decode_mask(path, threshold=threshold).mask, jpeg_line(1))


@pytest.mark.parametrize("level", [180, 200, 255])
def test_a_jpeg_mask_of_light_cracks_is_thresholded(tmp_path: Path, level: int) -> None:
    path = write(tmp_path / "a.jpg", jpeg_line(level), quality=75)
    np.testing.assert_array_equal(decode_mask(path).mask, jpeg_line(1))


def test_the_threshold_named_for_a_mask_of_classes_leaves_a_crack(tmp_path: Path) -> None:
    grey = jpeg_line(1)
    grey[50:60] = 2
    with pytest.raises(DataError, match=r"3 levels \(0, 1, 2\)") as caught:
        decode_mask(write(tmp_path / "a.png", grey))
    threshold = int(re.search(r"threshold=(\d+)", str(caught.value))[1])  # type: ignore[index]
    assert decode_mask(tmp_path / "a.png", threshold=threshold).mask.any()


def test_a_black_jpeg_mask_holds_no_crack(tmp_path: Path) -> None:
    reading = decode_mask(write(tmp_path / "a.jpg", np.zeros((64, 64), np.uint8)))
    assert not reading.mask.any()
    assert reading.remark is None


def test_a_dark_crack_on_light_ground(tmp_path: Path) -> None:
    reading = decode_mask(write(tmp_path / "a.png", (1 - MASK) * 255), crack="dark")
    np.testing.assert_array_equal(reading.mask, MASK)


@settings(max_examples=150, deadline=None)
@given(
    suffix=st.sampled_from(["png", "jpg", "gif", "tif", "bmp", "webp"]),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, cut: float, flips: list[tuple[float, int]]
) -> None:
    path = write(tmp_path_factory.mktemp("damaged") / f"a.{suffix}", PHOTO)
    content = bytearray(path.read_bytes())
    for place, value in flips:
        content[int(place * len(content))] = value
    path.write_bytes(content[: round(cut * len(content))])
    try:
        image = read_rgb(path)
    except DataError as error:
        problems = error.problems
    else:
        problems = ("",)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
    assert len(problems) == 1
