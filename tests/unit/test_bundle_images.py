"""How exported bundles read and write images without any library: PNG, BMP, PGM and PPM, to the bit."""

import importlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from PIL import Image

BUNDLE = Path(__file__).parents[2] / "platform" / "fissura" / "engine" / "bundle"
SIZES = [(1, 1), (1, 9), (7, 3), (20, 33)]
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


@pytest.fixture(scope="module")
def images() -> Iterator[ModuleType]:
    """The reader as the bundle imports it: a module beside its siblings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BUNDLE)
        yield importlib.import_module("images")


@pytest.fixture(scope="module")
def unreadable(images: ModuleType) -> ModuleType:
    return importlib.import_module("unreadable")


@pytest.fixture(scope="module")
def png(images: ModuleType) -> ModuleType:
    return importlib.import_module("png")


def photograph(height: int, width: int) -> np.ndarray:
    """Smooth with noise, so that an encoder has use for all of its filters."""
    random = np.random.default_rng(height * 100 + width)
    rows, columns = np.indices((height, width))
    image = 128 + 60 * np.sin(rows / 5)[..., None] + 50 * np.cos(columns / 3)[..., None] * [1, 0.5, -1]
    return np.clip(image + random.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(lines: bytes, *, width: int, height: int, depth: int, colour: int, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


class TestPNG:
    @pytest.mark.parametrize(("height", "width"), SIZES)
    @pytest.mark.parametrize("mode", ["L", "RGB", "1", "LA", "RGBA", "P"])
    def test_is_read_to_the_bit(self, png: ModuleType, mode: str, height: int, width: int) -> None:
        image = Image.fromarray(photograph(height, width)).convert(mode)
        expected = np.asarray(image.convert("RGB"))
        found, orientation = png.decode(saved(image, "PNG", optimize=True))
        assert np.array_equal(found, expected)
        assert (found.dtype, orientation) == (np.uint8, 1)

    @pytest.mark.parametrize("colours", [2, 4, 16, 200])
    def test_of_a_palette_is_read_at_each_depth(self, png: ModuleType, colours: int) -> None:
        image = Image.fromarray(photograph(19, 21)).quantize(colours)
        assert np.array_equal(png.decode(saved(image, "PNG"))[0], np.asarray(image.convert("RGB")))

    def test_of_sixteen_bits_keeps_the_higher_eight(self, png: ModuleType) -> None:
        deep = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
        _, colour = cv2.imencode(".png", deep)
        assert np.array_equal(png.decode(colour.tobytes())[0], (deep >> 8)[..., ::-1])
        _, grey = cv2.imencode(".png", deep[..., 0])
        assert np.array_equal(png.decode(grey.tobytes())[0][..., 1], deep[..., 0] >> 8)

    @pytest.mark.parametrize("kind", range(5))
    def test_is_read_with_each_filter(self, png: ModuleType, kind: int) -> None:
        lines = np.random.default_rng(kind).integers(0, 256, (40, 1 + 3 * 50), dtype=np.uint8)
        lines[:, 0] = kind
        data = png_of(lines.tobytes(), width=50, height=40, depth=8, colour=2)
        with Image.open(io.BytesIO(data)) as image:
            assert np.array_equal(png.decode(data)[0], np.asarray(image))

    def test_higher_than_a_band_is_read(self, png: ModuleType) -> None:
        lines = np.random.default_rng(0).integers(0, 256, (2500, 1 + 7), dtype=np.uint8)
        lines[:, 0] = np.random.default_rng(1).integers(0, 5, 2500)
        data = png_of(lines.tobytes(), width=7, height=2500, depth=8, colour=0)
        with Image.open(io.BytesIO(data)) as image:
            assert np.array_equal(png.decode(data)[0][..., 0], np.asarray(image))

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (16, 9)])
    def test_interlaced_is_read(self, png: ModuleType, height: int, width: int) -> None:
        image = photograph(height, width)
        lines = b"".join(
            b"\0" + row.tobytes()
            for top, left, down, across in ADAM7
            for row in image[top::down, left::across]
            if row.size
        )
        data = png_of(lines, width=width, height=height, depth=8, colour=2, interlaced=1)
        with Image.open(io.BytesIO(data)) as by_pillow:
            assert np.array_equal(np.asarray(by_pillow), image)
        assert np.array_equal(png.decode(data)[0], image)

    def test_that_is_written_reads_as_it_was(self, png: ModuleType, tmp_path: Path) -> None:
        mask = np.random.default_rng(0).integers(0, 256, (31, 17), dtype=np.uint8)
        png.write_grey(tmp_path / "mask.png", mask)
        with Image.open(tmp_path / "mask.png") as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), mask)
        assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]

    def test_with_holes_is_refused(self, png: ModuleType, unreadable: ModuleType) -> None:
        image = Image.fromarray(photograph(9, 9)).convert("RGBA")
        image.putpixel((4, 4), (1, 2, 3, 254))
        with pytest.raises(unreadable.Unsupported, match="transparent"):
            png.decode(saved(image, "PNG"))

    def test_that_unpacks_to_less_than_it_says_is_refused(
        self, png: ModuleType, unreadable: ModuleType
    ) -> None:
        with pytest.raises(unreadable.Unreadable, match="ends before its last row"):
            png.decode(png_of(bytes(50), width=9000, height=9000, depth=8, colour=2))

    def test_that_is_damaged_says_so(self, png: ModuleType, unreadable: ModuleType) -> None:
        data = saved(Image.fromarray(photograph(20, 20)), "PNG")
        with pytest.raises(unreadable.Unreadable, match="checksum"):
            png.decode(data[:60] + b"\0\0\0" + data[63:])
        with pytest.raises(unreadable.Unreadable, match="ends within a chunk"):
            png.decode(data[:-30])


class TestOtherFiles:
    @pytest.mark.parametrize(("height", "width"), SIZES)
    @pytest.mark.parametrize("mode", ["L", "RGB", "1", "RGBA", "P"])
    def test_of_bmp_are_read_to_the_bit(
        self, images: ModuleType, tmp_path: Path, mode: str, height: int, width: int
    ) -> None:
        image = Image.fromarray(photograph(height, width)).convert(mode)
        image.save(tmp_path / "a.bmp")
        assert np.array_equal(images.read_rgb(tmp_path / "a.bmp"), np.asarray(image.convert("RGB")))

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_of_netpbm_are_read_to_the_bit(self, images: ModuleType, tmp_path: Path, mode: str) -> None:
        image = Image.fromarray(photograph(11, 14)).convert(mode)
        image.save(tmp_path / "a.ppm")
        assert np.array_equal(images.read_rgb(tmp_path / "a.ppm"), np.asarray(image.convert("RGB")))

    def test_of_netpbm_with_remarks_and_few_levels_are_read(self, images: ModuleType, tmp_path: Path) -> None:
        (tmp_path / "a.pgm").write_bytes(b"P5 # grey\n3 # wide\n1\n3\n\x00\x01\x03")
        assert images.read_rgb(tmp_path / "a.pgm")[0, :, 0].tolist() == [0, 85, 255]

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "an empty file"),
            (b"P5 9 9 255\n12", "ends before its last row"),
            (b"BM" + bytes(60), "header of OS/2"),
            (b"\x89PNG\r\n\x1a\n", "ends within a chunk"),
        ],
    )
    def test_that_are_damaged_say_so(
        self, images: ModuleType, unreadable: ModuleType, tmp_path: Path, content: bytes, reason: str
    ) -> None:
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(unreadable.Unreadable, match=reason):
            images.read_rgb(tmp_path / "a.png")

    def test_of_other_kinds_are_read_by_pillow_where_it_is(self, images: ModuleType, tmp_path: Path) -> None:
        image = photograph(30, 20)
        Image.fromarray(image).save(tmp_path / "a.tif")
        Image.fromarray(image).save(tmp_path / "a.jpg", progressive=True)
        assert np.array_equal(images.read_rgb(tmp_path / "a.tif"), image)
        with Image.open(tmp_path / "a.jpg") as progressive:
            assert np.array_equal(images.read_rgb(tmp_path / "a.jpg"), np.asarray(progressive))

    def test_of_a_folder_are_found_by_suffix_at_any_depth(self, images: ModuleType, tmp_path: Path) -> None:
        for name in ("b.JPG", "deep/er/a.png", "notes.txt", ".hidden/c.png", "deep/.d.bmp"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        found = [path.relative_to(tmp_path).as_posix() for path in images.image_files(tmp_path)]
        assert found == ["b.JPG", "deep/er/a.png"]
