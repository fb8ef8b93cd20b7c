"""The JPEG decoder of exported bundles: Pillow's pixels, and a clear word about what it cannot read."""

import importlib
import io
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageOps

BUNDLE = Path(__file__).parents[2] / "platform" / "fissura" / "engine" / "bundle"


@pytest.fixture(scope="module")
def jpeg() -> Iterator[ModuleType]:
    """The decoder as the bundle imports it: a module beside its siblings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BUNDLE)
        yield importlib.import_module("jpeg")


@pytest.fixture(scope="module")
def unreadable(jpeg: ModuleType) -> ModuleType:
    return importlib.import_module("unreadable")


def photograph(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Smooth areas, an edge, and noise: what photographs are made of."""
    random = np.random.default_rng([height, width, seed])
    rows, columns = np.indices((height, width))
    waves = [np.sin(rows / random.uniform(3, 20) + columns / random.uniform(3, 20)) for _ in range(3)]
    image = 128 + 90 * np.stack(waves, axis=2) + random.normal(0, 12, (height, width, 3))
    image[rows > columns] -= 60
    return np.clip(image, 0, 255).astype(np.uint8)


def encoded(image: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def with_size(data: bytes, *, height: int, width: int) -> bytes:
    """The same coded data under a frame of another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]


class TestPixels:
    @pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
    @pytest.mark.parametrize("quality", [20, 75, 95, 100])
    @pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (17, 5), (33, 64), (61, 47)])
    def test_are_pillow_s_to_three_levels(
        self, jpeg: ModuleType, subsampling: str, quality: int, height: int, width: int
    ) -> None:
        data = encoded(photograph(height, width), quality=quality, subsampling=subsampling)
        found, _ = jpeg.decode(data)
        difference = abs(found.astype(int) - by_pillow(data))
        assert found.dtype == np.uint8
        assert difference.max() <= 3
        assert difference.sum() <= 6 + found.size / 10

    @pytest.mark.parametrize("quality", [10, 75, 100])
    def test_of_a_grey_image_are_pillow_s_to_one_level(self, jpeg: ModuleType, quality: int) -> None:
        data = encoded(photograph(53, 70)[..., 0], quality=quality)
        found, _ = jpeg.decode(data)
        assert abs(found.astype(int) - by_pillow(data)).max() <= 1
        assert np.array_equal(found[..., 0], found[..., 2])

    @pytest.mark.parametrize("interval", [1, 2, 7])
    def test_do_not_depend_on_restart_markers(self, jpeg: ModuleType, interval: int) -> None:
        image = photograph(75, 90)
        plain, _ = jpeg.decode(encoded(image, quality=90))
        restarted = encoded(image, quality=90, restart_marker_blocks=interval)
        assert b"\xff\xd0" in restarted
        assert np.array_equal(jpeg.decode(restarted)[0], plain)

    def test_do_not_depend_on_the_huffman_tables(self, jpeg: ModuleType) -> None:
        image = photograph(75, 90)
        plain, tuned = encoded(image, quality=98), encoded(image, quality=98, optimize=True)
        assert len(tuned) < len(plain)
        assert np.array_equal(jpeg.decode(tuned)[0], jpeg.decode(plain)[0])

    def test_of_random_noise_at_full_quality_need_the_longest_codes(self, jpeg: ModuleType) -> None:
        noise = np.random.default_rng(0).choice([0, 255], (64, 64, 3)).astype(np.uint8)
        data = encoded(noise, quality=100, subsampling="4:4:4")
        assert abs(jpeg.decode(data)[0].astype(int) - by_pillow(data)).max() <= 3

    def test_of_a_file_without_ycbcr_are_read_as_they_are(self, jpeg: ModuleType) -> None:
        data = encoded(photograph(20, 30), quality=95, keep_rgb=True)
        assert abs(jpeg.decode(data)[0].astype(int) - by_pillow(data)).max() <= 1

    def test_of_one_scan_a_channel_are_read(self, jpeg: ModuleType) -> None:
        channels = [encoded(photograph(37, 50, seed=seed)[..., 0], quality=80) for seed in range(3)]
        tables = b"".join(
            segment(0xDB, body) if marker == 0xDB else segment(0xC4, body)
            for marker, body, _ in jpeg.segments(channels[0])
            if marker in (0xDB, 0xC4)
        )
        parts = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
        frame = segment(0xC0, b"\x08" + (37).to_bytes(2, "big") + (50).to_bytes(2, "big") + b"\x03" + parts)
        scans = b""
        for number, data in enumerate(channels, start=1):
            coded = next(coded for marker, _, coded in jpeg.segments(data) if marker == 0xDA)
            scans += segment(0xDA, bytes([1, number, 0, 0, 63, 0])) + coded
        data = b"\xff\xd8" + tables + frame + scans + b"\xff\xd9"
        assert abs(jpeg.decode(data)[0].astype(int) - by_pillow(data)).max() <= 3

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("order", ["little", "big"])
    def test_are_upright_as_exif_says(self, jpeg: ModuleType, orientation: int, order: str) -> None:
        upright = importlib.import_module("exif").upright
        exif = Image.Exif()
        exif.endian = "<" if order == "little" else ">"
        exif[0x010F], exif[0x0112] = "maker", orientation
        data = encoded(photograph(16, 24), quality=95, exif=exif)
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        pixels, found = jpeg.decode(data)
        assert found == orientation
        assert abs(upright(pixels, found).astype(int) - expected).max() <= 3

    def test_of_a_dataset_s_image_take_well_under_a_second(self, jpeg: ModuleType) -> None:
        data = encoded(photograph(227, 227), quality=90)
        begin = time.process_time()
        jpeg.decode(data)
        assert time.process_time() - begin < 0.5


class TestAFileThatCannotBeRead:
    def test_and_is_progressive_is_named(self, jpeg: ModuleType, unreadable: ModuleType) -> None:
        with pytest.raises(unreadable.Unsupported, match="progressive JPEG"):
            jpeg.decode(encoded(photograph(20, 20), progressive=True))

    def test_of_four_inks_is_named(self, jpeg: ModuleType, unreadable: ModuleType) -> None:
        buffer = io.BytesIO()
        Image.new("CMYK", (16, 16)).save(buffer, "JPEG")
        with pytest.raises(unreadable.Unsupported, match="4 channels"):
            jpeg.decode(buffer.getvalue())

    @pytest.mark.parametrize(("marker", "reason"), [(0xC9, "arithmetic"), (0xC3, "lossless")])
    def test_of_another_coding_is_named(
        self, jpeg: ModuleType, unreadable: ModuleType, marker: int, reason: str
    ) -> None:
        data = encoded(photograph(20, 20)).replace(b"\xff\xc0", bytes([0xFF, marker]), 1)
        with pytest.raises(unreadable.Unsupported, match=reason):
            jpeg.decode(data)

    def test_that_ends_early_says_so_wherever_it_ends(self, jpeg: ModuleType, unreadable: ModuleType) -> None:
        data = encoded(photograph(40, 40), quality=90)
        for length in range(0, len(data) - 2, 17):
            with pytest.raises(unreadable.Unreadable, match="JPEG"):
                jpeg.decode(data[:length])

    def test_with_a_restart_marker_lost_says_so(self, jpeg: ModuleType, unreadable: ModuleType) -> None:
        data = encoded(photograph(64, 64), restart_marker_blocks=2)
        with pytest.raises(unreadable.Unreadable, match="restart markers"):
            jpeg.decode(data.replace(b"\xff\xd1", b"", 1))

    def test_that_claims_a_huge_picture_costs_neither_time_nor_memory(
        self, jpeg: ModuleType, unreadable: ModuleType
    ) -> None:
        data = encoded(photograph(16, 16))
        begin = time.process_time()
        with pytest.raises(unreadable.Unreadable, match="ends before its last row"):
            jpeg.decode(with_size(data, height=9000, width=9000))
        with pytest.raises(unreadable.Unsupported, match="pixels"):
            jpeg.decode(with_size(data, height=65535, width=65535))
        assert time.process_time() - begin < 0.5

    def test_of_no_pixels_says_so(self, jpeg: ModuleType, unreadable: ModuleType) -> None:
        with pytest.raises(unreadable.Unreadable, match="its size is 16 x 0"):
            jpeg.decode(with_size(encoded(photograph(16, 16)), height=0, width=16))

    @pytest.mark.parametrize("seed", range(3))
    def test_is_damaged_in_whatever_way_and_never_hangs(
        self, jpeg: ModuleType, unreadable: ModuleType, seed: int
    ) -> None:
        random = np.random.default_rng(seed)
        begin, refused = time.process_time(), 0
        for _ in range(120):
            shape = random.integers(1, 40, 2)
            data = bytearray(
                encoded(
                    photograph(*shape, seed=seed),
                    quality=int(random.integers(5, 100)),
                    restart_marker_blocks=int(random.choice([0, 2])),
                )
            )
            for _ in range(random.integers(1, 5)):
                data[random.integers(2, len(data))] = random.integers(256)
            if random.random() < 0.3:
                first, last = sorted(random.integers(2, len(data), 2))
                del data[first:last]
            try:
                pixels, orientation = jpeg.decode(bytes(data))
            except unreadable.Unreadable as error:
                refused += len(str(error).splitlines())
            else:
                assert pixels.dtype == np.uint8
                assert pixels.shape[2] == 3
                assert 1 <= orientation <= 8
        assert 20 < refused <= 120
        assert time.process_time() - begin < 20
