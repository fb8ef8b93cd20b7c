"""Windows a second of the sliding window against a literal loop and MONAI, on CFD's image size.

All sides take the same windows of 48 x 48 pixels of an image of 480 x 320 through the same network, the
attention ResU-Net, in one run, interleaved; their maps are asserted equal. The literal loop takes one window
at a time. MONAI's `sliding_window_inference` has the same batch. A network of one 1x1 convolution shows what
the engine itself costs. With the ResU-Net, stride 1 is timed on a crop of 128 x 96 pixels, since the whole
image has 118,209 windows.

MONAI is no dependency: `pip install --no-deps monai` installs it; without it, its column is left out.

Run: python benchmarks/sliding.py [repetitions]
"""

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fissura.core.files import write_json
from fissura.models import Segmenter
from fissura.models.attention_resunet import AttentionResUNet
from fissura.segmentation.inference import Sliding, probability_map

SIZE, SEED = 48, 0
FULL, CROP = (320, 480), (96, 128)
CASES = [("network", CROP, 1), ("network", FULL, 8)]
CASES += [("trivial", FULL, stride) for stride in (1, 4, 8)]
# where the network takes nearly all the time, ours and MONAI's differ by less than a busy machine's noise
TARGET = 0.9
RESULT = Path(__file__).parent / "results" / "sliding.json"

Method = Callable[[Segmenter, np.ndarray, Sliding], np.ndarray]


class Pointwise(Segmenter):
    """One 1x1 convolution."""

    stride, feature_channels = 1, 1

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 1, 1)

    def features(self, image: Tensor) -> Tensor:
        return self.convolution(image)

    def head(self, features: Tensor) -> Tensor:
        return features


def normalise(image: Tensor) -> Tensor:
    return image.float() / 255


def batch_of(image: np.ndarray) -> Tensor:
    return normalise(torch.from_numpy(image).permute(2, 0, 1)[None]).contiguous()


def places(length: int, stride: int) -> list[int]:
    return sorted({*range(0, length - SIZE + 1, stride), length - SIZE})


@torch.inference_mode()
def literal(model: Segmenter, image: np.ndarray, inference: Sliding) -> np.ndarray:
    pixels, (height, width) = batch_of(image), image.shape[:2]
    total, count = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for top in places(height, inference.stride):
        for left in places(width, inference.stride):
            window = (slice(top, top + SIZE), slice(left, left + SIZE))
            total[window] += model(pixels[:, :, *window]).sigmoid()[0, 0].numpy()
            count[window] += 1
    return total / count


@torch.inference_mode()
def monai(model: Segmenter, image: np.ndarray, inference: Sliding) -> np.ndarray:
    from monai.inferers import sliding_window_inference

    # MONAI takes the stride as the share of a window that overlaps, and rounds down what it makes of it
    overlap = 1 - (inference.stride + 0.5) / SIZE
    found = sliding_window_inference(
        batch_of(image),
        roi_size=(SIZE, SIZE),
        sw_batch_size=inference.batch,
        predictor=lambda windows: model(windows).sigmoid(),
        overlap=overlap,
        mode="constant",
    )
    return found[0, 0].numpy()


def ours(model: Segmenter, image: np.ndarray, inference: Sliding) -> np.ndarray:
    device = torch.device("cpu")
    return probability_map(model, image, inference=inference, normalise=normalise, device=device)


def compare(
    model: Segmenter, image: np.ndarray, inference: Sliding, methods: list[Method], repetitions: int
) -> dict[str, dict[str, float]]:
    """Windows a second of each method, and how many times the others' ours is."""
    taken: dict[str, list[float]] = {method.__name__: [] for method in methods}
    for method in methods:
        method(model, image[: 2 * SIZE, : 2 * SIZE], Sliding(size=SIZE, stride=8))
    for _ in range(repetitions):
        maps = []
        for method in methods:
            start = time.perf_counter()
            maps.append(method(model, image, inference))
            taken[method.__name__].append(time.perf_counter() - start)
        for found in maps[:-1]:
            np.testing.assert_allclose(found, maps[-1], atol=1e-4)
    windows = len(places(image.shape[0], inference.stride)) * len(places(image.shape[1], inference.stride))
    rows = {"windows": {"count": windows}}
    for name, seconds in taken.items():
        ratios = [one / other for one, other in zip(seconds, taken["ours"], strict=True)]
        rows[name] = {
            "windows_a_second_median": windows / median(seconds),
            "seconds_median": median(seconds),
            "ours_is_times_median": median(ratios),
            "ours_is_times_min": min(ratios),
        }
    return rows


def main(repetitions: int = 3) -> None:
    methods: list[Method] = [literal, monai, ours]
    if importlib.util.find_spec("monai") is None:
        print("MONAI is left out: it is not installed; `pip install --no-deps monai`")
        methods.remove(monai)
    torch.manual_seed(SEED)
    models = {"network": AttentionResUNet().build().eval(), "trivial": Pointwise().eval()}
    image = np.random.default_rng(SEED).integers(0, 256, (*FULL, 3), dtype=np.uint8)
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(f"windows of {SIZE} x {SIZE}; {machine}; {repetitions} repetitions: windows a second, medians")
    names = [method.__name__ for method in methods]
    print(f"{'':32}" + "".join(f"{name:>12}" for name in names) + "   ours is, times (least)")
    cases: list[dict[str, Any]] = []
    for name, (height, width), stride in CASES:
        inference = Sliding(size=SIZE, stride=stride)
        rows = compare(models[name], image[:height, :width], inference, methods, repetitions)
        cases.append({"model": name, "height": height, "width": width, **inference.plain(), **rows})
        line = f"{name:8} {width:4} x {height:3}, stride {stride:2}  "
        line += "".join(f"{rows[method]['windows_a_second_median']:12,.0f}" for method in names)
        for other in names[:-1]:
            row = rows[other]
            line += f"   {other} {row['ours_is_times_median']:.2f} ({row['ours_is_times_min']:.2f})"
        print(line, flush=True)
    write_json(RESULT, {"machine": machine, "repetitions": repetitions, "cases": cases})
    slow = [case for case in cases for other in names[:-1] if case[other]["ours_is_times_median"] < TARGET]
    if slow:
        sys.exit(f"below {TARGET} times another: {[(case['model'], case['stride']) for case in slow]}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
