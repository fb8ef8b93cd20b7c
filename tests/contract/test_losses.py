"""Every loss of the union equals its formula, ignores invalid pixels and is finite at the extremes."""

from typing import NamedTuple, get_args

import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from fissura.losses import BCE, AmbiguityAware, AnyLoss, Clustering, Dice, DiceBCE, Focal
from fissura.losses.ambiguity import AmbiguityAwareLoss
from fissura.losses.clustering import ClusteringLoss

LOSSES = (
    BCE(),
    Dice(),
    Dice(smooth=0.01, over="image"),
    DiceBCE(),
    DiceBCE(dice_weight=0.3, bce_weight=2.0, smooth=5.0, over="image"),
    Focal(),
    Focal(alpha=0.5, gamma=4.0, normaliser="constant"),
    AmbiguityAware(),
    AmbiguityAware(distance="kl"),
    Clustering(k=3),
    Clustering(k=2, beta=1.5, term="exact"),
    Clustering(term="nnclr", temperature=0.5),
)
Maps = Float[np.ndarray, "b 1 h w"]


class Beside(NamedTuple):
    """What some losses read beside the logits."""

    log_variance: Float[Tensor, "b 1 h w"]
    features: Float[Tensor, "b 3 h w"]
    ambiguous: UInt8[Tensor, "b 1 h w"]

    def like(self, logits: Tensor) -> "Beside":
        return Beside(self.log_variance.to(logits.dtype), self.features.to(logits.dtype), self.ambiguous)

    def disturbed(self, valid: Tensor, nonsense: float) -> "Beside":
        kept = valid == 1
        return Beside(
            torch.where(kept, self.log_variance, nonsense),
            torch.where(kept, self.features, nonsense),
            torch.where(kept, self.ambiguous, 1 - self.ambiguous),
        )


def drawn_beside(logits: Tensor, *, ambiguous: float = 0.3) -> Beside:
    b, _, h, w = logits.shape
    chosen = (torch.rand(b, 1, h, w) < ambiguous).to(torch.uint8)
    return Beside(0.5 * torch.randn(b, 1, h, w), torch.randn(b, 3, h, w), chosen).like(logits)


def value(module: nn.Module, logits: Tensor, target: Tensor, valid: Tensor, beside: Beside) -> Tensor:
    """The loss of a batch, whatever it reads."""
    if isinstance(module, AmbiguityAwareLoss):
        return module(logits, beside.log_variance, target, valid)
    if isinstance(module, ClusteringLoss):
        return module(logits, beside.features, target, valid, beside.ambiguous)
    return module(logits, target, valid)


def sigmoid(z: Maps) -> Maps:
    return 1 / (1 + np.exp(-z))


def literal_bce(logits: Maps, target: Maps, valid: Maps) -> float:
    total, pixels = 0.0, 0
    for z, g, v in zip(logits.flat, target.flat, valid.flat, strict=True):
        if v:
            p = 1 / (1 + np.exp(-z))
            total -= g * np.log(p) + (1 - g) * np.log(1 - p)
            pixels += 1
    return total / pixels


def literal_dice(logits: Maps, target: Maps, valid: Maps, *, smooth: float, over: str) -> float:
    def coefficient(z: Maps, g: Maps, v: Maps) -> float:
        p = 1 / (1 + np.exp(-z[v == 1]))
        return float((2 * np.sum(p * g[v == 1]) + smooth) / (np.sum(p) + np.sum(g[v == 1]) + smooth))

    if over == "batch":
        return 1 - coefficient(logits, target, valid)
    return 1 - float(np.mean([coefficient(*maps) for maps in zip(logits, target, valid, strict=True)]))


def literal_focal(logits: Maps, target: Maps, valid: Maps, *, alpha: float, gamma: float) -> float:
    above, below = {0: 0.0, 1: 0.0}, {0: 0.0, 1: 0.0}
    for p, y, v in zip(sigmoid(logits).flat, target.flat, valid.flat, strict=True):
        if v:
            right = p if y else 1 - p
            above[int(y)] -= (1 - right) ** gamma * np.log(right)
            below[int(y)] += (1 - right) ** gamma
    return above[1] / below[1] + alpha * above[0] / below[0]


