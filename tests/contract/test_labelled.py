"""Labelled data: a folder a class, squares cut from masks, and severity by the width of the crack."""

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fissura.core.errors import DataError, SpecError
from fissura.core.spec import Spec
from fissura.data.datasets import LABELS_ONLY, kinds, parse_dataset
from fissura.data.datasets.folder import Folder
from fissura.data.datasets.synthetic import Synthetic
from fissura.data.images import read_rgb
from fissura.data.labelled import (
    FORMS,
    AnyLabelled,
    ClassFolder,
    LabelledDataset,
    LabelledImage,
    Patches,
    Severity,
    common_classes,
    image_keys,
    labelled_digest,
    labelled_kinds,
    parse_labelled,
)
from fissura.data.labelled.grid import NEITHER, Grid
from fissura.data.labelled.severity import crack_width
from fissura.data.synthetic import Stroke, SyntheticSpec, draw, write
from fissura.data.synthetic.cracks import depth

SPEC = SyntheticSpec(train=10, val=2, test=4, clean=0.25, cracks=(1, 2), crack_width=(2, 7))


def surface(seed: int, *, size: int = 40) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(60, 200, (size // 4, size // 4), dtype=np.uint8)
    return np.dstack([np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR))] * 3)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def walls(tmp_path: Path) -> Path:
    """Ten images without and fifteen with a crack; of crack/003 there is a copy, and one turned."""
    root = tmp_path / "walls"
    for label, first, count in (("crack", 0, 15), ("normal", 100, 10)):
        for number in range(count):
            save(root / label / f"{number:03d}.png", surface(first + number))
    save(root / "crack/020.png", surface(3))
    save(root / "crack/021.png", np.clip(np.rot90(surface(3)).astype(int) + 6, 0, 255).astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "set"
    write(SPEC, root)
    return root


@pytest.fixture(params=list(labelled_kinds()))
def dataset(request: pytest.FixtureRequest, walls: Path, drawn: Path) -> LabelledDataset:
    text = {
        "class_folder": f"class_folder:{walls}",
        "patches": f"patches:synthetic:{drawn}",
        "severity": f"severity:0.1:0.35,0.55:synthetic:{drawn}",
    }[request.param]
    return parse_labelled([text])[0]


class TestEveryKind:
    def test_lists_images_of_every_class_sorted_by_unique_names(self, dataset: LabelledDataset) -> None:
        images = dataset.images()
        names = [image.name for image in images]
        assert names == sorted(set(names))
        assert {image.label for image in images} == set(range(len(dataset.classes())))
        assert all(Path(name).name == name for name in names)

    def test_reads_each_image(self, dataset: LabelledDataset) -> None:
        for image in dataset.images():
            pixels = dataset.read(image)
            assert pixels.dtype == np.uint8
            assert pixels.flags.c_contiguous
            whole = read_rgb(image.path)
            if image.box is not None:
                top, left, height, width = image.box
                whole = whole[top : top + height, left : left + width]
            np.testing.assert_array_equal(pixels, whole)

    def test_no_group_is_on_both_sides_and_both_sides_have_every_class(
        self, dataset: LabelledDataset
    ) -> None:
        sides: defaultdict[str, set[str]] = defaultdict(set)
        labels: defaultdict[str, set[int]] = defaultdict(set)
        for image in dataset.images():
            sides[image.group].add(image.split)
            labels[image.split].add(image.label)
        assert max(map(len, sides.values())) == 1
        assert set(labels) == {"train", "test"}
        assert len(labels["train"]) == len(dataset.classes())

    def test_is_the_same_every_time_and_from_memory(self, dataset: LabelledDataset, tmp_path: Path) -> None:
        cold, warm = (dataset.images(directory=tmp_path / "cache") for _ in range(2))
        assert dataset.images() == cold == warm

    @pytest.mark.parametrize("torn", ["", "[[", "null", '[["a", 3]]', '{"a": 1}', "[[[0, 0, 99]]]", "[[7]]"])
    def test_a_torn_memory_is_no_memory(self, dataset: LabelledDataset, tmp_path: Path, torn: str) -> None:
        expected = dataset.images(directory=tmp_path)
        memos = [path for path in tmp_path.glob("*.json") if path.name != "hashes.json"]
        assert len(memos) == 1
        memos[0].write_text(torn)
        assert dataset.images(directory=tmp_path) == expected

    def test_an_unwritable_memory_is_no_obstacle(self, dataset: LabelledDataset, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert dataset.images(directory=tmp_path / "file") == dataset.images()

    def test_is_named_by_its_text_and_comes_back_from_json(self, dataset: LabelledDataset) -> None:
        assert parse_labelled([dataset.label_text]) == (dataset,)
        assert type(dataset).load(dataset.plain(), source="test") == dataset

    def test_is_a_member_of_the_union(self, dataset: LabelledDataset) -> None:
        class Holder(Spec):
            data: AnyLabelled

        assert Holder.load({"data": dataset.plain()}, source="test").data == dataset

    def test_another_seed_draws_another_set(self, dataset: LabelledDataset) -> None:
        assert dataset.model_copy(update={"seed": 1}).images() != dataset.images()

    def test_a_shrunken_file_is_named(self, dataset: LabelledDataset, tmp_path: Path) -> None:
        small = save(tmp_path / "small.png", surface(0, size=16))
        image = replace(dataset.images()[0], path=small, box=(8, 8, 64, 64))
        with pytest.raises(DataError, match=r"small\.png: the image holds the square of 64x64"):
            dataset.read(image)

    def test_has_no_masks_to_segment_with(self, dataset: LabelledDataset) -> None:
        with pytest.raises(DataError, match="needs a mask"):
            parse_dataset(dataset.label_text)

    def test_a_missing_root_is_an_error(self, dataset: LabelledDataset, tmp_path: Path) -> None:
        gone = parse_labelled([f"{dataset.label_text}-gone"])[0]
        with pytest.raises(DataError, match=r"-gone: the data set's folder is missing"):
            gone.images()


def test_the_registry_of_masked_data_knows_which_kinds_have_labels_only() -> None:
    assert tuple(labelled_kinds()) == LABELS_ONLY == tuple(FORMS)
    assert not set(labelled_kinds()) & set(kinds())


class TestClassFolder:
    @pytest.mark.parametrize(
        ("folders", "expected"),
        [
            (("anomaly", "normal"), ("normal", "anomaly")),
            (("Cracked", "Non-Cracked"), ("Non-Cracked", "Cracked")),
            (("Positive", "Negative"), ("Negative", "Positive")),
            (("crack", "NO_CRACK"), ("NO_CRACK", "crack")),
            (("crack", "no crack"), ("no crack", "crack")),
            (("CD", "UD"), ("UD", "CD")),
            (("obvious", "minor"), ("minor", "obvious")),
            (("Wide", "narrow", "sound"), ("sound", "narrow", "Wide")),
        ],
    )
    def test_the_lowest_class_is_the_one_without_a_crack(
        self, tmp_path: Path, folders: tuple[str, ...], expected: tuple[str, ...]
    ) -> None:
        for number, folder in enumerate(folders):
            save(tmp_path / folder / "0.png", surface(number))
        source = ClassFolder(root=tmp_path)
        assert source.classes() == expected
        assert {image.path.parent.name: image.label for image in source.files().images} == {
            folder: label for label, folder in enumerate(expected)
        }

    def test_a_given_order_decides(self, walls: Path) -> None:
        source = ClassFolder(root=walls, order=("crack", "normal"))
        assert source.classes() == ("crack", "normal")
        assert {image.label for image in source.images() if image.name.startswith("crack")} == {0}

    @pytest.mark.parametrize("order", [("crack",), ("crack", "nromal"), ("crack", "crack", "normal")])
    def test_an_order_that_is_not_the_folders_is_an_error(self, walls: Path, order: tuple[str, ...]) -> None:
        with pytest.raises(DataError, match=r"`order` names each folder once: .* there are crack, normal"):
            ClassFolder(root=walls, order=order).classes()

    def test_exact_and_turned_copies_share_a_group(self, walls: Path) -> None:
        group_of = {image.name: image.group for image in ClassFolder(root=walls).images()}
        assert {name for name, group in group_of.items() if group == "crack-003"} == {
            "crack-003",
            "crack-020",
            "crack-021",
        }
        assert len(set(group_of.values())) == len(group_of) - 2

    def test_copies_share_a_group_across_classes_too(self, walls: Path) -> None:
        save(walls / "normal/050.png", surface(3))
        images = ClassFolder(root=walls).images()
        assert len({image.split for image in images if image.group == "crack-003"}) == 1

    def test_the_test_split_holds_its_share_of_every_class(self, walls: Path) -> None:
        for number in range(22, 50):
            save(walls / f"crack/{number:03d}.png", surface(number))
        for seed in range(5):
            images = ClassFolder(root=walls, seed=seed, test_share=0.3).images()
            for label, count in ((0, 10), (1, 45)):
                held = sum(image.label == label and image.split == "test" for image in images)
                assert abs(held - 0.3 * count) <= 1

    def test_one_corrupt_file_stops_neither_the_list_nor_the_others(self, walls: Path) -> None:
        (walls / "crack/004.png").write_bytes(b"no image")
        (walls / "crack/005.png").write_bytes(b"")
        source = ClassFolder(root=walls)
        images = source.images()
        assert len(images) == 27
        failed: list[str] = []
        for image in images:
            try:
                source.read(image)
            except DataError as error:
                failed += error.problems
        assert [line.split(":")[0] for line in failed] == [
            str(walls / "crack/004.png"),
            str(walls / "crack/005.png"),
        ]

    def test_one_class_is_an_error(self, tmp_path: Path) -> None:
        save(tmp_path / "crack/0.png", surface(0))
        with pytest.raises(DataError, match=r"at least two folders with images: this one has 1 \(crack\)"):
            ClassFolder(root=tmp_path).images()

    def test_an_empty_root_and_an_empty_class_are_errors(self, walls: Path, tmp_path: Path) -> None:
        (tmp_path / "void").mkdir()
        with pytest.raises(DataError, match=r"this one has 0 \(none\)"):
            ClassFolder(root=tmp_path / "void").images()
        (walls / "spalling").mkdir()
        with pytest.raises(DataError, match=r"spalling: the folder holds files of .* there is none"):
            ClassFolder(root=walls).images()

    def test_a_class_of_one_image_and_its_copies_cannot_be_split(self, tmp_path: Path) -> None:
        for number in range(3):
            save(tmp_path / f"crack/{number}.png", surface(number))
            save(tmp_path / f"sound/{number}.png", surface(9))
        with pytest.raises(DataError, match=r"sound: a class has two images that are not the same, .* in 3"):
            ClassFolder(root=tmp_path).images()

    def test_two_images_of_one_name_are_an_error(self, tmp_path: Path) -> None:
        for path in ("a/b-c.png", "a-b/c.png"):
            save(tmp_path / path, surface(len(path)))
        with pytest.raises(DataError, match="`a-b-c` is 2 of them"):
            ClassFolder(root=tmp_path).images()

    def test_memory_follows_the_files_and_not_their_names(self, walls: Path, tmp_path: Path) -> None:
        source, cache = ClassFolder(root=walls), tmp_path / "cache"
        source.images(directory=cache)
        (walls / "crack/021.png").rename(walls / "crack/000a.png")
        assert source.images(directory=cache) == source.images()
        assert len(list(cache.glob("groups-*.json"))) == 1
        save(walls / "crack/003.png", surface(77))
        assert source.images(directory=cache) == source.images()

    def test_listing_again_decodes_nothing(self, tmp_path: Path) -> None:
        for number in range(200):
            save(tmp_path / f"walls/{('crack', 'sound')[number % 2]}/{number}.png", surface(number))
        source = ClassFolder(root=tmp_path / "walls")
        spent = []
        for _ in range(2):
            start = time.process_time()
            source.images(directory=tmp_path)
            spent.append(time.process_time() - start)
        assert spent[1] < spent[0] / 4


def windows(mask: np.ndarray, grid: Grid, margin: int) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """The window of each square, cut one by one."""
    for row, top in enumerate(grid.tops.tolist()):
        for column, left in enumerate(grid.lefts.tolist()):
            low, beside = max(top - margin, 0), max(left - margin, 0)
            yield (
                (row, column),
                mask[low : top + grid.size + margin, beside : left + grid.size + margin],
            )


class TestGrid:
    @given(st.integers(8, 40), st.integers(8, 40), st.integers(8, 30), st.integers(0, 12), st.integers(0, 99))
    def test_windows_hold_what_is_counted_one_by_one(
        self, height: int, width: int, size: int, margin: int, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        size = min(size, height, width)
        mask = (rng.random((height, width)) < 0.1).astype(np.uint8)
        plane = rng.random((height, width)).astype(np.float32)
        grid = Grid((height, width), size=size, rng=rng)
        count, largest = grid.count(mask, margin=margin), grid.largest(plane, margin=margin)
        assert count.shape == largest.shape == (len(grid.tops), len(grid.lefts))
        for at, window in windows(mask, grid, margin):
            assert count[at] == window.sum()
        for at, window in windows(plane, grid, margin):
            assert largest[at] == window.max()
        assert grid.tops[0] >= 0
        assert grid.tops[-1] + size <= height

    def test_drawn_squares_never_overlap_and_are_at_most_so_many_of_a_label(
        self, rng: np.random.Generator
    ) -> None:
        grid = Grid((300, 400), size=32, rng=rng)
        labels = rng.integers(NEITHER, 3, (len(grid.tops), len(grid.lefts)))
        places = grid.draw(labels, most=7, rng=rng)
        at = {
            (top, left): labels[grid.tops.tolist().index(top), grid.lefts.tolist().index(left)]
            for top, left, _ in places
        }
        assert [at[top, left] for top, left, _ in places] == [label for _, _, label in places]
        assert [sum(label == own for _, _, own in places) for label in range(3)] == [7, 7, 7]
        painted = np.zeros((300, 400), int)
        for top, left, _ in places:
            painted[top : top + 32, left : left + 32] += 1
        assert painted.max() == 1

    def test_every_place_is_drawn_sooner_or_later(self) -> None:
        drawn = set()
        for seed in range(2000):
            rng = np.random.default_rng(seed)
            grid = Grid((24, 24), size=16, rng=rng)
            labels = np.zeros((len(grid.tops), len(grid.lefts)), dtype=np.int64)
            drawn |= {(top, left) for top, left, _ in grid.draw(labels, most=1, rng=rng)}
        assert drawn == {(top, left) for top in range(9) for left in range(9)}


class TestPatches:
    def test_squares_are_crack_or_far_from_any(self, drawn: Path) -> None:
        source = Synthetic(root=drawn)
        patches = Patches(source=source, size=32, per_image=5, crack_share=0.05, margin=6)
        masks = {sample.image: source.read_mask(sample) for sample in source.samples()}
        images = patches.images()
        assert len(images) > 40
        for image in images:
            assert image.box is not None
            top, left, height, width = image.box
            assert (height, width) == (32, 32)
            mask = masks[image.path]
            if image.label == 1:
                assert mask[top : top + 32, left : left + 32].mean() >= 0.05
            else:
                assert not mask[max(top - 6, 0) : top + 38, max(left - 6, 0) : left + 38].any()
        for path in masks:
            for label in (0, 1):
                assert sum(image.path == path and image.label == label for image in images) <= 5

    def test_test_squares_come_from_the_source_s_test_images_and_groups_are_its_own(
        self, drawn: Path
    ) -> None:
        samples = {sample.image: sample for sample in Synthetic(root=drawn).samples()}
        for image in Patches(source=Synthetic(root=drawn)).images():
            sample = samples[image.path]
            assert image.split == ("test" if sample.split == "test" else "train")
            assert image.group == sample.group

    def test_whole_images_are_drawn_where_the_source_has_no_test_split(
        self, drawn: Path, tmp_path: Path
    ) -> None:
        for folder in ("images", "masks"):
            for split in ("train", "val"):
                (tmp_path / folder).mkdir(exist_ok=True)
                (tmp_path / folder / split).symlink_to(drawn / folder / split)
        images = Patches(source=Folder(root=tmp_path), test_share=0.25).images()
        test, train = ({image.path for image in images if image.split == side} for side in ("test", "train"))
        assert len(test) == 3
        assert not train & test

    def test_invalid_pixels_are_in_no_square(self, drawn: Path, tmp_path: Path) -> None:
        for folder in ("images", "masks"):
            (tmp_path / folder).symlink_to(drawn / folder / "train")
        valid = np.zeros((SPEC.height, SPEC.width), np.uint8)
        valid[:, 40:] = 255
        for path in (tmp_path / "images").iterdir():
            save(tmp_path / "valid" / path.name, valid)
        boxes = [image.box for image in Patches(source=Folder(root=tmp_path), size=32).images()]
        assert boxes
        assert min(box[1] for box in boxes if box is not None) >= 40

    def test_a_broken_mask_is_passed_over_by_name(self, drawn: Path, tmp_path: Path) -> None:
        for split in ("train", "test"):
            for path in (drawn / "images" / split).iterdir():
                save(tmp_path / "images" / split / path.name, np.array(Image.open(path)))
                save(
                    tmp_path / "masks" / split / path.name,
                    np.array(Image.open(drawn / "masks" / split / path.name)),
                )
        (tmp_path / "masks/train/0001.png").write_bytes(b"no mask")
        save(tmp_path / "masks/train/0002.png", np.zeros((9, 9), np.uint8))
        patches = Patches(source=Folder(root=tmp_path))
        for directory in (None, tmp_path / "cache", tmp_path / "cache"):
            listing = patches.find(directory=directory)
            assert not listing.problems
            assert listing.images
            bad = {tmp_path / f"images/train/000{number}.png" for number in (1, 2)}
            assert bad.isdisjoint(image.path for image in listing.images)
            first, second = (note for note in listing.notes if note.startswith("left out"))
            assert str(tmp_path / "masks/train/0001.png") in first
            assert "a mask must have its image's size" in second

    def test_squares_larger_than_every_image_are_an_error_that_names_the_images(self, drawn: Path) -> None:
        with pytest.raises(DataError) as caught:
            Patches(source=Synthetic(root=drawn), size=500).images()
        first, *rest = caught.value.problems
        assert "none is `no_crack` or `crack`; take smaller squares (now 500 pixels)" in first
        assert len(rest) == 16

    def test_masks_without_a_crack_leave_one_class_which_is_an_error(self, tmp_path: Path) -> None:
        for number in range(3):
            save(tmp_path / f"images/{number}.png", surface(number, size=96))
            save(tmp_path / f"masks/{number}.png", np.zeros((96, 96), np.uint8))
        with pytest.raises(DataError, match="from 3 images none is `crack`"):
            Patches(source=Folder(root=tmp_path)).images()


class TestCrackWidth:
    def test_is_the_crack_s_on_its_middle_and_falls_to_its_edges(self) -> None:
        mask = np.zeros((40, 60), np.uint8)
        mask[10:19] = 1
        assert crack_width(mask)[8:21, 30] == pytest.approx(
            [0, 0, 1.8, 3.6, 5.4, 7.2, 9, 7.2, 5.4, 3.6, 1.8, 0, 0]
        )
        assert not crack_width(mask)[mask == 0].any()

    @pytest.mark.parametrize("rows", range(1, 21))
    def test_of_a_straight_band_is_its_number_of_rows(self, rows: int) -> None:
        mask = np.zeros((60, 80), np.uint8)
        mask[10 : 10 + rows] = 1
        assert crack_width(mask).max() == rows

    def test_of_a_crack_that_the_border_cuts_lengthwise_is_what_is_seen(self) -> None:
        mask = np.zeros((40, 60), np.uint8)
        mask[:5] = 1
        assert crack_width(mask).max() == 5

    @pytest.mark.parametrize("width", [1.5, 2.0, 3.0, 4.5, 6.0, 9.0])
    def test_of_a_straight_crack_at_any_angle_is_known_to_about_a_pixel(self, width: float) -> None:
        errors = []
        for angle in np.linspace(0, np.pi, 37, endpoint=False):
            along = 60 * np.array((math.cos(angle), math.sin(angle)))
            middle = np.array((80.3, 79.6))
            stroke = Stroke(np.stack((middle - along, middle + along)), np.array([width]))
            mask = (depth((stroke,), height=160, width=160) >= 0).astype(np.uint8)
            errors.append(float(crack_width(mask).max()) - width)
        # of 4.5 px along the rows 4 or 5 rows are drawn, and those of diagonals are 0.7 apart
        assert -0.72 <= min(errors) <= max(errors) <= 0.72
        assert np.sqrt(np.mean(np.square(errors))) <= 0.35

    def test_of_the_synthetic_cracks_is_near_the_truth(self) -> None:
        errors = []
        for width in (1.0, 2.0, 3.0, 4.0, 5.0):
            spec = SyntheticSpec(crack_width=(width, width), cracks=(1, 1), branching=0, clean=0)
            errors += [
                float(crack_width(draw(spec, split="train", index=index).mask).max()) - width
                for index in range(12)
            ]
        assert np.sqrt(np.mean(np.square(errors))) < 0.4


class TestSeverity:
    def test_the_class_of_each_square_is_its_largest_width(self, drawn: Path) -> None:
        source = Synthetic(root=drawn)
        severity = Severity(source=source, mm_per_pixel=0.1, limits_mm=(0.35, 0.55), size=32, margin=0)
        widths = {sample.image: crack_width(source.read_mask(sample)) for sample in source.samples()}
        images = severity.images()
        assert len({image.label for image in images}) == 3
        for image in images:
            assert image.box is not None
            top, left, *_ = image.box
            largest = 0.1 * float(widths[image.path][top : top + 32, left : left + 32].max())
            assert image.label == int(largest >= 0.35) + int(largest >= 0.55)

    def test_known_widths_fall_into_their_classes(self, tmp_path: Path) -> None:
        for number, width in enumerate((2.0, 3.0, 8.0, 9.0)):
            for copy in range(2):
                middle = 64 + 7 * copy
                stroke = Stroke(np.array([[-9.0, middle], [140.0, middle + 20]]), np.array([width]))
                mask = (depth((stroke,), height=128, width=128) >= 0).astype(np.uint8)
                name = f"{number}-{copy}-{width}.png"
                save(tmp_path / "images" / name, surface(number, size=128))
                save(tmp_path / "masks" / name, 255 * mask)
        severity = Severity(source=Folder(root=tmp_path), mm_per_pixel=0.02, limits_mm=(0.1,))
        images = severity.images()
        assert {image.path.stem[:3] for image in images} == {
            f"{n}-{copy}" for n in range(4) for copy in (0, 1)
        }
        for image in images:
            known = float(image.path.stem.split("-")[2])
            assert image.label == int(known * 0.02 >= 0.1)

    def test_a_width_on_a_limit_is_of_the_higher_class(self, tmp_path: Path) -> None:
        for number, rows in enumerate((3, 3, 1, 1)):
            mask = np.zeros((96, 96), np.uint8)
            mask[40 : 40 + rows] = 255
            save(tmp_path / f"images/{number}.png", surface(number, size=96))
            save(tmp_path / f"masks/{number}.png", mask)
        images = Severity(source=Folder(root=tmp_path), mm_per_pixel=0.1, limits_mm=(0.3,)).images()
        assert {(image.path.stem, image.label) for image in images} == {
            ("0", 1),
            ("1", 1),
            ("2", 0),
            ("3", 0),
        }

    def test_a_square_on_the_flank_of_a_wider_crack_is_passed_over(self) -> None:
        mask = np.zeros((128, 128), np.uint8)
        mask[:, 60:73] = 1  # 13 px wide, its middle on column 66
        rng = np.random.default_rng(0)
        grid = Grid((128, 128), size=32, rng=rng)
        severity = Severity(source=Folder(root=Path()), mm_per_pixel=1, limits_mm=(12.5,), size=32, margin=8)
        labels = severity.label(mask, grid)
        held = (grid.lefts <= 66) & (grid.lefts + 32 > 66)
        touched = (grid.lefts <= 72) & (grid.lefts + 32 > 60) & ~held
        assert held.any()
        assert touched.any()
        assert (labels[:, held] == 1).all()
        assert (labels[:, touched] == NEITHER).all()

    @pytest.mark.parametrize(
        ("limits", "classes"),
        [
            ((0.1,), ("<0.1mm", ">=0.1mm")),
            ((0.1, 0.2), ("<0.1mm", "0.1-0.2mm", ">=0.2mm")),
            ((0.5, 1, 2), ("<0.5mm", "0.5-1mm", "1-2mm", ">=2mm")),
        ],
    )
    def test_n_limits_part_n_and_one_classes(
        self, limits: tuple[float, ...], classes: tuple[str, ...]
    ) -> None:
        assert Severity(source=Folder(root=Path()), mm_per_pixel=1, limits_mm=limits).classes() == classes

    def test_limits_that_no_crack_reaches_are_an_error(self, drawn: Path) -> None:
        with pytest.raises(
            DataError,
            match=r"none is `>=0.1mm`; set other limits \(now 0.1 mm\) or mend the scale \(0.001 mm",
        ):
            Severity(source=Synthetic(root=drawn), mm_per_pixel=0.001).images()


class TestParsing:
    def test_reads_each_form(self, tmp_path: Path) -> None:
        found = parse_labelled(
            [
                "class_folder:/data/a:b",
                "patches:cfd:/data/cfd",
                "severity:0.05:deepcrack:/data/deepcrack",
                "severity:0.05:0.1,0.2:deepcrack:/data/deepcrack",
                "severity:5e-2:.3:cfd:/data/c:d",
            ]
        )
        assert [one.label_text for one in found] == [
            "class_folder:/data/a:b",
            "patches:cfd:/data/cfd",
            "severity:0.05:0.1:deepcrack:/data/deepcrack",
            "severity:0.05:0.1,0.2:deepcrack:/data/deepcrack",
            "severity:0.05:0.3:cfd:/data/c:d",
        ]

    def test_roots_become_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        found = parse_labelled(["class_folder:walls", "patches:cfd:roads"])
        assert [one.label_text for one in found] == [
            f"class_folder:{tmp_path / 'walls'}",
            f"patches:cfd:{tmp_path / 'roads'}",
        ]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("clas_folder:/data", "did you mean `class_folder:/data`?"),
            ("./base", "did you mean `class_folder:./base`?"),
            ("/walls:2024", "did you mean `class_folder:/walls:2024`?"),
            ("nothing", "known: class_folder, patches, severity"),
            ("cfd:/data/cfd", "cut squares from it: `patches:cfd:/data/cfd`"),
            ("class_folder:", "all after `class_folder` is missing"),
            ("class_folder", "class_folder data is class_folder:ROOT"),
            ("patches:", "patches data is patches:KIND:ROOT"),
            ("patches:/data/cfd", "`/data/cfd` is no kind; did you mean `folder:/data/cfd`?"),
            ("patches:cdf:/data", "did you mean `cfd:/data`?"),
            ("patches:cfd", "the root is missing"),
            ("patches:class_folder:/data", "needs a mask of every image"),
            ("severity:cfd:/data", "MM_PER_PIXEL is in numbers: `cfd` is none"),
            ("severity:thin:cfd:/data", "MM_PER_PIXEL is in numbers: `thin` is none"),
            ("severity:0.1", "`` is no kind"),
            ("severity:0.1:0.1;0.2:cfd:/data", "LIMITS_MM is in numbers: `0.1;0.2` is none"),
            ("severity:0.1:0.1,:cfd:/data", "LIMITS_MM is in numbers: `` is none"),
            ("severity:0.1:0.1,0.2", "`0.1,0.2` is no kind"),
            ("severity:0.1:0.2,0.1:cfd:/data", "limits rise: 0.2,0.1 do not"),
            ("severity:0.1:0.1,0.1:cfd:/data", "limits rise: 0.1,0.1 do not"),
            ("severity:0:cfd:/data", "`mm_per_pixel` is a number above 0"),
            ("severity:-1:cfd:/data", "`mm_per_pixel` is a number above 0"),
            ("severity:nan:cfd:/data", "`mm_per_pixel`"),
            ("severity:inf:cfd:/data", "`mm_per_pixel`"),
            ("severity:0.1:-1,2:cfd:/data", "above 0"),
        ],
    )
    def test_a_wrong_text_is_one_line(self, text: str, says: str) -> None:
        with pytest.raises(DataError) as caught:
            parse_labelled([text])
        (line,) = caught.value.problems
        assert line.startswith(f"`{text}`: ")
        assert says in line

    def test_all_problems_come_at_once(self) -> None:
        with pytest.raises(DataError) as caught:
            parse_labelled(["class_folder:/a", "class_folder:/a", "patchs:cfd:/b", "severity:x:cfd:/c"])
        assert len(caught.value.problems) == 3
        assert "/a is named twice; name it once" in caught.value.problems[-1]

    def test_no_data_is_an_error(self) -> None:
        with pytest.raises(DataError, match="name at least one labelled data set"):
            parse_labelled([])

    def test_a_spec_with_falling_limits_is_an_error(self) -> None:
        plain = Severity(source=Folder(root=Path("a")), mm_per_pixel=1).plain() | {"limits_mm": [2, 1]}
        with pytest.raises(SpecError, match="limits rise"):
            Severity.load(plain, source="recipe.json")


def keys(*datasets: LabelledDataset) -> list[str]:
    return [one.key for one in image_keys(datasets)]


class TestKeys:
    def test_one_key_is_one_content(self, walls: Path, drawn: Path) -> None:
        folder, patches = ClassFolder(root=walls), Patches(source=Synthetic(root=drawn))
        by_name = {one.image.name: one.key for one in image_keys([folder])}
        assert by_name["crack-003"] == by_name["crack-020"]
        assert len(set(by_name.values())) == len(by_name) - 1
        assert len(set(keys(patches))) == len(patches.images())
        assert all(len(key) == 64 and int(key, 16) >= 0 for key in (*by_name.values(), *keys(patches)))

    def test_squares_of_one_place_have_one_key_whatever_their_class(self, drawn: Path) -> None:
        source = Synthetic(root=drawn)
        one = image_keys([Severity(source=source, mm_per_pixel=0.1, limits_mm=(0.35,))])
        other = image_keys([Severity(source=source, mm_per_pixel=0.1, limits_mm=(0.35, 0.55))])
        same = {(each.image.path, each.image.box): each.key for each in one}
        shared = [each for each in other if (each.image.path, each.image.box) in same]
        assert shared
        assert all(same[each.image.path, each.image.box] == each.key for each in shared)

    def test_data_sets_of_one_kind_are_told_apart(self, walls: Path, tmp_path: Path) -> None:
        for label in ("crack", "normal"):
            for number in range(2):
                save(tmp_path / "more" / label / f"{number}.png", surface(len(label) + 50 * number))
        found = image_keys([ClassFolder(root=walls), ClassFolder(root=tmp_path / "more")])
        assert [one.source for one in found] == ["class_folder"] * 27 + ["class_folder-2"] * 4
        assert found[-1].group == "class_folder-2/normal-1"
        np.testing.assert_array_equal(found[-1].read(), surface(56))

    def test_the_digest_is_that_of_the_contents_wherever_they_lie(
        self, walls: Path, drawn: Path, tmp_path: Path
    ) -> None:
        digest = labelled_digest([ClassFolder(root=walls), Patches(source=Synthetic(root=drawn))])
        assert len(digest) == 16
        moved = walls.rename(tmp_path / "moved")
        (tmp_path / "set").symlink_to(drawn)
        again = [ClassFolder(root=moved), Patches(source=Synthetic(root=tmp_path / "set"))]
        assert labelled_digest(again, directory=tmp_path / "cache") == digest
        assert labelled_digest(again, directory=tmp_path / "cache") == digest

    def test_the_digest_changes_with_bytes_classes_splits_and_names(self, walls: Path) -> None:
        source = ClassFolder(root=walls)
        digests = [
            labelled_digest([source]),
            labelled_digest([ClassFolder(root=walls, order=("crack", "normal"))]),
            labelled_digest([ClassFolder(root=walls, seed=1)]),
        ]
        (walls / "crack/001.png").rename(walls / "crack/001b.png")
        digests.append(labelled_digest([source]))
        save(walls / "crack/001b.png", surface(999))
        digests.append(labelled_digest([source]))
        assert len(set(digests)) == 5

    def test_problems_of_all_data_sets_come_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            image_keys([ClassFolder(root=tmp_path / "a"), Patches(source=Folder(root=tmp_path / "b"))])
        first, second = caught.value.problems
        assert first.startswith(str(tmp_path / "a"))
        assert second.startswith(str(tmp_path / "b"))

    def test_classes_are_shared_or_named(self, walls: Path, drawn: Path) -> None:
        folder, patches = ClassFolder(root=walls), Patches(source=Synthetic(root=drawn))
        assert common_classes([folder, folder]) == ("normal", "crack")
        with pytest.raises(DataError, match=r"has no_crack, crack, and class_folder:.* has normal, crack"):
            common_classes([folder, patches])


@pytest.mark.slow
def test_two_thousand_photographs_are_listed_in_seconds_and_then_at_once(tmp_path: Path) -> None:
    for number in range(2000):
        save(tmp_path / f"walls/{('crack', 'sound')[number % 2]}/{number}.jpg", surface(number, size=228))
    source = ClassFolder(root=tmp_path / "walls")
    for limit in (15.0, 1.0):
        start = time.process_time()
        images = source.images(directory=tmp_path / "cache")
        assert time.process_time() - start < limit
    assert len(images) == 2000
    memos = [path for path in (tmp_path / "cache").iterdir() if path.name.startswith("groups-")]
    assert json.loads(memos[0].read_text()) == []


def test_a_listed_image_is_a_plain_value() -> None:
    image = LabelledImage("a", 0, "a", "train", Path("a.png"))
    assert image == replace(image)
    assert image.box is None
