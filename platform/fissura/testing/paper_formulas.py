"""The losses that crack papers compare with, as their papers write them: slow, in NumPy and float64.

Each takes logits, labels (1 crack) and valid pixels, [b, 1, h, w] each, and the loss's settings.
"""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from scipy.ndimage import label

from fissura.losses import (
    VGG,
    BalancedBCE,
    Boundary,
    FocalTversky,
    LinFocal,
    OhemBCE,
    PersistentTopology,
    Poly,
    RobustDice,
    RobustT,
    SkeletonRecall,
    SoftClDice,
    Tversky,
    WeightedBCE,
)

Maps = Float[np.ndarray, "b 1 h w"]
Plane = Float[np.ndarray, "h w"]


def pixels(logits: Maps, target: Maps, valid: Maps) -> Iterator[tuple[float, int]]:
    """Probability and label of each valid pixel."""
    for z, y, v in zip(logits.flat, target.flat, valid.flat, strict=True):
        if v:
            yield 1 / (1 + math.exp(-z)), int(y)


def weighted_bce(logits: Maps, target: Maps, valid: Maps, *, loss: WeightedBCE) -> float:
    """The cross-entropy in which cracks weigh more."""
    labels = [y for _, y in pixels(logits, target, valid)]
    weight = loss.crack_weight or min(max((len(labels) - sum(labels)) / max(sum(labels), 1), 1), loss.cap)
    costs = [-weight * math.log(p) if y else -math.log(1 - p) for p, y in pixels(logits, target, valid)]
    return float(np.mean(costs))


def balanced_bce(logits: Maps, target: Maps, valid: Maps, *, loss: BalancedBCE) -> float:
    """The cross-entropy in which both kinds of pixel weigh as much."""
    labels = [y for _, y in pixels(logits, target, valid)]
    cracks, rest = labels.count(1), labels.count(0)
    crack_weight, rest_weight = rest / (cracks + rest), loss.background * cracks / (cracks + rest)
    total = 0.0
    for p, y in pixels(logits, target, valid):
        total -= crack_weight * math.log(p) if y else rest_weight * math.log(1 - p)
    return total / (cracks + rest)


def ohem_bce(logits: Maps, target: Maps, valid: Maps, *, loss: OhemBCE) -> float:
    """The cross-entropy of the hardest pixels."""
    own = sorted(p if y else 1 - p for p, y in pixels(logits, target, valid))
    bound = max(loss.threshold, own[: loss.least_kept][-1])
    return float(np.mean([-math.log(q) for q in own if q <= bound]))


def lin_focal(logits: Maps, target: Maps, valid: Maps, *, loss: LinFocal) -> float:
    """The focal loss of Lin et al."""
    costs = []
    for p, y in pixels(logits, target, valid):
        q = p if y else 1 - p
        a = 1 if loss.alpha is None else loss.alpha if y else 1 - loss.alpha
        costs.append(-a * (1 - q) ** loss.gamma * math.log(q))
    return float(np.mean(costs))


def poly(logits: Maps, target: Maps, valid: Maps, *, loss: Poly) -> float:
    """Poly-1."""
    gamma, costs = loss.gamma if loss.base == "focal" else 0, []
    for p, y in pixels(logits, target, valid):
        q = p if y else 1 - p
        costs.append(-((1 - q) ** gamma) * math.log(q) + loss.epsilon * (1 - q) ** (gamma + 1))
    return float(np.mean(costs))


def tversky(logits: Maps, target: Maps, valid: Maps, *, loss: Tversky | FocalTversky) -> float:
    """The Tversky loss, or the focal one."""
    found = alarms = missed = 0.0
    for p, y in pixels(logits, target, valid):
        found, alarms, missed = found + p * y, alarms + p * (1 - y), missed + (1 - p) * y
    index = (found + loss.smooth) / (found + loss.fp * alarms + loss.fn * missed + loss.smooth)
    if isinstance(loss, Tversky):
        return 1 - index
    return float((1 - index) * (1 - index + 1e-6) ** (1 / loss.gamma - 1))


