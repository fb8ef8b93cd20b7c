"""What every data set of the registry does, on a small copy of its published layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fissura.core.errors import DataError, SpecError
from fissura.data.dataset import Dataset
from fissura.data.datasets import kinds, parse_dataset
from fissura.data.sample import Sample

HEIGHT, WIDTH = 20, 30


def photo(path: Path) -> None:
    seed = int.from_bytes(path.name.encode()[-6:], "big")
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def crack() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[8:12] = 1
    return mask


def mask(path: Path, *, levels: tuple[int, int] = (0, 255)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(levels, np.uint8)[crack()]).save(path)


def matlab(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"groundTruth": {"Segmentation": labels, "Boundaries": labels}})


def pairs(images: str, masks: str, stems: list[str]) -> Callable[[Path], None]:
    """Writes `images` and `masks`, patterns such as "image/{}.jpg", for each stem."""

    def build(root: Path) -> None:
        for stem in stems:
            photo(root / images.format(stem))
            mask(root / masks.format(stem))

    return build


def cfd(root: Path) -> None:
    for number in range(36, 48):
        photo(root / f"image/{number:03d}.jpg")
        matlab(root / f"groundTruth/{number:03d}.mat", crack() + np.uint8(1))
    photo(root / "image/201.jpg")


def drive(root: Path) -> None:
    for split, first in (("training", 21), ("test", 1)):
        for number in range(first, first + 8):
            photo(root / split / f"images/{number:02d}_{split}.tif")
            mask(root / split / f"1st_manual/{number:02d}_manual1.gif")
            mask(root / split / f"mask/{number:02d}_{split}_mask.gif")


def crack500(root: Path) -> None:
    for split in ("train", "val", "test"):
        for crop in range(4):
            photo(root / f"{split}crop/2016_{split}_{crop}_1.jpg")
            mask(root / f"{split}crop/2016_{split}_{crop}_1.png")


def stone331(root: Path) -> None:
    pairs("Stone331/{}.jpg", "Stone331_gt/{}.bmp", STEMS)(root)
    for stem in STEMS:
        mask(root / f"Stone331_mask/{stem}.bmp")


def aiglern(root: Path) -> None:
    for stem in ("C18a", "C18b", "F01a", "F02a", "F02b", "E17b"):
        photo(root / f"IMAGES/AIGLE_RN/Im_GT_AIGLE_RN_{stem}or.png")
        mask(root / f"GROUND_TRUTH/AIGLE_RN/GT_AIGLE_RN_{stem}.png", levels=(255, 0))
    photo(root / "IMAGES/AIGLE_RN/Im_noGT_AIGLE_RN_D01aor.png")


def synthetic(root: Path) -> None:
    for split in ("train", "val", "test"):
        pairs(f"images/{split}/{{}}.png", f"masks/{split}/{{}}.png", STEMS)(root)
    (root / "truth.json").write_text("{}")


def deepcrack(root: Path) -> None:
    for split in ("train", "test"):
        pairs(f"{split}_img/{{}}.jpg", f"{split}_lab/{{}}.png", STEMS)(root)


STEMS = [f"{number:03d}" for number in range(12)]
LAYOUTS: dict[str, Callable[[Path], None]] = {
    "cfd": cfd,
    "deepcrack": deepcrack,
    "drive": drive,
    "crack500": crack500,
    "cracktree200": pairs("cracktree200rgb/{}.jpg", "cracktree200_gt/{}.png", STEMS),
    "cracktree260": pairs("image/{}.jpg", "gt/{}.bmp", STEMS),
    "crkwh100": pairs("CRKWH100/{}.png", "CRKWH100_gt/{}.bmp", STEMS),
    "crackls315": pairs("CrackLS315/{}.jpg", "CrackLS315_gt/{}.bmp", STEMS),
    "stone331": stone331,
    "ozgenel458": pairs("rgb/{}.jpg", "BW/{}.jpg", STEMS),
    "aiglern": aiglern,
    "folder": pairs("images/{}.jpg", "masks/{}.png", STEMS),
    "synthetic": synthetic,
}


@pytest.fixture(params=list(kinds()))
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    LAYOUTS[request.param](tmp_path)
    return parse_dataset(f"{request.param}:{tmp_path}")


def splits(samples: list[Sample]) -> dict[str, set[str]]:
    return {split: {one.name for one in samples if one.split == split} for split in ("train", "val", "test")}


class TestEveryDataset:
    def test_reads_all_its_samples(self, dataset: Dataset) -> None:
        for sample in dataset.samples():
            image, drawn, valid = (
                dataset.read_image(sample),
                dataset.read_mask(sample),
                dataset.read_valid(sample),
            )
            assert image.shape == (HEIGHT, WIDTH, 3)
            assert image.dtype == drawn.dtype == np.uint8
            np.testing.assert_array_equal(drawn, crack())
            assert valid is None or (valid.shape == (HEIGHT, WIDTH) and set(np.unique(valid)) <= {0, 1})

    def test_names_are_sorted_unique_and_fit_a_file_name(self, dataset: Dataset) -> None:
        names = [sample.name for sample in dataset.samples()]
        assert names == sorted(set(names))
        assert all(name == Path(name).name for name in names)

    def test_has_images_to_test_on_and_train_with_val_or_neither(self, dataset: Dataset) -> None:
        found = splits(dataset.samples())
        assert found["test"]
        assert bool(found["train"]) == bool(found["val"])

    def test_the_seed_decides_every_split_that_is_drawn(self, dataset: Dataset) -> None:
        again = type(dataset).model_validate(dataset.plain())
        assert again.samples() == dataset.samples()
        others = [dataset.model_copy(update={"seed": seed}).samples() for seed in range(1, 6)]
        drawn = dataset.kind not in {"crack500", "crkwh100", "crackls315", "stone331", "synthetic"}
        assert any(other != dataset.samples() for other in others) == drawn

    def test_groups_never_straddle_a_drawn_split(self, dataset: Dataset) -> None:
        samples = dataset.samples()
        train, val = ({one.group for one in samples if one.split == split} for split in ("train", "val"))
        assert not train & val

    def test_says_what_it_is_and_where_to_obtain_it(self, dataset: Dataset) -> None:
        info = dataset.info
        assert info.title
        assert info.licence
        assert info.obtain
        assert info.layout
        assert info.citation or dataset.kind in {"folder", "synthetic"}
        assert set(info.counts) <= {"train", "val", "test"}

    def test_an_empty_folder_is_an_error_that_shows_the_layout(
        self, dataset: Dataset, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="expected") as caught:
            dataset.model_copy(update={"root": tmp_path / "empty"}).samples()
        assert dataset.info.layout in str(caught.value)

    def test_a_missing_folder_is_one_error(self, dataset: Dataset, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            dataset.model_copy(update={"root": tmp_path / "nowhere"}).samples()
        (line,) = caught.value.problems
        assert str(tmp_path / "nowhere") in line

    def test_all_unpaired_files_are_named_at_once(self, dataset: Dataset) -> None:
        first, *_, last = dataset.samples()
        first.image.unlink()
        last.mask.unlink()
        found = dataset.find()
        assert any(str(first.mask) in problem for problem in found.problems)
        pictured = [*found.problems, *found.notes]
        assert any(str(last.image) in line or "without a mask" in line for line in pictured)

    def test_a_mask_of_another_size_is_an_error(self, dataset: Dataset) -> None:
        sample = dataset.samples()[0]
        Image.fromarray(np.zeros((HEIGHT + 2, WIDTH, 3), np.uint8)).save(sample.image)
        with pytest.raises(DataError, match="image's size"):
            dataset.read_mask(sample)


def test_a_layout_is_tested_for_every_kind_with_masks() -> None:
    assert list(LAYOUTS) == list(kinds())


class TestCFD:
    def test_the_wrong_mask_and_images_without_a_mask_are_left_out_with_a_note(self, tmp_path: Path) -> None:
        cfd(tmp_path)
        found = parse_dataset(f"cfd:{tmp_path}").find()
        assert not found.problems
        assert {"042", "201"} & {sample.name for sample in found.samples} == set()
        assert any("042.mat" in note for note in found.notes)
        assert any("201" in note for note in found.notes)

    def test_only_label_2_is_crack_and_other_labels_are_named(self, tmp_path: Path) -> None:
        cfd(tmp_path)
        labels = crack() + np.uint8(1)
        labels[0, :5] = 3
        matlab(tmp_path / "groundTruth/036.mat", labels)
        dataset = parse_dataset(f"cfd:{tmp_path}")
        reading = dataset.inspect_mask(dataset.samples()[0])
        np.testing.assert_array_equal(reading.mask, crack())
        assert reading.remark == "unexpected labels 3 (5 pixels), taken as background"

    @pytest.mark.parametrize(
        "content", [b"", b"text", b"MATLAB 5.0 MAT-file" + b"\0" * 300, b"\0" * 2_000_000]
    )
    def test_a_broken_mask_is_one_error(self, tmp_path: Path, content: bytes) -> None:
        cfd(tmp_path)
        path = tmp_path / "groundTruth/036.mat"
        path.write_bytes(content)
        dataset = parse_dataset(f"cfd:{tmp_path}")
        with pytest.raises(DataError, match="CFD mask") as caught:
            dataset.read_mask(dataset.samples()[0])
        assert len(caught.value.problems) == 1

    def test_a_mat_file_without_the_labels_is_one_error(self, tmp_path: Path) -> None:
        cfd(tmp_path)
        savemat(tmp_path / "groundTruth/036.mat", {"other": np.zeros(3)})
        dataset = parse_dataset(f"cfd:{tmp_path}")
        with pytest.raises(DataError, match=r"groundTruth\.Segmentation"):
            dataset.read_mask(dataset.samples()[0])


class TestFolder:
    def test_stems_that_recur_between_splits_are_led_by_the_split(self, tmp_path: Path) -> None:
        synthetic(tmp_path)
        found = splits(parse_dataset(f"folder:{tmp_path}").samples())
        assert found["train"] == {f"train-{stem}" for stem in STEMS}

    def test_valid_masks_are_used_where_there_are_any(self, tmp_path: Path) -> None:
        LAYOUTS["folder"](tmp_path)
        for stem in STEMS[1:]:
            mask(tmp_path / f"valid/{stem}.png")
        found = parse_dataset(f"folder:{tmp_path}").find()
        assert [STEMS[0] in problem for problem in found.problems] == [True]
        assert all(sample.valid is not None for sample in found.samples)

    def test_a_missing_folder_of_masks_is_one_line_and_not_one_an_image(self, tmp_path: Path) -> None:
        LAYOUTS["folder"](tmp_path)
        (tmp_path / "masks").rename(tmp_path / "labels")
        with pytest.raises(DataError) as caught:
            parse_dataset(f"folder:{tmp_path}").samples()
        (line,) = caught.value.problems
        assert line.startswith(f"{tmp_path / 'masks'}: the folder is missing")

    def test_a_folder_without_an_image_is_named(self, tmp_path: Path) -> None:
        LAYOUTS["folder"](tmp_path)
        for path in (tmp_path / "images").iterdir():
            path.rename(path.with_suffix(".raw"))
        with pytest.raises(DataError) as caught:
            parse_dataset(f"folder:{tmp_path}").samples()
        assert str(tmp_path / "images") in caught.value.problems[0]

    def test_two_files_of_one_stem_are_an_error(self, tmp_path: Path) -> None:
        LAYOUTS["folder"](tmp_path)
        photo(tmp_path / "images/000.bmp")
        with pytest.raises(DataError, match="a stem occurs once"):
            parse_dataset(f"folder:{tmp_path}").samples()

    def test_hidden_files_are_passed_over_and_others_noted(self, tmp_path: Path) -> None:
        LAYOUTS["folder"](tmp_path)
        (tmp_path / "images/.DS_Store").touch()
        (tmp_path / "images/notes.txt").touch()
        found = parse_dataset(f"folder:{tmp_path}").find()
        assert not found.problems
        assert [note.endswith("1 file left out by its suffix: notes.txt") for note in found.notes] == [True]


class TestParsing:
    def test_a_root_may_hold_colons(self) -> None:
        assert parse_dataset("folder:/data/a:b").root == Path("/data/a:b")

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("cdf:/data", "did you mean `cfd:/data`"),
            ("nothing", "known: cfd, deepcrack"),
            ("cfd:", "the root is missing"),
            ("cfd", "the root is missing"),
        ],
    )
    def test_a_wrong_source_is_one_line(self, text: str, says: str) -> None:
        with pytest.raises(SpecError) as caught:
            parse_dataset(text)
        (line,) = caught.value.problems
        assert says in line


def test_a_mistyped_folder_is_told_with_the_one_beside_it_and_the_names_that_its_options_ask_for(tmp_path):
    LAYOUTS["folder"](tmp_path / "good")
    missing = tmp_path / "gud"
    with pytest.raises(DataError) as caught:
        parse_dataset(f"folder:{missing}?suffix=_mask&threshold=127").samples()
    (told,) = caught.value.problems
    beside = f"did you mean `{tmp_path / 'good'}`?"
    assert told.startswith(f"{missing}: the data set's folder is missing; {beside}; expected images/NAME.png")
    assert "masks/NAME_mask.png, JPEG" in told
    (tmp_path / "good/masks").rename(tmp_path / "good/mask")
    with pytest.raises(DataError, match=r"masks: the folder is missing; did you mean `.*/mask`\?"):
        parse_dataset(f"folder:{tmp_path / 'good'}").samples()
