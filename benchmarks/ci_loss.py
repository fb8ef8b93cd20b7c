"""The clustering-inspired loss against its dense form, over |S| ambiguous pixels with 32 features.

The dense form holds the |S| x |S| matrices of similarities, of neighbours and of p_m.p_n, as the formulas are
written; ours holds some rows at a time, and totals. A measurement is one value with its backward pass in a
fresh process: its time, and how far the memory peaked above what was held before, the inputs among it.
Where both sides run, their values and gradients are asserted to agree. Linux only: it reads /proc.

Run: python benchmarks/ci_loss.py [repetitions]
"""

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

# threads that wait by spinning make a shared machine several times slower; read when PyTorch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from fissura.core.files import write_json
from fissura.losses import nearest_neighbours
from fissura.losses.cluster_terms import centred_bound, centred_exact

SIZES, FEATURES, NEIGHBOURS, SEED = (1_000, 5_000, 20_000, 100_000), 32, 20, 0
DENSE_UP_TO, REQUIRED_AT = 20_000, 20_000
TERMS = ("bound", "exact")
LESS_MEMORY, FASTER, MOST_MEGABYTES = 10.0, 1.0, 500.0
RESULT = Path(__file__).parent / "results" / "ci_loss.json"

Term = Callable[[Tensor, Tensor], Tensor]


def ours(name: str) -> Term:
    term = {"bound": centred_bound, "exact": centred_exact}[name]

    def compute(features: Tensor, probability: Tensor) -> Tensor:
        return term(probability, neighbours=nearest_neighbours(features, k=NEIGHBOURS))

    return compute


def dense(name: str) -> Term:
    def compute(features: Tensor, probability: Tensor) -> Tensor:
        size = len(features)
        with torch.no_grad():
            unit = torch.nn.functional.normalize(features, dim=1)
            similarity = unit @ unit.T
            similarity.fill_diagonal_(-torch.inf)
            nearest = similarity.topk(NEIGHBOURS, dim=1).indices
            del similarity
            near = torch.zeros(size, size, dtype=torch.bool).scatter_(1, nearest, value=True)
            far = ~near
            far.fill_diagonal_(fill_value=False)
        p = torch.stack([1 - probability, probability], dim=1)
        product = p @ p.T
        attracted, repelled = (product * near).sum(dim=1), (product * far).sum(dim=1)
        others = size - NEIGHBOURS - 1
        if name == "exact":
            mean = torch.exp(product).mean(dim=1)
            psi = repelled - attracted + (NEIGHBOURS - others) * torch.log(mean)
        else:
            psi = NEIGHBOURS / others * repelled - attracted
        return psi.mean()

    return compute


SIDES: dict[str, Callable[[str], Term]] = {"ours": ours, "dense": dense}


def megabytes(field: str) -> float:
    """A line of this process's memory: VmRSS is what it holds now, VmHWM the most that it ever held."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"^{field}:\s*(\d+) kB$", status, re.MULTILINE)[0]) / 1024


def measure(side: str, term: str, size: int) -> dict[str, Any]:
    """One value and backward pass, in this process, which must be fresh."""
    generator = torch.Generator().manual_seed(SEED)
    # what lies near in an image looks alike: features that wander, not noise
    features = torch.randn(size // 50, FEATURES, generator=generator).repeat_interleave(50, dim=0)
    features += torch.randn(size, FEATURES, generator=generator)
    logits = torch.randn(size, generator=generator)
    compute = SIDES[side](term)
    # the libraries' own buffers come with their first use
    first = logits[:64].clone().requires_grad_()
    compute(features[:64], torch.sigmoid(first)).backward()
    logits.requires_grad_()
    before, start = megabytes("VmRSS"), time.perf_counter()
    value = compute(features, torch.sigmoid(logits))
    (gradient,) = torch.autograd.grad(value, logits)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "megabytes": megabytes("VmHWM") - before,
        "value": value.item(),
        "gradient": [gradient.norm().item(), *gradient[:3].tolist()],
    }


def measure_apart(side: str, term: str, size: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "measure", side, term, str(size)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(finished.stdout)
    return measured


def compare(term: str, size: int, repetitions: int) -> dict[str, Any]:
    """Medians of both sides, measured in turns."""
    sides = [side for side in SIDES if side == "ours" or size <= DENSE_UP_TO]
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(repetitions):
        for side in sides:
            runs[side].append(measure_apart(side, term, size))
    row: dict[str, Any] = {"term": term, "pixels": size}
    for side, measured in runs.items():
        row[side] = {
            unit: {"median": median(of), "min": min(of), "max": max(of)}
            for unit in ("seconds", "megabytes")
            for of in [[run[unit] for run in measured]]
        }
    if "dense" in row:
        agree(runs["ours"][0], runs["dense"][0])
        for unit in ("seconds", "megabytes"):
            row[f"{unit}_ratio"] = row["dense"][unit]["median"] / row["ours"][unit]["median"]
    return row


def agree(one: dict[str, Any], other: dict[str, Any]) -> None:
    torch.testing.assert_close(one["value"], other["value"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        torch.tensor(one["gradient"]), torch.tensor(other["gradient"]), rtol=1e-2, atol=1e-5
    )


def main(repetitions: int = 3) -> None:
    print(
        f"{FEATURES} features, {NEIGHBOURS} neighbours, {repetitions} repetitions: medians, value + backward"
    )
    print(
        f"{'term':8}{'pixels':>8}{'ours':>12}{'':>12}{'dense':>12}{'':>12}{'times the time, the memory':>30}"
    )
    rows = []
    for term in TERMS:
        for size in SIZES:
            row = compare(term, size, repetitions)
            rows.append(row)
            line = f"{term:8}{size:8}"
            for side in ("ours", "dense"):
                if side in row:
                    line += f"{row[side]['seconds']['median']:10.3f} s"
                    line += f"{row[side]['megabytes']['median']:9.1f} MB"
            if "dense" in row:
                line += f"{row['seconds_ratio']:17.1f}{row['megabytes_ratio']:13.1f}"
            print(line, flush=True)
    write_json(
        RESULT,
        {"features": FEATURES, "neighbours": NEIGHBOURS, "repetitions": repetitions, "cases": rows},
    )
    for row in rows:
        less, faster = row.get("megabytes_ratio", math.inf), row.get("seconds_ratio", math.inf)
        if row["pixels"] == REQUIRED_AT and (less < LESS_MEMORY or faster < FASTER):
            sys.exit(f"{row['term']} at {REQUIRED_AT}: {less:.1f} times less memory, {faster:.1f} the time")
        if row["ours"]["megabytes"]["max"] > MOST_MEGABYTES:
            sys.exit(f"{row['term']} at {row['pixels']}: more than {MOST_MEGABYTES:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
