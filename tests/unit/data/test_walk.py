"""What is read of a user's folders, and that all else which could be an image is named."""

import io
import os
import sys
import unicodedata
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageFile

from fissura.core.errors import DataError
from fissura.data.check import check
from fissura.data.datasets.folder import Folder
from fissura.data.images import read_rgb
from fissura.data.labelled.class_folder import ClassFolder
from fissura.metrics import parse_protocol
from fissura.reports.score import score_folders

PHOTO = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
MASK = np.zeros((16, 24), np.uint8)
MASK[4] = 255
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Brücke é") for form in ("NFC", "NFD"))
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", "__MACOSX/0.png", "@eaDir/0.png")


def save(path: Path, array: np.ndarray = PHOTO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def pairs(root: Path, stems: str, *, below: str = "") -> None:
    for stem in stems:
        save(root / "images" / below / f"{stem}.png", PHOTO + np.uint8(ord(stem)))
        save(root / "masks" / below / f"{stem}.png", MASK)


def notes(root: Path) -> str:
    found = Folder(root=root).find()
    assert found.problems == ()
    return "\n".join(found.notes)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val", "Valid", "VALIDATION"])
def test_val_goes_by_three_names_in_letters_of_any_size(tmp_path: Path, name: str) -> None:
    pairs(tmp_path, "abc", below="train")
    pairs(tmp_path, "de", below=name)
    pairs(tmp_path, "f", below="test")
    found = Folder(root=tmp_path).find()
    assert (found.problems, found.notes) == ((), ())
    assert [sample.split for sample in found.samples] == [*["train"] * 3, *["val"] * 2, "test"]


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_splits_may_lie_outside_of_images_and_masks(tmp_path: Path, name: str) -> None:
    for split, stems in {"Train": "abc", name: "de", "test": "f"}.items():
        pairs(tmp_path / split, stems)
    save(tmp_path / "loose.png")
    save(tmp_path / "test" / "more" / "x.png")
    found = Folder(root=tmp_path).find()
    assert found.problems == ()
    assert [sample.split for sample in found.samples] == [*["train"] * 3, *["val"] * 2, "test"]
    assert ["loose.png" in found.notes[0], "more (1 image)" in found.notes[1]] == [True, True]


def test_predictions_and_masks_that_differ_by_an_ending_are_one_line(tmp_path: Path) -> None:
    for stem in "abcde":
        save(tmp_path / "maps" / f"{stem}.png", MASK)
        save(tmp_path / "masks" / f"{stem}_label.png", MASK)
    with pytest.raises(DataError) as refused:
        score_folders(tmp_path / "maps", tmp_path / "masks", protocol=parse_protocol("pixel"))
    (line,) = refused.value.problems
    assert "the masks end in `_label` besides (5 masks, 5 predictions)" in line


def test_one_mask_with_an_ending_among_others_without_is_named(tmp_path: Path) -> None:
    pairs(tmp_path, "abcd")
    (tmp_path / "masks/d.png").rename(tmp_path / "masks/d_mask.png")
    problems = Folder(root=tmp_path).find().problems
    assert [problem.partition(": ")[0] for problem in problems] == [
        f"{tmp_path}/images/d.png",
        f"{tmp_path}/masks/d_mask.png",
    ]


def test_images_and_masks_may_name_a_split_differently(tmp_path: Path) -> None:
    pairs(tmp_path, "abc", below="train")
    pairs(tmp_path, "de", below="valid")
    (tmp_path / "masks" / "valid").rename(tmp_path / "masks" / "val")
    assert notes(tmp_path) == ""


def test_files_beside_split_folders_are_named(tmp_path: Path) -> None:
    pairs(tmp_path, "abc", below="train")
    pairs(tmp_path, "xy")
    said = notes(tmp_path)
    for side in ("images", "masks"):
        assert (
            f"{tmp_path / side}: images left out, beside the folders that are read (2): x.png, y.png" in said
        )


def test_photographs_that_are_not_read_are_named_there_too(tmp_path: Path) -> None:
    pairs(tmp_path, "abc", below="train")
    for path in ("images/IMG_1.HEIC", "masks/b.dng", "phone/IMG_2.heic", "phone/notes.txt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    said = notes(tmp_path)
    assert f"{tmp_path / 'images'}: images left out, beside the folders that are read (1): IMG_1.HEIC" in said
    assert f"{tmp_path / 'masks'}: images left out, beside the folders that are read (1): b.dng" in said
    assert f"{tmp_path}: folders left out (1): phone (1 image)" in said


@pytest.mark.parametrize("below", ["", "train"])
def test_folders_that_are_no_split_are_named_with_their_images(tmp_path: Path, below: str) -> None:
    pairs(tmp_path, "abc", below=below)
    pairs(tmp_path, "xyz", below="bridge2/near")
    assert f"{tmp_path / 'images'}: folders left out (1): bridge2 (3 images)" in notes(tmp_path)


def test_folders_below_a_split_and_images_in_the_root_are_named(tmp_path: Path) -> None:
    pairs(tmp_path, "abc", below="train")
    pairs(tmp_path, "x", below="train/more")
    save(tmp_path / "loose.png")
    save(tmp_path / "extra" / "e.png")
    said = notes(tmp_path)
    assert f"{tmp_path / 'images/train'}: folders left out (1): more (1 image)" in said
    assert f"{tmp_path}: images left out, beside the folders that are read (1): loose.png" in said
    assert f"{tmp_path}: folders left out (1): extra (1 image)" in said


def test_a_set_of_classes_names_loose_images_and_folders_below(tmp_path: Path) -> None:
    for path in ("crack/a.png", "no_crack/b.png", "crack/deeper/c.png", "loose.png"):
        save(tmp_path / path)
    said = "\n".join(ClassFolder(root=tmp_path).files().notes)
    assert "deeper (1 image)" in said
    assert "(1): loose.png" in said


def test_a_link_to_nothing_and_a_pipe_are_problems(tmp_path: Path) -> None:
    pairs(tmp_path, "abc")
    (tmp_path / "images/x.png").symlink_to(tmp_path / "moved/x.png")
    (tmp_path / "masks/x.png").symlink_to(tmp_path / "moved/y.png")
    os.mkfifo(tmp_path / "images/pipe.png")
    assert Folder(root=tmp_path).find().problems == (
        f"{tmp_path}/images/pipe.png: is no regular file; mend or remove it",
        f"{tmp_path}/images/x.png: is a link to a file that is not there; mend or remove it",
        f"{tmp_path}/masks/x.png: is a link to a file that is not there; mend or remove it",
    )


def test_what_an_operating_system_leaves_is_passed_over_everywhere(tmp_path: Path) -> None:
    pairs(tmp_path / "set", "abc")
    for path in ("crack/a.png", "no_crack/b.png"):
        save(tmp_path / "classes" / path)
    folders = ("set", "set/images", "set/masks", "classes", "classes/crack")
    for folder in folders:
        for litter in LITTER:
            (tmp_path / folder / litter).parent.mkdir(exist_ok=True)
            (tmp_path / folder / litter).write_bytes(b"\0")
    assert notes(tmp_path / "set") == ""
    listing = ClassFolder(root=tmp_path / "classes").files()
    assert (listing.problems, listing.notes) == ((), ())
    assert listing.classes == ("no_crack", "crack")
    scored = score_folders(tmp_path / "set/masks", tmp_path / "set/masks", protocol=parse_protocol("pixel"))
    assert len(scored.images) == 3


def test_names_are_equal_however_their_accents_are_written(tmp_path: Path) -> None:
    assert COMPOSED != DECOMPOSED
    save(tmp_path / "images" / f"{DECOMPOSED}.png")
    save(tmp_path / "masks" / f"{COMPOSED}.png", MASK)
    (sample,) = Folder(root=tmp_path).find().samples
    assert sample.name == COMPOSED
    save(tmp_path / "maps" / f"{DECOMPOSED}.png", MASK)
    report = score_folders(tmp_path / "maps", tmp_path / "masks", protocol=parse_protocol("pixel"))
    assert report.micro.f1 == 1.0


class TestHeic:
    """A photograph of an iPhone: named, and read where `pillow-heif` is installed."""

    BYTES = b"\0\0\0\x18ftypheic" + bytes(40)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        pairs(tmp_path, "ab")
        save(tmp_path / "masks" / "IMG_1.png", MASK)
        (tmp_path / "images" / "IMG_1.HEIC").write_bytes(self.BYTES)
        return tmp_path

    @pytest.fixture
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A `pillow_heif` that takes every HEIC for `PHOTO`."""

        class Heif(ImageFile.ImageFile):
            format = "HEIF"

            def _open(self) -> None:
                self.fp.seek(0)
                assert self.fp.read(12)[4:] == b"ftypheic"
                self._size, self._mode = (24, 16), "RGB"
                self.fp = io.BytesIO(PHOTO.tobytes())
                self.tile = [ImageFile._Tile("raw", (0, 0, 24, 16), 0, ("RGB", 0, 1))]

        package = ModuleType("pillow_heif")
        package.register_heif_opener = lambda: Image.register_open("HEIF", Heif)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pillow_heif", package)
        monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
        monkeypatch.setattr(Image, "ID", [*Image.ID])

    def test_is_named_by_its_name_and_its_kind(self, folder: Path) -> None:
        report = check(Folder(root=folder))
        (note,) = [note for note in report.notes if "IMG_1.HEIC" in note]
        assert "HEIC is read where pillow-heif is installed" in note
        path = folder / "images" / "IMG_1.png"
        path.write_bytes(self.BYTES)
        with pytest.raises(DataError, match=r"IMG_1\.png: .* is a HEIC photograph; .* pillow-heif"):
            read_rgb(path)

    @pytest.mark.usefixtures("installed")
    def test_is_read_where_the_package_is_installed(self, folder: Path) -> None:
        data = Folder(root=folder)
        found = data.find()
        assert (found.problems, found.notes) == ((), ())
        sample = next(sample for sample in found.samples if sample.name == "IMG_1")
        np.testing.assert_array_equal(data.read_image(sample), PHOTO)
        assert data.read_mask(sample).shape == (16, 24)

    @pytest.mark.usefixtures("installed")
    def test_gives_way_to_the_jpeg_that_was_made_of_it(self, folder: Path) -> None:
        save(folder / "images" / "IMG_1.jpg")
        found = Folder(root=folder).find()
        assert found.problems == ()
        assert {sample.image.name for sample in found.samples} == {"a.png", "b.png", "IMG_1.jpg"}
