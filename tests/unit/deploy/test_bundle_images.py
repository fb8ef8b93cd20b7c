"""How exported bundles read images: as the service reads them, and what ends early is refused."""

import importlib
import io
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from PIL import Image

from fissura.core.errors import DataError
from fissura.data import file_kinds, whole
from fissura.data.photograph import decode

BUNDLE = Path(__file__).parents[3] / "platform" / "fissura" / "deploy" / "bundle"
SIZES = [(1, 1), (1, 9), (7, 3), (20, 33)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The reader as the bundle imports it: a module beside its siblings."""
    folder = tmp_path_factory.mktemp("bundle")
    for script in (BUNDLE / "images.py", file_kinds.__file__, whole.__file__):
        (folder / Path(str(script)).name).write_text(Path(str(script)).read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("images")


@pytest.fixture(autouse=True)
def without_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without pillow-heif, whatever is installed here."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


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


def holed() -> Image.Image:
    image = Image.fromarray(photograph(9, 9)).convert("RGBA")
    image.putpixel((4, 4), (1, 2, 3, 100))
    return image


def turned(tag: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif


class TestAnImage:
    @pytest.mark.parametrize(("height", "width"), SIZES)
    @pytest.mark.parametrize(
        ("mode", "kind"),
        [
            *((mode, "PNG") for mode in ("L", "RGB", "1", "LA", "RGBA", "P")),
            *((mode, "BMP") for mode in ("L", "RGB", "1", "P")),
            *((mode, "JPEG") for mode in ("L", "RGB", "CMYK")),
            *((mode, "TIFF") for mode in ("L", "RGB", "RGBA", "CMYK")),
            ("RGB", "WEBP"), ("RGBA", "WEBP"), ("P", "GIF"),
        ],
    )  # fmt: skip
    def test_is_read_as_the_service_reads_it(
        self, images: ModuleType, tmp_path: Path, mode: str, kind: str, height: int, width: int
    ) -> None:
        data = saved(Image.fromarray(photograph(height, width)).convert(mode), kind)
        (tmp_path / "a").write_bytes(data)
        found = images.read_rgb(tmp_path / "a")
        assert (found.dtype, found.shape) == (np.uint8, (height, width, 3))
        assert np.array_equal(found, decode(data).pixels)

    @pytest.mark.parametrize(
        "options", [{"progressive": True}, {"restart_marker_blocks": 3}, {"quality": 100}]
    )
    def test_of_jpeg_is_read_however_it_was_written(
        self, images: ModuleType, tmp_path: Path, options: dict[str, int]
    ) -> None:
        data = saved(Image.fromarray(photograph(50, 70)), "JPEG", **options)
        (tmp_path / "a.jpg").write_bytes(data)
        assert np.array_equal(images.read_rgb(tmp_path / "a.jpg"), decode(data).pixels)

    @pytest.mark.parametrize("tag", range(1, 9))
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
    def test_is_turned_as_its_exif_says(
        self, images: ModuleType, tmp_path: Path, kind: str, tag: int
    ) -> None:
        data = saved(Image.fromarray(photograph(20, 33)), kind, exif=turned(tag))
        (tmp_path / "a").write_bytes(data)
        found = images.read_rgb(tmp_path / "a")
        assert found.shape == ((33, 20, 3) if tag > 4 else (20, 33, 3))
        assert np.array_equal(found, decode(data).pixels)

    @pytest.mark.parametrize("bits", [10, 12, 14, 16])
    def test_of_sixteen_bits_of_grey_is_rounded_to_eight_from_the_bits_that_it_holds(
        self, images: ModuleType, tmp_path: Path, bits: int
    ) -> None:
        deep = np.random.default_rng(0).integers(0, 2**bits, (20, 30)).astype(np.uint16)
        data = cv2.imencode(".png", deep)[1].tobytes()
        (tmp_path / "a.png").write_bytes(data)
        assert np.array_equal(images.read_rgb(tmp_path / "a.png"), decode(data).pixels)

    def test_with_holes_is_laid_over_white(self, images: ModuleType, tmp_path: Path) -> None:
        data = saved(holed(), "PNG")
        (tmp_path / "a.png").write_bytes(data)
        assert np.array_equal(images.read_rgb(tmp_path / "a.png"), decode(data).pixels)

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_of_netpbm_is_read_to_the_bit(self, images: ModuleType, tmp_path: Path, mode: str) -> None:
        image = Image.fromarray(photograph(11, 14)).convert(mode)
        image.save(tmp_path / "a.ppm")
        assert np.array_equal(images.read_rgb(tmp_path / "a.ppm"), np.asarray(image.convert("RGB")))


def with_one_row(width: int, height: int) -> bytes:
    """A PNG whose stream ends whole, after the first of its rows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1 + 3 * width)))
        + chunk(b"IEND", b"")
    )


