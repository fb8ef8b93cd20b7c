"""Photographs with an EXIF turn beside masks that were drawn without it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fissura.core.errors import DataError
from fissura.data.cache import prepare
from fissura.data.check import check
from fissura.data.datasets.folder import Folder
from fissura.data.resize import Native

QUARTER, WITHIN = (5, 6, 7, 8), (2, 3, 4)


def saved(
    root: Path, *, orientation: int, shape: tuple[int, int], count: int = 4, mask_tag: int = 1
) -> Folder:
    for number in range(count):
        draw = np.random.default_rng(number)
        pixels = draw.integers(0, 256, (*shape, 3), dtype=np.uint8)
        mask = np.zeros(shape, np.uint8)
        mask[number + 3] = 255
        for folder, array, tag, kind in (
            ("images", pixels, orientation, "jpg"),
            ("masks", mask, mask_tag, "png"),
        ):
            exif = Image.Exif()
            exif[0x0112] = tag
            path = root / folder / f"{number}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path, **({} if tag == 1 else {"exif": exif}))
    return Folder(root=root)


@pytest.mark.parametrize("orientation", QUARTER)
def test_a_mask_of_the_size_that_the_file_has_names_exif_and_the_cure(
    tmp_path: Path, orientation: int
) -> None:
    data = saved(tmp_path, orientation=orientation, shape=(24, 40))
    problems = check(data).problems
    assert problems
    for problem in problems:
        assert "EXIF" in problem
        assert f"orientation {orientation}" in problem
        assert "remove the tag" in problem
        assert "resize" not in problem
    with pytest.raises(DataError, match="EXIF"):
        prepare([data], resize=Native(), directory=tmp_path / "cache")


@pytest.mark.parametrize(
    ("orientation", "shape"), [*((tag, (24, 40)) for tag in WITHIN), *((tag, (32, 32)) for tag in QUARTER)]
)
def test_where_sizes_cannot_tell_the_photographs_are_counted(
    tmp_path: Path, orientation: int, shape: tuple[int, int]
) -> None:
    data = saved(tmp_path / "data", orientation=orientation, shape=shape)
    report = check(data)
    assert report.problems == ()
    (line,) = [line for line in report.warnings if "EXIF" in line]
    assert "(4 of 4): 0, 1, 2, 3" in line
    (remark,) = prepare([data], resize=Native(), directory=tmp_path / "cache").remarks
    assert remark == line


@pytest.mark.parametrize(
    ("orientation", "shape", "mask_tag"), [(1, (24, 40), 1), (3, (24, 40), 3), (6, (32, 32), 6)]
)
def test_upright_photographs_and_masks_turned_alike_are_no_matter(
    tmp_path: Path, orientation: int, shape: tuple[int, int], mask_tag: int
) -> None:
    data = saved(tmp_path / "data", orientation=orientation, shape=shape, mask_tag=mask_tag)
    report = check(data)
    assert not [line for line in (*report.problems, *report.warnings) if "EXIF" in line]


def test_a_mask_drawn_on_the_upright_photograph_is_right(tmp_path: Path) -> None:
    data = saved(tmp_path / "data", orientation=6, shape=(24, 40))
    for path in (tmp_path / "data" / "masks").iterdir():
        Image.open(path).transpose(Image.Transpose.ROTATE_270).save(path)
    report = check(data)
    assert not [line for line in (*report.problems, *report.warnings) if "EXIF" in line]


def test_another_size_is_no_matter_of_exif(tmp_path: Path) -> None:
    data = saved(tmp_path / "data", orientation=6, shape=(24, 40), count=2)
    Image.new("L", (10, 10)).save(tmp_path / "data" / "masks" / "0.png")
    assert any("resize it by nearest neighbour" in problem for problem in check(data).problems)
