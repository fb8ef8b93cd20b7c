"""The synthetic set: its masks follow from its centrelines exactly, and its images from the seed alone."""

import hashlib
import json
import math
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from fissura.core.errors import DataError, SpecError
from fissura.data.synthetic import Stroke, SyntheticImage, SyntheticSpec, draw, write
from fissura.data.synthetic.cracks import depth

DENSE = SyntheticSpec(height=72, width=96, crack_width=(1, 6), cracks=(1, 6), branching=1, clean=0)
PLAIN = SyntheticSpec(clean=0, shadow=0, stain=0, low_contrast=0)


def strokes(image: SyntheticImage) -> tuple[Stroke, ...]:
    return tuple(stroke for crack in image.cracks for stroke in crack.strokes)


def distance(x: float, y: float, start: list[float], end: list[float]) -> float:
    """The schoolbook distance of a point from a segment."""
    along = (end[0] - start[0], end[1] - start[1])
    share = ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / (along[0] ** 2 + along[1] ** 2)
    share = min(max(share, 0.0), 1.0)
    return math.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1])


def literal_mask(image: SyntheticImage) -> np.ndarray:
    mask = np.zeros_like(image.mask)
    for stroke in strokes(image):
        points, widths = stroke.points.tolist(), stroke.widths.tolist()
        for start, end, width in zip(points[:-1], points[1:], widths, strict=True):
            for y in range(mask.shape[0]):
                for x in range(mask.shape[1]):
                    if distance(x, y, start, end) <= width / 2:
                        mask[y, x] = 1
    return mask


@pytest.mark.parametrize("index", range(3))
def test_mask_is_the_pixels_within_half_a_width_of_the_centreline(index: int) -> None:
    image = draw(
        SyntheticSpec(height=40, width=48, crack_width=(1, 5), branching=1, clean=0),
        split="train",
        index=index,
    )
    np.testing.assert_array_equal(image.mask, literal_mask(image))


@pytest.mark.parametrize("width", [1.0, 2.5, 4.0, 7.75])
def test_measured_width_is_the_known_width(width: float) -> None:
    spec = SyntheticSpec(height=160, width=160, crack_width=(width, width), cracks=(1, 1), clean=0)
    for index in range(4):
        image = draw(spec, split="test", index=index)
        assert all(np.all(stroke.widths == width) for stroke in strokes(image))
        to_background = ndimage.distance_transform_edt(np.pad(image.mask, 1, mode="edge"))[1:-1, 1:-1]
        points = np.concatenate([stroke.points for stroke in strokes(image)])
        inner = points[np.all((points > width) & (points < 159 - width), axis=1)]
        x, y = np.round(inner).astype(int).T
        # Background centres lie up to a diagonal beyond the edge, and a rough line bulges at its bends.
        assert np.median(to_background[y, x]) == pytest.approx(width / 2 + 0.5, abs=0.5)


def test_straight_crack_has_the_area_of_its_capsule() -> None:
    stroke = Stroke(np.array([[20.0, 30.0], [140.0, 85.0]]), np.array([9.0]))
    area = np.count_nonzero(depth((stroke,), height=120, width=160) >= 0)
    assert area == pytest.approx(9 * math.hypot(120, 55) + math.pi * 4.5**2, rel=0.01)


@pytest.mark.parametrize(
    "spec", [SyntheticSpec(clean=0), DENSE, SyntheticSpec(crack_width=(1, 1), branching=1, clean=0)]
)
def test_mask_has_the_topology_of_the_centrelines(spec: SyntheticSpec) -> None:
    for index in range(25):
        image = draw(spec, split="train", index=index)
        assert len(image.cracks) >= 1
        assert ndimage.label(image.mask, np.ones((3, 3)))[1] == image.topology.components
        background, regions = ndimage.label(image.mask == 0)
        border = np.concatenate((background[0], background[-1], background[:, 0], background[:, -1]))
        assert set(range(1, regions + 1)) <= set(border.tolist()), "the mask encloses a hole"


@pytest.mark.parametrize("spec", [SyntheticSpec(clean=0, branching=1), DENSE])
def test_topology_counts_the_graph_of_the_strokes(spec: SyntheticSpec) -> None:
    for index in range(20):
        image = draw(spec, split="val", index=index)
        degree: dict[tuple[float, ...], int] = {}
        for stroke in strokes(image):
            points = [tuple(point) for point in stroke.points.tolist()]
            for start, end in pairwise(points):
                degree[start], degree[end] = degree.get(start, 0) + 1, degree.get(end, 0) + 1
        topology, counts = image.topology, list(degree.values())
        assert topology.junctions == counts.count(3)
        assert topology.ends == counts.count(1)
        assert max(counts) <= 3
        assert 2 * topology.branches == 3 * topology.junctions + topology.ends


def test_branching_share_decides_whether_there_are_junctions() -> None:
    never = [draw(SyntheticSpec(branching=0, clean=0), split="train", index=i).topology for i in range(15)]
    always = [draw(SyntheticSpec(branching=1, clean=0), split="train", index=i).topology for i in range(15)]
    assert sum(topology.junctions for topology in never) == 0
    assert sum(topology.junctions for topology in always) >= 15


def test_points_and_widths_stay_in_the_image_and_the_range() -> None:
    for index in range(20):
        for stroke in strokes(draw(DENSE, split="train", index=index)):
            assert np.all(stroke.points >= 0)
            assert np.all(stroke.points <= (DENSE.width - 1, DENSE.height - 1))
            assert np.all((stroke.widths >= 1) & (stroke.widths <= 6))
            assert len(stroke.points) == len(stroke.widths) + 1
            np.testing.assert_array_equal(stroke.points * 64, np.round(stroke.points * 64))


