"""Features are kept whole or not at all, found again by content, and computed the same in any batch."""

import os
import re
import threading
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fissura.classification import feature_store, features
from fissura.classification.feature_store import FeatureStore
from fissura.classification.features import ImageToRead, backbone_digest, extract
from fissura.core.errors import DataError
from fissura.core.spec import Spec

CPU = torch.device("cpu")
DIMENSIONS = 6


def key(number: int) -> str:
    return f"{number:064x}"


def store(folder: Path, *, backbone: str = "a" * 16, dimensions: int = 4) -> FeatureStore:
    return FeatureStore(folder, backbone_digest=backbone, dimensions=dimensions)


def rows(*numbers: float, dimensions: int = 4) -> np.ndarray:
    """A row of features for each number, which it starts with."""
    return np.array([np.arange(dimensions) + number for number in numbers], np.float32)


class TestAStore:
    def test_gives_back_what_was_written_in_the_order_asked_for(self, tmp_path: Path) -> None:
        own = store(tmp_path / "deep" / "folder")
        assert own.missing([key(1), key(2), key(1)]) == [key(1), key(2)]
        own.write([key(1), key(2)], rows(1, 2))
        own.write([key(3)], rows(3))

        other = store(tmp_path / "deep" / "folder")
        read = other.read([key(3), key(1), key(3), key(2)])
        np.testing.assert_array_equal(read, rows(3, 1, 3, 2))
        assert read.dtype == np.float32
        assert other.missing([key(4), key(2)]) == [key(4)]
        assert other.read([]).shape == (0, 4)

    def test_names_the_images_that_it_lacks(self, tmp_path: Path) -> None:
        own = store(tmp_path)
        own.write([key(1)], rows(1))
        with pytest.raises(DataError, match=r"2 \(0{16}, 0{16}\) of 3 have none; extract them first"):
            own.read([key(1), key(2), key(3)])

    def test_keeps_the_features_that_were_written_first(self, tmp_path: Path) -> None:
        own = store(tmp_path)
        own.write([key(1), key(2)], rows(10, 20))
        own.write([key(2), key(3)], rows(99, 30))
        np.testing.assert_array_equal(own.read([key(1), key(2), key(3)]), rows(10, 20, 30))
        own.compact(at_least=2)
        own.write([key(3)], rows(99))
        np.testing.assert_array_equal(store(tmp_path).read([key(1), key(2), key(3)]), rows(10, 20, 30))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_refuses_features_that_are_not_finite_and_writes_nothing(
        self, tmp_path: Path, value: float
    ) -> None:
        own = store(tmp_path)
        features = rows(1, 2, 3)
        features[0, 2] = features[2, 0] = features[2, 1] = value
        with pytest.raises(DataError) as caught:
            own.write([key(1), key(2), key(3)], features)
        assert [problem.split(";")[0] for problem in caught.value.problems] == [
            f"image {key(1)}: features must be finite numbers, 1 of 4 are not",
            f"image {key(3)}: features must be finite numbers, 2 of 4 are not",
        ]
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("keys", "features"),
        [
            ([], np.empty((0, 4), np.float32)),
            ([key(1)], rows(1, 2)),
            ([key(1)], rows(1, dimensions=3)),
            (["../../x"], rows(1)),
            ([key(1).upper() + "F"], rows(1)),
        ],
        ids=["empty", "too many rows", "too narrow", "a path", "capitals"],
    )
    def test_refuses_what_is_no_table_of_features(
        self, tmp_path: Path, keys: list[str], features: np.ndarray
    ) -> None:
        with pytest.raises(ValueError, match=r"digest|have features"):
            store(tmp_path).write(keys, features)

    def test_says_where_it_cannot_write(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(DataError, match=r"features cannot be written here .*name another folder"):
            store(tmp_path / "file").write([key(1)], rows(1))

    @pytest.mark.parametrize(
        "other", [{"backbone": "b" * 16}, {"dimensions": 3}], ids=["another backbone", "another width"]
    )
    def test_never_reads_the_features_of_another_backbone(self, tmp_path: Path, other: dict) -> None:
        dimensions = other.get("dimensions", 4)
        part = store(tmp_path, **other).write([key(1)], rows(1, dimensions=dimensions))
        own = store(tmp_path)
        for use in (own.missing, own.read, lambda _: own.compact()):
            with pytest.raises(DataError, match="a folder holds the features of one backbone") as caught:
                use([key(1)])
            assert str(caught.value).startswith(f"{part}: ")
            assert str(caught.value).endswith("name another folder, or move the file away")

    def test_passes_over_and_names_what_is_no_part(self, tmp_path: Path) -> None:
        own = store(tmp_path)
        good = own.write([key(1)], rows(1))
        torn = own.write([key(2)], rows(2))
        whole = torn.read_bytes()
        torn.write_bytes(whole[:-30])
        flipped = own.write([key(3)], rows(1234.5))
        content = flipped.read_bytes()
        assert content.count(rows(1234.5).tobytes()) == 1
        flipped.write_bytes(content.replace(rows(1234.5).tobytes(), rows(1234.75).tobytes()))
        (tmp_path / "text.parquet").write_text("no Parquet")
        (tmp_path / "empty.parquet").write_bytes(b"")
        pq.write_table(pa.table({"x": [1]}), tmp_path / "foreign.parquet")
        schema = pq.read_schema(good)
        strings = pa.table({"key": ["a"], "features": ["b"]}).replace_schema_metadata(schema.metadata)
        pq.write_table(strings, tmp_path / "strings.parquet")
        wild = pa.table(
            [pa.array([key(5)]), pa.FixedSizeListArray.from_arrays(pa.array([np.nan] * 4, pa.float32()),
             type=schema.field("features").type)],
            schema=schema,
        )  # fmt: skip
        pq.write_table(wild, tmp_path / "wild.parquet", compression="none")
        (tmp_path / "notes.txt").write_text("mine")

        assert own.missing([key(number) for number in range(1, 6)]) == [key(n) for n in range(2, 6)]
        reasons = {part.path.name: part.reason for part in own.skipped}
        assert reasons.keys() == {
            *(torn.name, flipped.name),
            *(f"{name}.parquet" for name in ("text", "empty", "foreign", "strings", "wild")),
        }
        for name in (torn.name, flipped.name, "text.parquet", "empty.parquet"):
            assert reasons[name].startswith("it is not a whole Parquet file"), name
        assert (
            reasons["foreign.parquet"]
            == reasons["strings.parquet"]
            == "its columns are not those of features"
        )
        assert reasons["wild.parquet"] == "it holds features that are not finite"
        with pytest.raises(DataError, match=f"passed over: .*{torn.name}"):
            own.read([key(2)])
        np.testing.assert_array_equal(own.read([key(1)]), rows(1))
        own.write([key(2)], rows(2))
        np.testing.assert_array_equal(own.read([key(2), key(1)]), rows(2, 1))

    def test_passes_over_a_small_file_that_would_fill_the_memory(self, tmp_path: Path) -> None:
        schema = pq.read_schema(store(tmp_path).write([key(1)], rows(1)))
        many = 200_000
        column = pa.FixedSizeListArray.from_arrays(
            pa.array(np.zeros(4 * many, np.float32)), type=schema.field("features").type
        )
        table = pa.table([pa.array(["a" * 16] * many), column], schema=schema)
        pq.write_table(table, tmp_path / "bomb.parquet", compression="zstd")
        own = store(tmp_path)
        assert own.missing(["a" * 16]) == ["a" * 16]
        assert "200,000 rows, more than" in own.skipped[0].reason

    def test_survives_readers_writers_and_mergers_at_the_same_time(self, tmp_path: Path) -> None:
        """The stores are of their own, as in other processes."""
        store(tmp_path).write([key(0)], rows(0))
        failures: list[BaseException] = []
        stop = threading.Event()

        def keep(use) -> None:
            own = store(tmp_path)
            try:
                while not stop.is_set():
                    use(own)
            except BaseException as error:
                failures.append(error)

        def check(own: FeatureStore) -> None:
            np.testing.assert_array_equal(own.read([key(0)]), rows(0))

        uses = [check, check, lambda own: own.compact(at_least=2), lambda own: own.compact(at_least=2)]
        threads = [threading.Thread(target=keep, args=(use,)) for use in uses]
        for thread in threads:
            thread.start()
        for number in range(1, 60):
            store(tmp_path).write([key(number), key(number + 1000)], rows(number, number + 1000))
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        numbers = [*range(60), *range(1001, 1060)]
        np.testing.assert_array_equal(store(tmp_path).read([key(n) for n in numbers]), rows(*numbers))


class TestCompaction:
    def test_leaves_one_part_that_holds_every_key_once(self, tmp_path: Path) -> None:
        own = store(tmp_path)
        for number in range(20):
            own.write([key(number), key(number + 1)], rows(number, number + 1))
        foreign = tmp_path / "text.parquet"
        foreign.write_text("no Parquet")
        assert own.compact(at_least=21) is None
        merged = own.compact()
        assert merged is not None
        assert set(tmp_path.iterdir()) == {merged, foreign}
        assert pq.read_metadata(merged).num_rows == 21
        numbers = [7, 20, 0, 13]
        np.testing.assert_array_equal(own.read([key(number) for number in numbers]), rows(*numbers))
        assert own.compact(at_least=1) is None

    def test_keeps_row_groups_of_bounded_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fissura.classification.feature_part.GROUP_BYTES", 4 * 4 * 5)
        own = store(tmp_path)
        for number in range(0, 12, 3):
            own.write([key(number + n) for n in range(3)], rows(number, number + 1, number + 2))
        merged = own.compact(at_least=2)
        metadata = pq.read_metadata(merged)
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        assert sum(sizes) == 12
        assert max(sizes) <= 5
        numbers = [11, 4, 0, 5, 4]
        np.testing.assert_array_equal(own.read([key(number) for number in numbers]), rows(*numbers))

    def test_removes_what_killed_writers_left_a_day_ago(self, tmp_path: Path) -> None:
        old, young = (tmp_path / f".{name}.parquet.0123abcd.tmp" for name in ("old", "young"))
        for path in (old, young):
            path.write_bytes(b"half")
        yesterday = time.time() - feature_store.ABANDONED_SECONDS - 1
        os.utime(old, (yesterday, yesterday))
        store(tmp_path).compact()
        assert list(tmp_path.iterdir()) == [young]


@given(
    steps=st.lists(
        st.one_of(
            st.lists(st.integers(0, 12), min_size=1, max_size=6),
            st.sampled_from(["compact", "tear", "reopen"]),
        ),
        max_size=12,
    ),
    asked=st.lists(st.integers(0, 14), max_size=8),
)
def test_a_store_is_a_dictionary_that_keeps_the_first_value(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[int] | str], asked: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("store")
    own = store(folder)
    expected: dict[str, np.ndarray] = {}
    written = 0
    for step in steps:
        if step == "compact":
            own.compact(at_least=2)
        elif step == "reopen":
            own = store(folder)
        elif step == "tear":
            path = folder / f"{time.time_ns():016x}-{'0' * 16}.parquet"
            whole = store(folder / "aside").write([key(14)], rows(14)).read_bytes()
            path.write_bytes(whole[: len(whole) - 1 - written % 40])
        else:
            keys = [key(number) for number in step]
            values = rows(*(100 * written + number for number in step))
            own.write(keys, values)
            for name, value in zip(keys, values, strict=True):
                expected.setdefault(name, value)
            written += 1
    keys = [key(number) for number in asked]
    assert own.missing(keys) == [name for name in dict.fromkeys(keys) if name not in expected]
    held = [name for name in keys if name in expected]
    np.testing.assert_array_equal(
        own.read(held), np.array([expected[name] for name in held], np.float32).reshape(-1, 4)
    )


class TinyBackbone(Spec):
    """Stands for a backbone's spec."""

    kind: Literal["tiny"] = "tiny"
    weights: str = "none"
    input_size: int = 8

    def build(self, seed: int = 0) -> "TinyNetwork":
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return TinyNetwork(self)


class TinyNetwork(nn.Module):
    """The signature of a backbone's network: any size in, `DIMENSIONS` numbers out; it notes its batches."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec, self.dimensions = spec, DIMENSIONS
        self.convolution = nn.Conv2d(3, DIMENSIONS, 3, padding=1)
        self.normalisation = nn.BatchNorm2d(DIMENSIONS)
        self.batches: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(tuple(images.shape))
        scaled = images.permute(0, 3, 1, 2).float() / 255
        resized = nn.functional.interpolate(scaled, (8, 8), mode="bilinear", antialias=True)
        return self.normalisation(self.convolution(resized)).relu().mean((2, 3))


class NarrowMemory(TinyNetwork):
    """Has memory for two small images at a time."""

    def forward(self, images: Tensor) -> Tensor:
        if images.numel() > 2 * 10 * 12 * 3:
            raise MemoryError("no room")
        return super().forward(images)


def image(number: int, *, height: int = 10, width: int = 12) -> ImageToRead:
    def read() -> np.ndarray:
        random = np.random.default_rng(number)
        return random.integers(0, 256, (height, width, 3)).astype(np.uint8)

    return ImageToRead(key(number), f"image-{number}", read)


def failing(number: int, error: Exception) -> ImageToRead:
    def read() -> np.ndarray:
        raise error

    return ImageToRead(key(number), f"image-{number}", read)


class TestExtraction:
    def test_is_the_network_applied_to_each_image_alone(self) -> None:
        network = TinyBackbone().build()
        sizes = [(10, 12), (20, 8), (10, 12), (5, 5), (20, 8), (10, 12), (10, 12)]
        reads = [image(number, height=h, width=w) for number, (h, w) in enumerate(sizes)]
        told = []
        found = extract(network, reads, batch_size=3, device=CPU, on_image=lambda: told.append(1))
        assert found.keys == [each.key for each in reads]
        assert found.skipped == []
        assert len(told) == len(reads)
        assert max(batch[0] for batch in network.batches) == 3
        network.eval()
        with torch.inference_mode():
            for row, each in zip(found.features, reads, strict=True):
                alone = network(torch.from_numpy(each.read())[None]).numpy()[0]
                np.testing.assert_allclose(row, alone, atol=1e-5, rtol=0)

    @given(
        sizes=st.lists(st.sampled_from([(6, 9), (9, 6), (4, 4), (16, 16)]), max_size=12),
        batch_size=st.integers(1, 6),
        order=st.randoms(use_true_random=False),
    )
    def test_does_not_depend_on_the_batches(self, sizes, batch_size, order) -> None:
        network = TinyBackbone().build()
        reads = [image(number, height=h, width=w) for number, (h, w) in enumerate(sizes)]
        one = extract(network, reads, batch_size=1, device=CPU)
        shuffled = order.sample(reads, len(reads))
        many = extract(network, shuffled, batch_size=batch_size, device=CPU)
        assert many.keys == [each.key for each in shuffled]
        places = [one.keys.index(name) for name in many.keys]
        np.testing.assert_allclose(many.features, one.features[places], atol=1e-5, rtol=0)

    def test_names_and_skips_what_cannot_be_read(self) -> None:
        reads = [
            image(0),
            failing(1, DataError("b.png: torn", "b.png: odd")),
            image(2),
            failing(3, FileNotFoundError(2, "No such file or directory", "c.png")),
            failing(4, MemoryError()),
        ]
        told = []
        found = extract(
            TinyBackbone().build(),
            reads,
            batch_size=2,
            device=CPU,
            on_image=lambda: told.append(1),
        )
        assert found.keys == [key(0), key(2)]
        assert found.features.shape == (2, DIMENSIONS)
        assert found.skipped == [
            ("image-1", "b.png: torn; b.png: odd"),
            ("image-3", "c.png: cannot be read: No such file or directory"),
            ("image-4", "it does not fit the memory when it is decoded; make it smaller"),
        ]
        assert len(told) == 5

    def test_of_no_image_is_empty(self) -> None:
        found = extract(TinyBackbone().build(), [], batch_size=2, device=CPU)
        assert (found.keys, found.features.shape, found.skipped) == ([], (0, DIMENSIONS), [])

    def test_an_error_of_the_program_is_not_a_bad_image(self) -> None:
        reads = [image(0), failing(1, TypeError("a mistake")), image(2)]
        with pytest.raises(TypeError, match="a mistake"):
            extract(TinyBackbone().build(), reads, batch_size=8, device=CPU)

    def test_skips_images_whose_features_are_not_finite(self) -> None:
        network = TinyBackbone().build()
        reads = [image(number) for number in range(3)]
        with torch.no_grad():
            network.convolution.bias[2] = torch.nan
        found = extract(network, reads, batch_size=2, device=CPU)
        assert found.keys == []
        assert [name for name, _ in found.skipped] == ["image-0", "image-1", "image-2"]
        assert all("not finite numbers; look at the weights" in reason for _, reason in found.skipped)

    def test_halves_a_batch_that_does_not_fit_the_memory(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = NarrowMemory(TinyBackbone())
        reads = [*(image(number) for number in range(7)), image(7, height=40, width=30)]
        found = extract(network, reads, batch_size=8, device=CPU)
        expected = extract(TinyBackbone().build(), reads[:7], batch_size=8, device=CPU)
        assert found.keys == expected.keys
        np.testing.assert_allclose(found.features, expected.features, atol=1e-5, rtol=0)
        assert found.skipped == [("image-7", "its 30x40 pixels do not fit the memory; make it smaller")]

    def test_holds_a_bounded_number_of_pixels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All images have sizes of their own, so that none would fill a batch, and large ones go alone."""
        monkeypatch.setattr(features, "BATCH_PIXELS", 300)
        monkeypatch.setattr(features, "HELD_PIXELS", 2_000)
        network = TinyBackbone().build()
        decoded: list[int] = []
        ahead: list[int] = []

        def counted(number: int, height: int, width: int) -> ImageToRead:
            plain = image(number, height=height, width=width)

            def read() -> np.ndarray:
                decoded.append(number)
                ahead.append(len(decoded) - sum(batch[0] for batch in network.batches))
                return plain.read()

            return ImageToRead(plain.key, plain.name, read)

        reads = [counted(number, 10, 10 + number) for number in range(40)]
        reads += [counted(number, 10, 15) for number in range(40, 50)]
        found = extract(network, reads, batch_size=64, device=CPU)
        assert found.keys == [each.key for each in reads]
        assert all(n * h * w <= 300 or n == 1 for n, h, w, _ in network.batches)
        assert max(n for n, *_ in network.batches) == 2
        assert max(ahead) <= 22, "1,000 pixels wait for a batch, and 1,000 are decoded ahead"


class TestADigest:
    def test_names_the_spec_and_the_weights_and_not_where_they_came_from(self) -> None:
        own = backbone_digest(TinyBackbone().build())
        assert re.fullmatch("[0-9a-f]{16}", own)
        assert own == backbone_digest(TinyBackbone(weights="a.safetensors").build())
        assert own != backbone_digest(TinyBackbone(input_size=16).build())
        assert own != backbone_digest(TinyBackbone().build(seed=1)), "a seed draws weights"

    @pytest.mark.parametrize(
        "tensor", ["convolution.weight", "normalisation.running_mean", "normalisation.num_batches_tracked"]
    )
    def test_changes_with_every_tensor(self, tensor: str) -> None:
        network = TinyBackbone().build()
        before = backbone_digest(network)
        network.state_dict()[tensor].add_(1)
        assert backbone_digest(network) != before

    def test_takes_tensors_in_any_layout_and_of_types_that_numpy_does_not_know(self) -> None:
        own = backbone_digest(TinyBackbone().build())
        assert own == backbone_digest(TinyBackbone().build().to(memory_format=torch.channels_last))
        assert own != backbone_digest(TinyBackbone().build().to(torch.bfloat16))
