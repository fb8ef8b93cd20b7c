"""`fissura score --json`, number for number against each protocol's definition written out pixel by pixel."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, distance_transform_edt

SHAPE = 26, 34
SCORES = ("precision", "recall", "f1")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path, rng):
    """Found cracks, a missed one, a false alarm, an empty pair: {name: (map, mask, valid pixels)}."""
    images = {}
    for index, name in enumerate(("thin", "wide", "missed", "alarm", "empty")):
        mask = np.zeros(SHAPE, bool)
        if name in ("thin", "wide", "missed"):
            mask[5 + 3 * index : 6 + 4 * index, 2:-4] = True
        if name == "wide":
            mask[:, 20:22] = True
        value = np.roll(mask, 1, axis=0) * 140 + rng.integers(0, 116, SHAPE)
        if name in ("missed", "empty"):
            value = np.zeros(SHAPE)
        valid = np.ones(SHAPE, bool)
        valid[: 3 * index, :] = valid[:, -2 * index - 1 :] = False
        images[name] = value, mask, valid
        save(tmp_path / "predictions" / f"{name}.png", value)
        save(tmp_path / "masks" / f"{name}.png", mask * 255)
        save(tmp_path / "valid" / f"{name}.png", valid * 255)
    return tmp_path, images


def near(pixels, distance):
    """Where a pixel of `pixels` lies at most `distance` away."""
    return distance_transform_edt(~pixels) <= distance if pixels.any() else np.zeros(SHAPE, bool)


def counts(protocol, predicted, mask):
    """True positives, false positives, found, missed; both masks hold valid pixels alone."""
    kind, _, distance = protocol.partition(":")
    if kind == "tolerant":
        right, found = near(mask, int(distance)), mask & near(predicted, int(distance))
        numbers = predicted & right, predicted & ~right, found, mask & ~found
    elif kind == "flexible":
        right = binary_dilation(mask, np.ones((2 * int(distance) + 1,) * 2))
        numbers = predicted & right, predicted & ~right, predicted & right, mask & ~predicted
    else:
        numbers = predicted & mask, predicted & ~mask, predicted & mask, mask & ~predicted
    return np.array([np.count_nonzero(one) for one in numbers])


def scores(numbers):
    """Precision, recall, F1, and IoU = TP / (TP + FP + FN)."""
    true_positive, false_positive, found, missed = (int(number) for number in numbers)
    if true_positive + false_positive == 0 and found + missed == 0:
        return {"precision": 1.0, "recall": 1.0, "f1": 1.0, "iou": 1.0}
    precision = true_positive / (true_positive + false_positive) if true_positive + false_positive else 0.0
    recall = found / (found + missed) if found + missed else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    union = true_positive + false_positive + missed
    iou = true_positive / union if union else 1.0
    return {"precision": precision, "recall": recall, "f1": f1, "iou": iou}


def expected(protocol, images, *, threshold, inside):
    """The document that the command prints, without the false alarms on images that hold no crack."""

    def counted(at):
        every = []
        for value, mask, valid in images.values():
            within = valid if inside else np.ones(SHAPE, bool)
            every.append(counts(protocol, (value / 255 >= at) & within, mask & within))
        return every

    names = (*SCORES, "dice", "iou") if protocol == "overlap" else SCORES

    def named(found):
        return {name: found["f1" if name == "dice" else name] for name in names}

    here = counted(threshold)
    each = [named(scores(one)) for one in here]
    document = {
        "protocol": protocol,
        "threshold": threshold,
        "images": len(images),
        "micro": named(scores(sum(here))),
        "macro": {name: math.fsum(one[name] for one in each) / len(each) for name in names},
    }
    if protocol.startswith("flexible"):
        swept = [counted(k / 255) for k in range(1, 256)]
        pooled = [scores(sum(one)) for one in swept]
        best = max(range(255), key=lambda k: pooled[k]["f1"])
        ois = [max(scores(one[index])["f1"] for one in swept) for index in range(len(images))]
        above = [0.0, *(one["recall"] for one in reversed(pooled))]
        steps = zip(reversed(pooled), above, strict=False)
        document["ods"] = {**{name: pooled[best][name] for name in SCORES}, "threshold": (best + 1) / 255}
        document["ois"] = {"mean": float(np.mean(ois)), "sd": float(np.std(ois))}
        document["ap"] = math.fsum((one["recall"] - before) * one["precision"] for one, before in steps)
    return document


def nearly(document):
    """Equal keys in equal order, numbers but for the last digits."""
    if isinstance(document, dict):
        return [(key, nearly(value)) for key, value in document.items()]
    return pytest.approx(document, rel=1e-12, abs=1e-12) if isinstance(document, float) else document


def listed(document):
    return [(key, listed(one)) for key, one in document.items()] if isinstance(document, dict) else document


@pytest.mark.parametrize("inside", [False, True], ids=["everywhere", "valid pixels"])
@pytest.mark.parametrize("threshold", [0.5, 0.2, 0])
@pytest.mark.parametrize("protocol", ["pixel", "tolerant:2", "tolerant:5", "overlap", "flexible:2"])
def test_the_scores_are_those_of_the_definition(fissura, folders, protocol, threshold, inside):
    root, images = folders
    valid = ("--valid", root / "valid") if inside else ()
    words = ("score", root / "predictions", root / "masks", "--protocol", protocol, "--threshold", threshold)
    code, out, said = fissura(*words, *valid, "--json")
    assert (code, said) == (0, [])
    document = json.loads(out)
    free = document.pop("crack_free")
    assert document.pop("data_name") == f"{root.name}/masks"
    assert len(document.pop("data_digest")) == 16
    assert listed(document) == nearly(expected(protocol, images, threshold=threshold, inside=inside))
    labelled = [(mask & (valid | (not inside))).any() for _, mask, valid in images.values()]
    assert free["images"] == labelled.count(False)


def test_where_every_image_holds_a_crack_the_document_has_no_other_keys(fissura, folders):
    root, _ = folders
    for name in ("alarm", "empty"):
        for folder in ("predictions", "masks"):
            (root / folder / f"{name}.png").unlink()
    words = ("score", root / "predictions", root / "masks", "--protocol")
    base = ["data_name", "data_digest", "protocol", "threshold", "images", "micro", "macro"]
    for protocol in ("pixel", "tolerant:2", "overlap"):
        assert list(json.loads(fissura(*words, protocol, "--json").out)) == base
    assert list(json.loads(fissura(*words, "flexible:2", "--json").out)) == [*base, "ods", "ois", "ap"]


def test_the_threshold_is_a_half_where_none_is_named(fissura, folders):
    root, _ = folders
    words = ("score", root / "predictions", root / "masks", "--protocol", "tolerant:2", "--json")
    assert fissura(*words) == fissura(*words, "--threshold", 0.5)
    assert json.loads(fissura(*words).out)["threshold"] == 0.5


def test_the_text_says_the_same_numbers(fissura, folders):
    root, _ = folders
    words = ("score", root / "predictions", root / "masks", "--protocol", "flexible:2")
    document = json.loads(fissura(*words, "--json").out)
    code, out, said = fissura(*words)
    assert (code, said) == (0, [])
    shown = [document[part][name] for part in ("micro", "macro") for name in SCORES]
    shown += [document["ods"]["f1"], document["ods"]["threshold"], *document["ois"].values(), document["ap"]]
    assert all(f"{value:.4f}" in out for value in shown)
    assert "flexible:2 at 0.5 on 5 images" in out
    assert "images without a crack: 2, with" in out


def test_a_lossy_mask_is_remarked_on_beside_the_document(fissura, folders):
    root, images = folders
    (root / "masks" / "wide.png").unlink()
    Image.fromarray((images["wide"][1] * 255).astype(np.uint8)).save(root / "masks" / "wide.jpg", quality=60)
    code, out, said = fissura("score", root / "predictions", root / "masks", "--protocol", "pixel", "--json")
    assert code == 0
    assert json.loads(out)["images"] == 5
    assert len(said) == 1
    assert said[0].startswith(f"note: {root / 'masks' / 'wide.jpg'}: ")
    assert "grey, thresholded at 127" in said[0]
