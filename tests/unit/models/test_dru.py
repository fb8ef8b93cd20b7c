"""The recurrent U-Net (Wang et al., ICCV 2019): its unit, its steps and their losses."""

import pytest
import torch
from torch import Tensor

from fissura.losses import BCE
from fissura.models import DRU
from fissura.models.dru import RecurrentUnit
from fissura.segmentation.objective import PhaseObjective


def drawn(seed: int = 0) -> Tensor:
    return torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def test_each_step_is_the_last_one_of_a_network_of_fewer_steps() -> None:
    """And reads the mask of the step before it, through which its gradient passes."""
    image, networks = drawn(), []
    for steps in (1, 2, 3):
        torch.manual_seed(0)
        networks.append(DRU(width=4, steps=steps).build().eval())
    features, sides = networks[2].with_side_maps(image)
    last = networks[2].head(features)
    for network, logits in zip(networks, (*sides, last), strict=True):
        torch.testing.assert_close(network(image), logits)
    assert not torch.allclose(sides[0], last, atol=1e-3)
    # of the features, the head is a part through the mask of an earlier step alone
    (gradient,) = torch.autograd.grad(features.sum(), networks[2].get_parameter("to_logits.weight"))
    assert gradient.abs().max() > 0


def test_the_state_goes_from_step_to_step() -> None:
    """With a head that gives the same mask whatever it reads, nothing else could change a step."""
    network = DRU(width=4, steps=2).build().eval()
    torch.nn.init.zeros_(network.get_parameter("to_logits.weight"))
    # a probability of 0, as before the first step
    torch.nn.init.constant_(network.get_parameter("to_logits.bias"), -1e9)
    first = DRU(width=4, steps=1).build().eval()
    first.load_state_dict(network.state_dict())
    assert not torch.allclose(network.features(drawn()), first.features(drawn()), atol=1e-3)


@pytest.mark.parametrize("unit", ["dual", "single"])
def test_the_unit_is_its_formula(unit: str) -> None:
    found = RecurrentUnit(8, unit=unit, gates="linear")  # type: ignore[arg-type]
    e, h = torch.randn(2, 8, 4, 6), torch.randn(2, 16, 4, 6)
    r = 1.0 if found.reset is None else 1 / (1 + torch.exp(-found.reset(e)))
    z = 1 / (1 + torch.exp(-found.update(e)))
    torch.testing.assert_close(found(e, h), (1 - z) * h + z * torch.tanh(found.candidate(r * e)))
    assert (found.reset is None) == (unit == "single")


def test_published_gates_never_close_and_linear_ones_do() -> None:
    e = torch.randn(2, 8, 4, 6)
    for gates, least in (("relu", 0.0), ("linear", -1.0)):
        unit = RecurrentUnit(8, unit="dual", gates=gates)  # type: ignore[arg-type]
        z = unit.update(e).sigmoid()
        assert z.min() >= 0.5 if gates == "relu" else z.min() < 0.5
        state = unit(e, torch.zeros(()))
        assert least <= state.min()
        assert (state.min() < 0) == (gates == "linear")


def test_the_loss_is_the_cross_entropy_of_every_step_the_earlier_the_less() -> None:
    network, image = DRU(width=4).build(), drawn()
    target, valid = (drawn(1)[:, :1] > 1).float(), torch.ones(1, 1, 32, 48)
    found, logits = PhaseObjective(network, BCE()).train()(image, target, valid, {})
    _, sides = network.with_side_maps(image)
    losses = [BCE().build()(z, target, valid) for z in (*sides, logits)]
    torch.testing.assert_close(found, 0.16 * losses[0] + 0.4 * losses[1] + losses[2])