def robust_dice(logits: Maps, target: Maps, valid: Maps, *, loss: RobustDice) -> float:
    """The noise-robust Dice loss of a batch with cracks."""
    above, below = 0.0, loss.smooth
    for p, y in pixels(logits, target, valid):
        above, below = above + abs(p - y) ** loss.gamma, below + p**2 + y**2
    return above / below


def robust_t(logits: Maps, target: Maps, valid: Maps, *, loss: RobustT) -> float:
    """The robust T-loss at its first nu."""
    costs, nu = [], loss.nu + 1e-8
    for image in zip(logits, target, valid, strict=True):
        residuals = [p - y for p, y in pixels(*image)]
        d, squared = len(residuals), sum(residual**2 for residual in residuals)
        cost = math.lgamma(nu / 2) - math.lgamma((nu + d) / 2) + d / 2 * math.log(math.pi * nu)
        cost += (nu + d) / 2 * math.log(1 + squared / nu)
        costs.append(cost / d if loss.per == "pixel" else cost)
    return float(np.mean(costs))


Shape = tuple[tuple[int, int], ...]
CROSS: Shape = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
SQUARE: Shape = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1))


def around(x: Plane, row: int, column: int, shape: Shape) -> list[float]:
    """The values of a shape around a pixel, as far as they are within the image."""
    places = [(row + down, column + right) for down, right in shape]
    return [x[r, c] for r, c in places if 0 <= r < x.shape[0] and 0 <= c < x.shape[1]]


def eroded(x: Plane) -> Plane:
    """The least value in a cross around each pixel."""
    return np.array([[min(around(x, r, c, CROSS)) for c in range(x.shape[1])] for r in range(x.shape[0])])


def opened(x: Plane) -> Plane:
    """The greatest value, in a square around each pixel, of the eroded map."""
    least = eroded(x)
    return np.array(
        [[max(around(least, r, c, SQUARE)) for c in range(x.shape[1])] for r in range(x.shape[0])]
    )


def skeleton(x: Plane, *, iterations: int) -> Plane:
    """The soft skeleton."""
    s: Plane = np.maximum(x - opened(x), 0)
    for _ in range(iterations):
        x = eroded(x)
        d = np.maximum(x - opened(x), 0)
        s = s + np.maximum(d - s * d, 0)
    return s


def cldice(logits: Maps, target: Maps, valid: Maps, *, loss: SoftClDice) -> float:
    """Dice and soft clDice."""
    p, y = valid / (1 + np.exp(-logits)), target * valid
    of_p, of_y = (
        np.array([[skeleton(plane, iterations=loss.iterations)] for (plane,) in maps]) for maps in (p, y)
    )
    precision = ((of_p * y).sum() + 1) / (of_p.sum() + 1)
    sensitivity = ((of_y * p).sum() + 1) / (of_y.sum() + 1)
    dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
    centre = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    return float((1 - loss.a) * dice + loss.a * centre)


def skeleton_recall(logits: Maps, target: Maps, valid: Maps, *, loss: SkeletonRecall) -> float:
    """Skeleton recall, of the tubes that the valid labels give."""
    found = tubes = 1e-5
    for z, (y,), (v,) in zip(logits, target, valid, strict=True):
        tube = loss.of_mask((y * v).astype(np.uint8))
        found += float((tube * v / (1 + np.exp(-z[0]))).sum())
        tubes += float((tube * v).sum())
    return 1 - found / tubes


def boundary(logits: Maps, target: Maps, valid: Maps, *, loss: Boundary) -> float:
    """The boundary loss, each pixel's distance being that to the nearest of the others' kind."""
    costs = []
    for (z,), (y,), (v,) in zip(logits, target, valid, strict=True):
        crack = (y * v) == 1
        places = list(np.ndindex(*crack.shape))
        for place in places:
            if v[place]:
                others = [math.dist(place, other) for other in places if crack[other] != crack[place]]
                phi = min(others, default=0.0)
                if crack[place] and others:
                    phi = -(phi - 1 if loss.contour == "on_crack" else phi)
                costs.append(max(-loss.clip, min(loss.clip, phi)) / (1 + math.exp(-z[place])))
    return float(np.mean(costs))


FOUR, EIGHT = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]), np.ones((3, 3))


