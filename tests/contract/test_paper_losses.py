"""The losses that papers compare with: published values, what they become at their limits, and their maps."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from pydantic import ValidationError
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.stats import multivariate_t
from torch import Tensor

from fissura.losses import (
    BCE,
    AnyLoss,
    BalancedBCE,
    Boundary,
    Dice,
    FocalTversky,
    LinFocal,
    OhemBCE,
    Poly,
    RobustDice,
    RobustT,
    SkeletonRecall,
    SoftClDice,
    Term,
    Tversky,
    WeightedBCE,
    WeightedSum,
    soft_skeleton,
)
from fissura.testing.losses import case_of, drawn_batch, value

NO_SMOOTH = 1e-12


def logits_of(p: Any) -> Tensor:
    """Logits of probabilities from 0 to 1; at 60 a float64 cannot tell the probability from 1."""
    return torch.logit(torch.as_tensor(p, dtype=torch.float64)).clamp(-60, 60)


def cost(loss: AnyLoss, p: Tensor, y: Tensor, maps: dict[str, Tensor] | None = None) -> float:
    """What the probabilities `p` of labels `y` cost, all pixels valid."""
    criterion = loss.criterion(1)
    found: Tensor = criterion((logits_of(p),), y.double(), torch.ones_like(y).double(), maps or {})
    return found.item()


def bar(rows: int = 3) -> Tensor:
    """A crack 24 pixels long in an image of 32 x 32."""
    y = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    y[..., 14 : 14 + rows, 4:28] = 1
    return y


def drawn(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities, and labels with cracks of many widths, of two images."""
    draw = torch.Generator().manual_seed(seed)
    p = torch.rand(2, 1, 12, 10, generator=draw, dtype=torch.float64) * 0.98 + 0.01
    y = torch.zeros(2, 1, 12, 10, dtype=torch.float64)
    y[0, :, 2:5, 1:9], y[0, :, 7, 3:], y[1, :, :, 4:6] = 1, 1, 1
    return p, y


@pytest.mark.parametrize(
    ("loss", "published"),
    [
        (BCE(), 0.236173),
        (WeightedBCE(), 0.236173),
        (WeightedBCE(crack_weight=3), 0.544266),
        (BalancedBCE(), 0.1221926),
        (OhemBCE(threshold=0.5, least_kept=1), 0.510826),
        (OhemBCE(least_kept=1), 0.510826),
        (OhemBCE(threshold=0.5, least_kept=2), 0.366985),
        (OhemBCE(), 0.236173),
        (LinFocal(), 0.00704523),
        (LinFocal(alpha=None), 0.0231913),
        (Dice(), 0.166667),
        (Dice(smooth=NO_SMOOTH), 0.210526),
        (Tversky(smooth=NO_SMOOTH), 0.226804),
        (FocalTversky(smooth=NO_SMOOTH), 0.328653),
        (RobustDice(), 0.125984),
        (RobustDice(gamma=2), 0.0683228),
        (Poly(), 0.436173),
        (Poly(epsilon=-1), 0.0361726),
        (Poly(base="focal"), 0.0416913),
        (RobustT(per="image"), 3.074269),
        (RobustT(per="image", nu=5), 3.533050),
    ],
    ids=str,
)
def test_four_pixels_cost_what_their_formula_gives_by_hand(loss: AnyLoss, published: float) -> None:
    p, y = torch.tensor([[0.9, 0.6, 0.2, 0.1], [1, 1, 0, 0]], dtype=torch.float64).view(2, 1, 1, 2, 2)
    assert cost(loss, p, y) == pytest.approx(published, rel=3e-6), "given with six digits"


