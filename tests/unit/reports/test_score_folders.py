"""Scoring a folder of probability maps against a folder of masks, and naming all that is wrong with them."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score, precision_score, recall_score

from fissura.core.errors import DataError
from fissura.metrics import parse_protocol
from fissura.reports.score import score_folders

DATA = ("data_name", "data_digest")
RULES = ("precision", "recall", "f1")


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def pair(rng, *, shape=(24, 30), crack=True):
    mask = np.zeros(shape, np.uint8)
    if crack:
        mask[shape[0] // 2, 3:-3] = 255
    return np.clip(rng.normal(40 + 0.6 * mask, 60), 0, 255).astype(np.uint8), mask


@pytest.fixture
def folders(tmp_path, rng):
    """Three images with a crack each: (predictions, masks)."""
    for name in ("a", "b", "c"):
        probability, mask = pair(rng)
        save(tmp_path / "predictions" / f"{name}.png", probability)
        save(tmp_path / "masks" / f"{name}.png", mask)
    return tmp_path / "predictions", tmp_path / "masks"


def problems(*folders, **options):
    with pytest.raises(DataError) as caught:
        score_folders(*folders, **{"protocol": parse_protocol("pixel"), **options})
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


def read(folder, *names):
    return [np.array(Image.open(folder / f"{name}.png")) for name in names]


def test_pixel_scores_are_scikit_learn_s(folders):
    predicted = [(values / 255 >= 0.5).ravel() for values in read(folders[0], *"abc")]
    labelled = [(values == 255).ravel() for values in read(folders[1], *"abc")]
    report = score_folders(*folders, protocol=parse_protocol("pixel"), threshold=0.5)
    measures = dict(zip(RULES, (precision_score, recall_score, f1_score), strict=True))
    plain = report.plain()
    assert list(plain) == [*DATA, "protocol", "threshold", "images", "micro", "macro"]
    assert plain == {
        "data_name": f"{folders[1].parent.name}/masks",
        "data_digest": plain["data_digest"],
        "protocol": "pixel",
        "threshold": 0.5,
        "images": 3,
        "micro": {
            name: pytest.approx(measure(np.concatenate(labelled), np.concatenate(predicted)))
            for name, measure in measures.items()
        },
        "macro": {
            name: pytest.approx(np.mean([measure(*each) for each in zip(labelled, predicted, strict=True)]))
            for name, measure in measures.items()
        },
    }


@pytest.mark.parametrize(
    ("protocol", "scores", "more"),
    [
        ("pixel", RULES, []),
        ("tolerant:2", RULES, []),
        ("overlap", (*RULES, "dice", "iou"), []),
        ("flexible:2", RULES, ["ods", "ois", "ap"]),
    ],
)
def test_each_protocol_prints_its_own_scores(folders, protocol, scores, more):
    plain = score_folders(*folders, protocol=parse_protocol(protocol)).plain()
    assert list(plain) == [*DATA, "protocol", "threshold", "images", "micro", "macro", *more]
    assert tuple(plain["micro"]) == tuple(plain["macro"]) == scores
    assert plain["protocol"] == protocol
    assert all(0 <= value <= 1 for pooled in ("micro", "macro") for value in plain[pooled].values())


def test_the_best_threshold_of_the_data_set_scores_what_its_sweep_says(folders):
    swept = score_folders(*folders, protocol=parse_protocol("flexible:1")).plain()
    at_best = score_folders(
        *folders, protocol=parse_protocol("flexible:1"), threshold=swept["ods"]["threshold"]
    )
    assert at_best.plain()["micro"] == {name: swept["ods"][name] for name in RULES}
    assert list(swept["ois"]) == ["mean", "sd"]


def test_rows_hold_the_counts_of_each_image(folders):
    values, mask = read(folders[0], "b")[0], read(folders[1], "b")[0]
    row = score_folders(*folders, protocol=parse_protocol("pixel"), threshold=0.3).rows()[1]
    predicted = values / 255 >= 0.3
    hits = int((predicted & (mask > 0)).sum())
    assert row["image"] == "b"
    assert (row["height"], row["width"], row["crack_pixels"]) == (24, 30, 24)
    assert (row["true_positive"], row["found"]) == (hits, hits)
    assert (row["false_positive"], row["missed"]) == (int((predicted & (mask == 0)).sum()), 24 - hits)
    assert row["f1"] == pytest.approx(f1_score((mask > 0).ravel(), predicted.ravel()))


@pytest.mark.parametrize("threshold", [0, 51 / 255, 0.2, 1])
def test_a_pixel_is_predicted_where_its_probability_is_at_least_the_threshold(tmp_path, threshold):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save(tmp_path / "predictions" / "x.png", ramp)
    save(tmp_path / "masks" / "x.png", np.full((16, 16), 255, np.uint8))
    folders = tmp_path / "predictions", tmp_path / "masks"
    row = score_folders(*folders, protocol=parse_protocol("pixel"), threshold=threshold).rows()[0]
    assert row["found"] == (np.arange(256) / 255 >= threshold).sum()


def test_masks_of_other_formats_and_of_0_and_1_score_alike(folders):
    _, masks = folders
    before = score_folders(*folders, protocol=parse_protocol("tolerant:1")).plain()
    for name, suffix, scale in (("a", "gif", 1), ("b", "bmp", 1), ("c", "tif", 255)):
        (mask,) = read(masks, name)
        save(masks / f"{name}.{suffix}", mask // np.uint8(scale))
        (masks / f"{name}.png").unlink()
    assert score_folders(*folders, protocol=parse_protocol("tolerant:1")).plain() == before


def test_a_jpeg_mask_is_thresholded_and_remarked_on(folders):
    _, masks = folders
    (mask,) = read(masks, "a")
    save(masks / "a.jpg", mask, quality=80)
    (masks / "a.png").unlink()
    report = score_folders(*folders, protocol=parse_protocol("pixel"))
    assert len(report.remarks) == 1
    assert "a.jpg" in report.remarks[0]
    assert "grey" in report.remarks[0]


def test_pixels_outside_the_field_of_view_are_left_out(folders, tmp_path):
    predictions, masks = folders
    valid = np.zeros((24, 30), np.uint8)
    valid[6:18, 5:20] = 255
    expected = []
    for name in "abc":
        save(tmp_path / "valid" / f"{name}.gif", valid)
        (values,), (mask,) = read(predictions, name), read(masks, name)
        expected.append(f1_score(mask[6:18, 5:20].ravel() > 0, values[6:18, 5:20].ravel() >= 128))
    report = score_folders(*folders, protocol=parse_protocol("pixel"), valid=tmp_path / "valid")
    assert report.macro.f1 == pytest.approx(np.mean(expected))
    assert [row["crack_pixels"] for row in report.rows()] == [15, 15, 15]


def test_images_without_a_crack_are_also_reported_as_false_alarms(folders, rng):
    predictions, masks = folders
    for name, alarms in (("d", 3), ("e", 0)):
        probability, mask = np.zeros((2, 50, 100), np.uint8)
        probability[10, : 2 * alarms : 2] = 255
        save(predictions / f"{name}.png", probability)
        save(masks / f"{name}.png", mask)
    plain = score_folders(*folders, protocol=parse_protocol("pixel")).plain()
    assert list(plain)[-1] == "crack_free"
    assert plain["images"] == 5
    assert plain["crack_free"] == {
        "images": 2,
        "pixels_per_image": 1.5,
        "components_per_image": 1.5,
        "pixels_per_megapixel": 300.0,
        "components_per_megapixel": 300.0,
    }


def test_progress_is_told_image_by_image(folders):
    told = []
    score_folders(
        *folders, protocol=parse_protocol("pixel"), on_image=lambda done, of: told.append((done, of))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_files_of_other_kinds_and_hidden_files_are_passed_over(folders):
    (folders[0] / "metrics.json").write_text("{}")
    (folders[1] / ".d.png").write_bytes(b"")
    assert score_folders(*folders, protocol=parse_protocol("pixel")).plain()["images"] == 3


@pytest.mark.parametrize(
    ("name", "fault", "said"),
    [
        ("a.png", lambda path: path.write_text("no image"), "whatever its name says"),
        ("a.png", lambda path: path.write_bytes(b""), "empty"),
        ("a.png", lambda path: path.write_bytes(path.read_bytes()[:-60]), "truncated"),
        ("a.png", lambda path: save(path, np.zeros((24, 30), np.uint16)), "more than 8 bits"),
        ("a.png", lambda path: save(path, np.zeros((24, 30, 3), np.uint8)), "8-bit grey PNG.*RGB"),
        ("a.png", lambda path: Image.new("LA", (30, 24)).save(path), "8-bit grey PNG.*LA"),
        ("a.png", lambda path: Image.new("L", (30, 24)).save(path, format="JPEG"), "a whole PNG file"),
        ("a.png", lambda path: save(path, np.zeros((30, 24), np.uint8)), "24x30.*30x24"),
        ("a.jpg", lambda path: save(path, np.zeros((24, 30), np.uint8)), "holds no .jpg file"),
    ],
)
def test_a_bad_prediction_is_named_in_one_line(folders, name, fault, said):
    fault(folders[0] / name)
    (problem,) = problems(*folders)
    assert problem.startswith(str(folders[0] / name))
    assert re.search(said, problem)


@pytest.mark.parametrize(
    ("levels", "said"), [((0, 128, 255), "3"), ((64, 128), "64, 128"), ((0, 1, 255), "0, 1, 255")]
)
def test_a_mask_of_other_greys_is_named_in_one_line(folders, levels, said):
    save(folders[1] / "a.png", np.resize(np.array(levels, np.uint8), (24, 30)))
    (problem,) = problems(*folders)
    assert str(folders[1] / "a.png") in problem
    assert said in problem


@pytest.mark.parametrize("crack", [1, 3, 128, 254])
def test_a_mask_of_0_and_one_other_level_is_read_as_in_a_data_set(folders, crack):
    expected = score_folders(*folders, protocol=parse_protocol("pixel")).plain()
    for path in folders[1].iterdir():
        save(path, np.asarray(Image.open(path)) // 255 * np.uint8(crack))
    found = score_folders(*folders, protocol=parse_protocol("pixel")).plain()
    assert [found[name] for name in ("micro", "macro")] == [expected[name] for name in ("micro", "macro")]


def test_every_problem_is_named_at_once(folders, tmp_path):
    predictions, masks = folders
    save(predictions / "d.png", np.zeros((24, 30), np.uint8))
    save(masks / "e.png", np.zeros((24, 30), np.uint8))
    (predictions / "a.png").write_text("no image")
    save(masks / "a.png", np.zeros((24, 30, 3), np.uint16)[..., 0])
    save(masks / "b.png", np.zeros((5, 6), np.uint8))
    save(tmp_path / "valid" / "b.png", np.zeros((24, 30), np.uint8))
    save(tmp_path / "valid" / "a.png", np.full((24, 30), 255, np.uint8))
    found = problems(*folders, valid=tmp_path / "valid")
    named = [
        (masks / "e.png", "a prediction of the same name"),
        (predictions / "d.png", "a mask of the same name"),
        (masks / "c.png", "a mask of valid pixels of the same name"),
        (predictions / "a.png", "whatever its name says"),
        (masks / "a.png", "more than 8 bits"),
        (predictions / "b.png", "6x5"),
        (tmp_path / "valid" / "b.png", "at least one"),
    ]
    assert len(found) == len(named)
    for problem, (path, said) in zip(found, named, strict=True):
        assert problem.startswith(str(path))
        assert said in problem


def test_a_name_that_occurs_twice_is_named(folders):
    save(folders[1] / "a.bmp", np.zeros((24, 30), np.uint8))
    (problem,) = problems(*folders)
    assert "a.bmp is there too" in problem


def test_missing_and_empty_folders_and_a_wrong_threshold_are_named_at_once(tmp_path):
    (tmp_path / "empty").mkdir()
    found = problems(tmp_path / "none", tmp_path / "empty", threshold=1.5, valid=tmp_path / "nor this")
    assert len(found) == 4
    for problem, said in zip(
        found, ("such as 0.3, not 1.5", "none", "this one has none", "nor this"), strict=True
    ):
        assert said in problem


def test_scoring_starts_without_torch_and_without_ray():
    code = (
        "import sys, fissura.reports.score; print({'torch', 'ray', 'sklearn', 'pandas'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


@pytest.mark.parametrize("crack", [1, 2, 100, 200, 255])
@pytest.mark.parametrize("protocol", ["pixel", "tolerant:2", "overlap"])
def test_perfect_predictions_of_two_levels_are_perfect(tmp_path, rng, crack, protocol):
    for name in ("a", "b", "c"):
        _, mask = pair(rng, crack=name != "c")
        save(tmp_path / "masks" / f"{name}.png", mask)
        save(tmp_path / "maps" / f"{name}.png", (mask > 0).astype(np.uint8) * np.uint8(crack))
    report = score_folders(tmp_path / "maps", tmp_path / "masks", protocol=parse_protocol(protocol))
    assert (report.micro.precision, report.micro.recall, report.micro.f1) == (1.0, 1.0, 1.0)
    told = [remark for remark in report.remarks if f"no map holds a level but 0 and {crack}" in remark]
    assert len(told) == (crack != 255)


@pytest.mark.parametrize("levels", [(0, 1, 2), (0, 3), (0, 255)])
def test_maps_of_several_levels_are_probabilities(tmp_path, rng, levels):
    for name, highest in (("a", 1), ("b", len(levels) - 1)):
        _, mask = pair(rng)
        save(tmp_path / "masks" / f"{name}.png", mask)
        map_ = np.zeros(mask.shape, np.uint8)
        map_[: mask.shape[0] // 2] = 1
        map_[0] = levels[highest]
        save(tmp_path / "maps" / f"{name}.png", map_)
    report = score_folders(tmp_path / "maps", tmp_path / "masks", protocol=parse_protocol("pixel"))
    told = "they are read as probabilities; if they are class indices, write 255"
    assert [told in remark for remark in report.remarks] == [True] * (255 not in levels)
    assert report.micro.recall == 0.0


def test_grey_masks_are_read_by_the_threshold_that_the_error_names(folders, fissura):
    path = folders[1] / "b.png"
    mask = np.array(Image.open(path))
    mask[0, :4], mask[1, :4] = 60, 180
    save(path, mask)
    (problem,) = problems(*folders)
    (threshold,) = re.findall(r"`--mask-threshold (\d+)` of `fissura score`", problem)
    words = ("score", *folders, "--protocol", "pixel", "--json")
    assert fissura(*words).code == 2
    done = fissura(*words, "--mask-threshold", threshold)
    assert done.code == 0
    assert any(f"grey, thresholded at {threshold}" in line for line in done.said)
    held = (mask > int(threshold)).astype(np.uint8) * 255
    save(path, held)
    assert json.loads(done.out)["micro"] == json.loads(fissura(*words).out)["micro"]
    assert "0 to 254" in problems(*folders, mask_threshold=255)[0]


def test_many_odd_masks_are_one_line(tmp_path, rng, fissura):
    for number in range(20):
        probability, mask = pair(rng)
        mask[0, : number + 1] = 90
        save(tmp_path / "predictions" / f"w{number}.png", probability)
        save(tmp_path / "masks" / f"w{number}.png", mask)
    words = ("score", tmp_path / "predictions", tmp_path / "masks", "--protocol", "pixel")
    (line,) = [line for line in fissura(*words, "--mask-threshold", "127").said if line.startswith("note: ")]
    assert "(20 alike: w1.png, w10.png, w11.png and 16 more)" in line


@pytest.mark.parametrize("mode", ["1", "P"])
def test_perfect_predictions_of_1_bit_and_of_a_palette_are_perfect(tmp_path, rng, mode):
    for name in ("a", "b"):
        _, mask = pair(rng)
        image = Image.fromarray(mask if mode == "1" else (mask > 0).astype(np.uint8)).convert(mode)
        if mode == "P":  # as labelling tools and mmsegmentation colour their classes
            image.putpalette([0, 0, 0, 128, 0, 0])
        for folder, saved in (("masks", Image.fromarray(mask)), ("maps", image)):
            (tmp_path / folder).mkdir(exist_ok=True)
            saved.save(tmp_path / folder / f"{name}.png")
    report = score_folders(tmp_path / "maps", tmp_path / "masks", protocol=parse_protocol("pixel"))
    assert report.micro.f1 == 1.0
