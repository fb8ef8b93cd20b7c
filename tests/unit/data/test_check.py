"""`data check` names every defect, and stops at none."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fissura.data.check import CheckReport, check, parse_source
from fissura.data.check_lines import MOST_LINES
from fissura.data.duplicates import MOST_BITS, duplicates, fingerprint


def enlarged(grid: np.ndarray, *, height: int = 96, width: int = 128) -> np.ndarray:
    """A smooth plane [height width 3] through the values of a coarse grid."""
    plane = Image.fromarray(grid.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(plane)[..., None], 3, axis=2)


def surface(seed: int, *, height: int = 96, width: int = 128) -> np.ndarray:
    """A stained, grainy surface: detail at all scales, as photographs have it."""
    generator = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128.0)
    for side in (4, 12, 48):
        noise = generator.normal(0, 12, (side, side)).astype(np.float32)
        image += np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))[
            ..., None
        ]
    return np.clip(image + generator.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def line(row: int) -> np.ndarray:
    mask = np.zeros((96, 128), np.uint8)
    mask[row : row + 3] = 255
    return mask


def save(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(8):
        split = "test" if number > 4 else "train"
        save(tmp_path / f"images/{split}/{number}.png", surface(number))
        save(tmp_path / f"masks/{split}/{number}.png", line(5 + 10 * number))
    return tmp_path


def report(root: Path, kind: str = "folder") -> CheckReport:
    return check(parse_source(f"{kind}:{root}"))


def test_a_printed_report_says_what_is_wrong_and_how_much_more_there_is(folder: Path) -> None:
    (folder / "masks/train/0.png").unlink()
    save(folder / "images/train/1.png", surface(6))
    found = report(folder)
    lines = str(found).splitlines()
    assert f"1 problem, {len(found.warnings)} warning" in lines[1]
    assert f"problem: {found.problems[0]}" in lines
    assert f"warning: {found.warnings[0]}" in lines
    many = replace(found, problems=tuple(f"{name}: {name}" for name in "abcdefgh"))
    assert "and 3 more problems" in str(many).splitlines()


def test_a_sound_set_has_facts_and_no_defect(folder: Path) -> None:
    found = report(folder)
    assert (found.problems, found.warnings, found.notes, found.duplicates) == ((), (), (), ())
    assert found.samples == {"train": 4, "val": 1, "test": 3}
    assert found.sizes == {"128x96": 8}
    assert found.unique == 8
    assert found.crack_share == 3 / 96
    assert found.mask_levels == {0: 8 * 93 * 128, 255: 8 * 3 * 128}


def test_every_bad_file_is_named_and_none_stops_the_check(folder: Path) -> None:
    (folder / "images/train/0.png").write_text("not an image")
    (folder / "masks/train/0.png").write_bytes(b"")
    save(folder / "masks/train/1.png", line(5)[:50])
    save(folder / "masks/train/2.png", np.full((96, 128), 77, np.uint8))
    (folder / "masks/test/5.png").unlink()
    save(folder / "masks/test/stray.png", line(5))
    found = report(folder)
    for file, says in {
        "images/train/0.png": "begins with",
        "masks/train/0.png": "0 bytes",
        "masks/train/1.png": "image's size",
        "masks/train/2.png": "holds 77 alone",
        "images/test/5.png": "there is none",
        "masks/test/stray.png": "there is none",
    }.items():
        assert [says in problem for problem in found.problems if problem.startswith(str(folder / file))] == [
            True
        ]
    assert len(found.problems) == 6
    assert found.sizes == {"128x96": 6}


def test_a_near_duplicate_across_splits_is_a_leak(folder: Path) -> None:
    turned = np.rot90(surface(0), 2)
    save(folder / "images/test/6.jpg", turned, quality=85)
    (folder / "images/test/6.png").unlink()
    (leak,) = report(folder).warnings
    assert leak.startswith("the same image in two splits (train and test): ")
    assert "0 = 6" in leak
    assert "turned by 180 degrees" in leak


def test_many_leaks_are_one_line_with_their_count(folder: Path) -> None:
    taken = (folder / "images/train/1.png").read_bytes()
    for split in ("train", "test"):
        for image in (folder / "images" / split).iterdir():
            image.write_bytes(taken)
    (leak,) = [line for line in report(folder).warnings if "two splits" in line]
    assert re.match(r"the same image in two splits, \d+ pairs: \S+ = \S+ \(pixel for pixel\), ", leak)
    assert leak.endswith("; drop one of each")


def test_exact_duplicates_and_shared_masks_are_named(folder: Path) -> None:
    save(folder / "images/test/6.png", surface(5))
    save(folder / "masks/test/6.png", line(55))
    found = report(folder)
    assert found.warnings == (
        "the same image twice: 5 = 6 (pixel for pixel)",
        "images with the same mask, pixel for pixel: 5, 6; one of them is likely wrong",
    )
    assert found.notes == ("7 of 8 images are unique",)
    assert found.unique == 7


def test_empty_and_inverted_masks_are_named(folder: Path) -> None:
    save(folder / "masks/train/1.png", np.zeros((96, 128), np.uint8))
    save(folder / "masks/train/2.png", 255 - line(5))
    found = report(folder)
    assert found.notes == ("masks without a crack (1 of 8): 1",)
    assert found.warnings == (
        "masks that are mostly crack (1): 2; is crack the lighter level in them? If not, invert them",
    )


def test_splits_without_a_crack_are_warned_of(folder: Path) -> None:
    for mask in (folder / "masks/test").iterdir():
        save(mask, np.zeros((96, 128), np.uint8))
    count = len(list((folder / "masks/test").iterdir()))
    assert report(folder).warnings == (
        f"no crack pixel in the masks of the test images ({count}), so their scores are false alarms only",
    )
    for mask in (folder / "masks/train").iterdir():
        save(mask, np.zeros((96, 128), np.uint8))
    train, val, test = report(folder).warnings
    assert "the train images" in train
    assert "nothing to learn from: no model is trained" in train
    assert "the val images" in val
    assert "nothing to choose a model and its threshold by: no model is trained" in val
    assert "the test images" in test


def test_jpeg_masks_are_warned_of_with_their_share_of_grey_pixels(folder: Path) -> None:
    (folder / "masks/train/1.png").unlink()
    slanted = (np.abs(np.subtract.outer(np.arange(96), np.arange(128))) < 2).astype(np.uint8) * 255
    save(folder / "masks/train/1.jpg", slanted)
    (warning,) = report(folder).warnings
    assert warning.startswith("mask of 1: ")
    assert warning.endswith("% of the pixels are grey, thresholded at 127")


def test_masks_that_ask_for_different_thresholds_are_told_that_a_set_has_one(folder: Path) -> None:
    for number, levels in enumerate([(90, 200), (90, 200), (40, 82)]):
        mask = line(5 + 10 * number)
        for row, level in enumerate(levels):
            mask[5 + 10 * number + row] = level
        save(folder / f"masks/train/{number}.png", np.minimum(mask, max(levels)))
    assert report(folder).notes == (
        "one `threshold` holds for the whole data set, and its masks ask for 34, 127: save all of them with"
        " 0 and 255, or make a data set of each kind of mask",
    )


def test_many_lossy_masks_are_summed_up_in_one_line(tmp_path: Path) -> None:
    grey = line(5)
    grey[4] = 90
    for number in range(MOST_LINES + 1):
        save(tmp_path / f"test_img/{number}.png", surface(number, height=32, width=32))
        save(tmp_path / f"test_lab/{number}.png", grey[:32, :32])
    (tmp_path / "train_img").mkdir()
    (tmp_path / "train_lab").mkdir()
    (summary,) = (warning for warning in report(tmp_path, "deepcrack").warnings if "levels" in warning)
    assert summary.startswith(
        f"{MOST_LINES + 1} of {MOST_LINES + 1} masks hold levels that a mask should not"
    )
    assert "3.1% of the pixels are grey" in summary


def test_counts_other_than_the_published_ones_and_straddling_photographs_are_warned_of(
    tmp_path: Path,
) -> None:
    for split in ("train", "test"):
        for part in (1, 2):
            seed = 2 * part + (split == "test")
            save(tmp_path / f"{split}_img/bridge-{part}{split}.png", surface(seed))
            save(tmp_path / f"{split}_lab/bridge-{part}{split}.png", line(5 * seed))
    straddling, counts = report(tmp_path, "deepcrack").warnings
    assert straddling.endswith("in two splits (1), so the test may leak: bridge")
    assert (
        counts
        == "the published set has other counts: found train 2 of 300, test 2 of 237; fetch what is missing"
    )


def test_a_missing_root_is_a_problem_and_no_exception(tmp_path: Path) -> None:
    (problem,) = report(tmp_path / "nowhere").problems
    assert "missing" in problem


def test_a_class_folder_is_checked_for_bad_and_repeated_images(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"crack/{number}.png", surface(number))
        save(tmp_path / f"sound/{number}.png", surface(10 + number))
    save(tmp_path / "sound/3.png", surface(0))
    (tmp_path / "sound/4.png").write_text("no image")
    found = report(tmp_path, "class_folder")
    assert found.samples == {"crack": 3, "sound": 5}
    assert found.unique == 6
    assert [str(tmp_path / "sound/4.png") in problem for problem in found.problems] == [True]
    assert ["the same image in two classes (crack and sound)" in warning for warning in found.warnings] == [
        True
    ]
    assert "6 of 7 images are unique" in found.notes


def test_the_report_is_plain_json(folder: Path) -> None:
    save(folder / "images/test/6.png", surface(5))
    plain = report(folder).plain()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["duplicates"][0]["first"] == "5"


def test_progress_is_told_of_each_sample(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    check(parse_source(f"folder:{folder}"), on_sample=lambda done, of: told.append((done, of)))
    assert told == [(done, 8) for done in range(1, 9)]


class TestDuplicates:
    @pytest.mark.parametrize("mirrored", [False, True])
    @pytest.mark.parametrize("turns", range(4))
    def test_a_flipped_or_turned_brighter_copy_is_found(self, turns: int, mirrored: bool) -> None:
        image = surface(1)
        copy = np.rot90(image[:, ::-1] if mirrored else image, turns)
        brighter = np.clip(copy * 0.8 + 40, 0, 255).astype(np.uint8)
        (pair,) = duplicates({"a": fingerprint(image), "b": fingerprint(brighter)})
        assert not pair.exact
        assert pair.correlation > 0.98

    def test_different_surfaces_are_no_duplicates(self) -> None:
        assert not duplicates({str(seed): fingerprint(surface(seed)) for seed in range(60)})

    def test_different_grain_under_the_same_stains_is_no_duplicate(self) -> None:
        """The hashes of such images agree; their fine detail does not."""
        generator = np.random.default_rng(7)
        stains = enlarged(generator.normal(0, 30, (8, 8)))
        grains = [enlarged(generator.normal(0, 25, (48, 64))) for _ in range(20)]
        images = [np.clip(128 + stains + grain, 0, 255).astype(np.uint8) for grain in grains]
        prints = {str(index): fingerprint(image) for index, image in enumerate(images)}
        bits = np.bitwise_count(prints["0"].hashes[0] ^ np.stack([one.hashes[0] for one in prints.values()]))
        assert np.sort(bits)[1] <= MOST_BITS
        assert not duplicates(prints)

    def test_a_common_field_of_view_makes_no_duplicates(self) -> None:
        rows, columns = np.mgrid[:96, :128]
        valid = ((rows - 48) ** 2 + (columns - 64) ** 2 < 44**2).astype(np.uint8)
        images = {}
        for row in range(20, 80, 4):
            image = np.repeat(150 * valid[..., None], 3, axis=2)
            image[row : row + 2, 30:100] -= 15 * valid[row : row + 2, 30:100, None]
            images[str(row)] = image
        assert duplicates({name: fingerprint(image) for name, image in images.items()})
        assert not duplicates({name: fingerprint(image, valid=valid) for name, image in images.items()})

    def test_plain_images_of_two_greys_are_no_duplicates(self) -> None:
        plain = {str(level): fingerprint(np.full((40, 40, 3), level, np.uint8)) for level in (10, 200)}
        assert not duplicates(plain)

    def test_copies_are_paired_with_the_first(self) -> None:
        prints = {name: fingerprint(surface(3)) for name in "abc"}
        assert [(pair.first, pair.second) for pair in duplicates(prints)] == [("a", "b"), ("a", "c")]