@pytest.mark.parametrize(
    ("loss", "other"),
    [
        (Poly(epsilon=0), BCE()),
        (Poly(base="focal", epsilon=0), LinFocal(alpha=None)),
        (LinFocal(alpha=None, gamma=0), BCE()),
        (OhemBCE(), BCE()),
        (OhemBCE(threshold=1, least_kept=1), BCE()),
        (WeightedBCE(crack_weight=1), BCE()),
        (Tversky(fp=0.5, fn=0.5, smooth=0.5), Dice(smooth=1)),
        (FocalTversky(gamma=1), Tversky()),
        (SoftClDice(a=0), Dice()),
    ],
    ids=str,
)
def test_at_a_limit_it_is_another_loss(loss: AnyLoss, other: AnyLoss) -> None:
    batch = drawn_batch()
    torch.testing.assert_close(value(case_of(loss), batch), value(case_of(other), batch))


def test_robust_dice_with_gamma_2_is_dice_with_squares_below() -> None:
    p, y = drawn()
    squares = 1 - 2 * (p * y).sum() / (p.square().sum() + y.sum())
    assert cost(RobustDice(gamma=2, smooth=NO_SMOOTH), p, y) == pytest.approx(float(squares))


def test_robust_dice_of_a_batch_without_a_crack_is_nothing_and_pulls_at_nothing() -> None:
    z = torch.zeros(1, 1, 4, 4, requires_grad=True)
    found = RobustDice().build()(z, torch.zeros_like(z), torch.ones_like(z))
    (gradient,) = torch.autograd.grad(found, z)
    assert found == 0
    assert not gradient.any()


def test_the_weight_of_cracks_is_how_many_times_more_the_rest_is_up_to_the_cap() -> None:
    y = torch.zeros(1, 1, 10, 10)
    y[..., 0] = 1
    p = torch.full_like(y, 0.3)
    assert cost(WeightedBCE(), p, y) == pytest.approx(cost(WeightedBCE(crack_weight=9), p, y))
    assert cost(WeightedBCE(cap=4), p, y) == pytest.approx(cost(WeightedBCE(crack_weight=4), p, y))
    assert cost(WeightedBCE(), p, 1 - y) == pytest.approx(cost(BCE(), p, 1 - y)), "no weight below 1"


def test_a_balanced_batch_costs_what_a_weighted_one_does_times_the_share_of_cracks() -> None:
    p, y = drawn()
    share = float(y.mean())
    weighted = cost(WeightedBCE(crack_weight=(1 - share) / share), p, y)
    assert cost(BalancedBCE(background=1), p, y) == pytest.approx(share * weighted)


def test_all_cracks_weigh_as_much_as_all_the_rest() -> None:
    y = torch.zeros(1, 1, 10, 10)
    y[..., 0] = 1
    half = torch.full_like(y, 0.5)
    missed, alarms = (cost(BalancedBCE(), torch.where(y == kind, half, y), y) for kind in (1, 0))
    assert alarms == pytest.approx(1.1 * missed)
    assert missed == pytest.approx(0.1 * 0.9 * math.log(2))


def test_a_balanced_batch_without_a_crack_costs_nothing_and_pulls_at_nothing() -> None:
    z = torch.zeros(1, 1, 4, 4, requires_grad=True)
    found = BalancedBCE().build()(z, torch.zeros_like(z), torch.ones_like(z))
    (gradient,) = torch.autograd.grad(found, z)
    assert found == 0
    assert not gradient.any()


