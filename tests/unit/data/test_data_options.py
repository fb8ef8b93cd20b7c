"""Options in the text that names a data set, hints that name them, and equal problems in one line."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fissura.cli.app import run
from fissura.core.errors import DataError, SpecError
from fissura.core.problems import summed_up
from fissura.data.check import check, parse_source
from fissura.data.content import content_digest
from fissura.data.datasets import parse_dataset, parse_datasets
from fissura.data.datasets.folder import Folder
from fissura.data.labelled import ClassFolder, parse_labelled

PHOTO = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
MASK = np.zeros((32, 48), np.uint8)
cv2.line(MASK, (0, 3), (47, 25), 1, 3)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def folder(root: Path, mask: np.ndarray, *, suffix: str = "", count: int = 6) -> Path:
    for number in range(count):
        save(root / "images" / f"w{number}.png", np.roll(PHOTO, 5 * number, axis=1))
        save(root / "masks" / f"w{number}{suffix}.png", mask)
    return root


@pytest.mark.parametrize(
    "text",
    [
        "folder:/data/x",
        "folder:/data/x?suffix=_mask",
        "folder:/data/x?seed=7&validation_share=0.3&test_share=0.25&threshold=127&suffix=_mask",
        "folder:/data/x?suffix=.jpg",
        "folder:/data/x?suffix=%20a%26b%3D",
        "cfd:/data/x?seed=3",
    ],
)
def test_a_data_set_is_written_as_it_is_read(text: str) -> None:
    dataset = parse_dataset(text)
    assert str(dataset) == text
    assert parse_dataset(str(dataset)) == dataset


@pytest.mark.parametrize(
    "text",
    [
        "class_folder:/data/x",
        "class_folder:/data/x?seed=2&order=sound,cracked",
        "patches:folder:/data/x",
        "patches:folder:/data/x?size=32&source.suffix=_mask",
        "severity:0.1:0.2,0.4:folder:/data/x?seed=4&source.seed=5&source.threshold=9",
    ],
)
def test_labelled_data_are_written_as_they_are_read(text: str) -> None:
    (dataset,) = parse_labelled([text])
    assert str(dataset) == text
    assert parse_labelled([str(dataset)]) == (dataset,)


def test_options_are_fields() -> None:
    assert parse_dataset("folder:/x?threshold=127&suffix=_m") == Folder(
        root=Path("/x"), mask_threshold=127, mask_suffix="_m"
    )
    assert parse_source("class_folder:/x?order=a,b") == ClassFolder(root=Path("/x"), order=("a", "b"))
    (patches,) = parse_labelled(["patches:folder:/x?suffix=_m&size=32"])
    assert str(patches) == "patches:folder:/x?size=32&source.suffix=_m"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("folder:/x?treshold=3", "`treshold` is no option of this kind of data; did you mean `threshold`?"),
        ("cfd:/x?suffix=_m", "`suffix` is no option of this kind of data"),
        ("folder:/x?threshold=999", "`threshold` is a whole number from 0 to 254 (got '999')"),
        ("folder:/x?threshold=abc", "`threshold` is a whole number from 0 to 254 (got 'abc')"),
        ("folder:/x?test_share=1", "`test_share` is a number above 0 and below 1 (got '1')"),
        ("folder:/x?root=/y", "`root` is no option"),
    ],
)
def test_a_wrong_option_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=r"^`\w+:/x\?") as caught:
        parse_dataset(text)
    assert says in str(caught.value)


def test_a_folder_that_is_so_called_wins(tmp_path: Path) -> None:
    root = tmp_path / "walls?suffix=_mask"
    root.mkdir()
    assert parse_dataset(f"folder:{root}") == Folder(root=root)
    assert parse_dataset(f"folder:{root}?suffix=_m") == Folder(root=root, mask_suffix="_m")


def test_the_digest_of_data_without_options_is_what_it_was(tmp_path: Path) -> None:
    data = Folder(root=folder(tmp_path, MASK * 255))
    assert "mask_suffix" not in data.plain()
    named = data.model_copy(update={"mask_suffix": "_mask"})
    assert Folder.load(named.plain(), source="plan") == named
    assert content_digest([data]) != content_digest([data.model_copy(update={"mask_threshold": 9})])


@pytest.mark.parametrize("suffix", ["_mask", "_label", "_GT", ".jpg", "-seg"])
def test_a_common_suffix_is_one_line_that_names_the_option_which_reads_it(
    tmp_path: Path, suffix: str
) -> None:
    root = folder(tmp_path, MASK * 255, suffix=suffix)
    (problem,) = check(Folder(root=root)).problems
    option = f"folder:{root}?suffix={suffix}"
    assert f"`{option}`" in problem
    (dataset,) = parse_datasets([option])
    report = check(dataset)
    assert report.problems == ()
    assert report.crack_share == pytest.approx(MASK.mean())


@pytest.mark.parametrize("prefix", ["gt_", "mask-"])
def test_so_is_a_common_prefix(tmp_path: Path, prefix: str) -> None:
    root = folder(tmp_path, MASK * 255)
    for mask in (root / "masks").iterdir():
        mask.rename(mask.with_name(f"{prefix}{mask.name}"))
    (problem,) = check(Folder(root=root)).problems
    option = f"folder:{root}?prefix={prefix}"
    assert f"`{option}`" in problem
    (dataset,) = parse_datasets([option])
    assert check(dataset).problems == ()
    assert "mask_prefix" not in Folder(root=root).plain()


def test_masks_that_are_merely_missing_have_no_common_suffix(tmp_path: Path) -> None:
    root = folder(tmp_path, MASK * 255, count=3)
    (root / "masks" / "w1.png").rename(root / "masks" / "w12.png")
    assert len(check(Folder(root=root)).problems) == 2


def test_antialiased_and_numbered_masks_name_the_threshold_that_reads_them(tmp_path: Path) -> None:
    soft = cv2.GaussianBlur(MASK * 255, (0, 0), 0.7)
    for name, mask, lowest, highest in (("soft", soft, 100, 155), ("matlab", MASK + 1, 1, 1)):
        root = folder(tmp_path / name, mask)
        problems = check(Folder(root=root)).problems
        assert len(problems) == 6
        (threshold,) = set(re.findall(r"`folder:ROOT\?threshold=(\d+)`", " ".join(problems)))
        assert lowest <= int(threshold) <= highest
        report = check(parse_dataset(f"folder:{root}?threshold={threshold}"))
        assert report.problems == ()
        assert report.crack_share == pytest.approx(MASK.mean(), rel=0.2)


class TestFloods:
    def test_of_one_kind_are_one_line_with_a_count_and_examples(self) -> None:
        lines = [
            f"/data/masks/w{number}.png: holds {number + 3} levels (0, {number}); mend"
            for number in range(130)
        ]
        other = ["/data/images/a.png: an image is whole: this one ends", "no colon here"]
        assert summed_up([*lines, *other]) == [
            "/data/masks/w0.png: holds 3 levels (0, 0); mend"
            " (130 alike: w1.png, w2.png, w3.png and 126 more)",
            *other,
        ]

    def test_names_their_folders_where_names_alone_do_not_tell_them_apart(self) -> None:
        paths = [f"/data/masks/{split}/w{number}.png" for split in ("test", "train") for number in range(2)]
        (line,) = summed_up(f"{path}: holds {len(path)} levels; mend" for path in paths)
        assert line.endswith("(4 alike: test/w1.png, train/w0.png, train/w1.png)")

    def test_a_few_are_a_line_each(self) -> None:
        lines = [f"w{number}.png: bad" for number in range(3)]
        assert summed_up(lines) == lines

    def test_are_as_short_in_the_text_of_an_error(self) -> None:
        error = DataError(*(f"/data/masks/w{number}.png: bad" for number in range(5)), "other: worse")
        assert str(error).splitlines() == summed_up(error.problems)
        assert len(error.problems) == 6
        assert len(str(error).splitlines()) == 2

    @pytest.mark.parametrize("command", ["check", "prepare"])
    def test_are_short_in_the_commands(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
    ) -> None:
        root = folder(tmp_path / "data", MASK + 1, count=20)
        cache = ["--cache", str(tmp_path / "cache")] if command == "prepare" else []
        assert run(["data", command, f"folder:{root}", *cache]) == 2
        said = capsys.readouterr()
        text = said.out + said.err
        assert text.count("holds 1, 2 and no 0") == 1
        assert "(20 alike: w1.png, w10.png, w11.png and 16 more)" in text
        assert "20 errors" in text

    def test_are_whole_where_a_program_reads_them(self, tmp_path: Path) -> None:
        root = folder(tmp_path, MASK + 1, count=20)
        assert len(check(Folder(root=root)).plain()["problems"]) == 20