def persistence(x: Plane, touching: Plane) -> list[tuple[float, float]]:
    """(birth, death) of the components of x, from its highest level to its lowest: at each, the pixels that
    are as high are labelled anew. One is known by its highest pixel; the highest of all never dies."""
    pairs, alive = [], set[int]()
    for level in sorted(set(x.flat), reverse=True):
        labels, number = label(x >= level, touching)
        tops = {int(np.argmax(np.where(labels == one, x, -np.inf))) for one in range(1, number + 1)}
        pairs += [(x.flat[top], level) for top in alive - tops]
        alive = tops
    return pairs


def topology(logits: Maps, target: Maps, valid: Maps, *, loss: PersistentTopology) -> float:
    """The topology loss of a batch, patch by patch."""
    costs = []
    for z, y, v in zip(logits[:, 0], target[:, 0], valid[:, 0], strict=True):
        for row in range(0, z.shape[0], loss.patch):
            for column in range(0, z.shape[1], loss.patch):
                tile = slice(row, row + loss.patch), slice(column, column + loss.patch)
                if {0, 1} <= set(y[tile][v[tile] == 1]):
                    costs.append(_of_patch(v[tile] / (1 + np.exp(-z[tile])), y[tile] * v[tile], loss=loss))
    return float(np.mean(costs)) if costs else 0.0


def _of_patch(p: Plane, y: Plane, *, loss: PersistentTopology) -> float:
    total = 0.0
    if loss.compares != "holes":
        total += _of_diagram([*persistence(p, EIGHT), (p.max(), 0)], label(y, EIGHT)[1], loss=loss)
    if loss.compares != "components":
        framed = np.pad(1 - p, 1, constant_values=np.inf)
        background = np.pad(1 - y, 1, constant_values=1)
        total += _of_diagram(persistence(framed, FOUR), label(background, FOUR)[1] - 1, loss=loss)
    return total


def _of_diagram(pairs: list[tuple[float, float]], wanted: int, *, loss: PersistentTopology) -> float:
    counted = sorted((pair for pair in pairs if pair[0] - pair[1] > loss.least_persistence),
                     key=lambda pair: pair[1] - pair[0])  # fmt: skip
    matched = sum((birth - 1) ** 2 + death**2 for birth, death in counted[:wanted])
    rest = sum((birth - death) ** 2 / 2 for birth, death in counted[wanted:])
    return matched + rest + max(0, wanted - len(counted)) / 2


def vgg(logits: Maps, target: Maps, valid: Maps, *, loss: VGG) -> float:
    """The loss of VGG-UNet: images through VGG19's published layers, up to 3x3 convolution 8."""
    tensors = {name: tensor.double().numpy() for name, tensor in loss.build().named_buffers()}
    p, y, cost = valid / (1 + np.exp(-logits)), target * valid, 0.0
    shown = [np.repeat(x, 3, axis=1) - tensors["mean"] for x in (p, y)]
    shown = [x / tensors["std"] for x in shown]
    for number in (0, 2, "pool", 5, 7, "pool", 10, 12, 14, 16):
        if number == "pool":
            cost += float(np.mean((shown[0] - shown[1]) ** 2))
            shown = [halved(x) for x in shown]
        else:
            weight, bias = (tensors[f"features_{number}_{part}"] for part in ("weight", "bias"))
            shown = [np.maximum(convolved(x, weight) + bias[:, None, None], 0) for x in shown]
    return (cost + float(np.mean((shown[0] - shown[1]) ** 2))) / float(np.mean(valid))


Images = Float[np.ndarray, "b c h w"]


def convolved(x: Images, weight: Images) -> Images:
    """A 3x3 convolution of images in a frame of zeros."""
    framed, (_, _, h, w) = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), x.shape
    shifted = [[framed[:, :, i : i + h, j : j + w] for j in range(3)] for i in range(3)]
    out: Images = np.einsum("ijbchw,ocij->bohw", np.array(shifted), weight, optimize=True)
    return out


def halved(x: Images) -> Images:
    """The greatest of each 2x2 square; what is left over at the end is left out."""
    h, w = x.shape[2] // 2, x.shape[3] // 2
    squares = x[:, :, : 2 * h, : 2 * w].reshape(*x.shape[:2], h, 2, w, 2)
    out: Images = squares.max((3, 5))
    return out