class TestOhemBCE:
    @pytest.mark.parametrize(
        ("loss", "kept"),
        [
            (OhemBCE(threshold=0.7, least_kept=3), [True, True, True, False, False, False]),
            (OhemBCE(threshold=0.5, least_kept=1), [True, False, False, False, False, False]),
            (OhemBCE(threshold=0.5, least_kept=4), [True, True, True, True, True, False]),
        ],
        ids=["below the threshold", "few are hard", "as hard as the last"],
    )
    def test_only_hard_pixels_pull(self, loss: OhemBCE, kept: list[bool]) -> None:
        z = logits_of([0.2, 0.6, 0.65, 0.8, 0.8, 0.9]).view(1, 1, 2, 3).requires_grad_()
        found = loss.build()(z, torch.ones_like(z), torch.ones_like(z))
        (gradient,) = torch.autograd.grad(found, z)
        assert (gradient != 0).flatten().tolist() == kept

    def test_the_hardest_are_those_of_the_whole_batch(self) -> None:
        y = torch.ones(2, 1, 2, 2)
        easy, hard = torch.full((1, 1, 2, 2), 0.9), torch.full((1, 1, 2, 2), 0.1)
        loss = OhemBCE(threshold=0.5, least_kept=4)
        assert cost(loss, torch.cat((easy, hard)), y) == pytest.approx(-math.log(0.1))

    def test_sure_pixels_are_told_apart_where_their_probabilities_are_all_1(self) -> None:
        z = torch.tensor([60.0, 30.0, 70.0, 80.0]).view(1, 1, 2, 2).requires_grad_()
        found = OhemBCE(least_kept=1).build()(z, torch.ones_like(z), torch.ones_like(z))
        (gradient,) = torch.autograd.grad(found, z)
        assert found.item() == pytest.approx(math.exp(-30))
        assert (gradient != 0).flatten().tolist() == [False, True, False, False]

    def test_what_is_no_number_is_not_left_out(self) -> None:
        z = torch.tensor([math.nan, 1.0, 2.0, -1.0]).view(1, 1, 2, 2)
        assert OhemBCE(least_kept=1).build()(z, torch.ones_like(z), torch.ones_like(z)).isnan()


@pytest.mark.parametrize("gamma", [0.3, 1.0, 7.0])
def test_focal_losses_are_finite_where_a_power_would_underflow(gamma: float) -> None:
    for loss in (LinFocal(gamma=gamma), Poly(base="focal", gamma=gamma)):
        z = torch.tensor([-200.0, 200.0, -200.0, 200.0]).view(1, 1, 2, 2).requires_grad_()
        found = loss.build()(z, torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 2, 2), torch.ones_like(z))
        (gradient,) = torch.autograd.grad(found, z)
        assert torch.isfinite(gradient).all()
        assert gradient.flatten()[0] < 0 < gradient.flatten()[3]


class TestRobustT:
    def test_it_is_student_s_density(self) -> None:
        batch = drawn_batch()
        residual = (batch.logits.sigmoid() - batch.target)[0][batch.valid[0] == 1].numpy()
        one = type(batch)(*(part[:1] for part in batch))
        density = multivariate_t(shape=np.eye(len(residual)), df=3.0 + 1e-8).logpdf(residual)
        assert value(case_of(RobustT(nu=3, per="image")), one).item() == pytest.approx(-density, rel=1e-6)

    def test_nu_is_a_parameter_with_the_gradient_of_the_value(self) -> None:
        batch, loss = drawn_batch(), RobustT(nu=2, per="image").build().double()
        (name,) = dict(loss.named_parameters())
        assert name == "n"
        with torch.no_grad():
            assert float(loss.n) == pytest.approx(math.log(2))
        maps = batch.logits, batch.target, batch.valid

        def of(n: Tensor) -> Tensor:
            found: Tensor = torch.func.functional_call(loss, {"n": n}, maps)
            return found

        assert torch.autograd.gradcheck(of, (loss.n.detach().requires_grad_(),))

    def test_a_crop_of_65_536_pixels_costs_some_minus_58_000_in_float32_as_in_float64(self) -> None:
        error = torch.full((1, 1, 256, 256), 0.1)
        z, y = torch.logit(error), torch.zeros_like(error)
        loss = RobustT(per="image").build()
        single = loss(z, y, torch.ones_like(z)).item()
        double = loss(z.double(), y.double(), torch.ones_like(z).double()).item()
        assert single == pytest.approx(-58_000, rel=0.01)
        assert single == pytest.approx(double, rel=1e-5)
        assert cost(RobustT(), error.double(), y) == pytest.approx(double / 65_536, rel=1e-5)


