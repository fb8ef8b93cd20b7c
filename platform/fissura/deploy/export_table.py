"""What the parts of a bundle weigh, take and compute: the rows of Table 3 of the classification paper."""

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from fissura.classical.compact import Compact
from fissura.deploy.onnx_model import session

REPETITIONS, PATIENCE = 30, 3.0


@dataclass(frozen=True)
class BundlePart:
    """A file of a bundle: its bytes, the milliseconds of one image (one thread, median), and the
    multiply-accumulate operations (MACs) of one image, which the paper's table calls FLOPs."""

    name: str
    file: str
    bytes: int
    milliseconds: float
    macs: int


def latency_table(bundle: Path) -> list[BundlePart]:
    """The parts of a bundle, measured on this machine: batches of one image, on one thread, the median of up
    to 30 runs in at most 3 seconds (but at least 3 runs)."""
    card: dict[str, Any] = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
    height, width = card["image"]
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    parts = []
    features: Any = None
    for file in sorted((name for name in card["files"] if name.endswith(".onnx")), key=len):
        opened = session(bundle / file, threads=1)
        seconds = _seconds(functools.partial(opened.run, None, {"images": image}))
        what = "backbone" if file.startswith("backbone.") else "network"
        kind = "int8" if ".int8." in file else "float32"
        size = (bundle / file).stat().st_size
        parts.append(BundlePart(f"{what} {kind}", file, size, 1000 * seconds, card["macs"]))
        if features is None:
            features = opened.run(None, {"images": image})[0]
    path = bundle / "classifier.npz"
    if path.is_file():
        compact = Compact.load(path)
        seconds = _seconds(functools.partial(compact.predict, features))
        parts.append(
            BundlePart("classifier", path.name, path.stat().st_size, 1000 * seconds, classifier_macs(path))
        )
    return parts


def network_macs(network: nn.Module, *, height: int, width: int) -> int:
    """The multiply-accumulate operations of one image in a network's convolutions and matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros((1, height, width, 3), dtype=torch.uint8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return int(counter.get_total_flops()) // 2  # which counts the product and the sum


def classifier_macs(path: Path) -> int:
    """The multiply-accumulate operations of one image in a compressed classifier, a sum, an exponential and a
    cosine by itself as one; for a forest, the comparisons from the roots to the deepest leaf."""
    with np.load(path, allow_pickle=False) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files if name != "header"}
    # (x - mean) * scale is one a feature
    macs = max(arrays[name].size if name in arrays else 0 for name in ("mean", "scale"))
    for name in ("matrix", "vectors", "frequencies", "coefficients"):
        macs += arrays[name].size if name in arrays else 0
    if "feature" in arrays:
        inner = np.flatnonzero(arrays["feature"] >= 0)
        trees = len(arrays["feature"]) - 2 * len(inner)
        end, levels = trees, 0
        while end < len(arrays["feature"]):  # the nodes stand level by level, two behind each inner one
            end, levels = trees + 2 * int(np.searchsorted(inner, end)), levels + 1
        return int(macs + trees * levels)
    # beside its product a kernel value takes two: the other two terms of the distance and the exponential; a
    # random feature one: the cosine; a class's probability one: the exponential
    terms = {"vectors": 2, "frequencies": 1, "intercept": 1}
    name = next(each for each in terms if each in arrays)
    return int(macs + terms[name] * len(arrays[name]))


def _seconds(function: Callable[[], Any]) -> float:
    """The median time of a call, after one that does not count."""
    function()
    took: list[float] = []
    while len(took) < 3 or (len(took) < REPETITIONS and sum(took) < PATIENCE):
        begin = time.perf_counter()
        function()
        took.append(time.perf_counter() - begin)
    return median(took)
