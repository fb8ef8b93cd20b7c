"""Maps that a network gives in training alone: their targets, their losses, and who never sees them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from fissura.losses import BCE, AmbiguityAware, AnyLoss, Clustering, Dice, Term, WeightedSum, boundary_region
from fissura.losses.clustering import AMBIGUOUS
from fissura.losses.loss import Criterion
from fissura.models import JTFN, Segmenter, SideMap, UNet, UNetNetwork
from fissura.segmentation.micro_batches import backward_in_parts
from fissura.segmentation.objective import PhaseObjective
from fissura.training.mixed_precision import MixedPrecision

FLOAT32 = MixedPrecision("float32", torch.device("cpu"))


class Supervised(Segmenter):
    """One convolution; beside the crack logits, a mask at half the size and a boundary at the whole."""

    stride, feature_channels, crack_weight = 2, 4, 0.5
    side_maps = (SideMap("mask", weight=0.3), SideMap("boundary", weight=2.0))

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.heads = nn.ModuleList(nn.Conv2d(4, 1, 1) for _ in range(3))

    def features(self, image: Tensor) -> Tensor:
        features: Tensor = self.convolution(image)
        return features

    def head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.heads[0](features)
        return logits

    def with_side_maps(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        features = self.features(image)
        return features, (self.heads[1](avg_pool2d(features, 2)), self.heads[2](features))


def batch(images: int = 5) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(3)
    image = torch.rand(images, 3, 16, 16, generator=draw, dtype=torch.float64)
    target, hidden, unclear = (
        (torch.rand(images, 1, 16, 16, generator=draw) < share).double() for share in (0.2, 0.3, 0.3)
    )
    return image, target, 1 - hidden, {AMBIGUOUS: unclear, f"clusters.{AMBIGUOUS}": unclear}


def objective(loss: AnyLoss, network: Segmenter | None = None) -> PhaseObjective:
    torch.manual_seed(0)
    return PhaseObjective(network or Supervised(), loss).double().train()


def bce(z: Tensor, y: Tensor, counted: Tensor) -> Tensor:
    p = z.double().sigmoid()
    return -(counted * (y * p.log() + (1 - y) * (1 - p).log())).sum() / counted.sum()


class TestABoundary:
    def test_is_the_ring_around_a_crack(self) -> None:
        mask = torch.zeros(1, 1, 7, 9)
        mask[..., 3, 3:6] = 1
        ring = boundary_region(mask)
        assert ring.sum() == 12
        assert torch.equal(ring[0, 0, 2:5, 2:7], torch.tensor([[1.0] * 5, [1, 0, 0, 0, 1], [1] * 5]))

    def test_of_a_mask_without_a_crack_or_without_background_is_empty(self) -> None:
        for value in (0, 1):
            assert boundary_region(torch.full((1, 1, 5, 5), value, dtype=torch.uint8)).sum() == 0


class TestTheLoss:
    def test_is_the_weighted_sum_of_all_maps_at_their_own_sizes(self) -> None:
        trained, (image, target, valid, maps) = objective(Dice()), batch()
        loss, logits = trained(image, target, valid, maps)
        features, (mask, boundary) = trained.model.with_side_maps(image)
        known = target * valid
        ring = max_pool2d(known, 3, stride=1, padding=1) - known
        expected = (
            0.5 * Dice().build()(trained.model.head(features), target, valid)
            + 0.3 * Dice().build()(mask, target[..., ::2, ::2], valid[..., ::2, ::2])
            + 2.0 * bce(boundary, ring, valid)
        )
        torch.testing.assert_close(loss.double(), expected.double(), rtol=1e-5, atol=1e-5)
        assert logits.shape == target.shape

    def test_of_jtfn_is_that_of_its_paper(self) -> None:
        """Of each step, the mean over four masks plus that over four boundaries."""
        network = JTFN(width=2, steps=2).build()
        trained, (image, target, valid, _) = objective(BCE(), network), batch(2)
        valid = torch.ones_like(valid)
        (loss, logits), (_, sides) = trained(image, target, valid, {}), network.with_side_maps(image)
        ring = max_pool2d(target, 3, stride=1, padding=1) - target
        first, second = sides[:8], sides[8:]
        masks = [*first[:3], first[7], *second[:3], logits]
        expected = sum(bce(z, target, valid) for z in masks) + sum(
            bce(z, ring, valid) for z in (*first[3:7], *second[3:])
        )
        torch.testing.assert_close(loss.double(), expected / 4, rtol=1e-5, atol=1e-5)

    def test_counts_no_invalid_pixel(self) -> None:
        trained, (image, target, valid, maps) = objective(BCE()), batch()
        other = torch.where(valid > 0, target, 1 - target)
        assert trained(image, target, valid, maps)[0] == trained(image, other, valid, maps)[0]

    @pytest.mark.parametrize("loss", [AmbiguityAware(), Clustering(k=3)], ids=lambda loss: loss.kind)
    def test_of_cirl_is_the_cross_entropy_of_the_side_maps_outside_the_ambiguous_region(
        self, loss: AmbiguityAware | Clustering
    ) -> None:
        trained, (image, target, valid, maps) = objective(loss), batch()
        outputs = trained.outputs(image)
        own = trained.criterion(outputs[:2], target, valid, maps)
        clear = 1 - maps[AMBIGUOUS] if isinstance(loss, Clustering) else torch.ones_like(valid)
        known = target * valid
        ring = max_pool2d(known, 3, stride=1, padding=1) - known
        half = bce(outputs[2], target[..., ::2, ::2], (valid * clear)[..., ::2, ::2])
        expected = 0.5 * own + 0.3 * half + 2.0 * bce(outputs[3], ring, valid)
        found = trained.loss_of(outputs, target, valid, maps)
        torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-5)

    def test_that_reads_features_and_says_nothing_of_side_maps_is_refused(self) -> None:
        class Reading(Criterion):
            reads = 1

        ones = torch.ones(1, 1, 2, 2)
        with pytest.raises(NotImplementedError, match="Reading: a loss with `readings` has a `side_loss`"):
            Reading(BCE().build()).side_loss(ones, ones, ones, {})


SUM = WeightedSum(
    terms=(
        Term(name="dice", weight=0.3, loss=Dice()),
        Term(name="doubt", weight=0.5, loss=AmbiguityAware()),
        Term(name="clusters", loss=Clustering(k=4, term="nnclr")),
    )
)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("loss", [BCE(), Dice(), SUM], ids=lambda loss: loss.kind)
def test_the_gradient_of_a_batch_in_parts_is_that_of_the_whole(loss: AnyLoss, size: int) -> None:
    trained, (image, *maps) = objective(loss), batch()
    trained(image, *maps)[0].backward()
    expected = [parameter.grad.clone() for parameter in trained.parameters() if parameter.grad is not None]
    assert len(expected) == len(list(trained.parameters()))
    trained.zero_grad(set_to_none=True)
    backward_in_parts(trained, image, *maps, size=size, precision=FLOAT32)
    found = [parameter.grad for parameter in trained.parameters()]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


class TestOutsideOfTraining:
    def test_there_are_none(self) -> None:
        trained, (image, target, valid, _) = objective(BCE()).eval(), batch()
        (logits,) = trained.outputs(image)
        assert torch.equal(logits, trained.model(image).float())
        loss, _ = trained(image, target, valid, {})
        assert loss == BCE().build()(logits, target, valid)

    def test_nor_are_there_any_in_the_training_of_a_network_without(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def asked(*_: object) -> None:
            raise AssertionError("nobody asks for side maps")

        monkeypatch.setattr(UNetNetwork, "with_side_maps", asked)
        trained, (image, *_) = objective(BCE(), UNet(width=2, depth=1).build()), batch()
        assert len(trained.outputs(image)) == 1


@pytest.fixture
def one_worker(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_worker")
def test_a_data_parallel_training_uses_every_parameter_at_every_step() -> None:
    """It ends with an error in the second step where one had no part in the loss."""
    parallel = nn.parallel.DistributedDataParallel(
        objective(AmbiguityAware(), JTFN(width=2, steps=2).build())
    )
    image, target, valid, _ = batch(2)
    for _ in range(2):
        parallel(image, target, valid, {})[0].backward()
    assert all(parameter.grad is not None for parameter in parallel.parameters())