class TestClDice:
    @staticmethod
    def centre(p: Tensor, y: Tensor, *, iterations: int = 10) -> float:
        """The clDice loss alone."""
        return 2 * cost(SoftClDice(iterations=iterations), p, y) - cost(Dice(), p, y)

    @pytest.mark.parametrize(
        ("predicted", "published"),
        [("perfect", 0), ("empty", 0.916667), ("half", 0.314286), ("1 column less", 0.0222222),
         ("4 columns less", 0.0952381), ("centre line", 0), ("all", 0)],
    )  # fmt: skip
    def test_a_bar_costs_what_it_does_by_hand(self, predicted: str, published: float) -> None:
        y = bar()
        p = {"perfect": y, "empty": 0 * y, "half": 0 * y + 0.5, "all": 0 * y + 1}.get(predicted, y.clone())
        if "less" in predicted:
            p[..., 14 : 14 + int(predicted[0])] = 0  # within: the ends of a bar are not in its skeleton
        elif predicted == "centre line":
            p = 0 * y
            p[..., 15, 4:28] = 1
        assert self.centre(p, y) == pytest.approx(published, rel=2e-6, abs=1e-9)

    def test_of_zeros_and_ones_it_is_the_skeleton_of_lantuejoul(self) -> None:
        x = np.random.default_rng(0).random((24, 24)) < 0.7
        expected, left = np.zeros_like(x), x
        square, cross = np.ones((3, 3)), np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
        while left.any():
            eroded = binary_erosion(left, cross, border_value=1)
            expected |= left & ~binary_dilation(eroded, square)
            left = eroded
        found = soft_skeleton(torch.from_numpy(x).double()[None, None], iterations=24)
        assert np.array_equal(found[0, 0].numpy() > 0, expected)

    @pytest.mark.parametrize(("rows", "iterations", "pixels"), [(3, 0, 0), (3, 1, 22), (9, 3, 0), (9, 4, 16)])
    def test_a_skeleton_needs_as_many_erosions_as_reach_the_middle(
        self, rows: int, iterations: int, pixels: int
    ) -> None:
        assert soft_skeleton(bar(rows), iterations=iterations).sum() == pixels

    def test_it_never_stands_alone(self) -> None:
        with pytest.raises(ValidationError, match="less than 1"):
            SoftClDice(a=1)


class TestSkeletonRecall:
    def test_a_bar_has_a_tube_within_itself(self) -> None:
        mask = bar()[0, 0].numpy().astype(np.uint8)
        assert mask.sum() == 72
        assert SkeletonRecall().of_mask(mask).sum() == 71

    @pytest.mark.parametrize(("p", "published"), [(0.5, 0.5), (1.0, 0.0), (0.0, 1.0)])
    def test_it_is_the_share_of_the_tube_that_is_missed(self, p: float, published: float) -> None:
        y = bar()
        assert cost(SkeletonRecall(), 0 * y + p, y) == pytest.approx(published, abs=1e-6)

    def test_of_a_crack_that_is_wide_the_rim_does_not_count(self) -> None:
        y = bar(9)
        rim = y.clone()
        rim[..., 16:21, 6:26] = 0
        assert cost(SkeletonRecall(), y - rim, y) < 0.1


class TestBoundary:
    ROW = torch.tensor([0.0, 0, 1, 1, 1, 0, 0]).view(1, 1, 1, 7)

    @pytest.mark.parametrize(
        ("contour", "phi"),
        [("on_crack", [2, 1, 0, -1, 0, 1, 2]), ("between", [2, 1, -1, -2, -1, 1, 2])],
    )
    def test_the_distance_is_below_0_inside(self, contour: Any, phi: list[int]) -> None:
        mask = self.ROW[0, 0].numpy().astype(np.uint8)
        assert Boundary(contour=contour).of_mask(mask)[0].tolist() == phi

    def test_a_row_costs_what_it_does_by_hand(self) -> None:
        loss, y = Boundary(contour="on_crack"), self.ROW
        found = [cost(loss, p, y) for p in (y, torch.ones_like(y), torch.zeros_like(y))]
        assert found == pytest.approx([-1 / 7, 5 / 7, 0], abs=1e-9)

    def test_of_a_narrow_crack_all_found_costs_less_than_nothing_found_between_alone(self) -> None:
        y = torch.tensor([0.0, 0, 1, 1, 0, 0]).view(1, 1, 1, 6)
        for contour, gained in (("on_crack", 0.0), ("between", 2 / 6)):
            loss = Boundary(contour=contour)  # type: ignore[arg-type]
            assert cost(loss, 0 * y, y) - cost(loss, y, y) == pytest.approx(gained, abs=1e-9)

    def test_far_pixels_count_20_and_a_mask_without_a_contour_nothing(self) -> None:
        mask = np.zeros((1, 64), np.uint8)
        assert not Boundary().of_mask(mask).any()
        assert not Boundary().of_mask(mask + 1).any()
        mask[0, 0] = 1
        assert Boundary().of_mask(mask).max() == 20


