"""One pass against the literal loop over 255 thresholds, for each protocol, on maps of CFD's size, 480 x 320.

All sides count the same images in one run, interleaved, and their counts are asserted equal. The literal
loop counts each threshold from the images alone, as the oracle of the tests does. The tightened loop is the
best to be made of it by hand: what no threshold changes is taken out, and numpy's fastest counting is used.
For exact pixels scikit-learn's precision_recall_curve is a peer.

Run: python benchmarks/metrics.py [repetitions]
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy import ndimage
from sklearn.metrics import precision_recall_curve

from fissura.core.files import write_json
from fissura.metrics import Flexible, Protocol, Rates, Tolerant, parse_protocol, rates

HEIGHT, WIDTH, IMAGES, SEED = 320, 480, 3, 0
PROTOCOLS = ("pixel", "overlap", "tolerant:2", "tolerant:5", "flexible:2")
TARGET = 100.0
RESULT = Path(__file__).parent / "results" / "metrics.json"


def crack(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A map and a mask, uint8: two cracks that wander across the image, and an uncertain prediction."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for _ in range(2):
        rows = HEIGHT * rng.uniform(0.2, 0.8) + np.cumsum(rng.normal(0, 1.2, WIDTH))
        mask[np.clip(rows, 0, HEIGHT - 1).astype(int), np.arange(WIDTH)] = True
    mask = ndimage.binary_dilation(mask, np.ones((3, 3)))
    shifted = np.roll(ndimage.gaussian_filter(mask.astype(float), 1.5), rng.integers(-2, 3, 2), axis=(0, 1))
    noise = ndimage.gaussian_filter(rng.normal(size=mask.shape), 2)
    probability = 1 / (1 + np.exp(-(9 * shifted + 6 * noise - 4)))
    return np.round(255 * probability).astype(np.uint8), mask.astype(np.uint8)


def near(pixels: np.ndarray, distance: float) -> np.ndarray:
    if not pixels.any():
        return np.zeros_like(pixels)
    return ndimage.distance_transform_edt(~pixels) <= distance


def region(protocol: Protocol, labelled: np.ndarray) -> np.ndarray:
    """Where a prediction is right."""
    if isinstance(protocol, Tolerant):
        return near(labelled, protocol.distance)
    if isinstance(protocol, Flexible):
        return ndimage.binary_dilation(labelled, np.ones((2 * protocol.distance + 1,) * 2))
    return labelled


def literal(protocol: Protocol, probability: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Counts (true positives, false positives, found, missed) at k = 1..255, each from the images alone."""
    counts = []
    for level in range(1, 256):
        labelled, predicted = mask != 0, probability >= level
        right = region(protocol, labelled)
        hits, alarms = (predicted & right).sum(), (predicted & ~right).sum()
        if isinstance(protocol, Tolerant):
            reached = near(predicted, protocol.distance)
            counts.append((hits, alarms, (labelled & reached).sum(), (labelled & ~reached).sum()))
        else:
            counts.append((hits, alarms, hits, (labelled & ~predicted).sum()))
    return np.array(counts)


