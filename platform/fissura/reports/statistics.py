"""How sure a score is: bootstrap intervals over images and seeds, paired differences, significance groups.

Every score here is a function of sums over images, so that a bootstrap replicate is one row of a matrix
product: `draws` [replicates, images] times `features` [images, features].

The images of a test set are the same for every seed and every configuration. So one draw of images serves
them all: seeds are drawn first, then one set of images that the drawn seeds share (the pigeonhole bootstrap;
Owen, Annals of Applied Statistics 2007), and two configurations are compared on the same draws. To draw
images anew for each seed would call the spread between images smaller than it is.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

LEVEL = 0.05  # of every test; intervals cover 1 - LEVEL
REPLICATES = 10_000
MAX_DRAWS = 200_000_000  # bytes of one matrix of draws
ROUNDING = 1e-12  # the same counts summed in another order are a tie
BLOCK = 4_000_000  # draws turned into floating point at a time

Sums = Float64[np.ndarray, "... feature"]
Scores = Float64[np.ndarray, "..."]
ScoreFunction = Callable[[Sums], Mapping[str, Scores]]
"""Sums of features over images -> every score by name; nan where it is undefined."""


NO_INTERVAL = "no interval: one image or group alone"


@dataclass(frozen=True)
class Interval:
    """A score and its 95 % interval; None where it rests on one image or group alone, drawn again and again,
    which says nothing of others."""

    value: float
    low: float | None
    high: float | None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends of the interval, or None where there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def span(self, figure: Callable[[float], str], *, joint: str = "–") -> str:
        """The interval as people read it, or that there is none."""
        return joint.join(map(figure, self.ends)) if self.ends else NO_INTERVAL

    def sentence(self, figure: Callable[[float], str]) -> str:
        """The same within a sentence."""
        return ("95 % interval " if self.ends else "") + self.span(figure, joint=" to ")


@dataclass(frozen=True)
class Bootstrapped:
    """A score, and the same score in each replicate; nan in one in which it is undefined, and in all where
    it rests on one image or group alone."""

    value: float
    replicates: Float64[np.ndarray, " replicate"]

    def interval(self) -> Interval:
        """The score with its percentile interval."""
        return Interval(self.value, *_ends(self.replicates))


@dataclass(frozen=True)
class Difference(Interval):
    """The first configuration's score less the second's, its 95 % interval, and the two-sided p-value, which
    is 1 where there is no interval."""

    p: float


def _ends(replicates: Float64[np.ndarray, " replicate"]) -> tuple[float, float] | tuple[None, None]:
    known = replicates[~np.isnan(replicates)]
    if not known.size:
        return None, None
    low, high = np.quantile(known, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def draw(images: int, *, seed: int, replicates: int = REPLICATES) -> UInt8[np.ndarray, "replicate image"]:
    """How often each of `images` images is drawn in each replicate: every row sums to `images`.

    Fewer replicates (1,000 at least) are drawn where the matrix would pass MAX_DRAWS bytes.
    """
    replicates = min(replicates, max(1_000, MAX_DRAWS // images))
    random = np.random.default_rng(seed)
    table = np.empty((replicates, images), dtype=np.uint8)
    rows = max(1, BLOCK // images)
    for start in range(0, replicates, rows):
        block = table[start : start + rows]
        picked = random.integers(images, size=block.shape) + np.arange(len(block))[:, None] * images
        block[:] = np.bincount(picked.ravel(), minlength=block.size).reshape(block.shape)
    return table


def bootstrap(
    features: Float64[np.ndarray, "seed image feature"],
    *,
    draws: UInt8[np.ndarray, "replicate image"],
    seed: int,
    score: ScoreFunction,
    alone: Collection[str] = (),
) -> dict[str, Bootstrapped]:
    """Every score of one configuration, but for those that are undefined for one of its seeds.

    A configuration's score is the mean over its seeds of each seed's own.

    Args:
        features: of each image, or of each group of images that are drawn together.
        draws: of the images or groups, the same for all that is to be compared.
        seed: of the draw of seeds, where there is more than one.
        score: the task's.
        alone: the scores that rest on one of the images or groups; drawn again and again, it says nothing of
            others, and they have no interval.
    """
    seeds, images, width = features.shape
    table = np.ascontiguousarray(features.transpose(1, 0, 2)).reshape(images, seeds * width)
    rows = max(1, BLOCK // images)
    blocks = [draws[i : i + rows].astype(np.float64) @ table for i in range(0, len(draws), rows)]
    whole = score(features.sum(axis=1))
    drawn = score(np.concatenate(blocks).reshape(-1, seeds, width))
    shares = draw(seeds, seed=seed, replicates=len(draws)) / seeds
    results = {}
    for name, values in whole.items():
        value = float(values.mean())
        if not math.isnan(value):
            replicates = np.einsum("rs,rs->r", shares, drawn[name])
            if images == 1 or name in alone:
                replicates = np.full_like(replicates, np.nan)
            results[name] = Bootstrapped(value, replicates)
    return results


def ranks(scores: Sequence[float]) -> list[int]:
    """The rank of each of `scores`, which are sorted best first: exact ties share one, and the ranks that
    they take up are left out (1, 1, 3)."""
    places: list[int] = []
    for place, score in enumerate(scores, start=1):
        tied = places and math.isclose(score, scores[place - 2], rel_tol=ROUNDING)
        places.append(places[-1] if tied else place)
    return places


def difference(first: Bootstrapped, second: Bootstrapped) -> Difference:
    """The paired bootstrap: both configurations on the same draws of images.

    p is twice the smaller share of replicates at or beyond no difference, at most 1 (the + 1: Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, eq. 4.11).
    """
    gaps = first.replicates - second.replicates
    low, high = _ends(gaps)
    return Difference(first.value - second.value, low, high, _p_value(gaps))


def _p_value(gaps: Float64[np.ndarray, " replicate"]) -> float:
    gaps = gaps[np.isfinite(gaps)]
    # A gap of rounding errors alone is none: equal predictions must not differ.
    tail = min(np.count_nonzero(gaps <= 1e-12), np.count_nonzero(gaps >= -1e-12))
    return min(1.0, 2 * (int(tail) + 1) / (len(gaps) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Scandinavian Journal of Statistics, 1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def groups(ranked: Sequence[Bootstrapped]) -> list[str]:
    """A letter for each configuration; `ranked` is best first.

    The best leads group a: it is compared with all others, and those that do not differ at 5 % after Holm's
    correction share its letter. The best of the rest leads group b, and so on; after z come aa, ab, ...
    """
    letters = [""] * len(ranked)
    rest = list(range(len(ranked)))
    group = 0
    while rest:
        leader, others = rest[0], rest[1:]
        adjusted = holm([_p_value(ranked[leader].replicates - ranked[i].replicates) for i in others])
        same = {leader, *(i for i, p in zip(others, adjusted, strict=True) if p >= LEVEL)}
        for i in same:
            letters[i] = _letters(group)
        rest = [i for i in rest if i not in same]
        group += 1
    return letters


def _letters(number: int) -> str:
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("a") + digit) + text
    return text