@pytest.mark.parametrize(("loss", "name"), [(SkeletonRecall(), "skeleton"), (Boundary(), "distance")])
def test_the_map_of_the_whole_image_is_read_where_there_is_one(loss: AnyLoss, name: str) -> None:
    p, y = drawn()
    made = loss.maps({}, {7: y[0, 0].numpy().astype(np.uint8)})
    assert made.keys() == {name}
    assert made[name].keys() == {7}
    own: Float[Tensor, "1 1 h w"] = torch.from_numpy(np.array(made[name][7])).double()[None, None]
    assert cost(loss, p[:1], y[:1], {name: own}) == pytest.approx(cost(loss, p[:1], y[:1]), rel=1e-3)
    assert cost(loss, p[:1], y[:1], {name: 0 * own}) == 0, "the map is read, not the labels"


def test_in_a_sum_each_term_has_its_own_map() -> None:
    p, y = drawn()
    terms = [Term(name="recall", loss=SkeletonRecall()), Term(name="contour", weight=0.01, loss=Boundary())]
    loss = WeightedSum(terms=(Term(name="dice", loss=Dice()), *terms))
    masks = {number: plane.numpy().astype(np.uint8) for number, (plane,) in enumerate(y)}
    assert loss.maps({}, masks).keys() == {"recall.skeleton", "contour.distance"}
    expected = cost(Dice(), p, y) + sum(term.weight * cost(term.loss, p, y) for term in terms)
    assert cost(loss, p, y) == pytest.approx(expected)


def test_a_weight_grows_with_each_epoch_of_training_and_stays_in_validation() -> None:
    p, y = drawn()
    terms = Term(name="dice", loss=Dice()), Term(name="contour", weight=0.01, growth=0.02, loss=Boundary())
    inner = WeightedSum(terms=terms)
    criterion = WeightedSum(terms=(Term(name="one", loss=inner),)).criterion(1)

    def found() -> float:
        total: Tensor = criterion((logits_of(p),), y.double(), torch.ones_like(y), {})
        return total.item()

    dice, contour = cost(Dice(), p, y), cost(Boundary(), p, y)
    assert found() == pytest.approx(dice + 0.01 * contour)
    for epoch, weight in ((0, 0.01), (1, 0.03), (4, 0.09)):
        criterion.train().begin_epoch(epoch)
        assert found() == pytest.approx(dice + weight * contour)
        side = criterion.side_loss(logits_of(p), y.double(), torch.ones_like(y), {})
        assert side.item() == pytest.approx(dice + weight * contour)
        criterion.eval()
        assert found() == pytest.approx(dice + 0.01 * contour)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Poly, {"epsilon": -1.1}), (WeightedBCE, {"crack_weight": 0}), (WeightedBCE, {"cap": 0.5}),
        (BalancedBCE, {"background": 0}), (OhemBCE, {"threshold": 0}), (OhemBCE, {"least_kept": 0}),
        (LinFocal, {"alpha": 1.5}), (Tversky, {"smooth": 0}),
        (RobustDice, {"gamma": 0.9}),
        (RobustT, {"nu": 0}), (SoftClDice, {"iterations": -1}), (Boundary, {"clip": 0}),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_refused(kind: type[AnyLoss], wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        kind(**wrong)