JPEG = saved(Image.fromarray(photograph(96, 128)), "JPEG")
PNG = saved(Image.fromarray(photograph(96, 128)), "PNG")


class TestWhatIsNoWholeImage:
    @pytest.mark.parametrize(
        "data",
        [
            with_one_row(64, 600), PNG[: len(PNG) // 2], PNG[:60] + b"\0\0\0" + PNG[63:],
            JPEG[: len(JPEG) * 3 // 10] + b"\xff\xd9", JPEG[: len(JPEG) // 2],
            saved(Image.fromarray(photograph(96, 128)), "JPEG", progressive=True)[:2000] + b"\xff\xd9",
            saved(Image.fromarray(photograph(96, 128)), "BMP")[:9000],
            saved(Image.fromarray(photograph(96, 128)), "TIFF")[:9000],
        ],
    )  # fmt: skip
    def test_is_refused_where_its_data_end_early_as_the_service_refuses_it(
        self, images: ModuleType, tmp_path: Path, data: bytes
    ) -> None:
        (tmp_path / "a").write_bytes(data)
        with pytest.raises(images.Unreadable):
            images.read_rgb(tmp_path / "a")
        with pytest.raises(DataError):
            decode(data)

    @pytest.mark.parametrize("kind", ["png", "tiff"])
    @pytest.mark.parametrize("bits", [10, 12, 14, 16])
    def test_of_sixteen_bits_of_colour_is_refused_by_name(
        self, images: ModuleType, tmp_path: Path, bits: int, kind: str
    ) -> None:
        deep = np.random.default_rng(0).integers(0, 2**bits, (20, 30, 3)).astype(np.uint16)
        (tmp_path / "a").write_bytes(cv2.imencode(f".{kind}", deep)[1].tobytes())
        with pytest.raises(images.Unreadable, match=f"{kind.upper()} of 16 bits a colour; save it with 8"):
            images.read_rgb(tmp_path / "a")

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "an empty file"),
            (b"no image at all", "no image that is read .*: it begins with b'no image'"),
            (b"\0\0\0\x18ftypheic" + bytes(100), "this one is a HEIC photograph; save it as JPEG"),
            (b"\0\0\0\x18ftypavif" + bytes(100), "this one is an AVIF image; save it as JPEG"),
            (saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "mode F"),
            (
                saved(
                    Image.new("L", (4, 4)), "GIF", save_all=True, append_images=[Image.new("L", (4, 4), 9)]
                ),
                "several images",
            ),
        ],
    )
    def test_says_what_it_is(self, images: ModuleType, tmp_path: Path, content: bytes, reason: str) -> None:
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(images.Unreadable, match=reason):
            images.read_rgb(tmp_path / "a.png")

    def test_of_too_many_pixels_is_refused_unread(
        self, images: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(images, "MAX_PIXELS", 96 * 128 - 1)
        (tmp_path / "a.png").write_bytes(PNG)
        with pytest.raises(images.Unreadable, match="128 x 96 pixels"):
            images.read_rgb(tmp_path / "a.png")

    @pytest.mark.parametrize(
        ("side", "reason"),
        [(9_700, "damaged|end early|ends"), (12_300, "12300 x 12300"), (60_000, "far more than 150")],
    )
    def test_of_any_size_is_refused_with_pillow_left_as_it_was(
        self, images: ModuleType, tmp_path: Path, side: int, reason: str
    ) -> None:
        (tmp_path / "a.png").write_bytes(with_one_row(side, side))
        with pytest.raises(images.Unreadable, match=reason):
            images.read_rgb(tmp_path / "a.png")
        assert Image.MAX_IMAGE_PIXELS, "fissura.data.images relies on it"


class TestAFolder:
    def test_gives_its_images_at_any_depth_and_names_what_is_left_out(
        self, images: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in (
            "b.JPG", "deep/er/a.png", "c.ppm", "notes.txt", "deep/IMG_0002.HEIC", "DJI_0003.DNG",
            ".hidden/c.png", "deep/.d.bmp", "__MACOSX/a.png", "__MACOSX/._a.png", "._x.jpg", "Thumbs.db",
        ):  # fmt: skip
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        found = [path.relative_to(tmp_path).as_posix() for path in images.image_files(tmp_path)]
        assert found == ["b.JPG", "c.ppm", "deep/er/a.png"]
        assert capsys.readouterr().err.startswith(
            "3 files left out by their suffix: deep/IMG_0002.HEIC, DJI_0003.DNG, notes.txt"
        )

    def test_of_images_alone_is_told_nothing_of(
        self, images: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "a.png").write_bytes(PNG)
        assert len(images.image_files(tmp_path)) == 1
        assert capsys.readouterr().err == ""


def test_a_mask_that_is_written_reads_as_it_was(images: ModuleType, tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 256, (31, 17), dtype=np.uint8)
    images.write_grey(tmp_path / "mask.png", mask)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), mask)
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]