def tightened(protocol: Protocol, probability: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The counts of `literal`, by the same loop at its best."""
    labelled = mask != 0
    right = region(protocol, labelled)
    total, counts = np.count_nonzero(labelled), []
    for level in range(1, 256):
        predicted = probability >= level
        hits = np.count_nonzero(predicted & right)
        alarms = np.count_nonzero(predicted) - hits
        reached = near(predicted, protocol.distance) if isinstance(protocol, Tolerant) else predicted
        among = np.count_nonzero(labelled & reached)
        counts.append((hits, alarms, among if isinstance(protocol, Tolerant) else hits, total - among))
    return np.array(counts)


def one_pass(protocol: Protocol, probability: np.ndarray, mask: np.ndarray) -> np.ndarray:
    counts = protocol.count(probability, mask)
    every = (counts.true_positive, counts.false_positive, counts.found, counts.missed)
    return np.stack(every, axis=1)[1:]


def seconds(work: Callable[..., object], *arguments: object, times: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work(*arguments)
    return (time.perf_counter() - start) / times


def ratios(slow: list[float], fast: list[float]) -> dict[str, float]:
    each = [one / other for one, other in zip(slow, fast, strict=True)]
    return {"seconds_median": median(slow), "ratio_min": min(each), "ratio_median": median(each)}


def compare(name: str, images: list[tuple[np.ndarray, np.ndarray]], repetitions: int) -> dict[str, Any]:
    """Seconds an image of the one pass and of both loops, and each loop's ratio to the one pass."""
    protocol = parse_protocol(name)
    fast: list[float] = []
    loops = {literal: [], tightened: []}
    for repetition in range(repetitions):
        image = images[repetition % len(images)]
        expected = one_pass(protocol, *image)
        for loop, taken in loops.items():
            start = time.perf_counter()
            counts = loop(protocol, *image)
            taken.append(time.perf_counter() - start)
            np.testing.assert_array_equal(counts, expected)
        fast.append(seconds(one_pass, protocol, *image, times=50))
    return {
        "protocol": name,
        "one_pass_seconds_median": median(fast),
        **{loop.__name__: ratios(taken, fast) for loop, taken in loops.items()},
    }


def compare_peer(images: list[tuple[np.ndarray, np.ndarray]], repetitions: int) -> dict[str, float]:
    """scikit-learn's precision and recall at every value of a map, and its ratio to the one pass's."""

    def one_curve(probability: np.ndarray, mask: np.ndarray) -> Rates:
        return rates(parse_protocol("pixel").count(probability, mask))

    def peer_curve(probability: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, ...]:
        return precision_recall_curve(mask.ravel(), probability.ravel())

    peer, ours = [], []
    for repetition in range(repetitions):
        image = images[repetition % len(images)]
        (precision, recall, thresholds), curve = peer_curve(*image), one_curve(*image)
        np.testing.assert_allclose(curve.precision[thresholds], precision[:-1])
        np.testing.assert_allclose(curve.recall[thresholds], recall[:-1])
        peer.append(seconds(peer_curve, *image, times=5))
        ours.append(seconds(one_curve, *image, times=50))
    return {"one_pass_seconds_median": median(ours), **ratios(peer, ours)}


def main(repetitions: int = 5) -> None:
    rng = np.random.default_rng(SEED)
    images = [crack(rng) for _ in range(IMAGES)]
    share = float(np.mean([mask.mean() for _, mask in images]))
    print(
        f"{WIDTH} x {HEIGHT} pixels, {share:.1%} labelled, {repetitions} repetitions: medians, (least ratio)"
    )
    print(f"{'':12}{'one pass':>12}{'literal loop':>16}{'ratio':>16}{'tightened loop':>16}{'ratio':>16}")
    rows = []
    for name in PROTOCOLS:
        row = compare(name, images, repetitions)
        rows.append(row)
        line = f"{name:12}{row['one_pass_seconds_median'] * 1e3:9.3f} ms"
        for loop in (row["literal"], row["tightened"]):
            line += f"{loop['seconds_median'] * 1e3:13.1f} ms"
            line += f"{loop['ratio_median']:8.0f} ({loop['ratio_min']:5.0f})"
        print(line, flush=True)
    peer = compare_peer(images, repetitions)
    print(
        f"{'pixel':12}{peer['one_pass_seconds_median'] * 1e3:9.3f} ms; scikit-learn's precision_recall_curve "
        f"{peer['seconds_median'] * 1e3:.1f} ms, ratio {peer['ratio_median']:.0f} ({peer['ratio_min']:.0f})"
    )
    write_json(
        RESULT, {"height": HEIGHT, "width": WIDTH, "labelled": share, "protocols": rows, "scikit_learn": peer}
    )
    slow = [row["protocol"] for row in rows if row["literal"]["ratio_min"] < TARGET]
    if slow:
        sys.exit(f"below {TARGET:.0f} times the literal loop: {', '.join(slow)}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
