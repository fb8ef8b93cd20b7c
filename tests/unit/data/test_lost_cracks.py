"""Thin cracks at a working size: how many are lost, and the rule that keeps them in one piece."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import fissura
from fissura.core.errors import Interrupted
from fissura.data import mask_rules
from fissura.data.cache import prepare
from fissura.data.check import check
from fissura.data.datasets.folder import Folder
from fissura.data.lost import MOST_LOST, LostCracks, both_lost
from fissura.data.masks import MaskReading, decode_mask
from fissura.data.resize import Fixed, _half_crack


def pieces(mask: np.ndarray) -> int:
    return int(cv2.connectedComponents(mask, connectivity=8)[0]) - 1


def wandering(height: int, width: int, *, seed: int, thickness: int = 1) -> np.ndarray:
    """A crack from the left edge to the right one."""
    draw = np.random.default_rng(seed)
    columns = np.arange(0, width + 1, max(2, width // 200))
    rows = np.clip(height // 2 + np.cumsum(draw.integers(-18, 19, len(columns))), 3, height - 4)
    mask = np.zeros((height, width), np.uint8)
    cv2.polylines(mask, [np.stack([columns, rows], 1).astype(np.int32)], False, 1, thickness)
    return mask


def level_lines() -> np.ndarray:
    """Lines where nearest neighbour, eight times smaller, never looks."""
    mask = np.zeros((512, 512), np.uint8)
    mask[[43, 203, 363]] = 1
    return mask


def saved(root: Path, masks: list[np.ndarray]) -> Folder:
    for number, mask in enumerate(masks):
        for folder, pixels in (("images", np.repeat(mask[..., None] * 90, 3, axis=2)), ("masks", mask * 255)):
            path = root / folder / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return Folder(root=root)


@pytest.mark.parametrize("seed", range(5))
def test_a_crack_one_pixel_wide_of_a_large_photograph_stays_in_one_piece(seed: int) -> None:
    mask = wandering(3000, 4000, seed=seed)
    small = Fixed().mask(mask, rule="area")
    assert pieces(small) == pieces(mask) == 1
    assert small.any(axis=0).all(), "it still reaches from edge to edge"
    assert pieces(Fixed().mask(mask)) > 20, "nearest neighbour breaks it"


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(20, 160), st.integers(20, 160)),
    working=st.tuples(st.integers(16, 90), st.integers(16, 90)),
    strokes=st.lists(
        st.tuples(*(st.floats(0, 1) for _ in range(4)), st.integers(1, 14)), min_size=1, max_size=5
    ),
)
def test_by_area_no_piece_is_lost_and_none_breaks(
    size: tuple[int, int], working: tuple[int, int], strokes: list[tuple[float, ...]]
) -> None:
    mask = np.zeros(size, np.uint8)
    for x0, y0, x1, y1, thickness in strokes:
        ends = [(int(x * (size[1] - 1)), int(y * (size[0] - 1))) for x, y in ((x0, y0), (x1, y1))]
        cv2.line(mask, *ends, 1, int(thickness))
    small = Fixed(height=working[0], width=working[1]).mask(mask, rule="area")
    lost = LostCracks.of(mask, small)
    assert small.shape == working
    assert set(np.unique(small)) <= {0, 1}
    assert 1 <= lost.pieces_left <= lost.pieces
    if working[0] <= size[0] and working[1] <= size[1]:
        assert lost.lost_pixels == lost.lost_pieces == 0


@settings(max_examples=60, deadline=None)
@given(
    mask=arrays(np.uint8, st.tuples(st.integers(16, 40), st.integers(16, 40)), elements=st.integers(0, 1)),
    rows=st.integers(3, 16),
    columns=st.integers(3, 16),
)
def test_by_area_half_of_a_pixel_is_half_to_the_last_part_of_it(
    mask: np.ndarray, rows: int, columns: int
) -> None:
    height, width = mask.shape
    # each pixel cut into rows x columns equal parts, of which height x width make a larger one
    parts = np.kron(mask, np.ones((rows, columns), np.int64)).reshape(rows, height, columns, width)
    expected = 2 * parts.sum(axis=(1, 3)) >= height * width
    np.testing.assert_array_equal(_half_crack(mask, rows=rows, columns=columns), expected)


@given(mask=arrays(np.uint8, st.tuples(st.integers(16, 50), st.integers(16, 50)), elements=st.integers(0, 1)))
def test_what_the_area_rule_loses_is_known_without_shrinking(mask: np.ndarray) -> None:
    resize = Fixed(height=16, width=16)
    nearest, area = both_lost(resize, mask)
    small = resize.mask(mask, rule="area")
    assert nearest == LostCracks.of(mask, resize.mask(mask))
    assert area == (LostCracks.of(mask, small) if nearest.any else nearest)


def test_by_area_a_wide_crack_keeps_its_width() -> None:
    mask = np.zeros((3000, 4000), np.uint8)
    mask[1203:1303] = 1
    small = Fixed().mask(mask, rule="area")
    assert small.sum(axis=0).tolist() == [round(100 * 512 / 3000)] * 512


def test_lost_cracks_are_counted() -> None:
    mask = level_lines()
    gone = LostCracks.of(mask, Fixed(height=64, width=64).mask(mask))
    assert gone == LostCracks(
        masks=1, emptied=1, pixels=3 * 512, lost_pixels=3 * 512, pieces=3, pieces_left=0, lost_pieces=3
    )
    assert "100.0% of the crack pixels lost, 3 of 3 pieces gone, 0 left, 1 of 1 masks keep none" in str(gone)
    kept = LostCracks.of(mask, Fixed(height=64, width=64).mask(mask, rule="area"))
    assert (kept.lost_pixels, kept.pieces_left, kept.too_many) == (0, 3, False)


class TestPreparation:
    def test_shrinks_by_area_where_nearest_neighbour_loses_more_than_a_share(self, tmp_path: Path) -> None:
        data = saved(tmp_path / "data", [level_lines()] * 6)
        prepared = prepare([data], resize=Fixed(height=64, width=64), directory=tmp_path / "cache")
        assert all(pieces(prepared.mask(index)) == 3 for index in range(6))
        (remark,) = prepared.remarks
        assert "64x64" in remark
        assert "100.0% of the crack pixels lost, 18 of 18 pieces gone" in remark
        assert "by area: 0.0% of the crack pixels lost, 0 of 18 pieces gone, 18 left" in remark
        again = prepare([data], resize=Fixed(height=64, width=64), directory=tmp_path / "cache")
        assert (again.digest, again.remarks) == (prepared.digest, prepared.remarks)

    def test_does_as_a_recipe_says(self, tmp_path: Path) -> None:
        data = saved(tmp_path / "data", [level_lines()] * 2)
        nearest = Fixed(height=64, width=64, masks="nearest")
        prepared = prepare([data], resize=nearest, directory=tmp_path / "cache")
        assert not prepared.mask(0).any()
        assert "2 of 2 masks keep none; `data.resize.masks=area` keeps cracks whole" in prepared.remarks[0]
        area = prepare([data], resize=Fixed(height=64, width=64, masks="area"), directory=tmp_path / "cache")
        assert area.digest != prepared.digest
        assert pieces(area.mask(0)) == 3

    def test_keeps_nearest_neighbour_and_silence_where_cracks_are_wide(self, tmp_path: Path) -> None:
        masks = [wandering(256, 384, seed=seed, thickness=20) for seed in range(3)]
        data = saved(tmp_path / "data", masks)
        resize = Fixed(height=128, width=192)
        prepared = prepare([data], resize=resize, directory=tmp_path / "cache")
        assert prepared.remarks == ()
        for index, mask in enumerate(masks):
            np.testing.assert_array_equal(prepared.mask(index), resize.mask(mask))


def test_a_check_says_what_is_lost_at_the_working_size(tmp_path: Path) -> None:
    data = saved(tmp_path, [level_lines()] * 3)
    notes = check(data, resize=Fixed(height=64, width=64)).notes
    (line,) = [note for note in notes if "masks at 64x64" in note]
    assert "100.0% of the crack pixels lost, 9 of 9 pieces gone" in line
    assert not [note for note in check(data).notes if "masks at" in note], "at 512x512 nothing is lost"
    assert 0 < MOST_LOST < 0.2


class TestCommands:
    def test_prepare_says_what_is_lost(self, tmp_path: Path) -> None:
        data = saved(tmp_path / "data", [level_lines()] * 6)
        said: list[str] = []
        size = Fixed(height=64, width=64)
        fissura.prepare(f"folder:{data.root}", resize=size, cache=tmp_path / "cache", say=said.append)
        (line,) = said
        assert "18 of 18 pieces gone" in line

    def test_train_says_it_before_it_trains(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = saved(tmp_path / "data", [level_lines()] * 6)
        said: list[str] = []

        def stopped(*_: object, **__: object) -> None:
            raise Interrupted("before the first epoch")

        monkeypatch.setattr("fissura.distributed.training.train_segmenter.fit", stopped)
        small = {"data.resize.kind": "fixed", "data.resize.height": 64, "data.resize.width": 64}
        with pytest.raises(Interrupted):
            fissura.train(
                "small_unet",
                data=f"folder:{data.root}",
                storage=tmp_path / "studies",
                cache=tmp_path / "cache",
                fixed={**small, "data.crop.size": 64},
                say=said.append,
            )
        line, begin = said
        assert "so they are shrunk by area" in line
        assert begin.startswith("training small_unet on ")


@pytest.mark.parametrize(("kept", "decoded"), [(mask_rules.MOST_KEPT, 1), (512 * 512, 2)])
def test_a_mask_by_which_the_rule_is_chosen_is_decoded_once_while_there_is_room_to_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, decoded: int
) -> None:
    data = saved(tmp_path / "lines", [level_lines(), level_lines()])
    opened = list[str]()

    def read(path: Path) -> MaskReading:
        opened.append(path.name)
        return decode_mask(path)

    monkeypatch.setattr(mask_rules, "MOST_KEPT", kept)
    monkeypatch.setattr(Folder, "decode_mask", lambda _, path: read(path))
    held = prepare([data], resize=Fixed(height=64, width=64), directory=tmp_path / "cache")
    assert "so they are shrunk by area" in held.remarks[0]
    assert sorted(opened) == ["00.png", *["01.png"] * decoded]  # the second one is behind the first