def test_crack_is_darker_than_its_surroundings_on_every_surface() -> None:
    for surface in ("concrete", "asphalt", "masonry"):
        mix = {"concrete": 0, "asphalt": 0, "masonry": 0, surface: 1}
        spec = SyntheticSpec.load({**PLAIN.plain(), "surfaces": mix}, source="test")
        for index in range(6):
            image = draw(spec, split="train", index=index)
            around = cv2.dilate(image.mask, np.ones((9, 9), np.uint8)) - cv2.dilate(
                image.mask, np.ones((3, 3))
            )
            grey = image.image.mean(axis=2)
            assert image.surface == surface
            assert grey[image.mask == 1].mean() < 0.8 * grey[around == 1].mean()


@pytest.mark.parametrize("nuisance", ["shadow", "stain", "low_contrast"])
def test_nuisances_change_the_image_with_their_strength_and_never_the_mask(nuisance: str) -> None:
    changes = []
    for strength in (0, 0.3, 1):
        spec = SyntheticSpec.load({**PLAIN.plain(), nuisance: strength}, source="test")
        change = 0.0
        for index in range(6):
            image, plain = (draw(each, split="train", index=index) for each in (spec, PLAIN))
            np.testing.assert_array_equal(image.mask, plain.mask)
            change += np.abs(image.image.astype(int) - plain.image).mean()
        changes.append(change)
    assert changes[0] == 0
    assert 0.5 < changes[1] < changes[2]


def test_image_follows_from_seed_split_and_index_alone() -> None:
    small, large = SyntheticSpec(train=1, seed=7), SyntheticSpec(train=900, val=3, seed=7)
    first, again = (draw(spec, split="train", index=3) for spec in (small, large))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    others = [
        draw(SyntheticSpec(seed=8), split="train", index=3),
        draw(small, split="test", index=3),
        draw(small, split="train", index=4),
    ]
    assert all(np.any(other.image != first.image) for other in others)


def test_clean_share_is_the_share_of_images_without_a_crack() -> None:
    spec = SyntheticSpec(height=64, width=64, clean=0.25)
    clean = [draw(spec, split="train", index=index).topology.components == 0 for index in range(120)]
    assert 0.15 < np.mean(clean) < 0.35


def test_golden_mask() -> None:
    """The same spec draws the same mask for ever; where that must change, raise the generator's number."""
    image = draw(SyntheticSpec(height=64, width=64, clean=0, seed=20), split="test", index=5)
    digest = hashlib.sha256(np.packbits(image.mask).tobytes()).hexdigest()[:16]
    assert (digest, image.surface, image.topology.components) == ("94d06a673aa86c44", "concrete", 3)


def test_draws_twenty_images_a_second_on_one_core() -> None:
    seconds = []
    for _ in range(3):
        start = time.process_time()
        for index in range(10):
            draw(SyntheticSpec(), split="train", index=index)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"cracks": [3, 1]}, "cracks"),
        ({"crack_width": [4.0, 2.0]}, "crack_width"),
        ({"crack_width": [1.0, 60.0]}, "crack_width"),
        ({"crack_width": [0.5, 2.0]}, "crack_width"),
        ({"shadow": 1.5}, "shadow"),
        ({"heigth": 64}, "heigth"),
        ({"surfaces": {"concrete": 0.0, "asphalt": 0.0, "masonry": 0.0}}, "surfaces"),
    ],
)
def test_spec_refuses(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        SyntheticSpec.load(wrong, source="synthetic")


SMALL = SyntheticSpec(train=3, val=1, test=2, height=48, width=64, crack_width=(1.5, 4))


def contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_written_set_holds_images_masks_and_truth(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write(SMALL, tmp_path / "set", on_image=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]
    truth = json.loads((tmp_path / "set/truth.json").read_text())
    assert SyntheticSpec.load(truth["spec"], source="truth.json") == SMALL
    for entry in truth["images"]:
        name = f"{entry['split']}/{entry['name']}.png"
        drawn = draw(SMALL, split=entry["split"], index=int(entry["name"]))
        image = cv2.imread(str(tmp_path / "set/images" / name), cv2.IMREAD_UNCHANGED)
        mask = cv2.imread(str(tmp_path / "set/masks" / name), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image[..., ::-1], drawn.image)
        np.testing.assert_array_equal(mask, drawn.mask * 255)
        told = [stroke for crack in entry["cracks"] for stroke in crack["strokes"]]
        for stroke, known in zip(told, strokes(drawn), strict=True):
            np.testing.assert_array_equal(stroke["points"], known.points)
            np.testing.assert_array_equal(stroke["widths"], known.widths)
    assert len(contents(tmp_path / "set")) == 13
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_writing_the_same_set_again_does_nothing(tmp_path: Path) -> None:
    write(SMALL, tmp_path / "set")
    before = contents(tmp_path / "set")
    write(SMALL, tmp_path / "set")
    assert contents(tmp_path / "set") == before


def test_write_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds no synthetic set"):
        write(SMALL, tmp_path / "foreign")
    assert list(contents(tmp_path / "foreign")) == ["notes.txt"]
    write(SMALL, tmp_path / "set")
    with pytest.raises(DataError, match="another spec"):
        write(SyntheticSpec(seed=1), tmp_path / "set")
    (tmp_path / "set/masks/val/0000.png").unlink()
    with pytest.raises(DataError, match=r"masks/val/0000\.png"):
        write(SMALL, tmp_path / "set")


def test_write_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    (tmp_path / "set").mkdir()
    with pytest.raises(KeyboardInterrupt):
        write(SMALL, tmp_path / "set", on_image=fail)
    assert list(tmp_path.rglob("*")) == [tmp_path / "set"]


def test_set_of_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one image"):
        write(SyntheticSpec(train=0, val=0, test=0), tmp_path / "set")
