"""The topology loss: persistence against counts at every threshold, values by hand, and where it pulls."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from torch import Tensor

from fissura.losses import BCE, PersistentTopology, Term, WeightedSum
from fissura.losses.persistence import components, holes

ROW = [0.9, 0.4, 0.8, 0.1, 0.6, 0.1, 0.2]
EIGHT = np.ones((3, 3))


def cost(loss: PersistentTopology, p: Tensor, y: Tensor) -> Tensor:
    """What the probabilities of an image cost, all pixels valid."""
    z, y = torch.logit(p.double()).clamp(-60, 60)[None, None], y.double()[None, None]
    found: Tensor = loss.build()(z, y, torch.ones_like(y))
    return found


def pull(loss: PersistentTopology, p: Tensor, y: Tensor) -> Tensor:
    """The way that gradient descent moves each probability."""
    z = torch.logit(p.double())[None, None].requires_grad_()
    y = y.double()[None, None]
    (gradient,) = torch.autograd.grad(loss.build()(z, y, torch.ones_like(y)), z)
    return -gradient[0, 0].sign()


def maps() -> list[np.ndarray[Any, Any]]:
    """Maps of many shapes; half of them have few levels, and so many equal pixels."""
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 7), (7, 1), (3, 3), (9, 14), (14, 9), (20, 20)]
    drawn = [rng.random(shape) for shape in shapes]
    return [*drawn, *((plane * 4).round() / 4 for plane in drawn)]


class TestPersistence:
    @pytest.mark.parametrize("p", maps(), ids=lambda p: f"{p.shape}")
    def test_at_every_threshold_as_many_pairs_live_as_there_are_components_and_holes(self, p: Any) -> None:
        values = np.append(p, 0)
        for threshold in [*np.unique(p[p > 0]), 0.37]:
            crack = p >= threshold
            background = np.pad(~crack, 1, constant_values=True)
            expected = label(crack, EIGHT)[1], label(background)[1] - 1
            pairs = components(p), holes(p)
            alive = tuple(
                int(((values[highs] >= threshold) & (values[lows] < threshold)).sum())
                for highs, lows in pairs
            )
            assert alive == expected, threshold

    def test_a_row_has_the_pairs_that_it_has_by_hand(self) -> None:
        p = np.array([ROW])
        highs, lows = components(p)
        values = np.append(p, 0)
        found = {(values[high], values[low]) for high, low in zip(highs, lows, strict=True)}
        assert {pair for pair in found if pair[0] > pair[1]} == {(0.9, 0), (0.6, 0.1), (0.8, 0.4), (0.2, 0.1)}

    def test_a_ring_closes_at_its_lowest_pixel_and_is_filled_at_the_lowest_within(self) -> None:
        p = np.full((5, 5), 0.1)
        p[1:4, 1:4] = 0.9
        p[1, 2], p[2, 2] = 0.7, 0.2
        highs, lows = holes(p)
        stands_out = p.ravel()[highs] > p.ravel()[lows]
        assert [(highs[stands_out].tolist(), lows[stands_out].tolist())] == [([7], [12])]

    def test_rings_whose_pixels_touch_at_corners_alone_enclose_a_hole(self) -> None:
        diamond = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], float)
        highs, _ = holes(diamond)
        assert len(highs) == 1


class TestValue:
    @pytest.mark.parametrize(
        ("labels", "by_hand"), [([1, 1, 1, 0, 0, 0, 0], 0.22), ([1, 1, 1, 0, 1, 0, 0], 0.265)]
    )
    def test_a_row_costs_what_it_does_by_hand(self, labels: list[float], by_hand: float) -> None:
        p, y = torch.tensor([ROW]), torch.tensor([labels])
        assert cost(PersistentTopology(), p, y).item() == pytest.approx(by_hand)

    def test_a_mask_with_as_many_components_costs_nothing_wherever_they_lie(self) -> None:
        rng = np.random.default_rng(0)
        masks = (torch.from_numpy(rng.random((200, 6, 6)) < 0.3)).double()
        by_number: dict[int, list[Tensor]] = {}
        for mask in masks:
            by_number.setdefault(label(mask.numpy(), EIGHT)[1], []).append(mask)
        for number, (first, *others) in by_number.items():
            for other in others if number else []:
                assert cost(PersistentTopology(), other, first).item() == pytest.approx(0, abs=1e-12)
        for (few, (one, *_)), (many, (two, *_)) in product(by_number.items(), repeat=2):
            if few:
                assert cost(PersistentTopology(), two, one).item() == pytest.approx(
                    abs(few - many) / 2, abs=1e-9
                )

    def test_patches_of_one_kind_are_left_out_of_the_mean(self) -> None:
        y = torch.zeros(8, 24)
        y[:, 8:16], y[2, 18:22] = 1, 1
        p = 0.02 + 0.96 * y
        p[2, 20] = 0.5
        alone = cost(PersistentTopology(patch=8), p[:, 16:], y[:, 16:])
        assert cost(PersistentTopology(patch=8), p, y).item() == pytest.approx(alone.item())
        assert alone > 0

    def test_what_stands_out_little_is_neither_a_crack_nor_an_island(self) -> None:
        y = torch.zeros(3, 7)
        y[1, 1], y[1, 5] = 1, 1
        p = torch.full((3, 7), 0.5)
        p[1, 5] = 0.52
        one_pair = (1 - 0.52) ** 2 + 0.5  # the highest, from 0.52 to 0, and the half for one that is missing
        assert cost(PersistentTopology(), p, y).item() == pytest.approx(one_pair, abs=1e-6)


class TestPull:
    def test_a_gap_is_closed_where_it_is_highest_and_an_island_pushed_down(self) -> None:
        y = torch.zeros(3, 9)
        y[1, 0:5] = 1
        p = torch.full((3, 9), 0.1)
        p[1, 0:2], p[1, 2], p[1, 3:5] = 0.8, 0.3, 0.7
        p[1, 0], p[1, 3], p[1, 7] = 0.9, 0.75, 0.6
        moved = pull(PersistentTopology(), p, y)
        assert moved[1, 0] == 1, "the top of what is wanted rises"
        assert (moved[1, 2], moved[1, 3]) == (1, -1), "the gap and what lies beyond it come together"
        assert moved[1, 7] == -1
        assert int(moved.abs().sum()) == 5, "two pixels a pair, but one for the highest"

    def test_two_cracks_that_touch_are_parted(self) -> None:
        y = torch.zeros(3, 7)
        y[1, 0:3], y[1, 4:7] = 1, 1
        p = 0.05 + 0.85 * y
        p[1, 0], p[1, 6], p[1, 3] = 0.95, 0.94, 0.6
        moved = pull(PersistentTopology(), p, y)
        assert (moved[1, 0], moved[1, 6], moved[1, 3]) == (1, 1, -1)

    def test_a_ring_with_a_gap_is_closed_by_holes_alone(self) -> None:
        y = torch.zeros(5, 5)
        y[1:4, 1:4], y[2, 2] = 1, 0
        p = 0.05 + 0.9 * y
        p[1, 2], p[2, 2] = 0.3, 0.1
        moved = pull(PersistentTopology(compares="holes"), p, y)
        assert (moved[1, 2], moved[2, 2]) == (1, -1)
        assert int(moved.abs().sum()) == 2

    def test_nothing_is_made_from_nothing(self) -> None:
        y = torch.zeros(5, 5)
        y[2, 2] = 1
        p = torch.full((5, 5), 0.01)
        assert cost(PersistentTopology(), p, y).item() == pytest.approx(0.5)
        assert not pull(PersistentTopology(), p, y).any()


def test_in_a_sum_it_adds_its_share() -> None:
    y = torch.zeros(1, 1, 6, 6)
    y[..., 2, :] = 1
    z, v = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)), torch.ones_like(y)
    terms = Term(name="bce", loss=BCE()), Term(name="topology", weight=0.05, loss=PersistentTopology())
    found = WeightedSum(terms=terms).criterion(1)((z,), y, v, {})
    assert found.item() == pytest.approx(
        (BCE().build()(z, y, v) + 0.05 * PersistentTopology().build()(z, y, v)).item()
    )
