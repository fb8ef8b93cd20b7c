"""The project's losses as their papers write them: slow, pixel by pixel, in NumPy.

Each takes what the loss's module takes, in its order; maps are [b, 1, h, w], features [b, c, h, w].
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fissura.losses import (
    BCE,
    VGG,
    AmbiguityAware,
    AnyLoss,
    BalancedBCE,
    Boundary,
    Clustering,
    Dice,
    DiceBCE,
    Focal,
    FocalTversky,
    LinFocal,
    MarginlessBCE,
    OhemBCE,
    PersistentTopology,
    Poly,
    RobustDice,
    RobustT,
    SkeletonRecall,
    SoftClDice,
    Tversky,
    WeightedBCE,
    WeightedSum,
)
from fissura.testing import paper_formulas

Maps = Float[np.ndarray, "b 1 h w"]
Features = Float[np.ndarray, "b c h w"]


def sigmoid(z: Maps) -> Maps:
    """The probability of a logit."""
    p: Maps = 1 / (1 + np.exp(-z))
    return p


def bce(logits: Maps, target: Maps, valid: Maps) -> float:
    """The binary cross-entropy."""
    total, pixels = 0.0, 0
    for z, g, v in zip(logits.flat, target.flat, valid.flat, strict=True):
        if v:
            p = 1 / (1 + np.exp(-z))
            total -= g * np.log(p) + (1 - g) * np.log(1 - p)
            pixels += 1
    return total / pixels


def marginless_bce(logits: Maps, target: Maps, valid: Maps) -> float:
    """The binary cross-entropy of the pixels that are crack, or have none within two rows and columns."""
    kept, crack = np.zeros_like(valid), target * valid
    for b, _, row, column in np.ndindex(*target.shape):
        around = crack[b, 0, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        kept[b, 0, row, column] = crack[b, 0, row, column] == 1 or around.max() == 0
    return bce(logits, target, valid * kept)


def dice(logits: Maps, target: Maps, valid: Maps, *, smooth: float, over: str) -> float:
    """The soft Dice loss."""

    def coefficient(z: Maps, g: Maps, v: Maps) -> float:
        p = 1 / (1 + np.exp(-z[v == 1]))
        return float((2 * np.sum(p * g[v == 1]) + smooth) / (np.sum(p) + np.sum(g[v == 1]) + smooth))

    if over == "batch":
        return 1 - coefficient(logits, target, valid)
    return 1 - float(np.mean([coefficient(*maps) for maps in zip(logits, target, valid, strict=True)]))


def dice_bce(logits: Maps, target: Maps, valid: Maps, *, loss: DiceBCE) -> float:
    """The weighted sum of both."""
    overlap = dice(logits, target, valid, smooth=loss.smooth, over=loss.over)
    return loss.dice_weight * overlap + loss.bce_weight * bce(logits, target, valid)


def focal(logits: Maps, target: Maps, valid: Maps, *, alpha: float, gamma: float) -> float:
    """The normalised focal loss."""
    above, below = {0: 0.0, 1: 0.0}, {0: 0.0, 1: 0.0}
    for p, y, v in zip(sigmoid(logits).flat, target.flat, valid.flat, strict=True):
        if v:
            right = p if y else 1 - p
            above[int(y)] -= (1 - right) ** gamma * np.log(right)
            below[int(y)] += (1 - right) ** gamma
    return above[1] / below[1] + alpha * above[0] / below[0]


def focal_gradient(logits: Tensor, target: Tensor, valid: Tensor, *, loss: Focal) -> Tensor:
    """The gradient of the focal loss where its weights are numbers: each times that of the cross-entropy."""
    z, gradient = logits.detach(), torch.zeros_like(logits)
    for label, alpha in ((1, 1.0), (0, loss.alpha)):
        of, sign = (target == label) & (valid == 1), 2 * label - 1
        weight = torch.sigmoid(-sign * z[of]) ** loss.gamma
        gradient[of] = -sign * alpha * weight / weight.sum() * torch.sigmoid(-sign * z[of])
    return gradient


def ambiguity(logits: Maps, log_variance: Maps, target: Maps, valid: Maps, *, loss: AmbiguityAware) -> float:
    """The ambiguity-aware loss of CIRL."""
    costs = []
    for z, s, y, v in zip(logits.flat, log_variance.flat, target.flat, valid.flat, strict=True):
        squared, variance = (1 / (1 + np.exp(-z)) - y) ** 2, np.exp(s)
        if v and loss.distance == "wasserstein":
            costs.append((squared + variance) / (loss.lam + variance))
        elif v:
            costs.append(squared / (2 * variance) + s / 2)
    return float(np.mean(costs))


def clustering(
    logits: Maps, features: Features, target: Maps, valid: Maps, ambiguous: Maps, *, loss: Clustering
) -> float:
    """The clustering-inspired loss of CIRL, without the constant of the terms `bound` and `exact`."""
    terms = []
    for z, feature, chosen in zip(logits, features, (ambiguous * valid) == 1, strict=True):
        p = sigmoid(z[chosen])
        if len(p):
            terms.append(_term(loss, np.stack([1 - p, p], axis=1), feature[:, chosen[0]].T))
    return bce(logits, target, valid * (1 - ambiguous)) + loss.beta * float(np.mean(terms))


def _term(loss: Clustering, p: Float[np.ndarray, "pixel 2"], features: Float[np.ndarray, "pixel c"]) -> float:
    unit, size, total = features / np.linalg.norm(features, axis=1, keepdims=True), len(p), 0.0
    for m in range(size):
        others = [n for n in np.argsort(-(unit @ unit[m]), kind="stable") if n != m]
        if loss.term == "nnclr":
            similar = np.exp(unit @ unit[others[0]] / loss.temperature)
            total -= np.log(similar[m] / similar.sum())
            continue
        close, far = others[: loss.k], others[loss.k :]
        attracted, repelled = sum(p[m] @ p[n] for n in close), sum(p[m] @ p[n] for n in far)
        if loss.term == "bound":
            total += -attracted + len(close) / len(far) * repelled
        else:
            over_all = np.log(sum(np.exp(p[m] @ p[n]) for n in range(size)) / size)
            total += -attracted + repelled + (len(close) - len(far)) * over_all
    return total / size


def weighted_sum(logits: Maps, *others: Features, loss: WeightedSum) -> float:
    """The terms' formulas, each times its weight; takes what they read, then labels and valid pixels, then
    their maps."""
    reads, _ = _taken(loss)
    readings, labels, maps = list(others[:reads]), others[reads : reads + 2], list(others[reads + 2 :])
    total = 0.0
    for term in loss.terms:
        reads, own = _taken(term.loss)
        read, readings = readings[:reads], readings[reads:]
        given, maps = maps[:own], maps[own:]
        total += term.weight * formula_of(term.loss)(logits, *read, *labels, *given)
    return total


def _taken(loss: AnyLoss) -> tuple[int, int]:
    """How much a loss reads beside the logits, and its own maps."""
    match loss:
        case AmbiguityAware():
            return 1, 0
        case Clustering():
            return 1, 1
        case WeightedSum():
            reads, maps = zip(*(_taken(term.loss) for term in loss.terms), strict=True)
            return sum(reads), sum(maps)
        case _:
            return 0, 0


def formula_of(loss: AnyLoss) -> Callable[..., float]:
    """The formula of one of the project's losses."""
    match loss:
        case BCE():
            return bce
        case MarginlessBCE():
            return marginless_bce
        case Dice():
            return partial(dice, smooth=loss.smooth, over=loss.over)
        case DiceBCE():
            return partial(dice_bce, loss=loss)
        case Focal():
            return partial(focal, alpha=loss.alpha, gamma=loss.gamma)
        case WeightedBCE():
            return partial(paper_formulas.weighted_bce, loss=loss)
        case BalancedBCE():
            return partial(paper_formulas.balanced_bce, loss=loss)
        case OhemBCE():
            return partial(paper_formulas.ohem_bce, loss=loss)
        case LinFocal():
            return partial(paper_formulas.lin_focal, loss=loss)
        case Poly():
            return partial(paper_formulas.poly, loss=loss)
        case Tversky() | FocalTversky():
            return partial(paper_formulas.tversky, loss=loss)
        case RobustDice():
            return partial(paper_formulas.robust_dice, loss=loss)
        case RobustT():
            return partial(paper_formulas.robust_t, loss=loss)
        case SoftClDice():
            return partial(paper_formulas.cldice, loss=loss)
        case SkeletonRecall():
            return partial(paper_formulas.skeleton_recall, loss=loss)
        case Boundary():
            return partial(paper_formulas.boundary, loss=loss)
        case PersistentTopology():
            return partial(paper_formulas.topology, loss=loss)
        case VGG():
            return partial(paper_formulas.vgg, loss=loss)
        case AmbiguityAware():
            return partial(ambiguity, loss=loss)
        case Clustering():
            return partial(clustering, loss=loss)
        case WeightedSum():
            return partial(weighted_sum, loss=loss)