def literal_ambiguity(
    logits: Maps, log_variance: Maps, target: Maps, valid: Maps, *, loss: AmbiguityAware
) -> float:
    costs = []
    for z, s, y, v in zip(logits.flat, log_variance.flat, target.flat, valid.flat, strict=True):
        squared, variance = (1 / (1 + np.exp(-z)) - y) ** 2, np.exp(s)
        if v and loss.distance == "wasserstein":
            costs.append((squared + variance) / (loss.lam + variance))
        elif v:
            costs.append(squared / (2 * variance) + s / 2)
    return float(np.mean(costs))


def literal_clustering(
    loss: Clustering, logits: Maps, features: np.ndarray, target: Maps, valid: Maps, ambiguous: Maps
) -> float:
    """Without the constant of the terms `bound` and `exact`."""
    terms = []
    for z, feature, chosen in zip(logits, features, (ambiguous * valid) == 1, strict=True):
        p = sigmoid(z[chosen])
        if len(p):
            terms.append(literal_term(loss, np.stack([1 - p, p], axis=1), feature[:, chosen[0]].T))
    return literal_bce(logits, target, valid * (1 - ambiguous)) + loss.beta * float(np.mean(terms))


def literal_term(loss: Clustering, p: np.ndarray, features: np.ndarray) -> float:
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


def literal(loss: AnyLoss, logits: Maps, target: Maps, valid: Maps, beside: Beside) -> float:
    log_variance, features, ambiguous = (maps.numpy() for maps in beside)
    match loss:
        case BCE():
            return literal_bce(logits, target, valid)
        case Dice():
            return literal_dice(logits, target, valid, smooth=loss.smooth, over=loss.over)
        case DiceBCE():
            dice = literal_dice(logits, target, valid, smooth=loss.smooth, over=loss.over)
            return loss.dice_weight * dice + loss.bce_weight * literal_bce(logits, target, valid)
        case Focal():
            return literal_focal(logits, target, valid, alpha=loss.alpha, gamma=loss.gamma)
        case AmbiguityAware():
            return literal_ambiguity(logits, log_variance, target, valid, loss=loss)
        case Clustering():
            return literal_clustering(loss, logits, features, target, valid, ambiguous)


def pushed_by_constant_weights(loss: Focal, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """The gradient of the focal loss where its weights are numbers: each times that of the cross-entropy."""
    z, gradient = logits.detach(), torch.zeros_like(logits)
    for label, alpha in ((1, 1.0), (0, loss.alpha)):
        of, sign = (target == label) & (valid == 1), 2 * label - 1
        weight = torch.sigmoid(-sign * z[of]) ** loss.gamma
        gradient[of] = -sign * alpha * weight / weight.sum() * torch.sigmoid(-sign * z[of])
    return gradient


@pytest.fixture
def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and valid pixels of three images, float64; the second image has no crack."""
    target = (rng.random((3, 1, 6, 5)) < 0.3).astype(np.float64)
    target[1] = 0
    logits = rng.normal(scale=3, size=target.shape)
    valid = (rng.random(target.shape) < 0.8).astype(np.float64)
    return torch.from_numpy(logits), torch.from_numpy(target), torch.from_numpy(valid)


def test_every_kind_is_examined() -> None:
    assert {type(loss) for loss in LOSSES} == set(get_args(get_args(AnyLoss)[0]))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
class TestEveryLoss:
    def test_is_its_formula(self, loss: AnyLoss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        beside = drawn_beside(batch[0])
        expected = literal(loss, *(maps.numpy() for maps in batch), beside)
        assert value(loss.build(), *batch, beside).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)

    def test_has_the_gradient_of_its_value(self, loss: AnyLoss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        logits, target, valid = batch
        module, beside = loss.build(), drawn_beside(logits)
        logits.requires_grad_()
        if isinstance(loss, Focal) and loss.normaliser == "constant":
            (gradient,) = torch.autograd.grad(module(logits, target, valid), logits)
            torch.testing.assert_close(gradient, pushed_by_constant_weights(loss, logits, target, valid))
        else:
            assert torch.autograd.gradcheck(lambda z: value(module, z, target, valid, beside), (logits,))

    @pytest.mark.parametrize("nonsense", [1e4, float("inf"), float("nan")])
    def test_invalid_pixels_count_for_nothing(
        self, loss: AnyLoss, batch: tuple[Tensor, Tensor, Tensor], nonsense: float
    ) -> None:
        logits, target, valid = batch
        module, beside = loss.build(), drawn_beside(logits)
        disturbed = torch.where(valid == 1, logits, nonsense).requires_grad_()
        other_target = torch.where(valid == 1, target, 1 - target)
        cost = value(module, disturbed, other_target, valid, beside.disturbed(valid, nonsense))
        cost.backward()
        assert cost.item() == value(module, logits, target, valid, beside).item()
        assert torch.all(disturbed.grad[valid == 0] == 0)
        assert torch.any(disturbed.grad[valid == 1] != 0)

    @pytest.mark.parametrize("crack", [0.0, 1.0], ids=["empty mask", "full mask"])
    @pytest.mark.parametrize("valid", [0.0, 1.0], ids=["all invalid", "all valid"])
    @pytest.mark.parametrize("logit", [-50.0, 0.0, 50.0])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
    def test_is_finite_at_the_extremes(
        self, loss: AnyLoss, crack: float, valid: float, logit: float, dtype: torch.dtype
    ) -> None:
        shape = (2, 1, 4, 4)
        logits = torch.full(shape, logit, dtype=dtype, requires_grad=True)
        beside = drawn_beside(logits)
        cost = value(loss.build(), logits, torch.full(shape, crack), torch.full(shape, valid), beside)
        cost.backward()
        assert torch.isfinite(cost)
        assert torch.isfinite(logits.grad).all()
        if valid == 0:
            assert cost == 0
            assert torch.all(logits.grad == 0)

    def test_a_right_answer_costs_less_than_a_wrong_one(
        self, loss: AnyLoss, batch: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        _, target, valid = batch
        module, certain, beside = loss.build(), 20 * (2 * target - 1), drawn_beside(batch[0])
        right, wrong = (value(module, z, target, valid, beside) for z in (certain, -certain))
        assert wrong > right + 0.5
        # a variance costs something too, and so do pixels unlike their neighbours
        if not isinstance(loss, AmbiguityAware | Clustering):
            assert right < 0.01

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_is_computed_in_float32_under_autocast(self, loss: AnyLoss, dtype: torch.dtype) -> None:
        # 300 000 pixels: their sum is past the largest float16, and a bfloat16 cannot count them.
        logits = torch.randn(1, 1, 500, 600).to(dtype)
        target, valid = (torch.rand(2, 1, 1, 500, 600) < 0.9).float()
        module, beside = loss.build(), drawn_beside(logits, ambiguous=0.01)
        with torch.autocast("cpu", dtype=dtype):
            cost = value(module, logits, target, valid, beside)
        assert cost.dtype == torch.float32
        wide = logits.double()
        exact = value(module, wide, target.double(), valid.double(), beside.like(wide))
        assert cost.item() == pytest.approx(exact.item(), rel=1e-4)

    def test_survives_its_plain_form(self, loss: AnyLoss) -> None:
        assert TypeAdapter(AnyLoss).validate_python(loss.plain()) == loss


def test_over_the_batch_an_empty_image_does_not_dominate() -> None:
    target = torch.zeros(2, 1, 8, 8)
    target[0, :, 2] = 1
    logits, valid = torch.where(target == 1, 20.0, -3.0), torch.ones_like(target)
    batch, image = (Dice(over=over).build()(logits, target, valid) for over in ("batch", "image"))
    assert batch < 0.6 * image


def test_a_loss_that_weighs_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="make one of them positive"):
        DiceBCE(dice_weight=0, bce_weight=0)
